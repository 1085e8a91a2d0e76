/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary. Copied, it is all tokenizer.* keys of another file. Built in, it is a byte-level
 * BPE ("gpt2" with the gpt-2 pre-tokenizer) of any size from 259 tokens on: one token for each
 * byte, then what merging makes of a list of common words, then unused tokens up to the size asked
 * for, then the three special tokens of the ChatML format.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "tools/mkmodel/mkmodel.h"

enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_UNUSED = 5 };

static const char *const words[] = {
    " the",  " and",    " of",     " to",    " in",     " is",     " that",   " it",       " for",
    " you",  " was",    " with",   " on",    " are",    " this",   " have",   " from",     " one",
    " what", " all",    " were",   " we",    " when",   " your",   " can",    " said",     " there",
    " use",  " an",     " each",   " which", " she",    " do",     " how",    " their",    " if",
    " will", " up",     " other",  " about", " out",    " many",   " then",   " them",     " these",
    " so",   " some",   " her",    " would", " make",   " like",   " him",    " into",     " time",
    " has",  " look",   " two",    " more",  " write",  " go",     " see",    " number",   " no",
    " way",  " could",  " people", " my",    " than",   " first",  " water",  " been",     " call",
    " who",  " its",    " now",    " find",  " long",   " down",   " day",    " did",      " get",
    " come", " made",   " may",    " part",  " model",  " server", " answer", " question", " token",
    "ing",   "tion",    "ment",    "able",   "ally",    "Hello",   "The",     "This",      "What",
    "How",   " return", " int",    " void",  " struct", " const",  " static", "    ",      "\n\n",
    "==",    "//",      "10",      "20",     "00",      "19",      "...",     "s,",        "ed",
    "er",    "ly",      "st",
};

static const char *const specials[MK_VOCAB_SPECIALS] = {"<|endoftext|>", "<|im_start|>",
                                                        "<|im_end|>"};

static const char chat_template[] =
    "{%- for message in messages %}{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ "
    "'<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}";

enum sov_error mk_vocab_copy(struct gguf_writer *writer, const struct gguf *from, uint64_t *tokens,
                             struct sov_errbuf *err)
{
    static const char prefix[] = "tokenizer.";
    const struct gguf_array *list;
    enum sov_error code = gguf_get_array(from, "tokenizer.ggml.tokens", GGUF_STRING, &list, err);
    if (code != SOV_OK) return code;
    if (list->count == 0)
        return sov_fail(err, SOV_ERR_FORMAT, "key tokenizer.ggml.tokens is empty");
    for (size_t i = 0; i < gguf_kv_count(from); i++) {
        const struct gguf_kv *kv = gguf_kv_at(from, i);
        if (kv->key.length < strlen(prefix) || memcmp(kv->key.data, prefix, strlen(prefix)) != 0)
            continue;
        (void)gguf_writer_kv_copy(writer,
                                  kv); /* an error sticks to the writer, whose close reports it */
    }
    *tokens = list->count;
    return SOV_OK;
}

/* Strings packed one after the other, as offsets into one buffer that may move while it grows. */
struct string_list {
    struct strbuf text;
    size_t *ends;
    uint32_t count, capacity;
};

static bool list_init(struct string_list *list, uint32_t capacity)
{
    *list = (struct string_list){.ends = sov_calloc(capacity, sizeof *list->ends),
                                 .capacity = capacity};
    return list->ends != NULL;
}

static void list_free(struct string_list *list)
{
    strbuf_free(&list->text);
    sov_free(list->ends);
}

static void list_add(struct string_list *list, const char *text, size_t length)
{
    strbuf_append(&list->text, text, length);
    list->ends[list->count++] = list->text.length;
}

static bool list_has(const struct string_list *list, const char *text, size_t length)
{
    size_t begin = 0;
    for (uint32_t i = 0; i < list->count; begin = list->ends[i++]) {
        if (list->ends[i] - begin == length && memcmp(list->text.data + begin, text, length) == 0)
            return true;
    }
    return false;
}

/* The character that stands for a byte in byte-level vocabularies: itself if printable in Latin-1,
 * else from U+0100. */
static size_t byte_character(unsigned byte, char out[4])
{
    uint32_t skipped = 0;
    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte && printable) return utf8_encode(byte, out);
        if (!printable) skipped++;
    }
    return utf8_encode(256 + skipped - 1, out);
}

