/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: seats, each with a key or empty. It changes through the log. A change in the batch of sequence s
 * comes into force behind
 *
 *     the end of the checkpoint interval of s, plus a window
 *
 * so that a replica, which votes only for sequences up to a window above what is stable, hence executed, knows of every
 * change that concerns them. That sequence ends an epoch: nothing above it is proposed before all of it is executed,
 * and then everything about views begins anew, in view 0 of the next epoch. Views carry their epoch in front, so
 * votes of different configurations never mix, and a certificate says by itself whose keys it is to be checked with. Who
 * missed the end of an epoch gets there by log entries, which are certified by the old configuration.
 */
#include "federation/pbft_private.h"

void pbft_members_set(struct pbft *core)
{
    core->n = 0;
    core->active = 0;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        if (!core->members[seat].active) continue;
        core->active |= (uint64_t)1 << seat;
        core->listed[core->n] = core->members[seat];
        core->order[core->n++] = seat;
    }
    assert(core->n >= PBFT_MEMBERS_MIN);
    core->f = pbft_faulty_max(core->n);
    core->quorum = pbft_quorum(core->n);
    if (PBFT_MUTATION(quorum_2f)) core->quorum = 2 * core->f;
    if (PBFT_MUTATION(quorum_2f1)) core->quorum = 2 * core->f + 1;
}

uint64_t pbft_sequence_max(const struct pbft *core)
{
    const uint64_t high = core->low + core->config.limits.window;
    if (PBFT_MUTATION(epoch_without_end)) return high;
    return (high < core->epoch_end ? high : core->epoch_end) + PBFT_MUTATION(watermark_off_by_one);
}

void pbft_config_effect(struct pbft *core)
{
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_CONFIG);
    effect->epoch = core->epoch;
    effect->members = core->listed;
    effect->count = core->n;
}

static void apply(struct message_member *member, const struct message_change *change)
{
    member->seat = change->seat;
    member->active = change->kind != MESSAGE_CHANGE_REMOVE;
    memcpy(member->key, change->key, sizeof member->key);
    member->address_length = change->address_length;
    memcpy(member->address, change->address, change->address_length);
}

/* Whether it can be made of the configuration that the changes decided before lead to. */
static bool possible(const struct pbft *core, const struct message_change *change)
{
    struct message_member members[MESSAGE_SEATS_MAX];
    uint32_t n = 0;
    bool key_is_taken = false;
    memcpy(members, core->members, sizeof members);
    for (uint32_t i = 0; i < core->change_count; i++)
        apply(&members[core->changes[i].seat], &core->changes[i]);
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        if (!members[seat].active) continue;
        n++;
        if (memcmp(members[seat].key, change->key, sizeof change->key) == 0 &&
            (change->kind != MESSAGE_CHANGE_REMOVE || seat != change->seat))
            key_is_taken = true;
    }
    const struct message_member *at = &members[change->seat];
    switch (change->kind) {
    case MESSAGE_CHANGE_ADD: return !at->active && !key_is_taken;
    case MESSAGE_CHANGE_REMOVE:
        return at->active && n > PBFT_MEMBERS_MIN &&
               memcmp(at->key, change->key, sizeof change->key) == 0;
    case MESSAGE_CHANGE_REKEY: return at->active && !key_is_taken;
    }
    return false;
}

void pbft_members_change(struct pbft *core, uint64_t sequence, const struct message_change *change)
{
    const uint64_t interval = core->config.checkpoint_interval;
    if (core->change_count >= MESSAGE_CHANGES_MAX || !possible(core, change)) return;
    struct message_change *decided = &core->changes[core->change_count++];
    *decided = *change;
    decided->effective =
        (sequence + interval - 1) / interval * interval + core->config.limits.window;
    core->epoch_end = core->changes[0].effective;
}

