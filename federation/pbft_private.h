/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files pbft_*.c share: the state of a replica, one idea per struct, and who does what.
 *
 *     pbft.c            creation, the step, effects, timers' generations, status
 *     pbft_pool.c       requests that wait: at most once, verdicts, relaying, fairness
 *     pbft_propose.c    the primary: requests into batches, batches into the pipeline
 *     pbft_agree.c      PRE-PREPARE, PREPARE, COMMIT: one sequence's way to its certificate
 *     pbft_execute.c    the chain: batches in order, numbers, deliveries, snapshots
 *     pbft_checkpoint.c stable checkpoints, the watermarks
 *     pbft_view.c       leaving a view: VIEW-CHANGE
 *     pbft_newview.c    entering one: NEW-VIEW, which batches go on
 *     pbft_resend.c     STATUS, and what it makes others send again
 *     pbft_transfer.c   log entries for who is behind
 *     pbft_restore.c    records into state
 *     pbft_members.c    the configuration and its changes
 *
 * Two invariants carry the rest: the low watermark never passes what was executed (so a replica that may vote knows the
 * configuration of every sequence in its window); and a vote is recorded as cast only when its record is durable.
 */
#ifndef SOV_FEDERATION_PBFT_PRIVATE_H
#define SOV_FEDERATION_PBFT_PRIVATE_H

#include <assert.h>
#include <string.h>

#include "federation/message_private.h"
#include "federation/pbft.h"
#include "federation/pbft_mutation.h"

enum {
    PBFT_MEMBER_REQUESTS_BYTES = 8, /* room for a member's requests, in requests of full size */
    PBFT_DELIVERY_RING = 256,       /* batches executed and not yet durable: execution waits then */
    PBFT_CHECKPOINTS = PBFT_WINDOW_MAX / 8 + 1,
    PBFT_RESEND_SLOTS = 16,    /* sequences helped with per STATUS */
    PBFT_RELAY_REQUESTS = 16,  /* requests passed on per tick */
    PBFT_IDLE_TICKS = 10,      /* ticks between STATUSes of a replica that waits for nothing */
    PBFT_RELAY_ALL_PART = 4,   /* a request goes to all after this part of the view time-out */
    PBFT_SERVE_PER_TICK = 256, /* log entries sent to one peer between two ticks */
    PBFT_DISTRUST_SHIFT_MAX = 4,
    PBFT_FETCH_TICKS = 2,     /* a peer's time to answer before another is asked */
    PBFT_FORGOTTEN_VIEWS = 2, /* that who lost its records may have wanted above what it sees */
    PBFT_RECOVERY_TICKS =
        2 * PBFT_IDLE_TICKS, /* until all have told who recovers how far they are */
};
#define PBFT_NONE UINT64_MAX /* a token that no durability reaches */
enum {
    PBFT_RESTORED = 1
}; /* the token of what was durable before the start; those of the run follow */

enum pbft_verdict { PBFT_UNJUDGED = 0, PBFT_VALID = 1, PBFT_REFUSED = 2 };

/* The newest vote of one phase by one seat for one sequence. */
struct pbft_vote {
    bool present;
    uint64_t view;
    struct message_digest digest;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
};

/* A batch's content. The arrays belong to the arena. */
struct pbft_body {
    bool present;
    struct message_digest digest;
    uint32_t length, request_count, pattern_count;
    uint32_t unjudged; /* requests without verdict */
    bool refused;      /* one was judged invalid */
    bool asked;        /* the verdicts were asked for */
    uint8_t *bytes;
    struct message_request *requests;
    struct message_digest *patterns;
    uint8_t *verdicts; /* [request_count], enum pbft_verdict */
    uint8_t *executed; /* [request_count], for DELIVER */
};

struct pbft_certificate {
    bool present;
    uint64_t view;
    struct message_digest digest;
    uint32_t count;
    struct message_vote *votes; /* [seats] */
};

/* One sequence between the watermarks. */
struct pbft_slot {
    uint64_t sequence; /* 0: unused */
    bool dirty;        /* something changed that may let it progress */
    uint64_t used;     /* the last step whose effects may point into it */
    struct pbft_body bodies[2];

    /* The proposal of `proposal_view`; it counts while that is the current view. */
    bool proposed;
    bool certified; /* it came by a NEW_VIEW: no verdict needed, a quorum's members gave theirs */
    uint64_t proposal_view;
    struct message_digest proposal;
    uint64_t accept_token; /* of its record; 0: not written yet */
    bool voted;            /* PREPARE (or PRE_PREPARE) sent */

