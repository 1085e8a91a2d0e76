/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes as threads. The client is the thread that calls: answers wake it, and it proposes anew. Figures of
 * what nodes did come from their status (struct fed_node_status), taken before and after.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "benchmark/consensus.h"
#include "federation/init.h"

enum {
    NODE_THREADS = 1, /* there are more nodes than CPUs as it is */
    PAUSE_NS = 2 * NODE_STATUS_MS * 1000000,
    FD_MAX = 16,
    PLACEHOLDER_PORT = 1024, /* replaced by free ones: addresses are no part of a federation's id */
};

struct consensus_net {
    char folder[PATH_MAX];
    bool has_folder;
    uint32_t n;
    struct fed_config config;
    struct datadir *dirs[CONSENSUS_REPLICAS_MAX];
    struct fed_node *nodes[CONSENSUS_REPLICAS_MAX];
    uint64_t number; /* of the next pattern */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    struct fed_proposal *done_first; /* answered, not yet seen */
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* All at once, so that they differ. SOV_ERR_IO. */
static enum sov_error choose_ports(struct consensus_net *net, struct sov_errbuf *err)
{
    int fds[CONSENSUS_REPLICAS_MAX];
    uint32_t count = 0;
    enum sov_error rc = SOV_OK;
    for (; count < net->n && rc == SOV_OK; count++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        struct message_member *member = &net->config.members[count];
        fds[count] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[count] < 0 || bind(fds[count], (struct sockaddr *)&address, length) != 0 ||
            getsockname(fds[count], (struct sockaddr *)&address, &length) != 0)
            rc = sov_fail(err, SOV_ERR_IO, "no free port on 127.0.0.1 (%s)", strerror(errno));
        member->address_length = (uint8_t)snprintf(member->address, sizeof member->address,
                                                   "127.0.0.1:%u", ntohs(address.sin_port));
    }
    while (count > 0)
        if (fds[--count] >= 0) close(fds[count]);
    return rc;
}

static enum sov_error start_node(struct consensus_net *net, uint32_t seat, struct sov_errbuf *err)
{
    struct fed_node_options options = {
        .config = &net->config, .dir = net->dirs[seat], .threads = NODE_THREADS};
    enum sov_error rc = fed_node_create(&options, &net->nodes[seat], err);
    return rc == SOV_OK ? fed_node_start(net->nodes[seat], err) : rc;
}

static enum sov_error open_nodes(struct consensus_net *net, struct sov_errbuf *err)
{
    struct fed_init_options init = {
        .folder = net->folder, .nodes = net->n, .host = "127.0.0.1", .base_port = PLACEHOLDER_PORT};
    enum sov_error rc = fed_init(&init, &net->config, err);
    if (rc == SOV_OK) rc = choose_ports(net, err);
    for (uint32_t i = 0; i < net->n && rc == SOV_OK; i++) {
        char path[PATH_MAX + FD_MAX];
        snprintf(path, sizeof path, "%s/node%u", net->folder, i);
        rc = datadir_open(path, &net->dirs[i], err);
        if (rc == SOV_OK) rc = start_node(net, i, err);
    }
    return rc;
}

enum sov_error consensus_net_create(const char *parent, uint32_t n, struct consensus_net **out,
                                    struct sov_errbuf *err)
{
    *out = NULL;
    struct consensus_net *net = sov_calloc(1, sizeof *net);
    if (net == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a federation");
    net->n = n;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&net->lock, NULL);
    pthread_cond_init(&net->answered, &attributes);
    pthread_condattr_destroy(&attributes);
    int length = snprintf(net->folder, sizeof net->folder, "%s/sovereign-bench-XXXXXX", parent);
    enum sov_error rc = SOV_OK;
    if (length >= (int)sizeof net->folder - FD_MAX)
        rc = sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", parent);
    else if (mkdtemp(net->folder) == NULL)
        rc = sov_fail(err, SOV_ERR_IO, "%s: %s", net->folder, strerror(errno));
    net->has_folder = rc == SOV_OK;
    if (rc == SOV_OK) rc = open_nodes(net, err);
    if (rc != SOV_OK) {
        consensus_net_free(net);
        return rc;
    }
    *out = net;
    return SOV_OK;
}

