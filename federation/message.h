/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What replicas say to one another, and what a replica writes down: one set of structs and one codec
 * for both, so that a record read back is a message decoded, and a log entry is sent as it was stored.
 *
 * Encoding: little-endian, a version, a kind, then the fields of the kind in the order of docs/federation.md.
 * Decoding is strict: every length and count is checked against what is there and against the limits,
 * reserved bytes must be zero, nothing may follow the end, and whatever is accepted encodes to the very same bytes.
 *
 * Decoding does not allocate. struct message points into the bytes that were decoded and into the caller's struct
 * message_scratch; it is good as long as both are unchanged. Requests, patterns and votes of a decoded message were
 * checked once and are then walked without further checks.
 *
 * Digest once: message_decode computes the digest of each pattern, request and batch it meets, stores it in the
 * structs, and nobody computes it again: votes carry digests and are compared by them. A caller that keeps what it
 * has met before (struct message_known) spares the second arrival of a request, too. struct message_counts counts.
 *
 * Everything hashed or signed begins with "sovereign-federation-v1:" + purpose + 0x00 + the federation's id, and has
 * lengths before what they measure. What is signed is always such a digest: 32 bytes.
 *
 * Threads: all functions here are pure; any thread with its own scratch.
 */
#ifndef SOV_FEDERATION_MESSAGE_H
#define SOV_FEDERATION_MESSAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

enum {
    MESSAGE_VERSION = 1,
    MESSAGE_DIGEST_BYTES = 32,    /* BLAKE2b-256 */
    MESSAGE_SIGNATURE_BYTES = 64, /* Ed25519 */
    MESSAGE_KEY_BYTES = 32,       /* Ed25519 public key */
    MESSAGE_ADDRESS_MAX = 128,    /* bytes of a network address, which the core does not read */
    MESSAGE_SEATS_MAX = 64,       /* sets of seats are bits of a uint64_t */
    MESSAGE_CHANGES_MAX = 16,     /* configuration changes decided and not yet in force */

    PBFT_PATTERN_BYTES_MAX = 64 << 10,  /* canonical JSON of one pattern */
    PBFT_REQUEST_PATTERNS_MAX = 512,    /* patterns in one request, under one signature */
    PBFT_REQUEST_BYTES_MAX = 256 << 10, /* a request encoded */
    PBFT_BATCH_REQUESTS_MAX = 1024,
    PBFT_BATCH_PATTERNS_MAX = 4096,
    PBFT_BATCH_BYTES_MAX = 1 << 20, /* a batch's requests encoded, together */
    PBFT_WINDOW_MAX = 256,          /* sequences between the watermarks */
};

struct message_digest {
    uint8_t bytes[MESSAGE_DIGEST_BYTES];
};

/*
 * Which fields of struct message each kind has:
 *
 *     REQUEST            batch: the one request. Signed by its member, not by who relays it
 *     PRE_PREPARE        view, sequence, digest, batch, signature. Is its primary's PREPARE, too
 *     PREPARE, COMMIT    view, sequence, digest, signature
 *     CHECKPOINT         view (its epoch only), sequence, digest (chain head), signature
 *     STABLE             the same, with a certificate instead: a quorum's CHECKPOINTs
 *     VIEW_CHANGE        view: the one wanted; sequence, digest, certificate: the sender's stable checkpoint;
 *                        prepared, signature; identity: the digest of it all
 *     NEW_VIEW           view, new_view: whose VIEW_CHANGEs it stands on; signature
 *     LOG_ENTRY          view, sequence, digest, batch, certificate: a quorum's COMMITs
 *
 * not signed, believed of the link's peer or checked by digest:
 *
 *     STATUS             view, sequence (stable), status
 *     FETCH_LOG          sequence, count: LOG_ENTRYs wanted
 *     FETCH_BATCH        sequence, digest: content wanted
 *     BATCH              sequence, digest, batch
 *     FETCH_VIEW_CHANGE  view, seat, digest: its identity. The answer is that message
 *
 * and only ever written down:
 *
 *     PREPARED           view, sequence, digest, certificate: a quorum's PREPAREs
 *     SNAPSHOT           view (its epoch only), sequence, digest (chain head), snapshot
 *     NUMBERS            sequence: own request numbers up to this one may have been used
 */
