/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run: replicas around the production core (federation/pbft.h), and simulated everything else. What each file does:
 *
 *     world.c      time: the queue of events, the schedule of faults, the end
 *     node.c       what the production shell does: verifying, effects, restart
 *     disk.c       records: durable only after a sync; crashes, corruption
 *     network.c    links: delay, loss, duplication, reordering, partitions
 *     crypto.c     signatures that only their owner can make
 *     adversary.c  what Byzantine replicas do to what their cores say; forge.c, what they make up
 *     checker.c    what must hold, looked at after every event; ledger.c, what was decided and by whom
 *     trace.c      the story, and its digest
 *
 * Everything that decides is drawn from generators seeded by the plan; no address, no time of day, no order of
 * allocation. Time is in microseconds.
 */
#ifndef SOV_SIM_WORLD_H
#define SOV_SIM_WORLD_H

#include <setjmp.h>
#include <stdio.h>

#include "federation/pbft.h"
#include "sim/map.h"
#include "sim/plan.h"
#include "sim/random.h"

enum {
    SIM_NODES_MAX =
        2 * SIM_SEATS_MAX,       /* seat + SIM_SEATS_MAX is the second face of a Byzantine seat */
    SIM_LINK_MESSAGES_MAX = 256, /* under way from one node to another; more are lost */
    SIM_VIOLATION_MAX = 400,
    SIM_REQUESTS_MAX = 4096,
    SIM_EPOCHS_MAX = 64,
    SIM_REPLAY_MESSAGES = 64, /* that the adversary remembers */
    SIM_ALTERNATIVES = 16,
};

/* Bytes shared by those who read them. */
struct sim_bytes {
    uint32_t references, length;
    uint8_t data[];
};

enum sim_violation {
    SIM_OK,
    SIM_AGREEMENT,    /* two batches, heads or configurations where one can be */
    SIM_ORDER,        /* deliveries not one behind the other */
    SIM_VALIDITY,     /* executed what is invalid, forged, or nobody's */
    SIM_EXACTLY_ONCE, /* executed twice, or replied twice */
    SIM_CONTRADICTION, /* a correct replica signed two different votes, or voted in a view that it left */
    SIM_UNPROVEN,     /* a vote or record without the quorum that it needs */
    SIM_FORGOTTEN,    /* a vote against what may be committed in a lower view */
    SIM_LOST_REQUEST, /* answered COMMITTED, and not in the log */
    SIM_LIVENESS,     /* something not done in the stated time */
    SIM_MEMORY,       /* allocation in a step, or an arena that grew */
    SIM_GROWTH,       /* the log grows by more empty batches than those who recover need */
    SIM_BLAME,        /* a correct member was accused */
    SIM_RESTART,      /* a store without damage was refused */
    SIM_ASSERTION,    /* the core's own */
    SIM_VIOLATIONS,
};
const char *sim_violation_name(enum sim_violation violation);

enum sim_count {
    SIM_COUNT_EVENTS,
    SIM_COUNT_MESSAGES,
    SIM_COUNT_LOST,
    SIM_COUNT_DUPLICATED,
    SIM_COUNT_REORDERED,
    SIM_COUNT_CUT, /* by a partition */
    SIM_COUNT_QUEUE_FULL,
    SIM_COUNT_REFUSED, /* by decoding, by canonical form, by signature */
    SIM_COUNT_SYNCS,
    SIM_COUNT_CRASHES,
    SIM_COUNT_RESTARTS,
    SIM_COUNT_UNSYNCED_LOST,
    SIM_COUNT_LOG_LOST,
    SIM_COUNT_WIPED,
    SIM_COUNT_RECOVERED, /* a wiped replica votes again */
    SIM_COUNT_REQUESTS,
    SIM_COUNT_COMMITTED,
    SIM_COUNT_INVALID,
    SIM_COUNT_LOST_NUMBERS,
    SIM_COUNT_BATCHES, /* decided sequences */
    SIM_COUNT_NULL_BATCHES,
    SIM_COUNT_REPEATS, /* requests in a batch whose number was used already */
    SIM_COUNT_VIEW_CHANGES,
    SIM_COUNT_NEW_VIEWS,
    SIM_COUNT_NEW_VIEW_PROPOSALS, /* batches that went from a view into another one */
    SIM_COUNT_CHECKPOINTS,
    SIM_COUNT_TRANSFERRED, /* log entries sent */
    SIM_COUNT_FETCHED_BATCHES,
    SIM_COUNT_EPOCHS,
    SIM_COUNT_VERDICTS,
    SIM_COUNT_BLAMED,
    SIM_COUNT_TWISTED,  /* messages that an adversary changed */
    SIM_COUNT_INVENTED, /* messages that it made up or repeated */
    SIM_COUNT_WITHHELD,
    SIM_COUNT_ENTRIES, /* + enum sim_entry_kind: schedule entries */
    SIM_COUNTS = SIM_COUNT_ENTRIES + SIM_ENTRY_KINDS,
};
const char *sim_count_name(int count);

