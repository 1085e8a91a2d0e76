/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query_cache.h"

#include <limits.h>
#include <string.h>

#include "base/decimal.h"
#include "kernels/isa.h"
#include "kernels/vec.h"
#include "json/json_strict.h"

/* What a field means. They are on disk: a number is never given to another field. */
enum query_field {
    /* The first field of other requests' keys has another number: they are never equal. */
    QUERY_FIELD_VERSION = 128,
    QUERY_FIELD_MODEL,
    QUERY_FIELD_ARITHMETIC,
    QUERY_FIELD_KV_TYPE,
    QUERY_FIELD_CONTEXT,
    QUERY_FIELD_TENANT,
    QUERY_FIELD_TEMPLATE,
    QUERY_FIELD_GUIDE,
    QUERY_FIELD_RUBRIC,
    QUERY_FIELD_PROJECTOR, /* weights and biases, in order */
    QUERY_FIELD_WEIGHT,
    QUERY_FIELD_STOP_BELIEF,
    QUERY_FIELD_CONTENT,
    QUERY_FIELD_DEPTH, /* 0 without reasoning */
    QUERY_FIELD_MAX_TOKENS,
    QUERY_FIELD_SEED,
    QUERY_FIELD_TEMPERATURE,
    QUERY_FIELD_TOP_K,
    QUERY_FIELD_TOP_P,
    QUERY_FIELD_MIN_P,
    QUERY_FIELD_REPETITION,
    QUERY_FIELD_PRESENCE,
    QUERY_FIELD_FREQUENCY,
    QUERY_FIELD_WINDOW,
};

bool query_may_be_cached(const struct query_config *c, const struct query_request *r)
{
    return c->cache != NULL && !r->cache_bypass && !r->receipt && r->sampling.bias_count == 0 &&
           (r->seed_given || r->sampling.temperature == 0);
}

static void encode_scoring(struct cache_encoder *e, const struct query_config *c)
{
    const struct projection *p = &c->projector.weights;
    bool scored = c->evaluator != NULL;
    cache_encode_bytes(e, QUERY_FIELD_RUBRIC, c->rubric_digest,
                       scored ? sizeof c->rubric_digest : 0);
    cache_encode_list(e, QUERY_FIELD_PROJECTOR,
                      PROJECTION_OUTPUTS * ((uint64_t)PROJECTION_INPUTS + 1));
    for (int o = 0; o < PROJECTION_OUTPUTS; o++) {
        for (int i = 0; i < PROJECTION_INPUTS; i++)
            cache_encode_double(e, QUERY_FIELD_WEIGHT, (double)p->columns[i][o]);
        cache_encode_double(e, QUERY_FIELD_WEIGHT, (double)p->bias[o]);
    }
    cache_encode_double(e, QUERY_FIELD_STOP_BELIEF, (double)c->stop_belief);
}

static void encode_sampling(struct cache_encoder *e, const struct sampling_params *s)
{
    /* Where nothing is left to chance, requests without a seed ask the same. */
    cache_encode_int(e, QUERY_FIELD_SEED, s->temperature == 0 ? 0 : (int64_t)s->seed);
    cache_encode_double(e, QUERY_FIELD_TEMPERATURE, (double)s->temperature);
    cache_encode_int(e, QUERY_FIELD_TOP_K, s->top_k);
    cache_encode_double(e, QUERY_FIELD_TOP_P, (double)s->top_p);
    cache_encode_double(e, QUERY_FIELD_MIN_P, (double)s->min_p);
    cache_encode_double(e, QUERY_FIELD_REPETITION, (double)s->repetition_penalty);
    cache_encode_double(e, QUERY_FIELD_PRESENCE, (double)s->presence_penalty);
    cache_encode_double(e, QUERY_FIELD_FREQUENCY, (double)s->frequency_penalty);
    cache_encode_int(e, QUERY_FIELD_WINDOW, s->penalty_window);
}

enum sov_error query_key_encode(const struct query_config *c, const struct query_request *r,
                                struct cache_encoder *e, struct sov_errbuf *err)
{
    unsigned char digest[MODEL_DIGEST_BYTES];
    enum sov_error rc = model_digest_wait(c->digest, 0, digest, err);
    if (rc == SOV_ERR_TIMEOUT)
        return sov_fail(err, SOV_ERR_BUSY, "the model's digest is still being computed");
    if (rc != SOV_OK) return rc;
    cache_encode_int(e, QUERY_FIELD_VERSION, QUERY_RECORD_VERSION);
    cache_encode_bytes(e, QUERY_FIELD_MODEL, digest, sizeof digest);
    cache_encode_int(e, QUERY_FIELD_ARITHMETIC, SOV_ARITHMETIC_VERSION);
    cache_encode_int(e, QUERY_FIELD_KV_TYPE, c->kv_type);
    cache_encode_int(e, QUERY_FIELD_CONTEXT, engine_context(c->engine));
    cache_encode_bytes(e, QUERY_FIELD_TENANT, r->tenant, r->tenant_length);
    cache_encode_int(e, QUERY_FIELD_TEMPLATE, c->chat_template);
    cache_encode_int(e, QUERY_FIELD_GUIDE, c->guide);
    encode_scoring(e, c);
    cache_encode_bytes(e, QUERY_FIELD_CONTENT, r->content, r->length);
    cache_encode_int(e, QUERY_FIELD_DEPTH, r->require_reasoning ? r->max_depth : 0);
    cache_encode_int(e, QUERY_FIELD_MAX_TOKENS, r->max_tokens);
    encode_sampling(e, &r->sampling);
    return SOV_OK;
}