enum message_kind {
    MESSAGE_REQUEST = 1,
    MESSAGE_PRE_PREPARE = 2,
    MESSAGE_PREPARE = 3,
    MESSAGE_COMMIT = 4,
    MESSAGE_CHECKPOINT = 5,
    MESSAGE_STABLE = 6,
    MESSAGE_VIEW_CHANGE = 7,
    MESSAGE_NEW_VIEW = 8,
    MESSAGE_STATUS = 9,
    MESSAGE_FETCH_LOG = 10,
    MESSAGE_LOG_ENTRY = 11,
    MESSAGE_FETCH_BATCH = 12,
    MESSAGE_BATCH = 13,
    MESSAGE_FETCH_VIEW_CHANGE = 14,
    MESSAGE_PREPARED = 15,
    MESSAGE_SNAPSHOT = 16,
    MESSAGE_NUMBERS = 17,
};

/* A view counts from 0 in each epoch; an epoch is the time of one configuration. */
static inline uint64_t message_view(uint32_t epoch, uint32_t number)
{
    return (uint64_t)epoch << 32 | number;
}
static inline uint32_t message_epoch(uint64_t view)
{
    return (uint32_t)(view >> 32);
}

enum message_request_kind {
    MESSAGE_REQUEST_PATTERNS = 1,
    MESSAGE_REQUEST_CHANGE = 2, /* its one "pattern" is a struct message_change, not JSON */
};

/* Encoded: kind u8, seat u8, number u64, count u16, then per pattern u32 length + bytes, then the signature. */
struct message_request {
    enum message_request_kind kind;
    uint8_t seat;    /* the member that submits and signs */
    uint64_t number; /* of the member's request: at most once; from 1 */
    uint32_t pattern_count;
    uint32_t pattern_first;  /* its index in message_batch.patterns */
    uint32_t offset, length; /* of its encoding in message_batch.bytes */
    struct message_digest digest;
    bool known; /* struct message_known had it: signature and patterns were checked before */
};

/* Requests in order: the value of one sequence number. request_count 0 is the null batch. */
struct message_batch {
    const uint8_t *bytes; /* the requests encoded, one behind the other */
    uint32_t length;
    uint32_t request_count, pattern_count;
    const struct message_request *requests; /* [request_count] */
    const struct message_digest *patterns;  /* [pattern_count], of all requests; a pattern's id */
};

/* One signature of a certificate, as it is encoded (alignment 1). */
struct message_vote {
    uint8_t seat;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
};

struct message_certificate {
    const struct message_vote *votes; /* seats strictly ascending */
    uint32_t count;
};

/* What a VIEW_CHANGE says about one sequence; walked with message_prepared_next. */
struct message_prepared {
    uint64_t view, sequence;
    struct message_digest digest;
    struct message_certificate certificate; /* PREPAREs of (view, sequence, digest) */
};

struct message_prepared_list {
    const uint8_t *bytes;
    uint32_t length, count; /* sequences strictly ascending */
};

struct message_reference {
    uint8_t seat;
    uint8_t identity[MESSAGE_DIGEST_BYTES]; /* of its VIEW_CHANGE */
};

struct message_new_view {
    const struct message_reference *references; /* seats strictly ascending */
    uint32_t count;
};

enum message_status_flags {
    MESSAGE_STATUS_VIEW_CHANGING = 1, /* in no view: wants that one */
    MESSAGE_STATUS_RECOVERING = 2,    /* lost its records: votes later, and wants its VIEW_CHANGE */
    MESSAGE_STATUS_FLAGS = 3,
};

/* Bit i of the maps is sequence stable + 1 + i; window is their length in bits, a multiple of 8. */
struct message_status {
    uint8_t flags;
    uint64_t executed;     /* the highest sequence delivered and durable: what can be fetched */
    uint64_t view_changes; /* bit per seat: its VIEW_CHANGE for this view is here */
    uint16_t window;
    uint8_t proposed[PBFT_WINDOW_MAX / 8], prepared[PBFT_WINDOW_MAX / 8],
        committed[PBFT_WINDOW_MAX / 8];
};

/* A seat of the configuration, and the numbers executed for it: last, and which of the 64 before it. */
struct message_member {
    uint8_t seat;
    bool active;
    uint8_t key[MESSAGE_KEY_BYTES];
    uint8_t address_length;
    char address[MESSAGE_ADDRESS_MAX];
    uint64_t number_last;   /* the highest executed; 0: none */
    uint64_t numbers_below; /* bit i: number_last - 1 - i was executed */
};

enum message_change_kind {
    MESSAGE_CHANGE_ADD = 1,    /* seat is not active; key, address */
    MESSAGE_CHANGE_REMOVE = 2, /* seat is active; key is its key, no address */
    MESSAGE_CHANGE_REKEY = 3,  /* seat is active; its new key and address */
};

/* Encoded: kind u8, seat u8, key, address length u8, address. In a snapshot behind its u64 sequence. */
struct message_change {
    enum message_change_kind kind;
    uint8_t seat;
    uint8_t key[MESSAGE_KEY_BYTES];
    uint8_t address_length;
    char address[MESSAGE_ADDRESS_MAX];
    uint64_t effective; /* the last sequence of the old configuration */
};

