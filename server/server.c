/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting and stopping. Stopping has an order: first no new connections and no new work; then the
 * grace for what runs; then the worker is joined, every waiting request is woken and ends with an
 * error (none suspends again), since libmicrohttpd may only be stopped when nothing is suspended;
 * last the event thread and the watcher.
 */
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/http.h"

enum {
    SERVER_CONNECTIONS_MAX = 65536,
    SERVER_HEADER_BYTES_MIN = 1024,
    /*
     * Of a connection's memory, for the response's headers and chunks. All of that memory is cleared
     * with every request: it is no larger than it has to be.
     */
    SERVER_RESPONSE_BYTES = 4 << 10,
    SERVER_SPARE_FDS = 128, /* for everything that is not a connection */
    SERVER_FLUSH_MS = 2000, /* for the last errors to be sent */
};

void server_options_default(struct server_options *options)
{
    *options = (struct server_options){
        .host = "127.0.0.1",
        .port = 8080,
        .cors_origin = "*",
        .body_bytes_max = SERVER_BODY_BYTES_DEFAULT,
        .bodies_bytes_max = SERVER_BODIES_BYTES_DEFAULT,
        .header_bytes_max = SERVER_HEADER_BYTES_DEFAULT,
        .connections_max = SERVER_CONNECTIONS_DEFAULT,
        .request_timeout_ms = SERVER_REQUEST_TIMEOUT_MS_DEFAULT,
        .idle_timeout_ms = SERVER_IDLE_TIMEOUT_MS_DEFAULT,
        .keepalive_ms = SERVER_KEEPALIVE_MS_DEFAULT,
    };
}

static enum sov_error server_check_options(const struct server_options *o, struct sov_errbuf *err)
{
    if (o->connections_max < 1 || o->connections_max > SERVER_CONNECTIONS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "the number of connections must be 1 to %d, not %d",
                        SERVER_CONNECTIONS_MAX, o->connections_max);
    if (o->request_timeout_ms < 1 || o->idle_timeout_ms < 1 || o->keepalive_ms < 1)
        return sov_fail(err, SOV_ERR_INVALID, "the server's timeouts must be at least 1 ms");
    if (o->header_bytes_max < SERVER_HEADER_BYTES_MIN || o->header_bytes_max > INT32_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "the limit for headers must be at least %d bytes",
                        SERVER_HEADER_BYTES_MIN);
    if (o->body_bytes_max < 1 || o->bodies_bytes_max < o->body_bytes_max)
        return sov_fail(err, SOV_ERR_INVALID,
                        "the limit for one body must be at least 1 byte and at most that for all "
                        "bodies together");
    if (o->cors_origin == NULL || o->cors_origin[0] == '\0')
        return sov_fail(err, SOV_ERR_INVALID,
                        "the CORS origin must be '*', 'none' or a list of origins");
    return SOV_OK;
}

static void server_log_http(void *cls, const char *format, va_list args)
{
    (void)cls;
    if (!log_enabled(LOG_LEVEL_DEBUG)) return;
    char message[512];
    int n = vsnprintf(message, sizeof message, format, args);
    if (n > 0 && (size_t)n < sizeof message && message[n - 1] == '\n') message[n - 1] = '\0';
    log_debug("http: %s", message);
}

/*
 * Every connection is a descriptor; the usual soft limit of 1024 leaves no room for files and the
 * model.
 */
static void server_raise_fd_limit(int connections)
{
    struct rlimit limit;
    rlim_t want = (rlim_t)connections + SERVER_SPARE_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want) return;
    limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < want)
        log_warn("only %llu files may be open at once: fewer than %d connections will be served "
                 "(see ulimit -n)",
                 (unsigned long long)limit.rlim_cur, connections);
}

static enum sov_error server_start_daemon(struct server *server, struct sov_errbuf *err)
{
    const struct server_options *o = &server->options;
    unsigned idle_s = (unsigned)((o->idle_timeout_ms + 999) / 1000);
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG,
        0, NULL, NULL, http_on_request, server,
        /* The logger first: it is used for complaints about the options after it. */
        MHD_OPTION_EXTERNAL_LOGGER, server_log_http, NULL, MHD_OPTION_LISTEN_SOCKET,
        server->listen.fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections_max,
        MHD_OPTION_CONNECTION_TIMEOUT, idle_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        o->header_bytes_max + SERVER_RESPONSE_BYTES, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed,
        server, MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, server,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (server->daemon == NULL)
        return sov_fail(err, SOV_ERR_IO, "cannot start the HTTP server on %s", server->listen.url);
    return SOV_OK;
}

