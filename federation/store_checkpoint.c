/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/store_checkpoint.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct fed_checkpointer {
    struct fed_db *db; /* the thread's */
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wanted;
    enum fed_checkpoint_state state;
    bool stop;
    enum fed_db_result result;
    char problem[SOV_ERROR_MESSAGE_MAX];
};

static void *checkpoint_main(void *arg)
{
    struct fed_checkpointer *c = arg;
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        if (c->state != FED_CHECKPOINT_RUNNING) {
            pthread_cond_wait(&c->wanted, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        enum fed_db_result result = fed_db_checkpoint(c->db);
        pthread_mutex_lock(&c->lock);
        c->result = result;
        c->problem[0] = '\0';
        if (result != FED_DB_OK) snprintf(c->problem, sizeof c->problem, "%s", fed_db_error(c->db));
        c->state = FED_CHECKPOINT_DONE;
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

enum sov_error fed_checkpointer_create(const char *path, struct fed_checkpointer **out,
                                       struct sov_errbuf *err)
{
    *out = NULL;
    struct fed_checkpointer *c = sov_calloc(1, sizeof *c);
    if (c == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: out of memory", path);
    enum sov_error error = fed_db_open_again(path, &c->db, err);
    if (error != SOV_OK) {
        sov_free(c);
        return error;
    }
    if (pthread_mutex_init(&c->lock, NULL) != 0 || pthread_cond_init(&c->wanted, NULL) != 0) {
        error = sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for a lock", path);
    } else {
        int failed = pthread_create(&c->thread, NULL, checkpoint_main, c);
        if (failed != 0)
            error = sov_fail(err, SOV_ERR_IO, "%s: no thread: %s", path, strerror(failed));
    }
    if (error != SOV_OK) {
        fed_db_close(c->db);
        sov_free(c);
        return error;
    }
    *out = c;
    return SOV_OK;
}

void fed_checkpointer_free(struct fed_checkpointer *checkpointer)
{
    if (checkpointer == NULL) return;
    pthread_mutex_lock(&checkpointer->lock);
    checkpointer->stop = true;
    pthread_cond_signal(&checkpointer->wanted);
    pthread_mutex_unlock(&checkpointer->lock);
    pthread_join(checkpointer->thread, NULL);
    pthread_mutex_destroy(&checkpointer->lock);
    pthread_cond_destroy(&checkpointer->wanted);
    fed_db_close(checkpointer->db);
    sov_free(checkpointer);
}

void fed_checkpointer_start(struct fed_checkpointer *checkpointer)
{
    pthread_mutex_lock(&checkpointer->lock);
    checkpointer->state = FED_CHECKPOINT_RUNNING;
    pthread_cond_signal(&checkpointer->wanted);
    pthread_mutex_unlock(&checkpointer->lock);
}

enum fed_checkpoint_state fed_checkpointer_poll(struct fed_checkpointer *checkpointer,
                                                enum fed_db_result *result,
                                                char problem[SOV_ERROR_MESSAGE_MAX])
{
    pthread_mutex_lock(&checkpointer->lock);
    enum fed_checkpoint_state state = checkpointer->state;
    if (state == FED_CHECKPOINT_DONE) {
        *result = checkpointer->result;
        memcpy(problem, checkpointer->problem, SOV_ERROR_MESSAGE_MAX);
        checkpointer->state = FED_CHECKPOINT_IDLE;
    }
    pthread_mutex_unlock(&checkpointer->lock);
    return state;
}
