/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence's way to its certificate (OSDI 1999, section 4.2), with two simplifications that signatures allow:
 *
 * - A PRE-PREPARE is signed exactly as its primary's PREPARE would be, and is one. A prepared certificate is a
 *   quorum of PREPAREs of one (view, sequence, digest), nothing else.
 * - A quorum of COMMITs of one (view, sequence, digest) commits, whether or not this replica was prepared.
 *
 * Slots are advanced after every event, those that something happened to. Each step of a sequence waits until the
 * record of the one before is durable: accepted -> PREPARE, prepared -> COMMIT.
 */
#include "federation/pbft_private.h"

void pbft_slot_clear(struct pbft_slot *slot, uint64_t sequence)
{
    slot->sequence = sequence;
    slot->dirty = false;
    slot->bodies[0].present = slot->bodies[1].present = false;
    slot->proposed = slot->certified = slot->voted = slot->commit_sent = false;
    slot->accept_token = slot->prepared_token = 0;
    slot->prepared.present = slot->committed.present = false;
    for (int seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        slot->prepares[seat].present = slot->commits[seat].present = false;
}

struct pbft_slot *pbft_slot_get(struct pbft *core, uint64_t sequence)
{
    if (sequence <= core->low || sequence > pbft_sequence_max(core)) return NULL;
    struct pbft_slot *slot = &core->slots[sequence % core->config.limits.window];
    if (slot->sequence != sequence) {
        assert(slot->sequence <= core->low);
        if (slot->used == core->steps) return NULL; /* effects of this step point into it */
        pbft_slot_clear(slot, sequence);
    }
    return slot;
}

struct pbft_body *pbft_slot_body(struct pbft *core, struct pbft_slot *slot,
                                 const struct message_digest *digest)
{
    if (message_digest_equal(digest, &core->null_body.digest)) return &core->null_body;
    for (int i = 0; i < 2; i++)
        if (slot->bodies[i].present && message_digest_equal(&slot->bodies[i].digest, digest))
            return &slot->bodies[i];
    return NULL;
}

/* Content that is committed, or else prepared, is kept: others may need it from here (TOCS 2002, section 2.4). */
static bool must_keep(const struct pbft_slot *slot, const struct pbft_body *body)
{
    const struct pbft_certificate *why =
        slot->committed.present ? &slot->committed : &slot->prepared;
    return body->present && why->present && message_digest_equal(&why->digest, &body->digest);
}

struct pbft_body *pbft_slot_spare(struct pbft_slot *slot)
{
    if (!slot->bodies[0].present) return &slot->bodies[0];
    if (!slot->bodies[1].present) return &slot->bodies[1];
    return must_keep(slot, &slot->bodies[0]) ? &slot->bodies[1] : &slot->bodies[0];
}

struct pbft_body *pbft_slot_place(struct pbft *core, struct pbft_slot *slot,
                                  const struct message_batch *batch,
                                  const struct message_digest *digest)
{
    struct pbft_body *body = pbft_slot_body(core, slot, digest);
    if (body != NULL) return body;
    body = pbft_slot_spare(slot);
    pbft_body_copy(body, batch, digest);
    slot->dirty = true;
    slot->used = core->steps;
    return body;
}

void pbft_accept_proposal(struct pbft *core, struct pbft_slot *slot, uint64_t view,
                          const struct message_digest *digest, bool certified)
{
    assert(view == core->view && !core->changing);
    slot->proposed = true;
    slot->certified = certified;
    slot->proposal_view = view;
    slot->proposal = *digest;
    slot->accept_token = 0;
    slot->voted = false;
    slot->dirty = true;
}

/* Verdicts known from the queues are taken over; for the others the shell is asked. */
static void judge_batch(struct pbft *core, const struct pbft_slot *slot, struct pbft_body *body)
{
    body->asked = true;
    for (uint32_t i = 0; i < body->request_count; i++) {
        const struct message_request *request = &body->requests[i];
        const struct pbft_entry *entry =
            pbft_pool_find(core, request->seat, request->number, &request->digest);
        if (body->verdicts[i] != PBFT_UNJUDGED) continue;
        enum pbft_verdict verdict = PBFT_UNJUDGED;
        if (entry != NULL) {
            verdict = entry->verdict;
        } else {
            struct message *message = pbft_message_new(core, MESSAGE_PRE_PREPARE);
            message->view = slot->proposal_view;
            message->sequence = slot->sequence;
            message->digest = body->digest;
            pbft_body_batch(body, &message->batch);
            verdict = pbft_judge(core, message, i);
        }
        if (verdict != PBFT_VALID) continue;
        body->verdicts[i] = PBFT_VALID;
        body->unjudged--;
    }
}

static bool requests_are_members(const struct pbft *core, const struct message_batch *batch)
{
    for (uint32_t i = 0; i < batch->request_count; i++)
        if (!pbft_is_active(core, batch->requests[i].seat)) return false;
    return true;
}

static void vote_store(struct pbft_vote *vote, uint64_t view, const struct message_digest *digest,
                       const uint8_t *signature)
{
    vote->present = true;
    vote->view = view;
    vote->digest = *digest;
    memcpy(vote->signature, signature, MESSAGE_SIGNATURE_BYTES);
}

static bool matches(const struct pbft *core, const struct pbft_vote *votes, uint8_t seat,
                    uint64_t view, const struct message_digest *digest)
{
    return votes[seat].present && pbft_is_active(core, seat) &&
           (votes[seat].view == view || PBFT_MUTATION(votes_of_any_view)) &&
           message_digest_equal(&votes[seat].digest, digest);
}

void pbft_on_pre_prepare(struct pbft *core, const struct message *message)
{
    if (core->diverged || !pbft_wants(core, message)) return;
    struct pbft_slot *slot = pbft_slot_get(core, message->sequence);
    if (slot == NULL) return;
    if (core->changing) {
        /* It may wait long for its view, and meanwhile commits what the others agree on without it. */
        (void)pbft_slot_place(core, slot, &message->batch, &message->digest);
        return;
    }
    if (!requests_are_members(core, &message->batch)) {
        pbft_blame(core, message->sender, PBFT_FAULT_MALFORMED);
        pbft_view_change_start(core, core->view + 1);
        return;
    }
    if (pbft_slot_current(core, slot) && !PBFT_MUTATION(second_pre_prepare)) {
        /* Two proposals under one signature: no need to wait for the time-out. */
        pbft_blame(core, message->sender, PBFT_FAULT_EQUIVOCATION);
        pbft_view_change_start(core, core->view + 1);
        return;
    }
    if (slot->committed.present &&
        !message_digest_equal(&slot->committed.digest, &message->digest)) {
        /* Committed in a later view, it says nothing against a proposal of this one. */
        if (slot->committed.view <= message->view)
            pbft_blame(core, message->sender, PBFT_FAULT_EQUIVOCATION);
        return;
    }
    if (message->batch.request_count == 0 && !pbft_null_acceptable(core)) {
        pbft_view_change_start(core, core->view + 1);
        return;
    }
    struct pbft_body *body = pbft_slot_place(core, slot, &message->batch, &message->digest);
    pbft_accept_proposal(core, slot, message->view, &message->digest, false);
    vote_store(&slot->prepares[message->sender], message->view, &message->digest,
               message->signature);
    pbft_pool_mark(core, body);
}

void pbft_on_vote(struct pbft *core, const struct message *message)
{
    struct pbft_slot *slot = pbft_slot_get(core, message->sequence);
    if (slot == NULL || message->sender == core->self) return;
    struct pbft_vote *vote = message->kind == MESSAGE_PREPARE ? &slot->prepares[message->sender]
                                                              : &slot->commits[message->sender];
    if (vote->present && vote->view >= message->view) {
        if (vote->view == message->view && !message_digest_equal(&vote->digest, &message->digest))
            pbft_blame(core, message->sender, PBFT_FAULT_EQUIVOCATION);
        return;
    }
    vote_store(vote, message->view, &message->digest, message->signature);
    slot->dirty = true;
}

/* A certificate out of matching votes of active members; false without a quorum of them. */
static bool certify(const struct pbft *core, const struct pbft_vote *votes, uint64_t view,
                    const struct message_digest *digest, struct pbft_certificate *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < core->n; i++)
        count += matches(core, votes, core->order[i], view, digest);
    if (count < (PBFT_MUTATION(certified_with_f1) ? core->f + 1 : core->quorum)) return false;
    out->present = true;
    out->view = view;
    out->digest = *digest;
    out->count = 0;
    for (uint32_t i = 0; i < core->n && out->count < core->quorum; i++) {
        const uint8_t seat = core->order[i];
        if (!matches(core, votes, seat, view, digest)) continue;
        out->votes[out->count].seat = seat;
        memcpy(out->votes[out->count++].signature, votes[seat].signature, MESSAGE_SIGNATURE_BYTES);
    }
    return true;
}

