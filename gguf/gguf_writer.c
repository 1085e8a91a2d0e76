/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer. Keys and the tensor table gather in memory until gguf_writer_begin_data, when the
 * counts and offsets of the header are known; tensor bytes then stream through a buffer. All goes
 * to "PATH.partial-PID", which takes PATH's name only after everything was written and reached the
 * disk, so that no reader ever maps half a file.
 *
 * The alignment is always the default; general.alignment cannot be set. What the reader would
 * refuse (a key or tensor twice, a shape that is not whole blocks) the writer refuses too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "gguf/gguf_internal.h"

enum { WRITER_BUFFER_BYTES = 256 << 10 };

struct writer_tensor {
    char *name;
    uint64_t bytes;
};

struct gguf_writer {
    char *path;
    char *partial_path;
    int fd;
    bool in_data;
    enum sov_error code; /* the first error; sticks */
    struct sov_errbuf err;
    struct strbuf kvs;          /* encoded */
    struct strbuf tensor_table; /* encoded */
    char **keys;
    size_t kv_count, kv_capacity;
    struct writer_tensor *tensors;
    size_t tensor_count, tensor_capacity;
    uint64_t data_bytes; /* of the tensors declared so far, with padding */
    size_t current;      /* the tensor being supplied */
    uint64_t current_done;
    unsigned char *buffer;
    size_t buffered;
};

#define writer_fail(w, failure, ...) ((w)->code = sov_fail(&(w)->err, failure, __VA_ARGS__))

static enum sov_error writer_nomem(struct gguf_writer *w)
{
    return writer_fail(w, SOV_ERR_NOMEM, "%s: no memory to write", w->path);
}

static void writer_free(struct gguf_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    for (size_t i = 0; i < w->kv_count; i++) sov_free(w->keys[i]);
    for (size_t i = 0; i < w->tensor_count; i++) sov_free(w->tensors[i].name);
    sov_free(w->keys);
    sov_free(w->tensors);
    strbuf_free(&w->kvs);
    strbuf_free(&w->tensor_table);
    sov_free(w->buffer);
    sov_free(w->partial_path);
    sov_free(w->path);
    sov_free(w);
}

