/* SPDX-License-Identifier: Apache-2.0 */
#include "base/deal.h"

#include "base/pool.h"

void deal_reset(struct deal *deals, int workers)
{
    for (int i = 0; i < workers; i++)
        atomic_store_explicit(&deals[i].taken, 0, memory_order_relaxed);
}

/* Takes a piece from the front of one share of `size` items; false when there is none left. */
static bool deal_take_from(atomic_int *taken, int size, int piece, int *begin, int *end)
{
    int at = atomic_load_explicit(taken, memory_order_relaxed), next;
    do {
        int half = (size - at + 1) / 2;
        if (at >= size) return false;
        next = at + (piece < half ? piece : half);
    } while (!atomic_compare_exchange_weak_explicit(taken, &at, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    *begin = at;
    *end = next;
    return true;
}

bool deal_take(struct deal *deals, int count, int piece, int worker, int workers, int *begin,
               int *end)
{
    for (int i = 0; i < workers; i++) {
        int owner = (worker + i) % workers, from, to;
        pool_share(count, owner, workers, &from, &to);
        if (!deal_take_from(&deals[owner].taken, to - from, piece, begin, end)) continue;
        *begin += from;
        *end += from;
        return true;
    }
    return false;
}
