/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed means: the federation's shape (setup) and everything that will happen to it from outside (entries, by
 * time). All of it is drawn before the run begins, so that a shrinker can leave entries out and run the rest again.
 * Chance within a run (delays, losses) comes from generators per link and per node.
 */
#ifndef SOV_SIM_PLAN_H
#define SOV_SIM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "federation/message.h"

enum {
    SIM_SEATS_MAX = 16,
    SIM_ENTRIES_MAX = 320,
    SIM_CHANGES_MAX = 4,
};

enum sim_entry_kind {
    SIM_REQUEST,      /* seat submits; value: enum sim_request_flags */
    SIM_CHANGE,       /* seat submits the change numbered value */
    SIM_PARTITION,    /* mask and the others do not hear each other */
    SIM_ONE_WAY,      /* the others do not hear mask */
    SIM_LOSS,         /* value per mille of all messages are lost */
    SIM_DUPLICATE,    /* value per mille arrive twice */
    SIM_REORDER,      /* value per mille are overtaken */
    SIM_SLOW_LINK,    /* seat's messages to mask take value microseconds longer */
    SIM_SLOW_ALL,     /* every message does */
    SIM_CRASH,        /* seat is down; unsynced writes are lost */
    SIM_CRASH_ALL,    /* all of mask are, at once */
    SIM_LOSE_LOG,     /* the same as CRASH, and the newest value log entries are found corrupted */
    SIM_WIPE,         /* the same as CRASH, and all records are lost (value 1: all but the log) */
    SIM_PAUSE,        /* seat does nothing; what arrives waits */
    SIM_DISK_FULL,    /* seat's writes do not become durable */
    SIM_DISK_SLOW,    /* seat's syncs take value microseconds longer */
    SIM_CLOCK,        /* seat's timers take value per mille of their time */
    SIM_SLOW_VERDICT, /* seat's verdicts take value microseconds longer */
    SIM_TWINS,    /* of each Byzantine seat two run: mask and the others each hear one of them */
    SIM_SILENT,   /* Byzantine seat says nothing to mask */
    SIM_WITHHOLD, /* ... no message of kind value to mask */
    SIM_WRONG_DIGEST,   /* ... votes for something else, to mask */
    SIM_WRONG_VIEW,     /* ... signs another view, to mask */
    SIM_WRONG_SEQUENCE, /* ... another sequence, to mask */
    SIM_OTHER_PROPOSAL, /* ... proposes another batch to mask */
    SIM_BAD_PROPOSAL,   /* ... what is invalid, executed before, or not canonical */
    SIM_REPLAY,         /* ... repeats what was said before, by anybody */
    SIM_FLOOD,          /* ... value messages for one */
    SIM_FORGE, /* ... certificates without quorum, with votes of its friends or bad signatures */
    SIM_HIDE,  /* ... view changes that forget what was prepared, or the checkpoint */
    SIM_BAD_NEW_VIEW,   /* ... new views that stand on too few, or others, than they should */
    SIM_LIE,            /* ... statuses and answers that are not true */
    SIM_GARBAGE,        /* ... bytes */
    SIM_EARLY_COMMIT,   /* ... COMMIT without being prepared */
    SIM_IMPATIENT,      /* ... wants the next view, all the time */
    SIM_FALSE_RECOVERY, /* ... says to mask that it has lost its records, all the time */
    SIM_BAD_REQUESTS, /* ... two requests of one number, wild numbers, invalid ones, forged changes */
    SIM_ENTRY_KINDS,
};
#define SIM_BYZANTINE_FIRST SIM_TWINS

enum sim_request_flags {
    SIM_REQUEST_INVALID = 1,  /* by the validity predicate */
    SIM_REQUEST_LARGE = 2,    /* several patterns */
    SIM_REQUEST_SPREAD = 4,   /* sent by the submitter to all, besides what its core does */
    SIM_REQUEST_REPEATED = 8, /* and once more, later */
};

struct sim_entry {
    uint64_t at, lasts; /* microseconds */
    enum sim_entry_kind kind;
    uint8_t seat;
    uint64_t mask;
    uint32_t value;
};

struct sim_options {
    uint64_t seed;
    uint32_t nodes;    /* 0: the seed's choice */
    uint32_t extra;    /* Byzantine seats beyond f */
    uint64_t chaos_us; /* 0: the seed's choice */
    bool calm;         /* no fault at all: for figures and for finding what is wrong without any */
};

struct sim_setup {
    uint64_t seed;
    uint32_t nodes, seats; /* members at first; and those who may be added */
    uint64_t byzantine, wiped;
    bool
        late; /* the Byzantine behave until who was wiped has recovered: then no longer f + 1 at a time */
    uint32_t faulty_max; /* of the smallest configuration there will be */
    struct message_limits limits;
    uint32_t checkpoint_interval, pipeline_max, transfer_window;
    uint32_t view_timeout_ms, view_timeout_ms_max, resend_ms;
    bool validity;
    uint32_t delay_us_min, delay_us_max; /* of every message, always */
    uint32_t loss, duplicate, reorder;   /* per mille, until healed */
    uint32_t sync_us_min, sync_us_max;
    uint32_t clock[SIM_SEATS_MAX]; /* per mille of the true time that timers take */
    uint64_t eager;                /* seats whose stores drop what may go at once */
    struct message_change changes[SIM_CHANGES_MAX]; /* keys are filled in by the run */
    uint32_t change_count;
    uint64_t chaos_us; /* faults of network, disk, process end here: "healed" */
    uint64_t bound_us; /* then every request is answered within this time */
};

struct sim_plan {
    struct sim_setup setup;
    uint32_t count;
    struct sim_entry entries[SIM_ENTRIES_MAX]; /* by time */
};

void sim_plan_make(const struct sim_options *options, struct sim_plan *out);
const char *sim_entry_name(enum sim_entry_kind kind);
/* One line for a person, without newline. */
void sim_entry_describe(const struct sim_setup *setup, const struct sim_entry *entry, char *out,
                        size_t size);
void sim_setup_describe(const struct sim_setup *setup, char *out, size_t size);

#endif
