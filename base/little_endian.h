/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as bytes, the lowest first, wherever the bytes lie. One store: GCC 12 at -O2 makes eight of
 * a loop over the bytes, and what reads them as a whole soon after waits for all of these.
 */
#ifndef SOV_BASE_LITTLE_ENDIAN_H
#define SOV_BASE_LITTLE_ENDIAN_H

#include <stdint.h>
#include <string.h>

static inline void le64_write(uint8_t *out, uint64_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    memcpy(out, &value, sizeof value);
}

#endif