    struct pbft_certificate prepared; /* the newest view's */
    uint64_t prepared_token;
    bool commit_sent; /* for prepared.view */

    struct pbft_certificate committed;
    struct pbft_vote *prepares, *commits; /* [MESSAGE_SEATS_MAX] */
};

/* A request that waits. Its patterns' digests and then its bytes lie in the member's buffer. */
struct pbft_entry {
    enum pbft_verdict verdict;
    struct message_request request; /* offset 0, pattern_first 0: a batch of its own */
    uint64_t arrival;               /* ascending: who came first */
    uint64_t marked;                /* view + 1 in which a proposal has it; 0: none */
    uint32_t age;                   /* ticks since it came */
    uint32_t offset, length;        /* in the buffer, digests included */
};

/* Where an own request went: who submits it again is told again. */
struct pbft_answer {
    uint64_t number, sequence; /* number 0: none */
    struct message_digest digest;
};

struct pbft_queue {
    struct pbft_entry entries[PBFT_NUMBERS_WINDOW]; /* by number modulo */
    uint64_t present, unjudged;                     /* bits of entries */
    uint8_t *buffer;
    uint32_t used;
};

struct pbft_checkpoint_vote {
    bool present;
    uint64_t sequence;
    struct message_digest digest;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
};

struct pbft_own_checkpoint {
    uint64_t sequence; /* 0: none */
    struct message_digest head;
    uint64_t token;
    bool sent;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
};

struct pbft_stable {
    uint64_t sequence;
    struct message_digest digest;
    uint32_t count;
    struct message_vote *votes; /* [seats] */
};

/* A VIEW_CHANGE kept: message points into bytes. */
struct pbft_view_change {
    bool present;
    struct message message;
    uint8_t *bytes;
};

struct pbft_new_view {
    bool present;
    uint64_t view;
    uint32_t count;
    struct message_reference references[MESSAGE_SEATS_MAX];
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
};

/* What follows from a set of VIEW_CHANGEs: the batch of every sequence in (low, high]. */
struct pbft_selection {
    uint64_t low, high;
    uint64_t sources; /* seats of the VIEW_CHANGEs */
    bool null[PBFT_WINDOW_MAX];
    struct message_digest digests[PBFT_WINDOW_MAX]; /* of sequence low + 1 + i */
    uint64_t views[PBFT_WINDOW_MAX];
};

struct pbft_peer {
    uint64_t executed, view, stable; /* as claimed */
    bool recovering;                 /* it says that it does not vote */
    bool helped;                     /* its STATUS was answered since the last tick */
    uint32_t served;                 /* log entries since the last tick */
    uint32_t distrust;               /* ticks for which its claims are ignored */
    uint32_t failures;
    bool claimed; /* since the start; what it claimed first is recovery_claim */
    uint64_t recovery_claim;
    uint32_t nulls; /* null batches proposed for its sake, less batches with requests since */
};

/* A sequence being fetched. */
struct pbft_fetch {
    uint64_t sequence; /* 0: none */
    uint8_t asked;     /* a seat that has not answered, or PBFT_NOBODY */
    uint32_t ticks;    /* since it was asked */
    struct pbft_body body;
    struct pbft_certificate certificate; /* present: the entry is here */
};

struct pbft {
    struct pbft_config config;
    uint8_t self;
    bool started;

    /* pbft_members.c */
    uint32_t epoch;
    uint64_t epoch_start,
        epoch_end; /* sequences epoch_start + 1 .. epoch_end; UINT64_MAX: no end decided */
    struct message_member members[MESSAGE_SEATS_MAX]; /* by seat */
    uint64_t active;                                  /* bits of seats */
    uint8_t order[MESSAGE_SEATS_MAX];                 /* active seats ascending */
    uint32_t n, f, quorum;
    struct message_change changes[MESSAGE_CHANGES_MAX];
    uint32_t change_count;
    struct message_member listed[MESSAGE_SEATS_MAX];           /* members in order, for effects */
    struct message_member snapshot_members[MESSAGE_SEATS_MAX]; /* of the one SNAPSHOT of a step */
    struct message_change snapshot_changes[MESSAGE_CHANGES_MAX];
    uint64_t snapshot_step;

