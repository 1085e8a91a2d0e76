/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binds the address first, so that a port in use is known at once and /health can say that the
 * model is loading; then loads, serves, and waits for a signal. SIGINT and SIGTERM stop accepting
 * and let what is running finish; a second one ends the process where it stands. SIGHUP reads the
 * API keys again.
 */
#include <errno.h>
#include <limits.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/query_setup.h"
#include "cli/runtime_load.h"
#include "cli/serve_cache.h"
#include "cli/text.h"
#include "federation/control.h"
#include "server/server.h"

enum {
    SERVE_TIMEOUT_S_MAX = 86400,
    SERVE_CONNECTIONS_MAX = 65536,
    SERVE_TPOT_MS_MAX = 100000,
    SERVE_GRACE_S_DEFAULT = 30,    /* for the answers in progress when the server is told to stop */
    SERVE_HEADER_BYTES_MIN = 1024, /* what server_start accepts */
    /* A model whose digest is nearly there is waited for, so that its first request is cached. */
    SERVE_DIGEST_WAIT_MS = 1000,
    SERVE_DIGEST_LOOK_MS = 100,
};

struct serve {
    struct cli_runtime_flags flags;
    struct server_options options;
    struct server *server;
    struct cli_query_setup queries;
    struct identity *identity; /* with --data-dir */
    const char *model_name;
    struct serve_cache cache;
    const char *federation; /* federation.json */
    struct fed_config federation_config;
    struct fed_node *node;
    struct control *control;
    const char *log_level;
    const char *log_format;
    int request_timeout_s;
    int idle_timeout_s;
    int keepalive_s;
    int grace_s;
};

/* Signal handlers reach only these. */
static sem_t serve_wake;
static volatile sig_atomic_t serve_loading;
static volatile sig_atomic_t serve_stops;
static volatile sig_atomic_t serve_reloads;

static void serve_on_stop(int signal_number)
{
    (void)signal_number;
    /* While loading there is nobody to finish for, and the second signal means it. */
    if (serve_loading || serve_stops > 0) _exit(CLI_INTERRUPTED);
    serve_stops = 1;
    sem_post(&serve_wake);
}

static void serve_on_hangup(int signal_number)
{
    (void)signal_number;
    serve_reloads = 1;
    sem_post(&serve_wake);
}

static int serve_catch_signals(const struct serve *s)
{
    struct sigaction stop = {.sa_handler = serve_on_stop, .sa_flags = SA_RESTART};
    struct sigaction hangup = {.sa_handler = serve_on_hangup, .sa_flags = SA_RESTART};
    sigemptyset(&stop.sa_mask);
    sigemptyset(&hangup.sa_mask);
    serve_loading = 1;
    if (sem_init(&serve_wake, 0, 0) != 0 || sigaction(SIGINT, &stop, NULL) != 0 ||
        sigaction(SIGTERM, &stop, NULL) != 0) {
        return cli_error("signals cannot be caught (%s)", strerror(errno));
    }
    if (s->options.api_key_file != NULL && sigaction(SIGHUP, &hangup, NULL) != 0) {
        return cli_error("signals cannot be caught (%s)", strerror(errno));
    }
    return CLI_OK;
}

/* The node's key, and the folder for it. */
static int serve_open_identity(struct serve *s)
{
    struct sov_errbuf err = {""};
    enum sov_error rc = identity_open(s->cache.data_dir, &s->identity, &err);
    return rc == SOV_OK ? CLI_OK : cli_error("--data-dir %s", err.message);
}

