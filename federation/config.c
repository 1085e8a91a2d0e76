/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/config.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/file.h"
#include "json/json_strict.h"

enum { WHERE_BYTES_MAX = 64, VALUE_MAX = 1 << 30 };

/* A number of the file: its field, and where it is in struct pbft_config. */
struct number {
    const char *section, *name;
    size_t offset;
};

#define CORE(section, name, field)                         \
    {                                                      \
        section, name, offsetof(struct pbft_config, field) \
    }

/* In the order in which they are written; those of "limits" are part of the federation's id. */
static const struct number NUMBERS[] = {
    CORE("limits", "checkpoint_interval", checkpoint_interval),
    CORE("limits", "window", limits.window),
    CORE("limits", "pattern_bytes", limits.pattern_bytes_max),
    CORE("limits", "request_bytes", limits.request_bytes_max),
    CORE("limits", "batch_requests", limits.batch_requests_max),
    CORE("limits", "batch_patterns", limits.batch_patterns_max),
    CORE("limits", "batch_bytes", limits.batch_bytes_max),
    CORE("timing", "view_timeout_ms", view_timeout_ms),
    CORE("timing", "view_timeout_ms_max", view_timeout_ms_max),
    CORE("timing", "resend_ms", resend_ms),
    CORE("timing", "pipeline", pipeline_max),
    CORE("timing", "transfer_window", transfer_window),
};
enum { NUMBERS_COUNT = sizeof NUMBERS / sizeof NUMBERS[0] };

static uint32_t *number_of(struct pbft_config *core, const struct number *n)
{
    return (uint32_t *)(void *)((char *)core + n->offset);
}

static uint32_t value_of(const struct pbft_config *core, const struct number *n)
{
    uint32_t value;
    memcpy(&value, (const char *)core + n->offset, sizeof value);
    return value;
}

void fed_config_defaults(struct fed_config *config)
{
    memset(config, 0, sizeof *config);
    pbft_config_defaults(&config->core);
}

/* ---- the id ---- */

static void put_number(crypto_generichash_state *state, uint32_t value)
{
    uint8_t le[4];
    for (int i = 0; i < 4; i++) le[i] = (uint8_t)(value >> (8 * i));
    crypto_generichash_update(state, le, sizeof le);
}

void fed_config_identify(struct fed_config *config)
{
    static const char PURPOSE[] = "sovereign-federation-v1:config"; /* with its zero */
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, MESSAGE_DIGEST_BYTES);
    crypto_generichash_update(&state, (const uint8_t *)PURPOSE, sizeof PURPOSE);
    put_number(&state, FED_CONFIG_VERSION);
    put_number(&state, config->member_count);
    for (uint32_t i = 0; i < config->member_count; i++) {
        put_number(&state, config->members[i].seat);
        crypto_generichash_update(&state, config->members[i].key, MESSAGE_KEY_BYTES);
    }
    for (int i = 0; i < NUMBERS_COUNT; i++)
        if (strcmp(NUMBERS[i].section, "limits") == 0)
            put_number(&state, value_of(&config->core, &NUMBERS[i]));
    crypto_generichash_final(&state, config->federation.bytes, MESSAGE_DIGEST_BYTES);
}

/* ---- addresses ---- */

enum sov_error fed_address_split(const char *address, size_t length, char host[FED_HOST_BYTES_MAX],
                                 uint16_t *port, struct sov_errbuf *err)
{
    static const char EXPECTED[] = "must be 'host:port' or '[address]:port', with a port of 1 to "
                                   "65535 and a host of letters, digits, '.', '-' and '_'";
    const char *name = address, *colon = NULL;
    uint32_t number = 0;
    for (size_t i = 0; i < length; i++)
        if (address[i] == ':') colon = address + i;
    if (colon == NULL || length >= MESSAGE_ADDRESS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "%s", EXPECTED);
    size_t name_length = (size_t)(colon - address);
    size_t digits = length - name_length - 1;
    bool brackets = name_length > 2 && name[0] == '[' && name[name_length - 1] == ']';
    if (brackets) {
        name++;
        name_length -= 2;
    }
    bool good = name_length > 0 && digits > 0 && digits <= 5 && colon[1] != '0';
    for (size_t i = 0; i < name_length && good; i++) {
        char c = name[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || (brackets ? c == ':' || c == '%' : c == '-' || c == '_');
    }
    for (size_t i = 1; i <= digits && good; i++) {
        good = colon[i] >= '0' && colon[i] <= '9';
        number = number * 10 + (uint32_t)(colon[i] - '0');
    }
    if (!good || number > UINT16_MAX) return sov_fail(err, SOV_ERR_INVALID, "%s", EXPECTED);
    memcpy(host, name, name_length);
    host[name_length] = '\0';
    *port = (uint16_t)number;
    return SOV_OK;
}

/* ---- reading ---- */

static enum sov_error wrong(struct sov_errbuf *err, const char *where, const json_t *value,
                            const char *expected)
{
    return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be %s, not %s", where, expected,
                    json_type_name(value));
}

