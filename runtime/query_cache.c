/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/query_cache.h"

#include "kernels/isa.h"
#include "kernels/vec.h"
#include "runtime/query_record.h"
#include "runtime/sampling_key.h"

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
    QUERY_FIELDS_SAMPLING,
    /* A list of texts; only where there are any, as the next. */
    QUERY_FIELD_STOPS = QUERY_FIELDS_SAMPLING + SAMPLING_FIELDS,
    QUERY_FIELD_STOP,
    QUERY_FIELDS_BIASES,
};

bool query_is_determined(const struct query_request *r)
{
    return !r->receipt && (r->seed_given || r->sampling.temperature == 0);
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

enum sov_error query_key_encode(const struct query_config *c, const struct query_request *r,
                                const void *tenant, size_t tenant_length, struct cache_encoder *e,
                                struct sov_errbuf *err)
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
    cache_encode_bytes(e, QUERY_FIELD_TENANT, tenant, tenant_length);
    cache_encode_int(e, QUERY_FIELD_TEMPLATE, c->chat_template);
    cache_encode_int(e, QUERY_FIELD_GUIDE, c->guide);
    encode_scoring(e, c);
    cache_encode_bytes(e, QUERY_FIELD_CONTENT, r->content, r->length);
    cache_encode_int(e, QUERY_FIELD_DEPTH, r->require_reasoning ? r->max_depth : 0);
    cache_encode_int(e, QUERY_FIELD_MAX_TOKENS, r->max_tokens);
    sampling_key_encode(e, QUERY_FIELDS_SAMPLING, &r->sampling);
    if (r->sampling.bias_count > 0)
        sampling_key_encode_biases(e, QUERY_FIELDS_BIASES, &r->sampling);
    if (r->stop_count > 0) cache_encode_list(e, QUERY_FIELD_STOPS, (uint64_t)r->stop_count);
    for (int i = 0; i < r->stop_count; i++)
        cache_encode_bytes(e, QUERY_FIELD_STOP, r->stops[i], r->stop_lengths[i]);
    return SOV_OK;
}
