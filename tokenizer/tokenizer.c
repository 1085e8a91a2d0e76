/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "tokenizer/internal.h"

#define KEY_MODEL "tokenizer.ggml.model"

static enum sov_error load(struct tokenizer *tok, const struct gguf *gguf, struct sov_errbuf *err)
{
    struct gguf_str model;
    enum sov_error rc = gguf_get_str(gguf, KEY_MODEL, &model, err);
    if (rc != SOV_OK) return rc == SOV_ERR_NOT_FOUND ? SOV_ERR_FORMAT : rc;
    bool is_spm = model.length == 5 && memcmp(model.data, "llama", 5) == 0;
    tok->is_bpe = model.length == 4 && memcmp(model.data, "gpt2", 4) == 0;
    if (!is_spm && !tok->is_bpe)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "tokenizer model \"%.*s\" (%s) is not supported; supported are llama, gpt2",
                        (int)(model.length < 64 ? model.length : 64), model.data, KEY_MODEL);
    const struct pre_kind *pre = tok->is_bpe ? vocab_pre_kind(gguf, &rc, err) : NULL;
    if (rc == SOV_OK) rc = vocab_load(tok, gguf, pre, err);
    if (rc == SOV_OK) rc = vocab_load_roles(tok, gguf, err);
    if (rc == SOV_OK) rc = tok->is_bpe ? bpe_load(tok, gguf, pre, err) : spm_load(tok, gguf, err);
    if (rc == SOV_OK) rc = special_load(tok, err);
    if (rc == SOV_OK) rc = pieces_load(tok, err);
    return rc;
}

enum sov_error tokenizer_create(const struct gguf *gguf, struct tokenizer **out,
                                struct sov_errbuf *err)
{
    *out = NULL;
    struct tokenizer *tok = sov_calloc(1, sizeof *tok);
    if (tok == NULL) return tokenizer_nomem(err);
    enum sov_error rc = load(tok, gguf, err);
    if (rc != SOV_OK) {
        tokenizer_free(tok);
        return rc;
    }
    *out = tok;
    return SOV_OK;
}

void tokenizer_free(struct tokenizer *tok)
{
    if (tok == NULL) return;
    bpe_free(&tok->bpe);
    spm_free(&tok->spm);
    special_free(&tok->special);
    strbuf_free(&tok->pieces);
    sov_free(tok->piece_offsets);
    sov_free(tok->attrs);
    strtab_free(&tok->texts);
    sov_free(tok);
}

bool token_list_push(struct token_list *list, int32_t id)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity < 64 ? 64 : list->capacity * 2;
        int32_t *ids = sov_realloc(list->ids, capacity, sizeof *ids);
        if (ids == NULL) return false;
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return true;
}

void token_list_free(struct token_list *list)
{
    sov_free(list->ids);
    *list = (struct token_list){0};
}

static void work_free(struct encode_work *work)
{
    merge_work_free(&work->merge);
    sov_free(work->classes);
    strbuf_free(&work->text);
}

static enum sov_error encode_fragments(const struct tokenizer *tok, struct encode_work *work,
                                       const char *text, const struct fragment_list *fragments,
                                       struct token_list *list, struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    bool after_special = true;
    for (size_t i = 0; rc == SOV_OK && i < fragments->count; i++) {
        const struct fragment *f = &fragments->items[i];
        if (f->id != -1) {
            if (!token_list_push(list, f->id)) rc = tokenizer_nomem(err);
        } else if (tok->is_bpe) {
            rc = bpe_encode(tok, work, text + f->start, f->end - f->start, list, err);
        } else {
            rc = spm_encode(tok, work, tok->add_space_prefix && after_special, text + f->start,
                            f->end - f->start, list, err);
        }
        after_special = f->id != -1;
    }
    return rc;
}

enum sov_error tokenizer_encode_guarded(const struct tokenizer *tok, const char *text,
                                        size_t length, unsigned flags,
                                        const struct tokenizer_span *spans, size_t span_count,
                                        struct token_list *list, struct sov_errbuf *err)
{
    if (length > TOKENIZER_INPUT_MAX)
        return sov_fail(err, SOV_ERR_LIMIT,
                        "the text has %zu bytes, at most %d can be tokenized at once", length,
                        TOKENIZER_INPUT_MAX);
    size_t count_before = list->count;
    bool add_special = (flags & TOKENIZER_ADD_SPECIAL) != 0;
    struct encode_work work = {0};
    struct fragment_list fragments = {0};
    enum sov_error rc =
        special_partition(tok, &work, text, length, (flags & TOKENIZER_PARSE_SPECIAL) != 0, spans,
                          span_count, &fragments, err);
    if (rc == SOV_OK && add_special && tok->add_bos && !token_list_push(list, tok->bos))
        rc = tokenizer_nomem(err);
    if (rc == SOV_OK) rc = encode_fragments(tok, &work, text, &fragments, list, err);
    if (rc == SOV_OK && add_special && tok->add_eos && !token_list_push(list, tok->eos))
        rc = tokenizer_nomem(err);
    if (rc != SOV_OK) list->count = count_before;
    sov_free(fragments.items);
    work_free(&work);
    return rc;
}

enum sov_error tokenizer_encode(const struct tokenizer *tok, const char *text, size_t length,
                                unsigned flags, struct token_list *list, struct sov_errbuf *err)
{
    return tokenizer_encode_guarded(tok, text, length, flags, NULL, 0, list, err);
}

int32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    return (int32_t)tok->texts.count;
}

int32_t tokenizer_bos(const struct tokenizer *tok)
{
    return tok->bos;
}

int32_t tokenizer_eos(const struct tokenizer *tok)
{
    return tok->eos;
}

bool tokenizer_adds_bos(const struct tokenizer *tok)
{
    return tok->add_bos;
}

static bool has_attr(const struct tokenizer *tok, int32_t id, uint16_t attr)
{
    return id >= 0 && (uint32_t)id < tok->texts.count && (tok->attrs[id] & attr) != 0;
}

bool tokenizer_is_eog(const struct tokenizer *tok, int32_t id)
{
    return has_attr(tok, id, TOKEN_EOG);
}

bool tokenizer_is_control(const struct tokenizer *tok, int32_t id)
{
    return has_attr(tok, id, TOKEN_CONTROL);
}

int32_t tokenizer_find(const struct tokenizer *tok, const char *text, size_t length)
{
    uint32_t index = strtab_find(&tok->texts, text, length);
    return index == STRTAB_NONE ? -1 : (int32_t)index;
}

const char *tokenizer_description(const struct tokenizer *tok)
{
    return tok->description;
}
