/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's only source of chance: splitmix64 (Steele, Lea, Flood, OOPSLA 2014). Every consumer has a generator
 * of its own, seeded from the run's seed and its purpose, so that leaving a fault out of a schedule changes as little as
 * possible of the rest.
 */
#ifndef SOV_SIM_RANDOM_H
#define SOV_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t sim_next(struct sim_random *random)
{
    random->state += 0x9e3779b97f4a7c15u;
    return sim_mix(random->state);
}

static inline struct sim_random sim_random_of(uint64_t seed, uint64_t purpose)
{
    return (struct sim_random){sim_mix(seed ^ sim_mix(purpose + 0x632be59bd9b4e019u))};
}

/* 0 .. n - 1; 0 for n 0. The bias is below 2^-32 for the small n that are used. */
static inline uint64_t sim_below(struct sim_random *random, uint64_t n)
{
    return n == 0 ? 0 : sim_next(random) % n;
}

static inline uint64_t sim_between(struct sim_random *random, uint64_t least, uint64_t most)
{
    return least + sim_below(random, most - least + 1);
}

static inline bool sim_chance(struct sim_random *random, uint32_t per_mille)
{
    return sim_below(random, 1000) < per_mille;
}

/* One of the bits of set; 0 when it is empty. */
static inline uint8_t sim_pick(struct sim_random *random, uint64_t set)
{
    if (set == 0) return 0;
    for (uint64_t skip = sim_below(random, (uint64_t)__builtin_popcountll(set)); skip > 0; skip--)
        set &= set - 1;
    return (uint8_t)__builtin_ctzll(set);
}

/* Some of the bits of set, each with an even chance. */
static inline uint64_t sim_some(struct sim_random *random, uint64_t set)
{
    return set & sim_next(random);
}

#endif
