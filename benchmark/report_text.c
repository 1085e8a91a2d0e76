/* SPDX-License-Identifier: Apache-2.0 */
/* The report for people. */
#include <stdio.h>
#include <string.h>

#include "benchmark/report.h"
#include "benchmark/score.h"

enum { TEXT_NUMBER_MAX = 32 };

/* A change of the CPU's speed by less is not mentioned. */
static const double BENCH_REFERENCE_SHARE = 0.03;

static const double TEXT_LIMIT_LEAST = 0.02; /* in the unit of the samples */

/* Four digits or so, whatever the size. */
static const char *text_number(double value, char out[TEXT_NUMBER_MAX])
{
    int digits = value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : 3;
    if (value >= 1e7)
        snprintf(out, TEXT_NUMBER_MAX, "%.3g", value);
    else
        snprintf(out, TEXT_NUMBER_MAX, "%.*f", digits, value);
    return out;
}

static void text_identity(const struct bench_report *report, struct strbuf *out)
{
    const struct bench_identity *id = &report->identity;
    const struct bench_limits *l = &report->limits;
    strbuf_printf(out, "sovereign %s, arithmetic version %d, %s, %d thread%s\n", id->version,
                  id->arithmetic, id->isa, id->threads, id->threads == 1 ? "" : "s");
    strbuf_printf(out, "%s, %d CPU%s, %.1f GB of memory", id->cpu, id->cpus,
                  id->cpus == 1 ? "" : "s", id->memory_mb / 1000);
    if (id->foreign_percent >= 0)
        strbuf_printf(out, "; other programs had %.1f%% of the CPUs meanwhile",
                      id->foreign_percent);
    strbuf_puts(out, "\n");
    if (id->model[0] != '\0')
        strbuf_printf(out, "model %s: %.*f million parameters, %s\n", id->model,
                      id->parameters < 1e7 ? 1 : 0, id->parameters / 1e6, id->weights);
    strbuf_printf(out, "limits: memory read at %.1f GB/s by all threads, %.1f by one;\n       ",
                  l->read_bytes_s * 1e-9, l->read_one_bytes_s * 1e-9);
    if (l->weights_bytes_s > l->read_bytes_s)
        strbuf_printf(out, " the model's weights, in the caches, at %.1f;",
                      l->weights_bytes_s * 1e-9);
    if (l->dot_ops_s > 0)
        strbuf_printf(out, " int8 dot products at %.3f TOPS;", l->dot_ops_s * 1e-12);
    strbuf_printf(out,
                  "\n        TCP round trip within one CPU in %.1f us, %.1f after a pause; between "
                  "two in %.1f\n",
                  l->loopback_ns * 1e-3, l->loopback_idle_ns * 1e-3, l->loopback_apart_ns * 1e-3);
}

static void text_header(const char *section, struct strbuf *out)
{
    static const char *const COLUMNS[] = {"mean", "median", "p95", "p99", "min", "max", "stddev"};
    strbuf_printf(out, "\n%-20s %6s", section, "n");
    for (size_t i = 0; i < sizeof COLUMNS / sizeof *COLUMNS; i++)
        strbuf_printf(out, " %7s", COLUMNS[i]);
    strbuf_printf(out, "    %8s %5s %6s\n", "QPS", "CPU %", "RSS MB");
}

static void text_change(const struct bench_result *r, struct strbuf *out)
{
    const struct bench_change *c = &r->change;
    if (r->other_workload)
        strbuf_puts(out, "    baseline: measured something else under this name\n");
    if (!r->compared) return;
    char before[TEXT_NUMBER_MAX];
    text_number(r->baseline_median / bench_unit_ns(r->unit), before);
    strbuf_printf(out, "    median %s %s before", before, bench_unit_name(r->unit));
    if (c->verdict != BENCH_UNKNOWN)
        strbuf_printf(out, ", %+.1f%% (95%%: %+.1f to %+.1f)", 100 * c->change, 100 * c->low,
                      100 * c->high);
    if (r->slower > 1 + BENCH_REFERENCE_SHARE ||
        (r->slower > 0 && r->slower < 1 - BENCH_REFERENCE_SHARE))
        strbuf_printf(out, ", the CPU at %.0f%% of its speed then", 100 / r->slower);
    strbuf_printf(out, ": %s\n", bench_verdict_name(c->verdict));
}

