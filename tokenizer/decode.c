/* SPDX-License-Identifier: Apache-2.0 */
/* Token ids to text: the bytes of each token (made once, at load), whole texts, and streams. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode_class.h"

/*
 * A real vocabulary needs a few megabytes. Texts that are not byte-level spellings grow when they
 * are decoded.
 */
enum { PIECES_BYTES_MAX = 256 << 20 };

static void put_unescaped(struct strbuf *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        if (length - i >= SPM_SPACE_LENGTH && memcmp(text + i, SPM_SPACE, SPM_SPACE_LENGTH) == 0) {
            strbuf_putc(out, ' ');
            i += SPM_SPACE_LENGTH;
        } else {
            strbuf_putc(out, text[i++]);
        }
    }
}

/* A character outside the byte alphabet becomes a note that says so, as llama.cpp writes it. */
static void put_spelled(struct strbuf *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length && out->length <= PIECES_BYTES_MAX;) {
        uint32_t c;
        i += unicode_decode_lenient((const unsigned char *)text + i, length - i, &c);
        int byte = bpe_byte_of(c);
        if (byte >= 0) {
            strbuf_putc(out, (char)byte);
            continue;
        }
        unsigned char bytes[4];
        size_t n = unicode_encode_lenient(c, bytes);
        strbuf_puts(out, "[UNK_BYTE_0x");
        for (size_t k = 0; k < n; k++) strbuf_printf(out, "%02x", bytes[k]);
        strbuf_append(out, text, length);
        strbuf_putc(out, ']');
    }
}

/* The value of <0xXX>, read as leniently as strtol would: what is not a digit ends it. */
static void put_byte_token(struct strbuf *out, const char *text, size_t length)
{
    unsigned value = 0;
    for (size_t i = 3; i < 5 && i < length; i++) {
        char c = text[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16) break;
        value = value * 16 + digit;
    }
    if (length >= 3) strbuf_putc(out, (char)value);
}

enum sov_error pieces_load(struct tokenizer *tok, struct sov_errbuf *err)
{
    uint32_t count = tok->texts.count;
    tok->piece_offsets = sov_alloc((size_t)count + 1, sizeof *tok->piece_offsets);
    if (tok->piece_offsets == NULL) return tokenizer_nomem(err);
    tok->piece_offsets[0] = 0;
    for (uint32_t id = 0; id < count; id++) {
        size_t length;
        const char *text = strtab_text(&tok->texts, id, &length);
        uint16_t attr = tok->attrs[id];
        if (attr & (TOKEN_UNKNOWN | TOKEN_CONTROL | TOKEN_USER_DEFINED))
            strbuf_append(&tok->pieces, text, length);
        else if (attr & TOKEN_NORMAL && tok->is_bpe)
            put_spelled(&tok->pieces, text, length);
        else if (attr & TOKEN_NORMAL)
            put_unescaped(&tok->pieces, text, length);
        else if (attr & TOKEN_BYTE)
            put_byte_token(&tok->pieces, text, length);
        if (strbuf_failed(&tok->pieces)) return tokenizer_nomem(err);
        if (tok->pieces.length > PIECES_BYTES_MAX)
            return sov_fail(
                err, SOV_ERR_LIMIT,
                "tokenizer.ggml.tokens: the texts up to token %u decode to over %d bytes", id,
                PIECES_BYTES_MAX);
        tok->piece_offsets[id + 1] = (uint32_t)tok->pieces.length;
    }
    return SOV_OK;
}

const char *tokenizer_piece(const struct tokenizer *tok, int32_t id, bool special, size_t *length)
{
    *length = 0;
    if (id < 0 || (uint32_t)id >= tok->texts.count) return "";
    if (!special && tok->attrs[id] & (TOKEN_UNKNOWN | TOKEN_CONTROL)) return "";
    *length = tok->piece_offsets[id + 1] - tok->piece_offsets[id];
    return strbuf_text(&tok->pieces) + tok->piece_offsets[id];
}

/* Drops the space before ? ! . and , */
static size_t close_up_punctuation(char *text, size_t length)
{
    size_t out = length != 0;
    for (size_t i = 1; i < length; i++) {
        char c = text[i];
        if (text[i - 1] == ' ' && (c == '?' || c == '!' || c == '.' || c == ',')) out--;
        text[out++] = c;
    }
    return out;
}

