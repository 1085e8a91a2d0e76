/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_BASE_CLOCK_H
#define SOV_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC: for durations and deadlines. */
int64_t clock_monotonic_ns(void);
/* Milliseconds since 1970 of CLOCK_REALTIME: for what people read. */
int64_t clock_wall_ms(void);

#endif
