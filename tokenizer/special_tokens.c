/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens with a role: begin and end of sequence, end of turn, and everything that ends a
 * generation. Files name some of them by key; others are known by their text only, the same texts
 * llama.cpp looks for, so that both stop at the same place.
 */
#include <string.h>

#include "base/log.h"
#include "tokenizer/internal.h"

enum { ROLE_TEXTS_MAX = 12 };

enum role {
    ROLE_EOT,
    ROLE_EOM,
    ROLE_FIM_PREFIX,
    ROLE_FIM_SUFFIX,
    ROLE_FIM_MIDDLE,
    ROLE_FIM_PAD,
    ROLE_FIM_REPO,
    ROLE_FIM_FILE,
    ROLES
};

/* By key, else by text: of the texts present the token with the lowest id is taken. */
static const struct {
    const char *keys[2];
    const char *texts[ROLE_TEXTS_MAX];
    bool ends_generation;
} roles[ROLES] = {
    [ROLE_EOT] = {{"tokenizer.ggml.eot_token_id"},
                  {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
                   "<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>",
                   "<end_of_utterance>"},
                  true},
    [ROLE_EOM] = {{"tokenizer.ggml.eom_token_id"}, {"<|eom_id|>"}, true},
    [ROLE_FIM_PREFIX] = {{"tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"},
                         {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>",
                          "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"},
                         false},
    [ROLE_FIM_SUFFIX] = {{"tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"},
                         {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>",
                          "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"},
                         false},
    [ROLE_FIM_MIDDLE] = {{"tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"},
                         {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>",
                          "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"},
                         false},
    [ROLE_FIM_PAD] = {{"tokenizer.ggml.fim_pad_token_id"},
                      {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
                      true},
    [ROLE_FIM_REPO] = {{"tokenizer.ggml.fim_rep_token_id"},
                       {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
                       true},
    [ROLE_FIM_FILE] = {{"tokenizer.ggml.fim_sep_token_id"}, {"<|file_sep|>"}, true},
};

static const char *const eog_texts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
};

/*
 * OpenAI's harmony format shows these to the reader of the stream, so they are not control tokens.
 */
static const char *const visible_texts[] = {"<|channel|>", "<|message|>", "<|start|>",
                                            "<|constrain|>"};

static int32_t find_text(const struct tokenizer *tok, const char *text)
{
    uint32_t index = strtab_find(&tok->texts, text, strlen(text));
    return index == STRTAB_NONE ? -1 : (int32_t)index;
}

/* The id under key, if it is there; *id is left alone otherwise. */
static enum sov_error read_id(const struct tokenizer *tok, const struct gguf *gguf, const char *key,
                              int32_t *id, struct sov_errbuf *err)
{
    uint32_t value;
    enum sov_error rc = gguf_get_u32(gguf, key, &value, err);
    if (rc == SOV_ERR_NOT_FOUND) return SOV_OK;
    if (rc != SOV_OK) return rc;
    if (value >= tok->texts.count)
        return sov_fail(err, SOV_ERR_FORMAT, "key %s is %u, expected a token below %u", key, value,
                        tok->texts.count);
    *id = (int32_t)value;
    return SOV_OK;
}

static enum sov_error load_role(struct tokenizer *tok, const struct gguf *gguf, enum role role,
                                struct sov_errbuf *err)
{
    int32_t id = -1;
    enum sov_error rc = SOV_OK;
    for (size_t i = 0; rc == SOV_OK && i < 2 && roles[role].keys[i] != NULL; i++)
        rc = read_id(tok, gguf, roles[role].keys[i], &id, err);
    if (rc != SOV_OK) return rc;
    if (id == -1) {
        for (size_t i = 0; i < ROLE_TEXTS_MAX && roles[role].texts[i] != NULL; i++) {
            int32_t found = find_text(tok, roles[role].texts[i]);
            if (found != -1 && (id == -1 || found < id)) id = found;
        }
        if (id != -1) tok->attrs[id] |= TOKEN_CONTROL;
    }
    if (id != -1 && roles[role].ends_generation) tok->attrs[id] |= TOKEN_EOG;
    if (role == ROLE_EOT) tok->eot = id;
    if (role == ROLE_EOM) tok->eom = id;
    return SOV_OK;
}

static bool is_eog_text(const struct tokenizer *tok, const char *text, int32_t *id)
{
    *id = find_text(tok, text);
    return *id != -1 && (tok->attrs[*id] & TOKEN_EOG) != 0;
}

/* Two families whose vocabularies have a token that ends generation elsewhere, but not there. */
static void apply_eog_exceptions(struct tokenizer *tok)
{
    int32_t end, other;
    bool harmony = is_eog_text(tok, "<|return|>", &other) || is_eog_text(tok, "<|flush|>", &other);
    bool calls = is_eog_text(tok, "<|call|>", &other) || is_eog_text(tok, "<|calls|>", &other);
    if (harmony && calls && is_eog_text(tok, "<|end|>", &end)) tok->attrs[end] = TOKEN_USER_DEFINED;
    if (is_eog_text(tok, "<|tool_response>", &other) && is_eog_text(tok, "</s>", &end))
        tok->attrs[end] = TOKEN_NORMAL;
}

static bool name_contains(const struct gguf_str *name, const char *lower)
{
    size_t length = strlen(lower);
    for (size_t at = 0; at + length <= name->length; at++) {
        size_t i = 0;
        for (; i < length; i++) {
            char c = name->data[at + i];
            if (c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
            if (c != lower[i]) break;
        }
        if (i == length) return true;
    }
    return false;
}

/* Stripping white space next to special tokens is not in the files; it goes by the model's name. */
static void apply_stripping(struct tokenizer *tok, const struct gguf *gguf)
{
    struct gguf_str name = {"", 0};
    if (gguf_get_str(gguf, "general.name", &name, NULL) != SOV_OK) return;
    int32_t id;
    if (name_contains(&name, "phi-3") || name_contains(&name, "phi3")) {
        for (uint32_t i = 0; i < tok->texts.count; i++) {
            if (tok->attrs[i] & (TOKEN_CONTROL | TOKEN_USER_DEFINED | TOKEN_UNKNOWN))
                tok->attrs[i] |= TOKEN_RSTRIP;
        }
        if ((id = find_text(tok, "</s>")) != -1) tok->attrs[id] |= TOKEN_RSTRIP;
        static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
        for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++) {
            if ((id = find_text(tok, keep[i])) != -1) tok->attrs[id] &= (uint16_t)~TOKEN_RSTRIP;
        }
    } else if (name_contains(&name, "modern-bert")) {
        if ((id = find_text(tok, "[MASK]")) != -1) tok->attrs[id] |= TOKEN_LSTRIP;
    }
}

static int32_t default_id(const struct tokenizer *tok, int32_t id)
{
    return id < (int32_t)tok->texts.count ? id : -1;
}

enum sov_error vocab_load_roles(struct tokenizer *tok, const struct gguf *gguf,
                                struct sov_errbuf *err)
{
    /* What files without the keys mean: LLaMA's ids, and for BPE those of Falcon. */
    tok->bos = default_id(tok, tok->is_bpe ? 11 : 1);
    tok->eos = default_id(tok, tok->is_bpe ? 11 : 2);
    tok->unk = tok->is_bpe ? -1 : 0;
    enum sov_error rc = read_id(tok, gguf, "tokenizer.ggml.bos_token_id", &tok->bos, err);
    if (rc == SOV_OK) rc = read_id(tok, gguf, "tokenizer.ggml.eos_token_id", &tok->eos, err);
    if (rc == SOV_OK) rc = read_id(tok, gguf, "tokenizer.ggml.unknown_token_id", &tok->unk, err);
    for (int role = 0; rc == SOV_OK && role < ROLES; role++)
        rc = load_role(tok, gguf, (enum role)role, err);
    if (rc != SOV_OK) return rc;
    if (tok->add_bos && tok->bos == -1)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "tokenizer.ggml.bos_token_id is missing, and a text is to begin with it");
    if (tok->add_eos && tok->eos == -1)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "tokenizer.ggml.eos_token_id is missing, and a text is to end with it");

    int32_t id;
    for (size_t i = 0; i < sizeof eog_texts / sizeof eog_texts[0]; i++) {
        if ((id = find_text(tok, eog_texts[i])) != -1) tok->attrs[id] |= TOKEN_CONTROL | TOKEN_EOG;
    }
    for (size_t i = 0; i < sizeof visible_texts / sizeof visible_texts[0]; i++) {
        id = find_text(tok, visible_texts[i]);
        if (id != -1) tok->attrs[id] = TOKEN_USER_DEFINED | (tok->attrs[id] & TOKEN_EOG);
    }
    if (tok->eos != -1) tok->attrs[tok->eos] |= TOKEN_EOG;
    apply_eog_exceptions(tok);
    apply_stripping(tok, gguf);
    return SOV_OK;
}
