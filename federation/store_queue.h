/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records, batches and collections on their way to the disk: copied one behind the other into one piece
 * of memory, in the order in which they were given. It grows up to the bound that the store has, and
 * is used again.
 */
#ifndef SOV_FEDERATION_STORE_QUEUE_H
#define SOV_FEDERATION_STORE_QUEUE_H

#include "federation/store.h"

enum fed_item_kind { FED_ITEM_RECORD, FED_ITEM_BATCH, FED_ITEM_COLLECT, FED_ITEM_RECOVERED };

struct fed_item {
    enum fed_item_kind kind;
    struct fed_store_record record;
    struct fed_store_batch batch;
    bool again;       /* the batch takes the place of one that was given before */
    uint64_t collect; /* the sequence */
    bool refers;      /* there is a content, with its digest, lengths and counts */
    bool carries;     /* and what it points to is to be written, too */
    struct fed_store_content content;
};

struct fed_queue {
    unsigned char *memory;
    size_t used, capacity;
    uint64_t token; /* of the last that was put; 0: none of them has one */
};

void fed_queue_free(struct fed_queue *queue);
/* What fed_queue_put will take. SIZE_MAX when that is more than can be. */
size_t fed_queue_bytes_of(const struct fed_item *item);
/* Room for so many bytes more, so that puts cannot fail. False without memory. */
bool fed_queue_reserve(struct fed_queue *queue, size_t bytes);
/* Copies the item and what it points to. */
void fed_queue_put(struct fed_queue *queue, const struct fed_item *item);
/* The item at *at, which becomes the place of the next one; false at the end. */
bool fed_queue_next(const struct fed_queue *queue, size_t *at, struct fed_item *out);

#endif
