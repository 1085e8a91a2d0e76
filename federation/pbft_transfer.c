/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For who is behind or comes back empty (OSDI 1999, section 4.6, state transfer; here the state is the log). Entries
 * are fetched in a window from several peers at a time; each carries its commit certificate, so each is checked by
 * itself, and who sent it need not be believed. A peer that claims entries and does not send them, or sends wrong
 * ones, is not asked for a while that doubles.
 *
 * A replica that lost its records (amnesia) follows the log like this, but votes only when it cannot contradict what
 * it may have said before (TOCS 2002, section 4.3.2, the estimation of the recovery point): its old votes were for
 * sequences in a window above a checkpoint that a quorum had executed. When it has caught up with all that n - f - 1
 * others had executed at some time after its start, that checkpoint is below what it has executed, and a window further
 * on is above every old vote. With each epoch this begins anew: other members, and a start that no quorum has proven stable.
 *
 * Then the views. It may have left some for good, and a VIEW_CHANGE of that time be kept by who becomes faulty later, to
 * make a new view of it that knows nothing of what this replica votes for now. A correct replica never wants a view more
 * than two above one that a quorum has wanted: it goes from a view that it is in, or that a quorum wants, to the next; it
 * joins where another correct one is; or it comes out of this here. Whoever is in that quorum and correct votes in
 * earlier views no more, and no batch gets a certificate without one of them. So the certificate of a batch beyond all old
 * votes, all of whose votes are newer, has a view at most two below all that this replica has wanted: it wants
 * the one two above, and votes in none before. It has voted in none that high, for a quorum would have wanted that one.
 */
#include "federation/pbft_private.h"

static struct pbft_fetch *fetch_at(struct pbft *core, uint64_t sequence)
{
    return &core->fetches[sequence % core->config.transfer_window];
}

struct pbft_fetch *pbft_fetched(struct pbft *core, uint64_t sequence)
{
    struct pbft_fetch *fetch = fetch_at(core, sequence);
    return fetch->sequence == sequence && fetch->certificate.present ? fetch : NULL;
}

static bool believed(const struct pbft *core, uint8_t seat, uint64_t sequence)
{
    const struct pbft_peer *peer = &core->peers[seat];
    return seat != core->self && peer->distrust == 0 && peer->executed >= sequence;
}

static void distrust(struct pbft *core, uint8_t seat)
{
    struct pbft_peer *peer = &core->peers[seat];
    if (peer->failures < PBFT_DISTRUST_SHIFT_MAX) peer->failures++;
    peer->distrust = (uint32_t)1 << peer->failures;
}

static uint64_t further(const struct pbft *core)
{
    uint64_t most = core->executed;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        if (core->peers[seat].executed > most && believed(core, seat, most))
            most = core->peers[seat].executed;
    return most;
}

/* Whatever it may have said before is behind it. */
static void recovered(struct pbft *core)
{
    core->recovering = false;
    core->ticks_idle = PBFT_IDLE_TICKS; /* let the others know soon */
    /* Own numbers of before: at most a window, and what was reserved, above those that were executed. */
    const uint64_t lost_numbers = (uint64_t)1 << 20;
    const uint64_t next = core->members[core->self].number_last + lost_numbers;
    if (core->number_next < next) core->number_next = next;
}

void pbft_recovery_epoch(struct pbft *core)
{
    if (!core->recovering) return;
    /* Who voted in this epoch had executed all up to its start, and others were a window below that or further. */
    if (core->recovery_point != 0 && core->executed > core->recovery_point) recovered(core);
    core->recovery_point = 0;
    for (int seat = 0; seat < MESSAGE_SEATS_MAX; seat++) core->peers[seat].claimed = false;
}

/* From how many others at least one is correct and took part in all that became stable. */
static uint32_t claims_needed(const struct pbft *core)
{
    return core->n - core->f - pbft_is_active(core, core->self);
}

static void recover(struct pbft *core, uint8_t from)
{
    if (!core->recovering) return;
    if (core->recovery_point == 0) {
        uint32_t reached = 0;
        struct pbft_peer *peer = &core->peers[from];
        /* What each claimed first: a busy federation is never caught up with for good. */
        if (!peer->claimed) peer->recovery_claim = peer->executed;
        peer->claimed = true;
        for (uint32_t i = 0; i < core->n; i++) {
            const struct pbft_peer *other = &core->peers[core->order[i]];
            reached += core->order[i] != core->self && other->claimed &&
                       other->recovery_claim <= core->executed;
        }
        if (reached < claims_needed(core)) return;
        core->recovery_point = core->executed + core->config.limits.window;
    }
    if (core->low < core->recovery_point || core->executed <= core->recovery_point) return;
    assert(message_epoch(core->executed_view) == core->epoch);
    recovered(core);
    if (!PBFT_MUTATION(votes_in_forgotten_view))
        pbft_view_change_start(core, core->executed_view + PBFT_FORGOTTEN_VIEWS);
    pbft_pool_reserve_numbers(core);
}

