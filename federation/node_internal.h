/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a node share:
 *
 *     node.c          creation, the turn, the end
 *     node_inbox.c    messages of peers: quotas, decoding, verification
 *     node_effects.c  what the core wants done
 *     node_propose.c  own proposals into requests, outcomes back
 *     node_members.c  changes of the configuration that this operator agreed to
 *     node_serve.c    log entries for who is behind
 *     node_status.c   figures for others
 */
#ifndef SOV_FEDERATION_NODE_INTERNAL_H
#define SOV_FEDERATION_NODE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/identity.h"
#include "federation/node.h"
#include "federation/node_check.h"
#include "federation/node_known.h"
#include "federation/node_penalty.h"
#include "federation/store.h"
#include "federation/store_message.h"

enum {
    NODE_QUOTA_MESSAGES = 64,   /* of one peer in one turn */
    NODE_QUOTA_BYTES = 1 << 20, /* the last one may go beyond */
    NODE_QUOTA_CHECKS = 256,    /* signatures of its messages, likewise */
    NODE_TELL_MS = 1000,        /* between two lines of the log on what one member does wrong */
    NODE_GROUP = 16,            /* messages decoded at a time */
    NODE_EPOCHS = 4,            /* whose keys are remembered */
    NODE_SERVE_ENTRIES = 8,     /* log entries read for others in one turn */
    NODE_OWN_UNDER_WAY = 8,     /* own requests, when they are full */
    NODE_OWN_PARTLY_FULL = 2,   /* and when they are not */
    NODE_VERDICTS = 256,
};

struct node_message {
    struct node_message *next;
    uint8_t from;
    size_t length;
    uint8_t bytes[];
};

struct node_peer {
    uint32_t taken; /* in this turn */
    size_t taken_bytes;
    uint32_t checks; /* signatures, in this turn */
    bool held;
    struct node_penalty penalty;
    uint64_t bad;
    int64_t told_ns; /* when the log told of it last */
    uint64_t untold; /* times since */
    /* Log entries it asked for: serve_next .. serve_last. */
    uint64_t serve_next, serve_last;
};

/* The keys of one configuration. */
struct node_epoch {
    bool known;
    uint32_t epoch;
    bool active[MESSAGE_SEATS_MAX];
    uint8_t keys[MESSAGE_SEATS_MAX][MESSAGE_KEY_BYTES];
};

struct node_request {
    uint64_t number;            /* 0: none */
    struct fed_proposal *first; /* NULL: nobody waits for it any more */
};

struct node_verdict {
    struct message_digest request;
    bool valid;
};

struct fed_node {
    struct fed_config config;
    struct fed_node_options options;
    struct datadir *dir;
    uint8_t seat;
    struct identity *identity;
    struct pbft *core;
    struct fed_store *store;
    struct fed_putter *putter;
    struct fed_log *log;
    struct loop *loop;
    struct links *links;
    struct loop_hook hook;
    struct loop_timer timers[PBFT_TIMERS];
    uint64_t generations[PBFT_TIMERS];
    bool fired[PBFT_TIMERS];
    struct loop_timer status_timer, resume_timer;
    bool amnesia;

    pthread_t thread;
    bool has_thread;
    atomic_bool stop;
    struct sov_errbuf failure; /* once `failed` */
    atomic_bool failed;

    /* Turns. */
    bool unput;               /* the store had no room for the effects of the last step */
    _Atomic uint64_t durable; /* the highest token */
    uint64_t durable_seen;
    struct node_verdict verdicts[NODE_VERDICTS];
    size_t verdict_count;

    /* Inbox. */
    struct node_message *first, *last;
    struct node_message *later_first, *later_last; /* whose senders have had their time */
    uint64_t checks_before;                        /* signatures verified up to the turn before */
    struct node_peer peers[MESSAGE_SEATS_MAX];
    struct node_epoch epochs[NODE_EPOCHS]; /* by epoch modulo */
    uint32_t epoch;
    uint8_t (*revoked)[CHANNEL_KEY_BYTES]; /* keys that were members' */
    int revoked_count;
    struct message_scratch scratches[NODE_GROUP];
    struct message_counts counts;
    struct known known;
    struct checker *checker;
    struct strbuf work;

    /* Proposals. */
    pthread_mutex_t lock; /* of what follows, up to `status` included */
    struct fed_proposal *submitted_first, *submitted_last;
    size_t submitted, submitted_bytes; /* waiting or under way, all of them */
    bool closed;
    char store_problem[200];
    struct fed_node_status status;
    /* The thread's own again. */
    struct fed_proposal *waiting_first, *waiting_last;
    size_t waiting;
    int64_t due_ns; /* when the first of all proposals may time out: not later than that */
    struct node_request requests[PBFT_NUMBERS_WINDOW];
    int under_way;
    bool own_pause; /* the core took none: for some milliseconds it is not asked */
    struct strbuf request, encoded;
    struct fed_node_status now; /* what status is copied from */
    int64_t published_ns;
};

/* node.c */
void node_step(struct fed_node *node, const struct pbft_event *event);
/*
 * Nothing can be stepped while the store has no room; this tries once more. There is a turn whenever the
 * store has made something durable, and every NODE_STATUS_MS.
 */
bool node_ready(struct fed_node *node);
void node_fail(struct fed_node *node, enum sov_error code, const char *why);

/* node_inbox.c */
bool node_receive(void *user, int peer, unsigned char *bytes, size_t length);
bool node_take_inbox(struct fed_node *node);
void node_inbox_turn_end(struct fed_node *node);
void node_inbox_free(struct fed_node *node);
void node_epoch_set(struct fed_node *node, uint32_t epoch, const struct message_member *members,
                    uint32_t count);

/* node_effects.c */
bool node_effects_store(struct fed_node *node);
void node_effects_do(struct fed_node *node);
bool node_take_verdicts(struct fed_node *node);

/* node_propose.c */
bool node_take_proposals(struct fed_node *node);
/* Ends those whose time is over. */
void node_expire_proposals(struct fed_node *node);
void node_reply(struct fed_node *node, uint64_t number, enum pbft_outcome outcome,
                uint64_t sequence);
void node_proposals_end(struct fed_node *node);

/* node_members.c */
bool node_change_approved(const struct fed_node *node, const struct message_change *change);

/* node_serve.c */
void node_serve_ask(struct fed_node *node, uint8_t to, uint64_t sequence, uint32_t count);
/* True: there is more to be sent. */
bool node_serve(struct fed_node *node);
/* Whether the peer takes what it asks for, as far as that is known. */
bool node_serve_has_room(const struct fed_node *node, uint8_t to);

/* node_status.c */
void node_publish(struct fed_node *node, bool at_once);
static inline void node_phase(struct fed_node *node, enum fed_phase phase, int64_t since_ns,
                              int64_t now_ns)
{
    node->now.phase_ns[phase] += now_ns - since_ns;
}

#endif
