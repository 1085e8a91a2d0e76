/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dealing out the items of a phase to the workers of a pool so that all finish together. Every
 * worker has a share of neighbouring items, as pool_share cuts them, and takes pieces from its
 * front; when it is through, it takes pieces of the others' shares. An undisturbed worker reads its
 * memory in order, and one on a slower CPU is helped out. Towards the end of a share pieces become
 * smaller, so that nobody waits long for the last one. A worker that is not running at all keeps
 * the piece it has begun, and the others wait for that one.
 *
 * Whose hands an item falls into is not reproducible: only for work whose result does not depend on
 * it. Any number of workers may call deal_take at once; deal_reset must be ordered (by a barrier)
 * before their first and after their last.
 */
#ifndef SOV_BASE_DEAL_H
#define SOV_BASE_DEAL_H

#include <stdatomic.h>
#include <stdbool.h>

/* One per worker, each in a cache line of its own. */
struct deal {
    _Alignas(64) atomic_int taken; /* items gone from the front of the worker's share */
};

void deal_reset(struct deal *deals, int workers);

/*
 * The next piece [*begin, *end) of `count` items: `piece` (>= 1) of them, but at most half of what is left of the
 * share, rounded up; false when all are taken.
 */
bool deal_take(struct deal *deals, int count, int piece, int worker, int workers, int *begin,
               int *end);

#endif