static struct message *vote_message(struct pbft *core, enum message_kind kind,
                                    const struct pbft_slot *slot, uint64_t view,
                                    const struct message_digest *digest)
{
    struct message *message = pbft_message_new(core, kind);
    message->view = view;
    message->sequence = slot->sequence;
    message->digest = *digest;
    return message;
}

/* Accepted: written down first, then voted for, once every request of it is judged valid. */
static void advance_proposal(struct pbft *core, struct pbft_slot *slot)
{
    struct pbft_body *body = pbft_slot_body(core, slot, &slot->proposal);
    if (!pbft_slot_current(core, slot) || body == NULL || !pbft_may_vote(core)) return;
    if (slot->accept_token == 0) {
        struct message *record =
            vote_message(core, MESSAGE_PRE_PREPARE, slot, slot->proposal_view, &slot->proposal);
        record->sender = pbft_primary(core, slot->proposal_view);
        /* Zeros where there is none: the own one is made anew, and a NEW_VIEW's proposals have none. */
        if (matches(core, slot->prepares, record->sender, record->view, &record->digest))
            memcpy(record->signature, slot->prepares[record->sender].signature,
                   sizeof record->signature);
        pbft_body_batch(body, &record->batch);
        slot->accept_token = pbft_persist(core, record, record->view, record->sequence);
    }
    if (!slot->certified && body->unjudged > 0 && !body->asked) {
        if (core->judges + body->request_count <= core->judges_max)
            judge_batch(core, slot, body);
        else
            slot->dirty = true; /* in a later step: this one has asked for enough */
    }
    if (slot->voted || !pbft_durable(core, slot->accept_token)) return;
    if (!slot->certified && body->refused && !PBFT_MUTATION(verdict_ignored)) {
        pbft_blame(core, pbft_primary(core, core->view), PBFT_FAULT_INVALID_REQUEST);
        pbft_view_change_start(core, core->view + 1);
        return;
    }
    if (!slot->certified && body->unjudged > 0 && !PBFT_MUTATION(verdict_ignored)) return;
    const bool proposes = pbft_is_primary(core) && !slot->certified;
    struct message *vote = vote_message(core, proposes ? MESSAGE_PRE_PREPARE : MESSAGE_PREPARE,
                                        slot, slot->proposal_view, &slot->proposal);
    pbft_sign_vote(core, MESSAGE_PREPARE, vote->view, vote->sequence, &vote->digest,
                   vote->signature);
    vote_store(&slot->prepares[core->self], vote->view, &vote->digest, vote->signature);
    if (proposes) pbft_body_batch(body, &vote->batch);
    slot->voted = true;
    pbft_send(core, PBFT_ALL, vote);
}

