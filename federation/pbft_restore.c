/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records back into state. They are our own, but they come from a disk: what does not fit together is an error, not an
 * assertion. What belongs to another epoch or is below the watermark by now is passed over.
 */
#include "federation/pbft_private.h"

static enum sov_error damaged(const struct message *record, struct sov_errbuf *err,
                              const char *what)
{
    return sov_fail(err, SOV_ERR_FORMAT, "stored %s of sequence %llu: %s",
                    message_kind_name(record->kind), (unsigned long long)record->sequence, what);
}

static enum sov_error restore_entry(struct pbft *core, const struct message *record,
                                    struct sov_errbuf *err)
{
    if (record->sequence != core->executed + 1)
        return damaged(record, err, "does not follow what was restored before");
    if (message_epoch(record->view) != core->epoch || !pbft_certified(core, &record->certificate))
        return damaged(record, err, "has no quorum of its time's members");
    struct pbft_body *body = &core->fetches[0].body;
    pbft_body_copy(body, &record->batch, &record->digest);
    pbft_execute_apply(core, record->sequence, &record->batch, &record->digest, body->executed);
    core->durable_executed = core->executed;
    core->next_sequence = core->executed + 1;
    core->steps++; /* no effects point anywhere */
    struct pbft_slot *slot = pbft_slot_get(core, record->sequence);
    if (slot != NULL) {
        pbft_certificate_copy(&slot->committed, record->view, &record->digest,
                              &record->certificate);
        pbft_slot_place(core, slot, &record->batch, &record->digest);
    }
    if (core->executed % core->config.checkpoint_interval == 0) {
        pbft_checkpoint_reached(core);
        pbft_stable_adopt(core);
    }
    while (pbft_epoch_advance(core)) continue;
    return SOV_OK;
}

static enum sov_error restore_snapshot(struct pbft *core, const struct message *record,
                                       struct sov_errbuf *err)
{
    if (core->executed != 0) return damaged(record, err, "comes twice or too late");
    if (!pbft_snapshot_restore(core, record)) return damaged(record, err, "cannot be");
    pbft_checkpoint_reached(core);
    while (pbft_epoch_advance(core)) continue;
    return SOV_OK;
}

static enum sov_error restore_stable(struct pbft *core, const struct message *record,
                                     struct sov_errbuf *err)
{
    if (message_epoch(record->view) != core->epoch || record->sequence <= core->low) return SOV_OK;
    if (!pbft_stable_proof(core, record->sequence, &record->certificate))
        return damaged(record, err, "has no quorum");
    /* The snapshot of a checkpoint that was restored from log entries was never written: they lead there again. */
    if (record->sequence > core->executed) {
        pbft_stable_learn(core, record);
        return SOV_OK;
    }
    core->stable.sequence = record->sequence;
    core->stable.digest = record->digest;
    core->stable.count = record->certificate.count;
    memcpy(core->stable.votes, record->certificate.votes,
           record->certificate.count * sizeof *record->certificate.votes);
    pbft_low_set(core, record->sequence);
    return SOV_OK;
}

static enum sov_error restore_view_change(struct pbft *core, const struct message *record,
                                          struct sov_errbuf *err)
{
    if (message_epoch(record->view) != core->epoch) return SOV_OK;
    if (!pbft_view_change_valid(core, record)) return damaged(record, err, "proves nothing");
    pbft_view_change_copy(&core->staged[record->sender], record);
    if (record->sender != core->self || record->view <= core->view) return SOV_OK;
    pbft_view_change_copy(&core->latest[core->self], record);
    core->view = record->view;
    core->changing = true;
    core->view_change_token = PBFT_RESTORED;
    core->view_change_sent = false;
    return SOV_OK;
}

static enum sov_error restore_new_view(struct pbft *core, const struct message *record,
                                       struct sov_errbuf *err)
{
    if (message_epoch(record->view) != core->epoch || record->view < core->view ||
        (record->view == core->view && !core->changing))
        return SOV_OK;
    if (PBFT_MUTATION(forgets_view)) return SOV_OK;
    if (!pbft_new_view_restore(core, record))
        return damaged(record, err, "the view changes it stands on are not there");
    return SOV_OK;
}

