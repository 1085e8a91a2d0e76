/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From text to a struct receipt. The text goes through the canonicaliser first, so that jansson sees
 * canonical JSON without second members; then every member is looked at by name, kind and range, and
 * a member too many is an error.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "base/canonical_json.h"
#include "base/mem.h"
#include "kernels/vec.h"
#include "runtime/receipt.h"

enum {
    FIELDS_MAX = 20,
    MESSAGES_MAX = 1 << 16,
    SEED_DIGITS_MAX = 20,
    ARITHMETIC_VERSION_MAX = 1 << 20,
};
#define ANSWER_MS_MAX 1e15

struct receipt_storage {
    json_t *root;
    int32_t *prompt;
    int32_t *tokens;
    struct sampling_bias *bias;
    struct chat_message *messages;
    const char *stops[ENGINE_STOPS_MAX];
    size_t stop_lengths[ENGINE_STOPS_MAX];
};

/* An object of the receipt, and what is known of the error so far. */
struct fields {
    const json_t *object;
    const char *where; /* "" or "evidence.request." */
    struct sov_errbuf *err;
    enum sov_error rc; /* of the first error */
};

static void bad(struct fields *f, const char *name, const char *wanted)
{
    if (f->rc == SOV_OK)
        f->rc = sov_fail(f->err, SOV_ERR_FORMAT, "%s%s: must be %s", f->where, name, wanted);
}

static void no_memory(struct fields *f)
{
    if (f->rc == SOV_OK) f->rc = sov_fail(f->err, SOV_ERR_NOMEM, "no memory for a receipt");
}

/* Names every member that is not in the list, which ends with NULL. */
static void only(struct fields *f, const char *const *names)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)f->object, key, value)
    {
        int i = 0;
        while (names[i] != NULL && strcmp(names[i], key) != 0) i++;
        if (names[i] == NULL && f->rc == SOV_OK)
            f->rc = sov_fail(f->err, SOV_ERR_FORMAT, "%s%.40s: is no member of a receipt", f->where,
                             key);
    }
}

static const json_t *get(struct fields *f, const char *name, json_type type, const char *wanted)
{
    const json_t *value = json_object_get(f->object, name);
    if (value != NULL && json_typeof(value) == type) return value;
    bad(f, name, wanted);
    return NULL;
}

static struct fields inside(struct fields *f, const char *name, const char *where)
{
    const json_t *object = get(f, name, JSON_OBJECT, "an object");
    return (struct fields){.object = object, .where = where, .err = f->err, .rc = f->rc};
}

static int64_t get_int(struct fields *f, const char *name, int64_t min, int64_t max,
                       const char *wanted)
{
    const json_t *value = get(f, name, JSON_INTEGER, wanted);
    if (value == NULL) return min;
    int64_t number = json_integer_value(value);
    if (number < min || number > max) bad(f, name, wanted);
    return number;
}

static double get_number(struct fields *f, const char *name, double min, double max)
{
    const json_t *value = json_object_get(f->object, name);
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max))
        bad(f, name, "a number within its range");
    return number;
}

static bool get_bool(struct fields *f, const char *name)
{
    const json_t *value = json_object_get(f->object, name);
    if (!json_is_boolean(value)) bad(f, name, "true or false");
    return json_is_true(value);
}

/* A string whose end is its first zero. */
static bool is_name(const json_t *value)
{
    return json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value);
}

/* "" where it is wrong; zero bytes inside only with a length. */
static const char *get_text(struct fields *f, const char *name, size_t *length)
{
    const json_t *value = get(f, name, JSON_STRING, "a string");
    if (length != NULL) *length = value != NULL ? json_string_length(value) : 0;
    if (value != NULL && length == NULL && !is_name(value))
        bad(f, name, "a string without zero characters");
    return value != NULL ? json_string_value(value) : "";
}