/* Drops the spaces around an apostrophe that stands alone. */
static size_t close_up_apostrophes(char *text, size_t length)
{
    size_t out = length != 0;
    bool before_is_space = length != 0 && text[0] == ' ';
    for (size_t i = 1; i < length; i++) {
        char c = text[i];
        bool alone = c == '\'' && before_is_space && i + 1 < length && text[i + 1] == ' ';
        if (alone) {
            out--;
            i++;
        }
        text[out++] = c;
        before_is_space = !alone && c == ' ';
    }
    return out;
}

/* Drops the space before 's, 'm, 're and 've. */
static size_t close_up_contractions(char *text, size_t length)
{
    size_t out = length != 0;
    for (size_t i = 1; i < length; i++) {
        char c = text[i];
        if (text[i - 1] == ' ' && c == '\'' && i + 1 < length) {
            char first = text[i + 1], second = i + 2 < length ? text[i + 2] : '\0';
            if (first == 's' || first == 'm' || ((first == 'r' || first == 'v') && second == 'e'))
                out--;
        }
        text[out++] = c;
    }
    return out;
}

enum sov_error tokenizer_decode(const struct tokenizer *tok, const int32_t *ids, size_t count,
                                bool special, struct strbuf *out, struct sov_errbuf *err)
{
    size_t start = out->length;
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = tokenizer_piece(tok, ids[i], special, &length);
        if (i == 0 && tok->add_space_prefix && length != 0 && piece[0] == ' ') {
            piece++;
            length--;
        }
        if (!strbuf_append(out, piece, length)) return tokenizer_nomem(err);
    }
    if (tok->clean_spaces && out->length > start) {
        char *text = out->data + start;
        size_t length = close_up_punctuation(text, out->length - start);
        length = close_up_apostrophes(text, length);
        length = close_up_contractions(text, length);
        out->length = start + length;
        out->data[out->length] = '\0';
    }
    return SOV_OK;
}

void detokenizer_init(struct detokenizer *d, const struct tokenizer *tok, bool special)
{
    *d = (struct detokenizer){.tok = tok, .special = special};
}

/*
 * Writes what of the bytes is whole. A maximal prefix of a character that another byte shows to be
 * broken is one U+FFFD (the Unicode Standard's recommended practice); returns how many bytes at the
 * end are still open.
 */
static size_t put_whole(const char *bytes, size_t length, struct strbuf *out)
{
    size_t open = utf8_incomplete_tail(bytes, length), i = 0;
    while (i < length - open) {
        size_t n = utf8_sequence_length(bytes + i, length - open - i);
        if (n != 0) {
            strbuf_append(out, bytes + i, n);
            i += n;
            continue;
        }
        strbuf_puts(out, "\xEF\xBF\xBD");
        for (n = 1; i + n < length - open && utf8_incomplete_tail(bytes + i, n + 1) == n + 1; n++)
            continue;
        i += n;
    }
    return open;
}

bool detokenizer_push(struct detokenizer *d, int32_t id, struct strbuf *out)
{
    size_t length;
    const char *piece = tokenizer_piece(d->tok, id, d->special, &length);
    if (length == 0) return true;
    struct strbuf joined = {0};
    if (d->held_length != 0) {
        strbuf_append(&joined, d->held, d->held_length);
        strbuf_append(&joined, piece, length);
        if (strbuf_failed(&joined)) {
            strbuf_free(&joined);
            return false;
        }
        piece = joined.data;
        length = joined.length;
    }
    size_t before = out->length;
    size_t open = put_whole(piece, length, out);
    bool ok = !strbuf_failed(out);
    if (ok) {
        memcpy(d->held, piece + length - open, open);
        d->held_length = open;
    } else if (out->data != NULL) {
        out->length = before;
        out->data[before] = '\0';
    }
    strbuf_free(&joined);
    return ok;
}

bool detokenizer_flush(struct detokenizer *d, struct strbuf *out)
{
    if (d->held_length == 0) return true;
    if (!strbuf_puts(out, "\xEF\xBF\xBD")) return false;
    d->held_length = 0;
    return true;
}
