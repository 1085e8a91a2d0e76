/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake and the encrypted streams, without sockets: who gets in, who does not and is told
 * why, and that nothing on the way can be changed, repeated or sent back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/federation_net_fixture.h"

enum { DIALER = 0, CALLED = 1, STRANGER = 7 };

/* One end, with its own idea of the federation. */
struct end {
    struct net_member member;
    struct channel_config config;
    const unsigned char *signs_with; /* another secret than the member's */
    bool cannot_sign;
    int members; /* the first ones are admitted */
    const unsigned char *revoked;
    struct channel *channel;
    struct strbuf out;
    struct strbuf in; /* received, not yet taken */
    enum channel_event last;
    struct sov_errbuf err;
    struct strbuf messages; /* all data that came, one after the other */
    int opened, data, pings, pongs;
};

static struct end a, b;

static bool end_sign(void *user, const char *domain, const void *message, size_t length,
                     unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct end *end = user;
    const unsigned char *secret = end->signs_with != NULL ? end->signs_with : end->member.secret;
    net_sign_with(secret, domain, message, length, signature);
    return !end->cannot_sign;
}

static enum channel_refusal end_admit(void *user, const unsigned char key[CHANNEL_KEY_BYTES])
{
    struct end *end = user;
    if (end->revoked != NULL && memcmp(end->revoked, key, CHANNEL_KEY_BYTES) == 0)
        return CHANNEL_REVOKED;
    for (int i = 0; i < end->members; i++)
        if (memcmp(net_member(i).key, key, CHANNEL_KEY_BYTES) == 0) return CHANNEL_ADMITTED;
    return CHANNEL_UNKNOWN;
}

static void end_init(struct end *end, int member)
{
    *end = (struct end){.member = net_member(member), .members = 4};
    memcpy(end->config.key, end->member.key, sizeof end->config.key);
    memset(end->config.federation, 'F', sizeof end->config.federation);
    memset(end->config.instance, 'i' + member, sizeof end->config.instance);
    end->config.sign = end_sign;
    end->config.admit = end_admit;
    end->config.user = end;
}

static void end_free(struct end *end)
{
    channel_free(end->channel);
    strbuf_free(&end->out);
    strbuf_free(&end->in);
    strbuf_free(&end->messages);
}

static int setup(void **state)
{
    (void)state;
    if (sodium_init() < 0) return -1;
    end_init(&a, DIALER);
    end_init(&b, CALLED);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    end_free(&a);
    end_free(&b);
    return 0;
}

static enum sov_error end_start(struct end *end, const unsigned char *peer)
{
    static unsigned char seeds;
    unsigned char seed[CHANNEL_SEED_BYTES];
    memset(seed, ++seeds, sizeof seed);
    enum sov_error rc = channel_create(&end->config, peer, seed, &end->channel, &end->err);
    end->last = CHANNEL_MORE;
    if (rc == SOV_OK && peer != NULL) rc = channel_start(end->channel, &end->out, &end->err);
    return rc;
}

/* Takes what is in end->in, frame by frame. */
static void end_take(struct end *end)
{
    size_t done = 0, consumed;
    struct channel_message message;
    while (end->last != CHANNEL_CLOSED) {
        enum channel_event event =
            channel_receive(end->channel, (unsigned char *)end->in.data + done,
                            end->in.length - done, &consumed, &message, &end->out, &end->err);
        done += consumed;
        if (event == CHANNEL_MORE) break;
        end->last = event;
        if (event == CHANNEL_OPEN) end->opened++;
        if (event == CHANNEL_PING) end->pings++;
        if (event == CHANNEL_PONG) end->pongs++;
        if (event == CHANNEL_DATA) {
            end->data++;
            strbuf_append(&end->messages, message.bytes, message.length);
        }
    }
    strbuf_consume(&end->in, done);
}

static void pass(struct end *from, struct end *to)
{
    strbuf_append(&to->in, strbuf_text(&from->out), from->out.length);
    strbuf_clear(&from->out);
    end_take(to);
}

/* Until nothing is under way. */
static void talk(void)
{
    while (a.out.length > 0 || b.out.length > 0) {
        pass(&a, &b);
        pass(&b, &a);
    }
}

static void start_both(void)
{
    assert_int_equal(end_start(&a, b.member.key), SOV_OK);
    assert_int_equal(end_start(&b, NULL), SOV_OK);
}

