/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes for ids and seeds: a system call for many draws instead of one for each. */
#ifndef SOV_SERVER_DRAW_H
#define SOV_SERVER_DRAW_H

#include <stddef.h>

/* At most DRAW_BYTES_MAX. Any thread; unpredictable, but not for secrets: what was drawn stays in memory. */
enum { DRAW_BYTES_MAX = 64 };
void server_draw(void *out, size_t length);

#endif
