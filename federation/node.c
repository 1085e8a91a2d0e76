/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a node, and its turn. */
#include "federation/node.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pool.h"
#include "federation/node_internal.h"

enum { ROUNDS_PER_TURN = 8, THREADS_MAX = 16 };

/* ---- the core ---- */

static void core_sign(void *user, const struct message_digest *digest,
                      uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    struct fed_node *node = user;
    int64_t begin = clock_monotonic_ns();
    identity_sign_digest(node->identity, digest->bytes, signature);
    node_phase(node, FED_PHASE_SIGN, begin, clock_monotonic_ns());
}

static bool link_sign(void *user, const char *domain, const void *message, size_t length,
                      unsigned char signature[CHANNEL_SIGNATURE_BYTES])
{
    struct fed_node *node = user;
    return identity_sign(node->identity, domain, message, length, signature, NULL) == SOV_OK;
}

void node_fail(struct fed_node *node, enum sov_error code, const char *why)
{
    if (atomic_load(&node->failed)) return;
    log_error("federation: member %d stops: %s", node->seat, why);
    sov_fail(&node->failure, code, "%s", why);
    atomic_store(&node->failed, true);
}

bool node_ready(struct fed_node *node)
{
    if (atomic_load(&node->failed)) return false;
    if (!node->unput) return true;
    if (!node_effects_store(node)) return false;
    node->unput = false;
    node_effects_do(node);
    return true;
}

void node_step(struct fed_node *node, const struct pbft_event *event)
{
    assert(!node->unput);
    int64_t begin = clock_monotonic_ns();
    pbft_step(node->core, event);
    node_phase(node, FED_PHASE_PROTOCOL, begin, clock_monotonic_ns());
    if (node_effects_store(node))
        node_effects_do(node);
    else
        node->unput = true;
}

/* ---- the turn ---- */

static void on_timer_view(void *user)
{
    ((struct fed_node *)user)->fired[PBFT_TIMER_VIEW] = true;
}

static void on_timer_resend(void *user)
{
    ((struct fed_node *)user)->fired[PBFT_TIMER_RESEND] = true;
}

static bool take_timers(struct fed_node *node)
{
    bool worked = false;
    for (int i = 0; i < PBFT_TIMERS && node_ready(node); i++) {
        if (!node->fired[i]) continue;
        struct pbft_event event = {.kind = PBFT_EVENT_TIMER,
                                   .timer = (enum pbft_timer)i,
                                   .generation = node->generations[i]};
        node->fired[i] = false;
        node_step(node, &event);
        worked = true;
    }
    return worked;
}

static bool take_durable(struct fed_node *node)
{
    uint64_t durable = atomic_load(&node->durable);
    if (durable <= node->durable_seen || !node_ready(node)) return false;
    struct pbft_event event = {.kind = PBFT_EVENT_DURABLE, .token = durable};
    node->durable_seen = durable;
    node_step(node, &event);
    return true;
}

static void on_durable(void *user, uint64_t token)
{
    struct fed_node *node = user;
    atomic_store(&node->durable, token);
    loop_wake(node->loop);
}

/* By the thread that writes to the store. */
static void on_trouble(void *user, const char *problem)
{
    struct fed_node *node = user;
    if (problem != NULL)
        log_error("federation: member %d cannot store: %s", node->seat, problem);
    else
        log_info("federation: member %d stores again", node->seat);
    pthread_mutex_lock(&node->lock);
    snprintf(node->store_problem, sizeof node->store_problem, "%s", problem != NULL ? problem : "");
    pthread_mutex_unlock(&node->lock);
    loop_wake(node->loop);
}

static void on_turn(void *user)
{
    struct fed_node *node = user;
    bool worked = true;
    node->now.turns++;
    for (int i = 0; i < ROUNDS_PER_TURN && worked && node_ready(node); i++) {
        worked = take_durable(node);
        worked |= take_timers(node);
        worked |= node_take_verdicts(node);
        worked |= node_take_inbox(node);
        worked |= node_take_proposals(node);
    }
    if (!node->unput) worked |= node_serve(node);
    node_inbox_turn_end(node);
    if (worked || node->first != NULL) loop_wake(node->loop);
    node_publish(node, false);
}

static void on_status(void *user)
{
    struct fed_node *node = user;
    node->own_pause = false;
    node_expire_proposals(node);
    loop_timer_set(node->loop, &node->status_timer,
                   loop_now_ns(node->loop) + NODE_STATUS_MS * 1000000ll);
}

static void on_nothing(void *user)
{
    (void)user; /* the turn itself is what was wanted */
}

/* ---- beginning ---- */

