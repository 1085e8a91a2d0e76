/* SPDX-License-Identifier: Apache-2.0 */
#include "tokenizer/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "tokenizer/unicode_class.h"

/*
 * Class bytes of characters beyond ASCII: 0x80 | Unicode class << 3 | membership in the sets below.
 * In patterns, \p{L}, \p{N} and \p{P} stand for the bytes of a Unicode class (with its ASCII
 * members), \p{latin}, \p{wide} and \p{cjk} for those of a set (without).
 */
enum { CLASS_HIGH = 0x80, CLASS_SHIFT = 3, CLASS_SPACE = '\v' };
enum { SET_LATIN = 1, SET_WIDE = 2, SET_CJK = 4 };

/* Sets are lists: first, last, first, last, ..., 0, 0; ascending. */

/* DeepSeek LLM's letters: cased scripts, from its tokenizer.json. */
static const uint32_t latin_ranges[] = {
    0xB5,    0xB5,    0xC0,    0xD6,    0xD8,    0xF6,    0xF8,    0x1BA,   0x1BC,   0x1BF,
    0x1C4,   0x293,   0x295,   0x2AF,   0x370,   0x373,   0x376,   0x377,   0x37B,   0x37D,
    0x37F,   0x37F,   0x386,   0x386,   0x388,   0x38A,   0x38C,   0x38C,   0x38E,   0x3A1,
    0x3A3,   0x3F5,   0x3F7,   0x481,   0x48A,   0x52F,   0x531,   0x556,   0x10A0,  0x10C5,
    0x13A0,  0x13F5,  0x13F8,  0x13FD,  0x1C90,  0x1CBA,  0x1CBD,  0x1CBF,  0x1D00,  0x1D2B,
    0x1D6B,  0x1D77,  0x1D79,  0x1D9A,  0x1E00,  0x1F15,  0x1F18,  0x1F1D,  0x1F20,  0x1F45,
    0x1F48,  0x1F4D,  0x1F50,  0x1F57,  0x1F59,  0x1F59,  0x1F5B,  0x1F5B,  0x1F5D,  0x1F5D,
    0x1F5F,  0x1F7D,  0x1F80,  0x1FB4,  0x1FB6,  0x1FBC,  0x1FBE,  0x1FBE,  0x1FC2,  0x1FC4,
    0x1FC6,  0x1FCC,  0x1FD0,  0x1FD3,  0x1FD6,  0x1FDB,  0x1FE0,  0x1FEC,  0x1FF2,  0x1FF4,
    0x1FF6,  0x1FFC,  0x2102,  0x2102,  0x2107,  0x2107,  0x210A,  0x2113,  0x2115,  0x2115,
    0x2119,  0x211D,  0x2124,  0x2124,  0x2126,  0x2126,  0x2128,  0x2128,  0x212A,  0x212D,
    0x212F,  0x2134,  0x2139,  0x2139,  0x213C,  0x213F,  0x2145,  0x2149,  0x214E,  0x214E,
    0x2183,  0x2184,  0x2C00,  0x2C7B,  0x2C7E,  0x2CE4,  0x2CEB,  0x2CEE,  0x2CF2,  0x2CF3,
    0xA640,  0xA66D,  0xA680,  0xA69B,  0xA722,  0xA76F,  0xA771,  0xA787,  0xA78B,  0xA78E,
    0xAB70,  0xABBF,  0xFB00,  0xFB06,  0xFB13,  0xFB17,  0xFF21,  0xFF3A,  0xFF41,  0xFF5A,
    0x10400, 0x1044F, 0x104B0, 0x104D3, 0x104D8, 0x104FB, 0x10C80, 0x10CB2, 0x10CC0, 0x10CF2,
    0x118A0, 0x118DF, 0x1E900, 0x1E943, 0,       0};
/* DeepSeek LLM's punctuation beyond ASCII: full-width forms, quotation marks, CJK stops. */
static const uint32_t wide_ranges[] = {0x2018, 0x201F, 0x3000, 0x3002, 0xFF01,
                                       0xFF0F, 0xFF1A, 0xFF5E, 0,      0};
/* DeepSeek's "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]". */
static const uint32_t cjk_ranges[] = {0x800, 0x9FA5, 0xAC00, 0xD7FF, 0, 0};
enum { SETS = 3 };
static const uint32_t *const set_ranges[SETS] = {latin_ranges, wide_ranges, cjk_ranges};