/* Everything about views and windows is the epoch's. */
static void begin_views(struct pbft *core)
{
    core->view = message_view(core->epoch, 0);
    core->changing = false;
    core->failed_views = core->progress = core->view_nulls = 0;
    core->view_change_token = PBFT_NONE;
    core->view_change_sent = false;
    core->new_view.present = false;
    core->installed = 0;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        core->latest[seat].present = core->staged[seat].present = false;
        core->current[seat].present = core->waiting[seat].present = false;
    }
    core->stable.sequence = core->executed;
    core->stable.digest = core->head;
    core->stable.count = 0;
    core->pending.sequence = 0;
    pbft_low_set(core, core->executed);
    core->next_sequence = core->executed + 1;
}

bool pbft_epoch_advance(struct pbft *core)
{
    if (core->executed != core->epoch_end || core->change_count == 0) return false;
    uint32_t made = 0;
    for (; made < core->change_count && core->changes[made].effective == core->epoch_end; made++) {
        const struct message_change *change = &core->changes[made];
        struct message_member *member = &core->members[change->seat];
        apply(member, change);
        if (core->started) pbft_pool_drop_member(core, change->seat);
    }
    core->change_count -= made;
    memmove(core->changes, core->changes + made, core->change_count * sizeof *core->changes);
    core->epoch++;
    core->epoch_start = core->epoch_end;
    core->epoch_end = core->change_count > 0 ? core->changes[0].effective : UINT64_MAX;
    pbft_members_set(core);
    begin_views(core);
    if (!core->started) return true;
    pbft_timer_stop(core, PBFT_TIMER_VIEW);
    pbft_config_effect(core);
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_VIEW);
    effect->view = core->view;
    pbft_recovery_epoch(core);
    /* Who is a member only now needs some. Those of whoever had its seat before stay used, or requests of that time could be repeated. */
    if (core->number_next <= core->members[core->self].number_last)
        core->number_next = core->members[core->self].number_last + 1;
    pbft_pool_reserve_numbers(core);
    return true;
}

/* As execution stands; members that are not active any more stay in it for their numbers. */
void pbft_snapshot_message(struct pbft *core, struct message *out)
{
    uint32_t count = 0;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        const struct message_member *member = &core->members[seat];
        if (member->active || member->number_last > 0) core->snapshot_members[count++] = *member;
    }
    out->view = message_view(core->epoch, 0);
    out->sequence = core->executed;
    out->digest = core->head;
    memcpy(core->snapshot_changes, core->changes, sizeof core->snapshot_changes);
    out->snapshot = (struct message_snapshot){.epoch_start = core->epoch_start,
                                              .members = core->snapshot_members,
                                              .member_count = count,
                                              .changes = core->snapshot_changes,
                                              .change_count = core->change_count};
}

bool pbft_snapshot_restore(struct pbft *core, const struct message *message)
{
    const struct message_snapshot *snapshot = &message->snapshot;
    uint32_t active = 0;
    for (uint32_t i = 0; i < snapshot->member_count; i++) active += snapshot->members[i].active;
    if (active < PBFT_MEMBERS_MIN || message->sequence % core->config.checkpoint_interval != 0 ||
        snapshot->epoch_start > message->sequence)
        return false;
    for (int seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        core->members[seat] = (struct message_member){.seat = (uint8_t)seat};
    for (uint32_t i = 0; i < snapshot->member_count; i++)
        core->members[snapshot->members[i].seat] = snapshot->members[i];
    core->change_count = snapshot->change_count;
    if (snapshot->change_count > 0)
        memcpy(core->changes, snapshot->changes, snapshot->change_count * sizeof *core->changes);
    core->epoch = message_epoch(message->view);
    core->executed = core->durable_executed = snapshot->epoch_start;
    core->epoch_start = snapshot->epoch_start;
    core->epoch_end = snapshot->change_count > 0 ? core->changes[0].effective : UINT64_MAX;
    pbft_members_set(core);
    core->head = message->digest;
    begin_views(core);
    core->executed = core->durable_executed = message->sequence;
    core->next_sequence = core->executed + 1;
    return true;
}
