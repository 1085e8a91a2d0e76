/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Practical Byzantine Fault Tolerance (Castro and Liskov, OSDI 1999, with signatures; TOCS 2002) as a pure state
 * machine: an event goes in by pbft_step, effects come out of pbft_effects. No clock, socket, disk, thread, randomness,
 * and no allocation after pbft_create: the same code runs in production (node.h) and in the simulator (sim/).
 * docs/federation.md tells the protocol as built, with the differences from the papers.
 *
 * Ownership. What an event points to is borrowed for the call: the core copies what it keeps into one arena, sized
 * from the config. What an effect points to belongs to the core and is good until the next call of any function that
 * takes a non-const struct pbft. Memory per peer is bounded whatever it sends: one PREPARE, one COMMIT per sequence
 * of the window, one CHECKPOINT per checkpoint of the window, one VIEW_CHANGE, 64 requests.
 *
 * Persist before send: the core itself holds back what depends on a record until PBFT_EVENT_DURABLE covers that
 * record's token, so a shell may send every SEND it sees at once and need not think about it. It only has to be
 * true about durability: tokens ascend by one (the first is 2); "durable up to T" says that every record with a token <= T is.
 *
 * Trust. Messages come with all signatures verified (message_signed_next), with the keys of the epoch given in the
 * event, and, for REQUEST and PRE_PREPARE, with message_check_canonical passed. `from` is the seat of the
 * authenticated link they came on, for REQUEST, VIEW_CHANGE and such not necessarily who signed. What was sent to an
 * earlier life of this replica is not given to this one: who lost its records asks how far the others are. Nothing else about
 * a message is believed. Asserts are about the core's own state only, and stay on.
 *
 * Records. Every record is a message (message.h: encode it to store it, decode it to restore it):
 *
 *     kind          key (view, sequence)   written                              may go when
 *     NUMBERS       0, number              before own request numbers are used  a newer one is durable
 *     SNAPSHOT      epoch, sequence        at every checkpoint, when executed   a newer one is durable
 *     STABLE        epoch, sequence        when a checkpoint becomes stable     a newer one is durable
 *     LOG_ENTRY     view, sequence         when executed (effect DELIVER)       never: this is the log
 *     VIEW_CHANGE   view, sender           own: before it is sent; others':     its view is below V, the highest of
 *                                          with the NEW_VIEW on them            durable NEW_VIEWs and own VIEW_CHANGEs
 *     NEW_VIEW      view, 0                when the view is entered             its view is below V
 *     PREPARED      view, sequence         before COMMIT                        sequence <= that of a durable STABLE
 *     PRE_PREPARE   view, sequence         before PREPARE (and before itself)   likewise
 *
 * (view, sequence) in this table are the keys for the store, given in the effect. A record with the key and kind of
 * an older one replaces it. What may go is the store's to drop or to keep.
 *
 * Restart: pbft_create with the same config, then pbft_restore for the records, kinds in the order of the table
 * (NUMBERS first, PRE_PREPARE last; only the newest NUMBERS, SNAPSHOT and STABLE; of LOG_ENTRY those behind the
 * snapshot, sequences ascending; VIEW_CHANGE and NEW_VIEW together, by ascending view, in each view the VIEW_CHANGEs
 * first; PREPARED and PRE_PREPARE by ascending view), then PBFT_EVENT_START. A replica that lost its records
 * is created with `amnesia`, and does not vote before it cannot contradict what it may have said: PBFT_RECOVERING until
 * then, and over restarts, too.
 *
 * Threads: one at a time.
 */
#ifndef SOV_FEDERATION_PBFT_H
#define SOV_FEDERATION_PBFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "federation/message.h"

enum {
    PBFT_MEMBERS_MIN = 4,
    PBFT_MEMBERS_MAX = MESSAGE_SEATS_MAX,
    PBFT_NUMBERS_WINDOW = 64, /* own requests under way; numbers remembered below the last */
    PBFT_ALL = 255,           /* as an addressee: every active seat but the own one */
    PBFT_NOBODY = 254,
};

