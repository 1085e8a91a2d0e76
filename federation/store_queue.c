/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_queue.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

#include "base/mem.h"

enum { ALIGNMENT = alignof(max_align_t), QUEUE_BYTES_MIN = 64 << 10, TEXTS = 6 };

/* One of the texts of an item, in the order in which they follow it. */
struct text {
    const void **bytes;
    size_t length;
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void texts_of(struct fed_item *item, struct text texts[TEXTS])
{
    struct fed_store_content *c = &item->content;
    size_t has = item->carries ? 1 : 0;
    texts[0] = (struct text){&item->record.bytes, item->record.length};
    texts[1] = (struct text){&item->batch.certificate, item->batch.certificate_length};
    texts[2] = (struct text){&c->bytes, has * c->length};
    texts[3] =
        (struct text){(const void **)&c->requests, has * c->request_count * sizeof *c->requests};
    texts[5] = (struct text){(const void **)&item->batch.executed,
                             item->batch.executed != NULL ? c->request_count : 0};
    texts[4] =
        (struct text){(const void **)&c->patterns, has * c->pattern_count * sizeof *c->patterns};
}

void fed_queue_free(struct fed_queue *queue)
{
    sov_free(queue->memory);
    *queue = (struct fed_queue){0};
}

size_t fed_queue_bytes_of(const struct fed_item *item)
{
    struct fed_item copy = *item;
    struct text texts[TEXTS];
    size_t total = aligned(sizeof copy);
    texts_of(&copy, texts);
    for (int i = 0; i < TEXTS; i++)
        if (texts[i].length > SIZE_MAX / 2 ||
            !sov_add_size(total, aligned(texts[i].length), &total))
            return SIZE_MAX;
    return total;
}

bool fed_queue_reserve(struct fed_queue *queue, size_t bytes)
{
    size_t wanted;
    if (!sov_add_size(queue->used, bytes, &wanted)) return false;
    if (wanted <= queue->capacity) return true;
    size_t capacity = queue->capacity > QUEUE_BYTES_MIN ? queue->capacity : QUEUE_BYTES_MIN;
    while (capacity < wanted && capacity < SIZE_MAX / 2) capacity *= 2;
    unsigned char *memory = sov_realloc(queue->memory, capacity, 1);
    if (memory == NULL) return false;
    queue->memory = memory;
    queue->capacity = capacity;
    return true;
}

void fed_queue_put(struct fed_queue *queue, const struct fed_item *item)
{
    struct fed_item copy = *item;
    struct text texts[TEXTS];
    assert(fed_queue_bytes_of(item) <= queue->capacity - queue->used);
    texts_of(&copy, texts);
    unsigned char *at = queue->memory + queue->used;
    memcpy(at, &copy, sizeof copy);
    at += aligned(sizeof copy);
    for (int i = 0; i < TEXTS; i++) {
        if (texts[i].length > 0) memcpy(at, *texts[i].bytes, texts[i].length);
        at += aligned(texts[i].length);
    }
    queue->used = (size_t)(at - queue->memory);
}

bool fed_queue_next(const struct fed_queue *queue, size_t *at, struct fed_item *out)
{
    struct text texts[TEXTS];
    if (*at >= queue->used) return false;
    memcpy(out, queue->memory + *at, sizeof *out);
    *at += aligned(sizeof *out);
    texts_of(out, texts);
    for (int i = 0; i < TEXTS; i++) {
        if (*texts[i].bytes != NULL) *texts[i].bytes = queue->memory + *at;
        *at += aligned(texts[i].length);
    }
    return true;
}