static void text_result(const struct bench_result *r, struct strbuf *out)
{
    const struct bench_summary *s = &r->summary;
    const double values[] = {s->mean, s->median, s->p95, s->p99, s->min, s->max, s->stddev};
    char number[TEXT_NUMBER_MAX];
    strbuf_printf(out, "%-20s %6zu", r->name, s->count);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        strbuf_printf(out, " %7s", text_number(values[i] / bench_unit_ns(r->unit), number));
    strbuf_printf(out, " %s %8s", bench_unit_name(r->unit), text_number(r->per_second, number));
    strbuf_printf(out, " %5.0f %6.0f\n", r->cpu_percent, r->resident_mb);
    strbuf_printf(out, "    %s\n", r->what);
    for (int i = 0; i < r->extra_count; i++)
        strbuf_printf(out, "%s%s %s", i == 0 ? "    " : ", ", r->extras[i].name,
                      text_number(r->extras[i].value, number));
    if (r->extra_count > 0) strbuf_puts(out, "\n");
    if (r->limit_ns > 0) {
        /* A share of what is a sample may be so much shorter that nothing would be seen of it. */
        bool seen = r->limit_ns >= TEXT_LIMIT_LEAST * bench_unit_ns(r->unit);
        enum bench_unit unit = seen ? r->unit : bench_unit_fit(r->limit_ns);
        strbuf_printf(out, "    %.0f%% of the limit, %s %s: %s\n", 100 * bench_result_fraction(r),
                      text_number(r->limit_ns / bench_unit_ns(unit), number), bench_unit_name(unit),
                      r->limit_what);
    }
    text_change(r, out);
}

static void text_results(const struct bench_report *report, struct strbuf *out)
{
    char section[BENCH_NAME_MAX] = "";
    for (int i = 0; i < report->count; i++) {
        const struct bench_result *r = &report->results[i];
        int length = (int)strcspn(r->name, ".");
        if (strncmp(section, r->name, (size_t)length) != 0 || section[length] != '\0') {
            snprintf(section, sizeof section, "%.*s", length, r->name);
            text_header(section, out);
        }
        text_result(r, out);
    }
}

static void text_metric(const struct bench_report *report, int m, struct strbuf *out)
{
    const struct bench_metric_row *row = &BENCH_METRIC_ROW[m];
    const struct bench_measured *ours = &report->metrics[m];
    char before[TEXT_NUMBER_MAX + 8], after[TEXT_NUMBER_MAX + 8], mine[TEXT_NUMBER_MAX + 8],
        number[TEXT_NUMBER_MAX];
    snprintf(before, sizeof before, "%g %s", row->before, row->unit);
    snprintf(after, sizeof after, "%g %s", row->after, row->unit);
    if (!ours->there) {
        strbuf_printf(out, "%-22s %9s %9s %13s %9s\n", row->name, before, after, "-", "-");
        strbuf_printf(out, "    not measured (%s)\n", row->section);
        return;
    }
    snprintf(mine, sizeof mine, "%s %s", text_number(ours->value, number), row->unit);
    strbuf_printf(out, "%-22s %9s %9s %13s %9.1f\n", row->name, before, after, mine,
                  bench_points((enum bench_metric)m, ours->value));
    if (ours->fraction > 0)
        strbuf_printf(out, "    %.*f%% of the limit, %s %s: %s\n", ours->fraction < 0.1 ? 1 : 0,
                      100 * ours->fraction, text_number(ours->limit, number), row->unit,
                      ours->limit_what);
}

static void text_seed(const struct bench_report *report, struct strbuf *out)
{
    struct bench_score score = bench_score_of(report->metrics);
    char text[TEXT_NUMBER_MAX];
    strbuf_printf(out, "\n%-22s %9s %9s %13s %9s\n", "the seed's table", "before", "after", "ours",
                  "points");
    for (int m = 0; m < BENCH_METRICS; m++) text_metric(report, m, out);
    if (score.measured > 0)
        snprintf(text, sizeof text, "%.1f/100", score.score);
    else
        snprintf(text, sizeof text, "-");
    strbuf_printf(out, "%-22s %9s %9s %13s\n", "PERFORMANCE SCORE", "81/100", "90/100", text);
    if (score.measured > 0 && score.measured < BENCH_METRICS)
        strbuf_printf(out, "    of %d metric%s; with 0 points for the %d not measured: %.1f\n",
                      score.measured, score.measured == 1 ? "" : "s",
                      BENCH_METRICS - score.measured, score.pessimistic);
    strbuf_printf(out, "    points: %s;\n    the score is their mean over what was measured\n",
                  BENCH_SCORE_FORMULA);
}

void bench_report_text(const struct bench_report *report, struct strbuf *out)
{
    text_identity(report, out);
    if (report->baseline[0] != '\0') strbuf_printf(out, "baseline: %s\n", report->baseline);
    for (int i = 0; i < report->difference_count; i++)
        strbuf_printf(out, "  warning: %s\n", report->differences[i]);
    text_results(report, out);
    for (int i = 0; i < report->note_count; i++)
        strbuf_printf(out, "%s%s\n", i == 0 ? "\n" : "", report->notes[i]);
    text_seed(report, out);
}
