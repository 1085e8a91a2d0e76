/* SPDX-License-Identifier: Apache-2.0 */
/* For programs whose tests all use one model, computed by one thread. */
#ifndef SOV_TESTS_ENGINE_GROUP_H
#define SOV_TESTS_ENGINE_GROUP_H

#include "tests/engine_fixture.h"

static struct fixture_model model;

static inline int setup_model(void **state)
{
    (void)state;
    fixture_model_make(&model, 1);
    return 0;
}

static inline int teardown_model(void **state)
{
    (void)state;
    fixture_model_free(&model);
    return 0;
}

static inline struct engine_stats read_stats(struct engine *engine)
{
    struct engine_stats stats;
    engine_stats_read(engine, &stats);
    return stats;
}

#endif
