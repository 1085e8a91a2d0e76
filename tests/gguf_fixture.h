/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files built in memory by tests: any key with any value, right or wrong, in the byte layout
 * of version 3. A file has metadata only. Memory failures end the test program.
 */
#ifndef SOV_TESTS_GGUF_FIXTURE_H
#define SOV_TESTS_GGUF_FIXTURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "gguf/gguf.h"

struct gguf_fixture {
    struct strbuf body;
    uint64_t count;
    void *file; /* what fixture_finish returned */
};

static inline void fixture_bytes(struct gguf_fixture *f, const void *bytes, size_t length)
{
    if (!strbuf_append(&f->body, bytes, length)) abort();
}

static inline void fixture_u32(struct gguf_fixture *f, uint32_t value)
{
    fixture_bytes(f, &value, sizeof value);
}

static inline void fixture_string(struct gguf_fixture *f, const char *text, uint64_t length)
{
    fixture_bytes(f, &length, sizeof length);
    fixture_bytes(f, text, length);
}

static inline void fixture_key(struct gguf_fixture *f, const char *key, uint32_t type)
{
    fixture_string(f, key, strlen(key));
    fixture_u32(f, type);
    f->count++;
}

static inline void fixture_kv_str(struct gguf_fixture *f, const char *key, const char *value)
{
    fixture_key(f, key, GGUF_STRING);
    fixture_string(f, value, strlen(value));
}

static inline void fixture_kv_u32(struct gguf_fixture *f, const char *key, uint32_t value)
{
    fixture_key(f, key, GGUF_U32);
    fixture_u32(f, value);
}

static inline void fixture_kv_f32(struct gguf_fixture *f, const char *key, float value)
{
    fixture_key(f, key, GGUF_F32);
    fixture_bytes(f, &value, sizeof value);
}

static inline void fixture_kv_bool(struct gguf_fixture *f, const char *key, bool value)
{
    unsigned char byte = value;
    fixture_key(f, key, GGUF_BOOL);
    fixture_bytes(f, &byte, 1);
}

/* The head of an array; count elements have to follow, through fixture_string or fixture_bytes. */
static inline void fixture_kv_array(struct gguf_fixture *f, const char *key, uint32_t type,
                                    uint64_t count)
{
    fixture_key(f, key, GGUF_ARRAY);
    fixture_u32(f, type);
    fixture_bytes(f, &count, sizeof count);
}

static inline void fixture_kv_strings(struct gguf_fixture *f, const char *key,
                                      const char *const *texts, size_t count)
{
    fixture_kv_array(f, key, GGUF_STRING, count);
    for (size_t i = 0; i < count; i++) fixture_string(f, texts[i], strlen(texts[i]));
}

static inline void fixture_kv_i32s(struct gguf_fixture *f, const char *key, const int32_t *values,
                                   size_t count)
{
    fixture_kv_array(f, key, GGUF_I32, count);
    fixture_bytes(f, values, count * sizeof *values);
}

static inline void fixture_kv_f32s(struct gguf_fixture *f, const char *key, const float *values,
                                   size_t count)
{
    fixture_kv_array(f, key, GGUF_F32, count);
    fixture_bytes(f, values, count * sizeof *values);
}

