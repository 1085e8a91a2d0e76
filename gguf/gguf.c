/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader. One pass over the header with a cursor that cannot leave the file: header, keys,
 * tensor table; then the tensor ranges are checked against the file. Memory is allocated for a
 * count only after the count was found to fit the bytes that remain, so that a short file cannot
 * ask for much: at most some 10 bytes per byte of header.
 *
 * Look-up is by open addressing over indices. The hash is seeded from the system's generator, so
 * that a file cannot be made whose names all collide.
 *
 * A file that is truncated by another process while it is mapped makes reads of the lost pages end
 * in SIGBUS, as with every memory-mapped file. Replace model files by renaming a new file over
 * them, never in place.
 */
#include "gguf/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"
#include "gguf/gguf_internal.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Sovereign reads little-endian files on little-endian machines only"
#endif

/* Open addressing over 1-based indices; capacity is a power of two at least twice the count. */
struct gguf_index {
    uint32_t *slots;
    size_t mask;
};

struct gguf {
    const unsigned char *data;
    size_t length;
    void *mapping; /* NULL when the bytes are the caller's */
    uint32_t version;
    uint32_t alignment;
    uint64_t hash_seed;
    struct gguf_kv *kvs;
    size_t kv_count;
    struct gguf_tensor *tensors;
    size_t tensor_count;
    struct gguf_index kv_index;
    struct gguf_index tensor_index;
};

struct gguf_cursor {
    struct gguf *gguf;
    const char *path;
    struct sov_errbuf *err;
    size_t at;
};

#define cursor_fail(cur, offset, ...) cursor_fail_at(cur, SOV_ERR_FORMAT, offset, __VA_ARGS__)

