/* SPDX-License-Identifier: Apache-2.0 */
/*
 * federation.json: who the first members of a federation are and what all of them have agreed on. The same
 * file goes to every node; a node finds itself in it by its key (base/identity.h).
 *
 *     {
 *       "version": 1,
 *       "federation": "7f..",      64 hexadecimal digits: the id, see below
 *       "f": 1,                    how many members may be faulty: (n - 1) / 3
 *       "members": [{"id": 0, "address": "10.0.0.1:7100", "public_key": "d7.."}, ...],
 *       "limits": {"checkpoint_interval": 32, "window": 64, "pattern_bytes": 65536, "request_bytes": 262144,
 *                  "batch_requests": 1024, "batch_patterns": 4096, "batch_bytes": 1048576},
 *       "timing": {"view_timeout_ms": 2000, "view_timeout_ms_max": 60000, "resend_ms": 100,
 *                  "pipeline": 8, "transfer_window": 16}
 *     }
 *
 * The id is a digest of the members' ids and keys and of the limits: whoever changes one of these has
 * another federation. Addresses and timing may be edited, on each node by itself. "limits" and "timing",
 * and each field in them, may be left out. An unknown field is an error, and so is everything out of
 * range; messages name the field.
 *
 * This is the configuration at the beginning. Members that come, go or change keys later do so through
 * the log (membership.h).
 */
#ifndef SOV_FEDERATION_CONFIG_H
#define SOV_FEDERATION_CONFIG_H

#include "base/error.h"
#include "base/strbuf.h"
#include "federation/pbft.h"

enum {
    FED_CONFIG_VERSION = 1,
    FED_CONFIG_BYTES_MAX = 1 << 20,
    FED_HOST_BYTES_MAX = MESSAGE_ADDRESS_MAX, /* with the zero */
};
#define FED_CONFIG_FILE "federation.json"

struct fed_config {
    struct message_digest federation;
    struct message_member members[PBFT_MEMBERS_MAX]; /* ids strictly ascending */
    uint32_t member_count;
    /* The rest: limits, intervals, time-outs. Its seat, members, sign, user and flags are not set. */
    struct pbft_config core;
};

/* Limits and timing as they are without a word on them; no members, no id. */
void fed_config_defaults(struct fed_config *config);
/* The id of these members and limits. */
void fed_config_identify(struct fed_config *config);
/* SOV_ERR_FORMAT (which field), SOV_ERR_UNSUPPORTED (a newer version), SOV_ERR_NOMEM. */
enum sov_error fed_config_read(const char *text, size_t length, struct fed_config *out,
                               struct sov_errbuf *err);
/* The same of a file; messages begin with its path. SOV_ERR_IO, SOV_ERR_LIMIT. */
enum sov_error fed_config_load(const char *path, struct fed_config *out, struct sov_errbuf *err);
/* Appends the text of the file; false without memory. What is read from it is the same config. */
bool fed_config_write(const struct fed_config *config, struct strbuf *out);
/* The member with this key; -1: none. */
int fed_config_find(const struct fed_config *config, const uint8_t key[MESSAGE_KEY_BYTES]);
/* Fills all of a core's configuration but sign, user, validity and amnesia. Points into config. */
void fed_config_core(const struct fed_config *config, uint8_t seat, struct pbft_config *out);

/*
 * "host:port", "[::1]:7100": the host without brackets, and the port. SOV_ERR_INVALID says what is wrong
 * with it.
 */
enum sov_error fed_address_split(const char *address, size_t length, char host[FED_HOST_BYTES_MAX],
                                 uint16_t *port, struct sov_errbuf *err);

#endif
