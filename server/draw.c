/* SPDX-License-Identifier: Apache-2.0 */
#include "server/draw.h"

#include <sodium.h>
#include <string.h>

enum { DRAW_POOL_BYTES = 1024 };

void server_draw(void *out, size_t length)
{
    static _Thread_local unsigned char pool[DRAW_POOL_BYTES];
    static _Thread_local size_t left;
    if (left < length) {
        randombytes_buf(pool, sizeof pool);
        left = sizeof pool;
    }
    left -= length;
    memcpy(out, pool + left, length);
}
