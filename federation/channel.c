/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/channel.h"

#include <assert.h>
#include <string.h>

#include <sodium.h>

#include "base/mem.h"

_Static_assert(CHANNEL_KEY_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519");
_Static_assert(CHANNEL_SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519");
_Static_assert(CHANNEL_SEED_BYTES == crypto_scalarmult_SCALARBYTES, "X25519");
_Static_assert(CHANNEL_OVERHEAD_BYTES == crypto_secretstream_xchacha20poly1305_ABYTES, "stream");

#define DOMAIN_TRANSCRIPT "sovereign-federation-v1:channel-transcript"
#define DOMAIN_KEYS "sovereign-federation-v1:channel-keys"
#define DOMAIN_DIALED "sovereign-federation-v1:channel-dialed"
#define DOMAIN_CALLED "sovereign-federation-v1:channel-called"

enum {
    EPHEMERAL_BYTES = crypto_scalarmult_BYTES,
    STREAM_HEADER_BYTES = crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    STREAM_KEY_BYTES = crypto_secretstream_xchacha20poly1305_KEYBYTES,
    TRANSCRIPT_BYTES = crypto_generichash_BYTES,
};

/* The payloads of the handshake. Bytes only: their layout is that of the struct. */
struct hello {
    unsigned char version_min, version_max;
    unsigned char federation[CHANNEL_FEDERATION_BYTES];
    unsigned char key[CHANNEL_KEY_BYTES];
    unsigned char peer[CHANNEL_KEY_BYTES];
    unsigned char instance[CHANNEL_INSTANCE_BYTES];
    unsigned char ephemeral[EPHEMERAL_BYTES];
};

struct challenge {
    unsigned char version;
    unsigned char key[CHANNEL_KEY_BYTES];
    unsigned char instance[CHANNEL_INSTANCE_BYTES];
    unsigned char ephemeral[EPHEMERAL_BYTES];
    unsigned char signature[CHANNEL_SIGNATURE_BYTES];
};

struct proof {
    unsigned char signature[CHANNEL_SIGNATURE_BYTES];
    unsigned char stream[STREAM_HEADER_BYTES];
};

struct ready {
    unsigned char stream[STREAM_HEADER_BYTES];
    unsigned char empty[CHANNEL_OVERHEAD_BYTES];
};

_Static_assert(sizeof(struct hello) == 146 && sizeof(struct challenge) == 145, "no padding");
_Static_assert(sizeof(struct proof) == 88 && sizeof(struct ready) == 41, "no padding");
_Static_assert(sizeof(struct hello) <= CHANNEL_HANDSHAKE_BYTES_MAX, "fits");
/* Nobody gets more bytes out of us than he spent. */
_Static_assert(sizeof(struct challenge) <= sizeof(struct hello), "no amplification");

enum state {
    STATE_NEW,        /* dialed, HELLO not yet written */
    STATE_WAIT_HELLO, /* called */
    STATE_WAIT_CHALLENGE,
    STATE_WAIT_PROOF,
    STATE_WAIT_READY,
    STATE_OPEN,
    STATE_CLOSED,
};

struct channel {
    const struct channel_config *config;
    bool dialed;
    enum state state;
    enum channel_refusal refusal;
    struct sov_errbuf why; /* of a closed channel */
    struct hello hello;
    struct challenge challenge;
    unsigned char ephemeral[EPHEMERAL_BYTES]; /* secret, until the keys are made */
    unsigned char transcript[TRANSCRIPT_BYTES];
    unsigned char pull_key[STREAM_KEY_BYTES]; /* until READY brings that stream's header */
    crypto_secretstream_xchacha20poly1305_state push, pull;
    uint64_t rekey_bytes, sent_bytes; /* sent under the present keys */
    uint64_t rekeys;
};

static const char *const REFUSAL_TEXTS[CHANNEL_REFUSALS] = {
    [CHANNEL_ADMITTED] = "nothing was refused",
    [CHANNEL_UNKNOWN] = "the key is not a member's",
    [CHANNEL_REVOKED] = "the key was revoked",
    [CHANNEL_FEDERATION] = "it belongs to another federation",
    [CHANNEL_VERSIONS] = "no version of the protocol is known to both",
    [CHANNEL_MISDIALED] = "another member was looked for at that address",
    [CHANNEL_SELF] = "the key is the called node's own",
    [CHANNEL_UNPROVEN] = "the key was not proven",
    [CHANNEL_CROSSED] = "both dialed, and the other connection stays",
};

const char *channel_refusal_text(int refusal)
{
    return refusal >= 0 && refusal < CHANNEL_REFUSALS ? REFUSAL_TEXTS[refusal]
                                                      : "for a reason that this version does not "
                                                        "know";
}

enum sov_error channel_create(const struct channel_config *config,
                              const unsigned char peer[CHANNEL_KEY_BYTES],
                              const unsigned char seed[CHANNEL_SEED_BYTES], struct channel **out,
                              struct sov_errbuf *err)
{
    *out = NULL;
    struct channel *ch = sov_calloc(1, sizeof *ch);
    if (ch == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a connection");
    ch->config = config;
    ch->dialed = peer != NULL;
    ch->state = ch->dialed ? STATE_NEW : STATE_WAIT_HELLO;
    ch->rekey_bytes = config->rekey_bytes != 0 ? config->rekey_bytes : CHANNEL_REKEY_BYTES;
    memcpy(ch->ephemeral, seed, sizeof ch->ephemeral);
    if (ch->dialed) memcpy(ch->hello.peer, peer, sizeof ch->hello.peer);
    *out = ch;
    return SOV_OK;
}

void channel_free(struct channel *channel)
{
    if (channel == NULL) return;
    sodium_memzero(channel, sizeof *channel);
    sov_free(channel);
}

/* ---- small parts ---- */

static bool put_frame(struct strbuf *out, enum frame_kind kind, const void *payload, size_t length)
{
    unsigned char *at = (unsigned char *)strbuf_extend(out, FRAME_HEADER_BYTES + length);
    if (at == NULL) return false;
    frame_header_write(at, kind, (uint32_t)length);
    memcpy(at + FRAME_HEADER_BYTES, payload, length);
    return true;
}

static enum channel_event closed(struct channel *ch, struct sov_errbuf *err)
{
    ch->state = STATE_CLOSED;
    sodium_memzero(ch->ephemeral, sizeof ch->ephemeral);
    sodium_memzero(ch->pull_key, sizeof ch->pull_key);
    sodium_memzero(&ch->push, sizeof ch->push);
    sodium_memzero(&ch->pull, sizeof ch->pull);
    if (err != NULL) *err = ch->why;
    return CHANNEL_CLOSED;
}

static enum channel_event close_for(struct channel *ch, const char *why, struct sov_errbuf *err)
{
    sov_fail(&ch->why, SOV_ERR_FORMAT, "%s", why);
    return closed(ch, err);
}

static enum channel_event out_of_memory(struct channel *ch, struct sov_errbuf *err)
{
    return close_for(ch, "no memory for the handshake", err);
}

/* Tells the other side, and closes. */
static enum channel_event refuse(struct channel *ch, enum channel_refusal refusal,
                                 struct strbuf *out, struct sov_errbuf *err)
{
    unsigned char byte = (unsigned char)refusal;
    ch->refusal = refusal;
    (void)put_frame(out, FRAME_REFUSE, &byte, sizeof byte); /* as far as there is memory */
    sov_fail(&ch->why, SOV_ERR_INVALID, "refused: %s", channel_refusal_text(refusal));
    return closed(ch, err);
}

static void hash_part(crypto_generichash_state *hash, const void *bytes, uint32_t length)
{
    unsigned char prefix[4];
    for (int i = 0; i < 4; i++) prefix[i] = (unsigned char)(length >> (8 * i));
    crypto_generichash_update(hash, prefix, sizeof prefix);
    crypto_generichash_update(hash, bytes, length);
}

static void make_transcript(struct channel *ch)
{
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, sizeof ch->transcript);
    crypto_generichash_update(&hash, (const unsigned char *)DOMAIN_TRANSCRIPT,
                              sizeof DOMAIN_TRANSCRIPT);
    hash_part(&hash, &ch->hello, sizeof ch->hello);
    hash_part(&hash, &ch->challenge, offsetof(struct challenge, signature));
    crypto_generichash_final(&hash, ch->transcript, sizeof ch->transcript);
}

/* The other side signed the transcript in its part. */
static bool is_proven(const struct channel *ch, const char *domain, size_t domain_bytes,
                      const unsigned char *key, const unsigned char *signature)
{
    unsigned char message[64 + TRANSCRIPT_BYTES];
    assert(domain_bytes <= 64);
    memcpy(message, domain, domain_bytes);
    memcpy(message + domain_bytes, ch->transcript, sizeof ch->transcript);
    return crypto_sign_verify_detached(signature, message, domain_bytes + sizeof ch->transcript,
                                       key) == 0;
}

/* The keys of both directions; false when the other's ephemeral is one of those that give no secret. */
static bool make_keys(struct channel *ch, const unsigned char *ephemeral,
                      unsigned char push[STREAM_KEY_BYTES], unsigned char pull[STREAM_KEY_BYTES])
{
    unsigned char secret[crypto_scalarmult_BYTES], both[2 * STREAM_KEY_BYTES];
    bool ok = crypto_scalarmult(secret, ch->ephemeral, ephemeral) == 0;
    if (ok) {
        crypto_generichash_state hash;
        crypto_generichash_init(&hash, secret, sizeof secret, sizeof both);
        crypto_generichash_update(&hash, (const unsigned char *)DOMAIN_KEYS, sizeof DOMAIN_KEYS);
        crypto_generichash_update(&hash, ch->transcript, sizeof ch->transcript);
        crypto_generichash_final(&hash, both, sizeof both);
        /* The first is from the one who dialed. */
        memcpy(push, both + (ch->dialed ? 0 : STREAM_KEY_BYTES), STREAM_KEY_BYTES);
        memcpy(pull, both + (ch->dialed ? STREAM_KEY_BYTES : 0), STREAM_KEY_BYTES);
        sodium_memzero(&hash, sizeof hash);
    }
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(both, sizeof both);
    sodium_memzero(ch->ephemeral, sizeof ch->ephemeral);
    return ok;
}

/* ---- the handshake, message by message ---- */

enum sov_error channel_start(struct channel *ch, struct strbuf *out, struct sov_errbuf *err)
{
    assert(ch->state == STATE_NEW);
    struct hello *hello = &ch->hello;
    hello->version_min = hello->version_max = CHANNEL_VERSION;
    memcpy(hello->federation, ch->config->federation, sizeof hello->federation);
    memcpy(hello->key, ch->config->key, sizeof hello->key);
    memcpy(hello->instance, ch->config->instance, sizeof hello->instance);
    crypto_scalarmult_base(hello->ephemeral, ch->ephemeral);
    if (!put_frame(out, FRAME_HELLO, hello, sizeof *hello))
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for the handshake");
    ch->state = STATE_WAIT_CHALLENGE;
    return SOV_OK;
}

/* Everything that a HELLO can be refused for, by comparisons. */
static enum channel_refusal judge_hello(const struct channel *ch)
{
    const struct channel_config *config = ch->config;
    const struct hello *hello = &ch->hello;
    if (hello->version_min > CHANNEL_VERSION || hello->version_max < CHANNEL_VERSION)
        return CHANNEL_VERSIONS;
    if (memcmp(hello->federation, config->federation, sizeof hello->federation) != 0)
        return CHANNEL_FEDERATION;
    if (memcmp(hello->key, config->key, sizeof hello->key) == 0) return CHANNEL_SELF;
    if (memcmp(hello->peer, config->key, sizeof hello->peer) != 0) return CHANNEL_MISDIALED;
    return config->admit(config->user, hello->key);
}

static enum channel_event on_hello(struct channel *ch, const unsigned char *payload,
                                   struct strbuf *out, struct sov_errbuf *err)
{
    memcpy(&ch->hello, payload, sizeof ch->hello);
    enum channel_refusal refusal = judge_hello(ch);
    if (refusal != CHANNEL_ADMITTED) return refuse(ch, refusal, out, err);
    struct challenge *challenge = &ch->challenge;
    challenge->version = CHANNEL_VERSION;
    memcpy(challenge->key, ch->config->key, sizeof challenge->key);
    memcpy(challenge->instance, ch->config->instance, sizeof challenge->instance);
    crypto_scalarmult_base(challenge->ephemeral, ch->ephemeral);
    make_transcript(ch);
    if (!ch->config->sign(ch->config->user, DOMAIN_CALLED, ch->transcript, sizeof ch->transcript,
                          challenge->signature))
        return close_for(ch, "the handshake could not be signed", err);
    if (!put_frame(out, FRAME_CHALLENGE, challenge, sizeof *challenge))
        return out_of_memory(ch, err);
    ch->state = STATE_WAIT_PROOF;
    return CHANNEL_STEP;
}

static enum channel_event on_challenge(struct channel *ch, const unsigned char *payload,
                                       struct strbuf *out, struct sov_errbuf *err)
{
    struct challenge *challenge = &ch->challenge;
    memcpy(challenge, payload, sizeof *challenge);
    if (challenge->version < ch->hello.version_min || challenge->version > ch->hello.version_max)
        return close_for(ch, "the called node chose a version that was not offered", err);
    if (memcmp(challenge->key, ch->hello.peer, sizeof challenge->key) != 0)
        return close_for(ch, "another key than the member's that was dialed is there", err);
    make_transcript(ch);
    if (!is_proven(ch, DOMAIN_CALLED, sizeof DOMAIN_CALLED, challenge->key, challenge->signature))
        return refuse(ch, CHANNEL_UNPROVEN, out, err);
    unsigned char push[STREAM_KEY_BYTES], pull[STREAM_KEY_BYTES];
    if (!make_keys(ch, challenge->ephemeral, push, pull))
        return close_for(ch, "the called node's ephemeral key is not one", err);
    struct proof proof;
    crypto_secretstream_xchacha20poly1305_init_push(&ch->push, proof.stream, push);
    memcpy(ch->pull_key, pull, sizeof ch->pull_key);
    sodium_memzero(push, sizeof push);
    sodium_memzero(pull, sizeof pull);
    if (!ch->config->sign(ch->config->user, DOMAIN_DIALED, ch->transcript, sizeof ch->transcript,
                          proof.signature))
        return close_for(ch, "the handshake could not be signed", err);
    if (!put_frame(out, FRAME_PROOF, &proof, sizeof proof)) return out_of_memory(ch, err);
    ch->state = STATE_WAIT_READY;
    return CHANNEL_STEP;
}

static enum channel_event on_proof(struct channel *ch, const unsigned char *payload,
                                   struct strbuf *out, struct sov_errbuf *err)
{
    struct proof proof;
    memcpy(&proof, payload, sizeof proof);
    if (!is_proven(ch, DOMAIN_DIALED, sizeof DOMAIN_DIALED, ch->hello.key, proof.signature))
        return refuse(ch, CHANNEL_UNPROVEN, out, err);
    /* The configuration may have changed since HELLO. */
    enum channel_refusal refusal = ch->config->admit(ch->config->user, ch->hello.key);
    if (refusal != CHANNEL_ADMITTED) return refuse(ch, refusal, out, err);
    unsigned char push[STREAM_KEY_BYTES], pull[STREAM_KEY_BYTES];
    if (!make_keys(ch, ch->hello.ephemeral, push, pull))
        return close_for(ch, "the caller's ephemeral key is not one", err);
    struct ready ready;
    crypto_secretstream_xchacha20poly1305_init_push(&ch->push, ready.stream, push);
    int rc = crypto_secretstream_xchacha20poly1305_init_pull(&ch->pull, proof.stream, pull);
    sodium_memzero(push, sizeof push);
    sodium_memzero(pull, sizeof pull);
    if (rc != 0) return close_for(ch, "the caller's stream header is not one", err);
    unsigned char header[FRAME_HEADER_BYTES];
    frame_header_write(header, FRAME_READY, sizeof ready);
    crypto_secretstream_xchacha20poly1305_push(&ch->push, ready.empty, NULL, NULL, 0, header,
                                               sizeof header, 0);
    if (!put_frame(out, FRAME_READY, &ready, sizeof ready)) return out_of_memory(ch, err);
    ch->state = STATE_OPEN;
    return CHANNEL_OPEN;
}

static enum channel_event on_ready(struct channel *ch, const unsigned char *frame,
                                   struct sov_errbuf *err)
{
    struct ready ready;
    unsigned char tag, nothing[1];
    unsigned long long length;
    memcpy(&ready, frame + FRAME_HEADER_BYTES, sizeof ready);
    bool ok = crypto_secretstream_xchacha20poly1305_init_pull(&ch->pull, ready.stream,
                                                              ch->pull_key) == 0 &&
              crypto_secretstream_xchacha20poly1305_pull(&ch->pull, nothing, &length, &tag,
                                                         ready.empty, sizeof ready.empty, frame,
                                                         FRAME_HEADER_BYTES) == 0;
    sodium_memzero(ch->pull_key, sizeof ch->pull_key);
    if (!ok) return close_for(ch, "the first message does not decrypt", err);
    ch->state = STATE_OPEN;
    return CHANNEL_OPEN;
}

/* Not signed: anybody on the way may have written it, so it ends this connection and no more. */
static enum channel_event on_refuse(struct channel *ch, const unsigned char *payload,
                                    struct sov_errbuf *err)
{
    ch->refusal = payload[0] != CHANNEL_ADMITTED && payload[0] < CHANNEL_REFUSALS
                      ? (enum channel_refusal)payload[0]
                      : CHANNEL_ADMITTED;
    sov_fail(&ch->why, SOV_ERR_INVALID, "the other node refused: %s",
             channel_refusal_text(payload[0]));
    return closed(ch, err);
}

/* ---- the streams ---- */

static enum channel_event on_encrypted(struct channel *ch, enum frame_kind kind,
                                       unsigned char *frame, uint32_t length,
                                       struct channel_message *message, struct sov_errbuf *err)
{
    if (length < CHANNEL_OVERHEAD_BYTES)
        return close_for(ch, "a frame too short to be encrypted", err);
    unsigned char *cipher = frame + FRAME_HEADER_BYTES, tag;
    /* Where the ciphertext proper begins, behind the tag: the cipher works in place. */
    unsigned char *plain = cipher + 1;
    unsigned long long plain_length;
    if (crypto_secretstream_xchacha20poly1305_pull(&ch->pull, plain, &plain_length, &tag, cipher,
                                                   length, frame, FRAME_HEADER_BYTES) != 0)
        return close_for(ch, "a frame that does not decrypt", err);
    if (tag != crypto_secretstream_xchacha20poly1305_TAG_MESSAGE &&
        tag != crypto_secretstream_xchacha20poly1305_TAG_REKEY)
        return close_for(ch, "a frame with a mark of another protocol", err);
    if (kind != FRAME_DATA && plain_length != CHANNEL_PING_BYTES)
        return close_for(ch, "a ping of the wrong length", err);
    *message = (struct channel_message){plain, (size_t)plain_length};
    return kind == FRAME_DATA ? CHANNEL_DATA : kind == FRAME_PING ? CHANNEL_PING : CHANNEL_PONG;
}

enum sov_error channel_send(struct channel *ch, enum frame_kind kind, const void *bytes,
                            size_t length, struct strbuf *out, struct sov_errbuf *err)
{
    assert(ch->state == STATE_OPEN && kind >= FRAME_DATA && kind <= FRAME_PONG);
    if (length > FRAME_BYTES_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "a message of %zu bytes; at most %d can be sent",
                        length, FRAME_BYTES_MAX);
    size_t cipher = length + CHANNEL_OVERHEAD_BYTES;
    unsigned char *at = (unsigned char *)strbuf_extend(out, FRAME_HEADER_BYTES + cipher);
    if (at == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a frame of %zu bytes", cipher);
    ch->sent_bytes += cipher;
    bool rekey = ch->sent_bytes >= ch->rekey_bytes;
    frame_header_write(at, kind, (uint32_t)cipher);
    crypto_secretstream_xchacha20poly1305_push(
        &ch->push, at + FRAME_HEADER_BYTES, NULL, bytes, length, at, FRAME_HEADER_BYTES,
        rekey ? crypto_secretstream_xchacha20poly1305_TAG_REKEY
              : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
    if (rekey) {
        ch->sent_bytes = 0;
        ch->rekeys++;
    }
    return SOV_OK;
}

/* ---- receiving ---- */

/* The kinds that each state takes besides REFUSE, and how long their payloads are. */
static bool expects(const struct channel *ch, enum frame_kind kind, uint32_t length)
{
    switch (ch->state) {
    case STATE_WAIT_HELLO: return kind == FRAME_HELLO && length == sizeof(struct hello);
    case STATE_WAIT_CHALLENGE: return kind == FRAME_CHALLENGE && length == sizeof(struct challenge);
    case STATE_WAIT_PROOF: return kind == FRAME_PROOF && length == sizeof(struct proof);
    case STATE_WAIT_READY: return kind == FRAME_READY && length == sizeof(struct ready);
    case STATE_OPEN: return kind >= FRAME_DATA;
    case STATE_NEW:
    case STATE_CLOSED: break;
    }
    return false;
}

/* Who has said something can be refused for it, until the channel is open. */
static bool may_be_refused(const struct channel *ch)
{
    return ch->state == STATE_WAIT_CHALLENGE || ch->state == STATE_WAIT_READY ||
           ch->state == STATE_WAIT_PROOF;
}

enum channel_event channel_receive(struct channel *ch, unsigned char *bytes, size_t length,
                                   size_t *consumed, struct channel_message *message,
                                   struct strbuf *out, struct sov_errbuf *err)
{
    *consumed = 0;
    *message = (struct channel_message){0};
    assert(ch->state != STATE_NEW);
    if (ch->state == STATE_CLOSED) return closed(ch, err);
    uint32_t max = ch->state == STATE_OPEN ? FRAME_BYTES_MAX + CHANNEL_OVERHEAD_BYTES
                                           : CHANNEL_HANDSHAKE_BYTES_MAX;
    struct frame frame;
    enum frame_state found = frame_read(bytes, length, max, &frame, &ch->why);
    if (found == FRAME_MORE) return CHANNEL_MORE;
    if (found == FRAME_BAD) return closed(ch, err);
    *consumed = FRAME_HEADER_BYTES + (size_t)frame.length;
    const unsigned char *payload = bytes + FRAME_HEADER_BYTES;
    if (frame.kind == FRAME_REFUSE && frame.length == 1 && may_be_refused(ch))
        return on_refuse(ch, payload, err);
    if (!expects(ch, frame.kind, frame.length)) {
        sov_fail(&ch->why, SOV_ERR_FORMAT, "a %s frame of %u bytes where none is expected",
                 frame_kind_name(frame.kind), frame.length);
        return closed(ch, err);
    }
    switch (ch->state) {
    case STATE_WAIT_HELLO: return on_hello(ch, payload, out, err);
    case STATE_WAIT_CHALLENGE: return on_challenge(ch, payload, out, err);
    case STATE_WAIT_PROOF: return on_proof(ch, payload, out, err);
    case STATE_WAIT_READY: return on_ready(ch, bytes, err);
    default: return on_encrypted(ch, frame.kind, bytes, frame.length, message, err);
    }
}

bool channel_is_open(const struct channel *channel)
{
    return channel->state == STATE_OPEN;
}

bool channel_dialed(const struct channel *channel)
{
    return channel->dialed;
}

const unsigned char *channel_peer(const struct channel *channel)
{
    return channel->dialed ? channel->hello.peer : channel->hello.key;
}

const unsigned char *channel_peer_instance(const struct channel *channel)
{
    return channel->dialed ? channel->challenge.instance : channel->hello.instance;
}

enum channel_refusal channel_refusal(const struct channel *channel)
{
    return channel->refusal;
}

uint64_t channel_rekeys(const struct channel *channel)
{
    return channel->rekeys;
}
