/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches in order. Executing one adds it to the chain, uses up the numbers of its requests (a request whose number
 * was used before is nothing: OSDI 1999, section 4.1, exactly once), notes changes of the configuration, and
 * delivers it with its certificate. A batch comes from its slot or, for who is behind, from a peer's log: from here on
 * that is the same.
 */
#include "federation/pbft_private.h"

static bool number_use(struct pbft *core, const struct message_request *request)
{
    struct message_member *member = &core->members[request->seat];
    if (!member->active || (pbft_number_executed(core, request->seat, request->number) &&
                            !PBFT_MUTATION(executes_again)))
        return false;
    if (request->number > member->number_last) {
        const uint64_t distance = request->number - member->number_last;
        if (distance > PBFT_NUMBERS_WINDOW || member->number_last == 0)
            member->numbers_below = 0;
        else if (distance == PBFT_NUMBERS_WINDOW)
            member->numbers_below = (uint64_t)1 << (PBFT_NUMBERS_WINDOW - 1);
        else
            member->numbers_below = member->numbers_below << distance | (uint64_t)1
                                                                            << (distance - 1);
        member->number_last = request->number;
    } else {
        member->numbers_below |= (uint64_t)1 << (member->number_last - 1 - request->number);
    }
    return true;
}

void pbft_execute_apply(struct pbft *core, uint64_t sequence, const struct message_batch *batch,
                        const struct message_digest *digest, uint8_t *executed)
{
    assert(sequence == core->executed + 1 && sequence <= core->epoch_end);
    for (uint32_t i = 0; i < batch->request_count; i++) {
        const struct message_request *request = &batch->requests[i];
        executed[i] = number_use(core, request);
        if (executed[i] == 0) continue;
        if (request->seat == core->self)
            core->answers[request->number % PBFT_NUMBERS_WINDOW] =
                (struct pbft_answer){request->number, sequence, request->digest};
        if (request->kind == MESSAGE_REQUEST_CHANGE) {
            struct message_change change;
            message_request_change(batch, request, &change);
            pbft_members_change(core, sequence, &change);
        }
        pbft_pool_executed(core, request, sequence);
    }
    message_chain_digest(&core->head, sequence, digest, &core->head);
    core->executed = sequence;
}

static void execute(struct pbft *core, struct pbft_body *body,
                    const struct pbft_certificate *certificate)
{
    struct message_batch batch;
    const uint64_t sequence = core->executed + 1;
    pbft_execute_apply(core, sequence, pbft_body_batch(body, &batch), &body->digest,
                       body->executed);
    struct message *entry = pbft_message_new(core, MESSAGE_LOG_ENTRY);
    entry->view = certificate->view;
    entry->sequence = sequence;
    entry->digest = body->digest;
    entry->batch = batch;
    entry->certificate = (struct message_certificate){certificate->votes, certificate->count};
    struct pbft_effect *effect = &core->effects[core->effect_count];
    uint64_t token = pbft_persist(core, entry, entry->view, sequence);
    effect->executed = body->executed;
    effect->head = core->head;
    core->delivery_tokens[sequence % PBFT_DELIVERY_RING] = token;
    core->executed_view = certificate->view;
    if (body->request_count > 0) pbft_nulls_earned(core);
    /*
     * Batches of this view: patience comes back to the usual (OSDI 1999, section 4.5.2), by and by: where messages
     * take longer than the time-out, one batch proves only that this much patience was needed.
     */
    if (certificate->view == core->view && !core->changing &&
        ++core->progress % core->config.limits.window == 0 && core->failed_views > 0)
        core->failed_views--;
    if (sequence % core->config.checkpoint_interval == 0) pbft_checkpoint_reached(core);
}

/* Content and certificate of the sequence, wherever they are. */
static bool find(struct pbft *core, uint64_t sequence, struct pbft_body **body,
                 const struct pbft_certificate **certificate)
{
    struct pbft_slot *slot = &core->slots[sequence % core->config.limits.window];
    if (sequence > core->low && slot->sequence == sequence && slot->committed.present) {
        *body = pbft_slot_body(core, slot, &slot->committed.digest);
        *certificate = &slot->committed;
        if (*body != NULL) {
            slot->used = core->steps;
            return true;
        }
    }
    struct pbft_fetch *fetch = pbft_fetched(core, sequence);
    if (fetch == NULL) return false;
    *body = &fetch->body;
    *certificate = &fetch->certificate;
    return true;
}

/* A slot that a fetched entry went past: its outcome is known, so that a new view's choice can be held against it. */
static void note_in_slot(struct pbft *core, const struct pbft_body *body,
                         const struct pbft_certificate *certificate)
{
    struct message_batch batch;
    struct pbft_slot *slot = pbft_slot_get(core, core->executed);
    if (slot == NULL || slot->committed.present) return;
    const struct message_certificate votes = {certificate->votes, certificate->count};
    pbft_certificate_copy(&slot->committed, certificate->view, &certificate->digest, &votes);
    /* Effects of this step may point into the buffers; the log has the content anyway. */
    if (slot->used != core->steps)
        pbft_slot_place(core, slot, pbft_body_batch(body, &batch), &body->digest);
}

/* The shell keeps up with what is to be stored; and a step has one SNAPSHOT. */
static bool may_execute(const struct pbft *core)
{
    const bool checkpoint = (core->executed + 1) % core->config.checkpoint_interval == 0;
    return !core->diverged && core->executed < core->epoch_end &&
           core->executed - core->durable_executed < PBFT_DELIVERY_RING - 1 &&
           !(checkpoint && core->snapshot_step == core->steps);
}

void pbft_execute_ready(struct pbft *core)
{
    struct pbft_body *body;
    const struct pbft_certificate *certificate;
    do {
        while (may_execute(core) && (find(core, core->executed + 1, &body, &certificate) ||
                                     (PBFT_MUTATION(out_of_order) &&
                                      find(core, core->executed + 2, &body, &certificate)))) {
            execute(core, body, certificate);
            note_in_slot(core, body, certificate);
            pbft_stable_adopt(core);
        }
    } while (!core->diverged && pbft_epoch_advance(core));
}

void pbft_execute_durable(struct pbft *core)
{
    while (core->durable_executed < core->executed &&
           pbft_durable(core,
                        core->delivery_tokens[(core->durable_executed + 1) % PBFT_DELIVERY_RING]))
        core->durable_executed++;
}
