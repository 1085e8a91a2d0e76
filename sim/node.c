/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the production shell does around the core, with the same codec: decode, check canonical form, verify every
 * signature, drop what the core does not want (production does that first), step, do the effects in their order. Sends
 * go out at once; the core holds back what must be durable first.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sim/world.h"

static void sign(void *user, const struct message_digest *digest,
                 uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    struct sim_node *node = user;
    struct sim_world *world = node->world;
    uint8_t key[MESSAGE_KEY_BYTES];
    uint32_t count = 0;
    const struct message_member *members =
        node->core != NULL ? pbft_members(node->core, &count) : NULL;
    sim_key_make(world, node->seat, 0, key);
    for (uint32_t i = 0; i < count; i++)
        if (members[i].seat == node->seat) memcpy(key, members[i].key, sizeof key);
    sim_sign(world, key, digest, signature);
}

void sim_node_init(struct sim_world *world, uint8_t seat, uint8_t face)
{
    struct sim_node *node = &world->nodes[seat + face * SIM_SEATS_MAX];
    *node = (struct sim_node){.world = world,
                              .index = (uint8_t)(seat + face * SIM_SEATS_MAX),
                              .seat = seat,
                              .face = face,
                              .exists = true,
                              .correct = !sim_is_byzantine(world, seat),
                              .clock = world->setup->clock[seat]};
    node->random = sim_random_of(world->setup->seed, 1000u + node->index);
    struct sov_errbuf err;
    if (message_scratch_init(&node->scratch, &world->setup->limits, &world->federation, &err) !=
        SOV_OK)
        sim_violate(world, SIM_RESTART, "limits: %s", err.message);
}

void sim_node_free(struct sim_node *node)
{
    if (!node->exists) return;
    pbft_free(node->core);
    message_scratch_free(&node->scratch);
    sim_disk_free(&node->disk);
    *node = (struct sim_node){0};
}

void sim_node_start(struct sim_node *node, bool amnesia)
{
    struct sim_world *world = node->world;
    const struct sim_setup *setup = world->setup;
    struct pbft_config config;
    pbft_config_defaults(&config);
    config.seat = node->seat;
    config.federation = world->federation;
    config.members = world->first_members;
    config.member_count = setup->nodes;
    config.limits = setup->limits;
    config.checkpoint_interval = setup->checkpoint_interval;
    config.pipeline_max = setup->pipeline_max;
    config.transfer_window = setup->transfer_window;
    config.view_timeout_ms = setup->view_timeout_ms;
    config.view_timeout_ms_max = setup->view_timeout_ms_max;
    config.resend_ms = setup->resend_ms;
    config.validity = setup->validity;
    config.amnesia = amnesia;
    config.sign = sign;
    config.user = node;
    struct sov_errbuf err;
    node->up = true;
    node->life++;
    node->nulls = node->earned = 0;
    if (node->started_once) sim_count(world, SIM_COUNT_RESTARTS);
    if (pbft_create(&config, &node->core, &err) != SOV_OK) {
        sim_violate(world, SIM_RESTART, "replica %u cannot be made: %s", node->seat, err.message);
        return;
    }
    if (!sim_disk_restore(node)) return;
    node->started_once = true;
    sim_check_started(node);
    sim_tell(world, "%u%s starts%s", node->seat, node->face ? "'" : "",
             amnesia ? ", having lost its records" : "");
    sim_node_step(node, &(struct pbft_event){.kind = PBFT_EVENT_START});
}

void sim_node_stop(struct sim_node *node)
{
    if (!node->up) return;
    sim_tell(node->world, "%u%s stops", node->seat, node->face ? "'" : "");
    sim_count(node->world, SIM_COUNT_CRASHES);
    sim_check_stopped(node);
    node->up = false;
    node->life++;
    pbft_free(node->core);
    node->core = NULL;
    sim_disk_crash(node);
}

/* Every signature, with the keys of the configuration that this replica has in force. */
static bool verified(struct sim_node *node, const struct message *message)
{
    struct message_signed_cursor cursor;
    struct message_signed one;
    message_signed_begin(&cursor, message, &node->world->federation);
    while (message_signed_next(&cursor, &one)) {
        if (one.epoch != MESSAGE_EPOCH_CURRENT && one.epoch != node->epoch) return false;
        if (one.seat >= MESSAGE_SEATS_MAX || !(node->active >> one.seat & 1)) return false;
        if (!sim_verify(node->world, node->members[one.seat].key, &one.digest, one.signature))
            return false;
    }
    return true;
}

