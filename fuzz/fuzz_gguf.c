/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GGUF reader on arbitrary bytes. What it accepts is then used as the rooms above use it: every
 * string, array and tensor is touched at both ends, every key is read with every typed read, and
 * some of each tensor is dequantized.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf.h"
#include "gguf/quant.h"

enum { DEQUANTIZE_BLOCKS = 4, BLOCK_ELEMENTS_MAX = 256, ARRAY_STRINGS_TOUCHED = 1000 };

/* Makes the compiler keep a read, so that the sanitizers see it. */
static volatile uint64_t sink;

static void touch(const void *data, uint64_t bytes)
{
    if (bytes == 0) return;
    const unsigned char *at = data;
    sink += at[0] + at[bytes - 1];
}

static void touch_kv(const struct gguf *gguf, const struct gguf_kv *kv)
{
    touch(kv->key.data, kv->key.length);
    if (kv->type == GGUF_STRING) touch(kv->value.str.data, kv->value.str.length);
    if (kv->type == GGUF_ARRAY && kv->value.array.type == GGUF_STRING) {
        const struct gguf_array *array = &kv->value.array;
        for (uint64_t i = 0; i < array->count && i < ARRAY_STRINGS_TOUCHED; i++) {
            touch(array->strings[i].data, array->strings[i].length);
        }
    }
    char *key = malloc(kv->key.length + 1);
    if (key == NULL) abort();
    memcpy(key, kv->key.data, kv->key.length);
    key[kv->key.length] = '\0';
    if (gguf_find(gguf, key) != kv) abort();
    uint32_t u;
    float f;
    bool b;
    struct gguf_str str;
    const struct gguf_array *array;
    struct sov_errbuf err;
    if (gguf_get_u32(gguf, key, &u, &err) == SOV_OK) sink += u;
    if (gguf_get_f32(gguf, key, &f, &err) == SOV_OK) sink += f > 0;
    if (gguf_get_bool(gguf, key, &b, &err) == SOV_OK) sink += b;
    if (gguf_get_str(gguf, key, &str, &err) == SOV_OK) sink += str.length;
    if (gguf_get_array(gguf, key, GGUF_F32, &array, &err) == SOV_OK)
        touch(array->data, array->count * 4);
    free(key);
}

static void touch_tensor(const struct gguf *gguf, const struct gguf_tensor *tensor)
{
    float values[DEQUANTIZE_BLOCKS * BLOCK_ELEMENTS_MAX];
    const struct gguf_type_info *info = gguf_type_info(tensor->type);
    if (gguf_find_tensor(gguf, tensor->name) != tensor || info == NULL) abort();
    touch(tensor->data, tensor->bytes);
    if (!info->supported) return;
    uint64_t blocks = tensor->bytes / info->block_bytes;
    size_t n =
        (size_t)(blocks < DEQUANTIZE_BLOCKS ? blocks : DEQUANTIZE_BLOCKS) * info->block_elems;
    quant_dequantize((enum gguf_type)tensor->type, tensor->data, values, n);
    touch(values, n * sizeof *values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *gguf;
    struct sov_errbuf err;
    /* malloc: aligned as gguf_open_memory asks for, and fenced on both sides. */
    void *copy = malloc(size != 0 ? size : 1);
    if (copy == NULL) abort();
    memcpy(copy, data, size);
    if (gguf_open_memory(copy, size, &gguf, &err) == SOV_OK) {
        for (size_t i = 0; i < gguf_kv_count(gguf); i++) touch_kv(gguf, gguf_kv_at(gguf, i));
        for (size_t i = 0; i < gguf_tensor_count(gguf); i++)
            touch_tensor(gguf, gguf_tensor_at(gguf, i));
        gguf_close(gguf);
    } else if (gguf != NULL || memchr(err.message, 0, sizeof err.message) == NULL) {
        abort();
    }
    free(copy);
    return 0;
}