struct sim_result {
    enum sim_violation violation;
    char what[SIM_VIOLATION_MAX];
    uint64_t at;
    uint64_t trace_digest;
    uint64_t ended_at;
    uint64_t slowest_us; /* after healing: how long the slowest request took */
    uint64_t counts[SIM_COUNTS];
};

enum sim_event_kind {
    SIM_EVENT_BEGIN,   /* index: of a schedule entry */
    SIM_EVENT_END,     /* index */
    SIM_EVENT_ARRIVE,  /* node, from, bytes */
    SIM_EVENT_TIMER,   /* node, life, index: enum pbft_timer, number: generation */
    SIM_EVENT_SYNCED,  /* node, life, number: token */
    SIM_EVENT_VERDICT, /* node, life, digest, index: valid */
    SIM_EVENT_SUBMIT,  /* node, index: enum sim_request_flags */
    SIM_EVENT_CHANGE,  /* node, index: of a change */
    SIM_EVENT_REPEAT,  /* node, bytes: a request, sent to all */
    SIM_EVENT_INVENT,  /* index: of a schedule entry of the Byzantine */
    SIM_EVENT_LOOK,    /* whether all is done */
};

struct sim_event {
    uint64_t at, order;
    uint8_t kind, node, from;
    uint32_t life, index;
    uint64_t number;
    struct message_digest digest;
    struct sim_bytes *bytes; /* a reference */
};

/* A record as stored. kind etc. as in pbft.h. */
struct sim_record {
    enum message_kind kind;
    uint64_t view, sequence, token;
    struct sim_bytes *bytes;
};

struct sim_disk {
    struct sim_record *records; /* durable, all kinds but LOG_ENTRY */
    size_t count, capacity;
    struct sim_bytes **log; /* durable, by sequence; [0] unused */
    size_t log_count, log_capacity;
    struct sim_record *pending; /* written, not durable, by token */
    size_t pending_count, pending_capacity;
    bool syncing;
    uint64_t sync_token; /* what the sync under way covers */
    uint64_t full, slow_us;
    uint64_t stable; /* the highest durable STABLE */
    uint64_t view;   /* the highest durable NEW_VIEW or own VIEW_CHANGE */
};

struct sim_node {
    struct sim_world *world;
    uint8_t index, seat, face; /* face 1: the second of a Byzantine seat */
    bool correct, exists, up, started_once, recovering, lost_log;
    bool back;              /* was wiped, and has recovered */
    uint32_t wiped_life;    /* what was sent to earlier lives is lost with their links */
    uint64_t nulls, earned; /* in this life: null batches proposed, others delivered */
    uint32_t down;          /* schedule entries that keep it down */
    uint32_t life;
    uint64_t paused_until;
    uint32_t generation_of_key; /* newest own key that is in force */
    struct pbft *core;
    struct message_scratch scratch;
    struct sim_disk disk;
    uint32_t epoch, member_count;
    struct message_member members[MESSAGE_SEATS_MAX];
    uint64_t active;
    uint64_t timer_generation[PBFT_TIMERS];
    uint32_t clock; /* per mille */
    uint64_t verdict_us;
    uint64_t executed; /* delivered */
    size_t memory_bytes;
    struct sim_random random;
};

struct sim_link {
    struct sim_random random;
    uint64_t last_arrival;
    uint32_t under_way;
};

struct sim_request {
    struct message_digest digest;
    uint64_t number, submitted, sequence; /* sequence: where it was executed first, or 0 */
    uint32_t life;
    uint8_t seat, node;
    bool invalid, replied, abandoned, change;
    enum pbft_outcome outcome;
    uint64_t reply_sequence;
};

/* One decided sequence. */
struct sim_decision {
    bool known;
    uint8_t by; /* node that delivered it first */
    uint64_t view;
    struct message_digest batch, head;
};

