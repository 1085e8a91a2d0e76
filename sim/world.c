/* SPDX-License-Identifier: Apache-2.0 */
/* Time: the queue, the schedule, and the end of it all. */
#include "sim/world.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOK_US = 20 * 1000,          /* how often it is asked whether all is done */
    RETRY_US = 10 * 1000,         /* a request that was not taken is offered again */
    TRICKLE_US = 25 * 1000,       /* after healing: a request of somebody, this often */
    INVENT_US = 15 * 1000,        /* what the Byzantine make up, beside what they twist */
    EVENTS_MAX = 4 * 1000 * 1000, /* of one run: more is a storm that never ends */
};

static struct sim_world *running; /* for who comes out of a failed assertion */

/* glibc's: what assert() calls. The run is over, and the next one begins. */
void __assert_fail(const char *text, const char *file, unsigned line, const char *function);
void __assert_fail(const char *text, const char *file, unsigned line, const char *function)
{
    if (running == NULL || running->unwind == NULL) {
        fprintf(stderr, "%s:%u: %s: %s\n", file, line, function, text);
        abort();
    }
    sim_violate(running, SIM_ASSERTION, "%s:%u: %s: %s", file, line, function, text);
    siglongjmp(*running->unwind, 1);
}

struct sim_bytes *sim_bytes_new(uint32_t length)
{
    struct sim_bytes *bytes = sim_alloc(1, sizeof *bytes + length);
    bytes->references = 1;
    bytes->length = length;
    return bytes;
}

struct sim_bytes *sim_bytes_hold(struct sim_bytes *bytes)
{
    bytes->references++;
    return bytes;
}

void sim_bytes_drop(struct sim_bytes *bytes)
{
    if (bytes != NULL && --bytes->references == 0) free(bytes);
}

struct sim_bytes *sim_encode(const struct message *message)
{
    struct sim_bytes *bytes = sim_bytes_new((uint32_t)message_encoded_bytes(message));
    message_encode(message, bytes->data, bytes->length);
    return bytes;
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void sim_schedule(struct sim_world *world, uint64_t delay_us, const struct sim_event *event)
{
    if (world->queue_count == world->queue_capacity) {
        size_t capacity = world->queue_capacity != 0 ? 2 * world->queue_capacity : 1024;
        struct sim_event *bigger = sim_alloc(capacity, sizeof *bigger);
        if (world->queue_count > 0)
            memcpy(bigger, world->queue, world->queue_count * sizeof *bigger);
        free(world->queue);
        world->queue = bigger;
        world->queue_capacity = capacity;
    }
    struct sim_event placed = *event;
    placed.at = world->now + delay_us;
    placed.order = ++world->order;
    size_t at = world->queue_count++;
    for (; at > 0 && before(&placed, &world->queue[(at - 1) / 2]); at = (at - 1) / 2)
        world->queue[at] = world->queue[(at - 1) / 2];
    world->queue[at] = placed;
}

static struct sim_event next_event(struct sim_world *world)
{
    struct sim_event first = world->queue[0], last = world->queue[--world->queue_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world->queue_count) break;
        if (child + 1 < world->queue_count &&
            before(&world->queue[child + 1], &world->queue[child]))
            child++;
        if (!before(&world->queue[child], &last)) break;
        world->queue[at] = world->queue[child];
        at = child;
    }
    world->queue[at] = last;
    return first;
}

const struct sim_entry *sim_in_force(const struct sim_world *world, enum sim_entry_kind kind,
                                     uint8_t seat, uint8_t other)
{
    for (uint32_t i = 0; i < world->plan->count; i++) {
        const struct sim_entry *entry = &world->plan->entries[i];
        if (world->active[i] && entry->kind == kind &&
            (seat >= SIM_SEATS_MAX || entry->seat == seat) &&
            (other >= SIM_SEATS_MAX || (entry->mask >> other & 1) != 0))
            return entry;
    }
    return NULL;
}

static void both_faces(struct sim_world *world, uint8_t seat, struct sim_node *out[2])
{
    out[0] = &world->nodes[seat];
    out[1] = world->nodes[seat + SIM_SEATS_MAX].exists ? &world->nodes[seat + SIM_SEATS_MAX] : NULL;
}

