/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pace.h"

#include <math.h>
#include <string.h>

/* Units in which the terms of a usual step are about 1, so that one doubt fits all. */
static const double PACE_NS = 1e6, PACE_ROWS = 64, PACE_POSITIONS = 65536;
/* What a step that is n steps old still weighs: PACE_MEMORY ^ n. */
static const double PACE_MEMORY = 0.97;
static const double PACE_DOUBT_FIRST = 1e4;
/* While all steps are alike the doubt about what they do not show would grow without end. */
static const double PACE_DOUBT_MAX = 1e5;
/* After the first few, a step moves the fit as if it had been at most this far from it. */
static const double PACE_SURPRISE_MAX = 0.3;
static const uint64_t PACE_STEPS_FIRST = 8;
/* So many surprises of one kind in a row are no accident. */
static const int PACE_SURPRISES = 3;
/* The part of the target that is planned for; the rest is for steps that take longer. */
static const double PACE_MARGIN = 0.9;

void pace_init(struct pace *p)
{
    memset(p, 0, sizeof *p);
    for (int i = 0; i < PACE_TERMS; i++) p->doubt[i][i] = PACE_DOUBT_FIRST;
}

static void pace_terms(int rows, double positions, double terms[PACE_TERMS])
{
    terms[0] = 1;
    terms[1] = rows / PACE_ROWS;
    terms[2] = positions / PACE_POSITIONS;
}

static double pace_sum(const struct pace *p, const double terms[PACE_TERMS])
{
    double sum = 0;
    for (int i = 0; i < PACE_TERMS; i++) sum += p->cost[i] * terms[i];
    return sum;
}

double pace_predict_ns(const struct pace *p, int rows, double positions)
{
    double terms[PACE_TERMS], sum;
    pace_terms(rows, positions, terms);
    sum = pace_sum(p, terms);
    return sum > 0 ? sum * PACE_NS : 0;
}

/* How far off a step is taken to be that is `off`, where up to `most` is nothing unusual. */
static double pace_bound_surprise(struct pace *p, double off, double most)
{
    int way = off > most ? 1 : off < -most ? -1 : 0;
    p->surprises = way != 0 && way * p->surprises >= 0 ? p->surprises + way : way;
    if (p->steps <= PACE_STEPS_FIRST || way * p->surprises >= PACE_SURPRISES) return off;
    return way != 0 ? way * most : off;
}

void pace_learn(struct pace *p, int rows, double positions, int64_t ns)
{
    double terms[PACE_TERMS], spread[PACE_TERMS], scale = PACE_MEMORY, trace = 0;
    pace_terms(rows, positions, terms);
    for (int i = 0; i < PACE_TERMS; i++) {
        spread[i] = 0;
        for (int k = 0; k < PACE_TERMS; k++) spread[i] += p->doubt[i][k] * terms[k];
        scale += spread[i] * terms[i];
        trace += p->doubt[i][i];
    }
    double expected = pace_sum(p, terms), off = (double)ns / PACE_NS - expected;
    p->steps++;
    off = pace_bound_surprise(p, off, PACE_SURPRISE_MAX * fabs(expected));
    double memory = trace < PACE_DOUBT_MAX ? PACE_MEMORY : 1;
    for (int i = 0; i < PACE_TERMS; i++) {
        p->cost[i] += spread[i] / scale * off;
        for (int k = 0; k < PACE_TERMS; k++)
            p->doubt[i][k] = (p->doubt[i][k] - spread[i] * spread[k] / scale) / memory;
    }
}

int pace_prompt_rows(struct pace *p, int rows, double positions, double depth, int rows_max,
                     int64_t target_ns)
{
    int least = rows_max < PACE_ROWS_MIN ? rows_max : PACE_ROWS_MIN;
    double spare = (double)target_ns * PACE_MARGIN - pace_predict_ns(p, rows, positions);
    double each =
        (p->cost[1] / PACE_ROWS + p->cost[2] * depth / PACE_POSITIONS) * PACE_NS; /* per row */
    /* Noise can make rows seem to cost nothing: so never many more than were just tried. */
    int most = 2 * p->rows_given + PACE_ROWS_MIN;
    if (most > rows_max) most = rows_max;
    if (p->steps < PACE_STEPS_FIRST || spare <= 0)
        most = least;
    else if (each > 0 && spare / each < most)
        most = (int)(spare / each);
    p->rows_given = most > least ? most : least;
    return p->rows_given;
}
