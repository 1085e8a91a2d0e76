/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>
#include <sodium.h>

#include "base/canonical_json.h"
#include "base/clock.h"
#include "base/pool.h"
#include "benchmark/consensus.h"

enum { PAGE_BYTES = 4096, NUMBER_AT = 6, NUMBER_DIGITS = 20 };

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

void consensus_pattern(uint64_t number, char text[CONSENSUS_PATTERN_BYTES + 1])
{
    static const char BEGIN[] = "{\"n\":\"", MIDDLE[] = "\",\"text\":\"", END[] = "\"}";
    int length = snprintf(text, CONSENSUS_PATTERN_BYTES + 1, "%s%020llu%s", BEGIN,
                          (unsigned long long)number, MIDDLE);
    size_t rest = CONSENSUS_PATTERN_BYTES - (size_t)length - (sizeof END - 1);
    for (size_t i = 0; i < rest; i++) text[(size_t)length + i] = (char)('a' + (number + i) % 26);
    memcpy(text + CONSENSUS_PATTERN_BYTES - (sizeof END - 1), END, sizeof END);
}

static double median(struct bench_samples *samples)
{
    double m = 0;
    if (!samples->failed && samples->count > 0) {
        bench_sort(samples->values, samples->count);
        m = bench_median(samples->values, samples->count);
    }
    bench_samples_free(samples);
    return m;
}

struct signing {
    int count;
    double sign_ns, verify_ns; /* of worker 0 */
};

static void measure_signatures(void *arg, int worker, int workers)
{
    struct signing *out = arg;
    struct bench_samples signs = {0}, verifies = {0};
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
    unsigned char signature[crypto_sign_BYTES], digest[MESSAGE_DIGEST_BYTES] = {0};
    (void)workers;
    crypto_sign_keypair(public_key, secret);
    for (int i = 0; i < out->count; i++) {
        memcpy(digest, &i, sizeof i);
        int64_t begin = clock_monotonic_ns();
        crypto_sign_detached(signature, NULL, digest, sizeof digest, secret);
        int64_t between = clock_monotonic_ns();
        int bad = crypto_sign_verify_detached(signature, digest, sizeof digest, public_key);
        int64_t end = clock_monotonic_ns();
        bench_samples_push(&signs, (double)(between - begin));
        if (bad == 0) bench_samples_push(&verifies, (double)(end - between));
    }
    sodium_memzero(secret, sizeof secret);
    double sign_ns = median(&signs), verify_ns = median(&verifies);
    if (worker != 0) return;
    out->sign_ns = sign_ns;
    out->verify_ns = verify_ns;
}

static enum sov_error measure_all_signatures(int count, int threads, struct consensus_costs *out,
                                             struct sov_errbuf *err)
{
    struct signing alone = {.count = count}, busy = {.count = count};
    struct pool *pool = NULL;
    enum sov_error rc = pool_create(threads, &pool, err);
    if (rc != SOV_OK) return rc;
    measure_signatures(&alone, 0, 1);
    pool_run(pool, measure_signatures, &busy);
    pool_free(pool);
    out->sign_ns = alone.sign_ns;
    out->verify_ns = alone.verify_ns;
    out->sign_busy_ns = busy.sign_ns;
    out->verify_busy_ns = busy.verify_ns;
    return SOV_OK;
}

static enum sov_error measure_digests(int count, struct consensus_costs *out,
                                      struct sov_errbuf *err)
{
    struct bench_samples samples = {0};
    struct strbuf work = {0};
    char text[CONSENSUS_PATTERN_BYTES + 1];
    enum sov_error rc = SOV_OK;
    for (int i = 0; i < count && rc == SOV_OK; i++) {
        struct message_digest digest;
        consensus_pattern((uint64_t)i, text);
        int64_t begin = clock_monotonic_ns();
        strbuf_clear(&work);
        rc = canonical_json(text, CONSENSUS_PATTERN_BYTES, CANONICAL_JSON_SORTED, &work, err);
        message_pattern_digest((const uint8_t *)work.data, work.length, NULL, &digest);
        bench_samples_push(&samples, (double)(clock_monotonic_ns() - begin));
    }
    strbuf_free(&work);
    out->digest_ns = median(&samples);
    return rc;
}

