/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A federation of real processes for tests: started, killed and asked as an operator would, its logs read
 * when it is down. Time-outs are short, so that tests are.
 */
#ifndef SOV_TESTS_FEDERATION_NODES_FIXTURE_H
#define SOV_TESTS_FEDERATION_NODES_FIXTURE_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>
#include <sodium.h>

#include "base/clock.h"
#include "base/file.h"
#include "federation/control.h"
#include "federation/init.h"
#include "federation/store_message.h"

enum {
    FED_NODES = 4,
    FED_QUORUM = 3,
    FED_WAIT_S = 60,
    FED_LOOK_MS = 20,
    FED_VIEW_TIMEOUT_MS = 500,
    FED_VIEW_TIMEOUT_MS_MAX =
        4000, /* far below FED_WAIT_S: patience grows with every view that fails */
};

struct federation {
    char folder[PATH_MAX - 64];
    int port;
    struct fed_config config;
    pid_t pids[FED_NODES];
};

static inline void fed_path(const struct federation *f, int node, const char *name, char *out)
{
    snprintf(out, PATH_MAX, "%s/fed/node%d%s%s", f->folder, node, *name != '\0' ? "/" : "", name);
}

/* A port with so many free ones behind it, as far as can be known. */
static inline int fed_free_ports(int count)
{
    for (int tries = 0; tries < 1000; tries++) {
        int base = 20000 + (int)randombytes_uniform(10000), n = 0;
        for (; n < count; n++) {
            int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            struct sockaddr_in at = {.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)(base + n)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
            if (fd >= 0) close(fd);
            if (!ok) break;
        }
        if (n == count) return base;
    }
    return -1;
}

/* The node's federation.json from a configuration. */
static inline bool fed_write_config(const struct federation *f, int node,
                                    const struct fed_config *config)
{
    char path[PATH_MAX];
    struct strbuf text = {0};
    fed_path(f, node, FED_CONFIG_FILE, path);
    bool ok = fed_config_write(config, &text) &&
              file_replace(path, text.data, text.length, NULL) == SOV_OK;
    strbuf_free(&text);
    return ok;
}

static inline bool fed_make(struct federation *f, char *problem)
{
    struct sov_errbuf err = {""};
    const char *tmp = getenv("TMPDIR");
    char fed[PATH_MAX];
    *f = (struct federation){.port = 0};
    snprintf(f->folder, sizeof f->folder, "%s/nodes-XXXXXX", tmp != NULL ? tmp : "/tmp");
    bool ok = sodium_init() >= 0 && mkdtemp(f->folder) != NULL;
    if (ok) f->port = fed_free_ports(FED_NODES);
    snprintf(fed, sizeof fed, "%s/fed", f->folder);
    struct fed_init_options options = {
        .folder = fed, .nodes = FED_NODES, .host = "127.0.0.1", .base_port = (uint16_t)f->port};
    ok = ok && f->port > 0 && fed_init(&options, &f->config, &err) == SOV_OK;
    f->config.core.view_timeout_ms = FED_VIEW_TIMEOUT_MS;
    f->config.core.view_timeout_ms_max = FED_VIEW_TIMEOUT_MS_MAX;
    for (int i = 0; ok && i < FED_NODES; i++) ok = fed_write_config(f, i, &f->config);
    snprintf(problem, SOV_ERROR_MESSAGE_MAX, "%s", err.message);
    return ok;
}

/* bytes_max: of any file it writes, 0: no bound (a full disk, without one). id: NULL, or for --id. */
static inline void fed_start_as(struct federation *f, int node, size_t bytes_max, const char *id)
{
    char folder[PATH_MAX], log[PATH_MAX];
    fed_path(f, node, "", folder);
    fed_path(f, node, "log.txt", log);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd >= 0) dup2(fd, STDERR_FILENO);
        struct rlimit limit = {bytes_max, bytes_max};
        if (bytes_max > 0) {
            setrlimit(RLIMIT_FSIZE, &limit);
            signal(SIGXFSZ, SIG_IGN);
        }
        execl(getenv("SOVEREIGN"), "sovereign", "federation", "start", "--data-dir", folder,
              id != NULL ? "--id" : (char *)NULL, id, (char *)NULL);
        _exit(127);
    }
    f->pids[node] = pid;
}

