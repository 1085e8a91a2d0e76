/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs a replica to be durable, and to start again.
 *
 *   bench_federation_store [--dir D] [SECTION...]
 *
 *   sync    fdatasync of 4 KiB appended to a file, and written over in one: what the disk allows
 *   commit  one token after the other, each durable before the next: a vote; a proposal of 1 and of 512
 *           patterns of 200 bytes with its vote; by the thread (append to callback) and without one
 *   group   votes given without waiting: how many become durable in a second
 *   open    a log of 100,000 patterns in batches of 1, 16 and 512: how long opening takes
 *
 * All sections without arguments. --dir: a folder for its files, on the disk to be measured; a new one in
 * TMPDIR or /tmp otherwise.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/clock.h"
#include "base/mem.h"
#include "benchmark/stats.h"
#include "federation/store_index.h"
#include "federation/store_message.h"

enum {
    ROUNDS = 2000,
    LONG_ROUNDS = 500, /* of 512 patterns */
    PATTERN_BYTES = 200,
    PATTERNS_MAX = 512,
    VOTE_BYTES = 130,
    CERTIFICATE_BYTES = 3 * 65,
    CHECKPOINT = 32,
    LOG_PATTERNS = 100000,
    GROUP_MS = 1000,
};

static char folder[512];

static void require(bool condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "bench_federation_store: %s\n", what);
    exit(1);
}

/* Times in us. */
static void report(const char *what, double *us, size_t count)
{
    bench_sort(us, count);
    struct bench_summary s = bench_summarize(us, count);
    printf("%-52s p50 %8.1f us  p99 %8.1f us  max %8.1f us  mean %8.1f us\n", what, s.median, s.p99,
           s.max, s.mean);
}

static double us_since(int64_t begin_ns)
{
    return (double)(clock_monotonic_ns() - begin_ns) * 1e-3;
}

struct bench {
    struct fed_store_options options;
    struct datadir *dir;
    struct fed_store *store;
    struct fed_store_found found;
    uint64_t token, sequence;
    unsigned char head[FED_STORE_DIGEST_BYTES];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t durable;
};

static void run_sync(struct bench *b)
{
    static double us[ROUNDS];
    static char page[4096];
    char path[600];
    (void)b;
    snprintf(path, sizeof path, "%s/sync", folder);
    for (int over = 0; over < 2; over++) {
        int file = open(path, O_RDWR | O_CREAT, 0600);
        require(file >= 0, path);
        for (int i = 0; i < ROUNDS; i++) {
            int64_t begin = clock_monotonic_ns();
            require(pwrite(file, page, sizeof page, (off_t)i * 4096) == 4096 &&
                        fdatasync(file) == 0,
                    "sync");
            us[i] = us_since(begin);
        }
        close(file);
        report(over ? "sync: 4 KiB written over, fdatasync" : "sync: 4 KiB appended, fdatasync", us,
               ROUNDS);
    }
    unlink(path);
}

static void on_durable(void *user, uint64_t token)
{
    struct bench *b = user;
    pthread_mutex_lock(&b->lock);
    b->durable = token;
    pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void open_store(struct bench *b)
{
    struct sov_errbuf err;
    require(datadir_open(folder, &b->dir, &err) == SOV_OK &&
                fed_store_open(b->dir, &b->options, &b->store, &b->found, &err) == SOV_OK,
            err.message);
    memcpy(b->head, b->found.head, sizeof b->head);
    b->sequence = b->found.sequence;
    b->token = b->durable = 0;
}

static void close_store(struct bench *b, bool forget)
{
    static const char *const FILES[] = {
        FED_STORE_FILE, FED_STORE_FILE "-wal",     FED_STORE_FILE "-shm",
        FED_INDEX_FILE, FED_INDEX_FILE "-journal", "lock"};
    char path[600];
    fed_store_close(b->store);
    datadir_close(b->dir);
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0] && forget; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, FILES[i]);
        (void)unlink(path);
    }
}

