/* SPDX-License-Identifier: Apache-2.0 */
/* What the Byzantine put together that no correct core would: batches, certificates, view changes, requests. */
#include <string.h>

#include "federation/message_private.h"
#include "sim/world.h"

static void remember(struct sim_world *world, const struct message *m)
{
    if (sim_alternative_of(world, m->view, m->sequence) != NULL) return;
    struct sim_alternative *slot =
        &world->alternatives[world->alternative_count++ % SIM_ALTERNATIVES];
    *slot = (struct sim_alternative){m->view, m->sequence, m->digest};
}

/* Sets the batch of a PRE_PREPARE to these encoded requests, in world->work, and its digest. */
static bool set_batch(struct sim_node *node, struct message *m, const uint8_t *bytes,
                      uint32_t length, uint32_t count)
{
    struct message decoded, wanted = *m;
    wanted.batch = (struct message_batch){.bytes = bytes, .length = length, .request_count = count};
    if (length > node->world->setup->limits.batch_bytes_max) return false;
    struct sim_bytes *encoded = sim_encode(&wanted);
    bool good =
        message_decode(encoded->data, encoded->length, &node->scratch, &decoded, NULL) == SOV_OK;
    sim_bytes_drop(encoded);
    if (!good) return false;
    memmove(node->world->work, bytes, length);
    m->batch = wanted.batch;
    m->batch.bytes = node->world->work;
    m->digest = decoded.digest;
    return true;
}

/* A request of this seat, or in the name of another one, whose signature then is no good. */
static bool make_request(struct sim_node *node, uint8_t seat, uint64_t number, const char *text,
                         struct strbuf *out)
{
    struct sim_world *world = node->world;
    struct message_text pattern = {(const uint8_t *)text, (uint32_t)strlen(text)};
    struct message_digest digest;
    const size_t at = out->length;
    if (message_request_build(&node->scratch, seat, number, &pattern, 1, out, &digest, NULL) !=
        SOV_OK)
        return false;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES], key[MESSAGE_KEY_BYTES];
    sim_key_make(world, node->seat, 0, key);
    if (node->active >> node->seat & 1) memcpy(key, node->members[node->seat].key, sizeof key);
    sim_sign(world, key, &digest, signature);
    message_request_sign((uint8_t *)out->data + at, out->length - at, signature);
    return true;
}

static uint64_t some_number(struct sim_node *node)
{
    struct sim_random *random = &node->world->adversary;
    uint64_t next = node->up ? pbft_number_next(node->core) : 0;
    if (sim_chance(random, 100)) return sim_next(random) | 1;
    return next + sim_between(random, 1, 3);
}

/*
 * One more request at the batch's end: invalid, not canonical, or forged. The same for all who get this proposal, by a
 * generator of its own: it is to be accepted, not to be noticed as two proposals.
 */
static bool add_bad_request(struct sim_node *node, struct message *m)
{
    struct sim_world *world = node->world;
    struct sim_random random = sim_random_of(world->setup->seed, sim_mix(m->view) ^ m->sequence);
    static const char *const texts[] = {"{\"bad\":1}", "{\"bad\":1}", "{ \"n\": 1}", "{\"n\":1}"};
    const uint64_t which = sim_below(&random, 4);
    const uint64_t number = ((uint64_t)1 << 40) + 64 * m->sequence;
    uint8_t seat = which == 3 ? sim_pick(&random, sim_correct_seats(world)) : node->seat;
    struct strbuf bytes = {0};
    uint32_t count = m->batch.request_count;
    if (count >= world->setup->limits.batch_requests_max) count = 0; /* instead of the others */
    bool made = strbuf_append(&bytes, m->batch.bytes, count > 0 ? m->batch.length : 0) &&
                make_request(node, seat, number, texts[which], &bytes) &&
                set_batch(node, m, (const uint8_t *)bytes.data, (uint32_t)bytes.length, count + 1);
    strbuf_free(&bytes);
    return made;
}

