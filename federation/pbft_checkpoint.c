/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints and the watermarks (OSDI 1999, section 4.3). The state is the chain, so the proof of a checkpoint is a
 * quorum's signatures over its head. A CHECKPOINT is sent when all up to it is durable here: others forget on the
 * strength of it.
 *
 * A proof may come before this replica has got there. It is kept as pending, and becomes the low watermark when
 * execution reaches it: so the window never starts beyond what was executed.
 */
#include "federation/pbft_private.h"

static struct pbft_checkpoint_vote *vote_at(struct pbft *core, uint8_t seat, uint64_t sequence)
{
    const uint64_t turn = sequence / core->config.checkpoint_interval;
    return &core->checkpoint_votes[(size_t)seat * core->checkpoints + turn % core->checkpoints];
}

static bool is_checkpoint(const struct pbft *core, uint64_t sequence)
{
    return sequence > core->epoch_start && sequence % core->config.checkpoint_interval == 0;
}

struct pbft_own_checkpoint *pbft_own_checkpoint(struct pbft *core, uint64_t sequence)
{
    const uint64_t turn = sequence / core->config.checkpoint_interval;
    struct pbft_own_checkpoint *own = &core->own_checkpoints[turn % PBFT_CHECKPOINTS];
    return own->sequence == sequence && sequence != 0 ? own : NULL;
}

/* The sequence just executed ends an interval. */
void pbft_checkpoint_reached(struct pbft *core)
{
    const uint64_t turn = core->executed / core->config.checkpoint_interval;
    struct pbft_own_checkpoint *own = &core->own_checkpoints[turn % PBFT_CHECKPOINTS];
    *own = (struct pbft_own_checkpoint){.sequence = core->executed, .head = core->head};
    if (!core->started) {
        own->token = PBFT_RESTORED;
        return;
    }
    assert(core->snapshot_step != core->steps);
    core->snapshot_step = core->steps;
    struct message *record = pbft_message_new(core, MESSAGE_SNAPSHOT);
    pbft_snapshot_message(core, record);
    own->token = pbft_persist(core, record, record->view, record->sequence);
}

static void send_checkpoint(struct pbft *core, struct pbft_own_checkpoint *own)
{
    struct message *vote = pbft_message_new(core, MESSAGE_CHECKPOINT);
    vote->view = message_view(core->epoch, 0);
    vote->sequence = own->sequence;
    vote->digest = own->head;
    pbft_sign_vote(core, MESSAGE_CHECKPOINT, vote->view, vote->sequence, &vote->digest,
                   own->signature);
    memcpy(vote->signature, own->signature, sizeof vote->signature);
    own->sent = true;
    pbft_send(core, PBFT_ALL, vote);
    struct pbft_checkpoint_vote *mine = vote_at(core, core->self, own->sequence);
    *mine = (struct pbft_checkpoint_vote){
        .present = true, .sequence = own->sequence, .digest = own->head};
    memcpy(mine->signature, own->signature, sizeof mine->signature);
}

/* A quorum for (sequence, digest) makes it the pending proof. */
static void gather(struct pbft *core, uint64_t sequence, const struct message_digest *digest)
{
    uint32_t count = 0;
    if (sequence <= core->low || sequence <= core->pending.sequence) return;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            if (count < (PBFT_MUTATION(stable_with_f1) ? core->f + 1 : core->quorum)) return;
            core->pending.sequence = sequence;
            core->pending.digest = *digest;
            core->pending.count = 0;
        }
        for (uint32_t seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
            const struct pbft_checkpoint_vote *vote = vote_at(core, seat, sequence);
            if (!vote->present || vote->sequence != sequence || !pbft_is_active(core, seat) ||
                !message_digest_equal(&vote->digest, digest))
                continue;
            if (pass == 0) {
                count++;
            } else if (core->pending.count < core->quorum) {
                struct message_vote *to = &core->pending.votes[core->pending.count++];
                to->seat = seat;
                memcpy(to->signature, vote->signature, sizeof to->signature);
            }
        }
    }
    pbft_stable_adopt(core);
}

