/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/stop.h"

#include <string.h>

#include "base/mem.h"

static void stop_borders(struct stop_string *s)
{
    s->border[0] = 0;
    int k = 0;
    for (int i = 1; i < s->length; i++) {
        while (k > 0 && s->text[i] != s->text[k]) k = s->border[k - 1];
        if (s->text[i] == s->text[k]) k++;
        s->border[i] = (uint16_t)k;
    }
}

bool stop_init(struct stop_matcher *m, const char *const *texts, const size_t *lengths, int count)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < count; i++) {
        struct stop_string *s = &m->strings[m->count++];
        s->length = (int)lengths[i];
        s->text = sov_alloc(lengths[i], 1);
        s->border = sov_alloc(lengths[i], sizeof *s->border);
        if (s->text == NULL || s->border == NULL) {
            stop_free(m);
            return false;
        }
        memcpy(s->text, texts[i], lengths[i]);
        stop_borders(s);
        if (s->length - 1 > m->held_max) m->held_max = s->length - 1;
    }
    m->held = sov_alloc((size_t)m->held_max, 1);
    if (m->held == NULL) {
        stop_free(m);
        return false;
    }
    return true;
}

void stop_free(struct stop_matcher *m)
{
    for (int i = 0; i < m->count; i++) {
        sov_free(m->strings[i].text);
        sov_free(m->strings[i].border);
    }
    sov_free(m->held);
    memset(m, 0, sizeof *m);
}

/*
 * Moves every automaton on by one byte. Returns the length of the longest string that is complete
 * now, or 0.
 */
static int stop_advance(struct stop_matcher *m, unsigned char byte)
{
    int complete = 0;
    for (int i = 0; i < m->count; i++) {
        struct stop_string *s = &m->strings[i];
        int k = s->matched;
        while (k > 0 && s->text[k] != byte) k = s->border[k - 1];
        if (s->text[k] == byte) k++;
        s->matched = k;
        if (k == s->length && k > complete) complete = k;
    }
    return complete;
}

static int stop_longest_match(const struct stop_matcher *m)
{
    int longest = 0;
    for (int i = 0; i < m->count; i++)
        if (m->strings[i].matched > longest) longest = m->strings[i].matched;
    return longest;
}

/*
 * Appends held text and piece[0 .. length) to out, less the last `keep` bytes of the two together.
 */
static bool stop_emit(struct stop_matcher *m, const char *piece, size_t length, size_t keep,
                      struct strbuf *out)
{
    size_t certain = (size_t)m->held_length + length - keep;
    size_t from_held = certain < (size_t)m->held_length ? certain : (size_t)m->held_length;
    return strbuf_append(out, m->held, from_held) && strbuf_append(out, piece, certain - from_held);
}

bool stop_feed(struct stop_matcher *m, const char *piece, size_t length, struct strbuf *out,
               bool *found)
{
    *found = false;
    if (m->done) return true;
    if (m->count == 0) return strbuf_append(out, piece, length);
    for (size_t i = 0; i < length; i++) {
        int complete = stop_advance(m, (unsigned char)piece[i]);
        if (complete == 0) continue;
        *found = m->done = true;
        bool ok = stop_emit(m, piece, i + 1, (size_t)complete, out);
        m->held_length = 0;
        return ok;
    }
    size_t keep = (size_t)stop_longest_match(m);
    if (!stop_emit(m, piece, length, keep, out)) return false;
    if (keep <= length) {
        memcpy(m->held, piece + length - keep, keep);
    } else { /* the piece only lengthened what was held */
        size_t kept_held = keep - length;
        memmove(m->held, m->held + m->held_length - kept_held, kept_held);
        memcpy(m->held + kept_held, piece, length);
    }
    m->held_length = (int)keep;
    return true;
}

bool stop_flush(struct stop_matcher *m, struct strbuf *out)
{
    bool ok = strbuf_append(out, m->held, (size_t)m->held_length);
    m->held_length = 0;
    for (int i = 0; i < m->count; i++) m->strings[i].matched = 0;
    return ok;
}