__attribute__((format(printf, 4, 5))) static enum sov_error
cursor_fail_at(const struct gguf_cursor *cur, enum sov_error code, size_t offset,
               const char *format, ...)
{
    char what[SOV_ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return sov_fail(cur->err, code, "%s: at byte %zu: %s", cur->path, offset, what);
}

static enum sov_error cursor_nomem(const struct gguf_cursor *cur, const char *what)
{
    return cursor_fail_at(cur, SOV_ERR_NOMEM, cur->at, "no memory for %s", what);
}

static size_t cursor_left(const struct gguf_cursor *cur)
{
    return cur->gguf->length - cur->at;
}

static enum sov_error read_bytes(struct gguf_cursor *cur, void *out, size_t bytes, const char *what)
{
    if (cursor_left(cur) < bytes) {
        return cursor_fail(cur, cur->at, "the file ends inside %s (%zu bytes needed, %zu left)",
                           what, bytes, cursor_left(cur));
    }
    memcpy(out, cur->gguf->data + cur->at, bytes);
    cur->at += bytes;
    return SOV_OK;
}

static enum sov_error read_str(struct gguf_cursor *cur, struct gguf_str *out, uint64_t limit,
                               const char *what)
{
    size_t start = cur->at;
    uint64_t length = 0;
    enum sov_error code = read_bytes(cur, &length, sizeof length, what);
    if (code != SOV_OK) return code;
    if (length > limit) {
        return cursor_fail(cur, start, "%s has length %llu, the limit is %llu", what,
                           (unsigned long long)length, (unsigned long long)limit);
    }
    if (length > cursor_left(cur)) {
        return cursor_fail(cur, start, "%s has length %llu, but only %zu bytes are left", what,
                           (unsigned long long)length, cursor_left(cur));
    }
    out->data = (const char *)cur->gguf->data + cur->at;
    out->length = length;
    cur->at += (size_t)length;
    return SOV_OK;
}

static uint64_t index_hash(const struct gguf *gguf, const char *name, size_t length)
{
    return XXH3_64bits_withSeed(name, length, gguf->hash_seed);
}

static bool index_init(struct gguf_index *index, size_t count)
{
    size_t capacity = 4;
    while (capacity < 2 * count) capacity *= 2;
    index->slots = sov_calloc(capacity, sizeof *index->slots);
    index->mask = capacity - 1;
    return index->slots != NULL;
}

/* The slot holding the key, or the empty slot where it belongs. */
static uint32_t *kv_slot(const struct gguf *gguf, const char *key, size_t length)
{
    size_t i = index_hash(gguf, key, length) & gguf->kv_index.mask;
    for (;; i = (i + 1) & gguf->kv_index.mask) {
        uint32_t *slot = &gguf->kv_index.slots[i];
        if (*slot == 0) return slot;
        const struct gguf_str *other = &gguf->kvs[*slot - 1].key;
        if (other->length == length && memcmp(other->data, key, length) == 0) return slot;
    }
}

static uint32_t *tensor_slot(const struct gguf *gguf, const char *name)
{
    size_t i = index_hash(gguf, name, strlen(name)) & gguf->tensor_index.mask;
    for (;; i = (i + 1) & gguf->tensor_index.mask) {
        uint32_t *slot = &gguf->tensor_index.slots[i];
        if (*slot == 0 || strcmp(gguf->tensors[*slot - 1].name, name) == 0) return slot;
    }
}

static enum sov_error read_header(struct gguf_cursor *cur, uint64_t *tensor_count,
                                  uint64_t *kv_count)
{
    char magic[GGUF_MAGIC_BYTES] = {0};
    if (cur->gguf->length == 0) return cursor_fail(cur, 0, "the file is empty");
    enum sov_error code = read_bytes(cur, magic, sizeof magic, "the magic bytes \"GGUF\"");
    if (code != SOV_OK) return code;
    if (memcmp(magic, gguf_magic, sizeof magic) != 0) {
        char shown[GGUF_PRINTABLE_MAX];
        return cursor_fail(cur, 0,
                           "this is not a GGUF file: it begins with \"%s\", expected \"GGUF\"",
                           gguf_printable(magic, sizeof magic, shown));
    }
    uint32_t version = 0;
    if ((code = read_bytes(cur, &version, sizeof version, "the version")) != SOV_OK) return code;
    if (version != 0 && (version & 0xffff) == 0) {
        return cursor_fail_at(
            cur, SOV_ERR_UNSUPPORTED, GGUF_MAGIC_BYTES,
            "this is a big-endian GGUF file (version bytes are reversed), expected little-endian");
    }
    if (version < GGUF_VERSION_MIN || version > GGUF_VERSION_MAX) {
        return cursor_fail_at(cur, SOV_ERR_UNSUPPORTED, GGUF_MAGIC_BYTES,
                              "GGUF version %u, expected %d to %d", version, GGUF_VERSION_MIN,
                              GGUF_VERSION_MAX);
    }
    cur->gguf->version = version;
    size_t at = cur->at;
    if ((code = read_bytes(cur, tensor_count, sizeof *tensor_count, "the tensor count")) != SOV_OK)
        return code;
    if ((code = read_bytes(cur, kv_count, sizeof *kv_count, "the key count")) != SOV_OK)
        return code;
    if (*tensor_count > GGUF_TENSOR_LIMIT ||
        *tensor_count > cursor_left(cur) / GGUF_TENSOR_BYTES_MIN) {
        return cursor_fail(
            cur, at,
            "tensor count %llu is more than the limit %d or than the %zu bytes left can hold",
            (unsigned long long)*tensor_count, GGUF_TENSOR_LIMIT, cursor_left(cur));
    }
    if (*kv_count > GGUF_KV_LIMIT || *kv_count > cursor_left(cur) / GGUF_KV_BYTES_MIN) {
        return cursor_fail(
            cur, at + 8,
            "key count %llu is more than the limit %d or than the %zu bytes left can hold",
            (unsigned long long)*kv_count, GGUF_KV_LIMIT, cursor_left(cur));
    }
    return SOV_OK;
}

static enum sov_error read_array(struct gguf_cursor *cur, const char *key, struct gguf_array *array)
{
    size_t start = cur->at;
    uint32_t type = 0;
    enum sov_error code = read_bytes(cur, &type, sizeof type, "an array's element type");
    if (code != SOV_OK) return code;
    if ((code = read_bytes(cur, &array->count, sizeof array->count, "an array's count")) != SOV_OK)
        return code;
    if (type == GGUF_ARRAY)
        return cursor_fail(cur, start, "key %s: arrays of arrays are not supported", key);
    if (type >= GGUF_VALUE_TYPES) {
        return cursor_fail(cur, start,
                           "key %s: array element type %u is not defined, expected 0 to %d", key,
                           type, GGUF_VALUE_TYPES - 1);
    }
    array->type = (enum gguf_value_type)type;
    size_t each = type == GGUF_STRING ? sizeof(uint64_t) : gguf_value_bytes(array->type);
    if (array->count > GGUF_ARRAY_COUNT_LIMIT || array->count > cursor_left(cur) / each) {
        return cursor_fail(cur, start + 4,
                           "key %s: array count %llu is more than the limit %d or than the %zu "
                           "bytes left can hold",
                           key, (unsigned long long)array->count, GGUF_ARRAY_COUNT_LIMIT,
                           cursor_left(cur));
    }
    if (type != GGUF_STRING) {
        array->data = cur->gguf->data + cur->at;
        cur->at += (size_t)array->count * each;
        return SOV_OK;
    }
    struct gguf_str *strings = sov_calloc((size_t)array->count, sizeof *strings);
    if (strings == NULL) return cursor_nomem(cur, "an array of strings");
    array->strings = strings; /* gguf_close frees it, also after the errors below */
    for (uint64_t i = 0; i < array->count; i++) {
        code = read_str(cur, &strings[i], GGUF_STRING_BYTES_LIMIT, "a string of an array");
        if (code != SOV_OK) return code;
    }
    return SOV_OK;
}

static enum sov_error read_value(struct gguf_cursor *cur, const char *key, struct gguf_kv *kv)
{
    size_t start = cur->at;
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } raw;
    if (kv->type == GGUF_STRING)
        return read_str(cur, &kv->value.str, GGUF_STRING_BYTES_LIMIT, "a string value");
    if (kv->type == GGUF_ARRAY) return read_array(cur, key, &kv->value.array);
    enum sov_error code = read_bytes(cur, &raw, gguf_value_bytes(kv->type), "a value");
    if (code != SOV_OK) return code;
    switch (kv->type) {
    case GGUF_BOOL:
        if (raw.u8 > 1)
            return cursor_fail(cur, start, "key %s: bool is %u, expected 0 or 1", key, raw.u8);
        kv->value.u = raw.u8;
        break;
    case GGUF_U8: kv->value.u = raw.u8; break;
    case GGUF_U16: kv->value.u = raw.u16; break;
    case GGUF_U32: kv->value.u = raw.u32; break;
    case GGUF_U64: kv->value.u = raw.u64; break;
    case GGUF_I8: kv->value.i = (int64_t)raw.i8; break;
    case GGUF_I16: kv->value.i = raw.i16; break;
    case GGUF_I32: kv->value.i = raw.i32; break;
    case GGUF_I64: kv->value.i = raw.i64; break;
    case GGUF_F32: kv->value.f = (double)raw.f32; break;
    default: kv->value.f = raw.f64; break;
    }
    return SOV_OK;
}

