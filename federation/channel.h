/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel between two members: who is at the other end is proven, then everything is encrypted.
 * A pure state machine: bytes in, bytes and events out; no socket, no clock, no memory beyond its own
 * and the output's. What it needs of chance comes in as a seed.
 *
 * The handshake is a signed Diffie-Hellman exchange in which each signature covers everything both
 * said, both identities and the signer's part (ISO/IEC 9798-3; the reasons for each of these are in
 * Krawczyk, "SIGMA", 2003). I is who dialed, R who listens:
 *
 *     I -> R  HELLO      versions, federation, I's key, R's key, I's instance, I's ephemeral
 *     R -> I  CHALLENGE  version, R's key, R's instance, R's ephemeral, R's signature
 *     I -> R  PROOF      I's signature, header of the stream from I to R
 *     R -> I  READY      header of the stream from R to I, and its first (empty) message
 *
 * - transcript = BLAKE2b-256("sovereign-federation-v1:channel-transcript" 0x00, HELLO, CHALLENGE
 *   without the signature, each behind its length in 4 bytes). Both sign it under domains that name
 *   their part, so that a signature cannot be reflected.
 * - The keys of the two directions are BLAKE2b-512, keyed by the X25519 secret, of
 *   "sovereign-federation-v1:channel-keys" 0x00 transcript. Both ephemerals are new each time: a
 *   recorded handshake is worthless, and identities that are stolen later do not open old streams.
 * - An instance is 16 random bytes of a process: by it a peer that was started anew is told from
 *   one that dials twice.
 * - The streams are libsodium's secretstream (XChaCha20-Poly1305) with the frame's header as
 *   additional data; the sender asks for new keys after rekey_bytes. Whatever was changed, left out,
 *   doubled or moved in a stream ends the channel.
 *
 * What a stranger costs R: HELLO is judged by comparisons alone (version, federation, both keys, the
 * admit callback); only a member's key, which anybody can write there, makes R compute one ephemeral
 * and one signature, and a PROOF one verification. That is some 0.1 ms and CHANNEL_HANDSHAKE_BYTES_MAX
 * bytes per connection; how many connections there are is the caller's to bound (link_guard.h). Who is
 * refused is told why, in one frame; nobody is told anything that is not in the members' configuration.
 * A refusal is not signed, so it must never be more than a line in the log and a pause.
 *
 * Threads: one channel is used by one thread at a time.
 */
#ifndef SOV_FEDERATION_CHANNEL_H
#define SOV_FEDERATION_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "federation/frame.h"

enum {
    CHANNEL_VERSION = 1, /* the only one so far */
    CHANNEL_KEY_BYTES = 32,
    CHANNEL_SIGNATURE_BYTES = 64,
    CHANNEL_FEDERATION_BYTES = 32,
    CHANNEL_INSTANCE_BYTES = 16,
    CHANNEL_SEED_BYTES = 32,
    CHANNEL_HANDSHAKE_BYTES_MAX = 256, /* of one handshake frame's payload */
    CHANNEL_OVERHEAD_BYTES = 17,       /* that encryption adds to a payload */
    CHANNEL_PING_BYTES = 8,
    CHANNEL_REKEY_BYTES = 1 << 30, /* unless the configuration says otherwise */
};

/* Why a handshake was not finished. Numbers go over the wire: they only ever get more. */
enum channel_refusal {
    CHANNEL_ADMITTED = 0,
    CHANNEL_UNKNOWN,    /* that key is no member's */
    CHANNEL_REVOKED,    /* it was one's */
    CHANNEL_FEDERATION, /* another federation */
    CHANNEL_VERSIONS,   /* no version in common */
    CHANNEL_MISDIALED,  /* the caller looks for another member here */
    CHANNEL_SELF,       /* the caller has the key of who was called */
    CHANNEL_UNPROVEN,   /* the signature is not the key's */
    CHANNEL_CROSSED,    /* both dialed, and the other connection is the one that stays */
    CHANNEL_REFUSALS,
};

/* A sentence about the one who was refused; never NULL. */
const char *channel_refusal_text(int refusal);

/* The same for all channels of a node; outlives them. */
struct channel_config {
    unsigned char federation[CHANNEL_FEDERATION_BYTES];
    unsigned char key[CHANNEL_KEY_BYTES]; /* this node's public key (Ed25519) */
    unsigned char instance[CHANNEL_INSTANCE_BYTES];
    uint64_t rekey_bytes; /* 0: CHANNEL_REKEY_BYTES */
    /* Signs domain 0x00 message with this node's key (base/identity.h); false: it cannot. */
    bool (*sign)(void *user, const char *domain, const void *message, size_t length,
                 unsigned char signature[CHANNEL_SIGNATURE_BYTES]);
    /* May the owner of that key come in? Called before anything is proven, and once more when it is:
     * cheap, without effects. */
    enum channel_refusal (*admit)(void *user, const unsigned char key[CHANNEL_KEY_BYTES]);
    void *user;
};

enum channel_event {
    CHANNEL_MORE,   /* no whole frame is there */
    CHANNEL_STEP,   /* the handshake went on */
    CHANNEL_OPEN,   /* the handshake is done: the peer is who channel_peer says */
    CHANNEL_DATA,   /* a message */
    CHANNEL_PING,   /* CHANNEL_PING_BYTES that are to be sent back as a pong */
    CHANNEL_PONG,   /* and back they are */
    CHANNEL_CLOSED, /* it is over; err and channel_refusal say why, once and for all */
};

struct channel_message {
    const unsigned char *bytes; /* inside what was received */
    size_t length;
};

struct channel;

/*
 * peer: the key of the member that is dialed; NULL: this side was called. seed: unpredictable bytes,
 * never used twice. SOV_ERR_NOMEM.
 */
enum sov_error channel_create(const struct channel_config *config,
                              const unsigned char peer[CHANNEL_KEY_BYTES],
                              const unsigned char seed[CHANNEL_SEED_BYTES], struct channel **out,
                              struct sov_errbuf *err);
/* Wipes its secrets. NULL is fine. */
void channel_free(struct channel *channel);

/* Who dialed speaks first: appends HELLO. SOV_ERR_NOMEM. */
enum sov_error channel_start(struct channel *channel, struct strbuf *out, struct sov_errbuf *err);

/*
 * Takes at most one frame from the front of bytes and says how many bytes that was. What is to be
 * answered is appended to out, also (a refusal) when the channel closes. bytes are decrypted where
 * they lie; message points into them, for DATA, PING and PONG.
 */
enum channel_event channel_receive(struct channel *channel, unsigned char *bytes, size_t length,
                                   size_t *consumed, struct channel_message *message,
                                   struct strbuf *out, struct sov_errbuf *err);

/*
 * Appends an encrypted frame; kind: DATA, PING or PONG. Only on an open channel. SOV_ERR_LIMIT for
 * more than FRAME_BYTES_MAX; SOV_ERR_NOMEM: the channel is as before.
 */
enum sov_error channel_send(struct channel *channel, enum frame_kind kind, const void *bytes,
                            size_t length, struct strbuf *out, struct sov_errbuf *err);

bool channel_is_open(const struct channel *channel);
/* Who dialed? */
bool channel_dialed(const struct channel *channel);
/* Of an open channel. */
const unsigned char *channel_peer(const struct channel *channel);
const unsigned char *channel_peer_instance(const struct channel *channel);
/* Of a closed one: what this side refused, or was told. CHANNEL_ADMITTED: it ended otherwise. */
enum channel_refusal channel_refusal(const struct channel *channel);
/* How often this side began to send under new keys. */
uint64_t channel_rekeys(const struct channel *channel);

#endif
