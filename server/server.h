/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP face of Sovereign: the OpenAI-compatible API, /tokenize, /detokenize, /health, /metrics
 * and a small chat page at /. The server may be started before the model is loaded: until
 * server_set_ready, /health answers 503 with
 * {"status":"loading model"} and the API answers 503 with Retry-After.
 *
 * Threads: one event thread carries every connection (a waiting connection costs no thread), one
 * worker parses and tokenizes large requests, one watcher keeps time (keep-alive comments, slow
 * senders) and notices clients that left. None of them runs the model. All functions here may be
 * called from any thread, except that server_stop and server_free are called once, by one thread,
 * and not from a signal handler.
 *
 * Decisions that clients see (docs of the API):
 * - Unknown fields are ignored, as clients send new ones every month; known fields are checked
 *   strictly. Fields that ask for what we cannot do (tools, response_format other than text, images,
 *   ...) are refused by name.
 * - "model" may be any string: one model is served, and the answer says which.
 * - A request without a seed gets a random one, returned in the header x-sovereign-seed; choice i
 *   of a request uses seed + i.
 * - max_tokens defaults to what the context holds in chat, and to 16 in /v1/completions, as
 *   OpenAI's API does.
 * - The prompt of /v1/completions is encoded with the model's BOS, and special-token text in it
 *   becomes special tokens; text inside chat messages never does.
 * - A client that shuts down its sending side while it waits is taken to have left (as nginx does).
 * - With API keys, every route but / and /health asks for one.
 */
#ifndef SOV_SERVER_SERVER_H
#define SOV_SERVER_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "cache/cache.h"
#include "cache/store.h"
#include "engine/engine.h"
#include "ihsan/projector.h"
#include "model/model.h"
#include "runtime/query.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

enum {
    SERVER_BODY_BYTES_DEFAULT = 16 << 20, /* one request's body; beyond that 413 */
    SERVER_BODIES_BYTES_DEFAULT = 256
                                  << 20, /* all bodies being received together; beyond that 503 */
    SERVER_HEADER_BYTES_DEFAULT = 16 << 10, /* request line and headers; beyond that 431 (or 414) */
    SERVER_CONNECTIONS_DEFAULT = 1024,      /* further ones wait to be accepted */
    SERVER_REQUEST_TIMEOUT_MS_DEFAULT =
        60000, /* from the request's first header line to its last byte */
    SERVER_IDLE_TIMEOUT_MS_DEFAULT = 60000, /* of a connection on which nothing moves */
    SERVER_KEEPALIVE_MS_DEFAULT = 10000, /* silence in a stream before a ": keep-alive" comment */
};

struct server_options {
    const char *host; /* address or name to bind, "127.0.0.1", "::1", "0.0.0.0", "localhost" */
    int port;         /* 0: the system picks one, see server_port */
    const char *api_key_file; /* NULL: no keys. One key per line; blank lines and lines starting
                                 with # are skipped */
    const char *cors_origin;  /* "*": any web page; "none"; or origins separated by commas (others
                                 get 403) */
    bool access_log;          /* one line per request on stderr, in the format of base/log.h */
    size_t body_bytes_max;
    size_t bodies_bytes_max;
    size_t header_bytes_max;
    int connections_max;
    int request_timeout_ms;
    int idle_timeout_ms;
    int keepalive_ms;
    const struct projector *projector; /* of /v1/ihsan/project; copied; NULL: the default weights */
};
/* 127.0.0.1:8080, no keys, cors_origin "*", no access log, and the limits above. */
void server_options_default(struct server_options *options);

/* What is served; everything must outlive server_stop. Strings are copied. */
struct server_model {
    const char *name; /* the id in /v1/models and in every answer */
    struct engine *engine;
    const struct tokenizer *tokenizer;
    const struct model_config *config;
    enum chat_template chat_template;
    const char *isa; /* kern_isa_name of the kernels in use */
    /*
     * The built-in guide, which is too small for conversations and for chance: it gets the last
     * message only, and temperature 0 where a request names none.
     */
    bool guide;
    const struct query_config *query; /* of /v1/query; NULL: there are none */
};

enum {
    SERVER_DIGEST_BYTES = 32,
    /*
     * What a flight of the cache may hold: flight_bytes_max of its configuration. A request whose
     * answer might be longer is computed for itself.
     */
    SERVER_FLIGHT_BYTES_MAX = 64 << 20,
};

/* The answer cache; what is pointed to must outlive server_stop. */
struct server_cache {
    struct cache *cache;
    const struct cache_secret *secret;
    struct cache_store *store; /* for its figures; NULL: the cache is in memory only */
    unsigned char model_digest[SERVER_DIGEST_BYTES]; /* which model's answers they are */
    bool share_tenants; /* clients with different API keys get each other's answers */
};

/* The node of a federation in this process; both must outlive server_stop. */
struct fed_node;
struct server_federation {
    struct fed_node *node;
    const char *data_dir; /* whose log is read */
};

struct server;

/*
 * Binds, starts the threads and begins to answer. Options are copied. Errors: SOV_ERR_IO for an
 * address that cannot be bound (says which, and what to change when the port is in use),
 * SOV_ERR_INVALID for options out of range or a key file without keys. Logs one warning when the
 * address is reachable from other machines and no keys are set. SIGPIPE is set to ignored for the
 * process.
 */
enum sov_error server_start(const struct server_options *options, struct server **out,
                            struct sov_errbuf *err);
/* The port that was bound. */
int server_port(const struct server *server);
/*
 * "http://127.0.0.1:8080", with brackets around an IPv6 address; for people. Lives as long as the
 * server.
 */
const char *server_url(const struct server *server);

/* While loading: what /health reports as "progress", 0 to 1. */
void server_set_progress(struct server *server, double fraction);
/* Begins to serve /v1/federation; called once, at any time. Errors of reading the log. */
enum sov_error server_set_federation(struct server *server,
                                     const struct server_federation *federation,
                                     struct sov_errbuf *err);
/* Begins to serve the model; called once. SOV_ERR_NOMEM. */
enum sov_error server_set_ready(struct server *server, const struct server_model *model,
                                struct sov_errbuf *err);

/*
 * Answers from the cache from now on; called once, at any time, by the thread that calls
 * server_set_ready. Without it nothing is cached.
 */
void server_set_cache(struct server *server, const struct server_cache *cache);

/* Reads the key file again (SIGHUP). On an error the old keys stay in force. */
enum sov_error server_reload_keys(struct server *server, struct sov_errbuf *err);

/*
 * Stops listening, lets the requests in progress run for up to grace_ms, then ends the rest with an
 * error that says so (503, or an error event in a stream), and joins all threads. Afterwards no
 * engine job is held. The handle stays valid for server_free, which calls server_stop(server, 0) if
 * that was not done.
 */
void server_stop(struct server *server, int grace_ms);
void server_free(struct server *server);

#endif
