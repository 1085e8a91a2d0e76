/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer cache of `serve`: its flags, the data directory, and when it begins. Its keys have the
 * digest of the model's file, which is computed while the model loads; where that takes longer, the
 * server answers without a cache until it is there.
 */
#ifndef SOV_CLI_SERVE_CACHE_H
#define SOV_CLI_SERVE_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/datadir.h"
#include "cache/cache.h"
#include "cache/store.h"
#include "cli/args.h"
#include "runtime/model_digest.h"
#include "server/server.h"

struct serve_cache {
    /* Flags. */
    const char *mode; /* "on" or "off" */
    const char *policy_name;
    const char *data_dir; /* NULL: nothing outlives the process */
    size_t bytes;
    int entries;
    int ttl_s; /* 0: for ever */
    bool share_tenants;

    enum cache_policy_kind policy;
    struct datadir *dir;
    struct cache_secret secret;
    struct cache *cache; /* NULL: off */
    struct cache_store *store;
    struct model_digest *digest; /* where there is a cache or a data directory */
    bool pending;                /* the digest is not known yet */
};

/* Functions return an exit status (enum cli_exit) and have said what went wrong. */
void serve_cache_init(struct serve_cache *c);
void serve_cache_declare(struct args *args, struct serve_cache *c);
/* What the table of flags cannot check. */
int serve_cache_check(struct serve_cache *c);
/* Takes the data directory, and begins with the digest of the model (NULL: the built-in guide). */
int serve_cache_open(struct serve_cache *c, const char *model);
/*
 * Gives the cache to the server once the digest is known, for which it waits; else stays pending. A
 * data directory that fails is an error at start (wait_ms above 0); of a server that serves, it only
 * loses its copy on disk.
 */
int serve_cache_publish(struct serve_cache *c, struct server *server, int wait_ms);
/* After server_stop. */
void serve_cache_close(struct serve_cache *c);

#endif
