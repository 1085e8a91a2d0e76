/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving a view (OSDI 1999, section 4.4) and when to (section 4.5.2, liveness):
 *
 * - Patience with the primary runs only while something waits, and for one thing at a time: the oldest request, or
 *   the next sequence. Other progress does not prolong it, so a primary that ignores one member is replaced.
 * - A replica that wants a view waits for a quorum that wants it (or more) before its patience with that view runs; it
 *   doubles with each view that brings nothing.
 * - It joins when f + 1 others want later views: at least one correct replica does. It takes the highest view that
 *   f + 1 want or have passed, which is the smallest of that set.
 */
#include "federation/pbft_private.h"

size_t pbft_view_change_bytes(const struct pbft_config *config)
{
    return MESSAGE_SEATS_MAX * sizeof(struct message_vote) +
           message_prepared_bytes_max(config->limits.window, MESSAGE_SEATS_MAX);
}

void pbft_view_change_copy(struct pbft_view_change *to, const struct message *message)
{
    struct message copy = *message;
    const size_t votes = message->certificate.count * sizeof *message->certificate.votes;
    to->present = true;
    if (votes > 0) memcpy(to->bytes, message->certificate.votes, votes);
    if (message->prepared.length > 0)
        memcpy(to->bytes + votes, message->prepared.bytes, message->prepared.length);
    copy.certificate.votes = (const struct message_vote *)to->bytes;
    copy.prepared.bytes = to->bytes + votes;
    to->message = copy;
}

static void make_own(struct pbft *core)
{
    struct pbft_view_change *own = &core->latest[core->self];
    struct message *m = &own->message;
    const size_t votes = core->stable.count * sizeof *core->stable.votes;
    own->present = true;
    *m = (struct message){
        .kind = MESSAGE_VIEW_CHANGE,
        .sender = core->self,
        .view = core->view,
        .sequence = core->low,
        .digest = core->stable.digest,
        .certificate = {(const struct message_vote *)own->bytes, core->stable.count},
        .prepared = {.bytes = own->bytes + votes}};
    if (votes > 0) memcpy(own->bytes, core->stable.votes, votes);
    for (uint64_t s = core->low + 1; s <= core->low + core->config.limits.window; s++) {
        const struct pbft_slot *slot = &core->slots[s % core->config.limits.window];
        if (slot->sequence != s || !slot->prepared.present || PBFT_MUTATION(prepared_not_told))
            continue;
        const struct message_prepared prepared = {
            .view = slot->prepared.view,
            .sequence = s,
            .digest = slot->prepared.digest,
            .certificate = {slot->prepared.votes, slot->prepared.count}};
        message_prepared_put(&prepared, own->bytes + votes, &m->prepared.length);
        m->prepared.count++;
    }
    message_view_change_digest(&core->config.federation, m, &m->identity);
    core->config.sign(core->config.user, &m->identity, m->signature);
}

void pbft_view_change_start(struct pbft *core, uint64_t view)
{
    if (!pbft_may_vote(core) || view <= core->view || core->view_change_step == core->steps) return;
    core->view_change_step = core->steps; /* effects of this step point into the own VIEW_CHANGE */
    core->view = view;
    core->changing = true;
    core->failed_views++;
    core->view_changes++;
    make_own(core);
    core->view_change_sent = false;
    core->view_change_token =
        pbft_persist(core, &core->latest[core->self].message, view, core->self);
    pbft_timer_stop(core, PBFT_TIMER_VIEW);
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_VIEW);
    effect->view = view;
    effect->changing = true;
}

void pbft_view_change_durable(struct pbft *core)
{
    if (!core->changing || core->view_change_sent || !pbft_durable(core, core->view_change_token))
        return;
    core->view_change_sent = true;
    pbft_send(core, PBFT_ALL, &core->latest[core->self].message);
}

bool pbft_view_change_valid(const struct pbft *core, const struct message *message)
{
    struct message_prepared prepared;
    uint32_t cursor = 0;
    if (!pbft_stable_proof(core, message->sequence, &message->certificate)) return false;
    while (message_prepared_next(&message->prepared, &cursor, &prepared)) {
        if (prepared.sequence <= message->sequence ||
            prepared.sequence > message->sequence + core->config.limits.window ||
            prepared.sequence > core->epoch_end || prepared.view >= message->view ||
            message_epoch(prepared.view) != core->epoch ||
            (!pbft_certified(core, &prepared.certificate) && !PBFT_MUTATION(prepared_not_proven)))
            return false;
    }
    return true;
}

uint64_t pbft_view_change_sources(const struct pbft *core, uint64_t view)
{
    uint64_t sources = 0;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        if (core->latest[seat].present && core->latest[seat].message.view == view &&
            pbft_is_active(core, seat) && (seat != core->self || core->view_change_sent))
            sources |= (uint64_t)1 << seat;
    return sources;
}

/* The highest view that at least `seats` others want or have passed; 0 if that is none above ours. */
static uint64_t wanted_by(const struct pbft *core, uint32_t seats)
{
    uint64_t best = 0;
    for (uint32_t i = 0; i < core->n; i++) {
        const struct pbft_view_change *candidate = &core->latest[core->order[i]];
        uint32_t count = 0;
        if (core->order[i] == core->self || !candidate->present ||
            candidate->message.view <= core->view || candidate->message.view <= best)
            continue;
        for (uint32_t j = 0; j < core->n; j++) {
            const struct pbft_view_change *other = &core->latest[core->order[j]];
            count += core->order[j] != core->self && other->present &&
                     other->message.view >= candidate->message.view;
        }
        if (count >= seats) best = candidate->message.view;
    }
    return best;
}

