/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log as text: JSON Lines in canonical form (RFC 8785), complete with certificates, so that who has the
 * federation's configuration can check it with no other source.
 *
 * The first line is {"batches":N,"federation":ID,"format":"sovereign-federation-log","head":H,"version":1}.
 * Each of the N others is a batch:
 *
 *     {"certificate":[{"member":0,"signature":".."},..],"digest":"..","epoch":0,"head":"..",
 *      "requests":[{"kind":"patterns","member":2,"number":"7","patterns":[..],"signature":".."},
 *                  {"change":{"address":"..","id":4,"kind":"add","public_key":".."},"kind":"change",
 *                   "member":0,"number":"8","signature":".."},..],"sequence":1,"view":0}
 *
 * digest and head are given for who reads the file; they are computed anew when it is read. Members may
 * be in another order and there may be spaces: a line is canonicalised before it is read.
 */
#ifndef SOV_FEDERATION_EXPORT_H
#define SOV_FEDERATION_EXPORT_H

#include "federation/message.h"

enum {
    FED_EXPORT_VERSION = 1,
    FED_EXPORT_LINE_BYTES_MAX = 8 << 20, /* a batch of the largest size has less than 2 MiB */
};

struct fed_export_header {
    uint64_t batches;
    struct message_digest federation, head;
};

/* Each appends a line with its newline; false without memory. entry: a decoded LOG_ENTRY. */
bool fed_export_header(const struct fed_export_header *header, struct strbuf *out);
bool fed_export_entry(const struct message *entry, const struct message_digest *head,
                      struct strbuf *out);

/* A line without its newline. SOV_ERR_FORMAT, SOV_ERR_UNSUPPORTED, SOV_ERR_NOMEM. */
enum sov_error fed_import_header(const char *line, size_t length, struct fed_export_header *out,
                                 struct sov_errbuf *err);

/* What a line says, apart from what it proves. */
struct fed_import {
    uint64_t sequence;
    struct message_digest digest, head;
    struct strbuf encoded;                     /* as a LOG_ENTRY message, for message_decode */
    struct strbuf text, requests, certificate; /* of the reading; used again */
};
void fed_import_free(struct fed_import *import);
/*
 * import: zeroed before the first line. scratch: of the federation, for its limits. SOV_ERR_FORMAT names
 * what was expected, and the byte of the line's canonical form.
 */
enum sov_error fed_import_entry(const char *line, size_t length,
                                const struct message_scratch *scratch, struct fed_import *import,
                                struct sov_errbuf *err);

#endif