/* The requests backwards, or without the last one, or one of them twice. */
static bool rearrange(struct sim_node *node, struct message *m)
{
    const struct message_batch *batch = &m->batch;
    struct strbuf bytes = {0};
    uint32_t count = 0;
    if (batch->request_count > 1 && (m->sequence & 1)) {
        for (uint32_t i = batch->request_count; i > 0; i--, count++)
            strbuf_append(&bytes, batch->bytes + batch->requests[i - 1].offset,
                          batch->requests[i - 1].length);
    } else {
        for (uint32_t i = 0; i + 1 < batch->request_count; i++, count++)
            strbuf_append(&bytes, batch->bytes + batch->requests[i].offset,
                          batch->requests[i].length);
    }
    bool made = !strbuf_failed(&bytes) && set_batch(node, m, (const uint8_t *)strbuf_text(&bytes),
                                                    (uint32_t)bytes.length, count);
    strbuf_free(&bytes);
    return made;
}

bool sim_forge_proposal(struct sim_node *node, struct message *m, bool invalid)
{
    bool made = invalid ? add_bad_request(node, m) : rearrange(node, m);
    if (made && !invalid) remember(node->world, m);
    return made;
}

/* Votes of the Byzantine; sometimes with the seats of others, whose signatures they cannot make. */
static uint32_t put_votes(struct sim_node *node, const struct message_digest *digest,
                          struct message_vote *votes)
{
    struct sim_world *world = node->world;
    uint32_t count = 0;
    const bool with_others = sim_chance(&world->adversary, 30);
    for (uint8_t seat = 0; seat < world->setup->seats; seat++) {
        if (!(node->active >> seat & 1)) continue;
        if (!sim_is_byzantine(world, seat) && !with_others) continue;
        struct message_vote *vote = &votes[count++];
        vote->seat = seat;
        memset(vote->signature, 1, sizeof vote->signature);
        if (sim_is_byzantine(world, seat))
            sim_sign(world, node->members[seat].key, digest, vote->signature);
    }
    return count;
}

bool sim_forge_certificate(struct sim_node *node, struct message *m)
{
    struct sim_world *world = node->world;
    struct message_digest digest;
    struct message_vote *votes = (struct message_vote *)world->work;
    if (m->kind == MESSAGE_LOG_ENTRY) {
        m->batch = (struct message_batch){0};
        message_batch_digest(&world->federation, &(struct message_batch){0}, NULL, &m->digest);
    }
    message_vote_digest(m->kind == MESSAGE_STABLE ? MESSAGE_CHECKPOINT : MESSAGE_COMMIT,
                        &world->federation, m->view, m->sequence, &m->digest, &digest);
    m->certificate = (struct message_certificate){votes, put_votes(node, &digest, votes)};
    return true;
}

/* Prepared what never was, in the view before: null batches, with certificates of friends only. */
static void put_forged(struct sim_node *node, struct message *m)
{
    struct sim_world *world = node->world;
    struct message_vote votes[MESSAGE_SEATS_MAX];
    struct message_digest digest;
    uint32_t length = 0, count = 0;
    for (uint32_t i = 0; i < world->setup->limits.window / 2; i++) {
        struct message_prepared forged = {.view = m->view - 1, .sequence = m->sequence + 1 + i};
        message_batch_digest(&world->federation, &(struct message_batch){0}, NULL, &forged.digest);
        message_vote_digest(MESSAGE_PREPARE, &world->federation, forged.view, forged.sequence,
                            &forged.digest, &digest);
        forged.certificate = (struct message_certificate){votes, put_votes(node, &digest, votes)};
        message_prepared_put(&forged, world->work, &length);
        count++;
    }
    m->prepared = (struct message_prepared_list){world->work, length, count};
}