enum sov_error gguf_writer_create(const char *path, struct gguf_writer **out,
                                  struct sov_errbuf *err)
{
    *out = NULL;
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        /* The rename at the end would replace a device or a pipe by a file. */
        return sov_fail(err, SOV_ERR_IO, "%s: is there and is not a regular file", path);
    }
    struct gguf_writer *w = sov_calloc(1, sizeof *w);
    if (w == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory to write", path);
    w->fd = -1;
    size_t room = strlen(path) + sizeof ".partial-" + 20; /* 20 digits hold any long */
    w->path = sov_strdup(path);
    w->partial_path = sov_alloc(room, 1);
    w->buffer = sov_alloc(WRITER_BUFFER_BYTES, 1);
    if (w->path == NULL || w->partial_path == NULL || w->buffer == NULL) {
        writer_free(w);
        return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory to write", path);
    }
    snprintf(w->partial_path, room, "%s.partial-%ld", path, (long)getpid());
    w->fd = open(w->partial_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (w->fd < 0) {
        enum sov_error code =
            sov_fail(err, SOV_ERR_IO, "%s: cannot create: %s", w->partial_path, strerror(errno));
        writer_free(w);
        return code;
    }
    *out = w;
    return SOV_OK;
}

static void put_u32(struct strbuf *buf, uint32_t value)
{
    strbuf_append(buf, &value, sizeof value);
}

static void put_u64(struct strbuf *buf, uint64_t value)
{
    strbuf_append(buf, &value, sizeof value);
}

static void put_str(struct strbuf *buf, const char *text, uint64_t length)
{
    put_u64(buf, length);
    strbuf_append(buf, text, (size_t)length);
}

/* Makes room for one more entry in a growing table. */
static bool grow(void **table, size_t count, size_t *capacity, size_t entry_bytes)
{
    if (count < *capacity) return true;
    size_t wanted = *capacity == 0 ? 64 : *capacity * 2;
    void *grown = sov_realloc(*table, wanted, entry_bytes);
    if (grown == NULL) return false;
    *table = grown;
    *capacity = wanted;
    return true;
}

static void put_array(struct strbuf *buf, const struct gguf_array *array)
{
    put_u32(buf, array->type);
    put_u64(buf, array->count);
    if (array->type != GGUF_STRING) {
        strbuf_append(buf, array->data, (size_t)array->count * gguf_value_bytes(array->type));
        return;
    }
    for (uint64_t i = 0; i < array->count; i++)
        put_str(buf, array->strings[i].data, array->strings[i].length);
}

static void put_value(struct strbuf *buf, const struct gguf_kv *kv)
{
    float narrow;
    switch (kv->type) {
    case GGUF_STRING: put_str(buf, kv->value.str.data, kv->value.str.length); break;
    case GGUF_ARRAY: put_array(buf, &kv->value.array); break;
    case GGUF_F32:
        narrow = (float)kv->value.f;
        strbuf_append(buf, &narrow, sizeof narrow);
        break;
    case GGUF_F64: strbuf_append(buf, &kv->value.f, sizeof kv->value.f); break;
    default:
        /* Little-endian: the low bytes of the 64-bit value are the value of the narrower type. */
        strbuf_append(buf, &kv->value.u, gguf_value_bytes(kv->type));
        break;
    }
}

enum sov_error gguf_writer_kv_copy(struct gguf_writer *w, const struct gguf_kv *kv)
{
    char shown[GGUF_PRINTABLE_MAX];
    if (w->code != SOV_OK) return w->code;
    gguf_printable(kv->key.data, kv->key.length, shown);
    if (w->in_data)
        return writer_fail(w, SOV_ERR_INVALID, "%s: key %s comes after the data began", w->path,
                           shown);
    if (kv->key.length == 0 || kv->key.length > GGUF_KEY_BYTES_LIMIT ||
        w->kv_count >= GGUF_KV_LIMIT || memchr(kv->key.data, 0, (size_t)kv->key.length) != NULL) {
        return writer_fail(w, SOV_ERR_INVALID,
                           "%s: key \"%s\" is empty, has a zero byte, is longer than %d bytes, or "
                           "is one more than %d",
                           w->path, shown, GGUF_KEY_BYTES_LIMIT, GGUF_KV_LIMIT);
    }
    if (!grow((void **)&w->keys, w->kv_count, &w->kv_capacity, sizeof *w->keys))
        return writer_nomem(w);
    char *key = sov_strndup(kv->key.data, (size_t)kv->key.length);
    if (key == NULL) return writer_nomem(w);
    bool known = strcmp(key, "general.alignment") == 0;
    for (size_t i = 0; i < w->kv_count && !known; i++) known = strcmp(w->keys[i], key) == 0;
    if (known) {
        sov_free(key);
        return writer_fail(w, SOV_ERR_INVALID, "%s: key %s is set already", w->path, shown);
    }
    w->keys[w->kv_count++] = key;
    put_str(&w->kvs, kv->key.data, kv->key.length);
    put_u32(&w->kvs, kv->type);
    put_value(&w->kvs, kv);
    return strbuf_failed(&w->kvs) ? writer_nomem(w) : SOV_OK;
}

static struct gguf_kv named_kv(const char *key, enum gguf_value_type type)
{
    return (struct gguf_kv){.key = {key, strlen(key)}, .type = type};
}

enum sov_error gguf_writer_kv_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    struct gguf_kv kv = named_kv(key, GGUF_U32);
    kv.value.u = value;
    return gguf_writer_kv_copy(w, &kv);
}

enum sov_error gguf_writer_kv_f32(struct gguf_writer *w, const char *key, float value)
{
    struct gguf_kv kv = named_kv(key, GGUF_F32);
    kv.value.f = (double)value;
    return gguf_writer_kv_copy(w, &kv);
}

enum sov_error gguf_writer_kv_bool(struct gguf_writer *w, const char *key, bool value)
{
    struct gguf_kv kv = named_kv(key, GGUF_BOOL);
    kv.value.u = value;
    return gguf_writer_kv_copy(w, &kv);
}

