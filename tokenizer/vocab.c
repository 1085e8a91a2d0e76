/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the vocabulary: texts, attributes, flags. Nothing in the file is trusted. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "tokenizer/internal.h"

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES "tokenizer.ggml.token_type"
#define KEY_PRE "tokenizer.ggml.pre"

/*
 * Defaults as llama.cpp has them; names after the first of a kind are what converters wrote for
 * models of that kind.
 */
static const struct pre_kind pre_kinds[] = {
    {"default", PRETOKENIZE_DEFAULT, false, false, true},
    {"gpt-2", PRETOKENIZE_GPT2, false, false, true},
    {"llama-bpe", PRETOKENIZE_LLAMA3, true, true, true},
    {"llama3", PRETOKENIZE_LLAMA3, true, true, true},
    {"llama-v3", PRETOKENIZE_LLAMA3, true, true, true},
    {"falcon3", PRETOKENIZE_LLAMA3, true, true, true},
    {"smaug-bpe", PRETOKENIZE_LLAMA3, false, false, true},
    {"qwen2", PRETOKENIZE_QWEN2, false, false, false},
    {"deepseek-r1-qwen", PRETOKENIZE_QWEN2, false, false, false},
    {"megrez", PRETOKENIZE_QWEN2, false, false, true},
    {"smollm", PRETOKENIZE_DIGITS, false, false, false},
    {"deepseek-llm", PRETOKENIZE_DEEPSEEK_LLM, false, false, false},
    {"deepseek-coder", PRETOKENIZE_DEEPSEEK_CODER, false, false, false},
    {"falcon", PRETOKENIZE_FALCON, false, false, true},
    {"starcoder", PRETOKENIZE_DIGITS, false, false, true},
    {"refact", PRETOKENIZE_DIGITS, false, false, true},
    {"command-r", PRETOKENIZE_DIGITS, false, false, false},
    {"mpt", PRETOKENIZE_GPT2, false, false, true},
};
enum { PRE_KINDS = sizeof pre_kinds / sizeof pre_kinds[0] };

const struct pre_kind *vocab_pre_kind(const struct gguf *gguf, enum sov_error *rc,
                                      struct sov_errbuf *err)
{
    struct gguf_str name = {"", 0};
    *rc = gguf_get_str(gguf, KEY_PRE, &name, err);
    if (*rc != SOV_OK && *rc != SOV_ERR_NOT_FOUND) return NULL;
    *rc = SOV_OK;
    if (name.length == 0) {
        log_warn("the file has no %s: using \"default\", which may not be what the model was "
                 "trained with",
                 KEY_PRE);
        return &pre_kinds[0];
    }
    char supported[SOV_ERROR_MESSAGE_MAX] = "";
    for (size_t i = 0; i < PRE_KINDS; i++) {
        size_t used = strlen(supported);
        snprintf(supported + used, sizeof supported - used, "%s%s", i == 0 ? "" : ", ",
                 pre_kinds[i].name);
        if (strlen(pre_kinds[i].name) == name.length &&
            memcmp(pre_kinds[i].name, name.data, name.length) == 0)
            return &pre_kinds[i];
    }
    *rc = sov_fail(err, SOV_ERR_UNSUPPORTED,
                   "pre-tokenizer \"%.*s\" (%s) is not supported; supported are %s",
                   (int)(name.length < 64 ? name.length : 64), name.data, KEY_PRE, supported);
    return NULL;
}

/* An optional key: absent leaves the default. */
static enum sov_error optional(enum sov_error rc)
{
    return rc == SOV_ERR_NOT_FOUND ? SOV_OK : rc;
}

static enum sov_error load_texts(struct tokenizer *tok, const struct gguf *gguf,
                                 struct sov_errbuf *err)
{
    const struct gguf_array *array;
    enum sov_error rc = gguf_get_array(gguf, KEY_TOKENS, GGUF_STRING, &array, err);
    if (rc != SOV_OK) return rc == SOV_ERR_NOT_FOUND ? SOV_ERR_FORMAT : rc;
    if (array->count == 0 || array->count > TOKENIZER_VOCAB_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "%s has %llu tokens, expected 1 to %d", KEY_TOKENS,
                        (unsigned long long)array->count, TOKENIZER_VOCAB_MAX);
    for (uint32_t i = 0; i < array->count; i++) {
        const char *text = array->strings[i].data;
        size_t length = array->strings[i].length;
        char placeholder[24];
        if (length == 0) {
            length = (size_t)snprintf(placeholder, sizeof placeholder, "[EMPTY_%u]", i);
            text = placeholder;
        }
        uint32_t index;
        bool added;
        if (!strtab_intern(&tok->texts, text, length, &index, &added)) return tokenizer_nomem(err);
        if (!added)
            return sov_fail(err, SOV_ERR_FORMAT, "%s: token %u has the same text as token %u",
                            KEY_TOKENS, i, index);
    }
    return SOV_OK;
}

static enum sov_error load_types(struct tokenizer *tok, const struct gguf *gguf,
                                 struct sov_errbuf *err)
{
    uint32_t count = tok->texts.count;
    tok->attrs = sov_alloc(count, sizeof *tok->attrs);
    if (tok->attrs == NULL) return tokenizer_nomem(err);
    for (uint32_t i = 0; i < count; i++) tok->attrs[i] = TOKEN_NORMAL;
    const struct gguf_array *array;
    enum sov_error rc = gguf_get_array(gguf, KEY_TYPES, GGUF_I32, &array, err);
    if (rc != SOV_OK) return optional(rc);
    if (array->count != count)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "%s has %llu entries, expected %u, one per token of %s", KEY_TYPES,
                        (unsigned long long)array->count, count, KEY_TOKENS);
    static const uint16_t attr_of_type[] = {
        0,         TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED,
        TOKEN_BYTE};
    for (uint32_t i = 0; i < count; i++) {
        int32_t type;
        memcpy(&type, (const char *)array->data + (size_t)i * sizeof type, sizeof type);
        bool known = type >= 0 && (size_t)type < sizeof attr_of_type / sizeof attr_of_type[0];
        tok->attrs[i] = known ? attr_of_type[type] : 0;
    }
    return SOV_OK;
}

enum sov_error vocab_load(struct tokenizer *tok, const struct gguf *gguf,
                          const struct pre_kind *pre, struct sov_errbuf *err)
{
    tok->add_bos = !tok->is_bpe || pre->add_bos;
    tok->add_space_prefix = !tok->is_bpe;
    tok->clean_spaces = tok->is_bpe && pre->clean_spaces;
    snprintf(tok->description, sizeof tok->description, tok->is_bpe ? "bpe/%s" : "spm",
             tok->is_bpe ? pre->name : "");
    enum sov_error rc = load_texts(tok, gguf, err);
    if (rc == SOV_OK) rc = load_types(tok, gguf, err);
    if (rc == SOV_OK)
        rc = optional(
            gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &tok->add_space_prefix, err));
    if (rc == SOV_OK)
        rc = optional(gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &tok->add_bos, err));
    if (rc == SOV_OK)
        rc = optional(gguf_get_bool(gguf, "tokenizer.ggml.add_eos_token", &tok->add_eos, err));
    return rc;
}