/*
 * The patterns, as the models' tokenizer.json files have them but for these changes, none of which
 * changes a match:
 *  - (?i:'s|...) is spelled out, because it means ASCII here;
 *  - \s*[\r\n]+ is written as a possessive run of lines, so that a long stretch of spaces is not
 *    walked back;
 *  - \s+$ may only start where white space starts, so that such a stretch is not tried from each of
 *    its characters.
 * Each pattern cuts the pieces that the one before it left; what lies between matches is a piece as
 * well.
 */
#define CONTRACTIONS "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define BLANK_LINES "(?:[^\\S\\r\\n]*+[\\r\\n]++)++"
#define LLAMA3(numbers)                                    \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" BLANK_LINES "|\\s+(?!\\S)|\\s+"
#define GPT2 "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define NEWLINE "[\\r\\n]"
#define TRAILING_SPACE "(?<!\\s)\\s+$"

enum { PATTERNS_MAX = 6 };

static const char *const kind_patterns[PRETOKENIZE_KINDS][PATTERNS_MAX] = {
    [PRETOKENIZE_DEFAULT] = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
    [PRETOKENIZE_GPT2] = {GPT2},
    [PRETOKENIZE_LLAMA3] = {LLAMA3("\\p{N}{1,3}")},
    [PRETOKENIZE_QWEN2] = {LLAMA3("\\p{N}")},
    [PRETOKENIZE_DIGITS] = {"\\p{N}", GPT2},
    [PRETOKENIZE_FALCON] = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"},
    [PRETOKENIZE_DEEPSEEK_LLM] = {NEWLINE, "\\s?[A-Za-z\\p{latin}]+", "\\s?[!-/:-~\\p{wide}]+",
                                  TRAILING_SPACE, "[\\p{cjk}]+", "\\p{N}+"},
    [PRETOKENIZE_DEEPSEEK_CODER] = {NEWLINE, "\\s?\\p{L}+", "\\s?\\p{P}+", "[\\p{cjk}]+", "\\p{N}"},
};

/*
 * PCRE2 counts the steps of one match, which for these patterns are at most a few per character of
 * the longest text: reaching the limit means a mistake in a pattern, and ends the call instead of
 * hanging it.
 */
enum { MATCH_LIMIT = 1 << 28, DEPTH_LIMIT = 1 << 10 };

struct pretokenizer {
    pcre2_general_context *general;
    pcre2_match_context *match;
    pcre2_code *codes[PATTERNS_MAX];
    size_t code_count;
    unsigned char bmp[UNICODE_BMP_END]; /* class bytes of the first plane */
};

static void *pcre_alloc(size_t bytes, void *ignored)
{
    (void)ignored;
    return sov_alloc(bytes, 1);
}

static void pcre_free(void *ptr, void *ignored)
{
    (void)ignored;
    sov_free(ptr);
}

static bool in_ranges(const uint32_t *ranges, uint32_t c)
{
    for (; ranges[1] != 0 && ranges[0] <= c; ranges += 2) {
        if (c <= ranges[1]) return true;
    }
    return false;
}

static unsigned char class_byte(uint32_t c)
{
    if (c < CLASS_HIGH) return (unsigned char)c;
    if (unicode_is_space(c)) return CLASS_SPACE;
    unsigned byte = CLASS_HIGH | (unsigned)unicode_class_of(c) << CLASS_SHIFT;
    for (unsigned set = 0; set < SETS; set++) {
        if (in_ranges(set_ranges[set], c)) byte |= 1u << set;
    }
    return (unsigned char)byte;
}

unsigned char pretokenizer_class(const struct pretokenizer *p, uint32_t c)
{
    return c < UNICODE_BMP_END ? p->bmp[c] : class_byte(c);
}