/* ---- records ---- */

static void put_scores(const struct query_scores *scores, struct strbuf *out)
{
    strbuf_puts(out, ",\"scores\":");
    if (!scores->there) {
        strbuf_puts(out, "null");
        return;
    }
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        char text[DECIMAL_TEXT_MAX];
        decimal_from_float(scores->ihsan[d], text);
        strbuf_printf(out, "%c%s", d == 0 ? '[' : ',', text);
    }
    strbuf_putc(out, ']');
}

void query_record_write(const struct query_record *r, struct strbuf *out)
{
    strbuf_puts(out, "{\"answer\":");
    strbuf_put_json_string(out, r->answer, r->answer_length);
    strbuf_printf(out, ",\"stopped\":%s", r->stopped ? "true" : "false");
    put_scores(&r->scores, out);
    strbuf_puts(out, ",\"thoughts\":[");
    for (int i = 0; i < r->thought_count; i++) {
        strbuf_puts(out, i > 0 ? ",{\"text\":" : "{\"text\":");
        strbuf_put_json_string(out, r->thoughts[i].text, r->thoughts[i].length);
        strbuf_printf(out, ",\"done\":%s", r->thoughts[i].done ? "true" : "false");
        put_scores(&r->thoughts[i].scores, out);
        strbuf_putc(out, '}');
    }
    strbuf_printf(out, "],\"counts\":[%d,%d,%d,%d,%d,%d]}", r->usage.prompt_tokens,
                  r->usage.cached_tokens, r->usage.completion_tokens, r->reasoning_tokens,
                  r->scoring_rows_computed, r->scoring_rows_reused);
}

static bool read_text(const json_t *object, const char *name, const char **text, size_t *length)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_string(value)) return false;
    *text = json_string_value(value);
    *length = json_string_length(value);
    return true;
}

static bool read_bool(const json_t *object, const char *name, bool *out)
{
    const json_t *value = json_object_get(object, name);
    *out = json_is_true(value);
    return json_is_boolean(value);
}

static bool read_scores(const json_t *object, struct query_scores *scores)
{
    const json_t *value = json_object_get(object, "scores");
    scores->there = json_is_array(value);
    return scores->there ? json_read_numbers(value, "scores", IHSAN_DIMENSIONS, 0, 1, scores->ihsan,
                                             NULL) == SOV_OK
                         : json_is_null(value);
}

static bool read_counts(struct query_record *r)
{
    int *const to[] = {&r->usage.prompt_tokens,     &r->usage.cached_tokens,
                       &r->usage.completion_tokens, &r->reasoning_tokens,
                       &r->scoring_rows_computed,   &r->scoring_rows_reused};
    const json_t *counts = json_object_get(r->root, "counts");
    if (json_array_size(counts) != sizeof to / sizeof to[0]) return false;
    for (size_t i = 0; i < sizeof to / sizeof to[0]; i++) {
        const json_t *value = json_array_get(counts, i);
        json_int_t number = json_integer_value(value);
        if (!json_is_integer(value) || number < 0 || number > INT_MAX) return false;
        *to[i] = (int)number;
    }
    return true;
}

static bool read_record(struct query_record *r)
{
    const json_t *thoughts = json_object_get(r->root, "thoughts");
    size_t count = json_array_size(thoughts);
    bool ok = json_is_array(thoughts) && count <= QUERY_DEPTH_MAX &&
              read_text(r->root, "answer", &r->answer, &r->answer_length) &&
              read_bool(r->root, "stopped", &r->stopped) && read_scores(r->root, &r->scores) &&
              read_counts(r);
    for (size_t i = 0; i < count && ok; i++) {
        const json_t *one = json_array_get(thoughts, i);
        ok = read_text(one, "text", &r->thoughts[i].text, &r->thoughts[i].length) &&
             read_bool(one, "done", &r->thoughts[i].done) &&
             read_scores(one, &r->thoughts[i].scores);
        r->thought_count++;
    }
    return ok;
}

bool query_record_read(struct query_record *r, const void *bytes, size_t length)
{
    *r = (struct query_record){0};
    if (json_strict_object(bytes, length, &r->root, NULL) != SOV_OK) return false;
    if (read_record(r)) return true;
    query_record_free(r);
    return false;
}

void query_record_free(struct query_record *r)
{
    json_decref(r->root);
    *r = (struct query_record){0};
}
