/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the consensus benchmarks stand on: federations of two kinds, and what their parts cost alone.
 *
 * A consensus_net is a federation of real nodes (federation/node.h) in this process, each with a thread of its
 * own, a data directory of its own in a temporary folder, and TCP connections over 127.0.0.1 to the others:
 * signatures, encryption and syncs are those of `sovereign federation start`.
 *
 * A consensus_memory has the cores alone (federation/pbft.h), with real signatures and digests, and neither
 * network nor disk: messages are encoded, handed over, decoded and verified, and every record is durable at
 * once. What all replicas have to do between two deliveries is shared among the threads of a pool.
 *
 * Threads: one at a time for each of them.
 */
#ifndef SOV_BENCHMARK_CONSENSUS_H
#define SOV_BENCHMARK_CONSENSUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "benchmark/stats.h"
#include "federation/node.h"

enum {
    CONSENSUS_REPLICAS_MAX = 8,
    CONSENSUS_PATTERN_BYTES = 200, /* canonical */
    CONSENSUS_WAIT_S = 30,         /* for an answer, before the benchmark gives up */
};

/* The canonical text of a pattern; other numbers give other ones. */
void consensus_pattern(uint64_t number, char text[CONSENSUS_PATTERN_BYTES + 1]);

/* ---- interruption ---- */

/*
 * From begin to end SIGINT and SIGTERM do not end the process: what runs here ends with
 * SOV_ERR_CANCELLED, so that the folders of federations are removed, and consensus_watch_end does what
 * the signal would have done. Who comes twice is not waited for.
 */
void consensus_watch_begin(void);
void consensus_watch_end(void);
/* SOV_ERR_CANCELLED once a signal has come. */
enum sov_error consensus_watch_check(struct sov_errbuf *err);

/* ---- costs ---- */

struct consensus_costs {
    double sign_ns, verify_ns; /* Ed25519 of a digest, by one thread alone */
    /* The same while all CPUs do it: two that share a core are slower together. */
    double sign_busy_ns, verify_busy_ns;
    double digest_ns;    /* one pattern: checked to be canonical, and digested */
    double sync_ns;      /* a page appended to a file in the folder, and fdatasync */
    char filesystem[32]; /* of the folder */
};
/* Medians of some `count` each. SOV_ERR_IO names the folder; SOV_ERR_NOMEM. */
enum sov_error consensus_costs_measure(const char *folder, int count, int threads,
                                       struct consensus_costs *out, struct sov_errbuf *err);

/*
 * The least time of a round of n replicas on so many CPUs: what has to follow each other (signatures to be
 * made and verified, and so many syncs), or else all signatures that are
 * needed, on all CPUs, whichever is longer. Surplus votes are not counted.
 */
double consensus_limit_ns(const struct consensus_costs *costs, uint32_t n, int cpus, int syncs);
/* All signatures that are needed in all replicas for so many requests in so many batches. */
double consensus_signatures_ns(const struct consensus_costs *costs, uint32_t n, double requests,
                               double batches);

/* ---- real nodes ---- */

struct consensus_net;

/* In a new folder within `parent`. SOV_ERR_IO, SOV_ERR_NOMEM and what nodes say. */
enum sov_error consensus_net_create(const char *parent, uint32_t n, struct consensus_net **out,
                                    struct sov_errbuf *err);
/* Takes the folder away. NULL is fine. */
void consensus_net_free(struct consensus_net *net);

struct consensus_load {
    uint32_t first, proposers; /* members that propose: first, first + 1, ... */
    uint32_t patterns;         /* in a proposal */
    uint32_t under_way;        /* proposals, in all */
    uint64_t proposals;        /* it ends with so many; 0: by time */
    double seconds;
};
/* What was done meanwhile, in all replicas together; times in seconds. */
struct consensus_work {
    double wall, waited, digests, signatures, protocol, store, syncs, network;
    uint64_t committed; /* proposals */
    uint64_t requests, batches, commits;
    uint64_t canonical, pattern_digests; /* how often one was computed */
};
/*
 * Proposes and waits for the answers; each proposal's latency (ns, from fed_node_propose to its answer) is a
 * sample. SOV_ERR_TIMEOUT, SOV_ERR_INTERNAL: one was refused.
 */
enum sov_error consensus_net_run(struct consensus_net *net, const struct consensus_load *load,
                                 struct bench_samples *samples, struct consensus_work *work,
                                 struct sov_errbuf *err);
/* Stops a node as abruptly as a thread can be: its connections end, and it answers no more. */
void consensus_net_stop(struct consensus_net *net, uint32_t seat);
/*
 * *ns: until a proposal of `proposer` is committed, made after member `start` (below 0: nobody) was started
 * again. Where no more than a quorum runs with it, it has voted by then.
 */
enum sov_error consensus_net_first(struct consensus_net *net, int start, uint32_t proposer,
                                   double *ns, struct sov_errbuf *err);
uint64_t consensus_net_patterns(struct consensus_net *net); /* in the log */
uint32_t consensus_net_view_timeout_ms(const struct consensus_net *net);

/* ---- cores alone ---- */

struct consensus_memory;

enum sov_error consensus_memory_create(uint32_t n, int threads, struct consensus_memory **out,
                                       struct sov_errbuf *err);
void consensus_memory_free(struct consensus_memory *memory);
/* One request of so many patterns by the primary, until all replicas have it in the log. */
enum sov_error consensus_memory_round(struct consensus_memory *memory, uint32_t patterns,
                                      struct sov_errbuf *err);
/* Since the creation; wall is that of the rounds, waited what threads had nothing to do in them. */
void consensus_memory_work(const struct consensus_memory *memory, struct consensus_work *out);

#endif
