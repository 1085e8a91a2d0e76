/* SPDX-License-Identifier: Apache-2.0 */
/* Content of batches, and certificates, in the arena. */
#include "federation/pbft_private.h"

const struct message_batch *pbft_body_batch(const struct pbft_body *body, struct message_batch *out)
{
    *out = (struct message_batch){.bytes = body->bytes,
                                  .length = body->length,
                                  .request_count = body->request_count,
                                  .pattern_count = body->pattern_count,
                                  .requests = body->requests,
                                  .patterns = body->patterns};
    return out;
}

void pbft_body_copy(struct pbft_body *body, const struct message_batch *batch,
                    const struct message_digest *digest)
{
    body->present = true;
    body->digest = *digest;
    body->length = batch->length;
    body->request_count = batch->request_count;
    body->pattern_count = batch->pattern_count;
    body->unjudged = batch->request_count;
    body->refused = body->asked = false;
    if (batch->request_count == 0) return;
    memcpy(body->bytes, batch->bytes, batch->length);
    memcpy(body->requests, batch->requests, batch->request_count * sizeof *batch->requests);
    memcpy(body->patterns, batch->patterns, batch->pattern_count * sizeof *batch->patterns);
    memset(body->verdicts, PBFT_UNJUDGED, batch->request_count);
    memset(body->executed, 0, batch->request_count);
}

void pbft_certificate_copy(struct pbft_certificate *to, uint64_t view,
                           const struct message_digest *digest,
                           const struct message_certificate *votes)
{
    to->present = true;
    to->view = view;
    to->digest = *digest;
    to->count = votes->count;
    memcpy(to->votes, votes->votes, votes->count * sizeof *votes->votes);
}