static enum sov_error read_kv(struct gguf_cursor *cur, struct gguf_kv *kv)
{
    struct gguf *gguf = cur->gguf;
    char shown[GGUF_PRINTABLE_MAX];
    size_t start = cur->at;
    enum sov_error code = read_str(cur, &kv->key, GGUF_KEY_BYTES_LIMIT, "a key");
    if (code != SOV_OK) return code;
    if (kv->key.length == 0)
        return cursor_fail(cur, start, "key number %zu is empty", gguf->kv_count);
    if (memchr(kv->key.data, 0, kv->key.length) != NULL) {
        return cursor_fail(cur, start, "key number %zu has a zero byte in it", gguf->kv_count);
    }
    gguf_printable(kv->key.data, kv->key.length, shown);
    uint32_t *slot = kv_slot(gguf, kv->key.data, kv->key.length);
    if (*slot != 0) return cursor_fail(cur, start, "key %s is there twice", shown);
    size_t type_at = cur->at;
    uint32_t type = 0;
    if ((code = read_bytes(cur, &type, sizeof type, "a value's type")) != SOV_OK) return code;
    if (type >= GGUF_VALUE_TYPES) {
        return cursor_fail(cur, type_at, "key %s: value type %u is not defined, expected 0 to %d",
                           shown, type, GGUF_VALUE_TYPES - 1);
    }
    kv->type = (enum gguf_value_type)type;
    *slot = (uint32_t)++gguf->kv_count;
    return read_value(cur, shown, kv);
}

