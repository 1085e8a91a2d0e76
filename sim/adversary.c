/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Byzantine. Each of their seats runs a correct core, so that what it says is plausible; this file stands between
 * that core and the network. Under SIM_TWINS a seat runs two cores with one key, each heard by a part of the others, and
 * friends' first faces work together, as do their second ones: equivocation in every phase, consistent with itself.
 * Other entries twist single messages, or add to them. They share their keys, and have no others.
 */
#include <assert.h>
#include <string.h>

#include "sim/world.h"

void sim_adversary_hear(struct sim_world *world, struct sim_bytes *bytes)
{
    /* A slot at random: some of what is remembered is old. */
    if (!sim_chance(&world->adversary, 100)) return;
    uint64_t slot = sim_below(&world->adversary, SIM_REPLAY_MESSAGES);
    sim_bytes_drop(world->heard[slot]);
    world->heard[slot] = sim_bytes_hold(bytes);
}

const struct sim_alternative *sim_alternative_of(const struct sim_world *world, uint64_t view,
                                                 uint64_t sequence)
{
    for (uint32_t i = 0; i < SIM_ALTERNATIVES && i < world->alternative_count; i++) {
        const struct sim_alternative *one = &world->alternatives[i];
        if (one->view == view && one->sequence == sequence) return one;
    }
    return NULL;
}

static void own_key(const struct sim_node *node, uint8_t seat, uint8_t key[MESSAGE_KEY_BYTES])
{
    assert(sim_is_byzantine(node->world, seat));
    if (node->active >> seat & 1)
        memcpy(key, node->members[seat].key, MESSAGE_KEY_BYTES);
    else
        sim_key_make(node->world, seat, 0, key);
}

void sim_adversary_emit(struct sim_node *from, uint8_t to, struct message *m)
{
    struct sim_world *world = from->world;
    struct message_digest digest;
    uint8_t key[MESSAGE_KEY_BYTES];
    own_key(from, m->sender, key);
    switch (m->kind) {
    case MESSAGE_PRE_PREPARE:
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT:
    case MESSAGE_CHECKPOINT:
        message_vote_digest(m->kind, &world->federation, m->view, m->sequence, &m->digest, &digest);
        sim_sign(world, key, &digest, m->signature);
        break;
    case MESSAGE_VIEW_CHANGE:
        message_view_change_digest(&world->federation, m, &m->identity);
        sim_sign(world, key, &m->identity, m->signature);
        break;
    case MESSAGE_NEW_VIEW:
        message_new_view_digest(&world->federation, m->view, &m->new_view, &digest);
        sim_sign(world, key, &digest, m->signature);
        break;
    default: break;
    }
    struct sim_bytes *bytes = sim_encode(m);
    sim_network_send(from, to, bytes);
    sim_adversary_hear(world, bytes);
    sim_bytes_drop(bytes);
}

static void random_digest(struct sim_random *random, struct message_digest *out)
{
    for (int i = 0; i < MESSAGE_DIGEST_BYTES / 8; i++) {
        uint64_t word = sim_next(random);
        memcpy(out->bytes + 8 * i, &word, 8);
    }
}

static bool is_vote(const struct message *m)
{
    return m->kind == MESSAGE_PREPARE || m->kind == MESSAGE_COMMIT || m->kind == MESSAGE_CHECKPOINT;
}

static uint64_t other_view(struct sim_random *random, uint64_t view)
{
    uint32_t number = (uint32_t)view;
    uint32_t distance = (uint32_t)sim_between(random, 1, 4);
    if (sim_chance(random, 50)) distance = (uint32_t)sim_next(random);
    number = sim_chance(random, 500) || number < distance ? number + distance : number - distance;
    return message_view(message_epoch(view), number);
}

