/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client may say about the answer cache. The field `cache` and the header Cache-Control may
 * both be there; then what either of them rules out is ruled out.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "server/api_fields.h"
#include "json/json_strict.h"

/* RFC 9111, section 1.2.2: what is larger counts as 2^31. */
#define API_CACHE_SECONDS_MAX (1ll << 31)

static void api_cache_limit_age(struct api_cache *cache, int64_t max_age_ms)
{
    if (max_age_ms < cache->max_age_ms) cache->max_age_ms = max_age_ms;
}

static bool api_read_cache_object(const json_t *value, struct api_cache *out, struct api_error *err)
{
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        char where[API_PARAM_MAX];
        snprintf(where, sizeof where, "cache.%.64s", key);
        bool is_no_store = strcmp(key, "no_store") == 0;
        if (!is_no_store && strcmp(key, "max_age") != 0)
            return api_fail(err, where, "'%s' is not known; 'cache' has 'no_store' and 'max_age'.",
                            where);
        if (json_is_null(member)) continue;
        if (is_no_store) {
            if (!json_is_boolean(member))
                return api_fail(err, where, "'%s' must be true or false, not %s.", where,
                                json_type_name(member));
            out->no_store = json_is_true(member);
            continue;
        }
        if (!json_is_integer(member))
            return api_fail(err, where, "'%s' must be an integer, not %s.", where,
                            json_type_name(member));
        json_int_t seconds = json_integer_value(member);
        if (seconds < 0 || seconds > API_CACHE_SECONDS_MAX)
            return api_fail(err, where, "'%s' must be an integer from 0 to %lld, not %lld.", where,
                            API_CACHE_SECONDS_MAX, (long long)seconds);
        api_cache_limit_age(out, seconds * 1000);
    }
    return true;
}

bool api_read_cache(const json_t *object, struct api_cache *out, struct api_error *err)
{
    const json_t *value = api_field(object, "cache");
    if (value == NULL || json_is_true(value)) return true;
    if (json_is_object(value)) return api_read_cache_object(value, out, err);
    if (!json_is_false(value))
        return api_fail(err, "cache",
                        "'cache' must be true or false, or an object of 'no_store' and 'max_age', "
                        "not %s.",
                        json_type_name(value));
    out->bypass = true;
    return true;
}

/* Seconds, maybe in quotes; what is no number counts as 0: no age is young enough for it. */
static int64_t api_cache_seconds(const char *text, size_t length)
{
    int64_t seconds = 0;
    if (length >= 2 && text[0] == '"' && text[length - 1] == '"') {
        text++;
        length -= 2;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return 0;
        seconds = seconds * 10 + (text[i] - '0');
        if (seconds > API_CACHE_SECONDS_MAX) seconds = API_CACHE_SECONDS_MAX;
    }
    return seconds;
}

static bool api_cache_is(const char *text, size_t length, const char *name)
{
    return strlen(name) == length && strncasecmp(text, name, length) == 0;
}

static void api_cache_directive(const char *text, size_t length, struct api_cache *cache)
{
    static const char MAX_AGE[] = "max-age=";
    size_t name = sizeof MAX_AGE - 1;
    if (api_cache_is(text, length, "no-store"))
        cache->no_store = true;
    else if (api_cache_is(text, length, "no-cache"))
        api_cache_limit_age(cache, -1);
    else if (length >= name && strncasecmp(text, MAX_AGE, name) == 0)
        api_cache_limit_age(cache, api_cache_seconds(text + name, length - name) * 1000);
}

void api_cache_control(const char *value, struct api_cache *cache)
{
    static const char BLANKS[] = " \t";
    while (*value != '\0') {
        value += strspn(value, BLANKS);
        size_t length = strcspn(value, ","), next = length;
        while (length > 0 && strchr(BLANKS, value[length - 1]) != NULL) length--;
        api_cache_directive(value, length, cache);
        value += next;
        if (*value == ',') value++;
    }
}
