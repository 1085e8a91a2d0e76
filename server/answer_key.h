/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache key of a request (cache/key.h): everything that decides its answer, in fields, made
 * right after the request was parsed and before anything is tokenized. What decides only how the
 * answer is handed over is left out: stream, stream_options, model, user, cache.
 */
#ifndef SOV_SERVER_ANSWER_KEY_H
#define SOV_SERVER_ANSWER_KEY_H

#include "cache/key.h"
#include "kernels/vec.h"
#include "server/api.h"
#include "server/server.h"

/* What all requests to one server have in common. */
struct answer_scope {
    unsigned char model_digest[SERVER_DIGEST_BYTES];
    enum kv_type kv_type;
    enum chat_template chat_template;
    bool guide;
    int context;                                     /* it ends answers, too */
    unsigned char rubric_digest[MODEL_DIGEST_BYTES]; /* scores are by it */
};

/* Whether the same request has the same answer every time. */
bool answer_is_determined(const struct api_request *request);

/*
 * Appends the fields. tenant: who may share the answer (length 0: all who have none). Failures show
 * in cache_key_finish.
 */
void answer_key_encode(struct cache_encoder *encoder, const struct answer_scope *scope,
                       const struct api_request *request, const void *tenant, size_t tenant_length);

#endif