struct sim_epoch {
    bool known;
    uint32_t count;
    struct message_member members[SIM_SEATS_MAX];
};

struct sim_trace {
    FILE *out; /* NULL: only the digest */
    uint64_t digest;
};

struct sim_world {
    const struct sim_plan *plan;
    struct sim_setup own_setup; /* the plan's, with the keys of the changes */
    const struct sim_setup *setup;
    const bool *enabled; /* per entry of the plan, or NULL: all */
    uint64_t now, healed_at;
    bool over;
    sigjmp_buf *unwind; /* of an assertion in the core */

    struct sim_event *queue; /* a heap */
    size_t queue_count, queue_capacity;
    uint64_t order;

    struct sim_node nodes[SIM_NODES_MAX];
    uint32_t node_count;
    struct message_digest federation;
    struct message_member first_members[SIM_SEATS_MAX];

    struct sim_link links[SIM_NODES_MAX][SIM_NODES_MAX];
    uint8_t under_way_max;

    /* Schedule entries that are in force. */
    bool active[SIM_ENTRIES_MAX];
    struct sim_random adversary, workload;
    struct sim_bytes *heard[SIM_REPLAY_MESSAGES];
    struct sim_alternative {
        uint64_t view, sequence;
        struct message_digest digest;
    } alternatives[SIM_ALTERNATIVES]; /* second proposals that the Byzantine have made */
    uint32_t alternative_count;
    uint8_t *work; /* where forged content is put together, [message_bytes_max] */

    /* crypto.c */
    uint64_t secret;
    struct sim_map signed_by; /* seat, generation, digest: that it was signed */

    /* checker.c */
    struct sim_request *requests;
    uint32_t request_count;
    struct sim_map request_index; /* digest -> index + 1 */
    struct sim_map request_executed, number_executed, votes, fixed, commits;
    struct sim_decision *decisions;
    size_t decision_count, decision_capacity;
    struct sim_epoch epochs[SIM_EPOCHS_MAX];
    uint64_t left_view[SIM_NODES_MAX];
    uint32_t trickle_left;
    uint64_t trickle_next;
    uint64_t misused;   /* correct seats that were made to submit an invalid request */
    uint64_t claimants; /* correct seats that have said that they recover */

    struct sim_trace trace;
    struct sim_result result;
};

/* world.c */
/* enabled: which entries of the plan take place, or NULL for all. trace: where the story goes, or NULL. */
void sim_run(const struct sim_plan *plan, const bool *enabled, FILE *trace,
             struct sim_result *result);
/* The event gets its time and order; bytes are taken over. */
void sim_schedule(struct sim_world *world, uint64_t delay_us, const struct sim_event *event);
struct sim_bytes *sim_bytes_new(uint32_t length);
struct sim_bytes *sim_bytes_hold(struct sim_bytes *bytes);
void sim_bytes_drop(struct sim_bytes *bytes);
struct sim_bytes *sim_encode(const struct message *message);
/* An active entry of this kind that concerns the seat (and `other`, when it is a seat); NULL: none. */
const struct sim_entry *sim_in_force(const struct sim_world *world, enum sim_entry_kind kind,
                                     uint8_t seat, uint8_t other);
static inline bool sim_is_byzantine(const struct sim_world *world, uint8_t seat)
{
    return (world->setup->byzantine >> seat & 1) != 0;
}
static inline uint64_t sim_correct_seats(const struct sim_world *world)
{
    return (((uint64_t)1 << world->setup->seats) - 1) & ~world->setup->byzantine;
}
/* Written anew, not with pbft_quorum: what is checked must not check itself. */
static inline uint32_t sim_quorum(uint32_t n)
{
    uint32_t f = (n - 1) / 3;
    return (n + f + 2) / 2; /* the least q with 2 q - n > f */
}

/* node.c */
void sim_node_init(struct sim_world *world, uint8_t seat, uint8_t face);
void sim_node_free(struct sim_node *node);
void sim_node_start(struct sim_node *node, bool amnesia);
void sim_node_stop(struct sim_node *node);
void sim_node_arrive(struct sim_node *node, uint8_t from, struct sim_bytes *bytes);
void sim_node_step(struct sim_node *node, const struct pbft_event *event);
/* False: not now (then the caller tries again later). */
bool sim_node_submit(struct sim_node *node, uint32_t flags);
bool sim_node_change(struct sim_node *node, uint32_t index);
/* The predicate: the same on all members, by nothing but content. */
bool sim_judge(const struct sim_world *world, const struct message_batch *batch,
               const struct message_request *request);

