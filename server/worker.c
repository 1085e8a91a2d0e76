/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread for what would hold up the event thread: a body of megabytes takes tens of
 * milliseconds to parse and longer to tokenize. One at a time also bounds the memory that large
 * JSON trees take together. It also waits for the disk, where an answer is asked for that has not
 * come back from there since the start.
 */
#include <string.h>

#include "server/http.h"

void worker_push(struct request *r)
{
    struct server *server = r->server;
    pthread_mutex_lock(&server->work_lock);
    r->with_worker = true;
    r->work_next = NULL;
    if (server->work_tail != NULL)
        server->work_tail->work_next = r;
    else
        server->work_head = r;
    server->work_tail = r;
    pthread_cond_signal(&server->work_ready);
    pthread_mutex_unlock(&server->work_lock);
}

void worker_wait(struct request *r)
{
    struct server *server = r->server;
    pthread_mutex_lock(&server->work_lock);
    while (r->with_worker) pthread_cond_wait(&server->work_done, &server->work_lock);
    pthread_mutex_unlock(&server->work_lock);
}

static void *worker_main(void *arg)
{
    struct server *server = arg;
    pthread_mutex_lock(&server->work_lock);
    for (;;) {
        while (server->work_head == NULL && !server->work_stop)
            pthread_cond_wait(&server->work_ready, &server->work_lock);
        struct request *r = server->work_head;
        if (r == NULL) break;
        server->work_head = r->work_next;
        if (server->work_head == NULL) server->work_tail = NULL;
        pthread_mutex_unlock(&server->work_lock);

        (void)request_prepare(r, true);

        pthread_mutex_lock(&server->work_lock);
        r->with_worker = false;
        pthread_cond_broadcast(&server->work_done);
        /* Still under the lock: once it is released, the event thread may end the request. */
        request_wake(r);
    }
    pthread_mutex_unlock(&server->work_lock);
    return NULL;
}

enum sov_error worker_start(struct server *server, struct sov_errbuf *err)
{
    int rc = pthread_create(&server->worker, NULL, worker_main, server);
    if (rc != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot start the worker thread: %s", strerror(rc));
    server->worker_started = true;
    return SOV_OK;
}

void worker_stop(struct server *server)
{
    if (!server->worker_started) return;
    pthread_mutex_lock(&server->work_lock);
    server->work_stop = true;
    pthread_cond_signal(&server->work_ready);
    pthread_mutex_unlock(&server->work_lock);
    pthread_join(server->worker, NULL);
    server->worker_started = false;
}
