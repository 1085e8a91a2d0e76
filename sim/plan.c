/* SPDX-License-Identifier: Apache-2.0 */
/* From a seed to a federation and its fate. */
#include "sim/plan.h"

#include <stdio.h>
#include <string.h>

#include "sim/random.h"

enum { MS = 1000, SECOND = 1000 * 1000 };

static const struct {
    const char *name, *story;
    uint32_t weight; /* how often, against the others of its sort; 0: not by chance */
} kinds[SIM_ENTRY_KINDS] = {
    [SIM_REQUEST] = {"request", "submits a request", 0},
    [SIM_CHANGE] = {"change", "submits a change of the configuration", 0},
    [SIM_PARTITION] = {"partition", "is cut off from the others", 10},
    [SIM_ONE_WAY] = {"one-way", "is not heard by the others", 6},
    [SIM_LOSS] = {"loss", "messages are lost", 6},
    [SIM_DUPLICATE] = {"duplicate", "messages arrive twice", 3},
    [SIM_REORDER] = {"reorder", "messages overtake each other", 5},
    [SIM_SLOW_LINK] = {"slow-link", "has slow links", 6},
    [SIM_SLOW_ALL] = {"slow-all", "the network is slow", 3},
    [SIM_CRASH] = {"crash", "is down", 14},
    [SIM_CRASH_ALL] = {"crash-all", "are down together", 4},
    [SIM_LOSE_LOG] = {"lose-log", "is down, and the end of its log is corrupted", 5},
    [SIM_WIPE] = {"wipe", "is down, and loses its records", 0},
    [SIM_PAUSE] = {"pause", "is paused", 5},
    [SIM_DISK_FULL] = {"disk-full", "has a full disk", 5},
    [SIM_DISK_SLOW] = {"disk-slow", "has a slow disk", 5},
    [SIM_CLOCK] = {"clock", "has a clock that runs wrong", 4},
    [SIM_SLOW_VERDICT] = {"slow-verdict", "judges slowly", 4},
    [SIM_TWINS] = {"twins", "hear one of the two faces of the Byzantine, the others the second",
                   14},
    [SIM_SILENT] = {"silent", "is silent", 8},
    [SIM_WITHHOLD] = {"withhold", "withholds a kind of message", 8},
    [SIM_WRONG_DIGEST] = {"wrong-digest", "votes for another digest", 6},
    [SIM_WRONG_VIEW] = {"wrong-view", "signs for other views", 5},
    [SIM_WRONG_SEQUENCE] = {"wrong-sequence", "signs for other sequences", 5},
    [SIM_OTHER_PROPOSAL] = {"other-proposal", "proposes two batches", 10},
    [SIM_BAD_PROPOSAL] = {"bad-proposal", "proposes what is not valid", 8},
    [SIM_REPLAY] = {"replay", "repeats old messages", 6},
    [SIM_FLOOD] = {"flood", "floods", 4},
    [SIM_FORGE] = {"forge", "forges certificates", 8},
    [SIM_HIDE] = {"hide", "hides what it has prepared", 10},
    [SIM_BAD_NEW_VIEW] = {"bad-new-view", "makes wrong new views", 8},
    [SIM_LIE] = {"lie", "lies about its state and its log", 6},
    [SIM_GARBAGE] = {"garbage", "sends garbage", 4},
    [SIM_EARLY_COMMIT] = {"early-commit", "commits too early", 6},
    [SIM_IMPATIENT] = {"impatient", "asks for view changes", 5},
    [SIM_FALSE_RECOVERY] = {"false-recovery", "says that it recovers", 5},
    [SIM_BAD_REQUESTS] = {"bad-requests", "submits what it must not", 6},
};

const char *sim_entry_name(enum sim_entry_kind kind)
{
    return kind < SIM_ENTRY_KINDS ? kinds[kind].name : "?";
}

static void put_seats(uint64_t mask, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (int seat = 0; seat < SIM_SEATS_MAX && used + 4 < size; seat++)
        if (mask >> seat & 1)
            used += (size_t)snprintf(out + used, size - used, "%s%d", used > 0 ? "," : "", seat);
}

