/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replica as a whole: one arena made at the start, the step that takes an event to the file it concerns and then
 * lets everything that has become possible happen, and the list of effects.
 */
#include "federation/pbft_private.h"

#include "base/mem.h"

/* A bump allocator that first measures (base NULL) and then gives out. */
struct bump {
    uint8_t *base;
    size_t used;
};

static void *bump_take(struct bump *bump, size_t count, size_t size)
{
    bump->used = (bump->used + 63) / 64 * 64;
    void *at = bump->base != NULL ? bump->base + bump->used : NULL;
    bump->used += count * size;
    return at;
}

static void body_init(struct bump *bump, const struct message_limits *limits,
                      struct pbft_body *body)
{
    body->bytes = bump_take(bump, limits->batch_bytes_max, 1);
    body->requests = bump_take(bump, limits->batch_requests_max, sizeof *body->requests);
    body->patterns = bump_take(bump, limits->batch_patterns_max, sizeof *body->patterns);
    body->verdicts = bump_take(bump, limits->batch_requests_max, 1);
    body->executed = bump_take(bump, limits->batch_requests_max, 1);
}

/* What must begin as zeros. */
static void lay_out_state(struct bump *bump, struct pbft *core, const struct pbft_config *config,
                          size_t effects)
{
    core->slots = bump_take(bump, config->limits.window, sizeof *core->slots);
    core->queues = bump_take(bump, MESSAGE_SEATS_MAX, sizeof *core->queues);
    core->fetches = bump_take(bump, config->transfer_window, sizeof *core->fetches);
    core->checkpoint_votes = bump_take(bump, (size_t)MESSAGE_SEATS_MAX * core->checkpoints,
                                       sizeof *core->checkpoint_votes);
    core->effects = bump_take(bump, effects, sizeof *core->effects);
    core->messages = bump_take(bump, effects, sizeof *core->messages);
}

/* What is written before it is read: its pages cost nothing until then. */
static void lay_out_content(struct bump *bump, struct pbft *core, const struct pbft_config *config)
{
    const struct message_limits *limits = &config->limits;
    const size_t vote = sizeof(struct message_vote);
    const bool real = bump->base != NULL;
    struct pbft_slot slot = {0};
    struct pbft_fetch fetch = {0};
    for (uint32_t i = 0; i < limits->window; i++) {
        struct pbft_slot *s = real ? &core->slots[i] : &slot;
        body_init(bump, limits, &s->bodies[0]);
        body_init(bump, limits, &s->bodies[1]);
        s->prepares = bump_take(bump, MESSAGE_SEATS_MAX, sizeof *s->prepares);
        s->commits = bump_take(bump, MESSAGE_SEATS_MAX, sizeof *s->commits);
        s->prepared.votes = bump_take(bump, MESSAGE_SEATS_MAX, vote);
        s->committed.votes = bump_take(bump, MESSAGE_SEATS_MAX, vote);
    }
    for (uint32_t i = 0; i < config->transfer_window; i++) {
        struct pbft_fetch *f = real ? &core->fetches[i] : &fetch;
        body_init(bump, limits, &f->body);
        f->certificate.votes = bump_take(bump, MESSAGE_SEATS_MAX, vote);
    }
    core->stable.votes = bump_take(bump, MESSAGE_SEATS_MAX, vote);
    core->pending.votes = bump_take(bump, MESSAGE_SEATS_MAX, vote);
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++) {
        const size_t bytes = pbft_view_change_bytes(config);
        core->latest[i].bytes = bump_take(bump, bytes, 1);
        core->staged[i].bytes = bump_take(bump, bytes, 1);
        core->current[i].bytes = bump_take(bump, bytes, 1);
        void *buffer = bump_take(bump, core->queue_bytes, 1);
        if (real) core->queues[i].buffer = buffer;
    }
}

/* An upper bound for one step, by what each part can say; pbft_effect_new asserts it. */
static size_t effects_bound(const struct pbft_config *config)
{
    return 10 * (size_t)config->limits.window + 2 * (size_t)config->transfer_window +
           2 * (size_t)config->limits.batch_requests_max + 6 * MESSAGE_SEATS_MAX +
           4 * PBFT_NUMBERS_WINDOW + 128;
}

