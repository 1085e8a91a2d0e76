/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for tests that try much at random, the same in every run: from a state that is not 0. */
#ifndef SOV_TESTS_RANDOM_FIXTURE_H
#define SOV_TESTS_RANDOM_FIXTURE_H

#include <stdint.h>

static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline uint32_t test_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(test_random(state) >> 33) % n;
}

#endif