void consensus_net_free(struct consensus_net *net)
{
    if (net == NULL) return;
    for (uint32_t i = 0; i < net->n; i++) fed_node_free(net->nodes[i]);
    for (uint32_t i = 0; i < net->n; i++) datadir_close(net->dirs[i]);
    while (net->done_first != NULL) {
        struct fed_proposal *next = net->done_first->next;
        fed_proposal_free(net->done_first);
        net->done_first = next;
    }
    if (net->has_folder) (void)nftw(net->folder, remove_one, FD_MAX, FTW_DEPTH | FTW_PHYS);
    pthread_cond_destroy(&net->answered);
    pthread_mutex_destroy(&net->lock);
    sov_free(net);
}

/* ---- proposals ---- */

static void on_done(struct fed_proposal *proposal)
{
    struct consensus_net *net = proposal->user;
    pthread_mutex_lock(&net->lock);
    proposal->next = net->done_first;
    net->done_first = proposal;
    pthread_cond_signal(&net->answered);
    pthread_mutex_unlock(&net->lock);
}

static enum sov_error propose(struct consensus_net *net, struct fed_node *node, uint32_t patterns,
                              struct sov_errbuf *err)
{
    struct fed_proposal *proposal;
    char text[CONSENSUS_PATTERN_BYTES + 1];
    enum sov_error rc = fed_proposal_create(&proposal, err);
    if (rc != SOV_OK) return rc;
    proposal->done = on_done;
    proposal->user = net;
    for (uint32_t i = 0; i < patterns && rc == SOV_OK; i++) {
        consensus_pattern(net->number++, text);
        rc = fed_proposal_add(proposal, fed_node_limits(node), text, CONSENSUS_PATTERN_BYTES, err);
    }
    if (rc == SOV_OK) rc = fed_node_propose(node, proposal, err);
    if (rc != SOV_OK) fed_proposal_free(proposal);
    return rc;
}

/* All that were answered since; NULL after CONSENSUS_WAIT_S without any. */
static struct fed_proposal *wait_answered(struct consensus_net *net)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += CONSENSUS_WAIT_S;
    pthread_mutex_lock(&net->lock);
    while (net->done_first == NULL && rc == 0)
        rc = pthread_cond_timedwait(&net->answered, &net->lock, &until);
    struct fed_proposal *list = net->done_first;
    net->done_first = NULL;
    pthread_mutex_unlock(&net->lock);
    return list;
}

struct progress {
    const struct consensus_load *load;
    uint64_t begun, answered, next;
    int64_t until_ns;
};

static bool is_over(const struct progress *p)
{
    if (p->load->proposals > 0) return p->begun >= p->load->proposals;
    return p->begun >= p->load->under_way && clock_monotonic_ns() >= p->until_ns;
}

static enum sov_error propose_more(struct consensus_net *net, struct progress *p,
                                   struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    while (rc == SOV_OK && p->begun - p->answered < p->load->under_way && !is_over(p)) {
        const uint32_t seat = p->load->first + (uint32_t)(p->next++ % p->load->proposers);
        rc = propose(net, net->nodes[seat], p->load->patterns, err);
        p->begun += rc == SOV_OK;
    }
    return rc;
}

static enum sov_error take_answers(struct consensus_net *net, struct progress *p,
                                   struct bench_samples *samples, struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    struct fed_proposal *list = wait_answered(net);
    if (list == NULL)
        return sov_fail(err, SOV_ERR_TIMEOUT, "the federation agreed on nothing for %d s",
                        CONSENSUS_WAIT_S);
    while (list != NULL) {
        struct fed_proposal *next = list->next;
        p->answered++;
        if (list->outcome == PBFT_COMMITTED)
            bench_samples_push(samples, (double)list->latency_ns);
        else
            rc = sov_fail(err, SOV_ERR_INTERNAL, "a proposal was refused: %s",
                          pbft_outcome_name(list->outcome));
        fed_proposal_free(list);
        list = next;
    }
    return rc;
}

/* ---- what was done ---- */

static double seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

