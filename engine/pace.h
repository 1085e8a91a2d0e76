/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a step takes, learnt from the steps: a fixed part, a part per row and a part per
 * position that the rows attend to. From it follows how many prompt rows a step may carry beside
 * running streams that are to get a token every so often.
 *
 * The fit is recursive least squares that forgets (Haykin, "Adaptive Filter Theory", chapter 10):
 * what a step costs changes with the machine's load and with the region of sizes in use, where the
 * true cost bends. A step that took far longer than was to be expected says more about the machine
 * than about steps, so that what one step can change is bounded; several in a row are believed.
 *
 * Threads: none of its own; the engine's thread only.
 */
#ifndef SOV_ENGINE_PACE_H
#define SOV_ENGINE_PACE_H

#include <stdint.h>

enum {
    PACE_TERMS = 3,
    PACE_ROWS_MIN = 8, /* prompt rows of a step at least: prompts get on whatever the target is */
};

struct pace {
    double cost[PACE_TERMS]; /* in the units of pace.c */
    double doubt[PACE_TERMS][PACE_TERMS];
    uint64_t steps;
    int rows_given; /* prompt rows of the last answer; the next is at most about twice as many */
    int surprises;  /* in a row: above 0 steps that took longer than expected, below 0 shorter */
};

void pace_init(struct pace *p);
/* positions: the sum over the rows of the positions that each attends to. */
void pace_learn(struct pace *p, int rows, double positions, int64_t ns);
double pace_predict_ns(const struct pace *p, int rows, double positions);
/*
 * The most prompt rows, each attending to `depth` positions, that a step of `rows` and `positions`
 * can take on and still end within target_ns: PACE_ROWS_MIN to rows_max, or rows_max if less.
 */
int pace_prompt_rows(struct pace *p, int rows, double positions, double depth, int rows_max,
                     int64_t target_ns);

#endif