enum sov_error gguf_writer_kv_str(struct gguf_writer *w, const char *key, const char *value)
{
    struct gguf_kv kv = named_kv(key, GGUF_STRING);
    kv.value.str = (struct gguf_str){value, strlen(value)};
    return gguf_writer_kv_copy(w, &kv);
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + GGUF_ALIGNMENT_DEFAULT - 1) / GGUF_ALIGNMENT_DEFAULT * GGUF_ALIGNMENT_DEFAULT;
}

/* What is wrong with a tensor's declaration, or NULL. */
static const char *tensor_complaint(const struct gguf_writer *w, const char *name,
                                    const struct gguf_type_info *info, uint32_t n_dims,
                                    const uint64_t *dims, uint64_t *bytes, char *why,
                                    size_t why_size)
{
    if (w->in_data) return "comes after the data began";
    if (w->tensor_count >= GGUF_TENSOR_LIMIT) return "is one more than the limit";
    if (name[0] == '\0' || strlen(name) >= GGUF_NAME_MAX) return "has an empty or too long name";
    for (size_t i = 0; i < w->tensor_count; i++) {
        if (strcmp(w->tensors[i].name, name) == 0) return "is declared already";
    }
    if (info == NULL) return "has a type that is not known";
    return gguf_tensor_bytes(info, n_dims, dims, bytes, why, why_size) ? NULL : why;
}

enum sov_error gguf_writer_tensor(struct gguf_writer *w, const char *name, enum gguf_type type,
                                  uint32_t n_dims, const uint64_t *dims)
{
    char why[128], shown[GGUF_PRINTABLE_MAX];
    uint64_t bytes, end;
    if (w->code != SOV_OK) return w->code;
    const char *complaint =
        tensor_complaint(w, name, gguf_type_info(type), n_dims, dims, &bytes, why, sizeof why);
    if (complaint == NULL &&
        (__builtin_add_overflow(w->data_bytes, bytes, &end) || end > INT64_MAX)) {
        complaint = "makes the file larger than 63 bits can say";
    }
    if (complaint != NULL) {
        return writer_fail(w, SOV_ERR_INVALID, "%s: tensor %s %s", w->path,
                           gguf_printable(name, strlen(name), shown), complaint);
    }
    if (!grow((void **)&w->tensors, w->tensor_count, &w->tensor_capacity, sizeof *w->tensors))
        return writer_nomem(w);
    char *copy = sov_strdup(name);
    if (copy == NULL) return writer_nomem(w);
    w->tensors[w->tensor_count++] = (struct writer_tensor){copy, bytes};
    put_str(&w->tensor_table, name, strlen(name));
    put_u32(&w->tensor_table, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) put_u64(&w->tensor_table, dims[i]);
    put_u32(&w->tensor_table, type);
    put_u64(&w->tensor_table, w->data_bytes);
    w->data_bytes = padded(end);
    return strbuf_failed(&w->tensor_table) ? writer_nomem(w) : SOV_OK;
}

static enum sov_error write_all(struct gguf_writer *w, const unsigned char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(w->fd, bytes, length);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            return writer_fail(w, SOV_ERR_IO, "%s: cannot write: %s", w->partial_path,
                               written < 0 ? strerror(errno) : "the system took no bytes");
        }
        bytes += written;
        length -= (size_t)written;
    }
    return SOV_OK;
}

static enum sov_error flush(struct gguf_writer *w)
{
    size_t length = w->buffered;
    w->buffered = 0;
    return write_all(w, w->buffer, length);
}

static enum sov_error emit(struct gguf_writer *w, const void *bytes, size_t length)
{
    if (length > WRITER_BUFFER_BYTES - w->buffered) {
        if (flush(w) != SOV_OK) return w->code;
        if (length >= WRITER_BUFFER_BYTES) return write_all(w, bytes, length);
    }
    memcpy(w->buffer + w->buffered, bytes, length);
    w->buffered += length;
    return SOV_OK;
}