static void open_both(void)
{
    start_both();
    talk();
    assert_int_equal(a.opened, 1);
    assert_int_equal(b.opened, 1);
    assert_true(channel_is_open(a.channel) && channel_is_open(b.channel));
}

static void say(struct end *from, const char *text)
{
    assert_int_equal(
        channel_send(from->channel, FRAME_DATA, text, strlen(text), &from->out, &from->err),
        SOV_OK);
}

static void assert_refused(struct end *by, struct end *whom, enum channel_refusal why)
{
    assert_int_equal(by->last, CHANNEL_CLOSED);
    assert_int_equal(whom->last, CHANNEL_CLOSED);
    assert_int_equal(channel_refusal(by->channel), why);
    assert_int_equal(channel_refusal(whom->channel), why);
    assert_non_null(strstr(by->err.message, channel_refusal_text((int)why)));
    assert_non_null(strstr(whom->err.message, channel_refusal_text((int)why)));
    assert_int_equal(whom->data + by->data, 0);
}

/* ---- who gets in ---- */

static void test_two_members_talk(void **state)
{
    (void)state;
    open_both();
    assert_true(channel_dialed(a.channel) && !channel_dialed(b.channel));
    assert_memory_equal(channel_peer(a.channel), b.member.key, CHANNEL_KEY_BYTES);
    assert_memory_equal(channel_peer(b.channel), a.member.key, CHANNEL_KEY_BYTES);
    assert_memory_equal(channel_peer_instance(a.channel), b.config.instance,
                        CHANNEL_INSTANCE_BYTES);
    assert_memory_equal(channel_peer_instance(b.channel), a.config.instance,
                        CHANNEL_INSTANCE_BYTES);
    say(&a, "one ");
    say(&a, "two ");
    say(&b, "back");
    say(&a, "");
    assert_null(strstr(a.out.data, "one"));
    talk();
    assert_string_equal(strbuf_text(&b.messages), "one two ");
    assert_int_equal(b.data, 3);
    assert_string_equal(strbuf_text(&a.messages), "back");
    assert_int_equal(
        channel_send(a.channel, FRAME_PING, "12345678", CHANNEL_PING_BYTES, &a.out, NULL), SOV_OK);
    assert_int_equal(
        channel_send(b.channel, FRAME_PONG, "12345678", CHANNEL_PING_BYTES, &b.out, NULL), SOV_OK);
    talk();
    assert_int_equal(b.pings, 1);
    assert_int_equal(a.pongs, 1);
}

static void test_bytes_may_come_one_by_one(void **state)
{
    (void)state;
    start_both();
    for (int i = 0; i < 4; i++) {
        struct end *from = i % 2 == 0 ? &a : &b, *to = i % 2 == 0 ? &b : &a;
        if (i == 2) assert_int_equal(b.opened, 0);
        for (size_t at = 0; at < from->out.length; at++) {
            strbuf_append(&to->in, from->out.data + at, 1);
            end_take(to);
        }
        strbuf_clear(&from->out);
    }
    assert_true(channel_is_open(a.channel) && channel_is_open(b.channel));
}

static void test_unknown_key_is_refused(void **state)
{
    (void)state;
    end_free(&a);
    end_init(&a, STRANGER);
    start_both();
    talk();
    assert_refused(&b, &a, CHANNEL_UNKNOWN);
}

static void test_revoked_key_is_refused(void **state)
{
    (void)state;
    b.revoked = a.member.key;
    start_both();
    talk();
    assert_refused(&b, &a, CHANNEL_REVOKED);
}

static void test_key_revoked_during_the_handshake(void **state)
{
    (void)state;
    start_both();
    pass(&a, &b);
    assert_int_equal(b.last, CHANNEL_STEP);
    b.revoked = a.member.key;
    talk();
    assert_refused(&b, &a, CHANNEL_REVOKED);
}

static void test_other_federation_is_refused(void **state)
{
    (void)state;
    a.config.federation[31] ^= 1;
    start_both();
    talk();
    assert_refused(&b, &a, CHANNEL_FEDERATION);
}

static void test_another_member_at_the_address(void **state)
{
    (void)state;
    assert_int_equal(end_start(&a, net_member(2).key), SOV_OK);
    assert_int_equal(end_start(&b, NULL), SOV_OK);
    talk();
    assert_refused(&b, &a, CHANNEL_MISDIALED);
}

static void test_a_copy_of_the_own_key(void **state)
{
    (void)state;
    end_free(&a);
    end_init(&a, CALLED);
    start_both();
    talk();
    assert_refused(&b, &a, CHANNEL_SELF);
}