static enum sov_error server_copy_options(struct server *server,
                                          const struct server_options *options,
                                          struct sov_errbuf *err)
{
    server->options = *options;
    server->cors_origin = sov_strdup(options->cors_origin);
    server->api_key_file = options->api_key_file != NULL ? sov_strdup(options->api_key_file) : NULL;
    server->options.cors_origin = server->cors_origin;
    server->options.api_key_file = server->api_key_file;
    if (options->projector != NULL)
        server->projector = *options->projector;
    else
        projector_init(&server->projector, kern_isa_best());
    server->options.projector = &server->projector;
    if (server->cors_origin == NULL ||
        (options->api_key_file != NULL && server->api_key_file == NULL))
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the HTTP server");
    if (options->api_key_file == NULL) return SOV_OK;
    enum sov_error rc = auth_create(&server->auth, err);
    return rc == SOV_OK ? auth_load(server->auth, server->api_key_file, err) : rc;
}

static bool server_init_locks(struct server *server)
{
    pthread_condattr_t monotonic;
    if (pthread_condattr_init(&monotonic) != 0) return false;
    bool ok = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
              pthread_mutex_init(&server->lock, NULL) == 0 &&
              pthread_cond_init(&server->idle, &monotonic) == 0 &&
              pthread_mutex_init(&server->work_lock, NULL) == 0 &&
              pthread_cond_init(&server->work_ready, NULL) == 0 &&
              pthread_cond_init(&server->work_done, NULL) == 0 &&
              computations_init(&server->computations);
    pthread_condattr_destroy(&monotonic);
    return ok;
}

enum sov_error server_start(const struct server_options *options, struct server **out,
                            struct sov_errbuf *err)
{
    *out = NULL;
    enum sov_error rc = server_check_options(options, err);
    if (rc != SOV_OK) return rc;
    if (sodium_init() < 0)
        return sov_fail(err, SOV_ERR_INTERNAL, "libsodium cannot be initialised");
    struct server *server = sov_calloc(1, sizeof *server);
    if (server == NULL) return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the HTTP server");
    server->listen.fd = server->watch_epoll = server->watch_wake = -1;
    for (int i = 0; i < HTTP_LINGER_MAX; i++) server->lingers[i].fd = -1;
    metrics_init(&server->metrics);
    /* A client that leaves must be an error of write, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    server_raise_fd_limit(options->connections_max);
    sigset_t all, before;
    sigfillset(&all);
    if (!server_init_locks(server))
        rc = sov_fail(err, SOV_ERR_NOMEM, "cannot create the HTTP server's locks");
    if (rc == SOV_OK) rc = server_copy_options(server, options, err);
    struct listen_advice advice = {"with --host", "with --port"};
    if (rc == SOV_OK) rc = listen_open(options->host, options->port, advice, &server->listen, err);
    if (rc == SOV_OK) {
        /* Signals are for the thread that started us, not for ours. */
        pthread_sigmask(SIG_BLOCK, &all, &before);
        rc = watch_start(server, err);
        if (rc == SOV_OK) rc = worker_start(server, err);
        if (rc == SOV_OK) rc = server_start_daemon(server, err);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (rc != SOV_OK) {
        server_free(server);
        return rc;
    }
    if (!server->listen.loopback && server->auth == NULL)
        log_warn("%s can be reached from other machines and asks for no API key: anyone who "
                 "reaches it can use the "
                 "model. Set --api-key-file, or bind to 127.0.0.1.",
                 server->listen.url);
    *out = server;
    return SOV_OK;
}

int server_port(const struct server *server)
{
    return server->listen.port;
}

const char *server_url(const struct server *server)
{
    return server->listen.url;
}

void server_set_progress(struct server *server, double fraction)
{
    if (fraction >= 0 && fraction <= 1)
        atomic_store(&server->progress_permille, (int)(fraction * 1000));
}

/* Answers may be looked up once the model is known and the cache is. */
static void server_publish_cache(struct server *server)
{
    const struct server_model *model = atomic_load(&server->model);
    struct generation_cache *cache = &server->cache_storage;
    struct engine_stats engine;
    if (model == NULL || !server->cache_given) return;
    engine_stats_read(model->engine, &engine);
    cache->scope.kv_type = engine.kv_type;
    cache->scope.chat_template = model->chat_template;
    cache->scope.guide = model->guide;
    cache->scope.context = engine_context(model->engine);
    if (model->query != NULL)
        memcpy(cache->scope.rubric_digest, model->query->rubric_digest, MODEL_DIGEST_BYTES);
    for (int32_t i = 0; i < tokenizer_vocab_size(model->tokenizer); i++) {
        size_t length;
        tokenizer_piece(model->tokenizer, i, true, &length);
        if (length > cache->piece_bytes_max) cache->piece_bytes_max = length;
    }
    atomic_store(&server->cache, cache);
}