/* Copies one key from a file that was read. Only what vocabulary files hold. */
static inline void fixture_kv_copy(struct gguf_fixture *f, const struct gguf_kv *kv)
{
    static const size_t sizes[GGUF_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    fixture_string(f, kv->key.data, kv->key.length);
    fixture_u32(f, kv->type);
    f->count++;
    float single = (float)(kv->type == GGUF_F32 ? kv->value.f : 0);
    const struct gguf_array *array = &kv->value.array;
    switch (kv->type) {
    case GGUF_STRING: fixture_string(f, kv->value.str.data, kv->value.str.length); break;
    case GGUF_F32: fixture_bytes(f, &single, sizeof single); break;
    case GGUF_ARRAY:
        fixture_u32(f, array->type);
        fixture_bytes(f, &array->count, sizeof array->count);
        for (uint64_t i = 0; array->strings != NULL && i < array->count; i++)
            fixture_string(f, array->strings[i].data, array->strings[i].length);
        if (array->strings == NULL)
            fixture_bytes(f, array->data, array->count * sizes[array->type]);
        break;
    default: fixture_bytes(f, &kv->value, sizes[kv->type]); break;
    }
}

/* The whole file, 8-byte aligned; it lives until fixture_free. */
static inline void *fixture_finish(struct gguf_fixture *f, size_t *length)
{
    struct {
        char magic[4];
        uint32_t version;
        uint64_t tensors, count;
    } header = {{'G', 'G', 'U', 'F'}, 3, 0, f->count};
    *length = sizeof header + f->body.length;
    free(f->file);
    f->file = malloc(*length);
    if (f->file == NULL) abort();
    memcpy(f->file, &header, sizeof header);
    if (f->body.length != 0) memcpy((char *)f->file + sizeof header, f->body.data, f->body.length);
    return f->file;
}

static inline struct gguf *fixture_open(struct gguf_fixture *f)
{
    size_t length;
    void *file = fixture_finish(f, &length);
    struct gguf *gguf;
    struct sov_errbuf err;
    if (gguf_open_memory(file, length, &gguf, &err) != SOV_OK) {
        fprintf(stderr, "fixture: %s\n", err.message);
        abort();
    }
    return gguf;
}

static inline void fixture_free(struct gguf_fixture *f)
{
    strbuf_free(&f->body);
    free(f->file);
    *f = (struct gguf_fixture){0};
}

/*
 * A byte-level vocabulary that shows where words end: all 256 bytes are tokens and so are all
 * 65,536 pairs of bytes, in an order of merges that depends on both bytes, so that moving a
 * boundary changes ids.
 */
static inline void fixture_put_revealing_bpe(struct gguf_fixture *f, const char *pre)
{
    char spelled[256][3];
    for (unsigned byte = 0, next = 256; byte < 256; byte++) {
        bool plain = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
        unsigned c = plain ? byte : next++;
        if (c < 0x80)
            snprintf(spelled[byte], 3, "%c", (char)c);
        else
            snprintf(spelled[byte], 3, "%c%c", (char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F)));
    }
    enum { PAIRS = 65536, SPECIALS = 4 };
    static const char *const specials[SPECIALS] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                                   "<|x|>"};
    char text[8];
    fixture_kv_str(f, "general.architecture", "llama");
    fixture_kv_u32(f, "llama.context_length", 128);
    fixture_kv_u32(f, "llama.embedding_length", 64);
    fixture_kv_u32(f, "llama.block_count", 1);
    fixture_kv_u32(f, "llama.feed_forward_length", 64);
    fixture_kv_u32(f, "llama.attention.head_count", 1);
    fixture_kv_f32(f, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    fixture_kv_str(f, "tokenizer.ggml.model", "gpt2");
    if (pre != NULL) fixture_kv_str(f, "tokenizer.ggml.pre", pre);
    fixture_kv_array(f, "tokenizer.ggml.tokens", GGUF_STRING, 256 + PAIRS + SPECIALS);
    for (unsigned i = 0; i < 256; i++) fixture_string(f, spelled[i], strlen(spelled[i]));
    for (unsigned i = 0; i < PAIRS; i++) {
        snprintf(text, sizeof text, "%s%s", spelled[i >> 8], spelled[i & 255]);
        fixture_string(f, text, strlen(text));
    }
    for (unsigned i = 0; i < SPECIALS; i++) fixture_string(f, specials[i], strlen(specials[i]));
    fixture_kv_array(f, "tokenizer.ggml.token_type", GGUF_I32, 256 + PAIRS + SPECIALS);
    for (unsigned i = 0; i < 256 + PAIRS + SPECIALS; i++) fixture_u32(f, i < 256 + PAIRS ? 1 : 3);
    fixture_kv_array(f, "tokenizer.ggml.merges", GGUF_STRING, PAIRS);
    for (unsigned i = 0; i < PAIRS; i++) {
        unsigned pair = i * 40503u & 0xFFFF; /* odd factor: every pair once */
        snprintf(text, sizeof text, "%s %s", spelled[pair >> 8], spelled[pair & 255]);
        fixture_string(f, text, strlen(text));
    }
    fixture_kv_u32(f, "tokenizer.ggml.bos_token_id", 256 + PAIRS);
    fixture_kv_u32(f, "tokenizer.ggml.eos_token_id", 256 + PAIRS);
}

#endif