    /* pbft_view.c, pbft_newview.c */
    uint64_t view;
    bool changing; /* in no view: wants this one */
    bool diverged;
    uint32_t failed_views,
        progress; /* views left, less windows executed; batches executed in this view */
    uint64_t view_change_token; /* of the own VIEW_CHANGE; PBFT_NONE: none to send */
    bool view_change_sent;
    uint64_t view_change_step;                          /* the last one that made one */
    struct pbft_view_change latest[MESSAGE_SEATS_MAX];  /* the newest of each seat */
    struct pbft_view_change staged[MESSAGE_SEATS_MAX];  /* fetched, for a NEW_VIEW that waits */
    struct pbft_view_change current[MESSAGE_SEATS_MAX]; /* those that new_view stands on */
    struct pbft_new_view new_view;                      /* of the view we are in, if it had one */
    struct pbft_new_view
        waiting[MESSAGE_SEATS_MAX]; /* by sender: their VIEW_CHANGEs are not all here */
    uint64_t new_view_token;        /* of its record, when this is its primary */
    bool new_view_sent;
    struct pbft_selection selection; /* of new_view */
    uint64_t installed;              /* up to this sequence its proposals are in their slots */
    struct pbft_selection attempt;   /* scratch */
    uint32_t waiting_turn;

    /* pbft_checkpoint.c */
    uint64_t low;
    struct pbft_stable stable;  /* at low; count 0 when that is the start of the epoch */
    struct pbft_stable pending; /* proven, not reached yet; sequence 0: none */
    struct pbft_checkpoint_vote *checkpoint_votes; /* [MESSAGE_SEATS_MAX][checkpoints] */
    uint32_t checkpoints;                          /* window / interval */
    struct pbft_own_checkpoint own_checkpoints[PBFT_CHECKPOINTS];

    /* pbft_execute.c */
    uint64_t executed, durable_executed;
    uint64_t executed_view; /* in whose certificate the last one is */
    struct message_digest head;
    uint64_t delivery_tokens[PBFT_DELIVERY_RING];    /* by sequence */
    struct pbft_answer answers[PBFT_NUMBERS_WINDOW]; /* to own requests, by number modulo */

    /* pbft_agree.c, pbft_propose.c */
    struct pbft_slot *slots; /* [window] */
    struct pbft_body null_body;
    uint64_t next_sequence; /* the primary's next proposal */
    uint32_t propose_turn;
    uint32_t view_nulls; /* null batches accepted in this view, less batches with requests */

    /* pbft_pool.c */
    struct pbft_queue *queues; /* [MESSAGE_SEATS_MAX] */
    uint32_t queue_bytes;
    uint64_t arrivals;
    uint32_t waiting_requests; /* present entries with verdict VALID */
    uint64_t number_next, number_token;
    uint64_t number_granted,
        number_reserved; /* written down as used; the second once number_token is durable */

    /* pbft_resend.c, pbft_transfer.c */
    struct pbft_peer peers[MESSAGE_SEATS_MAX];
    uint32_t ticks_idle;
    uint64_t executed_at_tick;
    struct pbft_fetch *fetches; /* [transfer_window], by sequence modulo */
    bool transferring;
    uint32_t fetch_turn;
    bool recovering;
    bool restored_any, restored_numbers;
    bool null_due;           /* since the last tick none was proposed for who recovers */
    uint64_t recovery_point; /* votes only when this is stable; 0: not known yet */

    /* timers */
    uint64_t generations[PBFT_TIMERS];
    bool timer_set[PBFT_TIMERS];
    bool target_request; /* what patience with the primary is for: a request, or a sequence */
    uint8_t target_seat;
    uint64_t target; /* number, or sequence */

    /* effects of this step */
    struct pbft_effect *effects;
    struct message *messages;
    size_t effect_count, effects_max;
    size_t judges; /* of these, JUDGEs: at most judges_max, the rest in later steps */
    size_t judges_max;
    uint64_t steps;
    uint64_t token_last, token_durable;
    uint64_t view_changes, faults;
    size_t arena_bytes;
    void *arena;
};

/* pbft.c */
static inline bool pbft_bit(uint64_t set, uint8_t seat)
{
    return seat < MESSAGE_SEATS_MAX && (set >> seat & 1) != 0;
}
static inline bool pbft_is_active(const struct pbft *core, uint8_t seat)
{
    return pbft_bit(core->active, seat);
}
static inline uint8_t pbft_primary(const struct pbft *core, uint64_t view)
{
    assert(core->n > 0);
    return core->order[(uint32_t)view % core->n];
}
static inline bool pbft_is_primary(const struct pbft *core)
{
    return pbft_primary(core, core->view) == core->self;
}
/* Whether this replica casts votes at all. */
static inline bool pbft_may_vote(const struct pbft *core)
{
    return !core->diverged && !core->recovering && pbft_is_active(core, core->self);
}
struct message *pbft_message_new(struct pbft *core, enum message_kind kind);
void pbft_send(struct pbft *core, uint8_t to, const struct message *message);
/* The token. */
uint64_t pbft_persist(struct pbft *core, const struct message *message, uint64_t view,
                      uint64_t sequence);