void pbft_config_defaults(struct pbft_config *config)
{
    config->limits = message_limits_default;
    config->limits.window = PBFT_WINDOW;
    config->checkpoint_interval = PBFT_CHECKPOINT_INTERVAL;
    config->pipeline_max = PBFT_PIPELINE;
    config->transfer_window = PBFT_TRANSFER_WINDOW;
    config->view_timeout_ms = PBFT_VIEW_TIMEOUT_MS;
    config->view_timeout_ms_max = PBFT_VIEW_TIMEOUT_MS_MAX;
    config->resend_ms = PBFT_RESEND_MS;
    config->validity = false;
    config->amnesia = false;
}

static enum sov_error check_config(const struct pbft_config *config, struct sov_errbuf *err)
{
    enum sov_error rc = message_limits_check(&config->limits, err);
    if (rc != SOV_OK) return rc;
    const uint32_t window = config->limits.window, interval = config->checkpoint_interval;
    if (config->member_count < PBFT_MEMBERS_MIN || config->member_count > PBFT_MEMBERS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "a federation has %d to %d members, not %u",
                        PBFT_MEMBERS_MIN, PBFT_MEMBERS_MAX, config->member_count);
    if (interval == 0 || window % interval != 0 || window < 2 * interval)
        return sov_fail(err, SOV_ERR_INVALID,
                        "window %u is not twice or more times the checkpoint interval %u", window,
                        interval);
    if (window / interval >= PBFT_CHECKPOINTS)
        return sov_fail(err, SOV_ERR_INVALID, "more than %d checkpoints in a window",
                        PBFT_CHECKPOINTS - 1);
    if (config->pipeline_max == 0 || config->pipeline_max > window)
        return sov_fail(err, SOV_ERR_INVALID, "pipeline_max %u is not 1 to window",
                        config->pipeline_max);
    if (config->transfer_window == 0 || config->transfer_window > PBFT_TRANSFER_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "transfer_window %u is not 1 to %d",
                        config->transfer_window, PBFT_TRANSFER_MAX);
    if (config->resend_ms == 0 || config->resend_ms > config->view_timeout_ms / 4 ||
        config->view_timeout_ms_max < config->view_timeout_ms)
        return sov_fail(err, SOV_ERR_INVALID,
                        "times do not fit: resend_ms %u, view_timeout_ms %u, its maximum %u",
                        config->resend_ms, config->view_timeout_ms, config->view_timeout_ms_max);
    if (config->seat >= MESSAGE_SEATS_MAX || config->sign == NULL)
        return sov_fail(err, SOV_ERR_INVALID, "seat %u, or no way to sign", config->seat);
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct message_member *member = &config->members[i];
        if (member->seat >= MESSAGE_SEATS_MAX || !member->active ||
            member->address_length > MESSAGE_ADDRESS_MAX ||
            (i > 0 && member->seat <= config->members[i - 1].seat))
            return sov_fail(err, SOV_ERR_INVALID, "members: entry %u is not right", i);
        for (uint32_t j = 0; j < i; j++)
            if (memcmp(member->key, config->members[j].key, sizeof member->key) == 0)
                return sov_fail(err, SOV_ERR_INVALID, "members %u and %u have the same key", j, i);
    }
    return SOV_OK;
}