void sim_node_arrive(struct sim_node *node, uint8_t from, struct sim_bytes *bytes)
{
    struct sim_world *world = node->world;
    const struct sim_node *sender = &world->nodes[from];
    struct message message;
    struct sov_errbuf err;
    enum sov_error rc = message_decode(bytes->data, bytes->length, &node->scratch, &message, &err);
    if (rc == SOV_OK && (message.kind == MESSAGE_REQUEST || message.kind == MESSAGE_PRE_PREPARE)) {
        struct strbuf work = {0};
        rc = message_check_canonical(&message, &node->scratch, &work, &err);
        strbuf_free(&work);
    }
    if (rc != SOV_OK && sender->correct)
        sim_violate(world, SIM_BLAME, "%u cannot read what %u sent: %s", node->seat, sender->seat,
                    err.message);
    if (rc != SOV_OK || !verified(node, &message)) {
        if (sim_telling(world)) sim_tell(world, "%u refuses bytes of %u", node->seat, sender->seat);
        sim_count(world, SIM_COUNT_REFUSED);
        return;
    }
    sim_digest(world, (uint64_t)message.kind << 16 | (uint64_t)from << 8 | node->index,
               message.view ^ message.sequence << 40, bytes->length);
    if (sim_telling(world)) {
        char text[200];
        sim_message_describe(&message, text, sizeof text);
        sim_tell(world, "%u%s -> %u%s  %s", sender->seat, sender->face ? "'" : "", node->seat,
                 node->face ? "'" : "", text);
    }
    if (!node->correct) sim_adversary_hear(world, bytes);
    if (!pbft_wants(node->core, &message)) return;
    sim_node_step(node, &(struct pbft_event){.kind = PBFT_EVENT_MESSAGE,
                                             .from = sender->seat,
                                             .epoch = node->epoch,
                                             .message = &message});
}

static void do_send(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    const uint64_t to = effect->to == PBFT_ALL ? node->active & ~((uint64_t)1 << node->seat)
                                               : (uint64_t)1 << effect->to;
    if (effect->message->kind == MESSAGE_NEW_VIEW) sim_count(world, SIM_COUNT_NEW_VIEWS);
    if (effect->message->kind == MESSAGE_BATCH) sim_count(world, SIM_COUNT_FETCHED_BATCHES);
    if (node->correct) {
        sim_check_sent(node, effect->message);
        struct sim_bytes *bytes = sim_encode(effect->message);
        for (uint64_t left = to; left != 0; left &= left - 1)
            sim_network_send(node, (uint8_t)__builtin_ctzll(left), bytes);
        sim_bytes_drop(bytes);
    } else {
        for (uint64_t left = to; left != 0; left &= left - 1)
            sim_adversary_send(node, (uint8_t)__builtin_ctzll(left), effect->message);
    }
}

static void do_send_log(struct sim_node *node, const struct pbft_effect *effect)
{
    for (uint64_t s = effect->sequence; s < effect->sequence + effect->count; s++) {
        if (s >= node->disk.log_count || node->disk.log[s] == NULL) continue;
        sim_count(node->world, SIM_COUNT_TRANSFERRED);
        if (node->correct) {
            sim_network_send(node, effect->to, node->disk.log[s]);
            continue;
        }
        struct message message;
        struct message_scratch *scratch = &node->scratch;
        if (message_decode(node->disk.log[s]->data, node->disk.log[s]->length, scratch, &message,
                           NULL) == SOV_OK)
            sim_adversary_send(node, effect->to, &message);
    }
}

static void do_config(struct sim_node *node, const struct pbft_effect *effect)
{
    node->epoch = effect->epoch;
    node->active = 0;
    memset(node->members, 0, sizeof node->members);
    for (uint32_t i = 0; i < effect->count; i++) {
        node->members[effect->members[i].seat] = effect->members[i];
        node->active |= (uint64_t)1 << effect->members[i].seat;
    }
    node->member_count = effect->count;
    sim_tell(node->world, "%u%s: configuration %u of %u members", node->seat, node->face ? "'" : "",
             effect->epoch, effect->count);
    sim_check_config(node, effect);
}

static void do_judge(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    const struct message_batch *batch = &effect->message->batch;
    bool valid = sim_judge(world, batch, &batch->requests[effect->index]);
    uint64_t delay = sim_between(&node->random, 20, 2000) + node->verdict_us;
    sim_count(world, SIM_COUNT_VERDICTS);
    sim_schedule(world, delay,
                 &(struct sim_event){.kind = SIM_EVENT_VERDICT,
                                     .node = node->index,
                                     .life = node->life,
                                     .index = valid,
                                     .digest = effect->request});
}

