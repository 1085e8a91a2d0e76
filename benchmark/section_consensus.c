/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds of agreement (consensus.h): real nodes over TCP with syncs, and cores in memory; one proposal at a
 * time, and as many as there is room for; what a fault costs; and what digesting once saves.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/canonical_json.h"
#include "base/clock.h"
#include "base/log.h"
#include "benchmark/consensus.h"
#include "benchmark/section.h"

enum {
    ROUNDS = 300, /* at --iterations 100 */
    ROUNDS_LEAST = 8,
    WARM_UP = 4,
    COST_SAMPLES = 200,
    COST_LEAST = 20,
    DIGEST_PATTERNS = 64,
    DIGEST_SAMPLES = 100,
    REPLICAS_OF_THE_SEED = 8,
    /* Syncs behind each other until an answer: the proposal at its primary, at a backup, prepared. */
    SYNCS_IN_A_ROUND = 3,
};
#define LOAD_SECONDS 1.0
#define LOAD_SECONDS_LEAST 0.05

static const uint32_t REPLICAS[] = {4, 7, REPLICAS_OF_THE_SEED};
static const uint32_t SIZES[] = {1, 8, 64, 512};

struct consensus_bench {
    struct bench_run *run;
    const char *folder;
    struct consensus_costs costs;
    double done, all; /* parts, for the bar */
};

static double load_seconds(const struct bench_run *run)
{
    double s = LOAD_SECONDS * run->iterations / BENCH_ITERATIONS_DEFAULT;
    if (s > LOAD_SECONDS) s = LOAD_SECONDS; /* more samples would say nothing new */
    return s < LOAD_SECONDS_LEAST ? LOAD_SECONDS_LEAST : s;
}

static void part(struct consensus_bench *b, const char *name)
{
    bench_progress(b->run, name, b->done / b->all);
    b->done++;
}

/* Shares of what all replicas' threads did, waiting left out. */
static void shares(struct bench_result *r, const struct consensus_work *w)
{
    const double all = w->digests + w->signatures + w->protocol + w->store + w->syncs + w->network;
    if (all <= 0) return;
    bench_result_extra(r, "signatures_share", w->signatures / all);
    bench_result_extra(r, "digests_share", w->digests / all);
    bench_result_extra(r, "protocol_share", w->protocol / all);
    if (w->commits == 0) return;
    bench_result_extra(r, "storage_share", (w->syncs + w->store) / all);
    bench_result_extra(r, "network_share", w->network / all);
    if (w->batches > 0)
        bench_result_extra(r, "syncs_per_batch", (double)w->commits / (double)w->batches);
}

/* ---- over TCP, durable ---- */

