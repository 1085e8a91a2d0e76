/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files, versions 2 and 3 (the format specification is docs/gguf.md of the ggml project). A
 * file is memory-mapped read-only and parsed once; everything handed out points into the mapping or
 * into tables owned by struct gguf and lives until gguf_close. Nothing in the file is trusted:
 * every count, offset, size, type, alignment and string is checked before use, and an error names
 * the field, the byte offset and what was expected.
 *
 * Threads: an opened struct gguf is immutable and may be read by any number of threads.
 */
#ifndef SOV_GGUF_GGUF_H
#define SOV_GGUF_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPES
};

/* The format's numbers of tensor types. Sovereign computes with those that gguf_type_info says. */
enum gguf_type {
    GGUF_TYPE_F32 = 0,
    GGUF_TYPE_F16 = 1,
    GGUF_TYPE_Q4_0 = 2,
    GGUF_TYPE_Q4_1 = 3,
    GGUF_TYPE_Q5_0 = 6,
    GGUF_TYPE_Q5_1 = 7,
    GGUF_TYPE_Q8_0 = 8,
    GGUF_TYPE_Q8_1 = 9,
    GGUF_TYPE_Q2_K = 10,
    GGUF_TYPE_Q3_K = 11,
    GGUF_TYPE_Q4_K = 12,
    GGUF_TYPE_Q5_K = 13,
    GGUF_TYPE_Q6_K = 14,
    GGUF_TYPE_Q8_K = 15,
    GGUF_TYPE_BF16 = 30,
    GGUF_TYPE_LIMIT = 64
};

struct gguf_type_info {
    const char *name;     /* "q4_0"; as on the command line */
    uint32_t block_elems; /* elements per block: 1, 32 or 256 */
    uint32_t block_bytes;
    bool supported; /* Sovereign computes with it */
};
/* NULL for a number the format does not define (or that we know nothing of). */
const struct gguf_type_info *gguf_type_info(uint32_t type);
/* By name, case-insensitive; false if unknown. */
bool gguf_type_by_name(const char *name, enum gguf_type *out);

struct gguf_str {
    const char *data; /* not zero-terminated; may hold any bytes */
    uint64_t length;
};

enum { GGUF_DIMS_MAX = 4, GGUF_NAME_MAX = 256 };

struct gguf_tensor {
    char name[GGUF_NAME_MAX];
    uint32_t type; /* enum gguf_type; checked to be known */
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* dims[0] is the contiguous one (columns); unused dims are 1 */
    uint64_t bytes;
    uint64_t file_offset;
    const void *data;
};

struct gguf_array {
    enum gguf_value_type type; /* of the elements; never GGUF_ARRAY (nested arrays are refused) */
    uint64_t count;
    const void *data; /* packed, little-endian, maybe unaligned: use memcpy; NULL for strings */
    const struct gguf_str *strings; /* count entries for GGUF_STRING, else NULL */
};

struct gguf_kv {
    struct gguf_str key;
    enum gguf_value_type type;
    union {
        uint64_t u; /* U8..U64, BOOL (0 or 1) */
        int64_t i;  /* I8..I64 */
        double f;   /* F32, F64 */
        struct gguf_str str;
        struct gguf_array array;
    } value;
};

struct gguf;

/* Opens path. On any error nothing is left open and *out is NULL. */
enum sov_error gguf_open(const char *path, struct gguf **out, struct sov_errbuf *err);
/* Parses bytes that the caller keeps alive (tests, fuzzing, the embedded model). data must be
 * 8-byte aligned. */
enum sov_error gguf_open_memory(const void *data, size_t length, struct gguf **out,
                                struct sov_errbuf *err);
void gguf_close(struct gguf *gguf);

uint32_t gguf_version(const struct gguf *gguf);
uint64_t gguf_file_bytes(const struct gguf *gguf);
uint32_t gguf_alignment(const struct gguf *gguf);
size_t gguf_kv_count(const struct gguf *gguf);
const struct gguf_kv *gguf_kv_at(const struct gguf *gguf, size_t index);
size_t gguf_tensor_count(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t index);

/*
 * NULL if absent. O(1). The second has its own name at link time, because ggml has a function of
 * that name too and the oracle programs link both.
 */
const struct gguf_kv *gguf_find(const struct gguf *gguf, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf,
                                           const char *name) __asm__("sov_gguf_find_tensor");

/*
 * Typed reads: SOV_OK with *out set; SOV_ERR_NOT_FOUND if the key is absent (*out untouched, so
 * that a default may be set before); SOV_ERR_FORMAT, naming the key, if it is there with another
 * type or out of range. Any integer type is accepted where the value fits; F64 for F32 too.
 */
enum sov_error gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out,
                            struct sov_errbuf *err);
enum sov_error gguf_get_f32(const struct gguf *gguf, const char *key, float *out,
                            struct sov_errbuf *err);
enum sov_error gguf_get_bool(const struct gguf *gguf, const char *key, bool *out,
                             struct sov_errbuf *err);
enum sov_error gguf_get_str(const struct gguf *gguf, const char *key, struct gguf_str *out,
                            struct sov_errbuf *err);
enum sov_error gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_value_type type,
                              const struct gguf_array **out, struct sov_errbuf *err);

/*
 * Tells the system that the pages of this tensor will not be read again soon (they were packed), so
 * that the mapping does not count as resident. The data stays readable. No effect on
 * gguf_open_memory.
 */
void gguf_release_pages(const struct gguf *gguf, const struct gguf_tensor *tensor);

/* ---- writer ---- */

/*
 * Writes a version 3 file: set metadata, declare tensors, then supply each tensor's bytes in
 * declaration order. Errors stick: after the first failure all calls return it. gguf_writer_close
 * reports the first error (disk full, short write included) and removes the incomplete file; the
 * file appears under its name only when complete.
 */
struct gguf_writer;
enum sov_error gguf_writer_create(const char *path, struct gguf_writer **out,
                                  struct sov_errbuf *err);
enum sov_error gguf_writer_kv_u32(struct gguf_writer *w, const char *key, uint32_t value);
enum sov_error gguf_writer_kv_f32(struct gguf_writer *w, const char *key, float value);
enum sov_error gguf_writer_kv_bool(struct gguf_writer *w, const char *key, bool value);
enum sov_error gguf_writer_kv_str(struct gguf_writer *w, const char *key, const char *value);
/* Copies one key with its value from a file that was read. */
enum sov_error gguf_writer_kv_copy(struct gguf_writer *w, const struct gguf_kv *kv);
enum sov_error gguf_writer_tensor(struct gguf_writer *w, const char *name, enum gguf_type type,
                                  uint32_t n_dims, const uint64_t *dims);
/* Ends the declarations; the header goes out. */
enum sov_error gguf_writer_begin_data(struct gguf_writer *w);
/* The next bytes of the current tensor; when a tensor is complete the next one begins. */
enum sov_error gguf_writer_data(struct gguf_writer *w, const void *bytes, size_t length);
enum sov_error gguf_writer_close(struct gguf_writer *w, struct sov_errbuf *err);
/* Gives up instead of closing: removes the incomplete file. */
void gguf_writer_discard(struct gguf_writer *w);

#endif
