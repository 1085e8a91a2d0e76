/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait to be ordered. At most once (OSDI 1999, section 4.1, with numbers in the place of timestamps): per
 * member the highest number executed and which of the 64 below it, so that requests of one member may overtake each
 * other when a view change drops one, and still none is executed twice.
 *
 * Each member has a queue of its own, of 64 entries and so many bytes: nobody's flood takes another's place. A
 * request goes to the primary; one that waits for long goes to all, so that all lose patience with a primary that
 * ignores its member (section 4.1: a client that gets no answer broadcasts).
 */
#include "federation/pbft_private.h"

static struct pbft_entry *entry_at(struct pbft *core, uint8_t seat, uint64_t number)
{
    return &core->queues[seat].entries[number % PBFT_NUMBERS_WINDOW];
}

static uint8_t index_of(uint64_t number)
{
    return (uint8_t)(number % PBFT_NUMBERS_WINDOW);
}

bool pbft_number_executed(const struct pbft *core, uint8_t seat, uint64_t number)
{
    const struct message_member *member = &core->members[seat];
    if (number > member->number_last) return false;
    if (number == member->number_last) return true;
    uint64_t below = member->number_last - 1 - number;
    return below >= PBFT_NUMBERS_WINDOW || (member->numbers_below >> below & 1) != 0;
}

struct pbft_entry *pbft_pool_find(struct pbft *core, uint8_t seat, uint64_t number,
                                  const struct message_digest *digest)
{
    struct pbft_entry *entry = entry_at(core, seat, number);
    if (!pbft_bit(core->queues[seat].present, index_of(number)) ||
        entry->request.number != number || !message_digest_equal(&entry->request.digest, digest))
        return NULL;
    return entry;
}

void pbft_pool_request(const struct pbft_queue *queue, const struct pbft_entry *entry,
                       struct message *out)
{
    const uint8_t *at = queue->buffer + entry->offset;
    const uint32_t digests = entry->request.pattern_count * MESSAGE_DIGEST_BYTES;
    *out = (struct message){.kind = MESSAGE_REQUEST,
                            .sender = entry->request.seat,
                            .digest = entry->request.digest,
                            .batch = {.bytes = at + digests,
                                      .length = entry->request.length,
                                      .request_count = 1,
                                      .pattern_count = entry->request.pattern_count,
                                      .requests = &entry->request,
                                      .patterns = (const struct message_digest *)at}};
}

static void reply(struct pbft *core, uint64_t number, enum pbft_outcome outcome, uint64_t sequence)
{
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_REPLY);
    effect->number = number;
    effect->outcome = outcome;
    effect->sequence = sequence;
}

static void remove_entry(struct pbft *core, struct pbft_entry *entry, enum pbft_outcome outcome,
                         uint64_t sequence)
{
    struct pbft_queue *queue = &core->queues[entry->request.seat];
    const uint64_t bit = (uint64_t)1 << index_of(entry->request.number);
    assert((queue->present & bit) != 0);
    if (entry->verdict == PBFT_VALID) core->waiting_requests--;
    queue->present &= ~bit;
    queue->unjudged &= ~bit;
    if (queue->present == 0) queue->used = 0;
    if (entry->request.seat == core->self && core->started)
        reply(core, entry->request.number, outcome, sequence);
}

/* Moves what is there together, in its order; no effect of this step points into the buffer yet. */
static void compact(struct pbft_queue *queue)
{
    uint32_t used = 0, floor = 0;
    for (int moved = __builtin_popcountll(queue->present); moved > 0; moved--) {
        struct pbft_entry *next = NULL;
        for (int i = 0; i < PBFT_NUMBERS_WINDOW; i++) {
            struct pbft_entry *entry = &queue->entries[i];
            if (pbft_bit(queue->present, (uint8_t)i) && entry->offset >= floor &&
                (next == NULL || entry->offset < next->offset))
                next = entry;
        }
        floor = next->offset + next->length;
        memmove(queue->buffer + used, queue->buffer + next->offset, next->length);
        next->offset = used;
        used += next->length;
    }
    queue->used = used;
}