void sim_entry_describe(const struct sim_setup *setup, const struct sim_entry *entry, char *out,
                        size_t size)
{
    char seats[64], who[32];
    put_seats(entry->mask, seats, sizeof seats);
    snprintf(who, sizeof who, "%d", entry->seat);
    const bool by_mask = entry->kind == SIM_PARTITION || entry->kind == SIM_ONE_WAY ||
                         entry->kind == SIM_CRASH_ALL || entry->kind == SIM_TWINS;
    const bool by_none = entry->kind == SIM_LOSS || entry->kind == SIM_DUPLICATE ||
                         entry->kind == SIM_REORDER || entry->kind == SIM_SLOW_ALL;
    int used = snprintf(out, size, "%9.3f ms  %s%s%s", (double)entry->at / MS,
                        by_none   ? ""
                        : by_mask ? seats
                                  : who,
                        by_none ? "" : " ", kinds[entry->kind].story);
    if (used < 0 || (size_t)used >= size) return;
    out += used, size -= (size_t)used;
    if (entry->kind == SIM_CHANGE) {
        const struct message_change *change = &setup->changes[entry->value];
        static const char *const what[] = {"?", "add", "remove", "re-key"};
        snprintf(out, size, ": %s %d", what[change->kind], change->seat);
    } else if (entry->kind == SIM_REQUEST) {
        snprintf(out, size, "%s%s%s%s",
                 entry->value & SIM_REQUEST_INVALID ? ", an invalid one" : "",
                 entry->value & SIM_REQUEST_LARGE ? ", a large one" : "",
                 entry->value & SIM_REQUEST_SPREAD ? ", to all" : "",
                 entry->value & SIM_REQUEST_REPEATED ? ", twice" : "");
    } else {
        used = snprintf(out, size, " for %.0f ms", (double)entry->lasts / MS);
        out += used, size -= (size_t)used;
        if (entry->kind == SIM_WITHHOLD)
            used = snprintf(out, size, ": %s", message_kind_name((enum message_kind)entry->value));
        else if (entry->value != 0)
            used = snprintf(out, size, " (%u)", entry->value);
        else
            used = 0;
        out += used, size -= (size_t)used;
        if (!by_mask && entry->mask != 0) snprintf(out, size, " [%s]", seats);
    }
}

void sim_setup_describe(const struct sim_setup *s, char *out, size_t size)
{
    char byzantine[64], wiped[64];
    put_seats(s->byzantine, byzantine, sizeof byzantine);
    put_seats(s->wiped, wiped, sizeof wiped);
    snprintf(out, size,
             "%u replicas (f %u), Byzantine {%s}%s, losing their records {%s}; window %u, "
             "checkpoint every %u, pipeline "
             "%u, batches of %u; time-out %u..%u ms; delay %u..%u us; faults end at %.1f s, then "
             "all within %.1f s",
             s->nodes, s->faulty_max, byzantine, s->late ? " after recovery" : "", wiped,
             s->limits.window, s->checkpoint_interval, s->pipeline_max,
             s->limits.batch_requests_max, s->view_timeout_ms, s->view_timeout_ms_max,
             s->delay_us_min, s->delay_us_max, (double)s->chaos_us / SECOND,
             (double)s->bound_us / SECOND);
}

/* Most runs are of the smallest federation: there the least goes wrong before something breaks. */
static uint32_t draw_nodes(struct sim_random *random)
{
    static const uint8_t sizes[20] = {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 6, 7, 7, 7, 8, 10, 13};
    return sizes[sim_below(random, sizeof sizes)];
}