static void go_down(struct sim_world *world, uint8_t seat)
{
    struct sim_node *faces[2];
    both_faces(world, seat, faces);
    for (int i = 0; i < 2 && faces[i] != NULL; i++)
        if (faces[i]->down++ == 0) sim_node_stop(faces[i]);
}

static void come_up(struct sim_world *world, uint8_t seat, bool amnesia)
{
    struct sim_node *faces[2];
    both_faces(world, seat, faces);
    for (int i = 0; i < 2 && faces[i] != NULL; i++) {
        if (amnesia) faces[i]->recovering = true;
        /* Once it has written something down, its store tells by itself what is missing. */
        if (--faces[i]->down == 0)
            sim_node_start(faces[i], faces[i]->recovering && faces[i]->disk.count == 0);
    }
}

static void wipe(struct sim_world *world, const struct sim_entry *entry)
{
    sim_count(world, SIM_COUNT_WIPED);
    struct sim_node *node = &world->nodes[entry->seat];
    sim_disk_wipe(node, entry->value != 0);
    node->wiped_life = node->life;
}

static void set_disk_full(struct sim_world *world, uint8_t seat, bool full)
{
    struct sim_node *faces[2];
    both_faces(world, seat, faces);
    for (int i = 0; i < 2 && faces[i] != NULL; i++) {
        faces[i]->disk.full += full ? 1 : (uint64_t)-1;
        if (!full) sim_disk_resume(faces[i]);
    }
}

/* Whether everybody who is to lose its records has, and votes again. */
static bool all_are_back(struct sim_world *world)
{
    for (uint64_t left = world->setup->wiped; left != 0; left &= left - 1) {
        struct sim_node *node = &world->nodes[__builtin_ctzll(left)];
        struct pbft_status status;
        if (node->back) continue;
        if (!node->up || node->wiped_life == 0) return false;
        pbft_status(node->core, &status);
        if (status.state == PBFT_RECOVERING) return false;
        node->back = true;
    }
    return true;
}

/* The Byzantine wait with their first deeds until there is room for them among the f. True: not yet. */
static bool too_early(struct sim_world *world, uint32_t index)
{
    if (!world->setup->late || world->plan->entries[index].kind < SIM_BYZANTINE_FIRST ||
        all_are_back(world))
        return false;
    if (world->healed_at == 0)
        sim_schedule(world, LOOK_US, &(struct sim_event){.kind = SIM_EVENT_BEGIN, .index = index});
    return true;
}

static void begin(struct sim_world *world, uint32_t index)
{
    const struct sim_entry *entry = &world->plan->entries[index];
    struct sim_node *node = &world->nodes[entry->seat];
    char text[200];
    if (too_early(world, index)) return;
    sim_entry_describe(world->setup, entry, text, sizeof text);
    sim_tell(world, "## %s", text);
    sim_count(world, SIM_COUNT_ENTRIES + (int)entry->kind);
    world->active[index] = true;
    switch (entry->kind) {
    case SIM_REQUEST:
    case SIM_CHANGE:
        sim_schedule(world, 0,
                     &(struct sim_event){.kind = entry->kind == SIM_REQUEST ? SIM_EVENT_SUBMIT
                                                                            : SIM_EVENT_CHANGE,
                                         .node = entry->seat,
                                         .index = entry->value});
        break;
    case SIM_CRASH:
    case SIM_LOSE_LOG:
    case SIM_WIPE:
        go_down(world, entry->seat);
        if (entry->kind == SIM_LOSE_LOG) sim_disk_lose_log(node, entry->value);
        if (entry->kind == SIM_WIPE) wipe(world, entry);
        break;
    case SIM_CRASH_ALL:
        for (uint8_t seat = 0; seat < world->setup->seats; seat++)
            if (entry->mask >> seat & 1) go_down(world, seat);
        break;
    case SIM_PAUSE:
        if (node->paused_until < world->now + entry->lasts)
            node->paused_until = world->now + entry->lasts;
        break;
    case SIM_DISK_FULL: set_disk_full(world, entry->seat, true); break;
    case SIM_DISK_SLOW: node->disk.slow_us = entry->value; break;
    case SIM_CLOCK: node->clock = entry->value; break;
    case SIM_SLOW_VERDICT: node->verdict_us = entry->value; break;
    default:
        if (entry->kind >= SIM_BYZANTINE_FIRST)
            sim_schedule(world, INVENT_US,
                         &(struct sim_event){.kind = SIM_EVENT_INVENT, .index = index});
        break;
    }
    if (entry->lasts > 0)
        sim_schedule(world, entry->lasts,
                     &(struct sim_event){.kind = SIM_EVENT_END, .index = index});
}

