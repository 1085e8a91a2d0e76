/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node: the shell around the pure core (pbft.h). It has the sockets, the disk, the clock and the keys, and
 * no opinion on the protocol.
 *
 * One thread, the node's, does nearly everything, in turns of one event loop (loop.h): messages that came are
 * decoded, their signatures verified (node_check.h: across the cores when there are many), and given to
 * the core one by one; what the core wants done is done. Records are made durable by the store's thread,
 * all that came meanwhile by one sync, and what depended on them goes out then. Another hand-off
 * between threads there is not: it costs as much as a verification.
 *
 * What peers can make a node do is bounded: each has a quota of messages and of signatures to be verified per
 * turn, after which its link is not read for a moment (TCP makes it wait); who sends what a correct member cannot have sent is not
 * listened to for a while, longer each time.
 *
 * Proposals come from any thread. Those that wait go together into one request of this member, under one
 * signature: as many as there are when the one before is on its way.
 *
 * Threads: create, run and free from one; propose, status and stop from any.
 */
#ifndef SOV_FEDERATION_NODE_H
#define SOV_FEDERATION_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/datadir.h"
#include "base/error.h"
#include "base/strbuf.h"
#include "federation/config.h"
#include "federation/link.h"
#include "federation/pbft.h"

enum {
    NODE_PROPOSALS_MAX = 16384,          /* that wait or are under way */
    NODE_PROPOSALS_BYTES_MAX = 64 << 20, /* of their patterns */
    NODE_STATUS_MS = 50,                 /* how old a status may be; proposals time out that late */
    FED_TIMEOUT_MS_DEFAULT = 60000,      /* of who proposes by a command or over HTTP */
    FED_TIMEOUT_MS_MAX = 86400000,
};

struct fed_node;

struct fed_node_options {
    const struct fed_config *config; /* copied */
    struct datadir *dir;             /* outlives the node */
    /*
     * Whose key is not in the configuration, because it came by a change of the members: its id, and one
     * more than it (0: it is in the configuration).
     */
    int id_plus_one;
    /* To listen on; NULL and 0: the member's own address in the configuration. */
    const char *host;
    int port;
    int threads; /* that verify signatures, the node's included; 0: as there are cores */
};

/*
 * Opens the store, restores the core and listens. SOV_ERR_NOT_FOUND: the key in the data directory is no
 * member's; errors of fed_store_open, fed_store_restore and links_create.
 */
enum sov_error fed_node_create(const struct fed_node_options *options, struct fed_node **out,
                               struct sov_errbuf *err);
/* Until fed_node_stop. SOV_ERR_IO and others: the node cannot go on (its store has failed). */
enum sov_error fed_node_run(struct fed_node *node, struct sov_errbuf *err);
/* The same in a thread of its own; fed_node_free ends and joins it. SOV_ERR_IO. */
enum sov_error fed_node_start(struct fed_node *node, struct sov_errbuf *err);
void fed_node_stop(struct fed_node *node);
/* Stops it and waits for the end of its thread. */
void fed_node_join(struct fed_node *node);
/* Proposals that are not decided yet end as such (enum fed_fate). NULL is fine. */
void fed_node_free(struct fed_node *node);

uint8_t fed_node_seat(const struct fed_node *node);
int fed_node_port(const struct fed_node *node);
/* Why it stopped by itself, "": it did not. */
const char *fed_node_failure(const struct fed_node *node);

/* ---- proposals ---- */

/* What a proposer knows at the end. */
enum fed_fate {
    FED_DECIDED,   /* `outcome` says how */
    FED_NEVER,     /* nobody else has seen it: it is not in the log and will not be */
    FED_UNDECIDED, /* the others may have it: it may be in the log, now or later. Its ids tell */
};

/* Patterns that are to be in the log, together in one batch. */
struct fed_proposal {
    /* The caller's. Called once, on the node's thread (or fed_node_free's): then it is the caller's again. */
    void (*done)(struct fed_proposal *proposal);
    void *user;
    /*
     * For how long it may wait, 0: for as long as it takes. It ends within NODE_STATUS_MS of that, also when
     * nothing can be agreed on or written to the disk.
     */
    int64_t timeout_ms;
    /* The answer. */
    enum fed_fate fate;
    bool timed_out;            /* if it is not decided: else the node has ended */
    enum pbft_outcome outcome; /* not decided: PBFT_LOST */
    uint64_t sequence;
    int64_t latency_ns; /* from fed_node_propose */
    bool is_change;     /* of the configuration, instead of patterns */
    struct message_change change;
    /* The patterns, canonical, and their ids once they were sent. */
    uint32_t count, capacity;
    uint32_t *lengths;
    struct message_digest *ids;
    struct strbuf text;
    /* The node's. */
    struct fed_proposal *next;
    int64_t begun_ns, due_ns; /* INT64_MAX: it has time */
};

