/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What correct replicas say and do, against what the paper promises. The checkers see everything: what was ever signed, by
 * whom, and which seats are Byzantine. So a wrong vote is seen when it is cast, and not only when two logs
 * differ because of it.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sim/world.h"

void sim_violate(struct sim_world *world, enum sim_violation violation, const char *format, ...)
{
    if (world->result.violation != SIM_OK) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world->result.what, sizeof world->result.what, format, arguments);
    va_end(arguments);
    world->result.violation = violation;
    world->result.at = world->now;
    world->over = true;
    sim_tell(world, "VIOLATION of %s: %s", sim_violation_name(violation), world->result.what);
}

/* With more than f Byzantine members only what users would see is looked for. */
static bool beyond_f(const struct sim_world *world)
{
    return (uint32_t)__builtin_popcountll(world->setup->byzantine) > world->setup->faulty_max;
}

const struct message_member *sim_member(const struct sim_world *world, uint32_t epoch, uint8_t seat)
{
    if (epoch >= SIM_EPOCHS_MAX) return NULL;
    const struct sim_epoch *known = &world->epochs[epoch];
    for (uint32_t i = 0; i < known->count; i++)
        if (known->members[i].seat == seat) return &known->members[i];
    return NULL;
}

static void contradiction(struct sim_node *node, const struct message *message, const char *how)
{
    char text[200];
    sim_message_describe(message, text, sizeof text);
    sim_violate(node->world, SIM_CONTRADICTION, "%u says %s, %s", node->seat, text, how);
}

/* One vote per kind, view and sequence, through all lives. True when it is the first time that it is cast. */
static bool check_vote(struct sim_node *node, const struct message *m, enum message_kind as,
                       const void *what, size_t length)
{
    bool fresh;
    uint64_t key = sim_key(&m->view, sizeof m->view, 5, (uint64_t)as << 8 | node->seat,
                           as == MESSAGE_VIEW_CHANGE || as == MESSAGE_NEW_VIEW ? 0 : m->sequence);
    uint64_t *value = sim_map_at(&node->world->votes, key, &fresh);
    uint64_t hash = sim_key(what, length, 6, 0, 0);
    if (!fresh && *value != hash) contradiction(node, m, "having said something else before");
    *value = hash;
    return fresh;
}

/* Whether a quorum of members of the vote's epoch has signed it: of what a COMMIT or a certificate stands on. */
static bool quorum_signed(const struct sim_world *world, enum message_kind kind,
                          const struct message *m)
{
    struct message_digest digest;
    uint32_t epoch = message_epoch(m->view), count = 0;
    if (epoch >= SIM_EPOCHS_MAX) return false;
    message_vote_digest(kind, &world->federation, m->view, m->sequence, &m->digest, &digest);
    const struct sim_epoch *members = &world->epochs[epoch];
    for (uint32_t i = 0; i < members->count; i++)
        count += sim_was_signed(world, members->members[i].key, &digest);
    return members->count > 0 && count >= sim_quorum(members->count);
}

static void unproven(struct sim_node *node, const struct message *message, const char *how)
{
    char text[200];
    sim_message_describe(message, text, sizeof text);
    sim_violate(node->world, SIM_UNPROVEN, "%u says %s, %s", node->seat, text, how);
}

/*
 * A batch is fixed once so many correct members that keep their records have sent COMMIT for it that the faulty could
 * make it a quorum: from then on no correct member may vote for another one in a higher view.
 */
static void note_commit(struct sim_node *node, const struct message *m)
{
    struct sim_world *world = node->world;
    const uint64_t faulty = world->setup->byzantine;
    const struct sim_epoch *members = &world->epochs[message_epoch(m->view)];
    if (faulty >> node->seat & 1) return;
    uint64_t *seats = sim_map_at(
        &world->commits, sim_key(&m->digest, sizeof m->digest, 7, m->view, m->sequence), NULL);
    *seats |= (uint64_t)1 << node->seat;
    uint32_t among = 0;
    for (uint32_t i = 0; i < members->count; i++) among += faulty >> members->members[i].seat & 1;
    if ((uint32_t)__builtin_popcountll(*seats) + among < sim_quorum(members->count)) return;
    /* A place may move when another one is made: one at a time. */
    bool fresh;
    uint64_t *view = sim_map_at(&world->fixed, sim_key(NULL, 0, 8, m->sequence, 0), &fresh);
    if (fresh || m->view < *view) *view = m->view;
    uint64_t *digest = sim_map_at(&world->fixed, sim_key(NULL, 0, 9, m->sequence, 0), &fresh);
    if (fresh) *digest = sim_key(&m->digest, sizeof m->digest, 10, 0, 0);
}

