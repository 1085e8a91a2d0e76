/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds GGUF bytes by hand, valid or not, for tests: each function appends one field as the
 * format lays it out. Independent of the writer in gguf/, so that one can test the other.
 */
#ifndef SOV_TESTS_GGUF_BUILD_H
#define SOV_TESTS_GGUF_BUILD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

static inline void build_u32(struct strbuf *b, uint32_t value)
{
    strbuf_append(b, &value, sizeof value);
}

static inline void build_u64(struct strbuf *b, uint64_t value)
{
    strbuf_append(b, &value, sizeof value);
}

static inline void build_str(struct strbuf *b, const char *text)
{
    build_u64(b, strlen(text));
    strbuf_append(b, text, strlen(text));
}

static inline void build_header(struct strbuf *b, uint32_t version, uint64_t tensors, uint64_t kvs)
{
    strbuf_append(b, "GGUF", 4);
    build_u32(b, version);
    build_u64(b, tensors);
    build_u64(b, kvs);
}

/* Key and type; the value is the caller's. */
static inline void build_key(struct strbuf *b, const char *key, uint32_t type)
{
    build_str(b, key);
    build_u32(b, type);
}

static inline void build_kv_u32(struct strbuf *b, const char *key, uint32_t value)
{
    build_key(b, key, 4);
    build_u32(b, value);
}

static inline void build_tensor(struct strbuf *b, const char *name, uint32_t n_dims,
                                const uint64_t *dims, uint32_t type, uint64_t offset)
{
    build_str(b, name);
    build_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) build_u64(b, dims[i]);
    build_u32(b, type);
    build_u64(b, offset);
}

static inline void build_pad(struct strbuf *b, size_t alignment)
{
    while (b->length % alignment != 0) strbuf_putc(b, '\0');
}

enum { BUILD_PATH_MAX = 512 };
/* A pattern for mkstemp or mkdtemp in the folder for temporary files. */
static inline char *build_temp_pattern(char out[BUILD_PATH_MAX])
{
    const char *dir = getenv("TMPDIR");
    snprintf(out, BUILD_PATH_MAX, "%s/sovereign-gguf-XXXXXX", dir != NULL ? dir : "/tmp");
    return out;
}

#endif