static void do_timer(struct sim_node *node, const struct pbft_effect *effect)
{
    node->timer_generation[effect->timer] = effect->generation;
    sim_schedule(node->world, (uint64_t)effect->delay_ms * node->clock,
                 &(struct sim_event){.kind = SIM_EVENT_TIMER,
                                     .node = node->index,
                                     .life = node->life,
                                     .index = effect->timer,
                                     .number = effect->generation});
}

static void do_deliver(struct sim_node *node, const struct pbft_effect *effect)
{
    if (sim_telling(node->world))
        sim_tell(node->world, "%u%s: delivers sequence %llu, %u requests, %02x%02x%02x", node->seat,
                 node->face ? "'" : "", (unsigned long long)effect->sequence,
                 effect->message->batch.request_count, effect->message->digest.bytes[0],
                 effect->message->digest.bytes[1], effect->message->digest.bytes[2]);
    sim_digest(node->world, 1, node->index, effect->sequence);
    if (node->correct) sim_check_delivered(node, effect);
    node->executed = effect->sequence;
    sim_disk_write(node, effect);
}

static void do_view(struct sim_node *node, const struct pbft_effect *effect)
{
    if (effect->changing) sim_count(node->world, SIM_COUNT_VIEW_CHANGES);
    sim_tell(node->world, "%u%s: %s view %u.%u", node->seat, node->face ? "'" : "",
             effect->changing ? "wants" : "is in", message_epoch(effect->view),
             (uint32_t)effect->view);
}

static void do_effect(struct sim_node *node, const struct pbft_effect *effect)
{
    switch (effect->kind) {
    case PBFT_EFFECT_SEND: do_send(node, effect); break;
    case PBFT_EFFECT_SEND_LOG: do_send_log(node, effect); break;
    case PBFT_EFFECT_PERSIST:
        if (effect->message->kind == MESSAGE_STABLE) sim_count(node->world, SIM_COUNT_CHECKPOINTS);
        if (node->correct) sim_check_persisted(node, effect->message);
        sim_disk_write(node, effect);
        break;
    case PBFT_EFFECT_DELIVER: do_deliver(node, effect); break;
    case PBFT_EFFECT_TIMER_SET: do_timer(node, effect); break;
    case PBFT_EFFECT_TIMER_STOP: node->timer_generation[effect->timer] = 0; break;
    case PBFT_EFFECT_JUDGE: do_judge(node, effect); break;
    case PBFT_EFFECT_REPLY:
        sim_tell(node->world, "%u: request %llu is %s (sequence %llu)", node->seat,
                 (unsigned long long)effect->number, pbft_outcome_name(effect->outcome),
                 (unsigned long long)effect->sequence);
        if (node->correct) sim_check_replied(node, effect);
        break;
    case PBFT_EFFECT_CONFIG: do_config(node, effect); break;
    case PBFT_EFFECT_VIEW: do_view(node, effect); break;
    case PBFT_EFFECT_MISBEHAVIOUR:
        sim_tell(node->world, "%u%s: accuses %u of %s", node->seat, node->face ? "'" : "",
                 effect->to, pbft_fault_name(effect->fault));
        sim_count(node->world, SIM_COUNT_BLAMED);
        if (node->correct) sim_check_blamed(node, effect);
        break;
    }
}

void sim_node_step(struct sim_node *node, const struct pbft_event *event)
{
    struct sim_world *world = node->world;
    if (!node->up || world->over) return;
    (void)sov_mem_fail_after(-1, false);
    pbft_step(node->core, event);
    long allocations = sov_mem_fail_after(-1, false);
    if (allocations != 0)
        sim_violate(world, SIM_MEMORY, "%u allocated %ld times in a step", node->seat, allocations);
    size_t count;
    const struct pbft_effect *effects = pbft_effects(node->core, &count);
    for (size_t i = 0; i < count && !world->over; i++) do_effect(node, &effects[i]);
}