static uint32_t one_of(struct sim_random *random, const uint32_t *values, size_t count)
{
    return values[sim_below(random, count)];
}
#define ONE_OF(random, ...)                         \
    one_of(random, (const uint32_t[]){__VA_ARGS__}, \
           sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void draw_changes(struct sim_random *random, struct sim_setup *setup)
{
    uint32_t least = setup->nodes, now = setup->nodes;
    uint64_t members = ((uint64_t)1 << setup->nodes) - 1;
    setup->change_count = (uint32_t)sim_between(random, 1, SIM_CHANGES_MAX);
    for (uint32_t i = 0; i < setup->change_count; i++) {
        struct message_change *change = &setup->changes[i];
        uint32_t kind = (uint32_t)sim_between(random, MESSAGE_CHANGE_ADD, MESSAGE_CHANGE_REKEY);
        if (kind == MESSAGE_CHANGE_ADD && setup->seats >= SIM_SEATS_MAX)
            kind = MESSAGE_CHANGE_REKEY;
        if (kind == MESSAGE_CHANGE_REMOVE && now <= 4) kind = MESSAGE_CHANGE_ADD;
        *change = (struct message_change){.kind = kind};
        if (kind == MESSAGE_CHANGE_ADD) {
            change->seat = (uint8_t)setup->seats++;
            members |= (uint64_t)1 << change->seat;
            now++;
        } else {
            change->seat = sim_pick(random, members);
            if (kind == MESSAGE_CHANGE_REMOVE) {
                members &= ~((uint64_t)1 << change->seat);
                now--;
            }
        }
        if (now < least) least = now;
    }
    setup->faulty_max = (least - 1) / 3;
}

static void draw_setup(const struct sim_options *options, struct sim_random *random,
                       struct sim_setup *s)
{
    *s = (struct sim_setup){.seed = options->seed};
    uint32_t drawn = draw_nodes(random);
    s->nodes = s->seats = options->nodes != 0 ? options->nodes : drawn;
    s->faulty_max = (s->nodes - 1) / 3;
    if (sim_chance(random, 200) && s->nodes <= 8 && !options->calm && options->extra == 0)
        draw_changes(random, s);
    uint64_t members = ((uint64_t)1 << s->nodes) - 1;
    uint32_t faulty = s->faulty_max;
    /* A third of the runs have only benign faults. */
    if (options->calm || (options->extra == 0 && sim_chance(random, 300))) faulty = 0;
    for (uint32_t i = 0; i < faulty + options->extra; i++)
        s->byzantine |= (uint64_t)1 << sim_pick(random, members & ~s->byzantine);
    uint32_t left = s->faulty_max > faulty ? s->faulty_max - faulty : 0;
    if (!options->calm && left > 0 && sim_chance(random, 500))
        s->wiped |= (uint64_t)1 << sim_pick(random, members & ~s->byzantine);
    /* Who has lost its records is one of the f faulty until it has recovered, and no longer. */
    s->late = !options->calm && options->extra == 0 && faulty > 0 && sim_chance(random, 150);
    for (uint32_t i = 0; i < faulty && s->late; i++)
        s->wiped |= (uint64_t)1 << sim_pick(random, members & ~s->byzantine);

    s->limits = (struct message_limits){.pattern_bytes_max = 256,
                                        .request_bytes_max = 1024,
                                        .batch_requests_max = ONE_OF(random, 1, 2, 3, 8, 16),
                                        .batch_patterns_max = ONE_OF(random, 4, 8, 16),
                                        .batch_bytes_max = ONE_OF(random, 1024, 2048, 4096),
                                        .window = ONE_OF(random, 8, 8, 8, 16, 24)};
    s->checkpoint_interval =
        s->limits.window == 24 ? ONE_OF(random, 3, 4, 6, 8, 12) : ONE_OF(random, 1, 2, 4, 4);
    s->pipeline_max = ONE_OF(random, 1, 2, 4, 8, 8);
    s->transfer_window = ONE_OF(random, 1, 2, 4, 8, 16);
    s->view_timeout_ms = ONE_OF(random, 100, 200, 400);
    s->view_timeout_ms_max = s->view_timeout_ms * ONE_OF(random, 4, 8, 16);
    s->resend_ms = s->view_timeout_ms / ONE_OF(random, 4, 5, 8);
    s->validity = sim_chance(random, 500);
    s->delay_us_min = ONE_OF(random, 50, 200, 1000);
    s->delay_us_max = s->delay_us_min + ONE_OF(random, 100, 1000, 5000);
    if (!options->calm && sim_chance(random, 70)) {
        /* A network so slow that only growing patience gets anything through: a round takes several time-outs. */
        s->view_timeout_ms = 100;
        s->resend_ms = 25;
        s->transfer_window = 16;
        s->view_timeout_ms_max = 100 * ONE_OF(random, 16, 32);
        s->delay_us_min = (uint32_t)sim_between(random, 40, 80) * MS;
        s->delay_us_max = s->delay_us_min + 10 * MS;
    }
    if (!options->calm) {
        s->loss = ONE_OF(random, 0, 0, 5, 20, 50);
        s->duplicate = ONE_OF(random, 0, 0, 10, 50);
        s->reorder = ONE_OF(random, 0, 10, 50);
    }
    s->sync_us_min = 100;
    s->sync_us_max = ONE_OF(random, 200, 1000, 5000);
    for (int i = 0; i < SIM_SEATS_MAX; i++)
        s->clock[i] = options->calm ? 1000 : (uint32_t)sim_between(random, 850, 1150);
    s->eager = sim_next(random);
    s->chaos_us = options->chaos_us != 0 ? options->chaos_us : sim_between(random, 2, 6) * SECOND;
    if (s->late && options->chaos_us == 0) s->chaos_us += 2 * SECOND;
    /*
     * Patience may be at its maximum everywhere when the network heals; then f faulty primaries in a row may use up
     * theirs, each doubled by a replica that is one view behind; and what was lost on the way must be fetched. Clocks
     * may be slow by 1.15 (and by half again through SIM_CLOCK, which ends with the faults). And what is asked for after
     * healing may go through one by one, by four delays each.
     */
    s->bound_us = (uint64_t)(2 * s->faulty_max + 6) * s->view_timeout_ms_max * MS * 3 / 2 +
                  5 * SECOND +
                  (uint64_t)(2 * s->limits.window + s->checkpoint_interval) * 4 * s->delay_us_max;
}

static void add(struct sim_plan *plan, struct sim_entry entry)
{
    if (plan->count < SIM_ENTRIES_MAX) plan->entries[plan->count++] = entry;
}

static enum sim_entry_kind draw_kind(struct sim_random *random, enum sim_entry_kind from,
                                     enum sim_entry_kind to)
{
    uint32_t sum = 0;
    for (int k = (int)from; k < (int)to; k++) sum += kinds[k].weight;
    uint64_t at = sim_below(random, sum);
    for (int k = (int)from; k < (int)to; k++) {
        if (at < kinds[k].weight) return (enum sim_entry_kind)k;
        at -= kinds[k].weight;
    }
    return from;
}

static void draw_value(struct sim_random *random, const struct sim_setup *setup,
                       struct sim_entry *entry)
{
    const uint32_t patience = setup->view_timeout_ms * MS;
    switch (entry->kind) {
    case SIM_LOSS: entry->value = ONE_OF(random, 50, 100, 300, 600); break;
    case SIM_DUPLICATE:
    case SIM_REORDER: entry->value = ONE_OF(random, 100, 300, 600); break;
    case SIM_SLOW_LINK:
        entry->value = (uint32_t)sim_between(random, patience / 20, patience * 2);
        break;
    case SIM_SLOW_ALL: entry->value = (uint32_t)sim_between(random, patience / 20, patience); break;
    case SIM_LOSE_LOG: entry->value = (uint32_t)sim_between(random, 1, 12); break;
    case SIM_WIPE: entry->value = (uint32_t)sim_below(random, 2); break;
    case SIM_DISK_SLOW:
        entry->value = (uint32_t)sim_between(random, patience / 20, patience / 2);
        break;
    case SIM_CLOCK: entry->value = ONE_OF(random, 500, 700, 1400, 2000); break;
    case SIM_SLOW_VERDICT:
        entry->value = (uint32_t)sim_between(random, patience / 20, patience);
        break;
    case SIM_WITHHOLD:
        entry->value = ONE_OF(random, MESSAGE_PRE_PREPARE, MESSAGE_PREPARE, MESSAGE_COMMIT,
                              MESSAGE_COMMIT, MESSAGE_CHECKPOINT, MESSAGE_VIEW_CHANGE,
                              MESSAGE_NEW_VIEW, MESSAGE_REQUEST, MESSAGE_LOG_ENTRY, MESSAGE_BATCH);
        break;
    case SIM_FLOOD: entry->value = (uint32_t)sim_between(random, 4, 24); break;
    default: break;
    }
}

static void draw_fault(struct sim_random *random, struct sim_plan *plan, bool byzantine)
{
    const struct sim_setup *s = &plan->setup;
    const uint64_t all = ((uint64_t)1 << s->seats) - 1;
    struct sim_entry entry = {.at = sim_below(random, s->chaos_us)};
    entry.kind = byzantine ? draw_kind(random, SIM_BYZANTINE_FIRST, SIM_ENTRY_KINDS)
                           : draw_kind(random, SIM_PARTITION, SIM_BYZANTINE_FIRST);
    entry.lasts = sim_between(random, 20, 1500) * MS;
    if (byzantine) entry.lasts *= 2;
    entry.seat = sim_pick(random, byzantine ? s->byzantine : all);
    entry.mask = sim_some(random, all);
    /* Most partitions leave out one or two: then the others go on without them. */
    if (entry.kind == SIM_PARTITION && sim_chance(random, 500))
        entry.mask = (uint64_t)1 << entry.seat | (uint64_t)1 << sim_pick(random, all);
    if (entry.kind == SIM_ONE_WAY || (byzantine && sim_chance(random, 300)))
        entry.mask = (uint64_t)1 << sim_pick(random, all);
    if (entry.kind == SIM_FALSE_RECOVERY) entry.lasts = s->chaos_us;
    draw_value(random, s, &entry);
    /* Benign faults end when the network heals; the Byzantine go on. */
    if (!byzantine && entry.at + entry.lasts > s->chaos_us) entry.lasts = s->chaos_us - entry.at;
    add(plan, entry);
}

/*
 * One short cut after another, each about as long as patience with a primary: views end half-way, with batches prepared
 * here and there, and their certificates in the wrong places.
 */
static void draw_storm(struct sim_random *random, struct sim_plan *plan)
{
    const struct sim_setup *s = &plan->setup;
    const uint64_t all = ((uint64_t)1 << s->seats) - 1,
                   patience = (uint64_t)s->view_timeout_ms * MS;
    uint64_t at = 0;
    for (int i = 0; i < 60 && at < s->chaos_us; i++) {
        struct sim_entry entry = {.at = at, .kind = SIM_PARTITION, .mask = sim_some(random, all)};
        entry.seat = sim_pick(random, all);
        if (sim_chance(random, 300)) entry.kind = SIM_ONE_WAY;
        if (sim_chance(random, 150)) entry.kind = SIM_CRASH;
        entry.lasts = sim_between(random, patience / 8, 2 * patience);
        at += sim_between(random, patience / 8, entry.lasts);
        if (entry.at + entry.lasts > s->chaos_us) entry.lasts = s->chaos_us - entry.at;
        add(plan, entry);
    }
}

static void draw_requests(struct sim_random *random, struct sim_plan *plan)
{
    const struct sim_setup *s = &plan->setup;
    const uint64_t all = ((uint64_t)1 << s->seats) - 1;
    uint32_t count = (uint32_t)sim_between(random, 25, 70);
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        /* In bursts: several at nearly the same time, then a pause. */
        at = sim_chance(random, 600) ? at + sim_below(random, 4 * MS)
                                     : sim_below(random, s->chaos_us);
        struct sim_entry entry = {.kind = SIM_REQUEST, .at = at, .seat = sim_pick(random, all)};
        if (sim_chance(random, 100)) entry.value |= SIM_REQUEST_INVALID;
        if (sim_chance(random, 200)) entry.value |= SIM_REQUEST_LARGE;
        if (sim_chance(random, 100)) entry.value |= SIM_REQUEST_SPREAD;
        if (sim_chance(random, 100)) entry.value |= SIM_REQUEST_REPEATED;
        add(plan, entry);
    }
    for (uint32_t i = 0; i < s->change_count; i++)
        add(plan, (struct sim_entry){.kind = SIM_CHANGE,
                                     .at = s->chaos_us * (i + 1) / (s->change_count + 2),
                                     .seat = sim_pick(random, all & ~s->byzantine),
                                     .value = i});
}