static void get_hex(struct fields *f, const char *name, unsigned char *out, size_t count)
{
    static const char LOWER[] = "0123456789abcdef";
    size_t length;
    const char *text = get_text(f, name, &length);
    if (length != 2 * count || strspn(text, LOWER) != length ||
        sodium_hex2bin(out, count, text, length, NULL, NULL, NULL) != 0)
        bad(f, name,
            count == RECEIPT_DIGEST_BYTES ? "64 hexadecimal digits in lower case"
                                          : "128 hexadecimal digits in lower case");
}

/* A name out of a list; returns its place. */
static int get_choice(struct fields *f, const char *name, const char *const *choices, int count,
                      const char *wanted)
{
    size_t length;
    const char *text = get_text(f, name, &length);
    for (int i = 0; i < count; i++)
        if (strcmp(text, choices[i]) == 0 && length == strlen(choices[i])) return i;
    bad(f, name, wanted);
    return 0;
}

static int32_t *get_ids(struct fields *f, const char *name, int *count)
{
    const json_t *array = get(f, name, JSON_ARRAY, "an array of token ids");
    size_t size = json_array_size(array);
    *count = 0;
    if (array == NULL) return NULL;
    if (size > RECEIPT_TOKENS_MAX) {
        bad(f, name, "an array of at most 2097152 token ids");
        return NULL;
    }
    int32_t *ids = sov_alloc(size, sizeof *ids);
    if (ids == NULL) {
        no_memory(f);
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        const json_t *id = json_array_get(array, i);
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value > INT32_MAX) {
            bad(f, name, "an array of token ids");
            value = 0;
        }
        ids[i] = (int32_t)value;
    }
    *count = (int)size;
    return ids;
}

/* Digits without a sign or leading zeros. */
static uint64_t get_seed(struct fields *f)
{
    size_t length;
    const char *text = get_text(f, "seed", &length);
    uint64_t seed = 0;
    bool good = length > 0 && length <= SEED_DIGITS_MAX && (text[0] != '0' || length == 1);
    for (size_t i = 0; i < length && good; i++)
        good = text[i] >= '0' && text[i] <= '9' && !__builtin_mul_overflow(seed, 10u, &seed) &&
               !__builtin_add_overflow(seed, (uint64_t)(text[i] - '0'), &seed);
    if (!good) bad(f, "seed", "a string of digits, 0 to 18446744073709551615");
    return seed;
}

static void read_bias(struct fields *f, struct receipt_storage *s, struct sampling_params *p)
{
    static const char WANTED[] = "at most 1024 pairs of a token id and a number, -100 to 100";
    const json_t *array = get(f, "logit_bias", JSON_ARRAY, WANTED);
    size_t count = json_array_size(array);
    if (count > ENGINE_LOGIT_BIAS_MAX) bad(f, "logit_bias", WANTED);
    if (count == 0 || f->rc != SOV_OK) return;
    s->bias = sov_calloc(count, sizeof *s->bias);
    if (s->bias == NULL) {
        no_memory(f);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(array, i);
        const json_t *token = json_array_get(pair, 0), *value = json_array_get(pair, 1);
        double bias = json_number_value(value);
        json_int_t id = json_integer_value(token);
        if (json_array_size(pair) != 2 || !json_is_integer(token) || !json_is_number(value) ||
            id < 0 || id > INT32_MAX ||
            !(bias >= -SAMPLING_BIAS_MAX && bias <= SAMPLING_BIAS_MAX)) {
            bad(f, "logit_bias", WANTED);
            return;
        }
        s->bias[i] = (struct sampling_bias){(int32_t)id, (float)bias};
    }
    p->bias = s->bias;
    p->bias_count = count;
}