static void wait_durable(struct bench *b)
{
    struct sov_errbuf err;
    if (b->options.without_thread) {
        require(fed_store_commit(b->store, &err) == SOV_OK, err.message);
        return;
    }
    pthread_mutex_lock(&b->lock);
    while (b->durable < b->token) pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

/* A proposal of so many patterns with its vote (0: a vote alone), and the commit of the one before. */
struct round {
    struct fed_store_record vote;
    struct fed_store_batch batch;
    struct fed_store_content content;
    struct fed_store_request request;
    struct fed_store_pattern patterns[PATTERNS_MAX];
    unsigned char bytes[PATTERNS_MAX * PATTERN_BYTES], certificate[CERTIFICATE_BYTES];
    unsigned char signature[VOTE_BYTES];
};

static void make_round(struct bench *b, struct round *r, int patterns)
{
    uint64_t s = ++b->sequence;
    r->content = (struct fed_store_content){.sequence = s,
                                            .bytes = r->bytes,
                                            .length = (size_t)patterns * PATTERN_BYTES,
                                            .requests = &r->request,
                                            .request_count = 1,
                                            .patterns = r->patterns,
                                            .pattern_count = (size_t)patterns};
    r->request = (struct fed_store_request){
        .member = 1, .number = s, .json = true, .pattern_count = (uint32_t)patterns};
    for (int i = 0; i < patterns; i++) {
        r->patterns[i] = (struct fed_store_pattern){.offset = (uint32_t)(i * PATTERN_BYTES),
                                                    .length = PATTERN_BYTES};
        randombytes_buf(r->patterns[i].id, FED_STORE_DIGEST_BYTES);
        memset(r->bytes + (size_t)i * PATTERN_BYTES, 'a' + (int)(s % 20), PATTERN_BYTES);
    }
    randombytes_buf(r->content.digest, FED_STORE_DIGEST_BYTES);
    r->vote = (struct fed_store_record){.kind = 2,
                                        .view = 1,
                                        .sequence = s,
                                        .bytes = r->signature,
                                        .length = VOTE_BYTES,
                                        .content = patterns > 0 ? &r->content : NULL};
    r->batch = (struct fed_store_batch){.sequence = s,
                                        .view = 1,
                                        .certificate = r->certificate,
                                        .certificate_length = CERTIFICATE_BYTES,
                                        .content = &r->content};
    memcpy(r->batch.digest, r->content.digest, sizeof r->batch.digest);
    fed_store_chain(b->head, s, r->batch.digest, r->batch.head);
    memcpy(b->head, r->batch.head, sizeof b->head);
}

static void append(struct bench *b, const struct round *r, bool vote, bool batch)
{
    struct sov_errbuf err;
    enum sov_error error = fed_store_append(b->store, ++b->token, &r->vote, vote ? 1 : 0, &r->batch,
                                            batch ? 1 : 0, &err);
    require(error == SOV_OK, err.message);
}

static void checkpoint(struct bench *b)
{
    struct sov_errbuf err;
    if (b->sequence % CHECKPOINT != 0 || b->sequence <= CHECKPOINT) return;
    require(fed_store_collect(b->store, b->sequence - CHECKPOINT, &err) == SOV_OK, err.message);
}

static void run_commit(struct bench *b)
{
    static const int PATTERNS[] = {0, 1, 512};
    static double us[ROUNDS];
    static struct round r;
    char what[100];
    for (int k = 0; k < 6; k++) {
        struct fed_store_stats stats;
        int patterns = PATTERNS[k / 2], rounds = patterns > 1 ? LONG_ROUNDS : ROUNDS;
        b->options.without_thread = k % 2 == 1;
        open_store(b);
        for (int i = 0; i < rounds; i++) {
            make_round(b, &r, patterns);
            int64_t begin = clock_monotonic_ns();
            append(b, &r, true, false);
            wait_durable(b);
            us[i] = us_since(begin);
            /* Its commit is nothing that anybody waits for. */
            if (patterns > 0) append(b, &r, false, true);
            checkpoint(b);
        }
        wait_durable(b);
        fed_store_stats_read(b->store, &stats);
        snprintf(what, sizeof what, "commit: a vote%s, %s",
                 patterns == 0   ? ""
                 : patterns == 1 ? " and a proposal of 1 pattern"
                                 : " and a proposal of 512 patterns",
                 b->options.without_thread ? "no thread" : "by the thread");
        report(what, us, (size_t)rounds);
        printf(
            "    %llu transactions, %.1f us each, %.1f us of it COMMIT; %llu checkpoints of %.2f "
            "ms\n",
            (unsigned long long)stats.commits,
            (double)stats.commit_ns / (double)stats.commits / 1e3,
            (double)stats.sync_ns / (double)stats.commits / 1e3,
            (unsigned long long)stats.checkpoints,
            stats.checkpoints > 0 ? (double)stats.checkpoint_ns / (double)stats.checkpoints / 1e6
                                  : 0.0);
        close_store(b, true);
    }
    b->options.without_thread = false;
}

static void run_group(struct bench *b)
{
    static struct round r;
    struct fed_store_stats stats;
    open_store(b);
    int64_t begin = clock_monotonic_ns();
    while (clock_monotonic_ns() - begin < GROUP_MS * (int64_t)1000000) {
        make_round(b, &r, 0);
        append(b, &r, true, false);
        checkpoint(b);
        pthread_mutex_lock(&b->lock);
        while (b->durable + 1000 < b->token) pthread_cond_wait(&b->changed, &b->lock);
        pthread_mutex_unlock(&b->lock);
    }
    wait_durable(b);
    double seconds = (double)(clock_monotonic_ns() - begin) / 1e9;
    fed_store_stats_read(b->store, &stats);
    printf("group: %.0f votes/s durable, at most 1000 under way, %.1f in a transaction\n",
           (double)b->token / seconds, (double)b->token / (double)stats.commits);
    close_store(b, true);
}

static void run_open(struct bench *b)
{
    static const int PATTERNS[] = {1, 16, 512};
    static struct round r;
    for (int k = 0; k < 3; k++) {
        struct stat st;
        char path[600];
        open_store(b);
        for (int total = 0; total < LOG_PATTERNS; total += PATTERNS[k]) {
            make_round(b, &r, PATTERNS[k]);
            append(b, &r, true, true);
            checkpoint(b);
            if (b->sequence % 64 == 0) wait_durable(b);
        }
        wait_durable(b);
        close_store(b, false);
        snprintf(path, sizeof path, "%s/" FED_STORE_FILE, folder);
        require(stat(path, &st) == 0, path);
        int64_t begin = clock_monotonic_ns();
        open_store(b);
        int64_t end = clock_monotonic_ns();
        printf("open: %d patterns in batches of %d, file of %.1f MB: %.1f ms\n", LOG_PATTERNS,
               PATTERNS[k], (double)st.st_size / 1e6, (double)(end - begin) / 1e6);
        close_store(b, true);
    }
}

static const struct {
    const char *name;
    void (*run)(struct bench *b);
} SECTIONS[] = {
    {"sync", run_sync}, {"commit", run_commit}, {"group", run_group}, {"open", run_open}};
enum { SECTION_COUNT = sizeof SECTIONS / sizeof SECTIONS[0] };

int main(int argc, char **argv)
{
    struct bench b = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    const char *parent = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    bool wanted[SECTION_COUNT] = {false}, any = false;
    for (int i = 1; i < argc; i++) {
        bool known = strcmp(argv[i], "--dir") == 0 && i + 1 < argc;
        if (known) parent = argv[++i];
        for (int k = 0; k < SECTION_COUNT && !known; k++) {
            if (strcmp(argv[i], SECTIONS[k].name) != 0) continue;
            wanted[k] = any = known = true;
        }
        require(known, "usage: bench_federation_store [--dir D] [sync|commit|group|open]...");
    }
    require(sodium_init() >= 0, "libsodium");
    snprintf(folder, sizeof folder, "%s/bench-federation-XXXXXX", parent);
    require(mkdtemp(folder) != NULL, folder);
    b.options = (struct fed_store_options){
        .chain = fed_store_chain, .owner = "bench", .durable = on_durable, .user = &b};
    for (int k = 0; k < SECTION_COUNT; k++)
        if (!any || wanted[k]) SECTIONS[k].run(&b);
    (void)rmdir(folder);
    return 0;
}
