/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key of a query in the answer cache (cache/key.h), made before anything is tokenized.
 *
 * It has everything that decides thoughts, answer and scores: model, arithmetic version, type of keys
 * and values, context, template, content, depth, stop strings, sampling with the seed, rubric,
 * projector, the belief that ends thinking, and the tenant. It has not what is decided anew for each
 * request: the gate's mode and thresholds, federated, stream, timeout.
 *
 * Pure but for the model's digest, which must be there.
 */
#ifndef SOV_RUNTIME_QUERY_CACHE_H
#define SOV_RUNTIME_QUERY_CACHE_H

#include "cache/key.h"
#include "runtime/query.h"

/* Whether the same query has the same answer every time, and nothing but the answer is wanted. */
bool query_is_determined(const struct query_request *request);
/*
 * Appends the key's fields. tenant: who may share the answer (length 0: all who have none).
 * SOV_ERR_BUSY: the model's digest is not there yet.
 */
enum sov_error query_key_encode(const struct query_config *config,
                                const struct query_request *request, const void *tenant,
                                size_t tenant_length, struct cache_encoder *encoder,
                                struct sov_errbuf *err);

#endif
