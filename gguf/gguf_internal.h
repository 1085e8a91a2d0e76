/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the gguf room only: numbers of the format, and the limits that we put on a
 * file. */
#ifndef SOV_GGUF_INTERNAL_H
#define SOV_GGUF_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gguf/gguf.h"

enum {
    GGUF_VERSION_MIN = 2, /* version 1 had 32-bit lengths and is gone from the world */
    GGUF_VERSION_MAX = 3, /* version 3 only added big-endian files to version 2 */
    GGUF_MAGIC_BYTES = 4,
    GGUF_HEADER_BYTES = 24,
    GGUF_ALIGNMENT_DEFAULT = 32,
    GGUF_ALIGNMENT_MIN = 8,     /* the format asks for a multiple of 8 */
    GGUF_ALIGNMENT_MAX = 65536, /* the largest page of the machines we run on */

    /* Real files have 20 to 60 keys and 100 to 3,000 tensors (unmerged experts: some 50,000). */
    GGUF_KV_LIMIT = 16384,
    GGUF_TENSOR_LIMIT = 131072,
    GGUF_KEY_BYTES_LIMIT = 65535,       /* the format's own limit */
    GGUF_STRING_BYTES_LIMIT = 64 << 20, /* the largest real ones are tokenizer tables, some MiB */
    GGUF_ARRAY_COUNT_LIMIT = 64 << 20,  /* the largest real ones are vocabularies, some 500,000 */

    /* What the smallest entry takes in the file, so that a count can be refused before anything is
       allocated. */
    GGUF_KV_BYTES_MIN = 8 + 1 + 4 + 1, /* key length, key, type, value */
    GGUF_TENSOR_BYTES_MIN =
        8 + 1 + 4 + 8 + 4 + 8, /* name length, name, n_dims, one dim, type, offset */
};

static const char gguf_magic[GGUF_MAGIC_BYTES] = {'G', 'G', 'U', 'F'};

/* Bytes of a fixed-size value, 0 for strings and arrays. type is below GGUF_VALUE_TYPES. */
size_t gguf_value_bytes(enum gguf_value_type type);
/* "u32", "string", ... */
const char *gguf_value_type_name(enum gguf_value_type type);

/*
 * Bytes of a tensor of this type and shape; false with a sentence in `why` if a dimension is zero,
 * a row is not whole blocks, or the size does not fit 63 bits. Unused dims must be 1.
 */
bool gguf_tensor_bytes(const struct gguf_type_info *info, uint32_t n_dims, const uint64_t *dims,
                       uint64_t *out, char *why, size_t why_size);

enum { GGUF_PRINTABLE_MAX = 96 };
/*
 * A name from a file, made fit for a terminal: other than printable ASCII becomes \xNN, and what
 * does not fit out is cut with "...".
 */
const char *gguf_printable(const char *text, uint64_t length, char out[GGUF_PRINTABLE_MAX]);

#endif