static void end(struct sim_world *world, uint32_t index)
{
    const struct sim_entry *entry = &world->plan->entries[index];
    struct sim_node *node = &world->nodes[entry->seat];
    world->active[index] = false;
    sim_tell(world, "## over: %s of %u", sim_entry_name(entry->kind), entry->seat);
    switch (entry->kind) {
    case SIM_CRASH:
    case SIM_LOSE_LOG:
    case SIM_WIPE: come_up(world, entry->seat, entry->kind == SIM_WIPE); break;
    case SIM_CRASH_ALL:
        for (uint8_t seat = 0; seat < world->setup->seats; seat++)
            if (entry->mask >> seat & 1) come_up(world, seat, false);
        break;
    case SIM_DISK_FULL: set_disk_full(world, entry->seat, false); break;
    case SIM_DISK_SLOW: node->disk.slow_us = 0; break;
    case SIM_CLOCK: node->clock = world->setup->clock[entry->seat]; break;
    case SIM_SLOW_VERDICT: node->verdict_us = 0; break;
    default: break;
    }
}

static void on_submit(struct sim_world *world, const struct sim_event *event)
{
    struct sim_node *faces[2];
    both_faces(world, event->node, faces);
    bool change = event->kind == SIM_EVENT_CHANGE;
    bool taken =
        change ? sim_node_change(faces[0], event->index) : sim_node_submit(faces[0], event->index);
    if (faces[1] != NULL && !change) (void)sim_node_submit(faces[1], event->index);
    /* Who is down, recovering or not a member may be so for ever; what heals will ask again by itself. */
    bool hopeless = !faces[0]->correct && world->healed_at != 0;
    if (!taken && !hopeless && event->number < 400) {
        struct sim_event again = *event;
        again.number++;
        sim_schedule(world, RETRY_US, &again);
    } else if (event->from == 1) {
        world->trickle_left--;
    }
}

/* A client of each correct member asks for something now and then, so that checkpoints are reached. */
static void begin_trickle(struct sim_world *world)
{
    uint32_t count = 2 * world->setup->limits.window + world->setup->checkpoint_interval;
    uint64_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (left == 0) left = sim_correct_seats(world) & ((1u << world->setup->nodes) - 1);
        uint8_t seat = (uint8_t)__builtin_ctzll(left);
        left &= left - 1;
        world->trickle_left++;
        sim_schedule(world, (uint64_t)i * TRICKLE_US,
                     &(struct sim_event){.kind = SIM_EVENT_SUBMIT, .node = seat, .from = 1});
    }
}

/* A replica that lost its records votes again when the log is a window further: then there must be something to do. */
static void trickle_on(struct sim_world *world)
{
    if (world->now < world->trickle_next) return;
    world->trickle_next = world->now + 1000ull * world->setup->view_timeout_ms;
    for (uint8_t seat = 0; seat < world->setup->seats; seat++) {
        const struct sim_node *node = &world->nodes[seat];
        if (!node->correct || !node->recovering) continue;
        uint64_t others = sim_correct_seats(world) & ((1u << world->setup->nodes) - 1);
        uint8_t who = sim_pick(&world->workload, others & ~((uint64_t)1 << seat));
        world->trickle_left++;
        sim_schedule(world, TRICKLE_US,
                     &(struct sim_event){.kind = SIM_EVENT_SUBMIT, .node = who, .from = 1});
        return;
    }
}

