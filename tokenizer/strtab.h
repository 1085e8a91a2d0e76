/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of byte strings numbered 0, 1, 2, ... in order of insertion, found by content in O(1):
 * open addressing over XXH3 hashes, the bytes in one block. Used for the vocabulary's texts and for
 * the symbols of BPE. Read-only use is safe from any number of threads.
 */
#ifndef SOV_TOKENIZER_STRTAB_H
#define SOV_TOKENIZER_STRTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STRTAB_NONE UINT32_MAX

struct strtab_slot {
    uint32_t hash;
    uint32_t index; /* STRTAB_NONE: empty */
};

struct strtab {
    char *bytes;
    size_t bytes_length, bytes_capacity; /* below 4 GiB */
    uint32_t *offsets;                   /* count + 1 entries once anything was added */
    uint32_t count, capacity;
    struct strtab_slot *slots;
    uint32_t slot_count; /* a power of two, or 0 */
    uint32_t longest;    /* length of the longest string */
};

/*
 * Adds text, or finds it: its number is in *index and *added says which. False when out of memory
 * or past 4 GiB.
 */
bool strtab_intern(struct strtab *t, const char *text, size_t length, uint32_t *index, bool *added);
/* STRTAB_NONE if absent. */
uint32_t strtab_find(const struct strtab *t, const char *text, size_t length);
static inline const char *strtab_text(const struct strtab *t, uint32_t index, size_t *length)
{
    *length = t->offsets[index + 1] - t->offsets[index];
    return t->bytes + t->offsets[index];
}
void strtab_free(struct strtab *t);

#endif
