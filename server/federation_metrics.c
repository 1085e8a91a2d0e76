/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of the federation's node for Prometheus. */
#include "base/mem.h"
#include "federation/node.h"
#include "server/federation.h"
#include "server/metrics.h"

static void head(struct strbuf *out, const char *name, const char *type, const char *help)
{
    strbuf_printf(out, "# HELP sovereign_federation_%s %s\n# TYPE sovereign_federation_%s %s\n",
                  name, help, name, type);
}

static void one(struct strbuf *out, const char *name, const char *type, const char *help,
                uint64_t value)
{
    head(out, name, type, help);
    strbuf_printf(out, "sovereign_federation_%s %llu\n", name, (unsigned long long)value);
}

static void write_protocol(const struct fed_node_status *s, struct strbuf *out)
{
    const struct pbft_status *c = &s->core;
    uint64_t lag = c->known_executed > c->executed ? c->known_executed - c->executed : 0;
    head(out, "info", "gauge", "The node and its state; always 1.");
    strbuf_printf(out, "sovereign_federation_info{member=\"%u\",state=\"%s\"} 1\n", s->seat,
                  pbft_state_name(c->state));
    one(out, "view", "gauge", "The view, counted within the epoch.", (uint32_t)c->view);
    one(out, "epoch", "gauge", "Configurations before the present one.", message_epoch(c->view));
    one(out, "primary", "gauge", "The member that proposes in this view.", c->primary);
    one(out, "sequence", "gauge", "The last batch executed.", c->executed);
    one(out, "sequence_durable", "gauge", "The last batch that is on disk.", c->durable);
    one(out, "checkpoint", "gauge", "The last stable checkpoint.", c->stable);
    one(out, "lag", "gauge", "Batches that a peer claims to have beyond ours.", lag);
    one(out, "requests_waiting", "gauge", "Requests known and not executed.", c->waiting);
    one(out, "view_changes_total", "counter", "Views this node gave up.", c->view_changes);
    one(out, "misbehaviours_total", "counter", "What members did that correct ones cannot.",
        c->faults);
    one(out, "core_bytes", "gauge", "Memory of the protocol; it never grows.", c->memory_bytes);
    one(out, "batches_total", "counter", "Batches executed since the start.", s->batches);
    one(out, "requests_total", "counter", "Requests in them.", s->requests);
    one(out, "patterns_total", "counter", "Patterns in them.", s->patterns);
}

static void write_work(const struct fed_node_status *s, struct strbuf *out)
{
    head(out, "phase_seconds_total", "counter",
         "Time of the node's thread by phase; sign is part of protocol.");
    for (int i = 0; i < FED_PHASES; i++) {
        strbuf_printf(out, "sovereign_federation_phase_seconds_total{phase=\"%s\"} ",
                      fed_phase_name((enum fed_phase)i));
        metrics_put_value(out, metrics_seconds((uint64_t)s->phase_ns[i]));
        strbuf_putc(out, '\n');
    }
    one(out, "syncs_total", "counter", "Times that records were made durable.", s->syncs);
    one(out, "signatures_verified_total", "counter", "Signatures verified.",
        s->signatures_verified);
    one(out, "signatures_remembered_total", "counter", "Signatures that had been verified before.",
        s->signatures_remembered);
    one(out, "signatures_bad_total", "counter", "Signatures that were not genuine.",
        s->signatures_bad);
    one(out, "pattern_digests_total", "counter", "Patterns digested: each of them once.",
        s->digests_pattern);
    one(out, "messages_total", "counter", "Messages of members received.", s->messages_in);
    one(out, "messages_bad_total", "counter", "Those no correct member sends.", s->messages_bad);
    one(out, "connections_refused_total", "counter",
        "Connections of strangers that were turned away or came to nothing.",
        s->links.turned_away + s->links.pushed_out + s->links.unfinished);
}

static void write_commits(const struct fed_node_status *s, struct strbuf *out)
{
    uint64_t sum = 0;
    one(out, "proposals_waiting", "gauge", "Own proposals not yet submitted.", s->waiting);
    one(out, "proposals_refused_total", "counter", "Own proposals that were not committed.",
        s->refused);
    head(out, "commit_seconds", "histogram", "From an own proposal to its commit.");
    for (int i = 0; i < FED_LATENCY_BUCKETS - 1; i++) {
        sum += s->latency[i];
        strbuf_puts(out, "sovereign_federation_commit_seconds_bucket{le=\"");
        metrics_put_value(out, 0.00025 * (double)(1 << i));
        strbuf_printf(out, "\"} %llu\n", (unsigned long long)sum);
    }
    strbuf_printf(out,
                  "sovereign_federation_commit_seconds_bucket{le=\"+Inf\"} %llu\n"
                  "sovereign_federation_commit_seconds_sum ",
                  (unsigned long long)s->latency_count);
    metrics_put_value(out, metrics_seconds((uint64_t)s->latency_ns));
    strbuf_printf(out, "\nsovereign_federation_commit_seconds_count %llu\n",
                  (unsigned long long)s->latency_count);
}

static void write_peers(const struct fed_node_status *s, struct strbuf *out)
{
    static const char *const NAMES[] = {"peer_connected", "peer_sequence", "peer_bytes_in_total",
                                        "peer_bytes_out_total", "peer_dropped_total"};
    static const char *const TYPES[] = {"gauge", "gauge", "counter", "counter", "counter"};
    static const char *const HELP[] = {
        "1 when there is a link.", "The last batch it claims to have.", "Bytes received.",
        "Bytes sent.", "Messages to it that were dropped, because the queue was full or they old."};
    for (int k = 0; k < 5; k++) {
        head(out, NAMES[k], TYPES[k], HELP[k]);
        for (int i = 0; i < MESSAGE_SEATS_MAX; i++) {
            const struct link_stats *l = &s->peers[i].link;
            const uint64_t values[] = {l->up, s->core.peer_executed[i], l->bytes_in, l->bytes_out,
                                       l->overflowed + l->stale};
            if (!s->peers[i].member || i == s->seat) continue;
            strbuf_printf(out, "sovereign_federation_%s{member=\"%d\"} %llu\n", NAMES[k], i,
                          (unsigned long long)values[k]);
        }
    }
}

void federation_metrics_write(struct fed_node *node, struct strbuf *out)
{
    struct fed_node_status *s = sov_alloc(1, sizeof *s);
    if (s == NULL) return;
    fed_node_status(node, s);
    write_protocol(s, out);
    write_work(s, out);
    write_commits(s, out);
    write_peers(s, out);
    sov_free(s);
}
