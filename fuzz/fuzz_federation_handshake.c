/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stranger or a member sends down a connection. The first byte says whom it is sent to (who
 * was called, who dialed), the second in pieces of how many bytes; keys and seeds are fixed, so that a
 * recorded handshake (fuzz/corpus) gets all the way into the encrypted stream. However the bytes are
 * cut, the events are the same; nothing is answered that was not asked for, and what is closed stays
 * closed.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/federation_net_fixture.h"

enum { PREFIX = 2, ANSWER_BYTES_MAX = 2 * (FRAME_HEADER_BYTES + CHANNEL_HANDSHAKE_BYTES_MAX) };

struct outcome {
    int events[CHANNEL_CLOSED + 1];
    size_t taken, data_bytes;
    enum channel_refusal refusal;
};

static void require(bool condition)
{
    if (!condition) abort();
}

static bool sign(void *user, const char *domain, const void *message, size_t length,
                 unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct net_member *member = user;
    net_sign_with(member->secret, domain, message, length, signature);
    return true;
}

static enum channel_refusal admit(void *user, const unsigned char key[CHANNEL_KEY_BYTES])
{
    (void)user;
    if (memcmp(key, net_member(2).key, CHANNEL_KEY_BYTES) == 0) return CHANNEL_REVOKED;
    return memcmp(key, net_member(3).key, CHANNEL_KEY_BYTES) == 0 ? CHANNEL_UNKNOWN
                                                                  : CHANNEL_ADMITTED;
}

static struct channel *open_channel(struct net_member *self, bool dialed,
                                    struct channel_config *config, struct strbuf *out)
{
    struct channel *channel;
    unsigned char seed[CHANNEL_SEED_BYTES];
    *self = net_member(dialed ? 0 : 1);
    *config = (struct channel_config){.sign = sign, .admit = admit, .user = self};
    memset(config->federation, 'F', sizeof config->federation);
    memset(config->instance, dialed ? 'd' : 'c', sizeof config->instance);
    memcpy(config->key, self->key, sizeof config->key);
    memset(seed, dialed ? 1 : 2, sizeof seed);
    require(channel_create(config, dialed ? net_member(1).key : NULL, seed, &channel, NULL) ==
            SOV_OK);
    if (dialed) require(channel_start(channel, out, NULL) == SOV_OK);
    return channel;
}

static void receive(const uint8_t *data, size_t size, bool dialed, size_t piece,
                    struct outcome *outcome)
{
    struct net_member self;
    struct channel_config config;
    struct strbuf in = {0}, out = {0};
    struct channel *channel = open_channel(&self, dialed, &config, &out);
    struct sov_errbuf err = {""};
    bool closed = false;
    size_t done = 0;
    memset(outcome, 0, sizeof *outcome);
    for (size_t at = 0; at < size && !closed; at += piece) {
        require(strbuf_append(&in, data + at, piece < size - at ? piece : size - at));
        for (;;) {
            struct channel_message message;
            size_t consumed, before = out.length;
            bool was_open = channel_is_open(channel);
            enum channel_event event =
                channel_receive(channel, (unsigned char *)in.data + done, in.length - done,
                                &consumed, &message, &out, &err);
            require(consumed <= in.length - done && out.length <= ANSWER_BYTES_MAX);
            require(!was_open || out.length == before);
            require(message.length <= consumed);
            require(event < CHANNEL_OPEN || event == CHANNEL_OPEN || event == CHANNEL_CLOSED ||
                    was_open);
            done += consumed;
            if (event == CHANNEL_MORE) break;
            outcome->events[event]++;
            outcome->data_bytes += message.length;
            closed = event == CHANNEL_CLOSED;
            if (!closed) continue;
            require(err.message[0] != '\0');
            require(channel_receive(channel, (unsigned char *)in.data, in.length, &consumed,
                                    &message, &out, &err) == CHANNEL_CLOSED);
            break;
        }
    }
    outcome->taken = done;
    outcome->refusal = channel_refusal(channel);
    if (!closed && channel_is_open(channel))
        require(channel_send(channel, FRAME_DATA, "answer", 6, &out, &err) == SOV_OK);
    channel_free(channel);
    strbuf_free(&in);
    strbuf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, pieces;
    if (sodium_init() < 0 || size <= PREFIX) return 0;
    bool dialed = (data[0] & 1) != 0;
    receive(data + PREFIX, size - PREFIX, dialed, size, &whole);
    receive(data + PREFIX, size - PREFIX, dialed, (size_t)data[1] + 1, &pieces);
    require(memcmp(&whole, &pieces, sizeof whole) == 0);
    return 0;
}