/* class_byte of every code point of the first plane, run by run. */
static void fill_bmp(unsigned char *bmp)
{
    for (size_t i = 0; i < unicode_class_start_count; i++) {
        uint32_t first = unicode_class_starts[i] >> 3;
        uint32_t end =
            i + 1 < unicode_class_start_count ? unicode_class_starts[i + 1] >> 3 : UNICODE_END;
        if (first >= UNICODE_BMP_END) break;
        if (end > UNICODE_BMP_END) end = UNICODE_BMP_END;
        memset(bmp + first, (int)(CLASS_HIGH | (unicode_class_starts[i] & 7) << CLASS_SHIFT),
               end - first);
    }
    for (unsigned set = 0; set < SETS; set++) {
        for (const uint32_t *r = set_ranges[set]; r[1] != 0 && r[1] < UNICODE_BMP_END; r += 2) {
            for (uint32_t c = r[0]; c <= r[1]; c++) bmp[c] |= (unsigned char)(1u << set);
        }
    }
    for (uint32_t c = CLASS_HIGH; c <= UNICODE_LAST_SPACE; c++) {
        if (unicode_is_space(c)) bmp[c] = CLASS_SPACE;
    }
    for (uint32_t c = 0; c < CLASS_HIGH; c++) bmp[c] = (unsigned char)c;
}

struct property {
    const char *name;
    const char *ascii;
    unsigned char mask, value; /* of class bytes from CLASS_HIGH */
};

enum { CLASS_MASK = 7 << CLASS_SHIFT };
static const struct property properties[] = {
    {"\\p{L}", "A-Za-z", CLASS_MASK, UNICODE_LETTER << CLASS_SHIFT},
    {"\\p{N}", "0-9", CLASS_MASK, UNICODE_NUMBER << CLASS_SHIFT},
    {"\\p{P}", "!-#%-*,-/:;?@\\[-\\]_{}", CLASS_MASK, UNICODE_PUNCTUATION << CLASS_SHIFT},
    {"\\p{latin}", "", SET_LATIN, SET_LATIN},
    {"\\p{wide}", "", SET_WIDE, SET_WIDE},
    {"\\p{cjk}", "", SET_CJK, SET_CJK},
};

static void put_property(struct strbuf *out, const struct property *property, bool inside_brackets)
{
    if (!inside_brackets) strbuf_putc(out, '[');
    strbuf_puts(out, property->ascii);
    for (unsigned byte = CLASS_HIGH; byte <= 0xFF; byte++) {
        if ((byte & property->mask) == property->value) strbuf_printf(out, "\\x%02x", byte);
    }
    if (!inside_brackets) strbuf_putc(out, ']');
}

/* Writes pattern with each \p{...} replaced by its bytes. */
static void expand_pattern(const char *pattern, struct strbuf *out)
{
    bool inside = false;
    for (const char *at = pattern; *at != '\0';) {
        const struct property *found = NULL;
        for (size_t i = 0; i < sizeof properties / sizeof properties[0] && found == NULL; i++) {
            if (strncmp(at, properties[i].name, strlen(properties[i].name)) == 0)
                found = &properties[i];
        }
        if (found != NULL) {
            put_property(out, found, inside);
            at += strlen(found->name);
            continue;
        }
        size_t length = *at == '\\' ? 2 : 1;
        if (*at == '[') inside = true;
        if (*at == ']') inside = false;
        strbuf_append(out, at, length);
        at += length;
    }
}

static enum sov_error compile_pattern(struct pretokenizer *p, const char *pattern, bool jit,
                                      struct sov_errbuf *err)
{
    struct strbuf expanded = {0};
    expand_pattern(pattern, &expanded);
    if (strbuf_failed(&expanded)) {
        strbuf_free(&expanded);
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for a pre-tokenizer pattern");
    }
    enum sov_error rc = SOV_OK;
    pcre2_compile_context *context = pcre2_compile_context_create(p->general);
    int code = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE offset = 0;
    pcre2_code *compiled = NULL;
    if (context != NULL) {
        compiled = pcre2_compile((PCRE2_SPTR)expanded.data, expanded.length, PCRE2_DOLLAR_ENDONLY,
                                 &code, &offset, context);
    }
    if (compiled == NULL && (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)) {
        rc = sov_fail(err, SOV_ERR_NOMEM, "out of memory for a pre-tokenizer pattern");
    } else if (compiled == NULL) {
        rc = sov_fail(err, SOV_ERR_INTERNAL,
                      "pre-tokenizer pattern \"%s\": PCRE2 error %d at offset %zu", pattern, code,
                      (size_t)offset);
    } else {
        p->codes[p->code_count++] = compiled;
        int refused = jit ? pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) : 0;
        if (refused != 0)
            log_debug("pre-tokenizer: PCRE2 interprets (no just-in-time compilation: %d)", refused);
    }
    pcre2_compile_context_free(context);
    strbuf_free(&expanded);
    return rc;
}

