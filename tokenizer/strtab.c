/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/strtab.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

enum { STRTAB_FIRST_SLOTS = 1024, STRTAB_FIRST_STRINGS = 512, STRTAB_FIRST_BYTES = 4096 };

static uint32_t strtab_hash(const char *text, size_t length)
{
    return (uint32_t)XXH3_64bits(text, length);
}

/* The slot that holds text, or the empty one where it belongs. The table is never full. */
static uint32_t strtab_slot_of(const struct strtab *t, const char *text, size_t length,
                               uint32_t hash)
{
    uint32_t mask = t->slot_count - 1;
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        const struct strtab_slot *slot = &t->slots[i];
        if (slot->index == STRTAB_NONE) return i;
        if (slot->hash != hash) continue;
        size_t found_length;
        const char *found = strtab_text(t, slot->index, &found_length);
        if (found_length == length && memcmp(found, text, length) == 0) return i;
    }
}

/* Doubles the slots when half are used. */
static bool strtab_grow_slots(struct strtab *t)
{
    if (t->slot_count != 0 && t->count < t->slot_count / 2) return true;
    if (t->slot_count > UINT32_MAX / 2) return false;
    uint32_t slot_count = t->slot_count == 0 ? STRTAB_FIRST_SLOTS : t->slot_count * 2;
    struct strtab_slot *slots = sov_alloc(slot_count, sizeof *slots);
    if (slots == NULL) return false;
    for (uint32_t i = 0; i < slot_count; i++) slots[i].index = STRTAB_NONE;
    for (uint32_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].index == STRTAB_NONE) continue;
        uint32_t at = t->slots[i].hash & (slot_count - 1);
        while (slots[at].index != STRTAB_NONE) at = (at + 1) & (slot_count - 1);
        slots[at] = t->slots[i];
    }
    sov_free(t->slots);
    t->slots = slots;
    t->slot_count = slot_count;
    return true;
}

static bool strtab_grow_strings(struct strtab *t, size_t length)
{
    if (length > UINT32_MAX - t->bytes_length) return false;
    if (t->count + 1 >= t->capacity) {
        if (t->capacity > UINT32_MAX / 2 - 1) return false;
        uint32_t capacity = t->capacity == 0 ? STRTAB_FIRST_STRINGS : t->capacity * 2;
        uint32_t *offsets = sov_realloc(t->offsets, capacity, sizeof *offsets);
        if (offsets == NULL) return false;
        t->offsets = offsets;
        t->capacity = capacity;
    }
    if (t->bytes == NULL || length > t->bytes_capacity - t->bytes_length) {
        size_t capacity =
            t->bytes_capacity < STRTAB_FIRST_BYTES ? STRTAB_FIRST_BYTES : t->bytes_capacity * 2;
        if (capacity < t->bytes_length + length) capacity = t->bytes_length + length;
        char *bytes = sov_realloc(t->bytes, capacity, 1);
        if (bytes == NULL) return false;
        t->bytes = bytes;
        t->bytes_capacity = capacity;
    }
    return true;
}

bool strtab_intern(struct strtab *t, const char *text, size_t length, uint32_t *index, bool *added)
{
    if (!strtab_grow_slots(t)) return false;
    uint32_t hash = strtab_hash(text, length);
    uint32_t at = strtab_slot_of(t, text, length, hash);
    *added = t->slots[at].index == STRTAB_NONE;
    if (*added) {
        if (!strtab_grow_strings(t, length)) return false;
        if (length != 0) memcpy(t->bytes + t->bytes_length, text, length);
        t->offsets[t->count] = (uint32_t)t->bytes_length;
        t->bytes_length += length;
        t->offsets[t->count + 1] = (uint32_t)t->bytes_length;
        t->slots[at] = (struct strtab_slot){hash, t->count};
        t->count++;
        if (length > t->longest) t->longest = (uint32_t)length;
    }
    *index = t->slots[at].index;
    return true;
}

uint32_t strtab_find(const struct strtab *t, const char *text, size_t length)
{
    if (t->count == 0 || length > t->longest) return STRTAB_NONE;
    return t->slots[strtab_slot_of(t, text, length, strtab_hash(text, length))].index;
}

void strtab_free(struct strtab *t)
{
    sov_free(t->bytes);
    sov_free(t->offsets);
    sov_free(t->slots);
    *t = (struct strtab){0};
}
