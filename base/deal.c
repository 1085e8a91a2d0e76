/* SPDX-License-Identifier: Apache-2.0 */
#include "base/deal.h"

#include "base/pool.h"

void deal_reset(struct deal *deals, int workers)
{
    for (int i = 0; i < workers; i++)
        atomic_store_explicit(&deals[i].taken, 0, memory_order_relaxed);
}

bool deal_take(struct deal *deals, int count, int piece, int worker, int workers, int *begin,
               int *end)
{
    for (int i = 0; i < workers; i++) {
        int owner = (worker + i) % workers, from, to;
        pool_share(count, owner, workers, &from, &to);
        atomic_int *taken = &deals[owner].taken;
        /* The look before the addition keeps the counter from growing without bound. */
        if (atomic_load_explicit(taken, memory_order_relaxed) >= to - from) continue;
        int at = atomic_fetch_add_explicit(taken, piece, memory_order_relaxed);
        if (at >= to - from) continue;
        *begin = from + at;
        *end = *begin + piece < to ? *begin + piece : to;
        return true;
    }
    return false;
}