static void restore_prepared(struct pbft *core, const struct message *record)
{
    if (message_epoch(record->view) != core->epoch) return;
    struct pbft_slot *slot = pbft_slot_get(core, record->sequence);
    if (slot == NULL || (slot->prepared.present && slot->prepared.view >= record->view)) return;
    pbft_certificate_copy(&slot->prepared, record->view, &record->digest, &record->certificate);
    slot->prepared_token = PBFT_RESTORED;
    slot->commit_sent = false;
}

static bool is_signed(const struct message *record)
{
    static const uint8_t zeros[MESSAGE_SIGNATURE_BYTES];
    return memcmp(record->signature, zeros, sizeof zeros) != 0;
}

static void restore_pre_prepare(struct pbft *core, const struct message *record)
{
    if (message_epoch(record->view) != core->epoch) return;
    core->steps++;
    struct pbft_slot *slot = pbft_slot_get(core, record->sequence);
    if (slot == NULL) return;
    if (core->next_sequence <= record->sequence && record->view == core->view)
        core->next_sequence = record->sequence + 1;
    pbft_slot_place(core, slot, &record->batch, &record->digest);
    if (record->view != core->view || core->changing) return;
    /* What the NEW_VIEW decides is certified; the rest is judged again before it is voted for. */
    const bool decided = core->new_view.present && record->sequence <= core->selection.high;
    pbft_accept_proposal(core, slot, record->view, &record->digest, decided);
    slot->accept_token = PBFT_RESTORED;
    if (is_signed(record) && record->sender != core->self) {
        struct pbft_vote *vote = &slot->prepares[record->sender];
        vote->present = true;
        vote->view = record->view;
        vote->digest = record->digest;
        memcpy(vote->signature, record->signature, sizeof vote->signature);
    }
}

enum sov_error pbft_restore(struct pbft *core, const struct message *record, struct sov_errbuf *err)
{
    assert(!core->started);
    core->steps++;
    core->restored_any = true;
    switch (record->kind) {
    case MESSAGE_NUMBERS:
        core->restored_numbers = true;
        if (PBFT_MUTATION(forgets_numbers)) return SOV_OK;
        core->number_next = record->sequence + 1;
        core->number_reserved = core->number_granted = record->sequence;
        return SOV_OK;
    case MESSAGE_SNAPSHOT: return restore_snapshot(core, record, err);
    case MESSAGE_STABLE: return restore_stable(core, record, err);
    case MESSAGE_LOG_ENTRY: return restore_entry(core, record, err);
    case MESSAGE_VIEW_CHANGE:
        return PBFT_MUTATION(forgets_view) ? SOV_OK : restore_view_change(core, record, err);
    case MESSAGE_NEW_VIEW: return restore_new_view(core, record, err);
    case MESSAGE_PREPARED:
        if (!PBFT_MUTATION(forgets_prepared)) restore_prepared(core, record);
        return SOV_OK;
    case MESSAGE_PRE_PREPARE:
        if (!PBFT_MUTATION(forgets_accepted)) restore_pre_prepare(core, record);
        return SOV_OK;
    default: return damaged(record, err, "is not a kind that is stored");
    }
}

/* At the start: everything may go on; what was accepted is judged again, unless it was certified. */
void pbft_restore_finish(struct pbft *core)
{
    core->steps++;
    /* A member writes NUMBERS before anything else, unless it recovers: it did not get to the end of that. */
    if (core->restored_any && !core->restored_numbers && pbft_is_active(core, core->self))
        core->recovering = true;
    if (core->new_view.present && !core->changing) core->installed = core->selection.low;
    for (uint32_t i = 0; i < core->config.limits.window; i++) {
        struct pbft_slot *slot = &core->slots[i];
        if (slot->sequence <= core->low) continue;
        slot->dirty = true;
    }
}