static enum sov_error read_number(const json_t *object, const char *where, const char *name,
                                  uint32_t min, uint32_t max, uint32_t *out, struct sov_errbuf *err)
{
    char full[WHERE_BYTES_MAX], expected[WHERE_BYTES_MAX];
    const json_t *value = json_object_get(object, name);
    snprintf(full, sizeof full, "%s%s%s", where, where[0] != '\0' ? "." : "", name);
    snprintf(expected, sizeof expected, "a whole number, %u to %u", min, max);
    if (!json_is_integer(value)) return wrong(err, full, value, expected);
    json_int_t number = json_integer_value(value);
    if (number < (json_int_t)min || number > (json_int_t)max)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be %s, not %lld", full, expected,
                        (long long)number);
    *out = (uint32_t)number;
    return SOV_OK;
}

static enum sov_error read_hex(const json_t *object, const char *where, const char *name,
                               uint8_t out[32], struct sov_errbuf *err)
{
    static const char EXPECTED[] = "a string of 64 hexadecimal digits in lower case";
    char full[WHERE_BYTES_MAX];
    const json_t *value = json_object_get(object, name);
    const char *text = json_string_value(value);
    snprintf(full, sizeof full, "%s%s%s", where, where[0] != '\0' ? "." : "", name);
    if (text == NULL) return wrong(err, full, value, EXPECTED);
    if (json_string_length(value) != 64 || strspn(text, "0123456789abcdef") != 64 ||
        sodium_hex2bin(out, 32, text, 64, NULL, NULL, NULL) != 0)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be %s", full, EXPECTED);
    return SOV_OK;
}

static enum sov_error read_member(const json_t *object, uint32_t index, struct fed_config *config,
                                  struct sov_errbuf *err)
{
    static const char *const NAMES[] = {"id", "address", "public_key"};
    struct message_member *m = &config->members[index];
    char where[WHERE_BYTES_MAX], host[FED_HOST_BYTES_MAX];
    uint16_t port;
    uint32_t seat;
    struct sov_errbuf why = {""};
    snprintf(where, sizeof where, "members[%u]", index);
    if (!json_is_object(object)) return wrong(err, where, object, "an object");
    enum sov_error error = json_only_fields(object, where, NAMES, 3, err);
    if (error == SOV_OK)
        error = read_number(object, where, "id", 0, PBFT_MEMBERS_MAX - 1, &seat, err);
    if (error == SOV_OK) error = read_hex(object, where, "public_key", m->key, err);
    if (error != SOV_OK) return error;
    const json_t *address = json_object_get(object, "address");
    if (!json_is_string(address))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s.address' must be a string, not %s", where,
                        json_type_name(address));
    size_t length = json_string_length(address);
    if (fed_address_split(json_string_value(address), length, host, &port, &why) != SOV_OK)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s.address' %s", where, why.message);
    memcpy(m->address, json_string_value(address), length);
    m->address_length = (uint8_t)length;
    m->active = true;
    m->seat = (uint8_t)seat;
    if (index > 0 && seat <= config->members[index - 1].seat)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s.id' must be above that of the member before, %u",
                        where, config->members[index - 1].seat);
    for (uint32_t i = 0; i < index; i++)
        if (memcmp(config->members[i].key, m->key, sizeof m->key) == 0)
            return sov_fail(err, SOV_ERR_FORMAT, "'%s.public_key' is that of members[%u], too",
                            where, i);
    return SOV_OK;
}

