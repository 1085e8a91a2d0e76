/* SPDX-License-Identifier: Apache-2.0 */
/* The report as JSON (docs/bench.md). What baseline.c reads of it, it must find here. */
#include <math.h>
#include <string.h>

#include "benchmark/report.h"
#include "benchmark/score.h"

/* Nine digits are more than any timer has. */
static void json_number_put(struct strbuf *out, const char *name, double value)
{
    strbuf_printf(out, "\"%s\":", name);
    if (isfinite(value))
        strbuf_printf(out, "%.9g", value);
    else
        strbuf_puts(out, "null");
}

static void json_text_put(struct strbuf *out, const char *name, const char *text)
{
    strbuf_printf(out, "\"%s\":", name);
    strbuf_put_json_string(out, text, strlen(text));
}

static void json_comma(struct strbuf *out)
{
    strbuf_puts(out, ",");
}

static void json_identity(const struct bench_report *report, struct strbuf *out)
{
    const struct bench_identity *id = &report->identity;
    json_text_put(out, "sovereign", id->version);
    strbuf_printf(out, ",\"arithmetic_version\":%d,", id->arithmetic);
    json_text_put(out, "time", report->time);
    strbuf_printf(out, ",\"iterations\":%d,\n\"machine\":{", report->iterations);
    json_text_put(out, "cpu", id->cpu);
    strbuf_printf(out, ",\"cpus\":%d,", id->cpus);
    json_number_put(out, "memory_mb", id->memory_mb);
    json_comma(out);
    json_text_put(out, "isa", id->isa);
    strbuf_puts(out, ",\"foreign_cpu_percent\":");
    if (id->foreign_percent >= 0)
        strbuf_printf(out, "%.9g", id->foreign_percent);
    else
        strbuf_puts(out, "null");
    strbuf_printf(out, ",\"threads\":%d},\n\"model\":", id->threads);
    if (id->model[0] == '\0') {
        strbuf_puts(out, "null");
        return;
    }
    strbuf_puts(out, "{");
    json_text_put(out, "name", id->model);
    json_comma(out);
    json_text_put(out, "digest", id->model_digest);
    json_comma(out);
    json_text_put(out, "weights", id->weights);
    json_comma(out);
    json_number_put(out, "parameters", id->parameters);
    json_comma(out);
    json_number_put(out, "weight_bytes", id->weight_bytes);
    strbuf_puts(out, "}");
}

static void json_limits(const struct bench_limits *limits, struct strbuf *out)
{
    strbuf_puts(out, "{");
    json_number_put(out, "read_gb_s", limits->read_bytes_s * 1e-9);
    json_comma(out);
    json_number_put(out, "read_one_thread_gb_s", limits->read_one_bytes_s * 1e-9);
    json_comma(out);
    json_number_put(out, "read_weights_gb_s", limits->weights_bytes_s * 1e-9);
    json_comma(out);
    json_number_put(out, "int8_dot_tops", limits->dot_ops_s * 1e-12);
    json_comma(out);
    json_number_put(out, "loopback_us", limits->loopback_ns * 1e-3);
    json_comma(out);
    json_number_put(out, "loopback_two_cpus_us", limits->loopback_apart_ns * 1e-3);
    json_comma(out);
    json_number_put(out, "loopback_after_pause_us", limits->loopback_idle_ns * 1e-3);
    strbuf_puts(out, "}");
}

static void json_summary(const struct bench_result *r, struct strbuf *out)
{
    const struct bench_summary *s = &r->summary;
    double unit = bench_unit_ns(r->unit);
    const struct {
        const char *name;
        double value;
    } NUMBERS[] = {{"mean", s->mean}, {"median", s->median}, {"p95", s->p95},      {"p99", s->p99},
                   {"min", s->min},   {"max", s->max},       {"stddev", s->stddev}};
    strbuf_printf(out, "\"iterations\":%zu,\"unit\":\"%s\"", s->count, bench_unit_name(r->unit));
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        json_comma(out);
        json_number_put(out, NUMBERS[i].name, NUMBERS[i].value / unit);
    }
    json_comma(out);
    json_number_put(out, "qps", r->per_second);
    json_comma(out);
    json_number_put(out, "cpu_percent", r->cpu_percent);
    json_comma(out);
    json_number_put(out, "resident_mb", r->resident_mb);
    json_comma(out);
    json_number_put(out, "reference_ns", r->reference_ns);
}

static void json_change(const struct bench_result *r, struct strbuf *out)
{
    strbuf_puts(out, ",\n \"change\":");
    if (!r->compared) {
        strbuf_puts(out, "null");
        return;
    }
    strbuf_printf(out, "{\"verdict\":\"%s\",", bench_verdict_name(r->change.verdict));
    json_number_put(out, "baseline_median", r->baseline_median / bench_unit_ns(r->unit));
    if (r->change.verdict != BENCH_UNKNOWN) {
        json_comma(out);
        json_number_put(out, "median_percent", 100 * r->change.change);
        json_comma(out);
        json_number_put(out, "low_percent", 100 * r->change.low);
        json_comma(out);
        json_number_put(out, "high_percent", 100 * r->change.high);
        json_comma(out);
        json_number_put(out, "reference_ratio", r->slower);
    }
    strbuf_puts(out, "}");
}

