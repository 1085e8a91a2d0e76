/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes lost messages come again (TOCS 2002, section 5.2): every so often a replica that waits for something tells
 * all what it has; who has more sends exactly that, his own votes only, for the lowest sequences that are missing.
 * Whoever waits asks, so nothing has to be acknowledged, and a peer that asks all the time is answered once a tick.
 */
#include "federation/pbft_private.h"

bool pbft_serve(struct pbft *core, uint8_t peer)
{
    if (core->peers[peer].served >= PBFT_SERVE_PER_TICK) return false;
    core->peers[peer].served++;
    return true;
}

static void bit_set(uint8_t *map, uint64_t i)
{
    map[i / 8] |= (uint8_t)(1 << i % 8);
}

static bool bit_get(const uint8_t *map, uint64_t i)
{
    return (map[i / 8] >> i % 8 & 1) != 0;
}

static void status_send(struct pbft *core, uint8_t to)
{
    struct message *m = pbft_message_new(core, MESSAGE_STATUS);
    struct message_status *status = &m->status;
    m->view = core->view;
    m->sequence = core->low;
    status->flags = (uint8_t)((core->changing ? MESSAGE_STATUS_VIEW_CHANGING : 0) |
                              (core->recovering ? MESSAGE_STATUS_RECOVERING : 0));
    status->executed = core->durable_executed; /* what can be fetched here */
    status->view_changes = pbft_view_change_sources(core, core->view);
    status->window = (uint16_t)core->config.limits.window;
    for (uint64_t i = 0; i < core->config.limits.window; i++) {
        const uint64_t s = core->low + 1 + i;
        struct pbft_slot *slot = &core->slots[s % core->config.limits.window];
        if (s <= core->executed) bit_set(status->committed, i);
        if (slot->sequence != s) continue;
        if (slot->committed.present) bit_set(status->committed, i);
        if (!pbft_slot_current(core, slot)) continue;
        if (pbft_slot_body(core, slot, &slot->proposal) != NULL) bit_set(status->proposed, i);
        if (slot->prepared.present && slot->prepared.view == core->view)
            bit_set(status->prepared, i);
    }
    pbft_send(core, to, m);
}

void pbft_status_send(struct pbft *core)
{
    core->ticks_idle = 0;
    status_send(core, PBFT_ALL);
}

static void send_vote(struct pbft *core, uint8_t to, enum message_kind kind,
                      const struct pbft_slot *slot)
{
    const struct pbft_vote *own =
        kind == MESSAGE_COMMIT ? &slot->commits[core->self] : &slot->prepares[core->self];
    struct message *m = pbft_message_new(core, kind);
    assert(own->present);
    m->view = own->view;
    m->sequence = slot->sequence;
    m->digest = own->digest;
    memcpy(m->signature, own->signature, sizeof m->signature);
    if (kind == MESSAGE_PRE_PREPARE)
        pbft_body_batch(pbft_slot_body(core, (struct pbft_slot *)slot, &slot->proposal), &m->batch);
    pbft_send(core, to, m);
}

/* Votes and proposals of this view that the peer lacks. */
static void help_with_slots(struct pbft *core, uint8_t to, const struct message *m)
{
    uint32_t helped = 0;
    for (uint64_t i = 0; i < m->status.window && helped < PBFT_RESEND_SLOTS; i++) {
        const uint64_t s = m->sequence + 1 + i;
        struct pbft_slot *slot = &core->slots[s % core->config.limits.window];
        if (s <= m->status.executed || bit_get(m->status.committed, i)) continue;
        if (s <= core->low || slot->sequence != s || !pbft_slot_current(core, slot)) continue;
        helped++;
        const bool lacks_proposal = !bit_get(m->status.proposed, i);
        const bool proposed = pbft_is_primary(core) && !slot->certified;
        if (slot->voted && lacks_proposal && proposed &&
            pbft_slot_body(core, slot, &slot->proposal) != NULL)
            send_vote(core, to, MESSAGE_PRE_PREPARE, slot);
        else if (slot->voted && !bit_get(m->status.prepared, i))
            send_vote(core, to, MESSAGE_PREPARE, slot);
        if (slot->commit_sent) send_vote(core, to, MESSAGE_COMMIT, slot);
    }
}

