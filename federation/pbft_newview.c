/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering a view (OSDI 1999, section 4.4). A NEW_VIEW names the VIEW_CHANGEs it stands on; which batches go on follows
 * from them by a rule that everyone applies for himself, so a NEW_VIEW says nothing that could be wrong:
 *
 *     low  = the highest stable checkpoint proven in the set, high = the highest sequence prepared in it
 *     for each sequence between: the batch prepared in the highest view; the null batch where none was
 *
 * A batch that was committed anywhere was prepared by a quorum, which shares a correct member with every set of a
 * quorum of VIEW_CHANGEs: so it is found.
 *
 * Content. A new primary takes only VIEW_CHANGEs into the set whose batches it has: a faulty member could name a batch
 * that was prepared, never committed, and whose content it keeps to itself. Those of correct members come with
 * content, for who has prepared a batch keeps it; they are enough for a quorum.
 */
#include "federation/pbft_private.h"

void pbft_select(const struct pbft_view_change *changes, uint64_t sources,
                 struct pbft_selection *out)
{
    struct message_prepared prepared;
    out->sources = sources;
    out->low = out->high = 0;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        if (pbft_bit(sources, seat) && changes[seat].message.sequence > out->low)
            out->low = changes[seat].message.sequence;
    out->high = out->low;
    for (int i = 0; i < PBFT_WINDOW_MAX; i++) out->null[i] = true;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        uint32_t cursor = 0;
        if (!pbft_bit(sources, seat)) continue;
        while (message_prepared_next(&changes[seat].message.prepared, &cursor, &prepared)) {
            if (prepared.sequence <= out->low) continue;
            const uint64_t i = prepared.sequence - out->low - 1;
            assert(i < PBFT_WINDOW_MAX); /* its VIEW_CHANGE's own low is not above ours */
            if (prepared.sequence > out->high) out->high = prepared.sequence;
            if (PBFT_MUTATION(null_though_prepared)) continue;
            if (!out->null[i] && out->views[i] >= prepared.view) continue;
            out->null[i] = false;
            out->views[i] = prepared.view;
            out->digests[i] = prepared.digest;
        }
    }
}

static const struct message_digest *
selected(const struct pbft *core, const struct pbft_selection *selection, uint64_t sequence)
{
    const uint64_t i = sequence - selection->low - 1;
    return selection->null[i] ? &core->null_body.digest : &selection->digests[i];
}

/* The first sequence whose content is not here; 0: all is. */
static uint64_t missing(struct pbft *core, const struct pbft_selection *selection, uint64_t after)
{
    for (uint64_t s = after + 1; s <= selection->high; s++) {
        if (s <= core->low) continue;
        struct pbft_slot *slot = pbft_slot_get(core, s);
        if (slot == NULL || pbft_slot_body(core, slot, selected(core, selection, s)) == NULL)
            return s;
    }
    return 0;
}

/* The seats among them that say this batch was prepared there. */
static uint64_t who_names(const struct pbft *core, uint64_t sources, uint64_t sequence,
                          const struct message_digest *digest)
{
    uint64_t who = 0;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        struct message_prepared prepared;
        uint32_t cursor = 0;
        if (!pbft_bit(sources, seat)) continue;
        while (message_prepared_next(&core->latest[seat].message.prepared, &cursor, &prepared))
            if (prepared.sequence == sequence && message_digest_equal(&prepared.digest, digest))
                who |= (uint64_t)1 << seat;
    }
    return who;
}

void pbft_new_view_message(struct pbft *core, struct message *out)
{
    out->kind = MESSAGE_NEW_VIEW;
    out->sender = pbft_primary(core, core->new_view.view);
    out->view = core->new_view.view;
    out->new_view = (struct message_new_view){core->new_view.references, core->new_view.count};
    memcpy(out->signature, core->new_view.signature, sizeof out->signature);
}

static void fetch_content(struct pbft *core, uint64_t sequence, const struct message_digest *digest)
{
    struct message *ask = pbft_message_new(core, MESSAGE_FETCH_BATCH);
    ask->sequence = sequence;
    ask->digest = *digest;
    pbft_send(core, PBFT_ALL, ask);
}

/* Puts the NEW_VIEW's batches into their slots, as far as the window reaches; the rest when it moves. */
void pbft_new_view_install(struct pbft *core)
{
    if (!core->new_view.present || core->changing || core->new_view.view != core->view) return;
    uint64_t s = core->installed > core->low ? core->installed : core->low;
    for (s++; s <= core->selection.high; s++) {
        const struct message_digest *digest = selected(core, &core->selection, s);
        struct pbft_slot *slot = pbft_slot_get(core, s);
        if (slot == NULL) return;
        if (slot->committed.present && !message_digest_equal(&slot->committed.digest, digest)) {
            /* Committed in this view or a later one, by another NEW_VIEW: only its maker is at fault. */
            if (slot->committed.view >= core->view) {
                core->installed = s;
                continue;
            }
            pbft_diverge(core);
            return;
        }
        pbft_accept_proposal(core, slot, core->view, digest, true);
        core->installed = s;
        const struct pbft_body *body = pbft_slot_body(core, slot, digest);
        if (body != NULL)
            pbft_pool_mark(core, body);
        else
            fetch_content(core, s, digest);
    }
}

