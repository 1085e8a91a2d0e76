/* SPDX-License-Identifier: Apache-2.0 */
/* A federation whose nodes are threads of the test: what is asserted is inside them. */
#ifndef SOV_TESTS_FEDERATION_INSIDE_FIXTURE_H
#define SOV_TESTS_FEDERATION_INSIDE_FIXTURE_H

#include "tests/federation_nodes_fixture.h"

struct inside {
    struct federation fed;
    struct datadir *dirs[FED_NODES];
    struct fed_node *nodes[FED_NODES];
};

static inline enum sov_error inside_start(struct inside *in, int i, struct sov_errbuf *err)
{
    char folder[PATH_MAX];
    fed_path(&in->fed, i, "", folder);
    enum sov_error rc = datadir_open(folder, &in->dirs[i], err);
    struct fed_node_options options = {
        .config = &in->fed.config, .dir = in->dirs[i], .id_plus_one = i + 1};
    if (rc == SOV_OK) rc = fed_node_create(&options, &in->nodes[i], err);
    if (rc == SOV_OK) rc = fed_node_start(in->nodes[i], err);
    return rc;
}

static inline void inside_stop(struct inside *in, int i)
{
    fed_node_free(in->nodes[i]);
    datadir_close(in->dirs[i]);
    in->nodes[i] = NULL;
    in->dirs[i] = NULL;
}

static inline bool inside_make(struct inside *in, char *problem)
{
    struct sov_errbuf err = {""};
    *in = (struct inside){.nodes = {NULL}};
    bool ok = fed_make(&in->fed, problem);
    for (int i = 0; ok && i < FED_NODES; i++) ok = inside_start(in, i, &err) == SOV_OK;
    if (err.message[0] != '\0') snprintf(problem, SOV_ERROR_MESSAGE_MAX, "%s", err.message);
    return ok;
}

static inline void inside_remove(struct inside *in)
{
    for (int i = 0; i < FED_NODES; i++) inside_stop(in, i);
    fed_remove(&in->fed);
}

static inline struct fed_node_status inside_see(const struct inside *in, int i)
{
    static struct fed_node_status status; /* too large for a stack under sanitizers */
    fed_node_status(in->nodes[i], &status);
    return status;
}

#endif