/* What is marked with = must be the same on all members. */
struct pbft_config {
    uint8_t seat;                     /* the own one */
    struct message_digest federation; /* = the federation's id */
    /* = The first configuration, seats strictly ascending, all active; numbers 0. Copied. */
    const struct message_member *members;
    uint32_t member_count;
    /* = limits.window: sequences between the watermarks; a multiple of the interval, 2 of it or more. */
    struct message_limits limits;
    /* = K */
    uint32_t checkpoint_interval;
    /* Batches that a primary has under way at a time; 1..window. */
    uint32_t pipeline_max;
    /* Log entries fetched at a time by who is behind; 1..PBFT_TRANSFER_MAX. */
    uint32_t transfer_window;
    /* Patience with a primary; doubles with each view that fails. */
    uint32_t view_timeout_ms, view_timeout_ms_max;
    /* Period of STATUS, and of what it makes others send again; at most view_timeout_ms / 4. */
    uint32_t resend_ms;
    /* = Ask for a verdict on requests with patterns. On changes of the configuration: always. */
    bool validity;
    /* The records of this seat were lost. */
    bool amnesia;
    /*
     * Signs a digest with the own key of the configuration in force: that of the last CONFIG; at START, of
     * pbft_members. (The step that ends in a CONFIG signs nothing more for either.) Cannot fail, deterministic.
     */
    void (*sign)(void *user, const struct message_digest *digest,
                 uint8_t signature[MESSAGE_SIGNATURE_BYTES]);
    void *user;
};
enum {
    PBFT_CHECKPOINT_INTERVAL = 32, /* defaults */
    PBFT_WINDOW = 64,
    PBFT_PIPELINE = 8,
    PBFT_TRANSFER_WINDOW = 16,
    PBFT_TRANSFER_MAX = 64,
    PBFT_VIEW_TIMEOUT_MS = 2000,
    PBFT_VIEW_TIMEOUT_MS_MAX = 60000,
    PBFT_RESEND_MS = 100,
};
/* Everything but seat, federation, members, sign and user. */
void pbft_config_defaults(struct pbft_config *config);

struct pbft;

/* SOV_ERR_INVALID (which field), SOV_ERR_NOMEM. */
enum sov_error pbft_create(const struct pbft_config *config, struct pbft **out,
                           struct sov_errbuf *err);
void pbft_free(struct pbft *core);
/*
 * One record, decoded; see above for the order. SOV_ERR_FORMAT: it contradicts what was restored before (a chain that
 * does not fit, a log entry without quorum): the store is damaged, and the core is not to be used.
 */
enum sov_error pbft_restore(struct pbft *core, const struct message *record,
                            struct sov_errbuf *err);

enum pbft_timer {
    PBFT_TIMER_VIEW,   /* patience with the primary, or with the next one */
    PBFT_TIMER_RESEND, /* always runs */
    PBFT_TIMERS,
};

enum pbft_event_kind {
    PBFT_EVENT_START,   /* once, after restoring */
    PBFT_EVENT_MESSAGE, /* from, epoch, message */
    PBFT_EVENT_REQUEST, /* message: an own REQUEST with the number of pbft_number_next, signed;
                           or one of the last 64 again, byte for byte: it is answered again */
    PBFT_EVENT_TIMER,   /* timer, generation: as they were set. Late ones are ignored */
    PBFT_EVENT_DURABLE, /* token */
    PBFT_EVENT_VERDICT, /* request, valid: the answer to JUDGE; the same on all correct members */
};

struct pbft_event {
    enum pbft_event_kind kind;
    uint8_t from;
    uint32_t epoch; /* whose keys the signatures were verified with */
    const struct message *message;
    enum pbft_timer timer;
    uint64_t generation;
    uint64_t token;
    struct message_digest request;
    bool valid;
};

enum pbft_effect_kind {
    PBFT_EFFECT_SEND,     /* to (a seat or PBFT_ALL), message */
    PBFT_EFFECT_SEND_LOG, /* to, sequence, count: send it the LOG_ENTRYs stored under these sequences */
    PBFT_EFFECT_PERSIST, /* token, message, key_view, key_sequence: store this record */
    PBFT_EFFECT_DELIVER, /* the same, with a LOG_ENTRY; and executed, head. In order, each sequence once */
    PBFT_EFFECT_TIMER_SET,  /* timer, generation, delay_ms: replaces what was set */
    PBFT_EFFECT_TIMER_STOP, /* timer */
    PBFT_EFFECT_JUDGE, /* message: a batch in which `index` is the request to judge, `request` its digest.
                                Asked once per request for as long as it is remembered; answer with VERDICT */
    PBFT_EFFECT_REPLY, /* number, outcome, sequence: of an own request. Once for each taken */
    PBFT_EFFECT_CONFIG, /* epoch, members: this configuration is in force from now on. At START, too */
    PBFT_EFFECT_VIEW,        /* view, changing: entered, or wanted. For logs and figures */
    PBFT_EFFECT_MISBEHAVIOUR /* seat, fault: it has done what a correct member cannot have done */
};

