/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in model: models/guide.gguf as it lies in the tree, put into the program by the assembler (guide_data.S).
 * The bytes are read-only and 64-byte aligned, and can be given to gguf_open_memory as they are.
 */
#ifndef SOV_CLI_GUIDE_H
#define SOV_CLI_GUIDE_H

#include <stddef.h>

extern const unsigned char sov_guide_start[];
extern const unsigned char sov_guide_end[];

/* 0 when the program was built from a tree without models/guide.gguf. */
static inline size_t guide_bytes(void)
{
    return (size_t)(sov_guide_end - sov_guide_start);
}

#endif