static void test_versions_without_one_in_common(void **state)
{
    (void)state;
    start_both();
    a.out.data[FRAME_HEADER_BYTES] = CHANNEL_VERSION + 1;
    a.out.data[FRAME_HEADER_BYTES + 1] = CHANNEL_VERSION + 2;
    talk();
    assert_refused(&b, &a, CHANNEL_VERSIONS);
}

static void test_a_newer_version_finds_the_common_one(void **state)
{
    (void)state;
    start_both();
    /* That it offers more is signed: whoever makes the offer smaller on the way is found out. */
    a.out.data[FRAME_HEADER_BYTES + 1] = CHANNEL_VERSION + 1;
    pass(&a, &b);
    assert_int_equal(b.last, CHANNEL_STEP);
    talk();
    assert_refused(&a, &b, CHANNEL_UNPROVEN);
}

static void test_key_without_its_secret(void **state)
{
    (void)state;
    static struct net_member thief;
    thief = net_member(STRANGER);
    a.signs_with = thief.secret;
    start_both();
    talk();
    assert_refused(&b, &a, CHANNEL_UNPROVEN);
    assert_int_equal(b.opened, 0);
    teardown(NULL);
    setup(NULL);
    b.signs_with = thief.secret;
    start_both();
    talk();
    assert_refused(&a, &b, CHANNEL_UNPROVEN);
    assert_int_equal(a.opened + b.opened, 0);
}

static void test_node_that_cannot_sign(void **state)
{
    (void)state;
    b.cannot_sign = true;
    start_both();
    talk();
    assert_int_equal(b.last, CHANNEL_CLOSED);
    assert_int_equal(a.opened, 0);
    teardown(NULL);
    setup(NULL);
    a.cannot_sign = true;
    start_both();
    talk();
    assert_int_equal(a.last, CHANNEL_CLOSED);
    assert_int_equal(b.opened, 0);
}

/* ---- attacks on the handshake ---- */

/* Runs a handshake and keeps what was sent: [0] HELLO, [1] CHALLENGE, [2] PROOF, [3] READY. */
static void record(struct strbuf recorded[4])
{
    start_both();
    for (int i = 0; i < 4; i++) {
        struct end *from = i % 2 == 0 ? &a : &b, *to = i % 2 == 0 ? &b : &a;
        strbuf_append(&recorded[i], from->out.data, from->out.length);
        pass(from, to);
    }
    assert_true(a.opened == 1 && b.opened == 1);
    teardown(NULL);
    setup(NULL);
}

static void forget(struct strbuf recorded[4])
{
    for (int i = 0; i < 4; i++) strbuf_free(&recorded[i]);
}

static void play(struct strbuf *bytes, struct end *to)
{
    strbuf_append(&to->in, bytes->data, bytes->length);
    end_take(to);
}

static void test_recorded_dialer_is_not_believed(void **state)
{
    (void)state;
    struct strbuf recorded[4] = {{0}};
    record(recorded);
    assert_int_equal(end_start(&b, NULL), SOV_OK);
    play(&recorded[0], &b);
    assert_int_equal(b.last, CHANNEL_STEP);
    play(&recorded[2], &b);
    assert_int_equal(b.last, CHANNEL_CLOSED);
    assert_int_equal(channel_refusal(b.channel), CHANNEL_UNPROVEN);
    assert_int_equal(b.opened, 0);
    forget(recorded);
}

static void test_recorded_called_node_is_not_believed(void **state)
{
    (void)state;
    struct strbuf recorded[4] = {{0}};
    record(recorded);
    assert_int_equal(end_start(&a, b.member.key), SOV_OK);
    play(&recorded[1], &a);
    assert_int_equal(a.last, CHANNEL_CLOSED);
    assert_int_equal(channel_refusal(a.channel), CHANNEL_UNPROVEN);
    forget(recorded);
}

static void test_own_messages_sent_back(void **state)
{
    (void)state;
    start_both();
    struct strbuf hello = {0};
    strbuf_append(&hello, a.out.data, a.out.length);
    play(&hello, &a);
    assert_int_equal(a.last, CHANNEL_CLOSED);
    strbuf_free(&hello);
    /* Two dialers that are given each other's messages as answers: neither takes a HELLO for one. */
    teardown(NULL);
    setup(NULL);
    assert_int_equal(end_start(&a, b.member.key), SOV_OK);
    assert_int_equal(end_start(&b, a.member.key), SOV_OK);
    talk();
    assert_int_equal(a.opened + b.opened, 0);
    assert_int_equal(a.last, CHANNEL_CLOSED);
    assert_int_equal(b.last, CHANNEL_CLOSED);
}

