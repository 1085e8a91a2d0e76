/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits to be sent to one peer: whole messages, not yet encrypted, so that any of them can still
 * be dropped. Bounded by count, by bytes and by age; what has to give way is the oldest, because the
 * protocol repeats itself and newer messages make older ones worthless. Everything dropped is counted.
 *
 * A message is shared by the queues of all peers it goes to. Threads: one.
 */
#ifndef SOV_FEDERATION_LINK_QUEUE_H
#define SOV_FEDERATION_LINK_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link_message {
    size_t references;
    size_t length;
    unsigned char bytes[];
};

/* A copy of bytes (NULL: the caller fills them in) with one reference; NULL without memory. */
struct link_message *link_message_create(const void *bytes, size_t length);
void link_message_hold(struct link_message *message);
/* NULL is fine. */
void link_message_release(struct link_message *message);

struct link_queue_entry {
    struct link_message *message;
    int64_t queued_ns;
};

struct link_queue {
    struct link_queue_entry *ring;
    size_t count_max, bytes_max;
    size_t first, count, bytes;
    uint64_t overflowed, stale; /* dropped ever: for room, for age */
};

/* false: no memory. */
bool link_queue_init(struct link_queue *queue, size_t count_max, size_t bytes_max);
void link_queue_free(struct link_queue *queue);
/* All that waits is dropped, and counted as old. */
void link_queue_clear(struct link_queue *queue);
/* Takes a reference. A message longer than bytes_max is dropped (counted as overflow). */
void link_queue_push(struct link_queue *queue, struct link_message *message, int64_t now_ns);
/* The oldest that was queued since oldest_ns, now the caller's; NULL: none. Older ones are dropped. */
struct link_message *link_queue_pop(struct link_queue *queue, int64_t oldest_ns);

#endif
