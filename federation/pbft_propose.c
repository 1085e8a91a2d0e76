/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primary's part: what waits becomes a batch as soon as the pipeline has room, with no delay to fill it. Under load
 * the pipeline is full, requests gather meanwhile, and batches grow by themselves (TOCS 2002, section 5.1.4).
 * Members take turns, one request each, so that the member with the most requests does not decide how long the
 * others wait.
 */
#include "federation/pbft_private.h"

static bool may_propose(const struct pbft *core)
{
    if (core->changing || !pbft_may_vote(core) || !pbft_is_primary(core)) return false;
    if (core->next_sequence > pbft_sequence_max(core)) return false;
    /* What a NEW_VIEW proposed comes first, and needs the window to have reached it. */
    if (core->new_view.present && core->low < core->selection.low) return false;
    return core->next_sequence - 1 < core->executed + core->config.pipeline_max;
}

/* The lowest number that waits and is in no proposal of this view. */
static struct pbft_entry *candidate(struct pbft_queue *queue, uint64_t view)
{
    struct pbft_entry *best = NULL;
    for (uint64_t left = queue->present & ~queue->unjudged; left != 0; left &= left - 1) {
        struct pbft_entry *entry = &queue->entries[__builtin_ctzll(left)];
        if (entry->marked == view + 1) continue;
        if (best == NULL || entry->request.number < best->request.number) best = entry;
    }
    return best;
}

static bool append(const struct pbft *core, struct pbft_body *body, const struct pbft_queue *queue,
                   const struct pbft_entry *entry)
{
    const struct message_limits *limits = &core->config.limits;
    const struct message_request *request = &entry->request;
    if (body->request_count >= limits->batch_requests_max ||
        request->pattern_count > limits->batch_patterns_max - body->pattern_count ||
        request->length > limits->batch_bytes_max - body->length)
        return false;
    const uint8_t *at = queue->buffer + entry->offset;
    const uint32_t digests = request->pattern_count * MESSAGE_DIGEST_BYTES;
    struct message_request *out = &body->requests[body->request_count];
    *out = *request;
    out->offset = body->length;
    out->pattern_first = body->pattern_count;
    memcpy(body->patterns + body->pattern_count, at, digests);
    memcpy(body->bytes + body->length, at + digests, request->length);
    body->verdicts[body->request_count++] = PBFT_VALID;
    body->pattern_count += request->pattern_count;
    body->length += request->length;
    return true;
}

static void fill(struct pbft *core, struct pbft_body *body)
{
    body->length = body->request_count = body->pattern_count = body->unjudged = 0;
    body->refused = body->asked = false;
    uint32_t fruitless = 0;
    while (fruitless < core->n) {
        const uint8_t seat = core->order[core->propose_turn++ % core->n];
        struct pbft_queue *queue = &core->queues[seat];
        struct pbft_entry *entry = candidate(queue, core->view);
        if (entry == NULL) {
            fruitless++;
            continue;
        }
        if (!append(core, body, queue, entry)) {
            core->propose_turn--; /* its turn is not over */
            break;
        }
        entry->marked = core->view + 1;
        fruitless = 0;
    }
}

/* What a recovery takes: a window, the rest of a checkpoint interval, and the time until all have told how far they are. */
static uint32_t nulls_max(const struct pbft *core)
{
    return 2 * core->config.limits.window + PBFT_RECOVERY_TICKS;
}

void pbft_nulls_earned(struct pbft *core)
{
    for (int seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        if (core->peers[seat].nulls > 0) core->peers[seat].nulls--;
    if (core->view_nulls > 0) core->view_nulls--;
}

bool pbft_null_acceptable(struct pbft *core)
{
    if (core->view_nulls >= core->n * nulls_max(core)) return false;
    core->view_nulls++;
    return true;
}

/* Others may have executed a window less than this replica, and count what was earned later. */
static bool null_will_be_accepted(const struct pbft *core)
{
    return core->view_nulls + core->config.limits.window < core->n * nulls_max(core) ||
           PBFT_MUTATION(nulls_for_ever);
}

/* Says that it recovers, follows, and has not had its share: who only says so may not make the log grow for ever. */
static bool deserves_null(const struct pbft *core, const struct pbft_peer *peer)
{
    return peer->recovering && peer->executed >= core->low &&
           (peer->nulls < nulls_max(core) || PBFT_MUTATION(nulls_for_ever));
}

/* Whether some peer does; take: what is proposed counts for all who do. */
static bool someone_deserves_null(struct pbft *core, bool take)
{
    bool found = false;
    for (uint32_t i = 0; i < core->n; i++) {
        struct pbft_peer *peer = &core->peers[core->order[i]];
        if (core->order[i] == core->self || !deserves_null(core, peer)) continue;
        found = true;
        peer->nulls += take;
    }
    return found;
}

/*
 * Who recovers votes again when the log has grown by a window, which in a quiet federation would be never: one null
 * batch per tick, while nothing else is under way (TOCS 2002, section 4.3.2, uses null requests the same way).
 */
static void propose_null(struct pbft *core)
{
    if (!core->null_due || core->waiting_requests > 0 ||
        core->next_sequence != core->executed + 1 || !null_will_be_accepted(core) ||
        !someone_deserves_null(core, false))
        return;
    struct pbft_slot *slot = pbft_slot_get(core, core->next_sequence);
    if (slot == NULL) return;
    (void)someone_deserves_null(core, true);
    core->view_nulls++;
    core->null_due = false;
    core->next_sequence++;
    pbft_accept_proposal(core, slot, core->view, &core->null_body.digest, false);
}

void pbft_propose(struct pbft *core)
{
    if (may_propose(core)) propose_null(core);
    while (core->waiting_requests > 0 && may_propose(core)) {
        struct pbft_slot *slot = pbft_slot_get(core, core->next_sequence);
        if (slot == NULL) return;
        struct message_batch batch;
        struct pbft_body *body = pbft_slot_spare(slot);
        body->present = false;
        fill(core, body);
        if (body->request_count == 0) return;
        memset(body->executed, 0, body->request_count);
        message_batch_digest(&core->config.federation, pbft_body_batch(body, &batch), NULL,
                             &body->digest);
        body->present = true;
        core->next_sequence++;
        pbft_accept_proposal(core, slot, core->view, &body->digest, false);
    }
}