static void on_look(struct sim_world *world)
{
    char why[200] = "";
    if (world->healed_at == 0) {
        if (world->now >= world->setup->chaos_us) {
            world->healed_at = world->now;
            sim_tell(world, "## the network has healed, all are up");
            begin_trickle(world);
        }
    } else if (world->trickle_left == 0 && sim_check_done(world, why, sizeof why)) {
        world->over = true;
        return;
    } else if (world->now >= world->healed_at + world->setup->bound_us) {
        if (why[0] == '\0') snprintf(why, sizeof why, "requests are not taken");
        sim_violate(world, SIM_LIVENESS, "%.1f s after healing: %s",
                    (double)world->setup->bound_us / 1e6, why);
        return;
    } else if (world->trickle_left == 0) {
        trickle_on(world);
    }
    sim_schedule(world, LOOK_US, &(struct sim_event){.kind = SIM_EVENT_LOOK});
}

static void on_invent(struct sim_world *world, const struct sim_event *event)
{
    if (!world->active[event->index]) return;
    sim_adversary_invent(world, &world->plan->entries[event->index]);
    sim_schedule(world, INVENT_US, event);
}

/* Of a node that stands still: later. Of an earlier life: nothing. */
static bool concerns(struct sim_world *world, struct sim_event *event)
{
    struct sim_node *node = &world->nodes[event->node];
    if (event->kind == SIM_EVENT_ARRIVE) {
        if (!node->up || event->life < node->wiped_life) return false;
    } else if (node->life != event->life) {
        return false;
    }
    if (node->paused_until <= world->now) return true;
    struct sim_event later = *event;
    if (later.bytes != NULL) {
        sim_bytes_hold(later.bytes);
        world->links[later.from][later.node].under_way++;
    }
    sim_schedule(world, node->paused_until - world->now, &later);
    return false;
}

static void on_node_event(struct sim_world *world, struct sim_event *event)
{
    struct sim_node *node = &world->nodes[event->node];
    if (!concerns(world, event)) return;
    switch (event->kind) {
    case SIM_EVENT_ARRIVE: sim_node_arrive(node, event->from, event->bytes); break;
    case SIM_EVENT_TIMER:
        /* One in four late ones gets through: the core must know them. */
        if (node->timer_generation[event->index] != event->number && event->number % 4 != 0) break;
        sim_digest(world, 2, event->node, event->index);
        sim_node_step(node, &(struct pbft_event){.kind = PBFT_EVENT_TIMER,
                                                 .timer = (enum pbft_timer)event->index,
                                                 .generation = event->number});
        break;
    case SIM_EVENT_SYNCED: sim_disk_synced(node, event->number); break;
    default: /* SIM_EVENT_VERDICT */
        sim_node_step(node, &(struct pbft_event){.kind = PBFT_EVENT_VERDICT,
                                                 .request = event->digest,
                                                 .valid = event->index != 0});
        break;
    }
}

static void on_repeat(struct sim_world *world, const struct sim_event *event)
{
    struct sim_node *node = &world->nodes[event->node];
    for (uint64_t to = node->active; to != 0; to &= to - 1)
        sim_network_send(node, (uint8_t)__builtin_ctzll(to), event->bytes);
}

static void on_event(struct sim_world *world, struct sim_event *event)
{
    switch ((enum sim_event_kind)event->kind) {
    case SIM_EVENT_BEGIN: begin(world, event->index); break;
    case SIM_EVENT_END: end(world, event->index); break;
    case SIM_EVENT_SUBMIT:
    case SIM_EVENT_CHANGE: on_submit(world, event); break;
    case SIM_EVENT_REPEAT: on_repeat(world, event); break;
    case SIM_EVENT_INVENT: on_invent(world, event); break;
    case SIM_EVENT_LOOK: on_look(world); break;
    case SIM_EVENT_ARRIVE: sim_network_arrived(world, event->from, event->node); /* fallthrough */
    case SIM_EVENT_TIMER:
    case SIM_EVENT_SYNCED:
    case SIM_EVENT_VERDICT: on_node_event(world, event); break;
    }
}