enum sov_error pbft_create(const struct pbft_config *config, struct pbft **out,
                           struct sov_errbuf *err)
{
    *out = NULL;
    enum sov_error rc = check_config(config, err);
    if (rc != SOV_OK) return rc;
    struct pbft *core = sov_calloc(1, sizeof *core);
    if (core == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a replica");
    core->config = *config;
    core->self = config->seat;
    core->checkpoints = config->limits.window / config->checkpoint_interval;
    core->queue_bytes = PBFT_MEMBER_REQUESTS_BYTES * config->limits.request_bytes_max;
    core->effects_max = effects_bound(config);
    core->judges_max = 2 * (size_t)config->limits.batch_requests_max;
    struct bump bump = {NULL, 0};
    lay_out_state(&bump, core, config, core->effects_max);
    lay_out_content(&bump, core, config);
    core->arena_bytes = bump.used;
    core->arena = sov_alloc(1, bump.used + 64);
    if (core->arena == NULL) {
        sov_free(core);
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a replica: %zu bytes", bump.used);
    }
    bump = (struct bump){(uint8_t *)core->arena + (64 - (uintptr_t)core->arena % 64), 0};
    lay_out_state(&bump, core, config, core->effects_max);
    memset(bump.base, 0, bump.used);
    lay_out_content(&bump, core, config);
    for (uint32_t i = 0; i < config->limits.window; i++) pbft_slot_clear(&core->slots[i], 0);
    for (uint32_t i = 0; i < config->member_count; i++) {
        struct message_member *member = &core->members[config->members[i].seat];
        *member = config->members[i];
        member->number_last = member->numbers_below = 0;
        core->active |= (uint64_t)1 << member->seat;
    }
    core->config.members = NULL;
    core->epoch_end = UINT64_MAX;
    core->head = core->stable.digest = config->federation;
    core->view_change_token = PBFT_NONE;
    core->token_last = core->token_durable = PBFT_RESTORED;
    core->number_next = 1;
    core->recovering = config->amnesia && !PBFT_MUTATION(votes_after_amnesia);
    core->null_body.present = true;
    message_batch_digest(&config->federation, &(struct message_batch){0}, NULL,
                         &core->null_body.digest);
    pbft_members_set(core);
    core->next_sequence = 1;
    *out = core;
    return SOV_OK;
}

void pbft_free(struct pbft *core)
{
    if (core == NULL) return;
    sov_free(core->arena);
    sov_free(core);
}

struct pbft_effect *pbft_effect_new(struct pbft *core, enum pbft_effect_kind kind)
{
    assert(core->effect_count < core->effects_max);
    struct pbft_effect *effect = &core->effects[core->effect_count++];
    *effect = (struct pbft_effect){.kind = kind};
    return effect;
}

/* Each effect has at most one message, so there is one for the effect that comes next. */
struct message *pbft_message_new(struct pbft *core, enum message_kind kind)
{
    assert(core->effect_count < core->effects_max);
    struct message *message = &core->messages[core->effect_count];
    *message = (struct message){.kind = kind, .sender = core->self};
    return message;
}

void pbft_send(struct pbft *core, uint8_t to, const struct message *message)
{
    assert(to == PBFT_ALL || (to < MESSAGE_SEATS_MAX && to != core->self));
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_SEND);
    effect->to = to;
    effect->message = message;
}

uint64_t pbft_persist(struct pbft *core, const struct message *message, uint64_t view,
                      uint64_t sequence)
{
    struct pbft_effect *effect = pbft_effect_new(
        core, message->kind == MESSAGE_LOG_ENTRY ? PBFT_EFFECT_DELIVER : PBFT_EFFECT_PERSIST);
    effect->message = message;
    effect->token = ++core->token_last;
    effect->key_view = view;
    effect->key_sequence = sequence;
    effect->sequence = message->sequence;
    return effect->token;
}

void pbft_blame(struct pbft *core, uint8_t seat, enum pbft_fault fault)
{
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_MISBEHAVIOUR);
    effect->to = seat;
    effect->fault = fault;
    core->faults++;
}

/* More than f members are faulty, or what is stored here was changed: going on could only spread the damage. */
void pbft_diverge(struct pbft *core)
{
    if (core->diverged) return;
    core->diverged = true;
    pbft_blame(core, core->self, PBFT_FAULT_DIVERGED);
}

void pbft_timer_set(struct pbft *core, enum pbft_timer timer, uint64_t delay_ms)
{
    struct pbft_effect *effect = pbft_effect_new(core, PBFT_EFFECT_TIMER_SET);
    core->timer_set[timer] = true;
    effect->timer = timer;
    effect->generation = ++core->generations[timer];
    effect->delay_ms = delay_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)delay_ms;
}

void pbft_timer_stop(struct pbft *core, enum pbft_timer timer)
{
    if (!core->timer_set[timer]) return;
    core->timer_set[timer] = false;
    core->generations[timer]++;
    pbft_effect_new(core, PBFT_EFFECT_TIMER_STOP)->timer = timer;
}

