/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A query as a source of records (runtime/query_record.h) for all who ask the same: what producer.h is
 * for completions. It is computed without a gate, which is each reader's own, and without a deadline.
 */
#ifndef SOV_SERVER_QUERY_PRODUCER_H
#define SOV_SERVER_QUERY_PRODUCER_H

#include "runtime/query.h"
#include "server/computation.h"

/* Tokenizes; errors are query_create's. config outlives the source. */
enum sov_error query_producer_create(const struct query_config *config,
                                     const struct query_request *request,
                                     struct computation_source *out, struct sov_errbuf *err);
/* Of a query so far. */
void query_stats_read(const struct query *q, struct producer_stats *out);
/* The most bytes that a flight may need for it; piece_bytes_max is that of the longest token. */
size_t query_flight_bytes_max(const struct query_request *request, int context,
                              size_t piece_bytes_max);

#endif