/* A fetched one that a waiting NEW_VIEW stands on, when it is not the newest of its seat. */
static void stage(struct pbft *core, const struct message *message)
{
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        const struct pbft_new_view *waiting = &core->waiting[seat];
        if (!waiting->present || waiting->view != message->view) continue;
        for (uint32_t i = 0; i < waiting->count; i++) {
            if (waiting->references[i].seat != message->sender ||
                memcmp(waiting->references[i].identity, message->identity.bytes,
                       MESSAGE_DIGEST_BYTES) != 0)
                continue;
            pbft_view_change_copy(&core->staged[message->sender], message);
            return;
        }
    }
}

/*
 * A replica that lost its records hears from others which view it has left for good: the VIEW_CHANGE bears its own
 * signature. Voting in an earlier view would contradict what that says it has prepared.
 */
static void remember_own(struct pbft *core, const struct message *message)
{
    if (!core->recovering || message->view <= core->view || !pbft_view_change_valid(core, message))
        return;
    pbft_view_change_copy(&core->latest[core->self], message);
    core->view = message->view;
    core->changing = true;
    core->view_change_sent = false;
    core->view_change_token =
        pbft_persist(core, &core->latest[core->self].message, core->view, core->self);
}

void pbft_on_view_change(struct pbft *core, const struct message *message)
{
    if (core->diverged) return;
    if (message->sender == core->self) {
        remember_own(core, message);
        return;
    }
    if (!pbft_view_change_valid(core, message)) {
        pbft_blame(core, message->sender, PBFT_FAULT_CERTIFICATE);
        return;
    }
    struct pbft_view_change *latest = &core->latest[message->sender];
    pbft_stable_learn(core, message);
    stage(core, message);
    if (latest->present && latest->message.view >= message->view) {
        if (latest->message.view == message->view &&
            !message_digest_equal(&latest->message.identity, &message->identity))
            pbft_blame(core, message->sender, PBFT_FAULT_EQUIVOCATION);
        return;
    }
    pbft_view_change_copy(latest, message);
    if (!core->changing && core->new_view.present && core->new_view_sent &&
        core->view >= message->view) {
        struct message *help = pbft_message_new(core, MESSAGE_NEW_VIEW);
        pbft_new_view_message(core, help);
        pbft_send(core, message->sender, help);
    }
    const uint64_t join = wanted_by(core, core->f + 1);
    if (join > core->view && !PBFT_MUTATION(no_join)) pbft_view_change_start(core, join);
}

static bool slot_waits(const struct pbft *core)
{
    for (uint32_t i = 0; i < core->config.limits.window; i++)
        if (core->slots[i].sequence > core->executed && pbft_slot_current(core, &core->slots[i]))
            return true;
    return false;
}

/* Whether f + 1 others claim to be further: then it is this replica that is slow, and not the primary. */
static bool behind(const struct pbft *core)
{
    uint32_t further = 0;
    for (uint32_t i = 0; i < core->n; i++)
        further +=
            core->order[i] != core->self && core->peers[core->order[i]].executed > core->executed;
    return further > core->f;
}

static uint64_t patience(const struct pbft *core)
{
    uint64_t delay = core->config.view_timeout_ms;
    for (uint32_t i = PBFT_MUTATION(no_back_off) ? UINT32_MAX : 1;
         i < core->failed_views && delay < core->config.view_timeout_ms_max; i++)
        delay *= 2;
    return delay < core->config.view_timeout_ms_max ? delay : core->config.view_timeout_ms_max;
}

static bool target_waits(struct pbft *core)
{
    if (!core->target_request) return core->target > core->executed && slot_waits(core);
    const struct pbft_queue *queue = &core->queues[core->target_seat];
    const uint8_t i = (uint8_t)(core->target % PBFT_NUMBERS_WINDOW);
    return pbft_bit(queue->present, i) && queue->entries[i].request.number == core->target;
}

void pbft_view_timer(struct pbft *core)
{
    if (!pbft_may_vote(core)) {
        pbft_timer_stop(core, PBFT_TIMER_VIEW);
        return;
    }
    if (core->changing) {
        uint32_t wanting = core->view_change_sent;
        for (uint32_t i = 0; i < core->n; i++) {
            const struct pbft_view_change *latest = &core->latest[core->order[i]];
            wanting += core->order[i] != core->self && latest->present &&
                       (PBFT_MUTATION(no_join) ? latest->message.view == core->view
                                               : latest->message.view >= core->view);
        }
        if (wanting >= core->quorum && !core->timer_set[PBFT_TIMER_VIEW])
            pbft_timer_set(core, PBFT_TIMER_VIEW, patience(core));
        return;
    }
    if (core->timer_set[PBFT_TIMER_VIEW] && target_waits(core) && !behind(core)) return;
    if (!behind(core)) {
        core->target_request = !PBFT_MUTATION(no_patience_for_requests) &&
                               pbft_pool_oldest(core, &core->target_seat, &core->target);
        if (!core->target_request) core->target = core->executed + 1;
        if (core->target_request || slot_waits(core)) {
            pbft_timer_set(core, PBFT_TIMER_VIEW, patience(core));
            return;
        }
    }
    pbft_timer_stop(core, PBFT_TIMER_VIEW);
}

void pbft_on_view_timeout(struct pbft *core)
{
    pbft_view_change_start(core, core->view + 1);
}
