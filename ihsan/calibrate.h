/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calibration: for a dimension, the temperature T by which logits are to be divided so that scores
 * are the frequencies of a person's yes. T minimises the mean negative log-likelihood of the labels
 * under 1 / (1 + exp(-logit / T)); that is convex in 1 / T, so the minimum within the limits of the
 * rubric is one, and golden-section search finds it, the same on every machine (the arithmetic's
 * ln and exp64, samples in their order).
 *
 * Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Guo, Pleiss, Sun and
 * Weinberger, "On Calibration of Modern Neural Networks", 2017. Brier, "Verification of Forecasts
 * Expressed in Terms of Probability", 1950.
 */
#ifndef SOV_IHSAN_CALIBRATE_H
#define SOV_IHSAN_CALIBRATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/plot.h"
#include "ihsan/projector.h"

enum {
    CALIBRATION_BINS = 10,
    /* Of a dimension's labels of either kind; with fewer its temperature is left as it was. */
    CALIBRATION_EACH_MIN = 2,
};

struct calibration_sample {
    double logit; /* as in struct ihsan_evaluation */
    bool yes;
};

struct calibration_bin {
    int count;
    double mean;      /* of the scores in it */
    double frequency; /* of yes */
};

struct calibration {
    size_t yes, no;
    bool fitted;
    double before, after;             /* temperatures */
    double brier_before, brier_after; /* mean squared differences of score and label; 0 without */
    struct calibration_bin bins_before[CALIBRATION_BINS], bins_after[CALIBRATION_BINS];
};

/* before: the temperature of the rubric. */
void calibration_fit(const struct calibration_sample *samples, size_t count, double before,
                     struct calibration *out);
/* What calibration_fit minimises. */
double calibration_loss(const struct calibration_sample *samples, size_t count, double temperature);

/* Frequencies against scores, before and after, one panel for each dimension with labels; returns
 * how many. */
int calibration_plot(const struct calibration calibrations[IHSAN_DIMENSIONS],
                     struct plot_panel panels[IHSAN_DIMENSIONS]);

#endif
