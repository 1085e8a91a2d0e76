/* SPDX-License-Identifier: Apache-2.0 */
#include "ihsan/calibrate.h"

#include <stdio.h>
#include <string.h>

#include "ihsan/evaluator.h"
#include "kernels/vec.h"

/* Each of them takes the bracket to 0.618 of its length: from ln 10^4 to 10^-12 of it. */
enum { CALIBRATION_STEPS = 64 };
#define CALIBRATION_GOLDEN 0.6180339887498949

/* ln(1 + exp(-x)) */
static double calibration_softplus(double x)
{
    return x >= 0 ? vec_ln(1.0 + vec_exp64(-x)) : vec_ln(1.0 + vec_exp64(x)) - x;
}

double calibration_loss(const struct calibration_sample *samples, size_t count, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double z = samples[i].logit / temperature;
        sum += calibration_softplus(samples[i].yes ? z : -z);
    }
    return count > 0 ? sum / (double)count : 0;
}

static double calibration_search(const struct calibration_sample *samples, size_t count)
{
    double low = vec_ln(RUBRIC_TEMPERATURE_MIN), high = vec_ln(RUBRIC_TEMPERATURE_MAX);
    double a = high - CALIBRATION_GOLDEN * (high - low);
    double b = low + CALIBRATION_GOLDEN * (high - low);
    double loss_a = calibration_loss(samples, count, vec_exp64(a));
    double loss_b = calibration_loss(samples, count, vec_exp64(b));
    for (int i = 0; i < CALIBRATION_STEPS; i++) {
        if (loss_a <= loss_b) {
            high = b;
            b = a;
            loss_b = loss_a;
            a = high - CALIBRATION_GOLDEN * (high - low);
            loss_a = calibration_loss(samples, count, vec_exp64(a));
        } else {
            low = a;
            a = b;
            loss_a = loss_b;
            b = low + CALIBRATION_GOLDEN * (high - low);
            loss_b = calibration_loss(samples, count, vec_exp64(b));
        }
    }
    double t = vec_exp64((low + high) / 2);
    /* The ends are the rubric's limits, which rounding must not pass. */
    if (t < RUBRIC_TEMPERATURE_MIN) t = RUBRIC_TEMPERATURE_MIN;
    return t > RUBRIC_TEMPERATURE_MAX ? RUBRIC_TEMPERATURE_MAX : t;
}

/* The Brier score, and the reliability of each tenth of the scores. */
static double calibration_judge(const struct calibration_sample *samples, size_t count,
                                double temperature, struct calibration_bin *bins)
{
    double brier = 0;
    memset(bins, 0, CALIBRATION_BINS * sizeof *bins);
    for (size_t i = 0; i < count; i++) {
        double p = evaluator_probability(samples[i].logit, temperature);
        double off = p - (samples[i].yes ? 1.0 : 0.0);
        int bin = (int)(p * CALIBRATION_BINS);
        if (bin == CALIBRATION_BINS) bin--;
        brier += off * off;
        bins[bin].count++;
        bins[bin].mean += p;
        bins[bin].frequency += samples[i].yes ? 1.0 : 0.0;
    }
    for (int b = 0; b < CALIBRATION_BINS; b++) {
        if (bins[b].count == 0) continue;
        bins[b].mean /= bins[b].count;
        bins[b].frequency /= bins[b].count;
    }
    return count > 0 ? brier / (double)count : 0;
}

void calibration_fit(const struct calibration_sample *samples, size_t count, double before,
                     struct calibration *out)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < count; i++) {
        out->yes += samples[i].yes;
        out->no += !samples[i].yes;
    }
    out->fitted = out->yes >= CALIBRATION_EACH_MIN && out->no >= CALIBRATION_EACH_MIN;
    out->before = before;
    out->after = out->fitted ? calibration_search(samples, count) : before;
    out->brier_before = calibration_judge(samples, count, out->before, out->bins_before);
    out->brier_after = calibration_judge(samples, count, out->after, out->bins_after);
}

static void calibration_plot_bins(struct plot_panel *panel, const char *name, int colour,
                                  const struct calibration_bin *bins)
{
    struct plot_series *s = plot_series_add(panel, name, PLOT_LINE, colour);
    for (int b = 0; b < CALIBRATION_BINS; b++) {
        s->present[b] = bins[b].count > 0;
        s->values[b] = bins[b].frequency;
    }
}

int calibration_plot(const struct calibration calibrations[IHSAN_DIMENSIONS],
                     struct plot_panel panels[IHSAN_DIMENSIONS])
{
    int count = 0;
    for (int d = 0; d < IHSAN_DIMENSIONS; d++) {
        const struct calibration *c = &calibrations[d];
        if (c->yes + c->no == 0) continue;
        struct plot_panel *panel = &panels[count++];
        memset(panel, 0, sizeof *panel);
        snprintf(panel->title, sizeof panel->title, "%s, %zu answers",
                 ihsan_dimension_name((enum ihsan_dimension)d), c->yes + c->no);
        snprintf(panel->x_label, sizeof panel->x_label, "score");
        snprintf(panel->y_label, sizeof panel->y_label, "part that people call so");
        panel->categories = CALIBRATION_BINS;
        for (int b = 0; b < CALIBRATION_BINS; b++)
            snprintf(panel->labels[b], sizeof panel->labels[b], ".%d5", b);
        calibration_plot_bins(panel, "before", 1, c->bins_before);
        calibration_plot_bins(panel, "after", 0, c->bins_after);
        struct plot_series *ideal = plot_series_add(panel, "ideal", PLOT_LIMIT, 0);
        for (int b = 0; b < CALIBRATION_BINS; b++) {
            ideal->present[b] = true;
            ideal->values[b] = (b + 0.5) / CALIBRATION_BINS;
        }
    }
    return count;
}
