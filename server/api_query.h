/* SPDX-License-Identifier: Apache-2.0 */
/* The checked body of /v1/query; as server/api.h, pure functions. */
#ifndef SOV_SERVER_API_QUERY_H
#define SOV_SERVER_API_QUERY_H

#include "runtime/query.h"
#include "server/api.h"

struct api_query {
    struct query_request request; /* content points into root */
    struct api_cache wanted_cache;
    bool temperature_given;
    json_t *root;
};

/* On false, err is filled and out is empty. */
bool api_query_parse(const char *body, size_t length, struct api_query *out, struct api_error *err);
void api_query_free(struct api_query *request);

#endif
