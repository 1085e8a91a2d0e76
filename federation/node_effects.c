/* SPDX-License-Identifier: Apache-2.0 */
/* What the core wants done, in the order in which it wants it. */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "federation/node_internal.h"

bool node_effects_store(struct fed_node *node)
{
    size_t count;
    struct sov_errbuf err = {""};
    const struct pbft_effect *effects = pbft_effects(node->core, &count);
    bool any = false;
    for (size_t i = 0; i < count && !any; i++)
        any = effects[i].kind == PBFT_EFFECT_PERSIST || effects[i].kind == PBFT_EFFECT_DELIVER;
    if (!any) return true;
    int64_t begin = clock_monotonic_ns();
    enum sov_error rc = fed_putter_put(node->putter, effects, count, &err);
    node_phase(node, FED_PHASE_STORE, begin, clock_monotonic_ns());
    /* Room comes, and memory may. Nothing else does. */
    if (rc != SOV_OK && rc != SOV_ERR_BUSY && rc != SOV_ERR_NOMEM) node_fail(node, rc, err.message);
    return rc == SOV_OK;
}

/*
 * What a member does wrong it can do thousands of times a second, and the log's disk may be the store's: a line now
 * and then, which tells how often.
 */
static bool may_tell(struct fed_node *node, uint8_t seat)
{
    struct node_peer *peer = &node->peers[seat];
    const int64_t now = clock_monotonic_ns();
    if (peer->told_ns != 0 && now - peer->told_ns < NODE_TELL_MS * 1000000ll) {
        peer->untold++;
        return false;
    }
    if (peer->untold > 0)
        log_warn("federation: %llu more lines on member %u were left out",
                 (unsigned long long)peer->untold, seat);
    peer->told_ns = now;
    peer->untold = 0;
    return true;
}

static void do_send(struct fed_node *node, const struct pbft_effect *effect)
{
    /* A few bytes ask for a whole batch: none is made for who does not take those it asked for. */
    if (effect->message->kind == MESSAGE_BATCH && !node_serve_has_room(node, effect->to)) return;
    int64_t begin = clock_monotonic_ns();
    size_t length = message_encoded_bytes(effect->message);
    struct link_message *message = link_message_create(NULL, length);
    /* What cannot be sent is as lost as what the network loses; the core repeats it. */
    if (message == NULL) return;
    size_t written = message_encode(effect->message, message->bytes, length);
    assert(written == length);
    if (effect->to != PBFT_ALL) {
        links_send(node->links, effect->to, message);
    } else {
        uint32_t count;
        const struct message_member *members = pbft_members(node->core, &count);
        for (uint32_t i = 0; i < count; i++)
            if (members[i].active && members[i].seat != node->seat)
                links_send(node->links, members[i].seat, message);
    }
    link_message_release(message);
    node_phase(node, FED_PHASE_SEND, begin, clock_monotonic_ns());
}

/*
 * Changes of the configuration are judged by the operator of each member: valid is what this member's
 * operator has agreed to beforehand. (Patterns are not asked about: every canonical one is valid.)
 */
static void do_judge(struct fed_node *node, const struct pbft_effect *effect)
{
    if (node->verdict_count == NODE_VERDICTS) return; /* asked again in the next view */
    const struct message_batch *batch = &effect->message->batch;
    const struct message_request *request = &batch->requests[effect->index];
    struct node_verdict *verdict = &node->verdicts[node->verdict_count++];
    *verdict = (struct node_verdict){.request = effect->request, .valid = true};
    if (request->kind != MESSAGE_REQUEST_CHANGE) return;
    struct message_change change;
    message_request_change(batch, request, &change);
    verdict->valid = node_change_approved(node, &change);
    if (may_tell(node, request->seat))
        log_warn("federation: member %u wants to change member %u: %s here", request->seat,
                 change.seat, verdict->valid ? "approved" : "not approved");
}

bool node_take_verdicts(struct fed_node *node)
{
    bool worked = false;
    while (node->verdict_count > 0 && node_ready(node)) {
        struct node_verdict verdict = node->verdicts[--node->verdict_count];
        struct pbft_event event = {
            .kind = PBFT_EVENT_VERDICT, .request = verdict.request, .valid = verdict.valid};
        node_step(node, &event);
        worked = true;
    }
    return worked;
}

static void do_deliver(struct fed_node *node, const struct pbft_effect *effect)
{
    const struct message_batch *batch = &effect->message->batch;
    node->now.batches++;
    node->now.requests += batch->request_count;
    node->now.patterns += batch->pattern_count;
}

static void do_effect(struct fed_node *node, const struct pbft_effect *effect)
{
    switch (effect->kind) {
    case PBFT_EFFECT_SEND: do_send(node, effect); break;
    case PBFT_EFFECT_SEND_LOG:
        node_serve_ask(node, effect->to, effect->sequence, effect->count);
        break;
    case PBFT_EFFECT_PERSIST: break; /* node_effects_store did */
    case PBFT_EFFECT_DELIVER: do_deliver(node, effect); break;
    case PBFT_EFFECT_TIMER_SET:
        node->generations[effect->timer] = effect->generation;
        node->fired[effect->timer] = false;
        loop_timer_set(node->loop, &node->timers[effect->timer],
                       clock_monotonic_ns() + effect->delay_ms * 1000000ll);
        break;
    case PBFT_EFFECT_TIMER_STOP:
        node->fired[effect->timer] = false;
        loop_timer_cancel(node->loop, &node->timers[effect->timer]);
        break;
    case PBFT_EFFECT_JUDGE: do_judge(node, effect); break;
    case PBFT_EFFECT_REPLY:
        node_reply(node, effect->number, effect->outcome, effect->sequence);
        break;
    case PBFT_EFFECT_CONFIG:
        node_epoch_set(node, effect->epoch, effect->members, effect->count);
        break;
    case PBFT_EFFECT_VIEW:
        log_info("federation: member %d %s view %u.%u", node->seat,
                 effect->changing ? "wants" : "is in", message_epoch(effect->view),
                 (unsigned)effect->view);
        break;
    case PBFT_EFFECT_MISBEHAVIOUR:
        /* The last one is of this node, and comes once. */
        if (effect->fault == PBFT_FAULT_DIVERGED || may_tell(node, effect->to))
            log_warn("federation: member %u misbehaves: %s", effect->to,
                     pbft_fault_name(effect->fault));
        break;
    }
}

void node_effects_do(struct fed_node *node)
{
    size_t count;
    const struct pbft_effect *effects = pbft_effects(node->core, &count);
    for (size_t i = 0; i < count; i++) do_effect(node, &effects[i]);
}
