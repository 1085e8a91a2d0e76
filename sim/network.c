/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links. Each pair of nodes has its own generator, so that what happens on one link does not depend on the others. Like
 * TCP, a link keeps the order, unless a reorder fault is in force: production reconnects, and relays, so that
 * the protocol must not depend on it.
 */
#include "sim/world.h"

/* Whether a partition in force parts two seats. */
static bool cut(const struct sim_world *world, uint8_t from, uint8_t to)
{
    for (uint32_t i = 0; i < world->plan->count; i++) {
        const struct sim_entry *entry = &world->plan->entries[i];
        if (!world->active[i]) continue;
        bool a = (entry->mask >> from & 1) != 0, b = (entry->mask >> to & 1) != 0;
        if (entry->kind == SIM_PARTITION && a != b) return true;
        if (entry->kind == SIM_ONE_WAY && a && !b) return true;
    }
    return false;
}

static uint32_t most(const struct sim_world *world, enum sim_entry_kind kind, uint32_t before)
{
    if (world->healed_at != 0) return 0;
    const struct sim_entry *entry = sim_in_force(world, kind, SIM_SEATS_MAX, SIM_SEATS_MAX);
    return entry != NULL && entry->value > before ? entry->value : before;
}

static void carry(struct sim_node *from, uint8_t to, struct sim_bytes *bytes)
{
    struct sim_world *world = from->world;
    const struct sim_setup *setup = world->setup;
    struct sim_link *link = &world->links[from->index][to];
    struct sim_random *random = &link->random;
    sim_count(world, SIM_COUNT_MESSAGES);
    if (sim_chance(random, most(world, SIM_LOSS, setup->loss))) {
        sim_count(world, SIM_COUNT_LOST);
        return;
    }
    uint32_t copies = sim_chance(random, most(world, SIM_DUPLICATE, setup->duplicate)) ? 2 : 1;
    if (copies > 1) sim_count(world, SIM_COUNT_DUPLICATED);
    for (; copies > 0; copies--) {
        if (link->under_way >= SIM_LINK_MESSAGES_MAX) {
            sim_count(world, SIM_COUNT_QUEUE_FULL);
            return;
        }
        uint64_t delay = sim_between(random, setup->delay_us_min, setup->delay_us_max);
        const struct sim_entry *slow =
            sim_in_force(world, SIM_SLOW_LINK, from->seat, world->nodes[to].seat);
        if (slow != NULL) delay += slow->value;
        delay += most(world, SIM_SLOW_ALL, 0);
        uint64_t arrival = world->now + delay;
        if (sim_chance(random, most(world, SIM_REORDER, setup->reorder))) {
            arrival += sim_below(random, (uint64_t)setup->view_timeout_ms * 500);
            sim_count(world, SIM_COUNT_REORDERED);
        } else {
            if (arrival <= link->last_arrival) arrival = link->last_arrival + 1;
            link->last_arrival = arrival;
        }
        link->under_way++;
        sim_schedule(world, arrival - world->now,
                     &(struct sim_event){.kind = SIM_EVENT_ARRIVE,
                                         .node = to,
                                         .from = from->index,
                                         .life = world->nodes[to].life,
                                         .bytes = sim_bytes_hold(bytes)});
    }
}

/* Which face of the Byzantine a seat talks with; 2: with both, but only the first answers. */
static uint8_t face_for(const struct sim_world *world, uint8_t seat)
{
    const struct sim_entry *twins = sim_in_force(world, SIM_TWINS, SIM_SEATS_MAX, SIM_SEATS_MAX);
    if (twins == NULL) return 2;
    return (twins->mask >> seat & 1) != 0 ? 1 : 0;
}

void sim_network_send(struct sim_node *from, uint8_t to, struct sim_bytes *bytes)
{
    struct sim_world *world = from->world;
    if (to >= world->setup->seats || to == from->seat) return;
    if (cut(world, from->seat, to)) {
        sim_count(world, SIM_COUNT_CUT);
        return;
    }
    const bool from_byzantine = sim_is_byzantine(world, from->seat);
    if (!sim_is_byzantine(world, to)) {
        uint8_t face = face_for(world, to);
        if (from_byzantine && from->face != (face == 2 ? 0 : face)) return;
        carry(from, to, bytes);
        return;
    }
    /* Friends' faces talk with their own kind; others' messages reach the face they talk with, or both. */
    uint8_t face = from_byzantine ? from->face : face_for(world, from->seat);
    if (face != 1) carry(from, to, bytes);
    if (face != 0 && world->nodes[to + SIM_SEATS_MAX].exists)
        carry(from, to + SIM_SEATS_MAX, bytes);
}

void sim_network_arrived(struct sim_world *world, uint8_t from, uint8_t to)
{
    world->links[from][to].under_way--;
}
