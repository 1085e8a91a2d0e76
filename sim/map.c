/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/random.h"

void *sim_alloc(size_t count, size_t size)
{
    /* Not by base/mem.h: its count of allocations is for the core's. */
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fputs("simulate: no memory\n", stderr);
        exit(2);
    }
    return memory;
}

uint64_t sim_key(const void *bytes, size_t length, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t h = sim_mix(a + 1) ^ sim_mix(sim_mix(b + 2) + c);
    const uint8_t *at = bytes;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        h = sim_mix(h * 3 + word);
    }
    for (; length > 0; length--, at++) h = sim_mix(h * 3 + *at);
    h = sim_mix(h);
    return h != 0 ? h : 1;
}

static struct sim_map_cell *cell_of(const struct sim_map *map, uint64_t key)
{
    size_t at = (size_t)key & (map->capacity - 1);
    while (map->cells[at].key != 0 && map->cells[at].key != key)
        at = (at + 1) & (map->capacity - 1);
    return &map->cells[at];
}

uint64_t *sim_map_at(struct sim_map *map, uint64_t key, bool *fresh)
{
    if (2 * (map->count + 1) > map->capacity) {
        struct sim_map bigger = {.capacity = map->capacity != 0 ? 2 * map->capacity : 256,
                                 .count = map->count};
        bigger.cells = sim_alloc(bigger.capacity, sizeof *bigger.cells);
        for (size_t i = 0; i < map->capacity; i++)
            if (map->cells[i].key != 0) *cell_of(&bigger, map->cells[i].key) = map->cells[i];
        free(map->cells);
        *map = bigger;
    }
    struct sim_map_cell *cell = cell_of(map, key);
    if (fresh != NULL) *fresh = cell->key == 0;
    if (cell->key == 0) {
        cell->key = key;
        map->count++;
    }
    return &cell->value;
}

const uint64_t *sim_map_find(const struct sim_map *map, uint64_t key)
{
    if (map->capacity == 0) return NULL;
    const struct sim_map_cell *cell = cell_of(map, key);
    return cell->key != 0 ? &cell->value : NULL;
}

void sim_map_free(struct sim_map *map)
{
    free(map->cells);
    *map = (struct sim_map){0};
}