static void test_messages_out_of_turn(void **state)
{
    (void)state;
    struct strbuf recorded[4] = {{0}};
    record(recorded);
    for (int i = 1; i < 4; i++) {
        end_free(&b);
        end_init(&b, CALLED);
        assert_int_equal(end_start(&b, NULL), SOV_OK);
        play(&recorded[i], &b);
        assert_int_equal(b.last, CHANNEL_CLOSED);
        assert_non_null(strstr(b.err.message, "where none is expected"));
    }
    for (int i = 0; i < 4; i++) {
        if (i == 1) continue;
        end_free(&a);
        end_init(&a, DIALER);
        assert_int_equal(end_start(&a, b.member.key), SOV_OK);
        play(&recorded[i], &a);
        assert_int_equal(a.last, CHANNEL_CLOSED);
    }
    forget(recorded);
}

/* Whatever bit is turned on the way: no message arrives, and nothing is open at both ends unnoticed. */
static void test_every_byte_of_the_handshake_counts(void **state)
{
    (void)state;
    struct strbuf recorded[4] = {{0}};
    record(recorded);
    for (int which = 0; which < 4; which++) {
        for (size_t at = 0; at < recorded[which].length; at++) {
            start_both();
            for (int i = 0; i < 4 && a.last != CHANNEL_CLOSED && b.last != CHANNEL_CLOSED; i++) {
                struct end *from = i % 2 == 0 ? &a : &b, *to = i % 2 == 0 ? &b : &a;
                if (i == which) from->out.data[at] ^= 0x10;
                pass(from, to);
            }
            if (channel_is_open(a.channel)) {
                say(&a, "secret");
                pass(&a, &b);
            }
            if (channel_is_open(b.channel) && b.last != CHANNEL_CLOSED) {
                say(&b, "secret");
                pass(&b, &a);
            }
            if (a.data + b.data != 0)
                fail_msg("byte %zu of message %d is not protected", at, which);
            teardown(NULL);
            setup(NULL);
        }
    }
    forget(recorded);
}

static void test_truncated_handshake_waits(void **state)
{
    (void)state;
    start_both();
    strbuf_append(&b.in, a.out.data, a.out.length - 1);
    end_take(&b);
    assert_int_equal(b.last, CHANNEL_MORE);
    assert_int_equal(b.out.length, 0);
}

static void test_garbage_ends_it(void **state)
{
    (void)state;
    static const char *const GARBAGE[] = {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\xa5\x01",
                                          "SSH-2.0-x\r\n", "\xff\xff\xff\xff\xff\xff"};
    for (size_t i = 0; i < sizeof GARBAGE / sizeof GARBAGE[0]; i++) {
        end_free(&b);
        end_init(&b, CALLED);
        assert_int_equal(end_start(&b, NULL), SOV_OK);
        strbuf_puts(&b.in, GARBAGE[i]);
        end_take(&b);
        assert_int_equal(b.last, CHANNEL_CLOSED);
        /* Nothing is said to who does not speak the protocol. */
        assert_int_equal(b.out.length, 0);
        /* And it stays closed. */
        size_t consumed;
        struct channel_message message;
        assert_int_equal(channel_receive(b.channel, (unsigned char *)b.in.data, b.in.length,
                                         &consumed, &message, &b.out, &b.err),
                         CHANNEL_CLOSED);
    }
}

/*
 * The handshake once more, from the text of channel.h alone, with an ephemeral key of small order: it
 * would make a secret that everybody knows.
 */