static enum sov_error emit_padding(struct gguf_writer *w, uint64_t after)
{
    static const unsigned char zeros[GGUF_ALIGNMENT_DEFAULT];
    return emit(w, zeros, (size_t)(padded(after) - after));
}

enum sov_error gguf_writer_begin_data(struct gguf_writer *w)
{
    if (w->code != SOV_OK) return w->code;
    if (w->in_data) return writer_fail(w, SOV_ERR_INVALID, "%s: the data began already", w->path);
    w->in_data = true;
    uint32_t version = GGUF_VERSION_MAX;
    uint64_t counts[2] = {w->tensor_count, w->kv_count};
    uint64_t header_bytes = GGUF_HEADER_BYTES + (uint64_t)w->kvs.length + w->tensor_table.length;
    if (emit(w, gguf_magic, sizeof gguf_magic) != SOV_OK ||
        emit(w, &version, sizeof version) != SOV_OK || emit(w, counts, sizeof counts) != SOV_OK ||
        emit(w, strbuf_text(&w->kvs), w->kvs.length) != SOV_OK ||
        emit(w, strbuf_text(&w->tensor_table), w->tensor_table.length) != SOV_OK) {
        return w->code;
    }
    strbuf_free(&w->kvs);
    strbuf_free(&w->tensor_table);
    return emit_padding(w, header_bytes);
}

enum sov_error gguf_writer_data(struct gguf_writer *w, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    if (w->code != SOV_OK) return w->code;
    if (!w->in_data)
        return writer_fail(w, SOV_ERR_INVALID, "%s: data comes before the declarations ended",
                           w->path);
    while (length > 0) {
        if (w->current == w->tensor_count) {
            return writer_fail(w, SOV_ERR_INVALID,
                               "%s: %zu bytes more than the tensors declared need", w->path,
                               length);
        }
        uint64_t wanted = w->tensors[w->current].bytes, left = wanted - w->current_done;
        size_t now = length < left ? length : (size_t)left;
        if (emit(w, at, now) != SOV_OK) return w->code;
        at += now;
        length -= now;
        w->current_done += now;
        if (w->current_done < wanted) continue;
        if (emit_padding(w, wanted) != SOV_OK) return w->code;
        w->current++;
        w->current_done = 0;
    }
    return SOV_OK;
}

static enum sov_error finish(struct gguf_writer *w)
{
    if (w->code != SOV_OK) return w->code;
    if (!w->in_data && gguf_writer_begin_data(w) != SOV_OK) return w->code;
    if (w->current < w->tensor_count) {
        const struct writer_tensor *tensor = &w->tensors[w->current];
        char shown[GGUF_PRINTABLE_MAX];
        return writer_fail(w, SOV_ERR_INVALID, "%s: tensor %s got %llu of its %llu bytes", w->path,
                           gguf_printable(tensor->name, strlen(tensor->name), shown),
                           (unsigned long long)w->current_done, (unsigned long long)tensor->bytes);
    }
    if (flush(w) != SOV_OK) return w->code;
    if (fsync(w->fd) != 0) {
        return writer_fail(w, SOV_ERR_IO, "%s: cannot write to disk: %s", w->partial_path,
                           strerror(errno));
    }
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) {
        return writer_fail(w, SOV_ERR_IO, "%s: cannot close: %s", w->partial_path, strerror(errno));
    }
    if (rename(w->partial_path, w->path) != 0) {
        return writer_fail(w, SOV_ERR_IO, "%s: cannot take the name %s: %s", w->partial_path,
                           w->path, strerror(errno));
    }
    return SOV_OK;
}

enum sov_error gguf_writer_close(struct gguf_writer *w, struct sov_errbuf *err)
{
    if (w == NULL) return SOV_OK;
    enum sov_error code = finish(w);
    if (code == SOV_OK) {
        writer_free(w);
        return SOV_OK;
    }
    if (err != NULL) *err = w->err;
    gguf_writer_discard(w);
    return code;
}

void gguf_writer_discard(struct gguf_writer *w)
{
    if (w == NULL) return;
    (void)unlink(
        w->partial_path); /* best effort: whoever gives up has an error of his own to report */
    writer_free(w);
}
