/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/plot.h"

const double BENCH_QUANTILE[BENCH_QUANTILES] = {0, 25, 50, 75, 90, 95, 99, 99.9, 100};

const char *bench_unit_name(enum bench_unit unit)
{
    static const char *const NAMES[] = {"ns", "us", "ms"};
    return NAMES[unit];
}

double bench_unit_ns(enum bench_unit unit)
{
    static const double NS[] = {1, 1e3, 1e6};
    return NS[unit];
}

enum bench_unit bench_unit_fit(double ns)
{
    return ns >= 1e6 ? BENCH_MS : ns >= 1e3 ? BENCH_US : BENCH_NS;
}

enum sov_error bench_report_init(struct bench_report *report, struct sov_errbuf *err)
{
    memset(report, 0, sizeof *report);
    report->results = sov_calloc(BENCH_RESULTS_MAX, sizeof *report->results);
    report->baseline_results = sov_calloc(BENCH_RESULTS_MAX, sizeof *report->baseline_results);
    if (report->results != NULL && report->baseline_results != NULL) return SOV_OK;
    bench_report_free(report);
    return sov_fail(err, SOV_ERR_NOMEM, "no memory for the report");
}

void bench_report_free(struct bench_report *report)
{
    sov_free(report->results);
    sov_free(report->baseline_results);
    memset(report, 0, sizeof *report);
}

void bench_report_note(struct bench_report *report, const char *format, ...)
{
    if (report->note_count == BENCH_NOTES_MAX) return;
    va_list list;
    va_start(list, format);
    vsnprintf(report->notes[report->note_count++], BENCH_TEXT_MAX, format, list);
    va_end(list);
}

struct bench_result *bench_report_add(struct bench_report *report, const char *name)
{
    if (report->count == BENCH_RESULTS_MAX) return NULL;
    struct bench_result *result = &report->results[report->count++];
    memset(result, 0, sizeof *result);
    snprintf(result->name, sizeof result->name, "%s", name);
    return result;
}

const struct bench_result *bench_report_find(const struct bench_report *report, const char *name)
{
    for (int i = 0; i < report->count; i++)
        if (strcmp(report->results[i].name, name) == 0) return &report->results[i];
    return NULL;
}

enum sov_error bench_result_fill(struct bench_result *result, const struct bench_samples *samples,
                                 struct sov_errbuf *err)
{
    size_t count = samples->count;
    if (count == 0 && !samples->failed)
        return sov_fail(err, SOV_ERR_INTERNAL, "%s: nothing was measured", result->name);
    double *sorted = samples->failed ? NULL : sov_alloc(count, sizeof *sorted);
    if (sorted == NULL)
        return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for the samples", result->name);
    memcpy(sorted, samples->values, count * sizeof *sorted);
    bench_sort(sorted, count);
    result->summary = bench_summarize(sorted, count);
    for (int q = 0; q < BENCH_QUANTILES; q++)
        result->quantiles[q] = bench_percentile(sorted, count, BENCH_QUANTILE[q]);
    result->kept_count = bench_keep(samples->values, count, result->kept);
    sov_free(sorted);
    return SOV_OK;
}

void bench_result_extra(struct bench_result *result, const char *name, double value)
{
    if (result->extra_count == BENCH_EXTRAS_MAX) return;
    struct bench_extra *extra = &result->extras[result->extra_count++];
    snprintf(extra->name, sizeof extra->name, "%s", name);
    extra->value = value;
}

double bench_result_fraction(const struct bench_result *result)
{
    return result->limit_ns > 0 && result->limit_of_ns > 0 ? result->limit_ns / result->limit_of_ns
                                                           : 0;
}

/* ---- the plot ---- */

/* Where times differ by more than this, the outliers would leave no room for the others. */
static const double PLOT_LINEAR_RATIO = 4;
enum { PLOT_SAMPLES_MIN = 2 }; /* one sample has no distribution */

static void plot_line(struct plot_panel *panel, const char *name, int colour,
                      const struct bench_result *result, enum bench_unit unit)
{
    struct plot_series *series = plot_series_add(panel, name, PLOT_LINE, colour);
    for (int q = 0; q < BENCH_QUANTILES; q++) {
        series->values[q] = result->quantiles[q] / bench_unit_ns(unit);
        series->present[q] = true;
    }
}

/* A line over all percentiles: the least time that the machine allows. */
static void plot_limit(struct plot_panel *panel, const struct bench_result *result)
{
    struct plot_series *series = plot_series_add(panel, "limit of the machine", PLOT_LIMIT, 0);
    for (int q = 0; q < BENCH_QUANTILES; q++) {
        series->values[q] = result->limit_ns / bench_unit_ns(result->unit);
        series->present[q] = true;
    }
}

static void plot_panel_fill(struct plot_panel *panel, const struct bench_result *result,
                            const struct bench_result *baseline)
{
    const struct bench_summary *s = &result->summary;
    snprintf(panel->title, sizeof panel->title, "%.30s, %zu samples", result->name, s->count);
    snprintf(panel->x_label, sizeof panel->x_label, "percentile");
    snprintf(panel->y_label, sizeof panel->y_label, "%s", bench_unit_name(result->unit));
    panel->logarithmic = s->max > PLOT_LINEAR_RATIO * s->min;
    panel->categories = BENCH_QUANTILES;
    for (int q = 0; q < BENCH_QUANTILES; q++)
        snprintf(panel->labels[q], sizeof panel->labels[q], "%g", BENCH_QUANTILE[q]);
    snprintf(panel->labels[0], sizeof panel->labels[0], "min");
    snprintf(panel->labels[BENCH_QUANTILES - 1], sizeof panel->labels[0], "max");
    plot_line(panel, "this run", 0, result, result->unit);
    if (baseline != NULL) plot_line(panel, "baseline", 1, baseline, result->unit);
    /* Only where it is a time of what is a sample here. */
    if (result->limit_ns > 0 && result->limit_of_ns == s->median) plot_limit(panel, result);
}

enum sov_error bench_report_plot(const struct bench_report *report, const char *path,
                                 struct sov_errbuf *err)
{
    _Static_assert((int)BENCH_RESULTS_MAX <= (int)PLOT_PANELS_MAX,
                   "every result can have its panel");
    const struct bench_identity *id = &report->identity;
    char title[4 * BENCH_TEXT_MAX];
    int count = 0;
    struct plot_panel *panels = sov_calloc(PLOT_PANELS_MAX, sizeof *panels);
    if (panels == NULL) return sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for the image", path);
    for (int i = 0; i < report->count; i++) {
        const struct bench_result *r = &report->results[i];
        if (r->summary.count < PLOT_SAMPLES_MIN) continue;
        plot_panel_fill(&panels[count++], r, r->compared ? &report->baseline_results[i] : NULL);
    }
    snprintf(title, sizeof title, "sovereign bench: how long an operation takes%s%s",
             id->model[0] != '\0' ? ", " : "", id->model);
    enum sov_error rc = plot_write(path, title, panels, count, err);
    sov_free(panels);
    return rc;
}