static void test_ephemeral_key_that_gives_no_secret(void **state)
{
    (void)state;
    unsigned char hello[FRAME_HEADER_BYTES + 146] = {0}, *h = hello + FRAME_HEADER_BYTES;
    frame_header_write(hello, FRAME_HELLO, 146);
    h[0] = h[1] = CHANNEL_VERSION;
    memcpy(h + 2, b.config.federation, 32);
    memcpy(h + 34, a.member.key, 32);
    memcpy(h + 66, b.member.key, 32);
    memcpy(h + 98, a.config.instance, 16);
    assert_int_equal(end_start(&b, NULL), SOV_OK);
    strbuf_append(&b.in, hello, sizeof hello);
    end_take(&b);
    assert_int_equal(b.out.length, FRAME_HEADER_BYTES + 145);

    crypto_generichash_state hash;
    unsigned char transcript[32], proof[FRAME_HEADER_BYTES + 88] = {0};
    static const char DOMAIN[] = "sovereign-federation-v1:channel-transcript";
    crypto_generichash_init(&hash, NULL, 0, 32);
    crypto_generichash_update(&hash, (const unsigned char *)DOMAIN, sizeof DOMAIN);
    crypto_generichash_update(&hash, (const unsigned char *)"\x92\0\0\0", 4);
    crypto_generichash_update(&hash, h, 146);
    crypto_generichash_update(&hash, (const unsigned char *)"\x51\0\0\0", 4);
    crypto_generichash_update(&hash, (unsigned char *)b.out.data + FRAME_HEADER_BYTES, 81);
    crypto_generichash_final(&hash, transcript, 32);
    frame_header_write(proof, FRAME_PROOF, 88);
    net_sign_with(a.member.secret, "sovereign-federation-v1:channel-dialed", transcript, 32,
                  proof + FRAME_HEADER_BYTES);
    strbuf_append(&b.in, proof, sizeof proof);
    end_take(&b);
    assert_int_equal(b.last, CHANNEL_CLOSED);
    assert_non_null(strstr(b.err.message, "ephemeral key"));
}

/* ---- the streams ---- */

static void test_every_byte_of_a_message_counts(void **state)
{
    (void)state;
    static const char TEXT[] = "the value of sequence 7";
    size_t length = FRAME_HEADER_BYTES + CHANNEL_OVERHEAD_BYTES + sizeof TEXT - 1;
    for (size_t at = 0; at < length; at++) {
        open_both();
        say(&a, TEXT);
        assert_int_equal(a.out.length, length);
        a.out.data[at] ^= 1;
        say(&a, "more, so that a longer frame is whole");
        pass(&a, &b);
        assert_int_equal(b.data + b.pings + b.pongs, 0);
        /* A length that became greater is waited for: by a link not for ever. */
        if (at > 2) assert_int_equal(b.last, CHANNEL_CLOSED);
        teardown(NULL);
        setup(NULL);
    }
}

static void test_messages_cannot_be_moved(void **state)
{
    (void)state;
    enum { DROPPED, DOUBLED, SWAPPED, SENT_BACK, CASES };
    for (int which = 0; which < CASES; which++) {
        struct strbuf first = {0}, second = {0};
        open_both();
        say(&a, "first");
        strbuf_append(&first, a.out.data, a.out.length);
        strbuf_clear(&a.out);
        say(&a, "second");
        strbuf_append(&second, a.out.data, a.out.length);
        strbuf_clear(&a.out);
        struct end *to = which == SENT_BACK ? &a : &b;
        if (which == DOUBLED) play(&first, to);
        int before = to->data;
        play(which == DOUBLED || which == SENT_BACK ? &first : &second, to);
        assert_int_equal(to->data, before);
        assert_int_equal(to->last, CHANNEL_CLOSED);
        strbuf_free(&first);
        strbuf_free(&second);
        teardown(NULL);
        setup(NULL);
    }
}

static void test_handshake_frames_on_an_open_channel(void **state)
{
    (void)state;
    unsigned char refuse[FRAME_HEADER_BYTES + 1] = {0};
    open_both();
    frame_header_write(refuse, FRAME_REFUSE, 1);
    refuse[FRAME_HEADER_BYTES] = CHANNEL_REVOKED;
    strbuf_append(&a.in, refuse, sizeof refuse);
    end_take(&a);
    assert_int_equal(a.last, CHANNEL_CLOSED);
    assert_int_equal(channel_refusal(a.channel), CHANNEL_ADMITTED);
}

static void test_keys_change_and_nobody_notices(void **state)
{
    (void)state;
    a.config.rekey_bytes = 1000;
    open_both();
    char text[101];
    memset(text, 'x', sizeof text);
    text[100] = '\0';
    for (int i = 0; i < 100; i++) {
        say(&a, text);
        say(&b, "y");
        if (i % 3 == 0) talk();
    }
    talk();
    assert_int_equal(b.data, 100);
    assert_int_equal(b.messages.length, 10000);
    assert_int_equal(a.data, 100);
    assert_int_equal(channel_rekeys(a.channel), 11);
    assert_int_equal(channel_rekeys(b.channel), 0);
}

