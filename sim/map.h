/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table from 64-bit keys to 64-bit values, for the checkers. Keys are mixed hashes already (never 0); that two
 * different things share one has a probability of 2^-40 or so per run, and would show as a violation that is none.
 */
#ifndef SOV_SIM_MAP_H
#define SOV_SIM_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_map {
    struct sim_map_cell {
        uint64_t key, value;
    } * cells;
    size_t capacity, count;
};

/* The value's place until the next call, made with 0 when the key is new (then *fresh, if asked for). */
uint64_t *sim_map_at(struct sim_map *map, uint64_t key, bool *fresh);
/* NULL: not there. */
const uint64_t *sim_map_find(const struct sim_map *map, uint64_t key);
void sim_map_free(struct sim_map *map);

/* Keys made of numbers and digests. */
uint64_t sim_key(const void *bytes, size_t length, uint64_t a, uint64_t b, uint64_t c);

/* Memory or the end: a simulator has nobody to report to. */
void *sim_alloc(size_t count, size_t size);

#endif