enum sov_error pretokenizer_create(enum pretokenize_kind kind, bool jit, struct pretokenizer **out,
                                   struct sov_errbuf *err)
{
    *out = NULL;
    struct pretokenizer *p = sov_calloc(1, sizeof *p);
    if (p == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the pre-tokenizer");
    fill_bmp(p->bmp);
    enum sov_error rc = SOV_OK;
    p->general = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (p->general != NULL) p->match = pcre2_match_context_create(p->general);
    if (p->match == NULL) {
        rc = sov_fail(err, SOV_ERR_NOMEM, "out of memory for the pre-tokenizer");
    } else {
        pcre2_set_match_limit(p->match, MATCH_LIMIT);
        pcre2_set_depth_limit(p->match, DEPTH_LIMIT);
    }
    for (size_t i = 0; rc == SOV_OK && i < PATTERNS_MAX && kind_patterns[kind][i] != NULL; i++)
        rc = compile_pattern(p, kind_patterns[kind][i], jit, err);
    if (rc != SOV_OK) {
        pretokenizer_free(p);
        return rc;
    }
    *out = p;
    return SOV_OK;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (p == NULL) return;
    for (size_t i = 0; i < p->code_count; i++) pcre2_code_free(p->codes[i]);
    pcre2_match_context_free(p->match);
    pcre2_general_context_free(p->general);
    sov_free(p);
}

struct split {
    const struct pretokenizer *p;
    pcre2_match_data *data;
    pretokenize_word *word;
    void *context;
    struct sov_errbuf *err;
};

/*
 * The next match in classes[from..count). JIT code that runs out of its small stack is given up for
 * the interpreter. *start is count when there is none.
 */
static enum sov_error next_match(const struct split *s, const pcre2_code *code,
                                 const unsigned char *classes, size_t from, size_t count,
                                 size_t *start, size_t *end)
{
    int rc = pcre2_match(code, classes, count, from, 0, s->data, s->p->match);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, classes, count, from, PCRE2_NO_JIT, s->data, s->p->match);
    *start = *end = count;
    if (rc == PCRE2_ERROR_NOMATCH) return SOV_OK;
    if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT)
        return sov_fail(s->err, SOV_ERR_NOMEM, "out of memory while cutting the text into words");
    if (rc < 0)
        return sov_fail(s->err, SOV_ERR_INTERNAL,
                        "cutting the text into words failed at character %zu: PCRE2 error %d", from,
                        rc);
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(s->data);
    *start = offsets[0];
    *end = offsets[1];
    return SOV_OK;
}

/*
 * Cuts one piece by the pattern numbered stage and hands the pieces to the next; after the last
 * they are words.
 */
static enum sov_error split_stage(const struct split *s, size_t stage, const unsigned char *classes,
                                  size_t count)
{
    if (count == 0) return SOV_OK;
    if (stage == s->p->code_count) return s->word(s->context, count, s->err);
    enum sov_error rc = SOV_OK;
    for (size_t at = 0, start, end; rc == SOV_OK && at < count; at = end) {
        rc = next_match(s, s->p->codes[stage], classes, at, count, &start, &end);
        if (rc == SOV_OK) rc = split_stage(s, stage + 1, classes + at, start - at);
        if (rc == SOV_OK) rc = split_stage(s, stage + 1, classes + start, end - start);
        if (rc == SOV_OK && end == at)
            rc = sov_fail(s->err, SOV_ERR_INTERNAL,
                          "a pre-tokenizer pattern matched nothing at character %zu", at);
    }
    return rc;
}

enum sov_error pretokenizer_split(const struct pretokenizer *p, const unsigned char *classes,
                                  size_t count, pretokenize_word *word, void *context,
                                  struct sov_errbuf *err)
{
    struct split s = {.p = p, .word = word, .context = context, .err = err};
    s.data = pcre2_match_data_create(1, p->general);
    if (s.data == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory while cutting the text into words");
    enum sov_error rc = split_stage(&s, 0, classes, count);
    pcre2_match_data_free(s.data);
    return rc;
}
