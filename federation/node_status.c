/* SPDX-License-Identifier: Apache-2.0 */
/* What a node tells of itself: copied now and then for other threads, and written as JSON. */
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "federation/node_internal.h"

static const char *const PHASES[FED_PHASES] = {
    [FED_PHASE_DECODE] = "decode", [FED_PHASE_VERIFY] = "verify", [FED_PHASE_PROTOCOL] = "protocol",
    [FED_PHASE_SIGN] = "sign",     [FED_PHASE_STORE] = "store",   [FED_PHASE_SYNC] = "sync",
    [FED_PHASE_SEND] = "send",
};

const char *fed_phase_name(enum fed_phase phase)
{
    return PHASES[phase];
}

static void fill_peers(struct fed_node *node, struct fed_node_status *out)
{
    uint32_t count;
    const struct message_member *members = pbft_members(node->core, &count);
    memset(out->peers, 0, sizeof out->peers);
    for (uint32_t i = 0; i < count; i++) {
        const struct message_member *m = &members[i];
        struct fed_node_peer *peer = &out->peers[m->seat];
        if (!m->active) continue;
        peer->member = true;
        memcpy(peer->key, m->key, sizeof peer->key);
        memcpy(peer->address, m->address, m->address_length);
        peer->bad_messages = node->peers[m->seat].bad;
        links_stats(node->links, m->seat, &peer->link);
    }
}

static void fill_store(struct fed_node *node, struct fed_node_status *out)
{
    struct fed_store_stats store;
    fed_store_stats_read(node->store, &store);
    if (store.failed) node_fail(node, SOV_ERR_IO, "its store has failed; start it anew");
    out->syncs = store.commits;
    out->phase_ns[FED_PHASE_SYNC] = (int64_t)store.commit_ns;
}

void node_publish(struct fed_node *node, bool at_once)
{
    int64_t now = clock_monotonic_ns();
    struct fed_node_status *s = &node->now;
    if (!at_once && now - node->published_ns < NODE_STATUS_MS * 1000000ll) return;
    struct checker_stats checks;
    node->published_ns = now;
    s->now_ns = now;
    s->waited_ns = loop_waited_ns(node->loop);
    s->seat = node->seat;
    s->epoch = node->epoch;
    s->federation = node->config.federation;
    pbft_status(node->core, &s->core);
    checker_stats_read(node->checker, &checks);
    s->signatures_verified = checks.verified;
    s->signatures_remembered = checks.remembered;
    s->signatures_bad = checks.bad;
    s->digests_pattern = node->counts.pattern;
    s->digests_request = node->counts.request;
    s->digests_batch = node->counts.batch;
    s->canonical = node->counts.canonical;
    s->waiting = node->waiting;
    s->under_way = (uint64_t)node->under_way;
    links_totals(node->links, &s->links);
    fill_peers(node, s);
    fill_store(node, s);
    /* The votes that were lost no longer matter: the store may forget that. */
    if (node->amnesia && !s->core.forgotten && fed_store_recovered(node->store, NULL) == SOV_OK)
        node->amnesia = false;
    pthread_mutex_lock(&node->lock);
    node->status = *s;
    memcpy(node->status.store_problem, node->store_problem, sizeof node->status.store_problem);
    pthread_mutex_unlock(&node->lock);
}

void fed_node_status(struct fed_node *node, struct fed_node_status *out)
{
    pthread_mutex_lock(&node->lock);
    *out = node->status;
    pthread_mutex_unlock(&node->lock);
}

/* ---- JSON ---- */

static void put_hex(struct strbuf *out, const char *name, const uint8_t *bytes, size_t length)
{
    char hex[2 * 32 + 1];
    sodium_bin2hex(hex, sizeof hex, bytes, length);
    strbuf_printf(out, "\"%s\":\"%s\",", name, hex);
}

static void put_number(struct strbuf *out, const char *name, uint64_t value)
{
    strbuf_printf(out, "\"%s\":%llu,", name, (unsigned long long)value);
}

static void put_text(struct strbuf *out, const char *name, const char *text)
{
    strbuf_printf(out, "\"%s\":", name);
    strbuf_put_json_string(out, text, strlen(text));
    strbuf_putc(out, ',');
}

/* Objects are written with a comma behind every field; the last one goes. */
static void put_end(struct strbuf *out, char bracket)
{
    if (out->length > 0 && out->data[out->length - 1] == ',') out->length--;
    strbuf_putc(out, bracket);
}

struct figure {
    const char *name;
    uint64_t value;
};

static void put_figures(struct strbuf *out, const struct figure *figures, size_t count)
{
    for (size_t i = 0; i < count; i++) put_number(out, figures[i].name, figures[i].value);
}