/* NULL when there is no room, or a higher number has its place. */
static struct pbft_entry *add(struct pbft *core, const struct message_batch *batch)
{
    const struct message_request *request = &batch->requests[0];
    struct pbft_queue *queue = &core->queues[request->seat];
    const uint32_t digests = request->pattern_count * MESSAGE_DIGEST_BYTES;
    const uint32_t length = digests + request->length;
    const uint64_t bit = (uint64_t)1 << index_of(request->number);
    struct pbft_entry *entry = entry_at(core, request->seat, request->number);
    if ((queue->present & bit) != 0) {
        if (entry->request.number >= request->number) return NULL;
        remove_entry(core, entry, PBFT_LOST, 0);
    }
    if (length > core->queue_bytes - queue->used) compact(queue);
    if (length > core->queue_bytes - queue->used) return NULL;
    *entry = (struct pbft_entry){
        .request = *request, .arrival = ++core->arrivals, .offset = queue->used, .length = length};
    memcpy(queue->buffer + queue->used, batch->patterns + request->pattern_first, digests);
    memcpy(queue->buffer + queue->used + digests, batch->bytes + request->offset, request->length);
    entry->request.offset = entry->request.pattern_first = 0;
    queue->used += length;
    queue->present |= bit;
    queue->unjudged |= bit;
    return entry;
}

enum pbft_verdict pbft_judge(struct pbft *core, const struct message *message, uint32_t index)
{
    const struct message_request *request = &message->batch.requests[index];
    if (request->kind == MESSAGE_REQUEST_PATTERNS && !core->config.validity) return PBFT_VALID;
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_JUDGE);
    core->judges++;
    effect->message = message;
    effect->index = index;
    effect->request = request->digest;
    return PBFT_UNJUDGED;
}

static void judged_valid(struct pbft *core, struct pbft_entry *entry)
{
    struct pbft_queue *queue = &core->queues[entry->request.seat];
    assert(entry->verdict == PBFT_UNJUDGED);
    entry->verdict = PBFT_VALID;
    queue->unjudged &= ~((uint64_t)1 << index_of(entry->request.number));
    core->waiting_requests++;
    if (entry->request.seat != core->self || (!core->changing && pbft_is_primary(core))) return;
    struct message *message = pbft_message_new(core, MESSAGE_REQUEST);
    pbft_pool_request(queue, entry, message);
    /* Who wants a view does not know whose turn it is with the others: they may go on without it. */
    pbft_send(core, core->changing ? PBFT_ALL : pbft_primary(core, core->view), message);
}

static void begin_judging(struct pbft *core, struct pbft_entry *entry)
{
    struct message *message = pbft_message_new(core, MESSAGE_REQUEST);
    pbft_pool_request(&core->queues[entry->request.seat], entry, message);
    if (pbft_judge(core, message, 0) == PBFT_VALID) judged_valid(core, entry);
}

void pbft_pool_message(struct pbft *core, uint8_t from, uint32_t epoch,
                       const struct message *message)
{
    const struct message_request *request = &message->batch.requests[0];
    /* The own ones come by pbft_pool_local only: echoes of them say nothing new. */
    if (epoch != core->epoch || request->seat == core->self ||
        !pbft_is_active(core, request->seat) || core->diverged)
        return;
    if (pbft_number_executed(core, request->seat, request->number)) return;
    struct pbft_entry *entry = entry_at(core, request->seat, request->number);
    if (pbft_bit(core->queues[request->seat].present, index_of(request->number)) &&
        entry->request.number == request->number) {
        if (!message_digest_equal(&entry->request.digest, &request->digest))
            pbft_blame(core, request->seat, PBFT_FAULT_EQUIVOCATION);
        return;
    }
    (void)from;
    entry = add(core, &message->batch);
    if (entry != NULL) begin_judging(core, entry);
}

