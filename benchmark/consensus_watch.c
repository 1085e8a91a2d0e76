/* SPDX-License-Identifier: Apache-2.0 */
/* Signals know no pointers: what they tell stands in variables of this file. */
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "benchmark/consensus.h"

enum { WATCHED = 2 };
static const int SIGNALS[WATCHED] = {SIGINT, SIGTERM};

static volatile sig_atomic_t came; /* which one; 0: none */
static struct sigaction before[WATCHED];

static void on_signal(int number)
{
    came = number;
}

void consensus_watch_begin(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};
    came = 0;
    for (int i = 0; i < WATCHED; i++) {
        /* What is ignored, as by nohup, stays so. */
        if (sigaction(SIGNALS[i], NULL, &before[i]) == 0 && before[i].sa_handler != SIG_IGN)
            (void)sigaction(SIGNALS[i], &action, NULL);
    }
}

void consensus_watch_end(void)
{
    for (int i = 0; i < WATCHED; i++) (void)sigaction(SIGNALS[i], &before[i], NULL);
    if (came != 0) (void)raise(came);
}

enum sov_error consensus_watch_check(struct sov_errbuf *err)
{
    return came == 0 ? SOV_OK : sov_fail(err, SOV_ERR_CANCELLED, "interrupted");
}