struct pbft_effect *pbft_effect_new(struct pbft *core, enum pbft_effect_kind kind);
void pbft_blame(struct pbft *core, uint8_t seat, enum pbft_fault fault);
void pbft_diverge(struct pbft *core);
void pbft_timer_set(struct pbft *core, enum pbft_timer timer, uint64_t delay_ms);
void pbft_timer_stop(struct pbft *core, enum pbft_timer timer);
void pbft_sign_vote(struct pbft *core, enum message_kind kind, uint64_t view, uint64_t sequence,
                    const struct message_digest *digest,
                    uint8_t signature[MESSAGE_SIGNATURE_BYTES]);
static inline bool pbft_durable(const struct pbft *core, uint64_t token)
{
    return token <= core->token_durable || PBFT_MUTATION(sends_before_sync);
}
/* Whether a certificate has a quorum of the configuration in force. */
bool pbft_certified(const struct pbft *core, const struct message_certificate *certificate);

/* pbft_body.c */
const struct message_batch *pbft_body_batch(const struct pbft_body *body,
                                            struct message_batch *out);
void pbft_body_copy(struct pbft_body *body, const struct message_batch *batch,
                    const struct message_digest *digest);

void pbft_certificate_copy(struct pbft_certificate *to, uint64_t view,
                           const struct message_digest *digest,
                           const struct message_certificate *votes);

/* pbft_pool.c */
void pbft_pool_message(struct pbft *core, uint8_t from, uint32_t epoch,
                       const struct message *message);
void pbft_pool_local(struct pbft *core, const struct message *message);
void pbft_pool_verdict(struct pbft *core, const struct message_digest *request, bool valid);
bool pbft_number_executed(const struct pbft *core, uint8_t seat, uint64_t number);
struct pbft_entry *pbft_pool_find(struct pbft *core, uint8_t seat, uint64_t number,
                                  const struct message_digest *digest);
/* Its number was used up: whatever waits under it goes, and what its member cannot submit any more. */
void pbft_pool_executed(struct pbft *core, const struct message_request *request,
                        uint64_t sequence);
/* The REQUEST of an entry, for sending and judging. */
void pbft_pool_request(const struct pbft_queue *queue, const struct pbft_entry *entry,
                       struct message *out);
/* Marks the requests of a proposal, so that they are not proposed or relayed again in this view. */
void pbft_pool_mark(struct pbft *core, const struct pbft_body *body);
void pbft_pool_drop_member(struct pbft *core, uint8_t seat);
void pbft_pool_tick(struct pbft *core);
void pbft_pool_reserve_numbers(struct pbft *core);
/* The oldest request that waits and is judged valid; false: none. */
bool pbft_pool_oldest(const struct pbft *core, uint8_t *seat, uint64_t *number);
/* Asks for a verdict where one is needed; returns it where none is. message: the core's own, just made. */
enum pbft_verdict pbft_judge(struct pbft *core, const struct message *message, uint32_t index);

/* pbft_propose.c */
void pbft_propose(struct pbft *core);
/* A batch with requests is executed: so many more null batches may be. */
void pbft_nulls_earned(struct pbft *core);
/* Whether this primary may propose one more null batch, which then counts: what correct ones never need is not accepted. */
bool pbft_null_acceptable(struct pbft *core);

/* pbft_agree.c */
struct pbft_slot *pbft_slot_get(struct pbft *core,
                                uint64_t sequence); /* NULL: outside of the window */
void pbft_slot_clear(struct pbft_slot *slot, uint64_t sequence);
struct pbft_body *pbft_slot_body(struct pbft *core, struct pbft_slot *slot,
                                 const struct message_digest *digest); /* NULL: not here */
struct pbft_body *pbft_slot_place(struct pbft *core, struct pbft_slot *slot,
                                  const struct message_batch *batch,
                                  const struct message_digest *digest);
/* The buffer that pbft_slot_place would fill. */
struct pbft_body *pbft_slot_spare(struct pbft_slot *slot);
void pbft_accept_proposal(struct pbft *core, struct pbft_slot *slot, uint64_t view,
                          const struct message_digest *digest, bool certified);
void pbft_on_pre_prepare(struct pbft *core, const struct message *message);
void pbft_on_vote(struct pbft *core, const struct message *message);
void pbft_slots_advance(struct pbft *core);
static inline bool pbft_slot_current(const struct pbft *core, const struct pbft_slot *slot)
{
    return slot->proposed && (PBFT_MUTATION(votes_in_left_view) ||
                              (slot->proposal_view == core->view && !core->changing));
}