static enum sov_error read_members(const json_t *root, struct fed_config *config,
                                   struct sov_errbuf *err)
{
    const json_t *array = json_object_get(root, "members");
    char expected[WHERE_BYTES_MAX];
    snprintf(expected, sizeof expected, "an array of %d to %d members", PBFT_MEMBERS_MIN,
             PBFT_MEMBERS_MAX);
    if (!json_is_array(array)) return wrong(err, "members", array, expected);
    size_t count = json_array_size(array);
    if (count < PBFT_MEMBERS_MIN || count > PBFT_MEMBERS_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "'members' must be %s; it has %zu", expected, count);
    enum sov_error error = SOV_OK;
    for (uint32_t i = 0; i < count && error == SOV_OK; i++)
        error = read_member(json_array_get(array, i), i, config, err);
    config->member_count = (uint32_t)count;
    return error;
}

static enum sov_error read_section(const json_t *root, const char *section,
                                   struct fed_config *config, struct sov_errbuf *err)
{
    const char *names[NUMBERS_COUNT];
    int count = 0;
    const json_t *object = json_object_get(root, section);
    if (object == NULL) return SOV_OK;
    if (!json_is_object(object)) return wrong(err, section, object, "an object");
    for (int i = 0; i < NUMBERS_COUNT; i++)
        if (strcmp(NUMBERS[i].section, section) == 0) names[count++] = NUMBERS[i].name;
    enum sov_error error = json_only_fields(object, section, names, count, err);
    for (int i = 0; i < NUMBERS_COUNT && error == SOV_OK; i++) {
        const struct number *n = &NUMBERS[i];
        if (strcmp(n->section, section) == 0 && json_object_get(object, n->name) != NULL)
            error = read_number(object, section, n->name, 1, VALUE_MAX, number_of(&config->core, n),
                                err);
    }
    return error;
}

static enum sov_error out_of_range(struct sov_errbuf *err, const char *field, uint32_t value,
                                   uint32_t min, uint32_t max)
{
    return sov_fail(err, SOV_ERR_FORMAT, "'%s' must be a whole number, %u to %u, not %u", field,
                    min, max, value);
}

