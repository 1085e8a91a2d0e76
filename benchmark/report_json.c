/* SPDX-License-Identifier: Apache-2.0 */
/* The report as JSON (docs/bench.md). What baseline.c reads of it, it must find here. */
#include <math.h>
#include <string.h>

#include "benchmark/report.h"
#include "benchmark/score.h"

/* A member's name, behind a comma where it is not the first: neither after a brace nor a new line. */
static void json_member(struct strbuf *out, const char *name)
{
    char last = out->length > 0 ? out->data[out->length - 1] : '{';
    strbuf_printf(out, "%s\"%s\":", last == '{' || last == '\n' ? "" : ",", name);
}

static void json_new_line(struct strbuf *out)
{
    strbuf_puts(out, ",\n");
}

/* Nine digits are more than any timer has. */
static void json_number(struct strbuf *out, const char *name, double value)
{
    json_member(out, name);
    if (isfinite(value))
        strbuf_printf(out, "%.9g", value);
    else
        strbuf_puts(out, "null");
}

static void json_text(struct strbuf *out, const char *name, const char *text)
{
    json_member(out, name);
    strbuf_put_json_string(out, text, strlen(text));
}

static void json_null(struct strbuf *out, const char *name)
{
    json_member(out, name);
    strbuf_puts(out, "null");
}

/* And what is in it, then its brace. */
static void json_object_begin(struct strbuf *out, const char *name)
{
    json_member(out, name);
    strbuf_putc(out, '{');
}

static void json_texts(const char *name, const char texts[][BENCH_TEXT_MAX], int count,
                       struct strbuf *out)
{
    json_member(out, name);
    strbuf_puts(out, "[");
    for (int i = 0; i < count; i++) {
        if (i > 0) strbuf_puts(out, ",");
        strbuf_put_json_string(out, texts[i], strlen(texts[i]));
    }
    strbuf_puts(out, "]");
}

static void json_identity(const struct bench_report *report, struct strbuf *out)
{
    const struct bench_identity *id = &report->identity;
    json_text(out, "sovereign", id->version);
    json_number(out, "arithmetic_version", id->arithmetic);
    json_text(out, "time", report->time);
    json_number(out, "iterations", report->iterations);
    json_new_line(out);
    json_object_begin(out, "machine");
    json_text(out, "cpu", id->cpu);
    json_number(out, "cpus", id->cpus);
    json_number(out, "memory_mb", id->memory_mb);
    json_text(out, "isa", id->isa);
    json_number(out, "foreign_cpu_percent", id->foreign_percent >= 0 ? id->foreign_percent : NAN);
    json_number(out, "threads", id->threads);
    strbuf_puts(out, "}");
    json_new_line(out);
    if (id->model[0] == '\0') {
        json_null(out, "model");
        return;
    }
    json_object_begin(out, "model");
    json_text(out, "name", id->model);
    json_text(out, "digest", id->model_digest);
    json_text(out, "weights", id->weights);
    json_number(out, "parameters", id->parameters);
    json_number(out, "weight_bytes", id->weight_bytes);
    strbuf_puts(out, "}");
}

static void json_limits(const struct bench_limits *limits, struct strbuf *out)
{
    json_object_begin(out, "limits");
    json_number(out, "read_gb_s", limits->read_bytes_s * 1e-9);
    json_number(out, "read_one_thread_gb_s", limits->read_one_bytes_s * 1e-9);
    json_number(out, "read_weights_gb_s", limits->weights_bytes_s * 1e-9);
    json_number(out, "int8_dot_tops", limits->dot_ops_s * 1e-12);
    json_number(out, "loopback_us", limits->loopback_ns * 1e-3);
    json_number(out, "loopback_two_cpus_us", limits->loopback_apart_ns * 1e-3);
    json_number(out, "loopback_after_pause_us", limits->loopback_idle_ns * 1e-3);
    strbuf_puts(out, "}");
}

static void json_summary(const struct bench_result *r, struct strbuf *out)
{
    const struct bench_summary *s = &r->summary;
    double unit = bench_unit_ns(r->unit);
    json_number(out, "iterations", (double)s->count);
    json_text(out, "unit", bench_unit_name(r->unit));
    json_number(out, "mean", s->mean / unit);
    json_number(out, "median", s->median / unit);
    json_number(out, "p95", s->p95 / unit);
    json_number(out, "p99", s->p99 / unit);
    json_number(out, "min", s->min / unit);
    json_number(out, "max", s->max / unit);
    json_number(out, "stddev", s->stddev / unit);
    json_number(out, "qps", r->per_second);
    json_number(out, "cpu_percent", r->cpu_percent);
    json_number(out, "resident_mb", r->resident_mb);
    json_number(out, "reference_ns", r->reference_ns);
}