void pbft_sign_vote(struct pbft *core, enum message_kind kind, uint64_t view, uint64_t sequence,
                    const struct message_digest *digest, uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    struct message_digest signs;
    message_vote_digest(kind, &core->config.federation, view, sequence, digest, &signs);
    core->config.sign(core->config.user, &signs, signature);
}

bool pbft_certified(const struct pbft *core, const struct message_certificate *certificate)
{
    uint32_t active = 0;
    for (uint32_t i = 0; i < certificate->count; i++)
        active += pbft_is_active(core, certificate->votes[i].seat);
    return active >= core->quorum && active == certificate->count;
}

static void on_message(struct pbft *core, uint8_t from, uint32_t epoch, const struct message *m)
{
    switch (m->kind) {
    case MESSAGE_REQUEST: pbft_pool_message(core, from, epoch, m); return;
    case MESSAGE_STATUS: pbft_on_status(core, from, m); return;
    case MESSAGE_FETCH_LOG: pbft_on_fetch_log(core, from, m); return;
    case MESSAGE_FETCH_BATCH: pbft_on_fetch_batch(core, from, m); return;
    case MESSAGE_BATCH: pbft_on_batch(core, m); return;
    default: break;
    }
    /* The rest is about one epoch, and says something only where that is in force and its keys were used. */
    if (message_epoch(m->view) != core->epoch || epoch != core->epoch) return;
    if (m->kind != MESSAGE_LOG_ENTRY && m->kind != MESSAGE_STABLE &&
        m->kind != MESSAGE_FETCH_VIEW_CHANGE && !pbft_is_active(core, m->sender))
        return;
    switch (m->kind) {
    case MESSAGE_PRE_PREPARE: pbft_on_pre_prepare(core, m); break;
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT: pbft_on_vote(core, m); break;
    case MESSAGE_CHECKPOINT: pbft_on_checkpoint(core, m); break;
    case MESSAGE_STABLE: pbft_on_stable(core, from, m); break;
    case MESSAGE_VIEW_CHANGE: pbft_on_view_change(core, m); break;
    case MESSAGE_NEW_VIEW: pbft_on_new_view(core, m); break;
    case MESSAGE_FETCH_VIEW_CHANGE: pbft_on_fetch_view_change(core, from, m); break;
    case MESSAGE_LOG_ENTRY: pbft_on_log_entry(core, from, m); break;
    default: pbft_blame(core, from, PBFT_FAULT_MALFORMED); break;
    }
}

static void on_durable(struct pbft *core, uint64_t token)
{
    if (token <= core->token_durable) return;
    assert(token <= core->token_last);
    core->token_durable = token;
    for (uint32_t i = 0; i < core->config.limits.window; i++)
        if (core->slots[i].sequence != 0) core->slots[i].dirty = true;
    pbft_execute_durable(core);
    pbft_checkpoint_durable(core);
    pbft_view_change_durable(core);
    pbft_new_view_durable(core);
}

static void on_timer(struct pbft *core, enum pbft_timer timer, uint64_t generation)
{
    if (timer >= PBFT_TIMERS || !core->timer_set[timer] || core->generations[timer] != generation)
        return;
    core->timer_set[timer] = false;
    if (timer == PBFT_TIMER_VIEW)
        pbft_on_view_timeout(core);
    else
        pbft_on_tick(core);
}

static void on_start(struct pbft *core)
{
    assert(!core->started);
    core->started = true;
    pbft_restore_finish(core);
    pbft_config_effect(core);
    pbft_pool_reserve_numbers(core);
    pbft_timer_set(core, PBFT_TIMER_RESEND, core->config.resend_ms);
    pbft_checkpoint_durable(core);
    pbft_view_change_durable(core);
    pbft_status_send(core);
}