/* Where execution stands behind `sequence`: with it nothing before has to be read again. */
struct message_snapshot {
    uint64_t epoch_start; /* the last sequence of the epoch before; 0 in the first */
    const struct message_member *members; /* seats strictly ascending */
    uint32_t member_count;
    const struct message_change *changes; /* in the order decided */
    uint32_t change_count;
};

/* Which fields mean something: see enum message_kind. */
struct message {
    enum message_kind kind;
    uint8_t
        sender; /* whose signature it bears (REQUEST: the member's); of unsigned kinds: who made it */
    uint64_t view, sequence;
    struct message_digest digest;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    struct message_batch batch;
    struct message_certificate certificate;
    struct message_digest identity;
    uint8_t seat;   /* FETCH_VIEW_CHANGE */
    uint16_t count; /* FETCH_LOG */
    union {
        struct message_prepared_list prepared;
        struct message_new_view new_view;
        struct message_status status;
        struct message_snapshot snapshot;
    };
};

struct message_limits {
    uint32_t pattern_bytes_max, request_bytes_max;
    uint32_t batch_requests_max, batch_patterns_max, batch_bytes_max;
    uint32_t window; /* a multiple of 8 */
};
/* The constants above. */
extern const struct message_limits message_limits_default;

/* How much was computed; may be shared by threads. */
struct message_counts {
    _Atomic uint64_t canonical; /* patterns canonicalised or checked to be canonical */
    _Atomic uint64_t pattern, request, batch; /* digests of each */
};

/*
 * Asked before a request is digested: whether exactly these bytes (a request with its signature) were met before.
 * Then it copies the digests ([pattern_count]) and returns true. What it says is trusted. Thread-safe if shared.
 */
struct message_known {
    bool (*lookup)(void *user, const uint8_t *bytes, uint32_t length,
                   struct message_digest *request, struct message_digest *patterns,
                   uint32_t pattern_count);
    void *user;
};

/* Where decoding puts what is not in the bytes. One per thread; message_scratch_init once. */
struct message_scratch {
    struct message_limits limits;
    struct message_digest federation;  /* its id: digest of the first configuration */
    const struct message_known *known; /* or NULL */
    struct message_counts *counts;     /* or NULL */
    struct message_request *requests;  /* [batch_requests_max] */
    struct message_digest *patterns;   /* [batch_patterns_max] */
    struct message_member *members;    /* [MESSAGE_SEATS_MAX] */
    struct message_change *changes;    /* [MESSAGE_CHANGES_MAX] */
};
/* SOV_ERR_NOMEM, SOV_ERR_INVALID (limits above the constants). Free also what failed to init. */
enum sov_error message_scratch_init(struct message_scratch *scratch,
                                    const struct message_limits *limits,
                                    const struct message_digest *federation,
                                    struct sov_errbuf *err);
void message_scratch_free(struct message_scratch *scratch);

/* The longest encoding of any message under these limits: what a frame or a record must hold. */
size_t message_bytes_max(const struct message_limits *limits);

/* SOV_ERR_FORMAT (what, at which byte), SOV_ERR_LIMIT, SOV_ERR_UNSUPPORTED (version). */
enum sov_error message_decode(const uint8_t *bytes, size_t length, struct message_scratch *scratch,
                              struct message *out, struct sov_errbuf *err);
/* The bytes written; 0 when capacity does not suffice. The exact size: message_encoded_bytes. */
size_t message_encode(const struct message *message, uint8_t *out, size_t capacity);
size_t message_encoded_bytes(const struct message *message);
/* "PRE-PREPARE"; "?" for what is none. */
const char *message_kind_name(enum message_kind kind);

/*
 * Whether every pattern of a REQUEST or PRE_PREPARE is canonical JSON, for who verifies what comes from peers (with
 * the signatures; not needed for what a quorum has certified: LOG_ENTRY, BATCH). Those that `known` answered are
 * skipped. work is reused. SOV_ERR_FORMAT, SOV_ERR_NOMEM.
 */
enum sov_error message_check_canonical(const struct message *message,
                                       struct message_scratch *scratch, struct strbuf *work,
                                       struct sov_errbuf *err);

/* A pattern's text, in order: *cursor begins as 0; false behind the last. */
bool message_pattern_next(const struct message_batch *batch, const struct message_request *request,
                          uint32_t *cursor, const uint8_t **text, uint32_t *length);
/* The signature of a request: the last MESSAGE_SIGNATURE_BYTES of its encoding. */
const uint8_t *message_request_signature(const struct message_batch *batch,
                                         const struct message_request *request);
