/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes. What is accepted has a canonical form that is its own, that is in order, and that means
 * the same to jansson; what one of the two accepts, so does the other, but for zero bytes: jansson has
 * no names with one inside, and takes one behind the value for the end of the text.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/canonical_json.h"

static void require(bool condition)
{
    if (!condition) abort();
}

static json_t *other_opinion(const char *text, size_t length, json_error_t *why)
{
    return json_loadb(
        text, length,
        JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct strbuf once = {0}, twice = {0};
    struct sov_errbuf err = {""};
    json_error_t why = {0};
    enum sov_error rc = canonical_json(text, size, 0, &once, &err);
    json_t *other = other_opinion(text, size, &why);
    if (rc == SOV_OK) {
        require(canonical_json(once.data, once.length, CANONICAL_JSON_SORTED, &twice, &err) ==
                SOV_OK);
        require(once.length == twice.length && memcmp(once.data, twice.data, once.length) == 0);
        require(other != NULL || json_error_code(&why) == json_error_null_byte_in_key);
        json_t *ours = other != NULL ? other_opinion(once.data, once.length, &why) : NULL;
        require(other == NULL || json_equal(ours, other));
        json_decref(ours);
    } else {
        require(err.message[0] != '\0' && once.length == 0);
        require(other == NULL || rc == SOV_ERR_LIMIT || memchr(text, 0, size) != NULL);
    }
    json_decref(other);
    strbuf_free(&once);
    strbuf_free(&twice);
    return 0;
}