static void json_change(const struct bench_result *r, struct strbuf *out)
{
    if (!r->compared) {
        json_null(out, "change");
        return;
    }
    json_object_begin(out, "change");
    json_text(out, "verdict", bench_verdict_name(r->change.verdict));
    json_number(out, "baseline_median", r->baseline_median / bench_unit_ns(r->unit));
    if (r->change.verdict != BENCH_UNKNOWN) {
        json_number(out, "median_percent", 100 * r->change.change);
        json_number(out, "low_percent", 100 * r->change.low);
        json_number(out, "high_percent", 100 * r->change.high);
        json_number(out, "reference_ratio", r->slower);
    }
    strbuf_puts(out, "}");
}

/* Not positive: there is none. */
static void json_limit(double fraction, double value, const char *what, struct strbuf *out)
{
    if (!(fraction > 0)) {
        json_null(out, "limit");
        return;
    }
    json_object_begin(out, "limit");
    json_number(out, "value", value);
    json_number(out, "fraction", fraction);
    json_text(out, "what", what);
    strbuf_puts(out, "}");
}

static void json_result(const struct bench_result *r, struct strbuf *out)
{
    double unit = bench_unit_ns(r->unit);
    strbuf_puts(out, "{");
    json_text(out, "name", r->name);
    json_text(out, "what", r->what);
    json_text(out, "operation", r->operation);
    json_new_line(out);
    json_summary(r, out);
    json_new_line(out);
    json_limit(bench_result_fraction(r), r->limit_ns / unit, r->limit_what, out);
    json_object_begin(out, "extra");
    for (int i = 0; i < r->extra_count; i++)
        json_number(out, r->extras[i].name, r->extras[i].value);
    strbuf_puts(out, "}");
    json_change(r, out);
    json_new_line(out);
    json_member(out, "samples");
    strbuf_puts(out, "[");
    for (int i = 0; i < r->kept_count; i++)
        strbuf_printf(out, "%s%.9g", i > 0 ? "," : "", r->kept[i] / unit);
    strbuf_puts(out, "]}");
}

static void json_metric(const struct bench_report *report, int m, struct strbuf *out)
{
    const struct bench_metric_row *row = &BENCH_METRIC_ROW[m];
    const struct bench_measured *ours = &report->metrics[m];
    strbuf_puts(out, m > 0 ? ",\n {" : "{");
    json_text(out, "name", row->id);
    json_text(out, "unit", row->unit);
    json_number(out, "before", row->before);
    json_number(out, "after", row->after);
    json_number(out, "ours", ours->there ? ours->value : NAN);
    json_number(out, "points", ours->there ? bench_points((enum bench_metric)m, ours->value) : NAN);
    json_limit(ours->there ? ours->fraction : 0, ours->limit, ours->limit_what, out);
    strbuf_puts(out, "}");
}

static void json_seed(const struct bench_report *report, struct strbuf *out)
{
    struct bench_score score = bench_score_of(report->metrics);
    json_object_begin(out, "seed");
    json_member(out, "metrics");
    strbuf_puts(out, "[");
    for (int m = 0; m < BENCH_METRICS; m++) json_metric(report, m, out);
    strbuf_puts(out, "]");
    json_new_line(out);
    json_text(out, "formula", BENCH_SCORE_FORMULA);
    json_number(out, "measured", score.measured);
    json_number(out, "score", score.measured > 0 ? score.score : NAN);
    json_number(out, "score_with_0_for_the_others", score.pessimistic);
    strbuf_puts(out, "}");
}

void bench_report_json(const struct bench_report *report, struct strbuf *out)
{
    strbuf_puts(out, "{");
    json_text(out, "format", BENCH_FORMAT);
    json_number(out, "version", BENCH_FORMAT_VERSION);
    json_identity(report, out);
    json_new_line(out);
    json_limits(&report->limits, out);
    json_new_line(out);
    json_member(out, "benchmarks");
    strbuf_puts(out, "[\n");
    for (int i = 0; i < report->count; i++) {
        if (i > 0) json_new_line(out);
        json_result(&report->results[i], out);
    }
    strbuf_puts(out, "]");
    json_new_line(out);
    json_seed(report, out);
    json_new_line(out);
    json_texts("notes", report->notes, report->note_count, out);
    json_new_line(out);
    if (report->baseline[0] != '\0') {
        json_object_begin(out, "baseline");
        json_text(out, "file", report->baseline);
        json_texts("differences", report->differences, report->difference_count, out);
        strbuf_puts(out, "}");
    } else {
        json_null(out, "baseline");
    }
    strbuf_puts(out, "}\n");
}