static void check_fixed(struct sim_node *node, const struct message *m)
{
    struct sim_world *world = node->world;
    const uint64_t *view = sim_map_find(&world->fixed, sim_key(NULL, 0, 8, m->sequence, 0));
    const uint64_t *digest = sim_map_find(&world->fixed, sim_key(NULL, 0, 9, m->sequence, 0));
    if (view == NULL || digest == NULL || m->view <= *view) return;
    if (*digest == sim_key(&m->digest, sizeof m->digest, 10, 0, 0)) return;
    char text[200];
    sim_message_describe(m, text, sizeof text);
    sim_violate(world, SIM_FORGOTTEN,
                "%u votes %s, though another batch may be committed since view %u.%u", node->seat,
                text, message_epoch(*view), (uint32_t)*view);
}

/* Written anew, like the quorum: what a recovery may take, for each that says so, and as much as was asked for. */
static void check_growth(struct sim_node *node)
{
    struct sim_world *world = node->world;
    const uint64_t claimants = world->claimants | world->setup->byzantine;
    const uint64_t each = 2 * world->setup->limits.window + 20 + node->earned;
    if (++node->nulls > (uint64_t)__builtin_popcountll(claimants) * each)
        sim_violate(world, SIM_GROWTH, "%u proposes null batch %llu, after %llu others", node->seat,
                    (unsigned long long)node->nulls, (unsigned long long)node->earned);
}

static void check_phase(struct sim_node *node, const struct message *m)
{
    struct sim_world *world = node->world;
    const bool commit = m->kind == MESSAGE_COMMIT;
    if (!check_vote(node, m, commit ? MESSAGE_COMMIT : MESSAGE_PREPARE, &m->digest,
                    sizeof m->digest))
        return;
    if (m->view < world->left_view[node->seat]) contradiction(node, m, "having left that view");
    /* A primary sends PREPARE only for what its NEW_VIEW took over from the views before. */
    const struct sim_epoch *members = &world->epochs[message_epoch(m->view)];
    if (m->kind == MESSAGE_PREPARE && members->count > 0 &&
        members->members[(uint32_t)m->view % members->count].seat == node->seat)
        sim_count(world, SIM_COUNT_NEW_VIEW_PROPOSALS);
    if (beyond_f(world)) return;
    if (commit && !quorum_signed(world, MESSAGE_PREPARE, m))
        unproven(node, m, "and no quorum has prepared it");
    if (m->kind == MESSAGE_PRE_PREPARE && m->batch.request_count == 0) check_growth(node);
    if (commit)
        note_commit(node, m);
    else
        check_fixed(node, m);
}

void sim_check_sent(struct sim_node *node, const struct message *m)
{
    struct sim_world *world = node->world;
    if (m->sender != node->seat) return; /* passed on */
    switch (m->kind) {
    case MESSAGE_PRE_PREPARE:
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT: check_phase(node, m); break;
    case MESSAGE_CHECKPOINT:
        (void)check_vote(node, m, m->kind, &m->digest, sizeof m->digest);
        break;
    case MESSAGE_VIEW_CHANGE:
        (void)check_vote(node, m, m->kind, &m->identity, sizeof m->identity);
        if (m->view > world->left_view[node->seat]) world->left_view[node->seat] = m->view;
        break;
    case MESSAGE_STATUS:
        if ((m->status.flags & MESSAGE_STATUS_RECOVERING) != 0)
            world->claimants |= (uint64_t)1 << node->seat;
        break;
    case MESSAGE_NEW_VIEW:
        (void)check_vote(node, m, m->kind, m->new_view.references,
                         m->new_view.count * sizeof *m->new_view.references);
        break;
    default: break;
    }
}

