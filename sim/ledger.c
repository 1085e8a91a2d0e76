/* SPDX-License-Identifier: Apache-2.0 */
/* Requests from their submission to their end, and whether everything that was promised has happened. */
#include <string.h>

#include "sim/world.h"

static uint64_t digest_key(const struct message_digest *digest)
{
    return sim_key(digest, sizeof *digest, 13, 0, 0);
}
static uint64_t number_key(const struct sim_node *node, uint64_t number)
{
    return sim_key(NULL, 0, 14, node->index, number);
}

void sim_check_submitted(struct sim_node *node, const struct message *message, bool invalid)
{
    struct sim_world *world = node->world;
    const struct message_request *r = &message->batch.requests[0];
    if (world->requests == NULL)
        world->requests = sim_alloc(SIM_REQUESTS_MAX, sizeof *world->requests);
    if (world->request_count == SIM_REQUESTS_MAX) return;
    if (invalid) world->misused |= (uint64_t)1 << node->seat;
    bool fresh;
    uint64_t *by_number = sim_map_at(&world->request_index, number_key(node, r->number), &fresh);
    if (!fresh && !(world->setup->wiped >> node->seat & 1) &&
        world->requests[*by_number - 1].outcome != PBFT_BUSY)
        sim_violate(world, SIM_CONTRADICTION, "%u uses number %llu for a second request",
                    node->seat, (unsigned long long)r->number);
    *by_number = world->request_count + 1;
    *sim_map_at(&world->request_index, digest_key(&r->digest), NULL) = world->request_count + 1;
    world->requests[world->request_count++] =
        (struct sim_request){.digest = r->digest,
                             .number = r->number,
                             .submitted = world->now,
                             .life = node->life,
                             .seat = node->seat,
                             .node = node->index,
                             .change = r->kind == MESSAGE_REQUEST_CHANGE,
                             .invalid = invalid && world->setup->validity};
    sim_count(world, SIM_COUNT_REQUESTS);
}

static bool was_changed(const struct sim_world *world, uint8_t seat)
{
    for (uint32_t i = 0; i < world->setup->change_count; i++)
        if (world->setup->changes[i].seat == seat) return true;
    return false;
}

static void note_reply(struct sim_world *world, struct sim_request *request)
{
    switch (request->outcome) {
    case PBFT_COMMITTED:
        sim_count(world, SIM_COUNT_COMMITTED);
        if (request->invalid)
            sim_violate(world, SIM_VALIDITY, "invalid request %llu of %u is answered as committed",
                        (unsigned long long)request->number, request->seat);
        break;
    case PBFT_INVALID:
        sim_count(world, SIM_COUNT_INVALID);
        if (!request->invalid && !request->change)
            sim_violate(world, SIM_VALIDITY, "valid request %llu of %u is answered as invalid",
                        (unsigned long long)request->number, request->seat);
        break;
    case PBFT_LOST:
        sim_count(world, SIM_COUNT_LOST_NUMBERS);
        if (!was_changed(world, request->seat) && !(world->setup->wiped >> request->seat & 1))
            sim_violate(world, SIM_LOST_REQUEST, "the number %llu of %u was used up without it",
                        (unsigned long long)request->number, request->seat);
        break;
    case PBFT_MALFORMED:
        sim_violate(world, SIM_BLAME, "request %llu of %u is called malformed",
                    (unsigned long long)request->number, request->seat);
        break;
    case PBFT_BUSY: request->abandoned = true; break;
    }
    uint64_t since = request->submitted > world->healed_at ? request->submitted : world->healed_at;
    if (world->healed_at != 0 && world->now - since > world->result.slowest_us)
        world->result.slowest_us = world->now - since;
}