static void lie(struct sim_random *random, struct message *m)
{
    if (m->kind == MESSAGE_STATUS) {
        switch (sim_below(random, 5)) {
        case 0: m->status.executed += sim_below(random, 100); break;
        case 1: m->sequence += sim_below(random, 30); break;
        case 2: m->view = other_view(random, m->view); break;
        case 3: m->status.flags ^= (uint8_t)sim_between(random, 1, 3); break;
        default:
            for (uint32_t i = 0; i < m->status.window / 8u; i++) {
                m->status.proposed[i] = (uint8_t)sim_next(random);
                m->status.prepared[i] = (uint8_t)sim_next(random);
                m->status.committed[i] = (uint8_t)sim_next(random);
            }
            m->status.view_changes = sim_next(random);
        }
    } else if (m->batch.request_count > 0) {
        /* The null batch instead, under the certificate of what it stands for; or for another place. */
        if (sim_chance(random, 500))
            m->batch.request_count = m->batch.length = 0;
        else
            m->sequence++;
    }
}

/* Twists one message for one addressee. True: it has to be signed anew. */
static bool twist(struct sim_node *from, uint8_t to, struct message *m)
{
    struct sim_world *world = from->world;
    struct sim_random *random = &world->adversary;
    const uint8_t seat = from->seat;
    const bool sometimes = sim_chance(random, 400);
    const struct sim_alternative *other = NULL;
    if (m->kind == MESSAGE_PRE_PREPARE) {
        if (sim_in_force(world, SIM_OTHER_PROPOSAL, seat, to))
            return sim_forge_proposal(from, m, false);
        /* Every second one, and that to all. */
        if (m->sequence % 2 == 0 && sim_in_force(world, SIM_BAD_PROPOSAL, seat, SIM_SEATS_MAX))
            return sim_forge_proposal(from, m, true);
    }
    if ((m->kind == MESSAGE_PREPARE || m->kind == MESSAGE_COMMIT) &&
        sim_in_force(world, SIM_OTHER_PROPOSAL, SIM_SEATS_MAX, to))
        other = sim_alternative_of(world, m->view, m->sequence);
    if (other != NULL) {
        m->digest = other->digest;
        return true;
    }
    if (m->kind == MESSAGE_VIEW_CHANGE) {
        if (sim_in_force(world, SIM_HIDE, seat, to)) return sim_forge_view_change(from, m, true);
        if (sim_in_force(world, SIM_FORGE, seat, to)) return sim_forge_view_change(from, m, false);
    }
    if (m->kind == MESSAGE_NEW_VIEW && sim_in_force(world, SIM_BAD_NEW_VIEW, seat, to))
        return sim_forge_new_view(from, m);
    if (!sometimes) return false;
    if ((m->kind == MESSAGE_LOG_ENTRY || m->kind == MESSAGE_STABLE) &&
        sim_in_force(world, SIM_FORGE, seat, to))
        return sim_forge_certificate(from, m);
    if (is_vote(m) && sim_in_force(world, SIM_WRONG_DIGEST, seat, to)) {
        random_digest(random, &m->digest);
        return true;
    }
    if ((is_vote(m) || m->kind == MESSAGE_PRE_PREPARE) &&
        sim_in_force(world, SIM_WRONG_SEQUENCE, seat, to)) {
        m->sequence += sim_below(random, 2 * world->setup->limits.window);
        if (m->sequence > world->setup->limits.window / 2)
            m->sequence -= sim_below(random, world->setup->limits.window / 2);
        return true;
    }
    if ((is_vote(m) || m->kind == MESSAGE_PRE_PREPARE || m->kind == MESSAGE_VIEW_CHANGE ||
         m->kind == MESSAGE_NEW_VIEW) &&
        m->kind != MESSAGE_CHECKPOINT && sim_in_force(world, SIM_WRONG_VIEW, seat, to)) {
        m->view = other_view(random, m->view);
        return true;
    }
    if ((m->kind == MESSAGE_STATUS || m->kind == MESSAGE_LOG_ENTRY || m->kind == MESSAGE_BATCH) &&
        sim_in_force(world, SIM_LIE, seat, to)) {
        lie(random, m);
        return true;
    }
    return false;
}