/* The change of a MESSAGE_REQUEST_CHANGE; effective is 0. */
void message_request_change(const struct message_batch *batch,
                            const struct message_request *request, struct message_change *out);
/* *cursor begins as 0; false behind the last. */
bool message_prepared_next(const struct message_prepared_list *list, uint32_t *cursor,
                           struct message_prepared *out);

/*
 * Making requests. Patterns must be canonical JSON already. The bytes appended to out are a request with room for the
 * signature, which message_request_sign writes. What is signed is *digest; with digest NULL nothing is hashed here:
 * then message_request_wrap, message_encode, message_decode (which hashes, this once), sign what that calls the
 * message's digest, and message_request_sign into the encoded REQUEST, of which the request is the end.
 * SOV_ERR_LIMIT, SOV_ERR_NOMEM.
 */
struct message_text {
    const uint8_t *bytes;
    uint32_t length;
};
enum sov_error message_request_build(const struct message_scratch *scratch, uint8_t seat,
                                     uint64_t number, const struct message_text *patterns,
                                     uint32_t count, struct strbuf *out,
                                     struct message_digest *digest, struct sov_errbuf *err);
enum sov_error message_change_build(const struct message_scratch *scratch, uint8_t seat,
                                    uint64_t number, const struct message_change *change,
                                    struct strbuf *out, struct message_digest *digest,
                                    struct sov_errbuf *err);
/* The last bytes of these: of a request as built, or of a REQUEST as encoded. */
void message_request_sign(uint8_t *request, size_t length,
                          const uint8_t signature[MESSAGE_SIGNATURE_BYTES]);

/* The REQUEST message of a built and signed request, undigested: for message_encode. */
void message_request_wrap(const uint8_t *request, uint32_t length, struct message *out);

/*
 * Every signature of a message, nested ones included, for whoever verifies (and caches) them: public key of `seat` in
 * `epoch`, over `digest`. A REQUEST by itself is verified with the keys of the epoch that runs: MESSAGE_EPOCH_CURRENT.
 * Requests within LOG_ENTRY and BATCH are not enumerated: a quorum has.
 */
#define MESSAGE_EPOCH_CURRENT UINT32_MAX
struct message_signed {
    uint8_t seat;
    bool request; /* signed by a member as submitter, not by a replica as voter */
    bool known;   /* that request was met before, in its whole, with this signature */
    uint32_t epoch;
    struct message_digest digest;
    const uint8_t *signature;
};
struct message_signed_cursor {
    const struct message *message;
    struct message_digest federation;
    struct message_prepared prepared;
    uint32_t stage, index, prepared_cursor;
    struct message_digest digest; /* of the certificate being walked */
};
void message_signed_begin(struct message_signed_cursor *cursor, const struct message *message,
                          const struct message_digest *federation);
bool message_signed_next(struct message_signed_cursor *cursor, struct message_signed *out);

/* What is signed, for those who make or verify single votes. kind: PREPARE, COMMIT, CHECKPOINT. */
void message_vote_digest(enum message_kind kind, const struct message_digest *federation,
                         uint64_t view, uint64_t sequence, const struct message_digest *digest,
                         struct message_digest *out);
void message_new_view_digest(const struct message_digest *federation, uint64_t view,
                             const struct message_new_view *new_view, struct message_digest *out);
/* identity of a VIEW_CHANGE whose other fields are set: it is also what its sender signs. */
void message_view_change_digest(const struct message_digest *federation,
                                const struct message *message, struct message_digest *out);

/* Digests of content; counts may be NULL. */
void message_pattern_digest(const uint8_t *text, size_t length, struct message_counts *counts,
                            struct message_digest *out);
/* Of its requests in order, their signatures included. */
void message_batch_digest(const struct message_digest *federation,
                          const struct message_batch *batch, struct message_counts *counts,
                          struct message_digest *out);
/* The chain: head of sequence s from the head before it. Head 0 is the federation's id. */
void message_chain_digest(const struct message_digest *before, uint64_t sequence,
                          const struct message_digest *batch, struct message_digest *out);

static inline bool message_digest_equal(const struct message_digest *a,
                                        const struct message_digest *b)
{
    return __builtin_memcmp(a->bytes, b->bytes, MESSAGE_DIGEST_BYTES) == 0;
}

/* f and the quorum of n members: any two quorums meet in a correct one, n not 3f + 1 included. */
static inline uint32_t pbft_faulty_max(uint32_t n)
{
    return (n - 1) / 3;
}
static inline uint32_t pbft_quorum(uint32_t n)
{
    return (n + pbft_faulty_max(n)) / 2 + 1;
}

#endif