/* Signed, encoded and read back, like one that a client hands to the production shell. */
static void submit(struct sim_node *node, struct strbuf *request,
                   const struct message_digest *digest, uint32_t flags)
{
    struct sim_world *world = node->world;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    struct message message;
    struct sov_errbuf err;
    sign(node, digest, signature);
    message_request_sign((uint8_t *)request->data, request->length, signature);
    message_request_wrap((const uint8_t *)request->data, (uint32_t)request->length, &message);
    struct sim_bytes *bytes = sim_encode(&message);
    if (message_decode(bytes->data, bytes->length, &node->scratch, &message, &err) != SOV_OK) {
        sim_violate(world, SIM_BLAME, "an own request cannot be read: %s", err.message);
    } else {
        sim_tell(world, "%u%s: submits number %llu, %02x%02x%02x%s", node->seat,
                 node->face ? "'" : "", (unsigned long long)message.batch.requests[0].number,
                 digest->bytes[0], digest->bytes[1], digest->bytes[2],
                 flags & SIM_REQUEST_INVALID ? ", invalid" : "");
        if (node->correct) sim_check_submitted(node, &message, (flags & SIM_REQUEST_INVALID) != 0);
        for (uint64_t to = node->active; to != 0 && (flags & SIM_REQUEST_SPREAD); to &= to - 1)
            sim_network_send(node, (uint8_t)__builtin_ctzll(to), bytes);
        if (flags & SIM_REQUEST_REPEATED)
            sim_schedule(world, 1000ull * world->setup->view_timeout_ms,
                         &(struct sim_event){.kind = SIM_EVENT_REPEAT,
                                             .node = node->index,
                                             .bytes = sim_bytes_hold(bytes)});
        sim_node_step(node, &(struct pbft_event){.kind = PBFT_EVENT_REQUEST, .message = &message});
    }
    sim_bytes_drop(bytes);
}

bool sim_node_submit(struct sim_node *node, uint32_t flags)
{
    struct sim_world *world = node->world;
    uint64_t number = node->up ? pbft_number_next(node->core) : 0;
    if (number == 0) return false;
    char texts[3][96];
    struct message_text patterns[3];
    uint32_t count = flags & SIM_REQUEST_LARGE ? 3 : 1;
    if (!world->setup->validity) flags &= ~(uint32_t)SIM_REQUEST_INVALID;
    for (uint32_t i = 0; i < count; i++) {
        int length =
            snprintf(texts[i], sizeof texts[i], "{%s\"face\":%u,\"i\":%u,\"n\":%llu,\"seat\":%u}",
                     flags & SIM_REQUEST_INVALID ? "\"bad\":1," : "", node->face, i,
                     (unsigned long long)number, node->seat);
        patterns[i] = (struct message_text){(const uint8_t *)texts[i], (uint32_t)length};
    }
    struct strbuf request = {0};
    struct message_digest digest;
    struct sov_errbuf err;
    if (message_request_build(&node->scratch, node->seat, number, patterns, count, &request,
                              &digest, &err) == SOV_OK)
        submit(node, &request, &digest, flags);
    else
        sim_violate(world, SIM_BLAME, "a request cannot be built: %s", err.message);
    strbuf_free(&request);
    return true;
}

bool sim_node_change(struct sim_node *node, uint32_t index)
{
    struct sim_world *world = node->world;
    uint64_t number = node->up ? pbft_number_next(node->core) : 0;
    if (number == 0) return false;
    struct strbuf request = {0};
    struct message_digest digest;
    struct sov_errbuf err;
    if (message_change_build(&node->scratch, node->seat, number, &world->setup->changes[index],
                             &request, &digest, &err) == SOV_OK)
        submit(node, &request, &digest, 0);
    else
        sim_violate(world, SIM_BLAME, "a change cannot be built: %s", err.message);
    strbuf_free(&request);
    return true;
}

/* Of patterns: those without "bad". Of changes: those that the schedule has. */
bool sim_judge(const struct sim_world *world, const struct message_batch *batch,
               const struct message_request *request)
{
    if (request->kind == MESSAGE_REQUEST_CHANGE) {
        struct message_change change;
        message_request_change(batch, request, &change);
        for (uint32_t i = 0; i < world->setup->change_count; i++) {
            const struct message_change *planned = &world->setup->changes[i];
            if (planned->kind == change.kind && planned->seat == change.seat &&
                memcmp(planned->key, change.key, sizeof change.key) == 0)
                return true;
        }
        return false;
    }
    if (!world->setup->validity) return true;
    uint32_t cursor = 0, length;
    const uint8_t *text;
    while (message_pattern_next(batch, request, &cursor, &text, &length))
        if (memmem(text, length, "\"bad\"", 5) != NULL) return false;
    return true;
}