static enum sov_error restore_record(void *user, const struct message *record,
                                     struct sov_errbuf *err)
{
    struct fed_node *node = user;
    return pbft_restore(node->core, record, err);
}

static enum sov_error open_store(struct fed_node *node, struct sov_errbuf *err)
{
    char owner[FED_STORE_OWNER_BYTES_MAX];
    struct fed_store_found found;
    fed_store_owner(node->seat, owner);
    struct fed_store_options options = {
        .chain = fed_store_chain,
        .owner = owner,
        .durable = on_durable,
        .trouble = on_trouble,
        .user = node,
    };
    memcpy(options.federation, node->config.federation.bytes, sizeof options.federation);
    enum sov_error rc = fed_store_open(node->dir, &options, &node->store, &found, err);
    if (rc != SOV_OK) return rc;
    node->amnesia = found.amnesia;
    if (found.problem[0] != '\0') log_warn("federation: member %d: %s", node->seat, found.problem);
    if (found.amnesia)
        log_warn("federation: member %d has lost its votes; it follows the others and votes again "
                 "when it cannot contradict itself",
                 node->seat);
    rc = fed_putter_create(node->store, &node->putter, err);
    if (rc == SOV_OK) rc = fed_log_open(datadir_path(node->dir), &node->log, err);
    return rc;
}

static enum sov_error open_core(struct fed_node *node, struct sov_errbuf *err)
{
    struct pbft_config config;
    fed_config_core(&node->config, node->seat, &config);
    config.sign = core_sign;
    config.user = node;
    config.validity = false;
    config.amnesia = node->amnesia;
    enum sov_error rc = SOV_OK;
    for (int i = 0; i < NODE_GROUP && rc == SOV_OK; i++) {
        rc = message_scratch_init(&node->scratches[i], &config.limits, &node->config.federation,
                                  err);
        node->scratches[i].known = &node->known.hook;
        node->scratches[i].counts = &node->counts;
    }
    if (rc == SOV_OK && message_bytes_max(&config.limits) > FRAME_BYTES_MAX)
        rc = sov_fail(err, SOV_ERR_LIMIT, "messages may have %zu bytes; a frame holds %d",
                      message_bytes_max(&config.limits), FRAME_BYTES_MAX);
    if (rc == SOV_OK) rc = pbft_create(&config, &node->core, err);
    if (rc == SOV_OK)
        rc = fed_store_restore(node->store, node->log, &node->scratches[0], restore_record, node,
                               err);
    return rc;
}

static const struct message_member *own_member(const struct fed_node *node)
{
    for (uint32_t i = 0; i < node->config.member_count; i++)
        if (node->config.members[i].seat == node->seat) return &node->config.members[i];
    return NULL;
}

static enum sov_error open_links(struct fed_node *node, struct sov_errbuf *err)
{
    char host[FED_HOST_BYTES_MAX];
    uint16_t port = 0;
    const struct message_member *self = own_member(node);
    if (self == NULL && node->options.host == NULL)
        return sov_fail(err, SOV_ERR_INVALID,
                        "member %d has no address in " FED_CONFIG_FILE "; it needs --listen",
                        node->seat);
    enum sov_error rc =
        self != NULL ? fed_address_split(self->address, self->address_length, host, &port, err)
                     : SOV_OK;
    if (rc != SOV_OK) return rc;
    struct link_options options = {
        .loop = node->loop,
        .sign = link_sign,
        .host = node->options.host != NULL ? node->options.host : host,
        .port = node->options.port != 0 ? node->options.port : port,
        .receive = node_receive,
        .user = node,
    };
    memcpy(options.federation, node->config.federation.bytes, sizeof options.federation);
    memcpy(options.key, identity_public(node->identity), sizeof options.key);
    return links_create(&options, &node->links, err);
}

static enum sov_error find_seat(struct fed_node *node, struct sov_errbuf *err)
{
    enum sov_error rc = identity_open(datadir_path(node->dir), &node->identity, err);
    if (rc != SOV_OK) return rc;
    int seat = fed_config_find(&node->config, identity_public(node->identity));
    if (seat < 0) seat = node->options.id_plus_one - 1;
    if (seat < 0 || seat >= MESSAGE_SEATS_MAX) {
        char hex[2 * IDENTITY_PUBLIC_BYTES + 1];
        sodium_bin2hex(hex, sizeof hex, identity_public(node->identity), IDENTITY_PUBLIC_BYTES);
        return sov_fail(err, SOV_ERR_NOT_FOUND,
                        "%s/" IDENTITY_FILE ": is not the key of a member in " FED_CONFIG_FILE
                        " (its public key is %s); one that a change of the members brings starts "
                        "with --id",
                        datadir_path(node->dir), hex);
    }
    node->seat = (uint8_t)seat;
    return SOV_OK;
}