static enum sov_error read_kvs(struct gguf_cursor *cur, uint64_t count)
{
    struct gguf *gguf = cur->gguf;
    gguf->kvs = sov_calloc((size_t)count, sizeof *gguf->kvs);
    if (gguf->kvs == NULL || !index_init(&gguf->kv_index, (size_t)count))
        return cursor_nomem(cur, "the keys");
    for (uint64_t i = 0; i < count; i++) {
        enum sov_error code = read_kv(cur, &gguf->kvs[i]);
        if (code != SOV_OK) return code;
    }
    return SOV_OK;
}

static enum sov_error read_alignment(struct gguf_cursor *cur)
{
    struct gguf *gguf = cur->gguf;
    gguf->alignment = GGUF_ALIGNMENT_DEFAULT;
    const struct gguf_kv *kv = gguf_find(gguf, "general.alignment");
    if (kv == NULL) return SOV_OK;
    size_t at = (size_t)((const unsigned char *)kv->key.data - gguf->data);
    if (kv->type != GGUF_U32) {
        return cursor_fail(cur, at, "key general.alignment has type %s, expected u32",
                           gguf_value_type_name(kv->type));
    }
    uint64_t value = kv->value.u;
    if (value < GGUF_ALIGNMENT_MIN || value > GGUF_ALIGNMENT_MAX || (value & (value - 1)) != 0) {
        return cursor_fail(cur, at,
                           "key general.alignment is %llu, expected a power of two from %d to %d",
                           (unsigned long long)value, GGUF_ALIGNMENT_MIN, GGUF_ALIGNMENT_MAX);
    }
    gguf->alignment = (uint32_t)value;
    return SOV_OK;
}

static enum sov_error read_tensor_name(struct gguf_cursor *cur, struct gguf_tensor *tensor)
{
    struct gguf *gguf = cur->gguf;
    size_t start = cur->at;
    struct gguf_str name;
    enum sov_error code = read_str(cur, &name, GGUF_NAME_MAX - 1, "a tensor's name");
    if (code != SOV_OK) return code;
    if (name.length == 0)
        return cursor_fail(cur, start, "the name of tensor number %zu is empty",
                           gguf->tensor_count);
    if (memchr(name.data, 0, name.length) != NULL) {
        return cursor_fail(cur, start, "the name of tensor number %zu has a zero byte in it",
                           gguf->tensor_count);
    }
    memcpy(tensor->name, name.data, name.length);
    uint32_t *slot = tensor_slot(gguf, tensor->name);
    if (*slot != 0) {
        char shown[GGUF_PRINTABLE_MAX];
        return cursor_fail(cur, start, "tensor %s is there twice",
                           gguf_printable(name.data, name.length, shown));
    }
    *slot = (uint32_t)++gguf->tensor_count;
    return SOV_OK;
}

/* Fills in all but data; file_offset stays relative to the data section, which is not known yet. */
static enum sov_error read_tensor(struct gguf_cursor *cur, struct gguf_tensor *tensor)
{
    char shown[GGUF_PRINTABLE_MAX], why[128];
    enum sov_error code = read_tensor_name(cur, tensor);
    if (code != SOV_OK) return code;
    gguf_printable(tensor->name, strlen(tensor->name), shown);
    size_t at = cur->at;
    if ((code = read_bytes(cur, &tensor->n_dims, 4, "a tensor's dimension count")) != SOV_OK)
        return code;
    if (tensor->n_dims < 1 || tensor->n_dims > GGUF_DIMS_MAX) {
        return cursor_fail(cur, at, "tensor %s has %u dimensions, expected 1 to %d", shown,
                           tensor->n_dims, GGUF_DIMS_MAX);
    }
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) tensor->dims[i] = 1;
    at = cur->at;
    code = read_bytes(cur, tensor->dims, tensor->n_dims * sizeof tensor->dims[0],
                      "a tensor's dimensions");
    if (code != SOV_OK) return code;
    size_t type_at = cur->at;
    if ((code = read_bytes(cur, &tensor->type, 4, "a tensor's type")) != SOV_OK) return code;
    const struct gguf_type_info *info = gguf_type_info(tensor->type);
    if (info == NULL) {
        return cursor_fail_at(cur, SOV_ERR_UNSUPPORTED, type_at,
                              "tensor %s has type number %u, which is not known", shown,
                              tensor->type);
    }
    if (!gguf_tensor_bytes(info, tensor->n_dims, tensor->dims, &tensor->bytes, why, sizeof why)) {
        return cursor_fail(cur, at, "tensor %s %s", shown, why);
    }
    at = cur->at;
    if ((code = read_bytes(cur, &tensor->file_offset, 8, "a tensor's offset")) != SOV_OK)
        return code;
    if (tensor->file_offset % cur->gguf->alignment != 0) {
        return cursor_fail(cur, at,
                           "tensor %s has offset %llu, expected a multiple of the alignment %u",
                           shown, (unsigned long long)tensor->file_offset, cur->gguf->alignment);
    }
    return SOV_OK;
}