static enum sov_error measure_syncs(const char *folder, int count, struct consensus_costs *out,
                                    struct sov_errbuf *err)
{
    struct bench_samples samples = {0};
    char path[PATH_MAX], page[PAGE_BYTES];
    memset(page, 'x', sizeof page);
    int length = snprintf(path, sizeof path, "%s/sovereign-bench-XXXXXX", folder);
    if (length >= (int)sizeof path)
        return sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", folder);
    int fd = mkstemp(path);
    if (fd < 0) return sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
    enum sov_error rc = SOV_OK;
    unlink(path);
    for (int i = 0; i < count && rc == SOV_OK; i++) {
        int64_t begin = clock_monotonic_ns();
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page || fdatasync(fd) != 0)
            rc = sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
        bench_samples_push(&samples, (double)(clock_monotonic_ns() - begin));
    }
    close(fd);
    out->sync_ns = median(&samples);
    return rc;
}

static void name_filesystem(const char *folder, char name[32])
{
    static const struct {
        long magic;
        const char *name;
    } KNOWN[] = {
        {EXT4_SUPER_MAGIC, "ext4"},           {XFS_SUPER_MAGIC, "xfs"},
        {BTRFS_SUPER_MAGIC, "btrfs"},         {TMPFS_MAGIC, "tmpfs"},
        {OVERLAYFS_SUPER_MAGIC, "overlayfs"}, {NFS_SUPER_MAGIC, "nfs"},
    };
    struct statfs fs;
    snprintf(name, 32, "an unknown filesystem");
    if (statfs(folder, &fs) != 0) return;
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++)
        if ((long)fs.f_type == KNOWN[i].magic) snprintf(name, 32, "%s", KNOWN[i].name);
}

enum sov_error consensus_costs_measure(const char *folder, int count, int threads,
                                       struct consensus_costs *out, struct sov_errbuf *err)
{
    memset(out, 0, sizeof *out);
    name_filesystem(folder, out->filesystem);
    enum sov_error rc = measure_all_signatures(count, threads, out, err);
    if (rc == SOV_OK) rc = measure_digests(count, out, err);
    if (rc == SOV_OK) rc = measure_syncs(folder, count, out, err);
    return rc;
}

/*
 * The primary's PRE-PREPARE is its PREPARE; a quorum counts the own vote. So of PREPAREs a backup has to
 * verify the PRE-PREPARE and q - 2 more, the primary q - 1, and of COMMITs everybody q - 1; of the request,
 * all but its maker its signature.
 */
double consensus_signatures_ns(const struct consensus_costs *costs, uint32_t n, double requests,
                               double batches)
{
    const double q = pbft_quorum(n), signs = requests + 2.0 * n * batches;
    const double votes = (n - 1.0) * (q - 1) + (q - 1) + n * (q - 1);
    const double verifies = requests * (n - 1) + batches * votes;
    return signs * costs->sign_busy_ns + verifies * costs->verify_busy_ns;
}

double consensus_limit_ns(const struct consensus_costs *costs, uint32_t n, int cpus, int syncs)
{
    const double q = pbft_quorum(n);
    /* Request, PRE-PREPARE, PREPARE, COMMIT made; the first two, then two quorums verified by a backup. */
    const double chain =
        4 * costs->sign_ns + (2 + (q - 2) + (q - 1)) * costs->verify_ns + syncs * costs->sync_ns;
    return fmax(chain, consensus_signatures_ns(costs, n, 1, 1) / (cpus > 0 ? cpus : 1));
}