static inline void fed_start(struct federation *f, int node, size_t bytes_max)
{
    fed_start_as(f, node, bytes_max, NULL);
}

/* The exit status, as waitpid gives it. */
static inline int fed_end(struct federation *f, int node, int signal_number)
{
    int status = 0;
    if (f->pids[node] <= 0) return 0;
    kill(f->pids[node], signal_number);
    waitpid(f->pids[node], &status, 0);
    f->pids[node] = 0;
    return status;
}

static inline void fed_start_all(struct federation *f)
{
    for (int i = 0; i < FED_NODES; i++) fed_start(f, i, 0);
}

static inline void fed_remove(struct federation *f)
{
    char command[PATH_MAX + 16];
    for (int i = 0; i < FED_NODES; i++) fed_end(f, i, SIGKILL);
    snprintf(command, sizeof command, "rm -rf '%s'", f->folder);
    if (getenv("FEDERATION_KEEP") == NULL && system(command) != 0)
        fprintf(stderr, "%s stays\n", f->folder);
}

/* ---- asking ---- */

static inline json_t *fed_call(const struct federation *f, int node, const char *request,
                               size_t length)
{
    char folder[PATH_MAX];
    struct control_client *client;
    struct strbuf answer = {0};
    json_t *out = NULL;
    fed_path(f, node, "", folder);
    if (control_connect(folder, &client, NULL) != SOV_OK) return NULL;
    if (control_call(client, request, length, 0, &answer, NULL) == SOV_OK)
        out = json_loadb(answer.data, answer.length, 0, NULL);
    control_disconnect(client);
    strbuf_free(&answer);
    return out;
}

struct fed_seen {
    bool there;
    long long sequence, durable, lag, view, primary, connected;
    char state[32], head[65];
};

static inline struct fed_seen fed_see(const struct federation *f, int node)
{
    struct fed_seen seen = {.there = false};
    json_t *s = fed_call(f, node, "status\n", 7), *peer;
    size_t i;
    if (s == NULL) return seen;
    seen.there = true;
    seen.sequence = json_integer_value(json_object_get(s, "sequence"));
    seen.durable = json_integer_value(json_object_get(s, "durable"));
    seen.lag = json_integer_value(json_object_get(s, "lag"));
    seen.view = json_integer_value(json_object_get(s, "view"));
    seen.primary = json_integer_value(json_object_get(s, "primary"));
    snprintf(seen.state, sizeof seen.state, "%s", json_string_value(json_object_get(s, "state")));
    snprintf(seen.head, sizeof seen.head, "%s", json_string_value(json_object_get(s, "head")));
    json_array_foreach(json_object_get(s, "peers"), i, peer) seen.connected +=
        json_is_true(json_object_get(peer, "connected"));
    json_decref(s);
    return seen;
}

/*
 * The sequence, 0 when it failed, or was not committed within that time (0: as long as it takes). id: room
 * for 65 bytes, or NULL.
 */
static inline long long fed_propose_within(const struct federation *f, int node, const char *json,
                                           int timeout_ms, char *id)
{
    struct strbuf request = {0};
    strbuf_printf(&request, "timeout %d\npropose 1\n%zu\n%s", timeout_ms, strlen(json), json);
    json_t *answer = fed_call(f, node, request.data, request.length);
    strbuf_free(&request);
    if (answer == NULL) return 0;
    long long sequence = json_integer_value(json_object_get(answer, "sequence"));
    const char *text = json_string_value(json_array_get(json_object_get(answer, "ids"), 0));
    if (id != NULL) snprintf(id, 65, "%s", text != NULL ? text : "");
    json_decref(answer);
    return sequence;
}

static inline long long fed_propose(const struct federation *f, int node, const char *json,
                                    char *id)
{
    return fed_propose_within(f, node, json, 0, id);
}