static void sort(struct sim_plan *plan)
{
    for (uint32_t i = 1; i < plan->count; i++) {
        struct sim_entry entry = plan->entries[i];
        uint32_t at = i;
        for (; at > 0 && plan->entries[at - 1].at > entry.at; at--)
            plan->entries[at] = plan->entries[at - 1];
        plan->entries[at] = entry;
    }
}

/* Half of the time nobody hears what it said last: a VIEW_CHANGE, when it is kept waiting for so long. */
static void draw_wipe(struct sim_random *random, struct sim_plan *plan, uint8_t seat)
{
    const struct sim_setup *s = &plan->setup;
    struct sim_entry entry = {.kind = SIM_WIPE,
                              .seat = seat,
                              .at = sim_below(random, s->chaos_us / (s->late ? 8 : 2)),
                              .lasts = sim_between(random, 20, 500) * MS};
    draw_value(random, s, &entry);
    if (sim_chance(random, 500)) {
        const struct sim_entry request = {.kind = SIM_REQUEST, .seat = seat, .at = entry.at};
        struct sim_entry unheard = {
            .kind = SIM_ONE_WAY, .seat = seat, .mask = (uint64_t)1 << seat, .at = entry.at};
        unheard.lasts = sim_between(random, s->view_timeout_ms, 5 * s->view_timeout_ms) * MS;
        entry.at += unheard.lasts;
        add(plan, unheard);
        add(plan, request);
    }
    add(plan, entry);
}

void sim_plan_make(const struct sim_options *options, struct sim_plan *out)
{
    struct sim_random random = sim_random_of(options->seed, 1);
    memset(out, 0, sizeof *out);
    draw_setup(options, &random, &out->setup);
    draw_requests(&random, out);
    if (!options->calm) {
        uint32_t benign = (uint32_t)sim_below(&random, 14);
        for (uint32_t i = 0; i < benign; i++) draw_fault(&random, out, false);
        if (sim_chance(&random, 200)) draw_storm(&random, out);
        if (out->setup.byzantine != 0) {
            uint32_t evil = (uint32_t)sim_between(&random, 2, 10);
            for (uint32_t i = 0; i < evil; i++) draw_fault(&random, out, true);
        }
        for (uint8_t seat = 0; seat < out->setup.nodes; seat++)
            if (out->setup.wiped >> seat & 1) draw_wipe(&random, out, seat);
    }
    sort(out);
}