static enum sov_error read_tensors(struct gguf_cursor *cur, uint64_t count)
{
    struct gguf *gguf = cur->gguf;
    gguf->tensors = sov_calloc((size_t)count, sizeof *gguf->tensors);
    if (gguf->tensors == NULL || !index_init(&gguf->tensor_index, (size_t)count)) {
        return cursor_nomem(cur, "the tensor table");
    }
    for (uint64_t i = 0; i < count; i++) {
        enum sov_error code = read_tensor(cur, &gguf->tensors[i]);
        if (code != SOV_OK) return code;
    }
    return SOV_OK;
}

static enum sov_error place_tensors(struct gguf_cursor *cur)
{
    struct gguf *gguf = cur->gguf;
    uint64_t mask = gguf->alignment - 1, start = ((uint64_t)cur->at + mask) & ~mask;
    for (size_t i = 0; i < gguf->tensor_count; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[i];
        uint64_t begin, end;
        if (__builtin_add_overflow(start, tensor->file_offset, &begin) ||
            __builtin_add_overflow(begin, tensor->bytes, &end) || end > gguf->length) {
            char shown[GGUF_PRINTABLE_MAX];
            return cursor_fail(cur, cur->at,
                               "tensor %s needs %llu bytes at offset %llu of the data section "
                               "(which begins at byte "
                               "%llu), but the file has %zu bytes; is it cut off?",
                               gguf_printable(tensor->name, strlen(tensor->name), shown),
                               (unsigned long long)tensor->bytes,
                               (unsigned long long)tensor->file_offset, (unsigned long long)start,
                               gguf->length);
        }
        tensor->file_offset = begin;
        tensor->data = gguf->data + begin;
    }
    return SOV_OK;
}

static enum sov_error parse(const char *path, struct gguf *gguf, struct sov_errbuf *err)
{
    struct gguf_cursor cur = {.gguf = gguf, .path = path, .err = err};
    if (getrandom(&gguf->hash_seed, sizeof gguf->hash_seed, GRND_NONBLOCK) !=
        (ssize_t)sizeof gguf->hash_seed) {
        gguf->hash_seed = (uint64_t)(uintptr_t)gguf; /* early in boot; an address is guess enough */
    }
    uint64_t tensor_count = 0, kv_count = 0;
    enum sov_error code = read_header(&cur, &tensor_count, &kv_count);
    if (code == SOV_OK) code = read_kvs(&cur, kv_count);
    if (code == SOV_OK) code = read_alignment(&cur);
    if (code == SOV_OK) code = read_tensors(&cur, tensor_count);
    if (code == SOV_OK) code = place_tensors(&cur);
    return code;
}

