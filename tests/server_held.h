/* SPDX-License-Identifier: Apache-2.0 */
/* server_group.h for tests that hold the engine (engine_gate.h): the end of each lets it go. */
#ifndef SOV_TESTS_SERVER_HELD_H
#define SOV_TESTS_SERVER_HELD_H

#include "tests/engine_gate.h"
#include "tests/server_group.h"

/* Also after a test that failed. */
static UNUSED_OK int held_stop(void **state)
{
    engine_let_go();
    return query_stop(state);
}
#define HELD_TEST(name) cmocka_unit_test_setup_teardown(name, query_start, held_stop)
#define HELD_CACHE_TEST(name) cmocka_unit_test_setup_teardown(name, query_start_cached, held_stop)

#endif