static void read_sampling(struct fields *outer, struct receipt_storage *s,
                          struct sampling_params *p)
{
    static const char *const NAMES[] = {
        "frequency_penalty",
        "logit_bias",
        "min_p",
        "penalty_window",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "temperature",
        "top_k",
        "top_p",
        NULL,
    };
    struct fields f = inside(outer, "sampling", "evidence.request.sampling.");
    if (f.object == NULL) return;
    only(&f, NAMES);
    double penalty = SAMPLING_PENALTY_MAX;
    p->frequency_penalty = (float)get_number(&f, "frequency_penalty", -penalty, penalty);
    p->min_p = (float)get_number(&f, "min_p", 0, 1);
    p->penalty_window =
        (int)get_int(&f, "penalty_window", -1, INT_MAX, "a whole number of -1 or more");
    p->presence_penalty = (float)get_number(&f, "presence_penalty", -penalty, penalty);
    p->repetition_penalty = (float)get_number(
        &f, "repetition_penalty", (double)SAMPLING_REPETITION_MIN, SAMPLING_REPETITION_MAX);
    p->seed = get_seed(&f);
    p->temperature = (float)get_number(&f, "temperature", 0, SAMPLING_TEMPERATURE_MAX);
    p->top_k = (int)get_int(&f, "top_k", 0, INT_MAX, "a whole number of 0 or more");
    p->top_p = (float)get_number(&f, "top_p", 0, 1);
    read_bias(&f, s, p);
    outer->rc = f.rc;
}

static void read_messages(struct fields *f, struct receipt_storage *s, struct receipt_request *r)
{
    static const char WANTED[] = "at most 65536 objects with the strings content and role";
    const json_t *array = get(f, "messages", JSON_ARRAY, WANTED);
    size_t count = json_array_size(array);
    if (count == 0 || count > MESSAGES_MAX) bad(f, "messages", WANTED);
    r->chat_template = get_text(f, "chat_template", NULL);
    if (f->rc != SOV_OK) return;
    s->messages = sov_calloc(count, sizeof *s->messages);
    if (s->messages == NULL) {
        no_memory(f);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *m = json_array_get(array, i);
        const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
        if (json_object_size(m) != 2 || !is_name(role) || !json_is_string(content)) {
            bad(f, "messages", WANTED);
            return;
        }
        s->messages[i] = (struct chat_message){json_string_value(role), json_string_value(content),
                                               json_string_length(content)};
    }
    r->messages = s->messages;
    r->message_count = count;
}

static void read_stops(struct fields *f, struct receipt_storage *s, struct receipt_request *r)
{
    static const char WANTED[] = "at most 16 strings of 1 to 1024 bytes";
    const json_t *array = get(f, "stop", JSON_ARRAY, WANTED);
    size_t count = json_array_size(array);
    if (count > ENGINE_STOPS_MAX) {
        bad(f, "stop", WANTED);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_array_get(array, i);
        s->stops[i] = json_string_value(text);
        s->stop_lengths[i] = json_string_length(text);
        if (!json_is_string(text) || s->stop_lengths[i] == 0 ||
            s->stop_lengths[i] > ENGINE_STOP_BYTES_MAX)
            bad(f, "stop", WANTED);
    }
    r->stops = s->stops;
    r->stop_lengths = s->stop_lengths;
    r->stop_count = (int)count;
}

static void read_request(struct fields *outer, struct receipt_storage *s, struct receipt_request *r)
{
    static const char *const NAMES[] = {
        "chat_template", "context",  "ignore_eos",   "max_tokens", "messages", "prompt",
        "prompt_tokens", "sampling", "special_text", "stop",       NULL,
    };
    struct fields f = inside(outer, "request", "evidence.request.");
    if (f.object == NULL) return;
    only(&f, NAMES);
    r->context =
        (int)get_int(&f, "context", 2, ENGINE_CONTEXT_MAX, "a whole number, 2 to 16777216");
    r->ignore_eos = get_bool(&f, "ignore_eos");
    r->max_tokens = (int)get_int(&f, "max_tokens", 0, INT_MAX, "a whole number of 0 or more");
    r->special_text = get_bool(&f, "special_text");
    bool chat = json_object_get(f.object, "messages") != NULL ||
                json_object_get(f.object, "chat_template") != NULL;
    bool prompt = json_object_get(f.object, "prompt") != NULL;
    if (chat && prompt) bad(&f, "prompt", "absent where there are messages");
    if (chat) read_messages(&f, s, r);
    if (prompt) r->text = get_text(&f, "prompt", &r->text_length);
    r->prompt = s->prompt = get_ids(&f, "prompt_tokens", &r->prompt_count);
    if (f.rc == SOV_OK && r->prompt_count == 0)
        bad(&f, "prompt_tokens", "an array of at least one token id");
    read_stops(&f, s, r);
    read_sampling(&f, s, &r->sampling);
    outer->rc = f.rc;
}