static void spoil(struct sim_node *from, uint8_t to, const struct message *m)
{
    struct sim_bytes *bytes = sim_encode(m);
    for (uint64_t flips = sim_between(&from->world->adversary, 1, 3); flips > 0; flips--)
        bytes->data[sim_below(&from->world->adversary, bytes->length)] ^=
            (uint8_t)sim_between(&from->world->adversary, 1, 255);
    sim_network_send(from, to, bytes);
    sim_bytes_drop(bytes);
}

void sim_adversary_send(struct sim_node *from, uint8_t to, const struct message *message)
{
    struct sim_world *world = from->world;
    const struct sim_entry *withhold = sim_in_force(world, SIM_WITHHOLD, from->seat, to);
    if (sim_in_force(world, SIM_SILENT, from->seat, to) ||
        (withhold != NULL && withhold->value == message->kind)) {
        sim_count(world, SIM_COUNT_WITHHELD);
        return;
    }
    struct message m = *message;
    if (m.kind == MESSAGE_STATUS && sim_in_force(world, SIM_FALSE_RECOVERY, from->seat, to))
        m.status.flags |= MESSAGE_STATUS_RECOVERING;
    if (sim_in_force(world, SIM_GARBAGE, from->seat, to) && sim_chance(&world->adversary, 300)) {
        sim_count(world, SIM_COUNT_TWISTED);
        spoil(from, to, &m);
        return;
    }
    if (m.sender == from->seat && twist(from, to, &m)) {
        sim_count(world, SIM_COUNT_TWISTED);
        sim_adversary_emit(from, to, &m);
    } else {
        struct sim_bytes *bytes = sim_encode(m.kind == MESSAGE_STATUS ? &m : message);
        sim_network_send(from, to, bytes);
        sim_adversary_hear(world, bytes);
        sim_bytes_drop(bytes);
    }
    if ((m.kind == MESSAGE_PREPARE || m.kind == MESSAGE_PRE_PREPARE) && m.sender == from->seat &&
        sim_in_force(world, SIM_EARLY_COMMIT, from->seat, to)) {
        struct message commit = {.kind = MESSAGE_COMMIT,
                                 .sender = from->seat,
                                 .view = m.view,
                                 .sequence = m.sequence,
                                 .digest = m.digest};
        sim_count(world, SIM_COUNT_INVENTED);
        sim_adversary_emit(from, to, &commit);
    }
}

/* Every Byzantine seat votes for the second proposals, in both phases. */
static void support(struct sim_node *from, uint8_t to)
{
    struct sim_world *world = from->world;
    for (uint32_t i = 0; i < SIM_ALTERNATIVES && i < world->alternative_count; i++) {
        const struct sim_alternative *one = &world->alternatives[i];
        for (uint64_t seats = world->setup->byzantine; seats != 0; seats &= seats - 1) {
            struct message vote = {.sender = (uint8_t)__builtin_ctzll(seats),
                                   .view = one->view,
                                   .sequence = one->sequence,
                                   .digest = one->digest};
            vote.kind = MESSAGE_PREPARE;
            sim_adversary_emit(&world->nodes[vote.sender], to, &vote);
            vote.kind = MESSAGE_COMMIT;
            sim_adversary_emit(&world->nodes[vote.sender], to, &vote);
        }
    }
}

static void flood_one(struct sim_node *from, uint8_t to, const struct pbft_status *status)
{
    struct sim_random *random = &from->world->adversary;
    static const uint8_t sorts[] = {MESSAGE_PREPARE,     MESSAGE_COMMIT,
                                    MESSAGE_CHECKPOINT,  MESSAGE_FETCH_LOG,
                                    MESSAGE_FETCH_BATCH, MESSAGE_FETCH_VIEW_CHANGE,
                                    MESSAGE_STATUS};
    struct message m = {.kind = (enum message_kind)sorts[sim_below(random, sizeof sorts)],
                        .sender = from->seat,
                        .view = sim_chance(random, 700) ? status->view
                                                        : other_view(random, status->view)};
    m.sequence = status->stable + sim_below(random, 3 * from->world->setup->limits.window);
    m.count = (uint16_t)sim_between(random, 1, 64);
    m.seat = (uint8_t)sim_below(random, from->world->setup->seats);
    random_digest(random, &m.digest);
    if (m.kind == MESSAGE_CHECKPOINT) m.view = message_view(message_epoch(m.view), 0);
    if (m.kind == MESSAGE_STATUS) m.status.executed = m.sequence + sim_below(random, 9);
    sim_adversary_emit(from, to, &m);
}

