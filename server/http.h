/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the room: the server's own state, one connection, one request, and who may touch what.
 *
 * Threads. The event thread is libmicrohttpd's: it runs every callback and owns a request except
 * while the worker has it. The worker (worker.c) parses and tokenizes large bodies. The watcher
 * (watch.c) keeps time and notices clients that leave. The engine's thread only wakes requests.
 *
 * Waiting. A request with nothing to do suspends its connection. Whoever has news calls
 * request_wake; the event thread looks again. `woken` is set before a resume and cleared before
 * looking, both under the request's lock, and a suspend happens only while it is clear: no wake-up
 * is lost, and no connection is resumed that was not suspended.
 *
 * Locks, in the order they nest: server.lock or server.work_lock, request.lock, libmicrohttpd's
 * own. Functions of the engine and of the cache, and those of generation.h and computation.h, which
 * call them, are called with none of them held: engine_job_release, cache_reader_close, cache_commit
 * and cache_abandon wait for callbacks in progress, which take request.lock. (The list's lock of
 * computation.h and the cache's own locks are innermost: nothing of ours is called with them held.)
 */
#ifndef SOV_SERVER_HTTP_H
#define SOV_SERVER_HTTP_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/listen.h"
#include "server/auth.h"
#include "server/computation.h"
#include "server/federation.h"
#include "server/generation.h"
#include "server/metrics.h"
#include "server/query_reply.h"
#include "server/server.h"

enum {
    HTTP_ID_MAX = 32,
    HTTP_WORKER_BYTES_MIN =
        64 << 10, /* larger bodies are parsed by the worker, not by the event thread */
    HTTP_DISCARD_BYTES_MAX =
        256 << 20,        /* of a refused chunked body, read and thrown away to answer in order */
    HTTP_LINGER_MAX = 64, /* connections kept to read the rest of a body that was refused */
    HTTP_LINGER_MS = 10000,
    HTTP_HEADER_GRACE_MS =
        10000, /* at most, to finish headers begun just before the idle timeout */
};

enum conn_phase {
    CONN_IDLE,      /* between requests, or receiving headers */
    CONN_RECEIVING, /* headers are here, the body is not */
    CONN_ANSWERING,
};

struct request;

/* One TCP connection, from accept to just before close. In server.conns, guarded by server.lock. */
struct conn {
    struct conn *next, *previous;
    int fd;
    enum conn_phase phase;
    int64_t phase_since_ns;
    struct request *request; /* the one in progress */
    bool watched;            /* the watcher's epoll set has fd */
    uint64_t watch_tag;      /* under this number */
    bool timed_out;          /* shut down by the watcher */
};

/* A refused connection whose client still sends: read to the end so that it can read our answer. */
struct lingering {
    int fd; /* -1: free */
    int64_t deadline_ns;
};

struct request {
    struct server *server;
    struct conn *conn;
    struct MHD_Connection *mhd;
    int64_t started_ns;  /* headers complete */
    int64_t received_ns; /* body complete */
    enum server_route route;
    char id[HTTP_ID_MAX];
    char path[128]; /* for the access log, cut */
    char method[16];

    bool judged;         /* by its headers */
    bool watched;        /* for its client leaving */
    bool answered_early; /* with part of the body unread */
    bool refused;        /* refusal is the answer, whatever else comes */
    bool generation_over;
    bool deadline_watched;
    struct api_cache wanted_cache; /* by headers */
    unsigned char tenant[GENERATION_TENANT_BYTES];
    size_t tenant_length;
    /* Apart, because few are refused and all are cleared; NULL: there was no memory for it. */
    struct api_error *refusal;
    struct strbuf body;
    size_t discarded;

    pthread_mutex_t lock;
    bool suspended;
    bool woken;
    bool with_worker; /* server.work_lock guards it */
    atomic_bool gone; /* the client left */
    atomic_bool keepalive_due;
    atomic_bool streaming;
    atomic_int_fast64_t last_write_ns;
    int64_t wake_at_ns; /* 0: never; server.lock guards it */
    struct request *work_next;

    struct generation *generation;
    struct query_reply *query; /* one of the two, or neither */
    struct federation_commit *commit;
    uint64_t from; /* of a list: the first sequence, and how many patterns */
    int limit;
    struct strbuf out; /* a stream's bytes not yet sent, or a whole answer */
    size_t out_sent;
    uint64_t bytes_sent;
    int status;
};

struct server {
    struct server_options options;
    struct projector projector; /* options.projector points here */
    char *cors_origin;
    char *api_key_file;
    struct listen_socket listen;
    struct MHD_Daemon *daemon;
    struct auth *auth; /* NULL: no keys */
    struct metrics metrics;
    struct server_model model_storage;
    char *model_name;
    char *model_isa;
    int64_t model_created_s;
    _Atomic(const struct server_model *) model; /* NULL while loading */
    struct generation_cache cache_storage;
    bool cache_given;
    _Atomic(const struct generation_cache *) cache;    /* NULL: nothing is cached (yet) */
    unsigned char tenant_key[GENERATION_TENANT_BYTES]; /* tenants are digests under it */
    struct computations computations;
    struct body_memo memo;                 /* the event thread's */
    _Atomic(struct fed_node *) federation; /* NULL: there is none (yet) */
    struct federation_log *federation_log; /* the worker's */
    atomic_size_t bodies_bytes;
    atomic_int progress_permille;
    atomic_bool draining;  /* no new work */
    atomic_bool hard_stop; /* what runs is ended */

    pthread_mutex_t lock;
    pthread_cond_t idle; /* answering became 0 */
    struct conn *conns;
    uint64_t watch_count; /* of all connections ever watched */
    int answering;        /* requests fully received and not yet completed */
    bool stopped;         /* the watcher is to end */
    struct lingering lingers[HTTP_LINGER_MAX];

    pthread_mutex_t work_lock;
    pthread_cond_t work_ready;
    pthread_cond_t work_done;
    struct request *work_head, *work_tail;
    bool work_stop;

    bool watcher_started;
    bool worker_started;
    int watch_epoll;
    int watch_wake; /* eventfd */
    pthread_t watcher;
    pthread_t worker;
};

/* http.c: libmicrohttpd's callbacks. */
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_size, void **context);
void http_on_completed(void *cls, struct MHD_Connection *mhd, void **context,
                       enum MHD_RequestTerminationCode code);
