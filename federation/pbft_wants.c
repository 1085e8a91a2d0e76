/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nothing can come of, whoever signed it: what it would show is shown, or it is of another time. A vote that is
 * dropped here accuses nobody either, should it contradict an earlier one; the certificate stands without it.
 *
 * Verifying costs the receiver more than it costs a faulty sender to say the same things again, so this comes
 * first where one message has many signatures.
 */
#include "federation/pbft_private.h"

/* The slot, when it is of this sequence; NULL: nothing of it is here. */
static const struct pbft_slot *slot_of(const struct pbft *core, uint64_t sequence)
{
    const struct pbft_slot *slot = &core->slots[sequence % core->config.limits.window];
    return slot->sequence == sequence ? slot : NULL;
}

static bool wants_vote(const struct pbft *core, const struct message *message)
{
    if (message->sequence <= core->low) return false;
    if (message->sequence > core->low + core->config.limits.window) return false;
    const struct pbft_slot *slot = slot_of(core, message->sequence);
    if (slot == NULL) return true;
    if (slot->committed.present) return false;
    return message->kind == MESSAGE_COMMIT || !slot->prepared.present ||
           slot->prepared.view < message->view;
}

/* The primary's of this view; or, for who wants a later one, content of an earlier one (pbft_on_pre_prepare). */
static bool wants_proposal(const struct pbft *core, const struct message *message)
{
    if (message->sender != pbft_primary(core, message->view)) return false;
    if (message->sequence <= core->low || message->sequence > pbft_sequence_max(core)) return false;
    const struct pbft_slot *slot = slot_of(core, message->sequence);
    if (core->changing)
        return message->view < core->view &&
               (slot == NULL || !slot->bodies[0].present || !slot->bodies[1].present);
    if (message->view != core->view || message->sender == core->self) return false;
    /* Sequences that the NEW_VIEW decides have their proposal from it. */
    if (core->new_view.present && message->sequence <= core->selection.high) return false;
    return slot == NULL || !pbft_slot_current(core, slot) ||
           !message_digest_equal(&slot->proposal, &message->digest);
}

static bool wants_entry(const struct pbft *core, const struct message *message)
{
    const uint64_t sequence = message->sequence;
    /* Who was asked for it has answered, even if it is of no use any more. */
    if (core->fetches[sequence % core->config.transfer_window].sequence == sequence) return true;
    return sequence > core->executed && sequence - core->executed <= core->config.transfer_window;
}

static bool wants_request(const struct pbft *core, const struct message_request *request)
{
    return request->seat != core->self &&
           !pbft_number_executed(core, request->seat, request->number);
}

bool pbft_wants(const struct pbft *core, const struct message *message)
{
    const bool in_force = message_epoch(message->view) == core->epoch;
    switch (message->kind) {
    case MESSAGE_REQUEST: return wants_request(core, &message->batch.requests[0]);
    case MESSAGE_PRE_PREPARE: return in_force && wants_proposal(core, message);
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT: return in_force && wants_vote(core, message);
    case MESSAGE_LOG_ENTRY: return in_force && wants_entry(core, message);
    case MESSAGE_STABLE:
        return in_force && message->sequence > core->low &&
               message->sequence > core->pending.sequence;
    case MESSAGE_VIEW_CHANGE: return in_force;
    default: return true;
    }
}
