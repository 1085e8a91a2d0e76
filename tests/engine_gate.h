/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds the engine between two passes of the model, for tests of what happens while an answer is
 * computed: it is being computed for as long as the test says, however fast the machine is.
 *
 * The program is linked with --wrap=model_forward (Makefile). Any number of programs may include
 * this, each in one file.
 */
#ifndef SOV_TESTS_ENGINE_GATE_H
#define SOV_TESTS_ENGINE_GATE_H

#include <pthread.h>

#include "engine/engine.h"
#include "model/model.h"

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;
static long gate_passes = -1; /* that may begin; -1: any number */

static inline void gate_set(long passes)
{
    pthread_mutex_lock(&gate_lock);
    gate_passes = passes;
    pthread_cond_broadcast(&gate_moved);
    pthread_mutex_unlock(&gate_lock);
}

/* From the engine's next pass but `passes` on it waits, until it may go. */
static inline void engine_hold(long passes)
{
    gate_set(passes);
}

static inline void engine_let_go(void)
{
    gate_set(-1);
}

struct gate_shutdown {
    struct engine *engine;
    int grace_ms;
};

static inline void *gate_shut_down(void *user)
{
    const struct gate_shutdown *s = user;
    engine_shutdown(s->engine, s->grace_ms);
    return NULL;
}

/*
 * engine_shutdown of an engine that is held: it goes on only after it has begun to stop. False when
 * there is no thread for it.
 */
static inline bool engine_shutdown_held(struct engine *engine, int grace_ms)
{
    static const int32_t PROMPT[1] = {1};
    struct gate_shutdown s = {engine, grace_ms};
    struct engine_request request = {
        .prompt = PROMPT,
        .prompt_count = 1,
        .max_tokens = 1,
        .sampling = sampling_params_default(),
        .top_logprobs = -1,
    };
    struct engine_job *job;
    struct sov_errbuf err;
    pthread_t thread;
    enum sov_error rc = SOV_OK;
    if (pthread_create(&thread, NULL, gate_shut_down, &s) != 0) return false;
    while (rc != SOV_ERR_SHUTDOWN) {
        rc = engine_submit(engine, &request, NULL, NULL, &job, &err);
        if (rc == SOV_OK) engine_job_release(job);
    }
    engine_let_go();
    pthread_join(thread, NULL);
    return true;
}

enum sov_error __real_model_forward(const struct model *model, struct model_workspace *ws,
                                    const struct model_row *rows, int row_count,
                                    const float **logits, struct sov_errbuf *err);
enum sov_error __wrap_model_forward(const struct model *model, struct model_workspace *ws,
                                    const struct model_row *rows, int row_count,
                                    const float **logits, struct sov_errbuf *err);
enum sov_error __wrap_model_forward(const struct model *model, struct model_workspace *ws,
                                    const struct model_row *rows, int row_count,
                                    const float **logits, struct sov_errbuf *err)
{
    pthread_mutex_lock(&gate_lock);
    while (gate_passes == 0) pthread_cond_wait(&gate_moved, &gate_lock);
    if (gate_passes > 0) gate_passes--;
    pthread_mutex_unlock(&gate_lock);
    return __real_model_forward(model, ws, rows, row_count, logits, err);
}

#endif