/* new_view and current are set. */
static void enter(struct pbft *core)
{
    uint64_t sources = 0;
    for (uint32_t i = 0; i < core->new_view.count; i++)
        sources |= (uint64_t)1 << core->new_view.references[i].seat;
    pbft_select(core->current, sources, &core->selection);
    core->view = core->new_view.view;
    core->changing = false;
    core->progress = core->view_nulls = 0;
    core->view_change_token = PBFT_NONE;
    core->installed = core->selection.low;
    uint64_t last = core->selection.high > core->low ? core->selection.high : core->low;
    core->next_sequence = last + 1;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        if (core->waiting[seat].view <= core->view) core->waiting[seat].present = false;
    for (uint8_t seat = 0; seat < MESSAGE_SEATS_MAX && PBFT_MUTATION(numbers_lost); seat++)
        core->members[seat].number_last = core->members[seat].numbers_below = 0;
    pbft_timer_stop(core, PBFT_TIMER_VIEW);
    if (!core->started) return;
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++)
        if (pbft_bit(sources, seat) && seat != core->self)
            pbft_persist(core, &core->current[seat].message, core->view, seat);
    struct message *record = pbft_message_new(core, MESSAGE_NEW_VIEW);
    pbft_new_view_message(core, record);
    core->new_view_token = pbft_persist(core, record, core->view, 0);
    core->new_view_sent = record->sender != core->self;
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_VIEW);
    effect->view = core->view;
    effect->changing = false;
    pbft_new_view_install(core);
}

void pbft_new_view_durable(struct pbft *core)
{
    if (!core->new_view.present || core->new_view_sent || core->changing ||
        core->new_view.view != core->view || !pbft_durable(core, core->new_view_token))
        return;
    core->new_view_sent = true;
    struct message *message = pbft_message_new(core, MESSAGE_NEW_VIEW);
    pbft_new_view_message(core, message);
    pbft_send(core, PBFT_ALL, message);
}

/* The new primary, when a quorum wants the view and the content is here. */
static void make(struct pbft *core)
{
    struct pbft_selection *attempt = &core->attempt;
    uint64_t sources = pbft_view_change_sources(core, core->view);
    if (!pbft_bit(sources, core->self)) return;
    for (;;) {
        if ((uint32_t)__builtin_popcountll(sources) < core->quorum) return;
        pbft_select(core->latest, sources, attempt);
        if (core->low < attempt->low) return; /* behind: the log comes first */
        const uint64_t lacks = missing(core, attempt, attempt->low);
        if (lacks == 0) break;
        /* Effects of this step point into its slot: then in the next one. Else someone names it, and less are left. */
        if (pbft_slot_get(core, lacks) == NULL) return;
        sources &= ~who_names(core, sources, lacks, selected(core, attempt, lacks));
    }
    struct pbft_new_view *made = &core->new_view;
    *made = (struct pbft_new_view){.present = true, .view = core->view};
    for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        if (!pbft_bit(sources, seat)) continue;
        struct message_reference *reference = &made->references[made->count++];
        reference->seat = seat;
        memcpy(reference->identity, core->latest[seat].message.identity.bytes,
               sizeof reference->identity);
        pbft_view_change_copy(&core->current[seat], &core->latest[seat].message);
    }
    struct message_digest signs;
    const struct message_new_view view = {made->references, made->count};
    message_new_view_digest(&core->config.federation, made->view, &view, &signs);
    core->config.sign(core->config.user, &signs, made->signature);
    enter(core);
}

static const struct pbft_view_change *referenced(const struct pbft *core, uint64_t view,
                                                 const struct message_reference *reference)
{
    const struct pbft_view_change *places[] = {&core->latest[reference->seat],
                                               &core->staged[reference->seat]};
    for (int i = 0; i < 2; i++)
        if (places[i]->present && places[i]->message.view == view &&
            memcmp(places[i]->message.identity.bytes, reference->identity, MESSAGE_DIGEST_BYTES) ==
                0)
            return places[i];
    return NULL;
}

/* A received NEW_VIEW whose VIEW_CHANGEs are all here is entered. */
static bool take(struct pbft *core, struct pbft_new_view *waiting)
{
    for (uint32_t i = 0; i < waiting->count; i++)
        if (referenced(core, waiting->view, &waiting->references[i]) == NULL) return false;
    for (uint32_t i = 0; i < waiting->count; i++)
        pbft_view_change_copy(&core->current[waiting->references[i].seat],
                              &referenced(core, waiting->view, &waiting->references[i])->message);
    core->new_view = *waiting;
    waiting->present = false;
    enter(core);
    return true;
}

bool pbft_new_view_restore(struct pbft *core, const struct message *message)
{
    struct pbft_new_view *waiting = &core->waiting[message->sender];
    *waiting = (struct pbft_new_view){
        .present = true, .view = message->view, .count = message->new_view.count};
    memcpy(waiting->references, message->new_view.references,
           waiting->count * sizeof *waiting->references);
    memcpy(waiting->signature, message->signature, sizeof waiting->signature);
    if (!take(core, waiting)) return false;
    core->new_view_token = PBFT_RESTORED;
    core->new_view_sent = true; /* or it is asked for */
    return true;
}