void sim_check_replied(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_world *world = node->world;
    const uint64_t *index = sim_map_find(&world->request_index, number_key(node, effect->number));
    if (index == NULL) {
        sim_violate(world, SIM_EXACTLY_ONCE, "%u answers request %llu, which nobody made",
                    node->seat, (unsigned long long)effect->number);
        return;
    }
    struct sim_request *request = &world->requests[*index - 1];
    if (request->life != node->life || request->replied) {
        sim_violate(world, SIM_EXACTLY_ONCE, "%u answers request %llu again", node->seat,
                    (unsigned long long)effect->number);
        return;
    }
    request->replied = true;
    request->outcome = effect->outcome;
    request->reply_sequence = effect->sequence;
    note_reply(world, request);
}

/* What a replica that stops had taken and not answered: its clients have to ask again. */
void sim_check_stopped(struct sim_node *node)
{
    struct sim_world *world = node->world;
    for (uint32_t i = 0; i < world->request_count; i++) {
        struct sim_request *request = &world->requests[i];
        if (request->node != node->index || request->life != node->life || request->replied ||
            request->abandoned)
            continue;
        request->abandoned = true;
        if (world->healed_at == 0)
            sim_schedule(world, 1000ull * world->setup->view_timeout_ms,
                         &(struct sim_event){.kind = SIM_EVENT_SUBMIT, .node = node->seat});
    }
}

static uint32_t newest_epoch(const struct sim_world *world)
{
    uint32_t epoch = 0;
    while (epoch + 1 < SIM_EPOCHS_MAX && world->epochs[epoch + 1].known) epoch++;
    return epoch;
}

static bool node_done(const struct sim_world *world, const struct sim_node *node, char *out,
                      size_t size)
{
    struct pbft_status status;
    if (!node->up) {
        snprintf(out, size, "%u is down", node->seat);
        return false;
    }
    pbft_status(node->core, &status);
    if (node->executed != world->decision_count) {
        snprintf(out, size, "%u has delivered %llu of %zu (%s, view %u.%u)", node->seat,
                 (unsigned long long)node->executed, world->decision_count,
                 pbft_state_name(status.state), message_epoch(status.view), (uint32_t)status.view);
        return false;
    }
    if (status.state == PBFT_DIVERGED || status.state == PBFT_OUTSIDE ||
        status.state == PBFT_RECOVERING) {
        snprintf(out, size, "%u is still %s at %llu", node->seat, pbft_state_name(status.state),
                 (unsigned long long)node->executed);
        return false;
    }
    return true;
}

bool sim_check_done(struct sim_world *world, char *out, size_t size)
{
    const uint32_t epoch = newest_epoch(world);
    for (uint8_t seat = 0; seat < world->setup->seats; seat++) {
        struct sim_node *node = &world->nodes[seat];
        if (!node->correct || sim_member(world, epoch, seat) == NULL) continue;
        if (!node_done(world, node, out, size)) return false;
        struct pbft_status status;
        pbft_status(node->core, &status);
        if (status.memory_bytes != node->memory_bytes)
            sim_violate(world, SIM_MEMORY, "the arena of %u has grown", seat);
        if (node->recovering) sim_count(world, SIM_COUNT_RECOVERED);
        node->recovering = false;
    }
    for (uint32_t i = 0; i < world->request_count; i++) {
        const struct sim_request *request = &world->requests[i];
        if (sim_member(world, epoch, request->seat) == NULL) continue;
        if (!request->replied && !request->abandoned) {
            snprintf(out, size, "request %llu of %u, submitted at %.3f ms, has no answer (%s)",
                     (unsigned long long)request->number, request->seat,
                     (double)request->submitted / 1000,
                     request->sequence != 0 ? "though it is executed" : "and is not executed");
            return false;
        }
        if (request->replied && request->outcome == PBFT_COMMITTED &&
            (request->sequence == 0 ||
             (request->reply_sequence != 0 && request->reply_sequence != request->sequence))) {
            sim_violate(world, SIM_LOST_REQUEST,
                        "request %llu of %u is answered as committed, and not in the log there",
                        (unsigned long long)request->number, request->seat);
            return false;
        }
    }
    return true;
}
