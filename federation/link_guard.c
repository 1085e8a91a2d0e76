/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/link_guard.h"

#include <assert.h>
#include <netinet/in.h>
#include <string.h>

void guard_init(struct link_guard *guard, int64_t now_ns)
{
    *guard = (struct link_guard){.strangers = {GUARD_STRANGERS_BURST, now_ns}};
}

struct guard_address guard_address_of(const struct sockaddr_storage *address)
{
    struct guard_address out = {{0}};
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        out.bytes[10] = out.bytes[11] = 0xff;
        memcpy(out.bytes + 12, &v4->sin_addr, 4);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        memcpy(out.bytes, &v6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) ? 16 : 8);
    }
    return out;
}

bool guard_address_equal(const struct guard_address *a, const struct guard_address *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static bool bucket_take(struct guard_bucket *bucket, double rate, double burst, int64_t now_ns)
{
    bucket->tokens += (double)(now_ns - bucket->filled_ns) * 1e-9 * rate;
    if (bucket->tokens > burst) bucket->tokens = burst;
    bucket->filled_ns = now_ns;
    if (bucket->tokens < 1) return false;
    bucket->tokens -= 1;
    return true;
}

static struct guard_entry *find(struct link_guard *guard, const struct guard_address *address)
{
    for (int i = 0; i < GUARD_ADDRESSES; i++)
        if (guard->entries[i].taken && guard_address_equal(&guard->entries[i].address, address))
            return &guard->entries[i];
    return NULL;
}

/*
 * A free entry, or that of the address which was seen longest ago. There is always one: entries with
 * handshakes under way are at most half.
 */
static struct guard_entry *make(struct link_guard *guard, const struct guard_address *address,
                                int64_t now_ns)
{
    struct guard_entry *best = NULL;
    for (int i = 0; i < GUARD_ADDRESSES; i++) {
        struct guard_entry *entry = &guard->entries[i];
        if (entry->taken && entry->pending > 0) continue;
        if (best == NULL || (best->taken && (!entry->taken || entry->used_ns < best->used_ns)))
            best = entry;
    }
    assert(best != NULL);
    *best =
        (struct guard_entry){.address = *address, .taken = true, .bucket = {GUARD_BURST, now_ns}};
    return best;
}

enum guard_verdict guard_enter(struct link_guard *guard, const struct guard_address *address,
                               bool known, int64_t now_ns)
{
    struct guard_entry *entry = find(guard, address);
    if (entry != NULL && entry->pending >= GUARD_PENDING_PER_ADDRESS) return GUARD_OLDEST_OF_SAME;
    if (guard->pending >= GUARD_PENDING_MAX) return GUARD_OLDEST;
    if (entry == NULL) entry = make(guard, address, now_ns);
    entry->used_ns = now_ns;
    if (!bucket_take(&entry->bucket, GUARD_RATE, GUARD_BURST, now_ns)) return GUARD_REFUSE;
    if (!known &&
        !bucket_take(&guard->strangers, GUARD_STRANGERS_RATE, GUARD_STRANGERS_BURST, now_ns))
        return GUARD_REFUSE;
    entry->pending++;
    guard->pending++;
    return GUARD_COME;
}

void guard_leave(struct link_guard *guard, const struct guard_address *address)
{
    struct guard_entry *entry = find(guard, address);
    assert(entry != NULL && entry->pending > 0 && guard->pending > 0);
    entry->pending--;
    guard->pending--;
}