static void read_evidence(struct fields *outer, struct receipt_storage *s, struct receipt *out)
{
    static const char *const NAMES[] = {"request", "text", "tokens", NULL};
    struct fields f = inside(outer, "evidence", "evidence.");
    if (f.object == NULL) return;
    only(&f, NAMES);
    read_request(&f, s, &out->request);
    if (json_object_get(f.object, "text") != NULL)
        out->text = get_text(&f, "text", &out->text_length);
    out->tokens = s->tokens = get_ids(&f, "tokens", &out->token_count);
    out->has_evidence = true;
    outer->rc = f.rc;
}

/* Exactly as receipt_write writes it: 2026-02-04T12:00:00.000Z, of a day that there is. */
static void read_time(struct fields *f, struct receipt *out)
{
    size_t length;
    const char *text = get_text(f, "time", &length), *rest = NULL;
    struct tm tm = {0};
    char again[RECEIPT_TIME_MAX];
    bool good = length == 24 && (rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm)) == text + 19;
    if (good) {
        time_t seconds = timegm(&tm);
        good = gmtime_r(&seconds, &tm) != NULL &&
               strftime(again, sizeof again, "%Y-%m-%dT%H:%M:%S", &tm) == 19 &&
               memcmp(again, text, 19) == 0 && rest[0] == '.' && rest[4] == 'Z' &&
               strspn(rest + 1, "0123456789") == 3;
    }
    if (good) {
        memcpy(out->time, text, length + 1);
    } else {
        bad(f, "time", "a time in UTC such as 2026-02-04T12:00:00.000Z");
    }
}

static void read_head(struct fields *f, struct receipt *out)
{
    static const char *const NAMES[] = {
        "answer_ms", "arithmetic_version", "evidence",     "finish_reason", "kind",
        "kv_type",   "logits_digest",      "model_digest", "node",          "request_digest",
        "scores",    "signature",          "time",         "tokens_digest", "version",
        NULL,
    };
    const char *finishes[RECEIPT_FINISHES];
    for (int i = 0; i < RECEIPT_FINISHES; i++)
        finishes[i] = receipt_finish_name((enum receipt_finish)i);
    get_choice(f, "kind", (const char *const[]){RECEIPT_KIND}, 1, "\"" RECEIPT_KIND "\"");
    int64_t version = get_int(f, "version", 1, INT_MAX, "a whole number of 1 or more");
    if (f->rc == SOV_OK && version != RECEIPT_VERSION)
        f->rc = sov_fail(f->err, SOV_ERR_UNSUPPORTED,
                         "version: this is a receipt of format version %" PRId64
                         "; this program reads version %d",
                         version, RECEIPT_VERSION);
    only(f, NAMES);
    out->answer_ms = get_number(f, "answer_ms", 0, ANSWER_MS_MAX);
    out->arithmetic_version = (int)get_int(f, "arithmetic_version", 1, ARITHMETIC_VERSION_MAX,
                                           "a whole number, 1 to 1048576");
    out->finish = (enum receipt_finish)get_choice(f, "finish_reason", finishes, RECEIPT_FINISHES,
                                                  "stop, length or timeout");
    if (!vec_kv_type_parse(get_text(f, "kv_type", NULL), &out->kv_type))
        bad(f, "kv_type", "f16 or q8_0");
    get_hex(f, "logits_digest", out->logits_digest, sizeof out->logits_digest);
    get_hex(f, "model_digest", out->model_digest, sizeof out->model_digest);
    get_hex(f, "node", out->node, sizeof out->node);
    get_hex(f, "request_digest", out->request_digest, sizeof out->request_digest);
    get_hex(f, "signature", out->signature, sizeof out->signature);
    get_hex(f, "tokens_digest", out->tokens_digest, sizeof out->tokens_digest);
    read_time(f, out);
    out->has_scores = json_object_get(f->object, "scores") != NULL;
    if (out->has_scores) get(f, "scores", JSON_OBJECT, "an object");
}

