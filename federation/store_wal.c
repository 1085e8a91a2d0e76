/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_wal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    WAL_MAGIC = 0x377F0682, /* its lowest bit: checksums are over big-endian words */
    WAL_VERSION = 3007000,
    HEADER_BYTES = 32,
    FRAME_BYTES = 24, /* and the page */
    PAGE_BYTES_MIN = 512,
    PAGE_BYTES_MAX = 65536,
};

struct wal {
    int file;
    bool big_endian;
    size_t page_bytes;
    unsigned char salts[8];
    uint32_t sum[2];
    unsigned char *frame;
};

static uint32_t word_be(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t word_le(const unsigned char *at)
{
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

/* Goes on with the checksum of all before; length is a multiple of 8. */
static void add(struct wal *wal, const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        uint32_t a = wal->big_endian ? word_be(bytes + i) : word_le(bytes + i);
        uint32_t b = wal->big_endian ? word_be(bytes + i + 4) : word_le(bytes + i + 4);
        wal->sum[0] += a + wal->sum[1];
        wal->sum[1] += b + wal->sum[0];
    }
}

/* Up to length bytes from `at` on; fewer only at the end. -1 with errno. */
static ssize_t read_at(int file, void *out, size_t length, off_t at)
{
    size_t have = 0;
    while (have < length) {
        ssize_t n = pread(file, (char *)out + have, length - have, at + (off_t)have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        have += (size_t)n;
    }
    return (ssize_t)have;
}

/*
 * *usable: a log whose frames count. One with a broken header has none: SQLite syncs the header before
 * the first frame, and begins it anew only when all before is in the database.
 */
static bool read_header(struct wal *wal, bool *usable)
{
    unsigned char h[HEADER_BYTES];
    ssize_t n = read_at(wal->file, h, sizeof h, 0);
    *usable = false;
    if (n < 0) return false;
    if (n < HEADER_BYTES || (word_be(h) & ~1u) != WAL_MAGIC || word_be(h + 4) != WAL_VERSION)
        return true;
    wal->big_endian = (word_be(h) & 1u) != 0;
    wal->page_bytes = word_be(h + 8);
    memcpy(wal->salts, h + 16, sizeof wal->salts);
    add(wal, h, 24);
    *usable = wal->page_bytes >= PAGE_BYTES_MIN && wal->page_bytes <= PAGE_BYTES_MAX &&
              (wal->page_bytes & (wal->page_bytes - 1)) == 0 && word_be(h + 24) == wal->sum[0] &&
              word_be(h + 28) == wal->sum[1];
    return true;
}

/*
 * Walks the frames of this log (older ones behind them have other salts). *broken: the first that does
 * not match its checksum; *synced: it had been synced, by what follows it.
 */
static bool walk(struct wal *wal, uint64_t *broken, bool *synced)
{
    size_t size = FRAME_BYTES + wal->page_bytes;
    bool ended = false; /* a transaction, at or behind the broken frame */
    *broken = 0;
    *synced = false;
    for (uint64_t i = 1;; i++) {
        ssize_t n =
            read_at(wal->file, wal->frame, size, HEADER_BYTES + (off_t)(i - 1) * (off_t)size);
        if (n < 0) return false;
        if ((size_t)n < size) return true;
        bool ours = memcmp(wal->frame + 8, wal->salts, sizeof wal->salts) == 0;
        if (*broken == 0) {
            add(wal, wal->frame, 8);
            add(wal, wal->frame + FRAME_BYTES, wal->page_bytes);
            if (ours && word_be(wal->frame + 16) == wal->sum[0] &&
                word_be(wal->frame + 20) == wal->sum[1])
                continue;
            *broken = i;
        }
        if (!ours) continue;
        if (ended) {
            *synced = true;
            return true;
        }
        ended = word_be(wal->frame + 4) != 0;
    }
}

static enum sov_error check(struct wal *wal, const char *path, bool *lost, char *problem,
                            struct sov_errbuf *err)
{
    uint64_t broken = 0;
    bool usable = false;
    *lost = false;
    if (!read_header(wal, &usable))
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be read (%s)", path, strerror(errno));
    if (!usable) return SOV_OK;
    wal->frame = sov_alloc(FRAME_BYTES + wal->page_bytes, 1);
    if (wal->frame == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for a page", path);
    if (!walk(wal, &broken, lost))
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be read (%s)", path, strerror(errno));
    if (*lost)
        snprintf(problem, SOV_ERROR_MESSAGE_MAX,
                 "%.200s: frame %llu is damaged, and what was committed behind it is lost; this "
                 "node does not vote until it cannot contradict what it may have sent",
                 path, (unsigned long long)broken);
    return SOV_OK;
}

enum sov_error fed_wal_check(const char *path, bool *lost, char problem[SOV_ERROR_MESSAGE_MAX],
                             struct sov_errbuf *err)
{
    char file[PATH_MAX];
    struct wal wal = {.file = -1};
    if (snprintf(file, sizeof file, "%s-wal", path) >= (int)sizeof file)
        return sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", path);
    wal.file = open(file, O_RDONLY | O_CLOEXEC);
    if (wal.file < 0 && errno == ENOENT) return SOV_OK;
    if (wal.file < 0)
        return sov_fail(err, SOV_ERR_IO, "%s: cannot be opened (%s)", file, strerror(errno));
    enum sov_error error = check(&wal, file, lost, problem, err);
    sov_free(wal.frame);
    close(wal.file);
    return error;
}
