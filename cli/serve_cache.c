/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/serve_cache.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/receipt_file.h"
#include "cli/runtime_load.h"
#include "kernels/isa.h"

enum {
    SERVE_CACHE_BYTES_DEFAULT = 256 << 20,
    SERVE_CACHE_BYTES_MIN = 1 << 16,
    /* 4 KiB of the default bytes for each. */
    SERVE_CACHE_ENTRIES_DEFAULT = 65536,
    SERVE_CACHE_TTL_S_MAX = 10 * 365 * 86400,
};

void serve_cache_init(struct serve_cache *c)
{
    *c = (struct serve_cache){
        .mode = "on",
        .policy_name = "lru",
        .bytes = SERVE_CACHE_BYTES_DEFAULT,
        .entries = SERVE_CACHE_ENTRIES_DEFAULT,
    };
}

void serve_cache_declare(struct args *args, struct serve_cache *c)
{
    args_heading(args, "Answer cache");
    args_text(args, "--cache", "WORD", &c->mode,
              "on or off. Keep answers that depend on nothing but their request (temperature 0, or "
              "a seed) and "
              "give them again. Default on.");
    args_bytes(args, "--cache-bytes", "SIZE", &c->bytes, SERVE_CACHE_BYTES_MIN,
               "Memory for kept answers and their requests. Default 256MiB.");
    args_int(args, "--cache-entries", "N", &c->entries, 1, CACHE_ENTRIES_MAX,
             "Answers kept at most. Default 65536.");
    args_int(args, "--cache-ttl", "S", &c->ttl_s, 0, SERVE_CACHE_TTL_S_MAX,
             "Seconds an answer is kept; 0, the default: as long as there is room.");
    args_text(args, "--cache-policy", "NAME", &c->policy_name,
              "Which answer makes room: lru, sieve or s3fifo. Default lru.");
    args_switch(args, "--cache-share-tenants", &c->share_tenants,
                "Let clients with different API keys get each other's answers.");
}

int serve_cache_check(struct serve_cache *c)
{
    if (strcmp(c->mode, "on") != 0 && strcmp(c->mode, "off") != 0) {
        return cli_usage_error("serve", "--cache %s: must be on or off", c->mode);
    }
    if (!cache_policy_parse(c->policy_name, &c->policy)) {
        return cli_usage_error("serve", "--cache-policy %s: must be lru, sieve or s3fifo",
                               c->policy_name);
    }
    return CLI_OK;
}

static enum sov_error serve_cache_create(struct serve_cache *c, struct sov_errbuf *err)
{
    struct cache_config config = {
        .entries_max = (size_t)c->entries,
        .bytes_max = c->bytes,
        .ttl_ms = (int64_t)c->ttl_s * 1000,
        .policy = c->policy,
        .flight_bytes_max = SERVER_FLIGHT_BYTES_MAX,
    };
    enum sov_error rc =
        c->dir != NULL ? datadir_secret(c->dir, "cache.secret", &c->secret, sizeof c->secret, err)
                       : cache_secret_make(&c->secret, err);
    if (rc == SOV_OK) rc = cache_create(&config, &c->cache, err);
    c->pending = rc == SOV_OK;
    return rc;
}

int serve_cache_open(struct serve_cache *c, const char *model)
{
    struct sov_errbuf err = {{0}};
    enum sov_error rc = SOV_OK;
    if (c->data_dir != NULL) rc = datadir_open(c->data_dir, &c->dir, &err);
    if (rc != SOV_OK) return cli_error("--data-dir: %s", err.message);
    bool on = strcmp(c->mode, "off") != 0;
    if (on || c->dir != NULL) {
        int status = cli_model_digest_start(model, c->data_dir, &c->digest);
        if (status != CLI_OK) return status;
    }
    if (on) rc = serve_cache_create(c, &err);
    return rc == SOV_OK ? CLI_OK : cli_error("%s", err.message);
}

/* What is on disk belongs to one model and one arithmetic. */
static enum sov_error serve_cache_open_store(struct serve_cache *c, const unsigned char *digest,
                                             struct sov_errbuf *err)
{
    unsigned char scope[MODEL_DIGEST_BYTES + 1];
    memcpy(scope, digest, MODEL_DIGEST_BYTES);
    scope[MODEL_DIGEST_BYTES] = SOV_ARITHMETIC_VERSION;
    struct cache_store_config config = {
        .scope = scope, .scope_length = sizeof scope, .wall_ms = clock_wall_ms()};
    return cache_store_open(c->dir, &c->secret, &config, c->cache, &c->store, err);
}

int serve_cache_publish(struct serve_cache *c, struct server *server, int wait_ms)
{
    struct sov_errbuf err = {{0}};
    struct server_cache shared = {
        .cache = c->cache, .secret = &c->secret, .share_tenants = c->share_tenants};
    if (!c->pending) return CLI_OK;
    enum sov_error rc = model_digest_wait(c->digest, wait_ms, shared.model_digest, &err);
    if (rc == SOV_ERR_TIMEOUT) return CLI_OK;
    c->pending = false;
    if (rc != SOV_OK) {
        log_warn("no answers are cached: %s", err.message);
        return CLI_OK;
    }
    if (c->dir != NULL && serve_cache_open_store(c, shared.model_digest, &err) != SOV_OK) {
        if (wait_ms > 0) return cli_error("--data-dir %s: %s", c->data_dir, err.message);
        log_error("answers are kept in memory only: --data-dir %s: %s", c->data_dir, err.message);
    }
    shared.store = c->store;
    server_set_cache(server, &shared);
    char bytes[CLI_BYTES_TEXT_MAX];
    log_info("answer cache: up to %d answers, %s%s%s", c->entries,
             cli_bytes_text((double)c->bytes, bytes), c->store != NULL ? ", also in " : "",
             c->store != NULL ? c->data_dir : "");
    return CLI_OK;
}

void serve_cache_close(struct serve_cache *c)
{
    model_digest_free(c->digest);
    if (c->store != NULL) cache_store_close(c->store);
    cache_free(c->cache);
    datadir_close(c->dir);
}