/* What a core would refuse, by the names that the file has for it. */
static enum sov_error check_ranges(const struct pbft_config *c, struct sov_errbuf *err)
{
    const struct message_limits *l = &c->limits;
    const struct {
        const char *name;
        uint32_t value, min, max;
    } ranges[] = {
        {"limits.window", l->window, 8, PBFT_WINDOW_MAX},
        {"limits.checkpoint_interval", c->checkpoint_interval, 1, l->window / 2},
        {"limits.pattern_bytes", l->pattern_bytes_max, 256, PBFT_PATTERN_BYTES_MAX},
        {"limits.request_bytes", l->request_bytes_max, 512, PBFT_REQUEST_BYTES_MAX},
        {"limits.batch_requests", l->batch_requests_max, 1, PBFT_BATCH_REQUESTS_MAX},
        {"limits.batch_patterns", l->batch_patterns_max, 1, PBFT_BATCH_PATTERNS_MAX},
        {"limits.batch_bytes", l->batch_bytes_max, l->request_bytes_max, PBFT_BATCH_BYTES_MAX},
        {"timing.view_timeout_ms", c->view_timeout_ms, 10, VALUE_MAX},
        {"timing.view_timeout_ms_max", c->view_timeout_ms_max, c->view_timeout_ms, VALUE_MAX},
        {"timing.resend_ms", c->resend_ms, 1, (c->view_timeout_ms - 1) / 4},
        {"timing.pipeline", c->pipeline_max, 1, l->window},
        {"timing.transfer_window", c->transfer_window, 1, PBFT_TRANSFER_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return out_of_range(err, ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max);
    if (l->window % 8 != 0 || l->window % c->checkpoint_interval != 0)
        return sov_fail(
            err, SOV_ERR_FORMAT,
            "'limits.window' must be a multiple of 8 and of 'limits.checkpoint_interval' "
            "(%u), not %u",
            c->checkpoint_interval, l->window);
    return SOV_OK;
}

static enum sov_error read_root(const json_t *root, struct fed_config *config,
                                struct sov_errbuf *err)
{
    static const char *const NAMES[] = {"version", "federation", "f",
                                        "members", "limits",     "timing"};
    uint8_t federation[MESSAGE_DIGEST_BYTES];
    uint32_t version = 0, faulty;
    enum sov_error error = read_number(root, "", "version", 1, INT_MAX, &version, err);
    if (error == SOV_OK && version != FED_CONFIG_VERSION)
        error = sov_fail(err, SOV_ERR_UNSUPPORTED,
                         "'version' is %u; this program knows version %d only", version,
                         FED_CONFIG_VERSION);
    if (error == SOV_OK)
        error = json_only_fields(root, "", NAMES, (int)(sizeof NAMES / sizeof NAMES[0]), err);
    if (error == SOV_OK) error = read_hex(root, "", "federation", federation, err);
    if (error == SOV_OK) error = read_members(root, config, err);
    if (error == SOV_OK) error = read_section(root, "limits", config, err);
    if (error == SOV_OK) error = read_section(root, "timing", config, err);
    if (error == SOV_OK) error = check_ranges(&config->core, err);
    if (error == SOV_OK) {
        uint32_t expected = pbft_faulty_max(config->member_count);
        error = read_number(root, "", "f", expected, expected, &faulty, err);
    }
    if (error != SOV_OK) return error;
    fed_config_identify(config);
    if (memcmp(federation, config->federation.bytes, sizeof federation) == 0) return SOV_OK;
    char hex[2 * MESSAGE_DIGEST_BYTES + 1];
    sodium_bin2hex(hex, sizeof hex, config->federation.bytes, MESSAGE_DIGEST_BYTES);
    return sov_fail(
        err, SOV_ERR_FORMAT,
        "'federation' is not the id of these members and limits, %s: somebody changed a "
        "key, an id or a limit; take the file of another node",
        hex);
}

enum sov_error fed_config_read(const char *text, size_t length, struct fed_config *out,
                               struct sov_errbuf *err)
{
    json_t *root;
    fed_config_defaults(out);
    enum sov_error error = json_strict_object(text, length, &root, err);
    if (error == SOV_OK) error = read_root(root, out, err);
    json_decref(root);
    return error;
}

enum sov_error fed_config_load(const char *path, struct fed_config *out, struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct sov_errbuf why = {""};
    enum sov_error error = file_read(path, FED_CONFIG_BYTES_MAX, &text, err);
    if (error == SOV_OK) {
        error = fed_config_read(strbuf_text(&text), text.length, out, &why);
        if (error != SOV_OK) sov_fail(err, error, "%.200s: %.300s", path, why.message);
    }
    strbuf_free(&text);
    return error;
}

/* ---- writing ---- */

static void write_section(const struct fed_config *config, const char *section, struct strbuf *out)
{
    const char *between = "";
    strbuf_printf(out, "  \"%s\": {", section);
    for (int i = 0; i < NUMBERS_COUNT; i++) {
        if (strcmp(NUMBERS[i].section, section) != 0) continue;
        strbuf_printf(out, "%s\n    \"%s\": %u", between, NUMBERS[i].name,
                      value_of(&config->core, &NUMBERS[i]));
        between = ",";
    }
    strbuf_puts(out, "\n  }");
}

bool fed_config_write(const struct fed_config *config, struct strbuf *out)
{
    char hex[2 * MESSAGE_DIGEST_BYTES + 1];
    sodium_bin2hex(hex, sizeof hex, config->federation.bytes, MESSAGE_DIGEST_BYTES);
    strbuf_printf(
        out, "{\n  \"version\": %d,\n  \"federation\": \"%s\",\n  \"f\": %u,\n  \"members\": [",
        FED_CONFIG_VERSION, hex, pbft_faulty_max(config->member_count));
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct message_member *m = &config->members[i];
        sodium_bin2hex(hex, sizeof hex, m->key, sizeof m->key);
        strbuf_printf(out, "%s\n    {\"id\": %u, \"address\": \"%.*s\", \"public_key\": \"%s\"}",
                      i > 0 ? "," : "", m->seat, m->address_length, m->address, hex);
    }
    strbuf_puts(out, "\n  ],\n");
    write_section(config, "limits", out);
    strbuf_puts(out, ",\n");
    write_section(config, "timing", out);
    strbuf_puts(out, "\n}\n");
    return !strbuf_failed(out);
}

int fed_config_find(const struct fed_config *config, const uint8_t key[MESSAGE_KEY_BYTES])
{
    for (uint32_t i = 0; i < config->member_count; i++)
        if (memcmp(config->members[i].key, key, MESSAGE_KEY_BYTES) == 0)
            return config->members[i].seat;
    return -1;
}

void fed_config_core(const struct fed_config *config, uint8_t seat, struct pbft_config *out)
{
    *out = config->core;
    out->seat = seat;
    out->federation = config->federation;
    out->members = config->members;
    out->member_count = config->member_count;
}
