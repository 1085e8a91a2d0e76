/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/link_queue.h"

#include <string.h>

#include "base/mem.h"

struct link_message *link_message_create(const void *bytes, size_t length)
{
    size_t total;
    if (!sov_add_size(sizeof(struct link_message), length, &total)) return NULL;
    struct link_message *message = sov_alloc(total, 1);
    if (message == NULL) return NULL;
    message->references = 1;
    message->length = length;
    if (bytes != NULL && length > 0) memcpy(message->bytes, bytes, length);
    return message;
}

void link_message_hold(struct link_message *message)
{
    message->references++;
}

void link_message_release(struct link_message *message)
{
    if (message != NULL && --message->references == 0) sov_free(message);
}

bool link_queue_init(struct link_queue *queue, size_t count_max, size_t bytes_max)
{
    *queue = (struct link_queue){.count_max = count_max, .bytes_max = bytes_max};
    queue->ring = sov_alloc(count_max, sizeof *queue->ring);
    return queue->ring != NULL;
}

static struct link_message *take(struct link_queue *queue)
{
    struct link_message *message = queue->ring[queue->first].message;
    queue->first = (queue->first + 1) % queue->count_max;
    queue->count--;
    queue->bytes -= message->length;
    return message;
}

void link_queue_clear(struct link_queue *queue)
{
    queue->stale += queue->count;
    while (queue->count > 0) link_message_release(take(queue));
}

void link_queue_free(struct link_queue *queue)
{
    link_queue_clear(queue);
    sov_free(queue->ring);
    *queue = (struct link_queue){0};
}

void link_queue_push(struct link_queue *queue, struct link_message *message, int64_t now_ns)
{
    if (message->length > queue->bytes_max) {
        queue->overflowed++;
        return;
    }
    while (queue->count == queue->count_max ||
           (queue->count > 0 && queue->bytes + message->length > queue->bytes_max)) {
        link_message_release(take(queue));
        queue->overflowed++;
    }
    link_message_hold(message);
    queue->ring[(queue->first + queue->count) % queue->count_max] =
        (struct link_queue_entry){message, now_ns};
    queue->count++;
    queue->bytes += message->length;
}

struct link_message *link_queue_pop(struct link_queue *queue, int64_t oldest_ns)
{
    while (queue->count > 0) {
        bool stale = queue->ring[queue->first].queued_ns < oldest_ns;
        struct link_message *message = take(queue);
        if (!stale) return message;
        link_message_release(message);
        queue->stale++;
    }
    return NULL;
}