/* OSDI 1999, section 4.2, predicate prepared; then COMMIT, when that is written down. */
static void advance_prepared(struct pbft *core, struct pbft_slot *slot)
{
    if (!pbft_slot_current(core, slot) || !pbft_may_vote(core)) return;
    if (slot->accept_token == 0) return; /* the content is not here */
    const bool prepared = slot->prepared.present && slot->prepared.view == core->view;
    if (!prepared) {
        if (!certify(core, slot->prepares, core->view, &slot->proposal, &slot->prepared)) return;
        struct message *record =
            vote_message(core, MESSAGE_PREPARED, slot, core->view, &slot->proposal);
        record->certificate =
            (struct message_certificate){slot->prepared.votes, slot->prepared.count};
        slot->prepared_token = pbft_persist(core, record, record->view, record->sequence);
        slot->commit_sent = false;
    }
    if (slot->commit_sent || !pbft_durable(core, slot->prepared_token)) return;
    struct message *vote = vote_message(core, MESSAGE_COMMIT, slot, core->view, &slot->proposal);
    pbft_sign_vote(core, MESSAGE_COMMIT, vote->view, vote->sequence, &vote->digest,
                   vote->signature);
    vote_store(&slot->commits[core->self], vote->view, &vote->digest, vote->signature);
    slot->commit_sent = true;
    pbft_send(core, PBFT_ALL, vote);
}

static void advance_committed(struct pbft *core, struct pbft_slot *slot)
{
    uint32_t present = 0;
    if (slot->committed.present) return;
    for (uint32_t i = 0; i < core->n; i++) present += slot->commits[core->order[i]].present;
    if (present < core->quorum) return;
    /* Each (view, digest) that someone voted for. */
    for (uint32_t i = 0; i < core->n; i++) {
        const struct pbft_vote *vote = &slot->commits[core->order[i]];
        if (!vote->present) continue;
        bool first = true;
        for (uint32_t before = 0; before < i && first; before++)
            first = !matches(core, slot->commits, core->order[before], vote->view, &vote->digest);
        if (first && certify(core, slot->commits, vote->view, &vote->digest, &slot->committed))
            return;
    }
}

void pbft_slots_advance(struct pbft *core)
{
    for (uint64_t s = core->low + 1; s <= core->low + core->config.limits.window; s++) {
        struct pbft_slot *slot = &core->slots[s % core->config.limits.window];
        if (slot->sequence != s || !slot->dirty) continue;
        slot->dirty = false;
        slot->used = core->steps;
        if (slot->proposed) {
            advance_proposal(core, slot);
            advance_prepared(core, slot);
        }
        advance_committed(core, slot);
    }
}