void pbft_new_view_try(struct pbft *core)
{
    if (core->diverged) return;
    for (uint32_t i = 0; i < core->n; i++) {
        struct pbft_new_view *waiting = &core->waiting[core->order[i]];
        if (waiting->present && waiting->view >= core->view &&
            (waiting->view > core->view || core->changing) && take(core, waiting))
            return; /* one a step: effects point to the VIEW_CHANGEs it stands on */
    }
    if (core->changing && pbft_may_vote(core) && pbft_is_primary(core) && core->view_change_sent)
        make(core);
    pbft_new_view_install(core);
}

void pbft_on_new_view(struct pbft *core, const struct message *message)
{
    if (message->sender != pbft_primary(core, message->view) || message->sender == core->self) {
        if (message->sender != core->self) pbft_blame(core, message->sender, PBFT_FAULT_NEW_VIEW);
        return;
    }
    if (message->view < core->view || (message->view == core->view && !core->changing)) return;
    uint32_t count = 0;
    for (uint32_t i = 0; i < message->new_view.count; i++)
        count += pbft_is_active(core, message->new_view.references[i].seat);
    if ((count < core->quorum && !PBFT_MUTATION(new_view_of_few)) ||
        count != message->new_view.count) {
        pbft_blame(core, message->sender, PBFT_FAULT_NEW_VIEW);
        return;
    }
    struct pbft_new_view *waiting = &core->waiting[message->sender];
    if (waiting->present && waiting->view >= message->view) return;
    *waiting = (struct pbft_new_view){.present = true, .view = message->view, .count = count};
    memcpy(waiting->references, message->new_view.references,
           count * sizeof *message->new_view.references);
    memcpy(waiting->signature, message->signature, sizeof waiting->signature);
}

/* Once per tick: what a NEW_VIEW, one in turn, still stands on; and content that is missing. */
void pbft_new_view_fetch(struct pbft *core)
{
    for (uint32_t turn = 0; turn < core->n; turn++) {
        const uint8_t seat = core->order[core->waiting_turn++ % core->n];
        const struct pbft_new_view *waiting = &core->waiting[seat];
        if (!waiting->present || waiting->view < core->view) continue;
        for (uint32_t i = 0; i < waiting->count; i++) {
            const struct message_reference *reference = &waiting->references[i];
            if (referenced(core, waiting->view, reference) != NULL) continue;
            struct message *ask = pbft_message_new(core, MESSAGE_FETCH_VIEW_CHANGE);
            ask->view = waiting->view;
            ask->seat = reference->seat;
            memcpy(ask->digest.bytes, reference->identity, sizeof ask->digest.bytes);
            pbft_send(core, PBFT_ALL, ask);
        }
        break;
    }
    const struct pbft_selection *selection = &core->selection;
    if (core->changing) {
        if (!pbft_is_primary(core)) return;
        selection = &core->attempt;
        pbft_select(core->latest, pbft_view_change_sources(core, core->view), &core->attempt);
    } else if (!core->new_view.present) {
        return;
    }
    uint32_t asked = 0;
    for (uint64_t s = missing(core, selection, selection->low); s != 0 && asked < PBFT_RESEND_SLOTS;
         s = missing(core, selection, s), asked++)
        fetch_content(core, s, selected(core, selection, s));
}

void pbft_on_fetch_view_change(struct pbft *core, uint8_t from, const struct message *message)
{
    const struct pbft_view_change *places[] = {
        &core->latest[message->seat], &core->current[message->seat], &core->staged[message->seat]};
    if (!pbft_serve(core, from)) return;
    for (int i = 0; i < 3; i++) {
        if (!places[i]->present ||
            !message_digest_equal(&places[i]->message.identity, &message->digest))
            continue;
        if (message->seat == core->self && places[i] == &core->latest[core->self] &&
            core->changing && !core->view_change_sent)
            return; /* not durable yet */
        pbft_send(core, from, &places[i]->message);
        return;
    }
}

void pbft_on_batch(struct pbft *core, const struct message *message)
{
    struct pbft_slot *slot = pbft_slot_get(core, message->sequence);
    bool wanted = false;
    if (slot == NULL || core->diverged) return;
    if (pbft_slot_current(core, slot)) {
        wanted = message_digest_equal(&slot->proposal, &message->digest);
    } else if (core->changing && pbft_is_primary(core)) {
        const struct pbft_selection *attempt = &core->attempt;
        pbft_select(core->latest, pbft_view_change_sources(core, core->view), &core->attempt);
        wanted = message->sequence > attempt->low && message->sequence <= attempt->high &&
                 message_digest_equal(selected(core, attempt, message->sequence), &message->digest);
    }
    if (!wanted || pbft_slot_body(core, slot, &message->digest) != NULL) return;
    pbft_pool_mark(core, pbft_slot_place(core, slot, &message->batch, &message->digest));
}