/* Section 4.1 again: a request that comes twice is answered, not executed, twice. */
static bool answer_again(struct pbft *core, const struct message_request *request)
{
    const struct pbft_answer *answer = &core->answers[index_of(request->number)];
    if (pbft_pool_find(core, core->self, request->number, &request->digest) != NULL)
        return true; /* the answer is to come */
    if (answer->number != request->number || request->number == 0 ||
        !message_digest_equal(&answer->digest, &request->digest))
        return false;
    reply(core, request->number, PBFT_COMMITTED, answer->sequence);
    return true;
}

void pbft_pool_local(struct pbft *core, const struct message *message)
{
    const struct message_request *request = &message->batch.requests[0];
    if (message->kind == MESSAGE_REQUEST && message->batch.request_count == 1 &&
        request->seat == core->self && answer_again(core, request))
        return;
    const uint64_t next = pbft_number_next(core);
    if (message->kind != MESSAGE_REQUEST || message->batch.request_count != 1 ||
        request->seat != core->self || (next != 0 && request->number != next)) {
        reply(core, message->batch.request_count == 1 ? request->number : 0, PBFT_MALFORMED, 0);
        return;
    }
    struct pbft_entry *entry = next != 0 ? add(core, &message->batch) : NULL;
    if (entry == NULL) {
        reply(core, request->number, PBFT_BUSY, 0);
        return;
    }
    core->number_next++;
    begin_judging(core, entry);
    pbft_pool_reserve_numbers(core);
}

static void judge_entries(struct pbft *core, const struct message_digest *request, bool valid)
{
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        struct pbft_queue *queue = &core->queues[seat];
        for (uint64_t left = queue->unjudged; left != 0; left &= left - 1) {
            struct pbft_entry *entry = &queue->entries[__builtin_ctzll(left)];
            if (!message_digest_equal(&entry->request.digest, request)) continue;
            if (valid) {
                judged_valid(core, entry);
            } else {
                if (seat != core->self) pbft_blame(core, seat, PBFT_FAULT_INVALID_REQUEST);
                remove_entry(core, entry, PBFT_INVALID, 0);
            }
        }
    }
}

static void judge_body(struct pbft_body *body, const struct message_digest *request, bool valid)
{
    for (uint32_t i = 0; i < body->request_count && body->unjudged > 0; i++) {
        if (body->verdicts[i] != PBFT_UNJUDGED ||
            !message_digest_equal(&body->requests[i].digest, request))
            continue;
        body->verdicts[i] = valid ? PBFT_VALID : PBFT_REFUSED;
        body->unjudged--;
        if (!valid) body->refused = true;
    }
}

void pbft_pool_verdict(struct pbft *core, const struct message_digest *request, bool valid)
{
    judge_entries(core, request, valid);
    for (uint32_t i = 0; i < core->config.limits.window; i++) {
        struct pbft_slot *slot = &core->slots[i];
        for (int b = 0; b < 2 && slot->sequence != 0; b++)
            if (slot->bodies[b].present && slot->bodies[b].unjudged > 0) {
                judge_body(&slot->bodies[b], request, valid);
                slot->dirty = true;
            }
    }
}

void pbft_pool_executed(struct pbft *core, const struct message_request *request, uint64_t sequence)
{
    struct pbft_queue *queue = &core->queues[request->seat];
    for (uint64_t left = queue->present; left != 0; left &= left - 1) {
        struct pbft_entry *entry = &queue->entries[__builtin_ctzll(left)];
        if (entry->request.number == request->number) {
            bool same = message_digest_equal(&entry->request.digest, &request->digest);
            remove_entry(core, entry, same ? PBFT_COMMITTED : PBFT_LOST, same ? sequence : 0);
        } else if (pbft_number_executed(core, request->seat, entry->request.number)) {
            remove_entry(core, entry, PBFT_LOST, 0);
        }
    }
}