static void impatient(struct sim_node *from, uint8_t to, const struct pbft_status *status)
{
    struct sim_world *world = from->world;
    struct message m = {.kind = MESSAGE_VIEW_CHANGE,
                        .sender = from->seat,
                        .view = status->view + sim_between(&world->adversary, 1, 3),
                        .digest = world->federation};
    sim_adversary_emit(from, to, &m);
}

static void forge_stable(struct sim_node *from, uint8_t to, const struct pbft_status *status)
{
    struct sim_world *world = from->world;
    const uint32_t interval = world->setup->checkpoint_interval;
    struct message m = {.kind = MESSAGE_STABLE,
                        .sender = from->seat,
                        .view = message_view(message_epoch(status->view), 0),
                        .sequence =
                            (status->executed / interval + sim_between(&world->adversary, 1, 3)) *
                            interval};
    random_digest(&world->adversary, &m.digest);
    if (sim_forge_certificate(from, &m)) sim_adversary_emit(from, to, &m);
}

static void replay(struct sim_node *from, uint8_t to)
{
    struct sim_world *world = from->world;
    struct sim_bytes *bytes = world->heard[sim_below(&world->adversary, SIM_REPLAY_MESSAGES)];
    if (bytes != NULL) sim_network_send(from, to, bytes);
}

static void garbage(struct sim_node *from, uint8_t to)
{
    struct sim_random *random = &from->world->adversary;
    struct sim_bytes *bytes = sim_bytes_new((uint32_t)sim_between(random, 1, 200));
    for (uint32_t i = 0; i < bytes->length; i++) bytes->data[i] = (uint8_t)sim_next(random);
    if (bytes->length > 4 && sim_chance(random, 700)) {
        bytes->data[0] = MESSAGE_VERSION;
        bytes->data[1] = (uint8_t)sim_between(random, 1, MESSAGE_NUMBERS);
        bytes->data[2] = from->seat;
        bytes->data[3] = 0;
    }
    sim_network_send(from, to, bytes);
    sim_bytes_drop(bytes);
}

void sim_adversary_invent(struct sim_world *world, const struct sim_entry *entry)
{
    struct sim_node *from = &world->nodes[entry->seat];
    if (!from->up || from->paused_until > world->now) return;
    const uint64_t others = from->active & ~((uint64_t)1 << from->seat);
    const uint8_t to = sim_pick(&world->adversary, others);
    struct pbft_status status;
    pbft_status(from->core, &status);
    const uint64_t before = world->result.counts[SIM_COUNT_MESSAGES];
    switch (entry->kind) {
    case SIM_OTHER_PROPOSAL:
        if (entry->mask >> to & 1) support(from, to);
        break;
    case SIM_REPLAY:
        for (int i = 0; i < 3; i++) replay(from, to);
        break;
    case SIM_FLOOD:
        for (uint32_t i = 0; i < entry->value; i++) flood_one(from, to, &status);
        break;
    case SIM_FORGE: forge_stable(from, to, &status); break;
    case SIM_GARBAGE: garbage(from, to); break;
    case SIM_IMPATIENT: impatient(from, to, &status); break;
    case SIM_BAD_REQUESTS: sim_forge_request(from); break;
    default: break;
    }
    world->result.counts[SIM_COUNT_INVENTED] += world->result.counts[SIM_COUNT_MESSAGES] - before;
}
