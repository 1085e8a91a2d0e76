/* SPDX-License-Identifier: Apache-2.0 */
#include "benchmark/baseline.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json_strict.h"

/* Ten years in ns; what is longer was never measured. */
static const double BASELINE_NS_MAX = 3e17;
/* Memory that differs by less is that of one machine with another kernel. */
static const double BASELINE_MEMORY_SHARE = 0.05;

static enum sov_error baseline_missing(const char *where, const char *name, const char *type,
                                       const json_t *found, struct sov_errbuf *err)
{
    return sov_fail(err, SOV_ERR_FORMAT, "'%s%s' must be %s, not %s", where, name, type,
                    json_type_name(found));
}

/* A text that fits; what is longer was not written by us. */
static enum sov_error baseline_text(const json_t *object, const char *where, const char *name,
                                    char *out, size_t size, struct sov_errbuf *err)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_string(value)) return baseline_missing(where, name, "a string", value, err);
    size_t length = json_string_length(value);
    if (length >= size || strlen(json_string_value(value)) != length)
        return sov_fail(err, SOV_ERR_FORMAT, "'%s%s' must have less than %zu bytes", where, name,
                        size);
    memcpy(out, json_string_value(value), length + 1);
    return SOV_OK;
}

static enum sov_error baseline_number(const json_t *object, const char *where, const char *name,
                                      double min, double max, double *out, struct sov_errbuf *err)
{
    const json_t *value = json_object_get(object, name);
    double number = json_number_value(value);
    if (!json_is_number(value)) return baseline_missing(where, name, "a number", value, err);
    if (!(number >= min && number <= max))
        return sov_fail(err, SOV_ERR_FORMAT, "'%s%s' must be from %g to %g", where, name, min, max);
    *out = number;
    return SOV_OK;
}

static enum sov_error baseline_int(const json_t *object, const char *where, const char *name,
                                   int min, int max, int *out, struct sov_errbuf *err)
{
    double number = 0;
    enum sov_error rc = baseline_number(object, where, name, min, max, &number, err);
    if (rc != SOV_OK) return rc;
    *out = (int)number;
    return *out == number ? SOV_OK
                          : sov_fail(err, SOV_ERR_FORMAT, "'%s%s' must be an integer", where, name);
}

static enum sov_error baseline_check_format(const json_t *root, struct sov_errbuf *err)
{
    const json_t *format = json_object_get(root, "format");
    int version = 0;
    if (!json_is_string(format) || strcmp(json_string_value(format), BENCH_FORMAT) != 0)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "not a report of sovereign bench ('format' is not \"" BENCH_FORMAT "\")");
    enum sov_error rc = baseline_int(root, "", "version", 1, 1 << 30, &version, err);
    if (rc != SOV_OK) return rc;
    if (version != BENCH_FORMAT_VERSION)
        return sov_fail(err, SOV_ERR_UNSUPPORTED,
                        "a report of version %d; this program reads version %d", version,
                        BENCH_FORMAT_VERSION);
    return SOV_OK;
}

static enum sov_error baseline_model(const json_t *model, struct bench_identity *id,
                                     struct sov_errbuf *err)
{
    if (json_is_null(model)) return SOV_OK;
    if (!json_is_object(model)) return baseline_missing("", "model", "an object", model, err);
    enum sov_error rc = baseline_text(model, "model.", "name", id->model, sizeof id->model, err);
    if (rc == SOV_OK)
        rc = baseline_text(model, "model.", "digest", id->model_digest, sizeof id->model_digest,
                           err);
    return rc;
}

static enum sov_error baseline_identity(const json_t *root, struct bench_identity *id,
                                        struct sov_errbuf *err)
{
    const json_t *machine = json_object_get(root, "machine");
    if (!json_is_object(machine)) return baseline_missing("", "machine", "an object", machine, err);
    enum sov_error rc = baseline_text(root, "", "sovereign", id->version, sizeof id->version, err);
    if (rc == SOV_OK)
        rc = baseline_int(root, "", "arithmetic_version", 0, 1 << 30, &id->arithmetic, err);
    if (rc == SOV_OK) rc = baseline_text(machine, "machine.", "cpu", id->cpu, sizeof id->cpu, err);
    if (rc == SOV_OK) rc = baseline_int(machine, "machine.", "cpus", 0, 1 << 30, &id->cpus, err);
    if (rc == SOV_OK)
        rc = baseline_number(machine, "machine.", "memory_mb", 0, 1e15, &id->memory_mb, err);
    if (rc == SOV_OK) rc = baseline_text(machine, "machine.", "isa", id->isa, sizeof id->isa, err);
    if (rc == SOV_OK)
        rc = baseline_int(machine, "machine.", "threads", 0, 1 << 30, &id->threads, err);
    id->foreign_percent = -1;
    const json_t *foreign = json_object_get(machine, "foreign_cpu_percent");
    if (rc == SOV_OK && foreign != NULL && !json_is_null(foreign))
        rc = baseline_number(machine, "machine.", "foreign_cpu_percent", 0, 1e6,
                             &id->foreign_percent, err);
    if (rc == SOV_OK) rc = baseline_model(json_object_get(root, "model"), id, err);
    return rc;
}