/* pbft_execute.c */
void pbft_execute_ready(struct pbft *core);
void pbft_execute_durable(struct pbft *core);
/* Executes without effects; false: the configuration changes do not allow it (never for a certified batch). */
void pbft_execute_apply(struct pbft *core, uint64_t sequence, const struct message_batch *batch,
                        const struct message_digest *digest, uint8_t *executed);

/* pbft_checkpoint.c */
void pbft_on_checkpoint(struct pbft *core, const struct message *message);
void pbft_on_stable(struct pbft *core, uint8_t from, const struct message *message);
/* Whether the certificate proves that checkpoint; the start of the epoch needs none. */
bool pbft_stable_proof(const struct pbft *core, uint64_t sequence,
                       const struct message_certificate *certificate);
void pbft_stable_learn(struct pbft *core, const struct message *proof);
void pbft_checkpoint_reached(struct pbft *core);
void pbft_checkpoint_durable(struct pbft *core);
void pbft_low_set(struct pbft *core, uint64_t low);
void pbft_stable_adopt(struct pbft *core);
struct pbft_own_checkpoint *pbft_own_checkpoint(struct pbft *core, uint64_t sequence);
void pbft_stable_message(struct pbft *core, struct message *out);

/* pbft_view.c */
void pbft_view_change_start(struct pbft *core, uint64_t view);
void pbft_on_view_change(struct pbft *core, const struct message *message);
void pbft_view_change_durable(struct pbft *core);
void pbft_view_change_copy(struct pbft_view_change *to, const struct message *message);
/* Its proofs, for the configuration in force. */
bool pbft_view_change_valid(const struct pbft *core, const struct message *message);
void pbft_view_timer(struct pbft *core);
void pbft_on_view_timeout(struct pbft *core);
size_t pbft_view_change_bytes(const struct pbft_config *config);

/* pbft_newview.c */
void pbft_new_view_try(struct pbft *core);
void pbft_on_new_view(struct pbft *core, const struct message *message);
void pbft_on_fetch_view_change(struct pbft *core, uint8_t from, const struct message *message);
void pbft_new_view_fetch(struct pbft *core);
void pbft_new_view_install(struct pbft *core);
/* False: what it stands on was not restored. */
bool pbft_new_view_restore(struct pbft *core, const struct message *message);
void pbft_new_view_message(struct pbft *core, struct message *out);
/* Whether content that was sent is wanted, and taken. */
void pbft_on_batch(struct pbft *core, const struct message *message);
void pbft_new_view_durable(struct pbft *core);
/* The selection rule over the VIEW_CHANGEs of these seats. */
void pbft_select(const struct pbft_view_change *changes, uint64_t sources,
                 struct pbft_selection *out);
/* Seats whose newest VIEW_CHANGE is for exactly this view; the own one when it is durable. */
uint64_t pbft_view_change_sources(const struct pbft *core, uint64_t view);

/* pbft_resend.c */
void pbft_on_status(struct pbft *core, uint8_t from, const struct message *message);
void pbft_on_tick(struct pbft *core);
void pbft_on_fetch_batch(struct pbft *core, uint8_t from, const struct message *message);
/* Whether the peer may be served once more in this tick. */
bool pbft_serve(struct pbft *core, uint8_t peer);
void pbft_status_send(struct pbft *core);

/* pbft_transfer.c */
void pbft_claim(struct pbft *core, uint8_t from, const struct message *status);
/* An epoch has begun: what others told of the one before does not count, or was enough. */
void pbft_recovery_epoch(struct pbft *core);
void pbft_on_fetch_log(struct pbft *core, uint8_t from, const struct message *message);
void pbft_on_log_entry(struct pbft *core, uint8_t from, const struct message *message);
void pbft_transfer_tick(struct pbft *core);
void pbft_transfer_advance(struct pbft *core);
struct pbft_fetch *pbft_fetched(struct pbft *core, uint64_t sequence); /* NULL: not here */

/* pbft_members.c */
void pbft_members_set(struct pbft *core);
uint64_t
pbft_sequence_max(const struct pbft *core); /* the highest that may be proposed: watermark, epoch */
void pbft_members_change(struct pbft *core, uint64_t sequence, const struct message_change *change);
/* At the end of an epoch, when all of it is executed: the next one begins. True when it did. */
bool pbft_epoch_advance(struct pbft *core);
void pbft_config_effect(struct pbft *core);
void pbft_snapshot_message(struct pbft *core, struct message *out);
bool pbft_snapshot_restore(struct pbft *core, const struct message *message);

/* pbft_restore.c */
void pbft_restore_finish(struct pbft *core);

#endif
