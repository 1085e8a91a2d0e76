/* SPDX-License-Identifier: Apache-2.0 */
/* The checked body of /v1/query; as server/api.h, pure functions. */
#ifndef SOV_SERVER_API_QUERY_H
#define SOV_SERVER_API_QUERY_H

#include "runtime/query.h"
#include "server/api.h"

struct api_query {
    struct query_request request; /* points into root and to what follows */
    const char *stops[ENGINE_STOPS_MAX];
    size_t stop_lengths[ENGINE_STOPS_MAX];
    struct sampling_bias *bias;
    struct api_cache wanted_cache;
    bool temperature_given;
    json_t *root;
};

/* vocab bounds token ids. On false, err is filled and out is empty. */
bool api_query_parse(const char *body, size_t length, int vocab, struct api_query *out,
                     struct api_error *err);
void api_query_free(struct api_query *request);

#endif