static enum sov_error baseline_unit(const json_t *object, const char *where,
                                    struct bench_result *out, struct sov_errbuf *err)
{
    char name[8];
    enum sov_error rc = baseline_text(object, where, "unit", name, sizeof name, err);
    if (rc != SOV_OK) return rc;
    for (int u = BENCH_NS; u <= BENCH_MS; u++) {
        out->unit = (enum bench_unit)u;
        if (strcmp(name, bench_unit_name(out->unit)) == 0) return SOV_OK;
    }
    return sov_fail(err, SOV_ERR_FORMAT, "'%sunit' must be ns, us or ms", where);
}

static enum sov_error baseline_samples(const json_t *array, const char *where,
                                       struct bench_result *out, struct sov_errbuf *err)
{
    if (!json_is_array(array)) return baseline_missing(where, "samples", "an array", array, err);
    size_t count = json_array_size(array);
    if (count < 1 || count > BENCH_KEPT_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "'%ssamples' must have 1 to %d numbers, not %zu",
                        where, BENCH_KEPT_MAX, count);
    struct bench_samples samples = {0};
    enum sov_error rc = SOV_OK;
    for (size_t i = 0; i < count && rc == SOV_OK; i++) {
        const json_t *value = json_array_get(array, i);
        double ns = json_number_value(value) * bench_unit_ns(out->unit);
        if (!json_is_number(value) || !(ns >= 0 && ns <= BASELINE_NS_MAX))
            rc = sov_fail(err, SOV_ERR_FORMAT, "'%ssamples[%zu]' must be a time", where, i);
        bench_samples_push(&samples, ns);
    }
    if (rc == SOV_OK) rc = bench_result_fill(out, &samples, err);
    bench_samples_free(&samples);
    return rc;
}

static enum sov_error baseline_result(const json_t *object, size_t index, struct bench_result *out,
                                      struct sov_errbuf *err)
{
    char where[48];
    snprintf(where, sizeof where, "benchmarks[%zu].", index);
    if (!json_is_object(object))
        return sov_fail(err, SOV_ERR_FORMAT, "'benchmarks[%zu]' must be an object, not %s", index,
                        json_type_name(object));
    memset(out, 0, sizeof *out);
    enum sov_error rc = baseline_text(object, where, "name", out->name, sizeof out->name, err);
    if (rc == SOV_OK) rc = baseline_text(object, where, "what", out->what, sizeof out->what, err);
    if (rc == SOV_OK && json_object_get(object, "reference_ns") != NULL)
        rc = baseline_number(object, where, "reference_ns", 0, BASELINE_NS_MAX, &out->reference_ns,
                             err);
    if (rc == SOV_OK) rc = baseline_unit(object, where, out, err);
    if (rc == SOV_OK) rc = baseline_samples(json_object_get(object, "samples"), where, out, err);
    return rc;
}

