/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing the tokenizer. The first byte of an input says what the rest is:
 *
 *   0 to 5   text for one of the vocabularies below: encoded with all combinations of flags, guarded
 *            in the middle, decoded whole and as a stream;
 *   6        a template's text, then conversations made of the input, rendered and encoded;
 *   others   a GGUF file that holds a vocabulary: loaded, and if it loads, used.
 *
 * Beyond what the sanitizers see, it must hold that ids are in range, that streams are valid UTF-8,
 * and that decoding byte-level ids gives back what was read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "tests/gguf_fixture.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode_class.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARIES = 6, KIND_CHAT = VOCABULARIES, INPUT_MAX = 4096 };

static const char *const pres[VOCABULARIES] = {"qwen2",        "llama-bpe",      "smollm",
                                               "deepseek-llm", "deepseek-coder", NULL};
static struct tokenizer *toks[VOCABULARIES];

static void require(bool condition)
{
    if (!condition) abort();
}

/*
 * A small SentencePiece-style vocabulary with merges, byte tokens, and a token with a space inside.
 */
static void put_spm(struct gguf_fixture *f)
{
    static const char *const words[] = {"<unk>", "<s>", "</s>", "▁",  "a",    "b",  "ab",
                                        "▁a",    "▁ab", "b▁",   "中", "中中", "aa", "<user>"};
    enum { WORDS = sizeof words / sizeof words[0] };
    char name[8];
    fixture_kv_str(f, "tokenizer.ggml.model", "llama");
    fixture_kv_array(f, "tokenizer.ggml.tokens", GGUF_STRING, WORDS + 256);
    for (size_t i = 0; i < WORDS; i++) fixture_string(f, words[i], strlen(words[i]));
    for (unsigned i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", i);
        fixture_string(f, name, strlen(name));
    }
    fixture_kv_array(f, "tokenizer.ggml.token_type", GGUF_I32, WORDS + 256);
    for (size_t i = 0; i < WORDS + 256; i++)
        fixture_u32(f, i >= WORDS ? 6 : i == 0 ? 2 : i < 3 ? 3 : i == WORDS - 1 ? 4 : 1);
}

static struct tokenizer *vocabulary(size_t which)
{
    if (toks[which] != NULL) return toks[which];
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    struct gguf_fixture f = {0};
    if (pres[which] != NULL)
        fixture_put_revealing_bpe(&f, pres[which]);
    else
        put_spm(&f);
    struct gguf *gguf = fixture_open(&f);
    require(tokenizer_create(gguf, &toks[which], NULL) == SOV_OK);
    gguf_close(gguf);
    fixture_free(&f);
    return toks[which];
}

static void check_stream(const struct tokenizer *tok, const struct token_list *list)
{
    struct detokenizer d;
    struct strbuf out = {0};
    detokenizer_init(&d, tok, true);
    for (size_t i = 0; i < list->count; i++) require(detokenizer_push(&d, list->ids[i], &out));
    require(detokenizer_flush(&d, &out));
    require(utf8_valid(strbuf_text(&out), out.length));
    strbuf_free(&out);
}

/* Byte-level ids decode to the text as it was read. */
static void check_round_trip(const struct tokenizer *tok, const struct token_list *list,
                             const uint8_t *text, size_t length)
{
    struct strbuf normal = {0}, back = {0};
    for (size_t i = 0; i < length;) {
        uint32_t c;
        unsigned char bytes[4];
        i += unicode_decode_lenient(text + i, length - i, &c);
        strbuf_append(&normal, bytes, unicode_encode_lenient(c, bytes));
    }
    require(tokenizer_decode(tok, list->ids, list->count, true, &back, NULL) == SOV_OK);
    require(back.length == normal.length);
    require(memcmp(strbuf_text(&back), strbuf_text(&normal), back.length) == 0);
    strbuf_free(&normal);
    strbuf_free(&back);
}

static void use(const struct tokenizer *tok, const uint8_t *text, size_t length, bool round_trip)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct token_list list = {0};
        struct tokenizer_span middle = {length / 3, length - length / 3};
        const char *bytes = length == 0 ? "" : (const char *)text;
        require(tokenizer_encode(tok, bytes, length, flags, &list, NULL) == SOV_OK);
        for (size_t i = 0; i < list.count; i++)
            require(list.ids[i] >= 0 && list.ids[i] < tokenizer_vocab_size(tok));
        check_stream(tok, &list);
        if (round_trip && (flags & TOKENIZER_ADD_SPECIAL) == 0)
            check_round_trip(tok, &list, text, length);
        require(tokenizer_encode_guarded(tok, bytes, length, flags, &middle, 1, &list, NULL) ==
                SOV_OK);
        struct strbuf out = {0};
        require(tokenizer_decode(tok, list.ids, list.count, flags & 1, &out, NULL) == SOV_OK);
        strbuf_free(&out);
        token_list_free(&list);
    }
}

static void chat(const uint8_t *data, size_t size)
{
    static const char *const roles[] = {"user", "assistant", "system", "tool"};
    bool known;
    chat_template_detect_text((const char *)data, size, &known);
    struct chat_message messages[8];
    size_t count = 0;
    for (size_t at = 0; at < size && count < 8; count++) {
        size_t length = data[at] % 32, role = data[at] / 32 % 8;
        at++;
        if (length > size - at) length = size - at;
        messages[count].role = roles[role < 4 ? role : count % 2];
        messages[count].content = (const char *)data + at;
        messages[count].content_length = length;
        at += length;
    }
    for (int t = 0; t < CHAT_TEMPLATES; t++) {
        struct strbuf text = {0};
        struct token_list list = {0};
        struct sov_errbuf err;
        enum sov_error rc =
            chat_template_render((enum chat_template)t, messages, count, size & 1, &text, &err);
        require(rc == SOV_OK || rc == SOV_ERR_INVALID);
        require(chat_template_encode((enum chat_template)t, vocabulary(0), messages, count,
                                     size & 1, &list, &err) == rc);
        strbuf_free(&text);
        token_list_free(&list);
    }
}

/* The bytes are copied: GGUF in memory has to be aligned. */
static void load(const uint8_t *data, size_t size)
{
    uint64_t *copy = malloc(size + 8);
    require(copy != NULL);
    memcpy(copy, data, size);
    struct gguf *gguf;
    struct tokenizer *tok;
    struct sov_errbuf err;
    bool known;
    if (gguf_open_memory(copy, size, &gguf, &err) == SOV_OK) {
        chat_template_detect(gguf, &known);
        if (tokenizer_create(gguf, &tok, &err) == SOV_OK) {
            static const uint8_t text[] = "hello <s>a\xFF ab<|im_end|>\n 12";
            use(tok, text, sizeof text - 1, false);
            tokenizer_free(tok);
        }
        gguf_close(gguf);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_MAX) return 0;
    uint8_t kind = data[0];
    data++;
    size--;
    if (kind < VOCABULARIES)
        use(vocabulary(kind), data, size, pres[kind] != NULL && kind != 1);
    else if (kind == KIND_CHAT)
        chat(data, size);
    else
        load(data, size);
    return 0;
}