enum sov_error gguf_open_memory(const void *data, size_t length, struct gguf **out,
                                struct sov_errbuf *err)
{
    *out = NULL;
    struct gguf *gguf = sov_calloc(1, sizeof *gguf);
    if (gguf == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory to open a model");
    gguf->data = data;
    gguf->length = length;
    enum sov_error code = parse("model in memory", gguf, err);
    if (code != SOV_OK) {
        gguf_close(gguf);
        return code;
    }
    *out = gguf;
    return SOV_OK;
}

static enum sov_error map_file(const char *path, struct gguf *gguf, struct sov_errbuf *err)
{
    enum sov_error code = SOV_OK;
    struct stat st;
    /* O_NONBLOCK: opening a pipe that nobody writes to must not hang. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        enum sov_error kind = errno == ENOENT ? SOV_ERR_NOT_FOUND : SOV_ERR_IO;
        return sov_fail(err, kind, "%s: cannot open: %s", path, strerror(errno));
    }
    if (fstat(fd, &st) != 0) {
        code = sov_fail(err, SOV_ERR_IO, "%s: cannot read its size: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        code = sov_fail(err, SOV_ERR_IO, "%s: is a directory, expected a GGUF file", path);
    } else if (!S_ISREG(st.st_mode)) {
        code = sov_fail(err, SOV_ERR_IO, "%s: is not a regular file, expected a GGUF file", path);
    } else if (st.st_size == 0) {
        code = sov_fail(err, SOV_ERR_FORMAT, "%s: the file is empty, expected a GGUF file", path);
    } else if ((uint64_t)st.st_size > SIZE_MAX) {
        code = sov_fail(err, SOV_ERR_LIMIT, "%s: too large for this machine's address space", path);
    } else {
        gguf->length = (size_t)st.st_size;
        void *mapping = mmap(NULL, gguf->length, PROT_READ, MAP_SHARED, fd, 0);
        if (mapping == MAP_FAILED) {
            code = sov_fail(err, SOV_ERR_IO, "%s: cannot map %zu bytes: %s", path, gguf->length,
                            strerror(errno));
        } else {
            gguf->mapping = mapping;
            gguf->data = mapping;
        }
    }
    close(fd);
    return code;
}

enum sov_error gguf_open(const char *path, struct gguf **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct gguf *gguf = sov_calloc(1, sizeof *gguf);
    if (gguf == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory to open a model", path);
    enum sov_error code = map_file(path, gguf, err);
    if (code == SOV_OK) code = parse(path, gguf, err);
    if (code != SOV_OK) {
        gguf_close(gguf);
        return code;
    }
    *out = gguf;
    return SOV_OK;
}

void gguf_close(struct gguf *gguf)
{
    if (gguf == NULL) return;
    for (size_t i = 0; i < gguf->kv_count; i++) {
        if (gguf->kvs[i].type == GGUF_ARRAY) sov_free((void *)gguf->kvs[i].value.array.strings);
    }
    sov_free(gguf->kvs);
    sov_free(gguf->tensors);
    sov_free(gguf->kv_index.slots);
    sov_free(gguf->tensor_index.slots);
    if (gguf->mapping != NULL) munmap(gguf->mapping, gguf->length);
    sov_free(gguf);
}

uint32_t gguf_version(const struct gguf *gguf)
{
    return gguf->version;
}

uint64_t gguf_file_bytes(const struct gguf *gguf)
{
    return gguf->length;
}

uint32_t gguf_alignment(const struct gguf *gguf)
{
    return gguf->alignment;
}

size_t gguf_kv_count(const struct gguf *gguf)
{
    return gguf->kv_count;
}

const struct gguf_kv *gguf_kv_at(const struct gguf *gguf, size_t index)
{
    return &gguf->kvs[index];
}

size_t gguf_tensor_count(const struct gguf *gguf)
{
    return gguf->tensor_count;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t index)
{
    return &gguf->tensors[index];
}

const struct gguf_kv *gguf_find(const struct gguf *gguf, const char *key)
{
    uint32_t slot = *kv_slot(gguf, key, strlen(key));
    return slot != 0 ? &gguf->kvs[slot - 1] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name)
{
    uint32_t slot = *tensor_slot(gguf, name);
    return slot != 0 ? &gguf->tensors[slot - 1] : NULL;
}

void gguf_release_pages(const struct gguf *gguf, const struct gguf_tensor *tensor)
{
    if (gguf->mapping == NULL) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)tensor->data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)tensor->data + (size_t)tensor->bytes) / page * page;
    /* Advice only: a refusal costs resident memory, nothing else. */
    if (end > begin) (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}
