/* SPDX-License-Identifier: Apache-2.0 */
/* The folders of a new federation: `sovereign federation init`. */
#ifndef SOV_FEDERATION_INIT_H
#define SOV_FEDERATION_INIT_H

#include "federation/config.h"

struct fed_init_options {
    const char *folder; /* gets node0, node1, ...: the data directories of the nodes */
    uint32_t nodes;
    const char *host;   /* of all addresses */
    uint16_t base_port; /* of node 0; the others follow */
};

/*
 * For each node a data directory with its key, federation.json and the empty log of a node that may vote
 * at once. Nothing that is there already is touched: SOV_ERR_INVALID, before anything is made, when a
 * folder nodeN is there. After another error what was made is taken away again. SOV_ERR_IO,
 * SOV_ERR_NOMEM. *config: the new federation's.
 */
enum sov_error fed_init(const struct fed_init_options *options, struct fed_config *config,
                        struct sov_errbuf *err);

#endif
