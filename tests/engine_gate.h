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