static void test_longest_message(void **state)
{
    (void)state;
    open_both();
    char *text = sov_calloc(FRAME_BYTES_MAX + 1, 1);
    assert_non_null(text);
    assert_int_equal(channel_send(a.channel, FRAME_DATA, text, FRAME_BYTES_MAX + 1, &a.out, &a.err),
                     SOV_ERR_LIMIT);
    assert_int_equal(a.out.length, 0);
    assert_int_equal(channel_send(a.channel, FRAME_DATA, text, FRAME_BYTES_MAX, &a.out, &a.err),
                     SOV_OK);
    talk();
    assert_int_equal(b.messages.length, FRAME_BYTES_MAX);
    assert_memory_equal(b.messages.data, text, FRAME_BYTES_MAX);
    sov_free(text);
}

static void test_ping_of_the_wrong_length(void **state)
{
    (void)state;
    open_both();
    assert_int_equal(channel_send(a.channel, FRAME_PING, "1234567", 7, &a.out, NULL), SOV_OK);
    talk();
    assert_int_equal(b.last, CHANNEL_CLOSED);
}

static void test_refusals_have_texts(void **state)
{
    (void)state;
    for (int i = 0; i < CHANNEL_REFUSALS; i++) assert_true(strlen(channel_refusal_text(i)) > 5);
    assert_non_null(channel_refusal_text(-1));
    assert_non_null(channel_refusal_text(CHANNEL_REFUSALS));
    /* A reason of a later version is no puzzle. */
    start_both();
    struct strbuf refusal = {0};
    strbuf_append(&refusal, "\x01\0\0\0\x01\x05\xc8", FRAME_HEADER_BYTES + 1);
    play(&refusal, &a);
    assert_int_equal(a.last, CHANNEL_CLOSED);
    assert_non_null(strstr(a.err.message, "does not know"));
    strbuf_free(&refusal);
}

static void test_without_memory(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        sov_mem_fail_after(n, true);
        bool ok = end_start(&a, b.member.key) == SOV_OK && end_start(&b, NULL) == SOV_OK;
        if (ok) {
            /* What is under way has its memory already. */
            strbuf_append(&b.in, strbuf_text(&a.out), a.out.length);
            if (!b.in.failed) end_take(&b);
        }
        sov_mem_fail_after(-1, false);
        bool stepped = ok && b.last == CHANNEL_STEP;
        if (ok && b.last == CHANNEL_CLOSED)
            assert_non_null(strstr(b.err.message, "no memory for the handshake"));
        teardown(NULL);
        setup(NULL);
        if (stepped) break;
        assert_true(n < 20);
    }
    open_both();
    sov_mem_fail_after(0, true);
    strbuf_free(&a.out);
    assert_int_equal(channel_send(a.channel, FRAME_DATA, "x", 1, &a.out, &a.err), SOV_ERR_NOMEM);
    sov_mem_fail_after(-1, false);
    strbuf_clear(&a.out);
    say(&a, "again");
    talk();
    assert_string_equal(strbuf_text(&b.messages), "again");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_two_members_talk),
        TEST(test_bytes_may_come_one_by_one),
        TEST(test_unknown_key_is_refused),
        TEST(test_revoked_key_is_refused),
        TEST(test_key_revoked_during_the_handshake),
        TEST(test_other_federation_is_refused),
        TEST(test_another_member_at_the_address),
        TEST(test_a_copy_of_the_own_key),
        TEST(test_versions_without_one_in_common),
        TEST(test_a_newer_version_finds_the_common_one),
        TEST(test_key_without_its_secret),
        TEST(test_node_that_cannot_sign),
        TEST(test_recorded_dialer_is_not_believed),
        TEST(test_recorded_called_node_is_not_believed),
        TEST(test_own_messages_sent_back),
        TEST(test_messages_out_of_turn),
        TEST(test_every_byte_of_the_handshake_counts),
        TEST(test_truncated_handshake_waits),
        TEST(test_garbage_ends_it),
        TEST(test_ephemeral_key_that_gives_no_secret),
        TEST(test_every_byte_of_a_message_counts),
        TEST(test_messages_cannot_be_moved),
        TEST(test_handshake_frames_on_an_open_channel),
        TEST(test_keys_change_and_nobody_notices),
        TEST(test_longest_message),
        TEST(test_ping_of_the_wrong_length),
        TEST(test_refusals_have_texts),
        TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