void pbft_pool_mark(struct pbft *core, const struct pbft_body *body)
{
    for (uint32_t i = 0; i < body->request_count; i++) {
        const struct message_request *request = &body->requests[i];
        struct pbft_entry *entry =
            pbft_pool_find(core, request->seat, request->number, &request->digest);
        if (entry != NULL) entry->marked = core->view + 1;
    }
}

void pbft_pool_drop_member(struct pbft *core, uint8_t seat)
{
    struct pbft_queue *queue = &core->queues[seat];
    for (uint64_t left = queue->present; left != 0; left &= left - 1)
        remove_entry(core, &queue->entries[__builtin_ctzll(left)], PBFT_LOST, 0);
}

bool pbft_pool_oldest(const struct pbft *core, uint8_t *seat, uint64_t *number)
{
    uint64_t first = UINT64_MAX;
    if (core->waiting_requests == 0) return false;
    for (uint32_t s = 0; s < MESSAGE_SEATS_MAX; s++) {
        const struct pbft_queue *queue = &core->queues[s];
        for (uint64_t left = queue->present & ~queue->unjudged; left != 0; left &= left - 1) {
            const struct pbft_entry *entry = &queue->entries[__builtin_ctzll(left)];
            if (entry->arrival >= first) continue;
            first = entry->arrival;
            *seat = s;
            *number = entry->request.number;
        }
    }
    return first != UINT64_MAX;
}

/* At 1, 2, 4, 8... ticks to the primary; own ones every so often to all. */
static bool relay(struct pbft *core, const struct pbft_queue *queue, struct pbft_entry *entry)
{
    const uint32_t all =
        core->config.view_timeout_ms / PBFT_RELAY_ALL_PART / core->config.resend_ms;
    const uint8_t primary = pbft_primary(core, core->view);
    entry->age++;
    uint8_t to = PBFT_NOBODY;
    if (entry->request.seat == core->self && entry->age % (all > 0 ? all : 1) == 0)
        to = PBFT_ALL;
    else if (entry->marked != core->view + 1 && (entry->age & (entry->age - 1)) == 0 &&
             primary != core->self)
        to = primary;
    if (to == PBFT_NOBODY || PBFT_MUTATION(no_relay)) return false;
    struct message *message = pbft_message_new(core, MESSAGE_REQUEST);
    pbft_pool_request(queue, entry, message);
    pbft_send(core, to, message);
    return true;
}

void pbft_pool_tick(struct pbft *core)
{
    uint32_t relayed = 0;
    if (core->diverged) return;
    for (uint32_t s = 0; s < MESSAGE_SEATS_MAX; s++) {
        struct pbft_queue *queue = &core->queues[(core->self + s) % MESSAGE_SEATS_MAX];
        for (uint64_t left = queue->present & ~queue->unjudged; left != 0; left &= left - 1) {
            if (relayed >= PBFT_RELAY_REQUESTS) return;
            relayed += relay(core, queue, &queue->entries[__builtin_ctzll(left)]);
        }
    }
}

enum { NUMBERS_AHEAD = 1024 }; /* own numbers written down as used before they are */

void pbft_pool_reserve_numbers(struct pbft *core)
{
    if (core->number_next + NUMBERS_AHEAD / 2 <= core->number_reserved) return;
    if (!pbft_durable(core, core->number_token)) return;
    core->number_granted = core->number_reserved;
    if (core->recovering || !pbft_is_active(core, core->self)) return;
    struct message *message = pbft_message_new(core, MESSAGE_NUMBERS);
    core->number_reserved = core->number_next + NUMBERS_AHEAD;
    message->sequence = core->number_reserved;
    core->number_token = pbft_persist(core, message, 0, message->sequence);
}