static enum sov_error baseline_results(const json_t *array, struct bench_baseline *out,
                                       struct sov_errbuf *err)
{
    if (!json_is_array(array)) return baseline_missing("", "benchmarks", "an array", array, err);
    size_t count = json_array_size(array);
    if (count > BENCH_RESULTS_MAX)
        return sov_fail(err, SOV_ERR_FORMAT, "'benchmarks' has %zu members; at most %d are read",
                        count, BENCH_RESULTS_MAX);
    out->results = sov_calloc(count, sizeof *out->results);
    if (out->results == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for the baseline");
    enum sov_error rc = SOV_OK;
    for (size_t i = 0; i < count && rc == SOV_OK; i++) {
        rc = baseline_result(json_array_get(array, i), i, &out->results[i], err);
        if (rc == SOV_OK) out->count++;
    }
    return rc;
}

enum sov_error bench_baseline_parse(const char *text, size_t length, struct bench_baseline *out,
                                    struct sov_errbuf *err)
{
    json_t *root = NULL;
    memset(out, 0, sizeof *out);
    enum sov_error rc = json_strict_object(text, length, &root, err);
    if (rc == SOV_OK) rc = baseline_check_format(root, err);
    if (rc == SOV_OK) rc = baseline_identity(root, &out->identity, err);
    if (rc == SOV_OK) rc = baseline_results(json_object_get(root, "benchmarks"), out, err);
    json_decref(root);
    if (rc != SOV_OK) bench_baseline_free(out);
    return rc;
}

enum sov_error bench_baseline_load(const char *path, struct bench_baseline *out,
                                   struct sov_errbuf *err)
{
    struct strbuf text = {0};
    struct sov_errbuf why = {""};
    memset(out, 0, sizeof *out);
    enum sov_error rc = file_read(path, BENCH_BASELINE_BYTES_MAX, &text, err);
    if (rc == SOV_OK) {
        rc = bench_baseline_parse(strbuf_text(&text), text.length, out, &why);
        if (rc != SOV_OK) sov_fail(err, rc, "%s: %s", path, why.message);
    }
    strbuf_free(&text);
    return rc;
}

void bench_baseline_free(struct bench_baseline *baseline)
{
    sov_free(baseline->results);
    memset(baseline, 0, sizeof *baseline);
}

/* ---- against this run ---- */

static void baseline_differ(struct bench_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void baseline_differ(struct bench_report *report, const char *format, ...)
{
    if (report->difference_count == BENCH_NOTES_MAX) return;
    va_list list;
    va_start(list, format);
    vsnprintf(report->differences[report->difference_count++], BENCH_TEXT_MAX, format, list);
    va_end(list);
}

static void baseline_differ_text(struct bench_report *report, const char *name, const char *before,
                                 const char *now)
{
    if (strcmp(before, now) != 0)
        baseline_differ(report, "the baseline is of another %s: %.64s, now %.64s", name, before,
                        now);
}

static void baseline_differences(const struct bench_identity *before, struct bench_report *report)
{
    const struct bench_identity *now = &report->identity;
    baseline_differ_text(report, "CPU", before->cpu, now->cpu);
    if (before->cpus != now->cpus)
        baseline_differ(report, "the baseline is of a machine with %d CPUs, now %d", before->cpus,
                        now->cpus);
    if (fabs(before->memory_mb - now->memory_mb) > BASELINE_MEMORY_SHARE * now->memory_mb)
        baseline_differ(report, "the baseline is of a machine with %.1f GB of memory, now %.1f",
                        before->memory_mb / 1000, now->memory_mb / 1000);
    baseline_differ_text(report, "instruction set", before->isa, now->isa);
    if (before->threads != now->threads)
        baseline_differ(report, "the baseline is of %d threads, now %d", before->threads,
                        now->threads);
    baseline_differ_text(report, "version of Sovereign", before->version, now->version);
    if (before->arithmetic != now->arithmetic)
        baseline_differ(report, "the baseline is of arithmetic version %d, now %d",
                        before->arithmetic, now->arithmetic);
    if (before->foreign_percent > BENCH_FOREIGN_PERCENT_MAX)
        baseline_differ(report,
                        "the baseline was measured beside others, who had %.0f%% of the CPUs",
                        before->foreign_percent);
    if (before->model[0] == '\0' || now->model[0] == '\0') return;
    if (strcmp(before->model_digest, now->model_digest) != 0)
        baseline_differ(report,
                        "the baseline is of another model: %.48s (%.12s), now %.48s (%.12s)",
                        before->model, before->model_digest, now->model, now->model_digest);
}

void bench_baseline_compare(const struct bench_baseline *baseline, const char *path,
                            struct bench_report *report)
{
    snprintf(report->baseline, sizeof report->baseline, "%s", path);
    baseline_differences(&baseline->identity, report);
    for (int i = 0; i < report->count; i++) {
        struct bench_result *now = &report->results[i];
        for (int b = 0; b < baseline->count; b++) {
            const struct bench_result *before = &baseline->results[b];
            if (strcmp(before->name, now->name) != 0) continue;
            now->compared = strcmp(before->what, now->what) == 0;
            now->other_workload = !now->compared;
            if (!now->compared) continue;
            now->change =
                bench_compare(before->kept, before->kept_count, now->kept, now->kept_count);
            if (before->reference_ns > 0) now->slower = now->reference_ns / before->reference_ns;
            bench_change_widen(&now->change, now->slower);
            now->baseline_median = before->summary.median;
            report->baseline_results[i] = *before;
        }
    }
}

int bench_regressions(const struct bench_report *report, double percent, struct strbuf *out)
{
    int count = 0;
    for (int i = 0; i < report->count; i++) {
        const struct bench_result *r = &report->results[i];
        if (!r->compared || !bench_change_exceeds(&r->change, percent)) continue;
        strbuf_printf(out, "%s%s", count > 0 ? ", " : "", r->name);
        count++;
    }
    return count;
}