static int threads_of(const struct fed_node_options *options)
{
    int threads = options->threads > 0 ? options->threads : pool_default_threads();
    return threads < THREADS_MAX ? threads : THREADS_MAX;
}

static enum sov_error open_parts(struct fed_node *node, struct sov_errbuf *err)
{
    enum sov_error rc = find_seat(node, err);
    if (rc == SOV_OK) rc = loop_create(&node->loop, err);
    if (rc == SOV_OK) rc = checker_create(threads_of(&node->options), &node->checker, err);
    if (rc == SOV_OK) rc = open_store(node, err);
    if (rc == SOV_OK) rc = open_core(node, err);
    if (rc != SOV_OK) return rc;
    /* Before that of the links: what a turn wants sent goes out in the same turn. */
    loop_hook_add(node->loop, &node->hook);
    return open_links(node, err);
}

enum sov_error fed_node_create(const struct fed_node_options *options, struct fed_node **out,
                               struct sov_errbuf *err)
{
    *out = NULL;
    if (sodium_init() < 0)
        return sov_fail(err, SOV_ERR_INTERNAL, "the cryptographic library cannot be started");
    struct fed_node *node = sov_calloc(1, sizeof *node);
    if (node == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a node");
    node->config = *options->config;
    node->options = *options;
    node->dir = options->dir;
    pthread_mutex_init(&node->lock, NULL);
    known_init(&node->known);
    node->hook = (struct loop_hook){.run = on_turn, .user = node};
    node->timers[PBFT_TIMER_VIEW] = (struct loop_timer){.fire = on_timer_view, .user = node};
    node->timers[PBFT_TIMER_RESEND] = (struct loop_timer){.fire = on_timer_resend, .user = node};
    node->status_timer = (struct loop_timer){.fire = on_status, .user = node};
    node->resume_timer = (struct loop_timer){.fire = on_nothing, .user = node};
    node->now.started_ns = clock_monotonic_ns();
    node->due_ns = INT64_MAX;
    enum sov_error rc = open_parts(node, err);
    if (rc != SOV_OK) {
        fed_node_free(node);
        return rc;
    }
    *out = node;
    return SOV_OK;
}

/* ---- running and the end ---- */

enum sov_error fed_node_run(struct fed_node *node, struct sov_errbuf *err)
{
    struct pbft_event start = {.kind = PBFT_EVENT_START};
    node_step(node, &start);
    on_status(node);
    log_info("federation: member %d of %u, on port %d", node->seat, node->config.member_count,
             fed_node_port(node));
    while (!atomic_load(&node->stop) && !atomic_load(&node->failed)) loop_turn(node->loop, -1);
    node_publish(node, true);
    if (!atomic_load(&node->failed)) return SOV_OK;
    /* Who waits is told now, also by a program that goes on without its node. */
    node_proposals_end(node);
    return sov_fail(err, SOV_ERR_IO, "%s", node->failure.message);
}

static void *node_thread(void *arg)
{
    (void)fed_node_run(arg, NULL);
    return NULL;
}

enum sov_error fed_node_start(struct fed_node *node, struct sov_errbuf *err)
{
    int rc = pthread_create(&node->thread, NULL, node_thread, node);
    if (rc != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot start the node's thread (%s)", strerror(rc));
    node->has_thread = true;
    return SOV_OK;
}

void fed_node_stop(struct fed_node *node)
{
    atomic_store(&node->stop, true);
    loop_wake(node->loop);
}

void fed_node_join(struct fed_node *node)
{
    if (!node->has_thread) return;
    fed_node_stop(node);
    pthread_join(node->thread, NULL);
    node->has_thread = false;
}

void fed_node_free(struct fed_node *node)
{
    if (node == NULL) return;
    fed_node_join(node);
    node_proposals_end(node);
    links_free(node->links);
    node_inbox_free(node);
    fed_putter_free(node->putter);
    fed_log_close(node->log);
    fed_store_close(node->store);
    pbft_free(node->core);
    for (int i = 0; i < NODE_GROUP; i++) message_scratch_free(&node->scratches[i]);
    known_free(&node->known);
    checker_free(node->checker);
    loop_free(node->loop);
    identity_close(node->identity);
    pthread_mutex_destroy(&node->lock);
    sov_free(node);
}

uint8_t fed_node_seat(const struct fed_node *node)
{
    return node->seat;
}

int fed_node_port(const struct fed_node *node)
{
    return links_port(node->links);
}

const char *fed_node_failure(const struct fed_node *node)
{
    return atomic_load(&node->failed) ? node->failure.message : "";
}

const struct message_limits *fed_node_limits(const struct fed_node *node)
{
    return &node->config.core.limits;
}