/* The newest first: what it proves makes the older ones superfluous, within one step, too. */
void pbft_checkpoint_durable(struct pbft *core)
{
    const uint64_t interval = core->config.checkpoint_interval;
    const uint64_t low = core->low, high = low + core->config.limits.window;
    const uint64_t last = (core->executed < high ? core->executed : high) / interval;
    for (uint64_t turn = last; turn > low / interval; turn--) {
        struct pbft_own_checkpoint *own = pbft_own_checkpoint(core, turn * interval);
        if (own == NULL || own->sent || !pbft_durable(core, own->token) ||
            !is_checkpoint(core, own->sequence) || !pbft_may_vote(core))
            continue;
        send_checkpoint(core, own);
        gather(core, own->sequence, &own->head);
    }
}

void pbft_on_checkpoint(struct pbft *core, const struct message *message)
{
    const uint64_t sequence = message->sequence;
    if (!is_checkpoint(core, sequence)) {
        pbft_blame(core, message->sender, PBFT_FAULT_MALFORMED);
        return;
    }
    if (sequence <= core->low || sequence > core->low + core->config.limits.window ||
        message->sender == core->self)
        return;
    struct pbft_checkpoint_vote *vote = vote_at(core, message->sender, sequence);
    if (vote->present && vote->sequence == sequence) {
        if (!message_digest_equal(&vote->digest, &message->digest))
            pbft_blame(core, message->sender, PBFT_FAULT_EQUIVOCATION);
        return;
    }
    *vote = (struct pbft_checkpoint_vote){
        .present = true, .sequence = sequence, .digest = message->digest};
    memcpy(vote->signature, message->signature, sizeof vote->signature);
    gather(core, sequence, &message->digest);
}

bool pbft_stable_proof(const struct pbft *core, uint64_t sequence,
                       const struct message_certificate *certificate)
{
    if (sequence == core->epoch_start) return certificate->count == 0;
    return is_checkpoint(core, sequence) && pbft_certified(core, certificate);
}

/* Whole proofs: of STABLEs from who helps, and of VIEW_CHANGEs. They are valid. */
void pbft_stable_learn(struct pbft *core, const struct message *proof)
{
    if (proof->sequence <= core->low || proof->sequence <= core->pending.sequence) return;
    core->pending.sequence = proof->sequence;
    core->pending.digest = proof->digest;
    core->pending.count = proof->certificate.count;
    memcpy(core->pending.votes, proof->certificate.votes,
           proof->certificate.count * sizeof *proof->certificate.votes);
    pbft_stable_adopt(core);
}

void pbft_on_stable(struct pbft *core, uint8_t from, const struct message *message)
{
    if (pbft_stable_proof(core, message->sequence, &message->certificate))
        pbft_stable_learn(core, message);
    else
        pbft_blame(core, from, PBFT_FAULT_CERTIFICATE);
}

void pbft_stable_message(struct pbft *core, struct message *out)
{
    out->kind = MESSAGE_STABLE;
    out->view = message_view(core->epoch, 0);
    out->sequence = core->stable.sequence;
    out->digest = core->stable.digest;
    out->certificate = (struct message_certificate){core->stable.votes, core->stable.count};
}

/* The window moves: what is at or below the low watermark is forgotten (section 4.3, garbage collection). */
void pbft_low_set(struct pbft *core, uint64_t low)
{
    assert(low >= core->low && low <= core->executed);
    core->low = low;
    if (core->next_sequence <= low) core->next_sequence = low + 1;
    for (uint32_t i = 0; i < core->config.limits.window; i++)
        if (core->slots[i].sequence > low) core->slots[i].dirty = true;
}

void pbft_stable_adopt(struct pbft *core)
{
    struct pbft_stable *pending = &core->pending;
    if (pending->sequence <= core->low || pending->sequence > core->executed ||
        PBFT_MUTATION(window_never_moves))
        return;
    const struct pbft_own_checkpoint *own = pbft_own_checkpoint(core, pending->sequence);
    if (own == NULL) return; /* passed long ago: a newer proof will come */
    if (!message_digest_equal(&own->head, &pending->digest)) {
        pbft_diverge(core);
        return;
    }
    struct pbft_stable swap = core->stable;
    core->stable = *pending;
    core->pending = swap;
    core->pending.sequence = 0;
    pbft_low_set(core, core->stable.sequence);
    if (!core->started) return;
    struct message *record = pbft_message_new(core, MESSAGE_STABLE);
    pbft_stable_message(core, record);
    pbft_persist(core, record, record->view, record->sequence);
}