void pbft_step(struct pbft *core, const struct pbft_event *event)
{
    core->effect_count = core->judges = 0;
    core->steps++;
    assert(core->started || event->kind == PBFT_EVENT_START);
    switch (event->kind) {
    case PBFT_EVENT_START: on_start(core); break;
    case PBFT_EVENT_MESSAGE:
        if (event->from < MESSAGE_SEATS_MAX && event->from != core->self)
            on_message(core, event->from, event->epoch, event->message);
        break;
    case PBFT_EVENT_REQUEST: pbft_pool_local(core, event->message); break;
    case PBFT_EVENT_TIMER: on_timer(core, event->timer, event->generation); break;
    case PBFT_EVENT_DURABLE: on_durable(core, event->token); break;
    case PBFT_EVENT_VERDICT: pbft_pool_verdict(core, &event->request, event->valid); break;
    }
    /* Whatever has become possible: certificates, then batches in order, then what they make room for. */
    pbft_slots_advance(core);
    pbft_execute_ready(core);
    pbft_new_view_try(core);
    pbft_propose(core);
    pbft_slots_advance(core);
    pbft_transfer_advance(core);
    pbft_view_timer(core);
    assert(core->low <= core->executed);
}

const struct pbft_effect *pbft_effects(const struct pbft *core, size_t *count)
{
    *count = core->effect_count;
    return core->effects;
}

size_t pbft_effects_max(const struct pbft *core)
{
    return core->effects_max;
}

uint64_t pbft_number_next(const struct pbft *core)
{
    if (!core->started || core->recovering || core->diverged || !pbft_is_active(core, core->self))
        return 0;
    const bool granted = pbft_durable(core, core->number_token);
    if (core->number_next > (granted ? core->number_reserved : core->number_granted)) return 0;
    /* No number may fall out of the 64 that are remembered below the highest executed one. */
    const struct pbft_queue *queue = &core->queues[core->self];
    for (int i = 0; i < PBFT_NUMBERS_WINDOW; i++)
        if (pbft_bit(queue->present, (uint8_t)i) &&
            queue->entries[i].request.number + PBFT_NUMBERS_WINDOW <= core->number_next)
            return 0;
    return core->number_next;
}

void pbft_status(const struct pbft *core, struct pbft_status *out)
{
    *out = (struct pbft_status){
        .state = core->diverged                      ? PBFT_DIVERGED
                 : !pbft_is_active(core, core->self) ? PBFT_OUTSIDE
                 : core->recovering                  ? PBFT_RECOVERING
                 : core->changing                    ? PBFT_VIEW_CHANGING
                                                     : PBFT_NORMAL,
        .forgotten = core->recovering,
        .view = core->view,
        .primary = pbft_primary(core, core->view),
        .member_count = core->n,
        .faulty_max = core->f,
        .quorum = core->quorum,
        .executed = core->executed,
        .durable = core->durable_executed,
        .stable = core->low,
        .head = core->head,
        .proposed = core->executed,
        .known_executed = core->executed,
        .view_changes = core->view_changes,
        .faults = core->faults,
        .memory_bytes = core->arena_bytes + sizeof *core,
    };
    for (uint32_t i = 0; i < core->config.limits.window; i++) {
        const struct pbft_slot *slot = &core->slots[i];
        if (slot->sequence > out->proposed && pbft_slot_current(core, slot))
            out->proposed = slot->sequence;
    }
    for (int seat = 0; seat < MESSAGE_SEATS_MAX; seat++) {
        out->waiting += (uint32_t)__builtin_popcountll(core->queues[seat].present);
        out->peer_executed[seat] = core->peers[seat].executed;
        out->peer_view[seat] = core->peers[seat].view;
        if (core->peers[seat].executed > out->known_executed)
            out->known_executed = core->peers[seat].executed;
    }
}

const struct message_member *pbft_members(const struct pbft *core, uint32_t *count)
{
    *count = core->n;
    return core->listed;
}

const char *pbft_fault_name(enum pbft_fault fault)
{
    static const char *const names[] = {
        "?", "equivocation", "invalid request", "malformed", "certificate", "new view", "diverged"};
    return (size_t)fault < sizeof names / sizeof *names ? names[fault] : names[0];
}

const char *pbft_outcome_name(enum pbft_outcome outcome)
{
    static const char *const names[] = {"?", "committed", "invalid", "busy", "malformed", "lost"};
    return (size_t)outcome < sizeof names / sizeof *names ? names[outcome] : names[0];
}

const char *pbft_state_name(enum pbft_state state)
{
    static const char *const names[] = {"normal", "view changing", "recovering", "outside",
                                        "diverged"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "?";
}