static void make_keys(struct sim_world *world)
{
    uint32_t generations[SIM_SEATS_MAX] = {0};
    struct sim_setup *setup = &world->own_setup;
    for (uint32_t seat = 0; seat < setup->nodes; seat++) {
        struct message_member *member = &world->first_members[seat];
        *member = (struct message_member){.seat = (uint8_t)seat, .active = true};
        sim_key_make(world, (uint8_t)seat, 0, member->key);
    }
    for (uint32_t i = 0; i < setup->change_count; i++) {
        struct message_change *change = &setup->changes[i];
        if (change->kind == MESSAGE_CHANGE_REKEY) generations[change->seat]++;
        sim_key_make(world, change->seat, generations[change->seat], change->key);
    }
}

static void prepare(struct sim_world *world, const struct sim_plan *plan, const bool *enabled)
{
    world->plan = plan;
    world->own_setup = plan->setup;
    world->setup = &world->own_setup;
    world->enabled = enabled;
    const uint64_t seed = plan->setup.seed;
    struct sim_random random = sim_random_of(seed, 2);
    world->secret = sim_next(&random);
    for (int i = 0; i < MESSAGE_DIGEST_BYTES / 8; i++) {
        uint64_t word = sim_next(&random);
        memcpy(world->federation.bytes + 8 * i, &word, 8);
    }
    world->adversary = sim_random_of(seed, 3);
    world->workload = sim_random_of(seed, 4);
    for (uint64_t from = 0; from < SIM_NODES_MAX; from++)
        for (uint64_t to = 0; to < SIM_NODES_MAX; to++)
            world->links[from][to].random = sim_random_of(seed, 10000 + from * 256 + to);
    world->work = sim_alloc(message_bytes_max(&plan->setup.limits), 1);
    make_keys(world);
    bool twins = false;
    for (uint32_t i = 0; i < plan->count; i++) {
        if (enabled != NULL && !enabled[i]) continue;
        twins = twins || plan->entries[i].kind == SIM_TWINS;
        sim_schedule(world, plan->entries[i].at,
                     &(struct sim_event){.kind = SIM_EVENT_BEGIN, .index = i});
    }
    sim_schedule(world, LOOK_US, &(struct sim_event){.kind = SIM_EVENT_LOOK});
    for (uint8_t seat = 0; seat < plan->setup.seats; seat++) {
        sim_node_init(world, seat, 0);
        if (twins && sim_is_byzantine(world, seat)) sim_node_init(world, seat, 1);
    }
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++)
        if (world->nodes[i].exists) sim_node_start(&world->nodes[i], false);
}

static void clean_up(struct sim_world *world)
{
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) sim_node_free(&world->nodes[i]);
    for (size_t i = 0; i < world->queue_count; i++) sim_bytes_drop(world->queue[i].bytes);
    for (uint32_t i = 0; i < SIM_REPLAY_MESSAGES; i++) sim_bytes_drop(world->heard[i]);
    free(world->queue);
    free(world->work);
    free(world->requests);
    free(world->decisions);
    struct sim_map *maps[] = {
        &world->signed_by, &world->request_index, &world->request_executed, &world->number_executed,
        &world->votes,     &world->fixed,         &world->commits};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) sim_map_free(maps[i]);
}

void sim_run(const struct sim_plan *plan, const bool *enabled, FILE *trace,
             struct sim_result *result)
{
    struct sim_world *world = sim_alloc(1, sizeof *world);
    sigjmp_buf unwind;
    world->trace.out = trace;
    running = world;
    if (sigsetjmp(unwind, 0) == 0) {
        world->unwind = &unwind;
        prepare(world, plan, enabled);
        while (!world->over && world->queue_count > 0) {
            struct sim_event event = next_event(world);
            world->now = event.at;
            if (++world->result.counts[SIM_COUNT_EVENTS] > EVENTS_MAX)
                sim_violate(world, SIM_LIVENESS, "more than %d events", EVENTS_MAX);
            on_event(world, &event);
            sim_bytes_drop(event.bytes);
        }
    }
    running = NULL;
    sim_digest(world, world->result.violation, world->result.counts[SIM_COUNT_EVENTS],
               world->result.counts[SIM_COUNT_MESSAGES]);
    world->result.trace_digest = world->trace.digest;
    world->result.ended_at = world->now;
    *result = world->result;
    clean_up(world);
    free(world);
}