static int serve_check_log(const struct serve *s)
{
    static const char *const LEVELS[] = {"error", "warn", "info", "debug"};
    int level = -1;
    for (int i = 0; i < 4; i++) {
        if (strcmp(s->log_level, LEVELS[i]) == 0) level = i;
    }
    if (level < 0) {
        return cli_usage_error("serve", "--log-level %s: must be error, warn, info or debug",
                               s->log_level);
    }
    bool json = strcmp(s->log_format, "json") == 0;
    if (!json && strcmp(s->log_format, "text") != 0) {
        return cli_usage_error("serve", "--log-format %s: must be text or json", s->log_format);
    }
    log_configure((enum log_level)level, json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
    return CLI_OK;
}

static void serve_progress(void *user, double fraction)
{
    server_set_progress(user, fraction);
}

static int serve_publish(struct serve *s, struct cli_runtime *rt)
{
    struct sov_errbuf err = {{0}};
    struct server_model model = {
        .name = s->model_name != NULL ? s->model_name : rt->name,
        .engine = rt->engine,
        .tokenizer = rt->tokenizer,
        .config = model_config(rt->model),
        .chat_template = rt->chat_template,
        .isa = kern_isa_name(rt->isa),
        .guide = rt->builtin,
        .query = &s->queries.config,
    };
    int status = serve_cache_publish(&s->cache, s->server, SERVE_DIGEST_WAIT_MS);
    if (status != CLI_OK) return status;
    if (server_set_ready(s->server, &model, &err) != SOV_OK) return cli_error("%s", err.message);
    cli_runtime_log_summary(rt, &s->flags);
    cli_runtime_warn_template(rt, &s->flags);
    const char *url = server_url(s->server);
    log_info("serving %s on %s (open it in a browser to chat; Ctrl-C stops)", model.name, url);
    if (log_current_format() == LOG_FORMAT_TEXT) {
        log_info(
            "  curl %s/v1/chat/completions -H 'Content-Type: application/json' \\\n%s"
            "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is Sovereign?\"}]}'",
            url, s->options.api_key_file != NULL ? "    -H 'Authorization: Bearer KEY' \\\n" : "");
    }
    return CLI_OK;
}

/* Until a signal, or as long as the cache waits for the model's digest. */
static void serve_sleep(const struct serve *s)
{
    if (!s->cache.pending) {
        while (sem_wait(&serve_wake) != 0 && errno == EINTR) continue;
        return;
    }
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += SERVE_DIGEST_LOOK_MS * 1000000l;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (sem_timedwait(&serve_wake, &until) != 0 && errno == EINTR) continue;
}

static int serve_wait(struct serve *s)
{
    while (!serve_stops) {
        serve_sleep(s);
        int status = serve_cache_publish(&s->cache, s->server, 0);
        if (status != CLI_OK) return status;
        if (!serve_reloads) continue;
        serve_reloads = 0;
        struct sov_errbuf err = {{0}};
        if (server_reload_keys(s->server, &err) == SOV_OK) {
            log_info("API keys read again from %s", s->options.api_key_file);
        } else {
            log_error("API keys stay as they were: %s", err.message);
        }
    }
    return CLI_OK;
}

/* The node of a federation, in the data directory that the server has locked. */
static int serve_open_federation(struct serve *s)
{
    struct sov_errbuf err = {""};
    if (s->federation == NULL) return CLI_OK;
    struct fed_node_options options = {.config = &s->federation_config, .dir = s->cache.dir};
    struct server_federation shared = {.data_dir = s->cache.data_dir};
    enum sov_error rc = fed_node_create(&options, &s->node, &err);
    if (rc == SOV_OK) rc = control_open(s->node, s->cache.data_dir, &s->control, &err);
    if (rc == SOV_OK) rc = fed_node_start(s->node, &err);
    shared.node = s->node;
    if (rc == SOV_OK) rc = server_set_federation(s->server, &shared, &err);
    return rc == SOV_OK ? CLI_OK : cli_error("--federation: %s", err.message);
}

/* After the server: requests of its clients end with the node. */
static void serve_close_federation(struct serve *s)
{
    if (s->node == NULL) return;
    fed_node_join(s->node);
    control_close(s->control);
    fed_node_free(s->node);
}

static int serve_check_federation(struct serve *s)
{
    struct sov_errbuf err = {""};
    if (s->federation == NULL) return CLI_OK;
    if (s->cache.data_dir == NULL)
        return cli_usage_error("serve", "--federation needs --data-dir, where the node's key is");
    if (fed_config_load(s->federation, &s->federation_config, &err) != SOV_OK)
        return cli_error("--federation %s", err.message);
    return CLI_OK;
}

static int serve_run(struct serve *s, struct cli_runtime *rt)
{
    struct sov_errbuf err = {{0}};
    int status = serve_catch_signals(s);
    if (status != CLI_OK) return status;
    if (server_start(&s->options, &s->server, &err) != SOV_OK) return cli_error("%s", err.message);
    s->flags.progress = serve_progress;
    s->flags.progress_user = s->server;
    status = cli_runtime_open(rt, &s->flags);
    if (status == CLI_OK) status = serve_cache_open(&s->cache, s->flags.model);
    if (status == CLI_OK) status = serve_open_federation(s);
    if (status == CLI_OK) status = cli_runtime_load(rt, &s->flags);
    if (status == CLI_OK)
        status = cli_query_setup_open(&s->queries, rt, s->identity, s->cache.digest);
    serve_loading = 0;
    if (status == CLI_OK) status = serve_publish(s, rt);
    if (status == CLI_OK) {
        status = serve_wait(s);
        log_info(
            "stopping: answers in progress have %d s to finish (a second Ctrl-C does not wait)",
            s->grace_s);
        server_stop(s->server, s->grace_s * 1000);
        engine_shutdown(rt->engine, 0);
    }
    server_free(s->server);
    serve_close_federation(s);
    serve_cache_close(&s->cache);
    if (status == CLI_OK) log_info("stopped");
    return status;
}

static void serve_declare(struct args *args, struct serve *s)
{
    args_init(args, "serve", "[--model FILE] [--host H] [--port P] [flags]",
              "Serves a model over HTTP by the API of OpenAI: /v1/chat/completions, "
              "/v1/completions, /v1/query, /v1/models, and "
              "/tokenize, /detokenize, /health, /metrics, and a page to chat on at /.");
    cli_runtime_flags_add_model(args, &s->flags);
    args_text(args, "--model-name", "NAME", &s->model_name,
              "The model's id in the API. Default: its name in the file.");
    cli_runtime_flags_add_template(args, &s->flags);
    args_text(args, "--data-dir", "DIR", &s->cache.data_dir,
              "Folder for what is to outlive the process: the answer cache, and the node's key, "
              "which signs receipts and is made at the first start. Created if absent. One server "
              "at a time uses it.");
    args_heading(args, "Network");
    args_text(args, "--host", "H", &s->options.host,
              "Address to listen on. Default 127.0.0.1: this machine only. 0.0.0.0: every machine "
              "that reaches it.");
    args_int(args, "--port", "P", &s->options.port, 0, 65535,
             "Port to listen on; 0 picks a free one. Default 8080.");
    args_text(args, "--api-key-file", "FILE", &s->options.api_key_file,
              "Ask for one of the keys in this file, one per line. Read again on SIGHUP.");
    args_text(args, "--cors-origin", "LIST", &s->options.cors_origin,
              "Web pages that may use the API from a browser: *, none, or origins separated by "
              "commas. Default *.");
    args_int(args, "--max-connections", "N", &s->options.connections_max, 1, SERVE_CONNECTIONS_MAX,
             "Connections open at once; further ones wait. Default 1024.");
    args_bytes(args, "--max-body", "SIZE", &s->options.body_bytes_max, 1,
               "Largest body of a request. Default 16MiB.");
    args_bytes(args, "--max-bodies", "SIZE", &s->options.bodies_bytes_max, 1,
               "Most that all bodies being received may take together. Default 256MiB.");
    args_bytes(args, "--max-header", "SIZE", &s->options.header_bytes_max, SERVE_HEADER_BYTES_MIN,
               "Largest request line and headers. Default 32KiB.");
    args_int(args, "--request-timeout", "S", &s->request_timeout_s, 1, SERVE_TIMEOUT_S_MAX,
             "Seconds a client has to send its whole request. Default 60.");
    args_int(args, "--idle-timeout", "S", &s->idle_timeout_s, 1, SERVE_TIMEOUT_S_MAX,
             "Seconds before a connection on which nothing moves is closed. Default 60.");
    args_int(args, "--stream-keepalive", "S", &s->keepalive_s, 1, SERVE_TIMEOUT_S_MAX,
             "Seconds of silence in a stream before a comment keeps it open. Default 10.");
    args_heading(args, "Computing");
    cli_runtime_flags_add_engine(args, &s->flags);
    cli_runtime_flags_add_parallel(args, &s->flags);
    args_int(args, "--queue", "N", &s->flags.queue, 1, ENGINE_QUEUE_MAX,
             "Requests that may wait; beyond them clients get 429. Default 512.");
    args_int(args, "--tpot-target-ms", "N", &s->flags.tpot_target_ms, 0, SERVE_TPOT_MS_MAX,
             "Milliseconds between the tokens of a running answer that new prompts must leave it: "
             "they are read in smaller pieces. Default 0: pieces of --prefill-chunk.");
    args_switch(args, "--no-prefix-reuse", &s->flags.no_prefix_reuse,
                "Compute equal beginnings of prompts every time. The answers do not depend on it.");
    serve_cache_declare(args, &s->cache);
    args_heading(args, "Queries");
    cli_query_setup_add(args, &s->queries);
    args_switch(args, "--gate-all", &s->queries.gate_all,
                "The gate judges chats and completions, too, whether they ask for scores or not.");
    args_heading(args, "Federation");
    args_text(
        args, "--federation", "FILE", &s->federation,
        "Be the member of the federation that this federation.json describes and whose key is in "
        "--data-dir, too: /v1/federation.");
    args_heading(args, "Running");
    args_text(args, "--log-level", "LEVEL", &s->log_level,
              "error, warn, info or debug. Default info.");
    args_text(args, "--log-format", "FORMAT", &s->log_format,
              "text or json (one object per line). Default text.");
    args_switch(args, "--access-log", &s->options.access_log, "Log one line per request.");
    args_int(
        args, "--shutdown-grace", "S", &s->grace_s, 0, SERVE_TIMEOUT_S_MAX,
        "Seconds that answers in progress have to finish after SIGINT or SIGTERM. Default 30.");
    args->examples =
        "  sovereign serve --model llama-3.2-1b-q8_0.gguf\n"
        "  sovereign serve --model m.gguf --host 0.0.0.0 --api-key-file keys.txt --access-log\n"
        "  sovereign serve --model m.gguf --parallel 32 --ctx 2048 --kv-memory 2G\n";
}

int cmd_serve(int argc, char **argv)
{
    struct serve s = {
        .log_level = "info",
        .log_format = "text",
        .request_timeout_s = SERVER_REQUEST_TIMEOUT_MS_DEFAULT / 1000,
        .idle_timeout_s = SERVER_IDLE_TIMEOUT_MS_DEFAULT / 1000,
        .keepalive_s = SERVER_KEEPALIVE_MS_DEFAULT / 1000,
        .grace_s = SERVE_GRACE_S_DEFAULT,
    };
    struct cli_runtime rt;
    struct args args;
    int status = CLI_OK;
    cli_runtime_flags_init(&s.flags, CLI_PARALLEL_DEFAULT);
    server_options_default(&s.options);
    serve_cache_init(&s.cache);
    cli_query_setup_init(&s.queries);
    serve_declare(&args, &s);
    if (!args_parse(&args, argc, argv, &status)) return status;
    s.options.request_timeout_ms = s.request_timeout_s * 1000;
    s.options.idle_timeout_ms = s.idle_timeout_s * 1000;
    s.options.keepalive_ms = s.keepalive_s * 1000;
    status = serve_check_log(&s);
    if (status == CLI_OK) status = serve_cache_check(&s.cache);
    if (status == CLI_OK) status = serve_check_federation(&s);
    if (status != CLI_OK) return status;
    status = cli_runtime_prepare(&rt, &s.flags, "serve");
    if (status == CLI_OK) status = cli_query_setup_prepare(&s.queries, "serve", rt.isa);
    s.options.projector = &s.queries.config.projector;
    if (status == CLI_OK && s.cache.data_dir != NULL) status = serve_open_identity(&s);
    if (status == CLI_OK) status = serve_run(&s, &rt);
    cli_query_setup_close(&s.queries);
    cli_runtime_close(&rt);
    identity_close(s.identity);
    return status;
}