/* Every second prepared batch, or none; or an older checkpoint. */
static void put_hidden(struct sim_node *node, struct message *m)
{
    struct sim_world *world = node->world;
    struct message_prepared one;
    uint32_t cursor = 0, length = 0, count = 0, position = 0;
    const bool all = sim_chance(&world->adversary, 600);
    while (message_prepared_next(&m->prepared, &cursor, &one)) {
        if (all || position++ % 2 == 0) continue;
        message_prepared_put(&one, world->work, &length);
        count++;
    }
    m->prepared = (struct message_prepared_list){world->work, length, count};
    if (message_epoch(m->view) != 0 || !sim_chance(&world->adversary, 300)) return;
    m->sequence = 0;
    m->digest = world->federation;
    m->certificate = (struct message_certificate){0};
}

bool sim_forge_view_change(struct sim_node *node, struct message *m, bool hide)
{
    if ((uint32_t)m->view == 0) return false;
    if (hide)
        put_hidden(node, m);
    else
        put_forged(node, m);
    return true;
}

bool sim_forge_new_view(struct sim_node *node, struct message *m)
{
    struct sim_world *world = node->world;
    struct message_reference *references = (struct message_reference *)world->work;
    uint32_t count = m->new_view.count;
    if (count == 0) return false;
    memcpy(references, m->new_view.references, count * sizeof *references);
    const uint64_t which = sim_below(&world->adversary, count);
    if (sim_chance(&world->adversary, 400)) {
        references[which].identity[0] ^= 1;
    } else {
        memmove(&references[which], &references[which + 1],
                (count - which - 1) * sizeof *references);
        count--;
    }
    m->new_view = (struct message_new_view){references, count};
    return true;
}

static void send_request(struct sim_node *node, struct strbuf *request, uint64_t to)
{
    struct message m;
    message_request_wrap((const uint8_t *)request->data, (uint32_t)request->length, &m);
    struct sim_bytes *bytes = sim_encode(&m);
    for (; to != 0; to &= to - 1) sim_network_send(node, (uint8_t)__builtin_ctzll(to), bytes);
    sim_bytes_drop(bytes);
}

static void send_change(struct sim_node *node, uint64_t to)
{
    struct sim_world *world = node->world;
    struct message_change change = {
        .kind = (enum message_change_kind)sim_between(&world->adversary, MESSAGE_CHANGE_ADD,
                                                      MESSAGE_CHANGE_REKEY),
        .seat = (uint8_t)sim_below(&world->adversary, world->setup->seats)};
    struct strbuf request = {0};
    struct message_digest digest;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    if (!(node->active >> node->seat & 1)) return;
    memcpy(change.key, node->members[change.seat].key, sizeof change.key);
    if (change.kind != MESSAGE_CHANGE_REMOVE) change.key[5] ^= 1;
    if (message_change_build(&node->scratch, node->seat, some_number(node), &change, &request,
                             &digest, NULL) == SOV_OK) {
        sim_sign(world, node->members[node->seat].key, &digest, signature);
        message_request_sign((uint8_t *)request.data, request.length, signature);
        send_request(node, &request, to);
    }
    strbuf_free(&request);
}

void sim_forge_request(struct sim_node *node)
{
    struct sim_world *world = node->world;
    struct sim_random *random = &world->adversary;
    const uint64_t others = node->active & ~((uint64_t)1 << node->seat);
    const uint64_t some = sim_some(random, others);
    const uint64_t number = some_number(node);
    struct strbuf one = {0}, two = {0};
    switch (sim_below(random, 4)) {
    case 0: /* two requests of one number, each to a part of the others */
        if (make_request(node, node->seat, number, "{\"a\":1}", &one) &&
            make_request(node, node->seat, number, "{\"a\":2}", &two)) {
            send_request(node, &one, some);
            send_request(node, &two, others & ~some);
        }
        break;
    case 1:
        if (make_request(node, node->seat, number, "{\"bad\":1}", &one))
            send_request(node, &one, others);
        break;
    case 2: /* in the name of another */
        if (make_request(node, sim_pick(random, sim_correct_seats(world)), number, "{\"a\":3}",
                         &one))
            send_request(node, &one, others);
        break;
    default: send_change(node, some); break;
    }
    strbuf_free(&one);
    strbuf_free(&two);
}