static inline void fed_pause(int milliseconds)
{
    struct timespec t = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000l};
    nanosleep(&t, NULL);
}

/* Counts how often it looked, not the time: a machine that stands still for a while takes none of it away. */
#define FED_WAIT_FOR(condition)                                                \
    do {                                                                       \
        int looks_ = FED_WAIT_S * 1000 / FED_LOOK_MS;                          \
        bool come_;                                                            \
        while (!(come_ = (condition)) && looks_-- > 0) fed_pause(FED_LOOK_MS); \
        if (!come_) fail_msg("waited in vain for: %s", #condition);            \
    } while (0)

/* Why `node` has no link to the peer. */
static inline bool fed_trouble(const struct federation *f, int node, int peer, const char *says)
{
    json_t *s = fed_call(f, node, "status\n", 7);
    const json_t *entry = json_array_get(json_object_get(s, "peers"), (size_t)peer);
    const char *trouble = json_string_value(json_object_get(entry, "trouble"));
    bool found = trouble != NULL && strstr(trouble, says) != NULL;
    json_decref(s);
    return found;
}

static inline bool fed_connected(const struct federation *f, int node, int peers)
{
    struct fed_seen seen = fed_see(f, node);
    return seen.there && seen.connected >= peers;
}

/*
 * All nodes are at the same point of the same log, and a quorum of them is in a view. One may want a later
 * view by itself, because it was slow or cut off when it lost patience: it has given its word not to vote in
 * the present one, and waits until the others come, too. Nothing makes them as long as all goes well.
 */
static inline bool fed_settled(const struct federation *f)
{
    struct fed_seen first = fed_see(f, 0);
    int normal = 0;
    if (!first.there) return false;
    for (int i = 0; i < FED_NODES; i++) {
        struct fed_seen seen = fed_see(f, i);
        bool changing = strcmp(seen.state, "view changing") == 0;
        normal += strcmp(seen.state, "normal") == 0;
        if (!seen.there || (!changing && strcmp(seen.state, "normal") != 0) ||
            seen.sequence != first.sequence || seen.durable != seen.sequence ||
            strcmp(seen.head, first.head) != 0)
            return false;
    }
    return normal >= FED_QUORUM;
}

/* ---- a log that nobody writes ---- */

/* Calls visit for each committed pattern; the number of batches, -1: the log cannot be read. */
static inline long long fed_read_log(const struct federation *f, int node,
                                     void (*visit)(void *user, uint64_t sequence,
                                                   const struct message_request *request,
                                                   const struct message_digest *id),
                                     void *user, char head[65])
{
    char folder[PATH_MAX];
    struct fed_log *log;
    struct message_scratch scratch;
    struct strbuf bytes = {0};
    uint64_t last = 0;
    unsigned char raw[FED_STORE_DIGEST_BYTES];
    fed_path(f, node, "", folder);
    if (fed_log_open(folder, &log, NULL) != SOV_OK) return -1;
    bool ok = message_scratch_init(&scratch, &f->config.core.limits, &f->config.federation, NULL) ==
                  SOV_OK &&
              fed_log_head(log, &last, raw, NULL) == SOV_OK;
    for (uint64_t s = 1; ok && s <= last; s++) {
        struct message m;
        strbuf_clear(&bytes);
        ok =
            fed_log_encode(log, s, &bytes, NULL, NULL) == SOV_OK &&
            message_decode((const uint8_t *)bytes.data, bytes.length, &scratch, &m, NULL) == SOV_OK;
        for (uint32_t r = 0; ok && r < m.batch.request_count; r++)
            for (uint32_t i = 0; i < m.batch.requests[r].pattern_count; i++)
                visit(user, s, &m.batch.requests[r],
                      &m.batch.patterns[m.batch.requests[r].pattern_first + i]);
    }
    if (ok) sodium_bin2hex(head, 65, raw, sizeof raw);
    strbuf_free(&bytes);
    message_scratch_free(&scratch);
    fed_log_close(log);
    return ok ? (long long)last : -1;
}

#endif
