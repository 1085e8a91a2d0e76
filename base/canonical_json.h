/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON Canonicalization Scheme (RFC 8785): one byte string for a JSON value, whoever wrote it, so
 * that digests and signatures can be over it. No spaces; the members of objects sorted by the UTF-16
 * code units of their names; strings escaped as ECMAScript's JSON.stringify escapes them; numbers as
 * doubles, printed as ECMAScript prints them (decimal.h).
 *
 * The parser is ours, where HTTP bodies are read by jansson (docs/dependencies.md), for what RFC 8785
 * and its base, I-JSON (RFC 7493), ask of a parser and jansson does not give: names with U+0000 in
 * them; a zero byte behind the value that is not taken for the end of the text; an error's byte, with
 * what was expected; and memory that tests can take away. fuzz/fuzz_canonical_json.c holds the two
 * against each other.
 *
 * Refused, with the byte (counted from 0) at which it was seen: everything RFC 8259's grammar does not
 * have (a byte order mark, trailing commas, NaN, text after the value), UTF-8 that is malformed,
 * escaped surrogates without their other half, two members of one name (compared after unescaping),
 * numbers that round to infinity. Numbers too small for a double become 0, as everywhere.
 *
 * Time is linear in the text, apart from sorting. Threads: any.
 */
#ifndef SOV_BASE_CANONICAL_JSON_H
#define SOV_BASE_CANONICAL_JSON_H

#include <stddef.h>

#include "base/error.h"
#include "base/strbuf.h"

enum {
    CANONICAL_JSON_DEPTH_MAX = 512,      /* arrays and objects inside one another */
    CANONICAL_JSON_BYTES_MAX = 64 << 20, /* of text; what comes out is at most six times as long */
};

enum canonical_json_flags {
    CANONICAL_JSON_SORTED = 1, /* refuse members that are not in their order already */
};

/*
 * Appends the canonical form of text to out. SOV_ERR_FORMAT; SOV_ERR_LIMIT for what is too long or too
 * deep; SOV_ERR_NOMEM. On an error out is as before.
 */
enum sov_error canonical_json(const char *text, size_t length, unsigned flags, struct strbuf *out,
                              struct sov_errbuf *err);

#endif