/* A certificate is a quorum of good signatures, counted here by ourselves. */
static bool certificate_good(const struct sim_world *world, enum message_kind kind,
                             const struct message *m)
{
    struct message_digest digest;
    uint32_t epoch = message_epoch(m->view), good = 0;
    if (epoch >= SIM_EPOCHS_MAX || world->epochs[epoch].count == 0) return false;
    message_vote_digest(kind, &world->federation, m->view, m->sequence, &m->digest, &digest);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < m->certificate.count; i++) {
        const struct message_vote *vote = &m->certificate.votes[i];
        const struct message_member *member = sim_member(world, epoch, vote->seat);
        if (member == NULL || (seen >> vote->seat & 1)) return false;
        seen |= (uint64_t)1 << vote->seat;
        good += sim_verify(world, member->key, &digest, vote->signature);
    }
    return good == m->certificate.count && good >= sim_quorum(world->epochs[epoch].count);
}

void sim_check_persisted(struct sim_node *node, const struct message *m)
{
    const uint32_t epoch = message_epoch(m->view);
    if (m->kind == MESSAGE_NEW_VIEW && epoch < SIM_EPOCHS_MAX &&
        m->new_view.count < sim_quorum(node->world->epochs[epoch].count))
        unproven(node, m, "which stands on too few");
    enum message_kind kind = m->kind == MESSAGE_STABLE     ? MESSAGE_CHECKPOINT
                             : m->kind == MESSAGE_PREPARED ? MESSAGE_PREPARE
                                                           : 0;
    if (kind == 0 || (m->kind == MESSAGE_STABLE && m->certificate.count == 0)) return;
    if (!certificate_good(node->world, kind, m))
        unproven(node, m, "and writes it down without a quorum");
}

static struct sim_decision *decision_at(struct sim_world *world, uint64_t sequence)
{
    if (sequence >= world->decision_capacity) {
        size_t capacity = world->decision_capacity != 0 ? world->decision_capacity : 128;
        while (capacity <= sequence) capacity *= 2;
        struct sim_decision *bigger = sim_alloc(capacity, sizeof *bigger);
        if (world->decision_count > 0)
            memcpy(bigger, world->decisions, (world->decision_count + 1) * sizeof *bigger);
        free(world->decisions);
        world->decisions = bigger;
        world->decision_capacity = capacity;
    }
    return &world->decisions[sequence];
}

static bool equal(const struct message_digest *a, const struct message_digest *b)
{
    return message_digest_equal(a, b);
}

/* The requests of a sequence that is delivered for the first time. */
static void check_requests(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    const struct message *m = effect->message;
    for (uint32_t i = 0; i < m->batch.request_count; i++) {
        const struct message_request *r = &m->batch.requests[i];
        const struct message_member *member = sim_member(world, message_epoch(m->view), r->seat);
        const unsigned long long number = (unsigned long long)r->number;
        uint64_t key = sim_key(NULL, 0, 11, r->seat, r->number);
        const bool before = sim_map_find(&world->number_executed, key) != NULL;
        if (!effect->executed[i]) {
            if (before) sim_count(world, SIM_COUNT_REPEATS);
            continue;
        }
        if (before)
            sim_violate(world, SIM_EXACTLY_ONCE, "request %llu of %u is executed again, at %llu",
                        number, r->seat, (unsigned long long)effect->sequence);
        *sim_map_at(&world->number_executed, key, NULL) = effect->sequence;
        *sim_map_at(&world->request_executed, sim_key(&r->digest, sizeof r->digest, 12, 0, 0),
                    NULL) = effect->sequence;
        /* The signature beside it, and not only whether there ever was one: the batch's digest covers it. */
        if (member == NULL ||
            !sim_verify(world, member->key, &r->digest, message_request_signature(&m->batch, r)))
            sim_violate(world, SIM_VALIDITY, "request %llu at %llu is not signed by %u", number,
                        (unsigned long long)effect->sequence, r->seat);
        if (!sim_judge(world, &m->batch, r))
            sim_violate(world, SIM_VALIDITY, "request %llu of %u at %llu is invalid", number,
                        r->seat, (unsigned long long)effect->sequence);
        const uint64_t *index =
            sim_map_find(&world->request_index, sim_key(&r->digest, sizeof r->digest, 13, 0, 0));
        if (index == NULL && !sim_is_byzantine(world, r->seat))
            sim_violate(world, SIM_VALIDITY, "request %llu at %llu was never submitted by %u",
                        number, (unsigned long long)effect->sequence, r->seat);
        if (index != NULL) world->requests[*index - 1].sequence = effect->sequence;
    }
}

