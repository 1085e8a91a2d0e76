/* SPDX-License-Identifier: Apache-2.0 */
/* Small vocabularies for tokenizer tests, and checks of ids. Include after cmocka.h. */
#ifndef SOV_TESTS_TOKENIZER_FIXTURE_H
#define SOV_TESTS_TOKENIZER_FIXTURE_H

#include "tests/gguf_fixture.h"
#include "tokenizer/tokenizer.h"

enum token_type { T_NORMAL = 1, T_UNKNOWN, T_CONTROL, T_USER, T_UNUSED, T_BYTE };

struct fixture_token {
    const char *text;
    enum token_type type;
    float score;
};

static inline void fixture_put_tokens(struct gguf_fixture *f, const struct fixture_token *tokens,
                                      size_t count, bool scores)
{
    fixture_kv_array(f, "tokenizer.ggml.tokens", GGUF_STRING, count);
    for (size_t i = 0; i < count; i++) fixture_string(f, tokens[i].text, strlen(tokens[i].text));
    fixture_kv_array(f, "tokenizer.ggml.token_type", GGUF_I32, count);
    for (size_t i = 0; i < count; i++) fixture_u32(f, (uint32_t)tokens[i].type);
    if (!scores) return;
    fixture_kv_array(f, "tokenizer.ggml.scores", GGUF_F32, count);
    for (size_t i = 0; i < count; i++) fixture_bytes(f, &tokens[i].score, sizeof(float));
}

/* Ids of bpe_tokens by name. "Ġ" spells a space, "Ċ" a line break. */
enum {
    B_BOS,
    B_EOS,
    B_H,
    B_E,
    B_L,
    B_O,
    B_SPACE,
    B_NEWLINE,
    B_HE,
    B_LL,
    B_HELL,
    B_HELLO,
    B_SPACE_H,
    B_SPACE_HELLO,
    B_USER,
    B_TAG,
    B_LONG_TAG,
    B_QUOTE,
    B_STRAY,
    B_LO,
    B_COUNT
};
static const struct fixture_token bpe_tokens[B_COUNT] = {
    {"<|bos|>", T_CONTROL, 0},    {"<|endoftext|>", T_CONTROL, 0},
    {"h", T_NORMAL, 0},           {"e", T_NORMAL, 0},
    {"l", T_NORMAL, 0},           {"o", T_NORMAL, 0},
    {"Ġ", T_NORMAL, 0},           {"Ċ", T_NORMAL, 0},
    {"he", T_NORMAL, 0},          {"ll", T_NORMAL, 0},
    {"hell", T_NORMAL, 0},        {"hello", T_NORMAL, 0},
    {"Ġh", T_NORMAL, 0},          {"Ġhello", T_NORMAL, 0},
    {"[user]", T_USER, 0},        {"<|x|>", T_CONTROL, 0},
    {"<|x|><|y|>", T_CONTROL, 0}, {"'", T_NORMAL, 0},
    {"\xC4", T_NORMAL, 0},        {"lo", T_NORMAL, 0},
};
static const char *const bpe_merges[] = {"l l",     "h e",  "he ll", "hell o", "Ġ h",
                                         "Ġ hello", "Ġh e", "z z",   "h e"};

static inline void fixture_put_bpe(struct gguf_fixture *f, const char *pre)
{
    fixture_kv_str(f, "tokenizer.ggml.model", "gpt2");
    if (pre != NULL) fixture_kv_str(f, "tokenizer.ggml.pre", pre);
    fixture_put_tokens(f, bpe_tokens, B_COUNT, false);
    fixture_kv_strings(f, "tokenizer.ggml.merges", bpe_merges,
                       sizeof bpe_merges / sizeof bpe_merges[0]);
    fixture_kv_u32(f, "tokenizer.ggml.bos_token_id", B_BOS);
    fixture_kv_u32(f, "tokenizer.ggml.eos_token_id", B_EOS);
}

/* Ids of spm_tokens by name; S_SPACE is U+2581. */
enum {
    S_UNK,
    S_BOS,
    S_EOS,
    S_SPACE,
    S_A,
    S_B,
    S_C,
    S_AB,
    S_BC,
    S_SPACE_A,
    S_SPACE_AB,
    S_USER,
    S_AA,
    S_BYTE_FIRST, /* <0x00> to <0xFF> follow */
    S_COUNT = S_BYTE_FIRST + 256
};
static const struct fixture_token spm_tokens[S_BYTE_FIRST] = {
    {"<unk>", T_UNKNOWN, 0}, {"<s>", T_CONTROL, 0}, {"</s>", T_CONTROL, 0}, {"▁", T_NORMAL, -9},
    {"a", T_NORMAL, -8},     {"b", T_NORMAL, -7},   {"c", T_NORMAL, -6},    {"ab", T_NORMAL, -2},
    {"bc", T_NORMAL, -1},    {"▁a", T_NORMAL, -3},  {"▁ab", T_NORMAL, -4},  {"<user>", T_USER, 0},
    {"aa", T_NORMAL, -5},
};

/* extra: one more token at the end, or NULL. */
static inline void fixture_put_spm(struct gguf_fixture *f, bool bytes, const char *extra)
{
    struct fixture_token tokens[S_COUNT + 1];
    char names[256][8];
    size_t count = S_BYTE_FIRST;
    memcpy(tokens, spm_tokens, sizeof spm_tokens);
    for (unsigned i = 0; bytes && i < 256; i++) {
        snprintf(names[i], sizeof names[i], "<0x%02X>", i);
        tokens[count++] = (struct fixture_token){names[i], T_BYTE, 0};
    }
    if (extra != NULL) tokens[count++] = (struct fixture_token){extra, T_NORMAL, -1};
    fixture_kv_str(f, "tokenizer.ggml.model", "llama");
    fixture_put_tokens(f, tokens, count, true);
    fixture_kv_u32(f, "tokenizer.ggml.bos_token_id", S_BOS);
    fixture_kv_u32(f, "tokenizer.ggml.eos_token_id", S_EOS);
}

/* The tokenizer of a fixture, which is freed. */
static inline struct tokenizer *fixture_tokenizer(struct gguf_fixture *f)
{
    struct gguf *gguf = fixture_open(f);
    struct tokenizer *tok;
    struct sov_errbuf err = {""};
    if (tokenizer_create(gguf, &tok, &err) != SOV_OK) fail_msg("%s", err.message);
    gguf_close(gguf);
    fixture_free(f);
    return tok;
}

static inline void check_encode_bytes(const struct tokenizer *tok, const char *text, size_t length,
                                      unsigned flags, const int32_t *ids, size_t count)
{
    struct token_list list = {0};
    struct sov_errbuf err = {""};
    if (tokenizer_encode(tok, text, length, flags, &list, &err) != SOV_OK)
        fail_msg("\"%s\": %s", text, err.message);
    for (size_t i = 0; i < list.count && i < count; i++) {
        if (list.ids[i] != ids[i])
            fail_msg("\"%s\": id %zu is %d, expected %d", text, i, list.ids[i], ids[i]);
    }
    if (list.count != count) fail_msg("\"%s\": %zu ids, expected %zu", text, list.count, count);
    token_list_free(&list);
}

#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4
#define check_encode(tok, text, flags, ...) \
    check_encode_bytes(tok, text, sizeof(text) - 1, flags, IDS(__VA_ARGS__))

#endif
