/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds stop strings in a text that arrives in pieces. Everything before the first stop string
 * comes out, nothing of the stop string does; "first" is the one that is complete first, and the
 * longest of those complete at the same byte. A suffix of the text that might still become a stop
 * string is held back, and no more than that. One Knuth-Morris-Pratt automaton per string (Knuth,
 * Morris, Pratt 1977), so that time is linear in text times strings.
 *
 * When the stop strings and the pieces are whole UTF-8, so is what comes out.
 */
#ifndef SOV_ENGINE_STOP_H
#define SOV_ENGINE_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "engine/engine.h"

struct stop_string {
    unsigned char *text;
    uint16_t *border; /* border[i]: length of the longest proper border of text[0 .. i] */
    int length;
    int matched; /* bytes of text that the end of the stream matches */
};

struct stop_matcher {
    int count;
    struct stop_string strings[ENGINE_STOPS_MAX];
    char *held;
    int held_length; /* the longest `matched` */
    int held_max;    /* the longest stop string less one byte */
    bool done;       /* a stop string was found: nothing comes out any more */
};

/*
 * Copies the strings (1 to ENGINE_STOP_BYTES_MAX bytes each, already checked). False when memory is
 * out.
 */
bool stop_init(struct stop_matcher *m, const char *const *texts, const size_t *lengths, int count);
void stop_free(struct stop_matcher *m);

/*
 * Takes the next piece and appends to out what is certain. *found becomes true when a stop string
 * is complete: then out has everything before it, and the matcher is done. False when memory is
 * out.
 */
bool stop_feed(struct stop_matcher *m, const char *piece, size_t length, struct strbuf *out,
               bool *found);
/* The text ended without a stop string: appends what was held back. */
bool stop_flush(struct stop_matcher *m, struct strbuf *out);

#endif