void sim_check_delivered(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    const struct message *m = effect->message;
    const unsigned long long sequence = (unsigned long long)effect->sequence;
    if (effect->sequence != node->executed + 1 || m->sequence != effect->sequence) {
        sim_violate(world, SIM_ORDER, "%u delivers %llu after %llu", node->seat, sequence,
                    (unsigned long long)node->executed);
        return;
    }
    if (!certificate_good(world, MESSAGE_COMMIT, m))
        unproven(node, m, "without a good certificate");
    struct sim_decision *decision = decision_at(world, effect->sequence);
    node->earned += m->batch.request_count > 0;
    if (!decision->known) {
        struct message_digest head;
        const struct message_digest *before = effect->sequence == 1
                                                  ? &world->federation
                                                  : &world->decisions[effect->sequence - 1].head;
        message_chain_digest(before, effect->sequence, &m->digest, &head);
        *decision = (struct sim_decision){
            .known = true, .by = node->index, .view = m->view, .batch = m->digest, .head = head};
        world->decision_count = effect->sequence;
        sim_count(world, SIM_COUNT_BATCHES);
        if (m->batch.request_count == 0) sim_count(world, SIM_COUNT_NULL_BATCHES);
        check_requests(node, effect);
    }
    if (!equal(&decision->batch, &m->digest))
        sim_violate(world, SIM_AGREEMENT,
                    "at %llu %u delivers %02x%02x%02x, and %u delivered %02x%02x%02x", sequence,
                    node->seat, m->digest.bytes[0], m->digest.bytes[1], m->digest.bytes[2],
                    world->nodes[decision->by].seat, decision->batch.bytes[0],
                    decision->batch.bytes[1], decision->batch.bytes[2]);
    else if (!equal(&decision->head, &effect->head))
        sim_violate(world, SIM_AGREEMENT, "the chain of %u at %llu is another one", node->seat,
                    sequence);
}

void sim_check_config(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    if (!node->correct) return;
    if (effect->epoch >= SIM_EPOCHS_MAX || effect->count > SIM_SEATS_MAX) {
        sim_violate(world, SIM_AGREEMENT, "%u is in configuration %u of %u members", node->seat,
                    effect->epoch, effect->count);
        return;
    }
    struct sim_epoch *epoch = &world->epochs[effect->epoch];
    if (!epoch->known) {
        epoch->known = true;
        epoch->count = effect->count;
        memcpy(epoch->members, effect->members, effect->count * sizeof *effect->members);
        sim_count(world, SIM_COUNT_EPOCHS);
        return;
    }
    bool same = epoch->count == effect->count;
    for (uint32_t i = 0; same && i < effect->count; i++)
        same = epoch->members[i].seat == effect->members[i].seat &&
               memcmp(epoch->members[i].key, effect->members[i].key, MESSAGE_KEY_BYTES) == 0;
    if (!same)
        sim_violate(world, SIM_AGREEMENT, "configuration %u of %u is another one than the others'",
                    effect->epoch, node->seat);
}

void sim_check_blamed(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    if (sim_is_byzantine(world, effect->to) || beyond_f(world)) return;
    /* A correct member's clients may make it submit what is invalid. */
    if (effect->fault == PBFT_FAULT_INVALID_REQUEST && (world->misused >> effect->to & 1)) return;
    sim_violate(world, SIM_BLAME, "%u accuses %u, which is correct, of %s", node->seat, effect->to,
                pbft_fault_name(effect->fault));
}

void sim_check_started(struct sim_node *node)
{
    struct sim_world *world = node->world;
    struct pbft_status status;
    pbft_status(node->core, &status);
    node->executed = status.executed;
    node->memory_bytes = status.memory_bytes;
    if (!node->correct || status.executed == 0) return;
    if (status.executed > world->decision_count ||
        !equal(&status.head, &world->decisions[status.executed].head))
        sim_violate(world, SIM_AGREEMENT, "%u restarts at %llu with another chain", node->seat,
                    (unsigned long long)status.executed);
}
