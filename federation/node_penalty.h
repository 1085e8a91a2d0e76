/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For how long a peer that sent what no correct member sends is not listened to: PENALTY_MS for the first
 * such message, twice as long for each further one, up to PENALTY_DOUBLINGS times; PENALTY_FORGIVE_MS in
 * which it could have been bad and was not take one doubling back. The time in which it was not listened to
 * proves nothing and does not count.
 *
 * Pure: the time comes in. Threads: one.
 */
#ifndef SOV_FEDERATION_NODE_PENALTY_H
#define SOV_FEDERATION_NODE_PENALTY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PENALTY_MS = 50,
    PENALTY_DOUBLINGS = 8, /* 12.8 s */
    PENALTY_FORGIVE_MS = 10000,
};

/* Zero: it was never bad. */
struct node_penalty {
    int64_t until_ns;
    int doublings;
};

static inline bool penalty_runs(const struct node_penalty *penalty, int64_t now_ns)
{
    return penalty->until_ns > now_ns;
}

/* A bad message. False: a penalty runs already, and this one came before it began. */
static inline bool penalty_add(struct node_penalty *penalty, int64_t now_ns)
{
    if (penalty_runs(penalty, now_ns)) return false;
    int64_t quiet = (now_ns - penalty->until_ns) / (PENALTY_FORGIVE_MS * 1000000ll);
    penalty->doublings = quiet < penalty->doublings ? penalty->doublings - (int)quiet : 0;
    penalty->until_ns = now_ns + (PENALTY_MS * 1000000ll << penalty->doublings);
    if (penalty->doublings < PENALTY_DOUBLINGS) penalty->doublings++;
    return true;
}

#endif