static void put_section(struct strbuf *out, const char *name, const struct figure *figures,
                        size_t count)
{
    strbuf_printf(out, "\"%s\":{", name);
    put_figures(out, figures, count);
    put_end(out, '}');
    strbuf_putc(out, ',');
}

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static void put_view(struct strbuf *out, uint64_t view)
{
    strbuf_printf(out, "\"view\":%u,\"epoch\":%u,", (unsigned)view, message_epoch(view));
}

static void put_peer(struct strbuf *out, const struct fed_node_status *s, int seat)
{
    const struct fed_node_peer *p = &s->peers[seat];
    strbuf_puts(out, "{");
    put_number(out, "id", (uint64_t)seat);
    put_hex(out, "public_key", p->key, sizeof p->key);
    put_text(out, "address", p->address);
    strbuf_printf(out, "\"self\":%s,", seat == s->seat ? "true" : "false");
    if (seat != s->seat) {
        uint64_t executed = s->core.peer_executed[seat], most = s->core.known_executed;
        const struct figure figures[] = {
            {"executed", executed},
            {"lag", executed < most ? most - executed : 0},
            {"round_trip_us", (uint64_t)p->link.round_trip_ns / 1000},
            {"messages_in", p->link.messages_in},
            {"messages_out", p->link.messages_out},
            {"bytes_in", p->link.bytes_in},
            {"bytes_out", p->link.bytes_out},
            {"dropped", p->link.overflowed + p->link.stale},
            {"queued", p->link.queued},
            {"bad_messages", p->bad_messages},
        };
        strbuf_printf(out, "\"connected\":%s,", p->link.up ? "true" : "false");
        put_figures(out, figures, COUNT_OF(figures));
        put_text(out, "trouble", p->link.up ? "" : p->link.trouble);
    }
    put_end(out, '}');
    strbuf_putc(out, ',');
}

static void put_core(struct strbuf *out, const struct fed_node_status *s)
{
    const struct pbft_status *c = &s->core;
    put_text(out, "state", pbft_state_name(c->state));
    put_view(out, c->view);
    put_number(out, "primary", c->primary);
    put_number(out, "members", c->member_count);
    put_number(out, "f", c->faulty_max);
    put_number(out, "quorum", c->quorum);
    put_number(out, "sequence", c->executed);
    put_number(out, "durable", c->durable);
    put_number(out, "checkpoint", c->stable);
    put_hex(out, "head", c->head.bytes, sizeof c->head.bytes);
    put_number(out, "lag", c->known_executed > c->executed ? c->known_executed - c->executed : 0);
    put_number(out, "waiting_requests", c->waiting);
    put_number(out, "view_changes", c->view_changes);
    put_number(out, "misbehaviours", c->faults);
    put_number(out, "core_bytes", c->memory_bytes);
}

bool fed_status_write(const struct fed_node_status *s, struct strbuf *out)
{
    const struct figure delivered[] = {
        {"batches", s->batches}, {"requests", s->requests}, {"patterns", s->patterns}};
    const struct figure own[] = {{"committed", s->committed},
                                 {"refused", s->refused},
                                 {"waiting", s->waiting},
                                 {"under_way", s->under_way}};
    const struct figure signatures[] = {{"verified", s->signatures_verified},
                                        {"remembered", s->signatures_remembered},
                                        {"bad", s->signatures_bad}};
    const struct figure digests[] = {{"canonical", s->canonical},
                                     {"pattern", s->digests_pattern},
                                     {"request", s->digests_request},
                                     {"batch", s->digests_batch}};
    struct figure phases[FED_PHASES];
    for (int i = 0; i < FED_PHASES; i++)
        phases[i] = (struct figure){PHASES[i], (uint64_t)s->phase_ns[i] / 1000};
    strbuf_puts(out, "{");
    put_number(out, "id", s->seat);
    put_hex(out, "federation", s->federation.bytes, sizeof s->federation.bytes);
    put_core(out, s);
    put_text(out, "store_problem", s->store_problem);
    put_number(out, "uptime_ms", (uint64_t)(s->now_ns - s->started_ns) / 1000000);
    put_section(out, "delivered", delivered, COUNT_OF(delivered));
    put_section(out, "own", own, COUNT_OF(own));
    put_section(out, "signatures", signatures, COUNT_OF(signatures));
    put_section(out, "digests", digests, COUNT_OF(digests));
    put_number(out, "turns", s->turns);
    put_number(out, "syncs", s->syncs);
    put_section(out, "phases_us", phases, COUNT_OF(phases));
    strbuf_puts(out, "\"peers\":[");
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++)
        if (s->peers[i].member) put_peer(out, s, i);
    put_end(out, ']');
    strbuf_putc(out, '}');
    return !strbuf_failed(out);
}