/* disk.c */
void sim_disk_write(struct sim_node *node, const struct pbft_effect *effect);
void sim_disk_synced(struct sim_node *node, uint64_t token);
void sim_disk_resume(struct sim_node *node); /* starts a sync when one is due */
void sim_disk_crash(struct sim_node *node);
void sim_disk_lose_log(struct sim_node *node, uint32_t entries);
void sim_disk_wipe(struct sim_node *node, bool keep_log);
/* Feeds the records to the core in the order it wants. False: it refused one. */
bool sim_disk_restore(struct sim_node *node);
void sim_disk_free(struct sim_disk *disk);

/* network.c */
/* bytes: a reference is taken when it is needed. */
void sim_network_send(struct sim_node *from, uint8_t to_seat, struct sim_bytes *bytes);
void sim_network_arrived(struct sim_world *world, uint8_t from, uint8_t to);

/* crypto.c */
void sim_key_make(const struct sim_world *world, uint8_t seat, uint32_t generation,
                  uint8_t key[MESSAGE_KEY_BYTES]);
/* Signs with the key that is given, as its owner. Returns false for a key that nobody owns. */
bool sim_sign(struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
              const struct message_digest *digest, uint8_t signature[MESSAGE_SIGNATURE_BYTES]);
bool sim_verify(const struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
                const struct message_digest *digest,
                const uint8_t signature[MESSAGE_SIGNATURE_BYTES]);
bool sim_was_signed(const struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
                    const struct message_digest *digest);

/* adversary.c */
/* One message of a Byzantine core to one seat: sends it, or what is made of it. */
void sim_adversary_send(struct sim_node *from, uint8_t to, const struct message *message);
/* What an entry in force makes a Byzantine seat say of itself, now and then. */
void sim_adversary_invent(struct sim_world *world, const struct sim_entry *entry);
/* Remembers some of what Byzantine seats hear and say, for repeating it. */
void sim_adversary_hear(struct sim_world *world, struct sim_bytes *bytes);
/* Signs as the Byzantine seat `message->sender` and sends over the link of `from`. */
void sim_adversary_emit(struct sim_node *from, uint8_t to, struct message *message);
const struct sim_alternative *sim_alternative_of(const struct sim_world *world, uint64_t view,
                                                 uint64_t sequence);

/* forge.c: they change message, with content in world->work. False: there is nothing to change. */
/* Another batch for the same place; invalid: with a request that must not be executed. */
bool sim_forge_proposal(struct sim_node *node, struct message *message, bool invalid);
bool sim_forge_certificate(struct sim_node *node, struct message *message);
bool sim_forge_view_change(struct sim_node *node, struct message *message, bool hide);
bool sim_forge_new_view(struct sim_node *node, struct message *message);
/* Makes up and sends a request that must not be executed, or not as it stands. */
void sim_forge_request(struct sim_node *node);

/* checker.c, ledger.c */
void sim_violate(struct sim_world *world, enum sim_violation violation, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void sim_check_sent(struct sim_node *node, const struct message *message);
void sim_check_persisted(struct sim_node *node, const struct message *message);
void sim_check_delivered(struct sim_node *node, const struct pbft_effect *effect);
void sim_check_submitted(struct sim_node *node, const struct message *message, bool invalid);
void sim_check_replied(struct sim_node *node, const struct pbft_effect *effect);
void sim_check_config(struct sim_node *node, const struct pbft_effect *effect);
void sim_check_blamed(struct sim_node *node, const struct pbft_effect *effect);
void sim_check_started(struct sim_node *node);
void sim_check_stopped(struct sim_node *node);
/* Whether nothing is left to be done; if not, why goes to out. */
bool sim_check_done(struct sim_world *world, char *out, size_t size);
const struct message_member *sim_member(const struct sim_world *world, uint32_t epoch,
                                        uint8_t seat);

/* trace.c */
void sim_tell(struct sim_world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline bool sim_telling(const struct sim_world *world)
{
    return world->trace.out != NULL;
}
void sim_digest(struct sim_world *world, uint64_t a, uint64_t b, uint64_t c);
void sim_message_describe(const struct message *message, char *out, size_t size);
static inline void sim_count(struct sim_world *world, int what)
{
    world->result.counts[what]++;
}

#endif
