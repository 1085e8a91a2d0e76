/* SPDX-License-Identifier: Apache-2.0 */
/* bench.json: everything, for programs (schema in docs/performance.md). */
#include <stdio.h>
#include <string.h>

#include "bench/report/report.h"

enum { REPORT_SCHEMA = 1, REPORT_PATH_MAX = 4096 };

static json_t *series_json(const struct report_series *s)
{
    json_t *values = json_array();
    for (int i = 0; i < s->count; i++) json_array_append_new(values, json_real(s->values[i]));
    return json_pack("{s:f, s:o}", "median", s->median, "values", values);
}

static json_t *runs_json(uint64_t runs)
{
    json_t *numbers = json_array();
    for (int run = 1; run <= REPORT_RUNS_MAX; run++)
        if ((runs >> (run - 1) & 1) != 0) json_array_append_new(numbers, json_integer(run));
    return numbers;
}

static json_t *figure_json(const struct report_figure *f)
{
    static const char *const bounds[] = {"", "memory", "compute"};
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "section", f->section, "metric", f->metric,
                  "weights", f->weights, "isa", f->isa, "size", f->size, "unit", f->unit);
    if (o == NULL) return NULL;
    const char *peer = strcmp(f->section, "http") == 0 ? "peer" : "llama";
    const char *const names[] = {"sovereign", peer, "model", "machine"};
    for (int e = 0; e < REPORT_ENGINES; e++) {
        if (f->series[e].count > 0) json_object_set_new(o, names[e], series_json(&f->series[e]));
    }
    json_object_set_new(o, "runs", runs_json(f->runs));
    if (f->ratio > 0) json_object_set_new(o, "ratio", json_real(f->ratio));
    if (f->limit > 0) {
        json_object_set_new(o, "limit", json_real(f->limit));
        json_object_set_new(o, "bound", json_string(bounds[f->bound]));
        json_object_set_new(o, "of_limit",
                            json_real(f->series[REPORT_SOVEREIGN].median / f->limit));
    }
    if (f->has_floor) {
        json_object_set_new(o, "floor", json_real(f->floor));
        json_object_set_new(o, "aim", json_real(f->aim));
        json_object_set_new(o, "of", json_string(f->absolute ? "value" : "ratio"));
        json_object_set_new(o, "lower_is_better", json_boolean(f->lower_is_better));
        json_object_set_new(o, "met", json_boolean(f->met));
    }
    return o;
}

bool report_write_json(const struct report *r, const char *folder)
{
    char path[REPORT_PATH_MAX];
    json_t *figures = json_array();
    for (int i = 0; i < r->count; i++) json_array_append_new(figures, figure_json(&r->figures[i]));
    json_t *root = json_pack("{s:i, s:O, s:O, s:o}", "schema", REPORT_SCHEMA, "machine", r->machine,
                             "runs", r->runs, "figures", figures);
    snprintf(path, sizeof path, "%s/bench.json", folder);
    bool ok = root != NULL && json_array_size(figures) == (size_t)r->count &&
              json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) == 0;
    if (!ok) fprintf(stderr, "report: cannot write %s\n", path);
    json_decref(root);
    return ok;
}