void server_set_cache(struct server *server, const struct server_cache *cache)
{
    static const unsigned char PURPOSE[] = "sovereign tenants of the answer cache";
    server->cache_storage.shared = *cache;
    memcpy(server->cache_storage.scope.model_digest, cache->model_digest, SERVER_DIGEST_BYTES);
    /* The secret outlives the process where answers do, and so do the tenants' names. */
    crypto_generichash(server->tenant_key, sizeof server->tenant_key, PURPOSE, sizeof PURPOSE,
                       cache->secret->bytes, crypto_generichash_KEYBYTES_MAX);
    server->computations.cache = cache->cache;
    server->cache_given = true;
    server_publish_cache(server);
}

enum sov_error server_set_federation(struct server *server,
                                     const struct server_federation *federation,
                                     struct sov_errbuf *err)
{
    enum sov_error rc = federation_log_open(federation->data_dir, &server->federation_log, err);
    if (rc == SOV_OK) atomic_store(&server->federation, federation->node);
    return rc;
}

enum sov_error server_set_ready(struct server *server, const struct server_model *model,
                                struct sov_errbuf *err)
{
    server->model_name = sov_strdup(model->name);
    server->model_isa = sov_strdup(model->isa);
    if (server->model_name == NULL || server->model_isa == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "out of memory for the model's name");
    server->model_storage = *model;
    server->model_storage.name = server->model_name;
    server->model_storage.isa = server->model_isa;
    server->model_created_s = clock_wall_ms() / 1000;
    atomic_store(&server->model, &server->model_storage);
    server_publish_cache(server);
    return SOV_OK;
}

enum sov_error server_reload_keys(struct server *server, struct sov_errbuf *err)
{
    if (server->auth == NULL)
        return sov_fail(err, SOV_ERR_INVALID, "the server was started without an API key file");
    return auth_load(server->auth, server->api_key_file, err);
}

/* Waits until no request is being answered; server.lock is held. */
static void server_wait_idle(struct server *server, int64_t limit_ms)
{
    int64_t until = clock_monotonic_ns() + limit_ms * 1000000;
    struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    while (server->answering > 0)
        if (pthread_cond_timedwait(&server->idle, &server->lock, &deadline) == ETIMEDOUT) return;
}

void server_stop(struct server *server, int grace_ms)
{
    if (server->daemon == NULL) return;
    atomic_store(&server->draining, true);
    MHD_quiesce_daemon(server->daemon);
    /* The event thread may still look at the socket, so it is not closed yet; but nobody gets in
     * any more. */
    shutdown(server->listen.fd, SHUT_RDWR);
    pthread_mutex_lock(&server->lock);
    server_wait_idle(server, grace_ms > 0 ? grace_ms : 0);
    pthread_mutex_unlock(&server->lock);
    atomic_store(&server->hard_stop, true);
    worker_stop(server);
    pthread_mutex_lock(&server->lock);
    for (struct conn *c = server->conns; c != NULL; c = c->next)
        if (c->request != NULL) request_wake(c->request);
    server_wait_idle(server, SERVER_FLUSH_MS);
    pthread_mutex_unlock(&server->lock);
    MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
    computations_drive(&server->computations);
    listen_close(&server->listen);
    watch_stop(server);
}

void server_free(struct server *server)
{
    if (server == NULL) return;
    server_stop(server, 0);
    worker_stop(server);
    watch_stop(server);
    listen_close(&server->listen);
    auth_free(server->auth);
    sov_free(server->cors_origin);
    sov_free(server->api_key_file);
    sov_free(server->model_name);
    sov_free(server->model_isa);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->idle);
    pthread_mutex_destroy(&server->work_lock);
    pthread_cond_destroy(&server->work_ready);
    pthread_cond_destroy(&server->work_done);
    computations_free(&server->computations);
    body_memo_free(&server->memo);
    federation_log_close(server->federation_log);
    sodium_memzero(server->tenant_key, sizeof server->tenant_key);
    sov_free(server);
}