static void help_with_checkpoints(struct pbft *core, uint8_t to, uint64_t stable)
{
    if (stable < core->low && core->stable.count > 0) {
        struct message *m = pbft_message_new(core, MESSAGE_STABLE);
        pbft_stable_message(core, m);
        pbft_send(core, to, m);
    }
    const uint64_t interval = core->config.checkpoint_interval;
    uint64_t from = (stable > core->low ? stable : core->low) / interval + 1;
    for (uint64_t turn = from; turn * interval <= core->executed && turn < from + core->checkpoints;
         turn++) {
        const struct pbft_own_checkpoint *own = pbft_own_checkpoint(core, turn * interval);
        if (own == NULL || !own->sent) continue;
        struct message *m = pbft_message_new(core, MESSAGE_CHECKPOINT);
        m->view = message_view(core->epoch, 0);
        m->sequence = own->sequence;
        m->digest = own->head;
        memcpy(m->signature, own->signature, sizeof m->signature);
        pbft_send(core, to, m);
    }
}

static void help_with_view(struct pbft *core, uint8_t to, const struct message *m)
{
    const bool changing = (m->status.flags & MESSAGE_STATUS_VIEW_CHANGING) != 0;
    /* What it said before it forgot: it must not vote below that. */
    if ((m->status.flags & MESSAGE_STATUS_RECOVERING) != 0 && core->latest[to].present)
        pbft_send(core, to, &core->latest[to].message);
    if (m->view > core->view || (m->view == core->view && !changing)) return;
    if (core->changing) {
        if (core->view_change_sent &&
            (m->view < core->view || !pbft_bit(m->status.view_changes, core->self)))
            pbft_send(core, to, &core->latest[core->self].message);
    } else if (core->new_view.present && core->new_view_sent) {
        struct message *help = pbft_message_new(core, MESSAGE_NEW_VIEW);
        pbft_new_view_message(core, help);
        pbft_send(core, to, help);
    }
}

void pbft_on_status(struct pbft *core, uint8_t from, const struct message *m)
{
    if (m->sender != from) {
        pbft_blame(core, from, PBFT_FAULT_MALFORMED);
        return;
    }
    pbft_claim(core, from, m);
    if (core->peers[from].helped || message_epoch(m->view) != core->epoch || core->diverged) return;
    core->peers[from].helped = true;
    if (m->status.executed < core->durable_executed) status_send(core, from); /* come and fetch */
    help_with_view(core, from, m);
    help_with_checkpoints(core, from, m->sequence);
    if (!core->changing && m->view == core->view) help_with_slots(core, from, m);
}

void pbft_on_fetch_batch(struct pbft *core, uint8_t from, const struct message *message)
{
    struct pbft_slot *slot = &core->slots[message->sequence % core->config.limits.window];
    if (message->sequence <= core->low || slot->sequence != message->sequence) return;
    struct pbft_body *body = pbft_slot_body(core, slot, &message->digest);
    if (body == NULL || !pbft_serve(core, from)) return;
    struct message *m = pbft_message_new(core, MESSAGE_BATCH);
    m->sequence = message->sequence;
    m->digest = message->digest;
    pbft_body_batch(body, &m->batch);
    pbft_send(core, from, m);
}

static bool waits(const struct pbft *core)
{
    if (core->waiting_requests > 0 || core->changing || core->transferring || core->recovering)
        return true;
    if (core->executed >= core->low + core->config.checkpoint_interval) return true;
    for (uint32_t i = 0; i < core->config.limits.window; i++)
        if (core->slots[i].sequence > core->executed) return true;
    return false;
}

void pbft_on_tick(struct pbft *core)
{
    for (int seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        struct pbft_peer *peer = &core->peers[seat];
        peer->helped = false;
        peer->served = 0;
        if (peer->distrust > 0) peer->distrust--;
    }
    core->null_due = true;
    pbft_timer_set(core, PBFT_TIMER_RESEND, core->config.resend_ms);
    pbft_transfer_tick(core);
    if (!core->diverged) {
        pbft_new_view_fetch(core);
        pbft_pool_tick(core);
    }
    if (waits(core) || ++core->ticks_idle >= PBFT_IDLE_TICKS) pbft_status_send(core);
}