/* Merges a word from its left end on: "t h", "th e"; stops at `limit` tokens. */
static void add_word(const char *word, struct string_list *tokens, struct string_list *merges,
                     uint32_t limit)
{
    char merged[64], merge[72];
    size_t length = byte_character((unsigned char)word[0], merged);
    for (const char *c = word + 1; *c != '\0' && tokens->count < limit; c++) {
        size_t head = length;
        length += byte_character((unsigned char)*c, merged + head);
        if (list_has(tokens, merged, length)) continue;
        int merge_length = snprintf(merge, sizeof merge, "%.*s %.*s", (int)head, merged,
                                    (int)(length - head), merged + head);
        list_add(merges, merge, (size_t)merge_length);
        list_add(tokens, merged, length);
    }
}

static void write_strings(struct gguf_writer *writer, const char *key,
                          const struct string_list *list, struct gguf_str *strings)
{
    size_t begin = 0;
    for (uint32_t i = 0; i < list->count; begin = list->ends[i++]) {
        strings[i] = (struct gguf_str){list->text.data + begin, list->ends[i] - begin};
    }
    struct gguf_kv kv = {.key = {key, strlen(key)}, .type = GGUF_ARRAY};
    kv.value.array =
        (struct gguf_array){.type = GGUF_STRING, .count = list->count, .strings = strings};
    (void)gguf_writer_kv_copy(writer, &kv); /* an error sticks to the writer */
}

static void fill_lists(uint32_t count, struct string_list *tokens, struct string_list *merges,
                       int32_t *types)
{
    char text[32];
    uint32_t ordinary = count - MK_VOCAB_SPECIALS;
    for (unsigned byte = 0; byte < 256; byte++) list_add(tokens, text, byte_character(byte, text));
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add_word(words[i], tokens, merges, ordinary);
    for (uint32_t i = 0; i < tokens->count; i++) types[i] = TOKEN_NORMAL;
    while (tokens->count < ordinary) {
        types[tokens->count] = TOKEN_UNUSED;
        list_add(tokens, text, (size_t)snprintf(text, sizeof text, "<|unused_%u|>", tokens->count));
    }
    for (int i = 0; i < MK_VOCAB_SPECIALS; i++) {
        types[tokens->count] = TOKEN_CONTROL;
        list_add(tokens, specials[i], strlen(specials[i]));
    }
}

enum sov_error mk_vocab_make(struct gguf_writer *writer, uint32_t count, struct sov_errbuf *err)
{
    struct string_list tokens, merges;
    bool tokens_ok = list_init(&tokens, count), merges_ok = list_init(&merges, count);
    int32_t *types = sov_calloc(count, sizeof *types);
    struct gguf_str *strings = sov_calloc(count, sizeof *strings);
    enum sov_error code = SOV_OK;
    if (tokens_ok && merges_ok && types != NULL && strings != NULL)
        fill_lists(count, &tokens, &merges, types);
    if (tokens.count != count || strbuf_failed(&tokens.text) || strbuf_failed(&merges.text)) {
        code = sov_fail(err, SOV_ERR_NOMEM, "no memory for a vocabulary of %u tokens", count);
    } else {
        static const char types_key[] = "tokenizer.ggml.token_type";
        struct gguf_kv kv = {.key = {types_key, strlen(types_key)}, .type = GGUF_ARRAY};
        kv.value.array = (struct gguf_array){.type = GGUF_I32, .count = count, .data = types};
        gguf_writer_kv_str(writer, "tokenizer.ggml.model", "gpt2");
        gguf_writer_kv_str(writer, "tokenizer.ggml.pre", "gpt-2");
        write_strings(writer, "tokenizer.ggml.tokens", &tokens, strings);
        gguf_writer_kv_copy(writer, &kv);
        write_strings(writer, "tokenizer.ggml.merges", &merges, strings);
        gguf_writer_kv_u32(writer, "tokenizer.ggml.bos_token_id", count - 3);
        gguf_writer_kv_u32(writer, "tokenizer.ggml.eos_token_id", count - 1);
        gguf_writer_kv_bool(writer, "tokenizer.ggml.add_bos_token", false);
        gguf_writer_kv_str(writer, "tokenizer.chat_template", chat_template);
    }
    sov_free(strings);
    sov_free(types);
    list_free(&tokens);
    list_free(&merges);
    return code;
}