void pbft_claim(struct pbft *core, uint8_t from, const struct message *status)
{
    struct pbft_peer *peer = &core->peers[from];
    peer->executed = status->status.executed;
    peer->view = status->view;
    peer->stable = status->sequence;
    peer->recovering = (status->status.flags & MESSAGE_STATUS_RECOVERING) != 0;
    recover(core, from);
    /* Out of reach for agreement, or of a later configuration: no use in waiting. */
    if (believed(core, from, core->low + core->config.limits.window + 1) ||
        (believed(core, from, core->executed + 1) && message_epoch(status->view) > core->epoch))
        core->transferring = true;
}

void pbft_on_fetch_log(struct pbft *core, uint8_t from, const struct message *message)
{
    uint64_t last = core->durable_executed, first = message->sequence;
    struct pbft_peer *peer = &core->peers[from];
    if (first == 0 || first > last || message->count == 0) return;
    uint64_t count = last - first + 1 < message->count ? last - first + 1 : message->count;
    if (count > PBFT_TRANSFER_MAX) count = PBFT_TRANSFER_MAX;
    if (count > PBFT_SERVE_PER_TICK - peer->served) count = PBFT_SERVE_PER_TICK - peer->served;
    if (count == 0) return;
    peer->served += (uint32_t)count;
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_SEND_LOG);
    effect->to = from;
    effect->sequence = first;
    effect->count = (uint32_t)count;
}

void pbft_on_log_entry(struct pbft *core, uint8_t from, const struct message *message)
{
    const uint64_t sequence = message->sequence;
    if (fetch_at(core, sequence)->sequence == sequence && fetch_at(core, sequence)->asked == from)
        fetch_at(core, sequence)->asked = PBFT_NOBODY; /* answered, whatever it is worth */
    if (sequence <= core->executed || sequence > core->executed + core->config.transfer_window ||
        sequence > core->epoch_end)
        return;
    if (!pbft_certified(core, &message->certificate) && !PBFT_MUTATION(entries_not_proven)) {
        pbft_blame(core, from, PBFT_FAULT_CERTIFICATE);
        distrust(core, from);
        return;
    }
    struct pbft_fetch *fetch = fetch_at(core, sequence);
    if (pbft_fetched(core, sequence) != NULL) return;
    core->peers[from].failures = core->peers[from].distrust = 0;
    fetch->sequence = sequence;
    pbft_body_copy(&fetch->body, &message->batch, &message->digest);
    pbft_certificate_copy(&fetch->certificate, message->view, &message->digest,
                          &message->certificate);
}

/* Another is asked after a while; who answers late is welcome all the same, and believed again. */
void pbft_transfer_tick(struct pbft *core)
{
    for (uint32_t i = 0; i < core->config.transfer_window; i++) {
        struct pbft_fetch *fetch = &core->fetches[i];
        if (fetch->sequence == 0 || fetch->asked == PBFT_NOBODY ||
            ++fetch->ticks < PBFT_FETCH_TICKS)
            continue;
        if (core->peers[fetch->asked].distrust == 0) distrust(core, fetch->asked);
        fetch->asked = PBFT_NOBODY;
    }
    if (core->executed == core->executed_at_tick && further(core) > core->executed)
        core->transferring = true;
    core->executed_at_tick = core->executed;
}

/* The next believed peer that has the sequence; PBFT_NOBODY: none. */
static uint8_t whom_to_ask(struct pbft *core, uint64_t sequence)
{
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++) {
        const uint8_t seat = (uint8_t)(core->fetch_turn++ % MESSAGE_SEATS_MAX);
        if (believed(core, seat, sequence)) return seat;
    }
    return PBFT_NOBODY;
}

/* Asks for what is in the window and was not asked for, in runs of a third of it, each of another peer. */
void pbft_transfer_advance(struct pbft *core)
{
    if (!core->transferring || core->diverged) return;
    const uint64_t most = further(core);
    if (most <= core->executed) {
        core->transferring = false;
        return;
    }
    const uint64_t window = core->config.transfer_window;
    const uint32_t run = (uint32_t)(window + 2) / 3;
    uint64_t last = core->executed + window < most ? core->executed + window : most;
    if (last > core->epoch_end) last = core->epoch_end;
    for (uint64_t s = core->executed + 1; s <= last; s++) {
        struct pbft_fetch *fetch = fetch_at(core, s);
        if (fetch->sequence != s) {
            fetch->sequence = s;
            fetch->asked = PBFT_NOBODY;
            fetch->certificate.present = false;
        }
        if (fetch->certificate.present || fetch->asked != PBFT_NOBODY) continue;
        const uint8_t peer = whom_to_ask(core, s);
        if (peer == PBFT_NOBODY) return;
        struct message *ask = pbft_message_new(core, MESSAGE_FETCH_LOG);
        ask->sequence = s;
        for (; ask->count < run && s <= last && believed(core, peer, s); ask->count++, s++) {
            struct pbft_fetch *next = fetch_at(core, s);
            if (next->sequence == s && (next->certificate.present || next->asked != PBFT_NOBODY))
                break;
            if (next->sequence != s) next->certificate.present = false;
            next->sequence = s;
            next->asked = peer;
            next->ticks = 0;
        }
        s--;
        pbft_send(core, peer, ask);
    }
}