void http_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                        enum MHD_ConnectionNotificationCode code);

/* request.c: a request from its body to its answer. */
struct request *request_create(struct server *server, struct MHD_Connection *mhd,
                               struct conn *conn);
void request_free(struct request *r);
/* Marks the request as refused; the first refusal stays. */
void request_refuse(struct request *r, const struct api_error *err);
enum MHD_Result request_respond_refused(struct request *r);
/* Event thread: from now on it is noticed when the client leaves. */
void request_watch(struct request *r);
/* Called once the body is there, and again after every resume, until a response was queued. */
enum MHD_Result request_step(struct request *r);
/*
 * Parses, looks up, tokenizes and submits; on the event thread or the worker. False: nothing was
 * done, because an answer that is still coming back from disk would have to be waited for, and this
 * thread may not.
 */
bool request_prepare(struct request *r, bool may_wait);
/* Any thread. */
void request_wake(struct request *r);
/* This server is no member of a federation. */
void request_no_federation(struct api_error *err);

/* respond.c: responses with the headers that all of them have. */
enum MHD_Result respond_error(struct request *r, const struct api_error *err);
/* Takes the buffer's memory. content_type NULL: JSON. */
enum MHD_Result respond_buffer(struct request *r, int status, const char *content_type,
                               struct strbuf *body);
enum MHD_Result respond_static(struct request *r, int status, const char *content_type,
                               const char *body, size_t length);
enum MHD_Result respond_stream(struct request *r, MHD_ContentReaderCallback reader);
enum MHD_Result respond_preflight(struct request *r, const char *allow);
/* For a path that does not have the method. */
enum MHD_Result respond_method_not_allowed(struct request *r, const char *allow);

/* worker.c */
enum sov_error worker_start(struct server *server, struct sov_errbuf *err);
void worker_stop(struct server *server);
void worker_push(struct request *r);
/* Waits until the worker no longer has the request. */
void worker_wait(struct request *r);

/* watch.c */
enum sov_error watch_start(struct server *server, struct sov_errbuf *err);
void watch_stop(struct server *server);
void watch_kick(struct server *server);
/* Begin and end noticing that the client leaves; server.lock is held. */
void watch_add(struct server *server, struct conn *conn);
void watch_remove(struct server *server, struct conn *conn);
/* The request is woken at this time (clock_monotonic_ns) if it is still there. Event thread. */
void watch_wake_at(struct server *server, struct request *r, int64_t at_ns);
/*
 * Keeps a duplicate of the connection's socket to read what the client still sends; server.lock is
 * held.
 */
void watch_linger(struct server *server, int fd);

/* page.c: the chat page. */
extern const char server_page[];
extern const char server_page_end[];

#endif