enum pbft_outcome {
    PBFT_COMMITTED = 1, /* in the log at `sequence` */
    PBFT_INVALID,       /* judged invalid */
    PBFT_BUSY,          /* not taken: PBFT_NUMBERS_WINDOW under way, or recovering. Try later */
    PBFT_MALFORMED,     /* not taken: not an own request, a wrong number, against the limits */
    PBFT_LOST,          /* its number was used up, or its key is not the member's any more */
};

enum pbft_fault {
    PBFT_FAULT_EQUIVOCATION = 1, /* two votes, proposals or requests where one can be */
    PBFT_FAULT_INVALID_REQUEST,  /* proposed, or submitted, what is judged invalid */
    PBFT_FAULT_MALFORMED,        /* a message that no correct member makes */
    PBFT_FAULT_CERTIFICATE, /* a certificate without quorum, or not for what it is attached to */
    PBFT_FAULT_NEW_VIEW,    /* a NEW_VIEW that does not follow from its VIEW_CHANGEs */
    /* A quorum certifies another history than ours (seat: the own one): more than f members are faulty, or
     * this one's storage is. The core stops voting. */
    PBFT_FAULT_DIVERGED,
};

struct pbft_effect {
    enum pbft_effect_kind kind;
    uint8_t to; /* also: seat of MISBEHAVIOUR */
    const struct message *message;
    uint64_t token, key_view, key_sequence;
    uint64_t sequence;             /* SEND_LOG, DELIVER, REPLY */
    uint32_t count;                /* SEND_LOG; members of CONFIG */
    const uint8_t *executed;       /* DELIVER: per request 1, or 0: its number was used before */
    struct message_digest head;    /* DELIVER: the chain with it */
    struct message_digest request; /* JUDGE */
    uint32_t index;                /* JUDGE */
    enum pbft_timer timer;
    uint64_t generation;
    uint32_t delay_ms;
    uint64_t number; /* REPLY */
    enum pbft_outcome outcome;
    enum pbft_fault fault;
    uint32_t epoch; /* CONFIG */
    const struct message_member *members;
    uint64_t view; /* VIEW */
    bool changing;
};

/*
 * Whether anything can come of a message of a peer: a look that costs nothing, for before its signatures are
 * verified. Of the votes that come, one in four or so is beyond a quorum; and proposals of who is not the primary,
 * requests that were executed and log entries that nobody asked for have many signatures. True when in doubt.
 */
bool pbft_wants(const struct pbft *core, const struct message *message);

/* Takes the effects of the call before away and makes new ones. */
void pbft_step(struct pbft *core, const struct pbft_event *event);
/* In the order in which they are to be done. Bounded by pbft_effects_max. */
const struct pbft_effect *pbft_effects(const struct pbft *core, size_t *count);
size_t pbft_effects_max(const struct pbft *core);

/* The number that the next own request must have; 0 when none is taken now (PBFT_BUSY). */
uint64_t pbft_number_next(const struct pbft *core);

enum pbft_state {
    PBFT_NORMAL,
    PBFT_VIEW_CHANGING,
    PBFT_RECOVERING, /* after amnesia: follows, does not vote */
    PBFT_OUTSIDE,    /* not a member (any more, or not yet): follows, does not vote */
    PBFT_DIVERGED,
};

struct pbft_status {
    enum pbft_state state;
    bool forgotten; /* RECOVERING, or would be if it were not OUTSIDE or DIVERGED */
    uint64_t view;
    uint8_t primary;
    uint32_t member_count, faulty_max, quorum;
    uint64_t executed, durable; /* sequences delivered; of these, with a durable record */
    uint64_t stable;            /* the low watermark */
    struct message_digest head; /* at `executed` */
    uint64_t proposed;          /* the highest sequence with a proposal in this view */
    uint32_t waiting;           /* requests known and not executed */
    uint64_t known_executed;    /* the highest sequence that a peer claims */
    uint64_t peer_executed[MESSAGE_SEATS_MAX], peer_view[MESSAGE_SEATS_MAX]; /* as last claimed */
    uint64_t view_changes, faults; /* since the start: begun by this replica; MISBEHAVIOURs */
    size_t memory_bytes;           /* the arena: all that the core ever uses */
};
void pbft_status(const struct pbft *core, struct pbft_status *out);
/* The configuration in force, seats ascending (the numbers in it are as of the last snapshot). */
const struct message_member *pbft_members(const struct pbft *core, uint32_t *count);

const char *pbft_fault_name(enum pbft_fault fault);
const char *pbft_outcome_name(enum pbft_outcome outcome);
const char *pbft_state_name(enum pbft_state state);

#endif