/* Patterns are added to it, or it gets a change. SOV_ERR_NOMEM. */
enum sov_error fed_proposal_create(struct fed_proposal **out, struct sov_errbuf *err);
void fed_proposal_free(struct fed_proposal *proposal);
/*
 * Adds one pattern: any JSON text, which is made canonical. SOV_ERR_FORMAT, SOV_ERR_LIMIT (one that is
 * too long, or too many of them), SOV_ERR_NOMEM.
 */
enum sov_error fed_proposal_add(struct fed_proposal *proposal, const struct message_limits *limits,
                                const char *json, size_t length, struct sov_errbuf *err);
/*
 * A change of the configuration. It needs the consent of a quorum's operators beforehand: a line in
 * the file NODE_APPROVED_FILE of their data directories, as fed_change_write writes it.
 */
#define NODE_APPROVED_FILE "approved-changes"
/* "add SEAT KEY ADDRESS", "remove SEAT KEY" or "rekey SEAT KEY ADDRESS". False without memory. */
bool fed_change_write(const struct message_change *change, struct strbuf *out);
/* SOV_ERR_INVALID. */
enum sov_error fed_change_read(const char *text, struct message_change *out,
                               struct sov_errbuf *err);
/* Agrees to it in a data directory; a node there that runs knows at once. SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error fed_change_approve(const char *data_dir, const struct message_change *change,
                                  struct sov_errbuf *err);
/*
 * SOV_ERR_BUSY: too many wait; SOV_ERR_INVALID: it has no pattern; SOV_ERR_SHUTDOWN. The proposal stays the
 * caller's then.
 */
enum sov_error fed_node_propose(struct fed_node *node, struct fed_proposal *proposal,
                                struct sov_errbuf *err);
/* Of one that ended undecided: a sentence on what has become of it. */
void fed_proposal_explain(const struct fed_proposal *proposal, char *out, size_t size);
const struct message_limits *fed_node_limits(const struct fed_node *node);

/* ---- figures ---- */

enum fed_phase {
    FED_PHASE_DECODE,   /* messages of peers, digests included */
    FED_PHASE_VERIFY,   /* signatures, and whether patterns are canonical */
    FED_PHASE_PROTOCOL, /* the core, signing included */
    FED_PHASE_SIGN,     /* thereof */
    FED_PHASE_STORE,    /* giving records to the store */
    FED_PHASE_SYNC,     /* until they are durable */
    FED_PHASE_SEND,     /* encoding and sending */
    FED_PHASES,
};
const char *fed_phase_name(enum fed_phase phase);

enum { FED_LATENCY_BUCKETS = 16 };

struct fed_node_peer {
    bool member;
    uint8_t key[MESSAGE_KEY_BYTES];
    char address[MESSAGE_ADDRESS_MAX + 1];
    struct link_stats link;
    uint64_t bad_messages;
};

struct fed_node_status {
    uint8_t seat;
    uint32_t epoch;
    struct message_digest federation;
    struct pbft_status core;
    int64_t now_ns, started_ns;
    int64_t waited_ns; /* with nothing to do; phases but FED_PHASE_SYNC are parts of the rest */
    int64_t phase_ns[FED_PHASES];
    uint64_t turns, messages_in, messages_unwanted, messages_bad, held;
    uint64_t signatures_verified, signatures_remembered, signatures_bad;
    uint64_t signatures_turn; /* the most that were verified in one turn */
    uint64_t digests_pattern, digests_request, digests_batch, canonical;
    uint64_t syncs;
    uint64_t batches, requests, patterns;   /* delivered since the start */
    uint64_t proposals, committed, refused; /* own; those that timed out are refused, too */
    uint64_t waiting, under_way;            /* own, now */
    /* Of own proposals: commits within 2^i * 0.25 ms, and all. */
    uint64_t latency[FED_LATENCY_BUCKETS], latency_count;
    int64_t latency_ns;
    char store_problem[200]; /* "": none */
    struct links_totals links;
    struct fed_node_peer peers[MESSAGE_SEATS_MAX]; /* by seat */
};
/* As of at most NODE_STATUS_MS ago, while the node runs. */
void fed_node_status(struct fed_node *node, struct fed_node_status *out);
/* As a JSON object. False without memory. */
bool fed_status_write(const struct fed_node_status *status, struct strbuf *out);

#endif