static void json_result(const struct bench_result *r, struct strbuf *out)
{
    double unit = bench_unit_ns(r->unit);
    strbuf_puts(out, "{");
    json_text_put(out, "name", r->name);
    json_comma(out);
    json_text_put(out, "what", r->what);
    json_comma(out);
    json_text_put(out, "operation", r->operation);
    strbuf_puts(out, ",\n ");
    json_summary(r, out);
    strbuf_puts(out, ",\n \"limit\":");
    if (r->limit_ns > 0) {
        strbuf_puts(out, "{");
        json_number_put(out, "value", r->limit_ns / unit);
        json_comma(out);
        json_number_put(out, "fraction", bench_result_fraction(r));
        json_comma(out);
        json_text_put(out, "what", r->limit_what);
        strbuf_puts(out, "}");
    } else {
        strbuf_puts(out, "null");
    }
    strbuf_puts(out, ",\"extra\":{");
    for (int i = 0; i < r->extra_count; i++) {
        if (i > 0) json_comma(out);
        json_number_put(out, r->extras[i].name, r->extras[i].value);
    }
    strbuf_puts(out, "}");
    json_change(r, out);
    strbuf_puts(out, ",\n \"samples\":[");
    for (int i = 0; i < r->kept_count; i++)
        strbuf_printf(out, "%s%.9g", i > 0 ? "," : "", r->kept[i] / unit);
    strbuf_puts(out, "]}");
}

static void json_seed(const struct bench_report *report, struct strbuf *out)
{
    struct bench_score score = bench_score_of(report->metrics);
    strbuf_puts(out, "{\"metrics\":[");
    for (int m = 0; m < BENCH_METRICS; m++) {
        const struct bench_metric_row *row = &BENCH_METRIC_ROW[m];
        const struct bench_measured *ours = &report->metrics[m];
        strbuf_printf(out, "%s{\"name\":\"%s\",\"unit\":\"%s\",\"before\":%g,\"after\":%g",
                      m > 0 ? ",\n " : "", row->id, row->unit, row->before, row->after);
        if (!ours->there) {
            strbuf_puts(out, ",\"ours\":null,\"points\":null,\"limit\":null}");
            continue;
        }
        json_comma(out);
        json_number_put(out, "ours", ours->value);
        json_comma(out);
        json_number_put(out, "points", bench_points((enum bench_metric)m, ours->value));
        strbuf_puts(out, ",\"limit\":");
        if (ours->fraction > 0) {
            strbuf_puts(out, "{");
            json_number_put(out, "value", ours->limit);
            json_comma(out);
            json_number_put(out, "fraction", ours->fraction);
            json_comma(out);
            json_text_put(out, "what", ours->limit_what);
            strbuf_puts(out, "}}");
        } else {
            strbuf_puts(out, "null}");
        }
    }
    strbuf_printf(out, "],\n\"formula\":\"%s\",\"measured\":%d,\"score\":", BENCH_SCORE_FORMULA,
                  score.measured);
    if (score.measured > 0)
        strbuf_printf(out, "%.9g", score.score);
    else
        strbuf_puts(out, "null");
    strbuf_printf(out, ",\"score_with_0_for_the_others\":%.9g}", score.pessimistic);
}

static void json_texts(const char texts[][BENCH_TEXT_MAX], int count, struct strbuf *out)
{
    strbuf_puts(out, "[");
    for (int i = 0; i < count; i++) {
        if (i > 0) json_comma(out);
        strbuf_put_json_string(out, texts[i], strlen(texts[i]));
    }
    strbuf_puts(out, "]");
}

void bench_report_json(const struct bench_report *report, struct strbuf *out)
{
    strbuf_printf(out, "{\"format\":\"%s\",\"version\":%d,", BENCH_FORMAT, BENCH_FORMAT_VERSION);
    json_identity(report, out);
    strbuf_puts(out, ",\n\"limits\":");
    json_limits(&report->limits, out);
    strbuf_puts(out, ",\n\"benchmarks\":[");
    for (int i = 0; i < report->count; i++) {
        strbuf_puts(out, i > 0 ? ",\n" : "\n");
        json_result(&report->results[i], out);
    }
    strbuf_puts(out, "],\n\"seed\":");
    json_seed(report, out);
    strbuf_puts(out, ",\n\"notes\":");
    json_texts(report->notes, report->note_count, out);
    strbuf_puts(out, ",\n\"baseline\":");
    if (report->baseline[0] != '\0') {
        strbuf_puts(out, "{");
        json_text_put(out, "file", report->baseline);
        strbuf_puts(out, ",\"differences\":");
        json_texts(report->differences, report->difference_count, out);
        strbuf_puts(out, "}");
    } else {
        strbuf_puts(out, "null");
    }
    strbuf_puts(out, "}\n");
}