static void add_status(struct consensus_net *net, double sign, struct consensus_work *work)
{
    struct fed_node_status *s = sov_alloc(1, sizeof *s);
    for (uint32_t i = 0; s != NULL && i < net->n; i++) {
        if (net->nodes[i] == NULL) continue;
        fed_node_status(net->nodes[i], s);
        const int64_t *phase = s->phase_ns;
        int64_t known = phase[FED_PHASE_DECODE] + phase[FED_PHASE_VERIFY] +
                        phase[FED_PHASE_PROTOCOL] + phase[FED_PHASE_STORE];
        work->waited += sign * seconds(s->waited_ns);
        work->digests += sign * seconds(phase[FED_PHASE_DECODE]);
        work->signatures += sign * seconds(phase[FED_PHASE_VERIFY] + phase[FED_PHASE_SIGN]);
        work->protocol += sign * seconds(phase[FED_PHASE_PROTOCOL] - phase[FED_PHASE_SIGN]);
        work->store += sign * seconds(phase[FED_PHASE_STORE]);
        work->syncs += sign * seconds(phase[FED_PHASE_SYNC]);
        work->network += sign * seconds(s->now_ns - s->started_ns - s->waited_ns - known);
        const uint64_t add = sign > 0 ? 1 : UINT64_MAX; /* modulo 2^64 */
        work->commits += add * s->syncs;
        work->canonical += add * s->canonical;
        work->pattern_digests += add * s->digests_pattern;
        work->requests += add * s->requests;
        work->batches += add * s->batches;
    }
    sov_free(s);
}

/* Until every node has told its state anew: they do while they run, every NODE_STATUS_MS. */
static void settle(void)
{
    struct timespec pause = {.tv_nsec = PAUSE_NS};
    nanosleep(&pause, NULL);
}

static enum sov_error run(struct consensus_net *net, const struct consensus_load *load,
                          int64_t begin_ns, struct bench_samples *samples, uint64_t *answered,
                          struct sov_errbuf *err)
{
    struct progress p = {.load = load, .until_ns = begin_ns + (int64_t)(load->seconds * 1e9)};
    enum sov_error rc = propose_more(net, &p, err);
    while (rc == SOV_OK && p.answered < p.begun) {
        rc = take_answers(net, &p, samples, err);
        if (rc == SOV_OK) rc = consensus_watch_check(err);
        if (rc == SOV_OK) rc = propose_more(net, &p, err);
    }
    *answered = p.answered;
    return rc;
}

enum sov_error consensus_net_run(struct consensus_net *net, const struct consensus_load *load,
                                 struct bench_samples *samples, struct consensus_work *work,
                                 struct sov_errbuf *err)
{
    memset(work, 0, sizeof *work);
    settle();
    add_status(net, -1, work);
    int64_t begin = clock_monotonic_ns();
    enum sov_error rc = run(net, load, begin, samples, &work->committed, err);
    work->wall = seconds(clock_monotonic_ns() - begin);
    settle();
    add_status(net, 1, work);
    return rc;
}

/* ---- faults ---- */

void consensus_net_stop(struct consensus_net *net, uint32_t seat)
{
    fed_node_free(net->nodes[seat]);
    net->nodes[seat] = NULL;
}

enum sov_error consensus_net_first(struct consensus_net *net, int start, uint32_t proposer,
                                   double *ns, struct sov_errbuf *err)
{
    const struct consensus_load load = {
        .first = proposer, .proposers = 1, .patterns = 1, .under_way = 1, .proposals = 1};
    struct bench_samples samples = {0};
    int64_t begin = clock_monotonic_ns();
    enum sov_error rc = start >= 0 ? start_node(net, (uint32_t)start, err) : SOV_OK;
    if (rc == SOV_OK) rc = run(net, &load, begin, &samples, &(uint64_t){0}, err);
    *ns = (double)(clock_monotonic_ns() - begin);
    bench_samples_free(&samples);
    return rc;
}

uint64_t consensus_net_patterns(struct consensus_net *net)
{
    return net->number;
}

uint32_t consensus_net_view_timeout_ms(const struct consensus_net *net)
{
    return net->config.core.view_timeout_ms;
}