/* The canonical form of a tree that came from canonical JSON: 17 digits hold a double. */
static enum sov_error dump(const json_t *value, struct strbuf *out, struct sov_errbuf *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (text == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt");
    enum sov_error rc = canonical_json(text, strlen(text), 0, out, err);
    free(text);
    return rc;
}

static enum sov_error keep_texts(struct receipt *out, struct sov_errbuf *err)
{
    json_t *root = out->storage->root;
    json_t *evidence = json_object_get(root, "evidence");
    enum sov_error rc = SOV_OK;
    if (evidence != NULL) rc = dump(json_object_get(evidence, "request"), &out->request_text, err);
    json_t *head = rc == SOV_OK ? json_copy(root) : NULL;
    if (rc == SOV_OK && head == NULL) rc = sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt");
    if (rc == SOV_OK) {
        json_object_del(head, "evidence");
        json_object_del(head, "signature");
        rc = dump(head, &out->signed_text, err);
    }
    json_decref(head);
    return rc;
}

static enum sov_error parse(const char *text, size_t length, json_t **root, struct sov_errbuf *err)
{
    struct strbuf canonical = {0};
    json_error_t why;
    if (length > RECEIPT_BYTES_MAX)
        return sov_fail(err, SOV_ERR_LIMIT, "%zu bytes; a receipt has at most %d", length,
                        RECEIPT_BYTES_MAX);
    enum sov_error rc = canonical_json(text, length, CANONICAL_JSON_SORTED, &canonical, err);
    if (rc == SOV_OK) {
        *root = json_loadb(canonical.data, canonical.length, JSON_ALLOW_NUL, &why);
        bool memory = *root == NULL && json_error_code(&why) == json_error_out_of_memory;
        if (memory) {
            rc = sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt of %zu bytes", length);
        } else if (!json_is_object(*root)) {
            rc = sov_fail(err, SOV_ERR_FORMAT, "is not a JSON object that a receipt can be%s%s",
                          *root == NULL ? ": " : "", *root == NULL ? why.text : "");
        }
    }
    strbuf_free(&canonical);
    return rc;
}

enum sov_error receipt_read(const char *text, size_t length, struct receipt *out,
                            struct sov_errbuf *err)
{
    *out = (struct receipt){0};
    struct receipt_storage *s = out->storage = sov_calloc(1, sizeof *s);
    if (s == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a receipt");
    enum sov_error rc = parse(text, length, &s->root, err);
    if (rc != SOV_OK) return rc;
    struct fields f = {.object = s->root, .where = "", .err = err};
    read_head(&f, out);
    if (f.rc == SOV_OK && json_object_get(s->root, "evidence") != NULL) read_evidence(&f, s, out);
    return f.rc == SOV_OK ? keep_texts(out, err) : f.rc;
}

void receipt_free(struct receipt *receipt)
{
    struct receipt_storage *s = receipt->storage;
    if (s != NULL) {
        json_decref(s->root);
        sov_free(s->prompt);
        sov_free(s->tokens);
        sov_free(s->bias);
        sov_free(s->messages);
        sov_free(s);
    }
    strbuf_free(&receipt->signed_text);
    strbuf_free(&receipt->request_text);
    *receipt = (struct receipt){0};
}