static enum sov_error net_rounds(struct consensus_bench *b, struct consensus_net *net, uint32_t n,
                                 struct sov_errbuf *err)
{
    char name[BENCH_NAME_MAX];
    struct bench_samples warm = {0}, samples = {0};
    struct consensus_work work;
    struct bench_meter meter;
    struct consensus_load load = {
        .proposers = 1, .patterns = 1, .under_way = 1, .proposals = WARM_UP};
    snprintf(name, sizeof name, "consensus.round_%u", n);
    part(b, name);
    enum sov_error rc = consensus_net_run(net, &load, &warm, &work, err);
    bench_samples_free(&warm);
    load.proposals = (uint64_t)bench_count(b->run, ROUNDS, ROUNDS_LEAST);
    bench_meter_start(&meter);
    if (rc == SOV_OK) rc = consensus_net_run(net, &load, &samples, &work, err);
    bench_meter_stop(&meter);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r =
        bench_add(b->run, name, "round", BENCH_MS, &samples, &meter, (double)work.committed, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(
        r,
        "one pattern of %d bytes at a time, proposed at the primary, %u nodes of this process "
        "over TCP on 127.0.0.1, durable on %s",
        CONSENSUS_PATTERN_BYTES, n, b->costs.filesystem);
    shares(r, &work);
    const int cpus = b->run->report->identity.cpus;
    const double limit = consensus_limit_ns(&b->costs, n, cpus, SYNCS_IN_A_ROUND);
    bench_limit_set(
        r, limit, r->summary.median,
        "Ed25519 %.0f us to sign, %.0f to verify, a sync %.0f us: what must follow each "
        "other, or all signatures on %d CPUs",
        b->costs.sign_ns * 1e-3, b->costs.verify_ns * 1e-3, b->costs.sync_ns * 1e-3, cpus);
    if (n == REPLICAS_OF_THE_SEED)
        bench_metric_set(b->run, BENCH_METRIC_CONSENSUS, r->summary.median * 1e-6, limit * 1e-6,
                         bench_result_fraction(r), "signatures and syncs of 8 replicas");
    return SOV_OK;
}

static enum sov_error net_load(struct consensus_bench *b, struct consensus_net *net, uint32_t n,
                               uint32_t patterns, struct sov_errbuf *err)
{
    char name[BENCH_NAME_MAX];
    struct bench_samples samples = {0};
    struct consensus_work work;
    struct bench_meter meter;
    const struct consensus_load load = {.proposers = 1,
                                        .patterns = patterns,
                                        .under_way = patterns >= 64 ? 16 : 1024 / patterns,
                                        .seconds = load_seconds(b->run)};
    snprintf(name, sizeof name, "consensus.load_%u_of_%u", n, patterns);
    part(b, name);
    bench_meter_start(&meter);
    enum sov_error rc = consensus_net_run(net, &load, &samples, &work, err);
    bench_meter_stop(&meter);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r = bench_add(b->run, name, "pattern", BENCH_MS, &samples, &meter,
                                       (double)work.committed * patterns, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    r->per_second = (double)work.committed * patterns / work.wall;
    bench_what(
        r,
        "%u proposals of %u pattern%s of %d bytes under way at the primary, %u nodes over TCP, "
        "durable on %s; patterns are counted",
        load.under_way, patterns, patterns == 1 ? "" : "s", CONSENSUS_PATTERN_BYTES, n,
        b->costs.filesystem);
    shares(r, &work);
    const int cpus = b->run->report->identity.cpus;
    const double requests = (double)work.requests / n, batches = (double)work.batches / n;
    bench_limit_set(
        r,
        consensus_signatures_ns(&b->costs, n, requests, batches) / cpus /
            ((double)work.committed * patterns),
        1e9 / r->per_second,
        "a pattern's share of the signatures of %.0f requests in %.0f batches, on %d CPUs",
        requests, batches, cpus);
    return SOV_OK;
}

static enum sov_error net_all(struct consensus_bench *b, uint32_t n, struct sov_errbuf *err)
{
    struct consensus_net *net;
    enum sov_error rc = consensus_net_create(b->folder, n, &net, err);
    if (rc != SOV_OK) return rc;
    rc = net_rounds(b, net, n, err);
    for (size_t i = 0; n == REPLICAS[0] && i < sizeof SIZES / sizeof SIZES[0] && rc == SOV_OK; i++)
        rc = net_load(b, net, n, SIZES[i], err);
    if (n != REPLICAS[0] && rc == SOV_OK) rc = net_load(b, net, n, PBFT_REQUEST_PATTERNS_MAX, err);
    consensus_net_free(net);
    return rc;
}

/* ---- a fault ---- */

/* One sample: it mostly is the time-out. */
static enum sov_error add_fault(struct consensus_bench *b, const char *name, double ns,
                                double limit_ns, const char *limit_what, const char *what,
                                double number, const char *number_name, struct sov_errbuf *err)
{
    struct bench_samples samples = {0};
    struct bench_meter meter = {.seconds = ns * 1e-9};
    bench_samples_push(&samples, ns);
    struct bench_result *r = bench_add(b->run, name, "fault", BENCH_MS, &samples, &meter, 1, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r, "%s", what);
    bench_result_extra(r, number_name, number);
    if (limit_ns > 0) bench_limit_set(r, limit_ns, ns, "%s", limit_what);
    return SOV_OK;
}

static enum sov_error net_faults(struct consensus_bench *b, struct sov_errbuf *err)
{
    struct consensus_net *net;
    struct bench_samples samples = {0};
    struct consensus_work work;
    double ns = 0;
    const struct consensus_load load = {.proposers = 1,
                                        .patterns = PBFT_REQUEST_PATTERNS_MAX,
                                        .under_way = 16,
                                        .seconds = load_seconds(b->run)};
    part(b, "consensus.failover_4");
    enum sov_error rc = consensus_net_create(b->folder, 4, &net, err);
    if (rc != SOV_OK) return rc;
    rc = consensus_net_run(net, &load, &samples, &work, err);
    bench_samples_free(&samples);
    if (rc == SOV_OK) {
        consensus_net_stop(net, 0);
        rc = consensus_net_first(net, -1, 1, &ns, err);
    }
    const double timeout_ms = consensus_net_view_timeout_ms(net);
    if (rc == SOV_OK)
        rc = add_fault(
            b, "consensus.failover_4", ns, timeout_ms * 1e6, "the time-out of a view",
            "a proposal just after the primary of 4 nodes was stopped, until it is committed",
            timeout_ms, "view_timeout_ms", err);
    part(b, "consensus.restart_4");
    if (rc == SOV_OK) {
        consensus_net_stop(net, 3);
        rc = consensus_net_first(net, 0, 1, &ns, err);
    }
    if (rc == SOV_OK)
        rc =
            add_fault(b, "consensus.restart_4", ns, 0, "",
                      "a node is started again, without which 4 have no quorum, until it has voted "
                      "for a proposal that waits for it",
                      (double)consensus_net_patterns(net), "patterns_in_the_log", err);
    consensus_net_free(net);
    return rc;
}

/* ---- cores alone ---- */

static enum sov_error memory_rounds(struct consensus_bench *b, uint32_t n, uint32_t patterns,
                                    int rounds, struct sov_errbuf *err)
{
    char name[BENCH_NAME_MAX];
    struct consensus_memory *memory;
    struct bench_samples samples = {0};
    struct consensus_work before, work;
    struct bench_meter meter;
    snprintf(name, sizeof name, "consensus.memory_%u%s%.0u", n, patterns > 1 ? "_of_" : "",
             patterns > 1 ? patterns : 0);
    part(b, name);
    enum sov_error rc = consensus_memory_create(n, b->run->threads, &memory, err);
    for (int i = 0; i < WARM_UP && rc == SOV_OK; i++)
        rc = consensus_memory_round(memory, patterns, err);
    if (rc == SOV_OK) consensus_memory_work(memory, &before);
    bench_meter_start(&meter);
    for (int i = 0; i < rounds && rc == SOV_OK; i++) {
        int64_t begin = clock_monotonic_ns();
        rc = consensus_memory_round(memory, patterns, err);
        bench_samples_push(&samples, (double)(clock_monotonic_ns() - begin));
    }
    bench_meter_stop(&meter);
    if (rc == SOV_OK) consensus_memory_work(memory, &work);
    consensus_memory_free(memory);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r = bench_add(b->run, name, patterns > 1 ? "pattern" : "round", BENCH_MS,
                                       &samples, &meter, (double)rounds * patterns, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r,
               "rounds of %u pattern%s of %d bytes, %u cores without network and disk, %d threads, "
               "until all have executed",
               patterns, patterns == 1 ? "" : "s", CONSENSUS_PATTERN_BYTES, n, b->run->threads);
    work.signatures -= before.signatures;
    work.digests -= before.digests;
    work.protocol -= before.protocol;
    shares(r, &work);
    const double made = (double)(work.committed * patterns * n);
    bench_result_extra(r, "canonical_each", (double)work.canonical / made);
    bench_result_extra(r, "digests_each", (double)work.pattern_digests / made);
    bench_limit_set(
        r, consensus_signatures_ns(&b->costs, n, 1, 1) / b->run->threads, r->summary.median,
        "the signatures of a round, %.0f us to sign and %.0f to verify with %d threads at it",
        b->costs.sign_busy_ns * 1e-3, b->costs.verify_busy_ns * 1e-3, b->run->threads);
    return SOV_OK;
}

/* ---- digest once ---- */

/* What a replica spends on digests in a round, when it computes them for so many of the messages. */
static enum sov_error digests(struct consensus_bench *b, const char *name, uint32_t messages,
                              struct sov_errbuf *err)
{
    struct bench_samples samples = {0};
    struct bench_meter meter;
    struct strbuf work = {0};
    static char texts[DIGEST_PATTERNS][CONSENSUS_PATTERN_BYTES + 1];
    const int count = bench_count(b->run, DIGEST_SAMPLES, BENCH_COMPARED_MIN);
    enum sov_error rc = SOV_OK;
    for (uint64_t i = 0; i < DIGEST_PATTERNS; i++) consensus_pattern(i, texts[i]);
    part(b, name);
    bench_meter_start(&meter);
    for (int s = 0; s < count && rc == SOV_OK; s++) {
        int64_t begin = clock_monotonic_ns();
        for (uint32_t m = 0; m < messages * DIGEST_PATTERNS && rc == SOV_OK; m++) {
            struct message_digest digest;
            strbuf_clear(&work);
            rc = canonical_json(texts[m % DIGEST_PATTERNS], CONSENSUS_PATTERN_BYTES,
                                CANONICAL_JSON_SORTED, &work, err);
            if (rc == SOV_OK)
                message_pattern_digest((const uint8_t *)work.data, work.length, NULL, &digest);
        }
        bench_samples_push(&samples, (double)(clock_monotonic_ns() - begin));
    }
    bench_meter_stop(&meter);
    strbuf_free(&work);
    if (rc != SOV_OK) {
        bench_samples_free(&samples);
        return rc;
    }
    struct bench_result *r =
        bench_add(b->run, name, "round", BENCH_US, &samples, &meter, count, err);
    if (r == NULL) return SOV_ERR_NOMEM;
    bench_what(r, "%d patterns of %d bytes made canonical and digested %u time%s: %s",
               DIGEST_PATTERNS, CONSENSUS_PATTERN_BYTES, messages, messages > 1 ? "s" : "",
               messages > 1 ? "for every message of a round of 8" : "as a replica does");
    bench_result_extra(r, "digests", (double)messages * DIGEST_PATTERNS);
    return SOV_OK;
}

static enum sov_error measure(struct consensus_bench *b, struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    const int rounds = bench_count(b->run, ROUNDS, ROUNDS_LEAST);
    for (size_t i = 0; i < sizeof REPLICAS / sizeof REPLICAS[0] && rc == SOV_OK; i++)
        rc = net_all(b, REPLICAS[i], err);
    if (rc == SOV_OK) rc = net_faults(b, err);
    for (size_t i = 0; i < sizeof REPLICAS / sizeof REPLICAS[0] && rc == SOV_OK; i++)
        rc = memory_rounds(b, REPLICAS[i], 1, rounds, err);
    for (size_t i = 1; i < sizeof SIZES / sizeof SIZES[0] && rc == SOV_OK; i++)
        rc = memory_rounds(b, REPLICAS_OF_THE_SEED, SIZES[i],
                           bench_count(b->run, ROUNDS / 4, ROUNDS_LEAST), err);
    if (rc == SOV_OK) rc = digests(b, "consensus.digest_once", 1, err);
    /* The proposal, and PREPAREs and COMMITs of all. */
    if (rc == SOV_OK) rc = digests(b, "consensus.digest_each", 2 * REPLICAS_OF_THE_SEED, err);
    return rc;
}

enum sov_error bench_section_consensus(struct bench_run *run, struct sov_errbuf *err)
{
    struct consensus_bench b = {.run = run, .folder = run->data_dir, .all = 20};
    const bool info = log_enabled(LOG_LEVEL_INFO), warn = log_enabled(LOG_LEVEL_WARN);
    if (b.folder == NULL) b.folder = ".";
    part(&b, "consensus");
    consensus_watch_begin();
    enum sov_error rc = consensus_costs_measure(
        b.folder, bench_count(run, COST_SAMPLES, COST_LEAST), run->threads, &b.costs, err);
    /* Nodes tell of themselves; here, of ends and beginnings that are wanted. */
    if (warn) log_configure(LOG_LEVEL_ERROR, log_current_format());
    if (rc == SOV_OK) rc = measure(&b, err);
    if (warn) log_configure(info ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, log_current_format());
    consensus_watch_end();
    if (rc != SOV_OK) return rc;
    bench_report_note(run->report, "Federations stored on %s in %s; a sync of 4 KiB took %.0f us.",
                      b.costs.filesystem,
                      strcmp(b.folder, ".") == 0 ? "the current folder" : b.folder,
                      b.costs.sync_ns * 1e-3);
    return SOV_OK;
}
