/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying signatures: a list of them at a time, in this thread when they are few, across the cores when
 * they are many. A verification takes some 40 us and waking a thread 33, so that a handful is done
 * sooner than anybody could help.
 *
 * What was once found good is remembered, by a digest of key, message and signature, in a table of fixed
 * size: certificates repeat votes that came by themselves before, and what was sent again needs no
 * second look. What was found bad is not: it costs its sender (node_inbox.c).
 *
 * Threads: one.
 */
#ifndef SOV_FEDERATION_NODE_CHECK_H
#define SOV_FEDERATION_NODE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "federation/message.h"

enum {
    CHECK_REMEMBERED = 8192, /* signatures; a power of two */
    CHECK_ALONE_MAX = 8,     /* done without help */
    CHECK_SHARE = 4,         /* taken at a time by each thread */
};

struct checker;

struct checker_stats {
    uint64_t verified, remembered, bad;
    uint64_t shared; /* lists that went across the cores */
    int64_t ns;
};

/* threads: this one included; 1: nobody helps. SOV_ERR_NOMEM, SOV_ERR_IO. */
enum sov_error checker_create(int threads, struct checker **out, struct sov_errbuf *err);
void checker_free(struct checker *checker);

/* Begins a new list. */
void checker_begin(struct checker *checker);
/*
 * Adds the check of one signature of the group `owner` (0, 1, 2, ...: whoever asks counts them). What
 * is pointed to must stay until checker_run. False without memory.
 */
bool checker_add(struct checker *checker, uint32_t owner, const uint8_t key[MESSAGE_KEY_BYTES],
                 const struct message_digest *digest,
                 const uint8_t signature[MESSAGE_SIGNATURE_BYTES]);
/* How many of this list are to be verified: those that are not remembered. */
size_t checker_count(const struct checker *checker);
/* Verifies all; good[owner] becomes false for each owner with a signature that is not genuine. */
void checker_run(struct checker *checker, bool *good);

void checker_stats_read(const struct checker *checker, struct checker_stats *out);

#endif
