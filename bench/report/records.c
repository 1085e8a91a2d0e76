/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of records and of what is known about the machine; medians. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/report/report.h"
#include "benchmark/stats.h"

enum { LINE_MAX_BYTES = 1024 };

/* What records call the engines. Where the peer is not llama.cpp, the weights' place has its name. */
static const struct {
    const char *name;
    enum report_engine engine;
} ENGINES[] = {{"sovereign", REPORT_SOVEREIGN},
               {"llama", REPORT_PEER},
               {"peer", REPORT_PEER},
               {"model", REPORT_MODEL},
               {"machine", REPORT_MACHINE}};
enum { ENGINE_NAMES = sizeof ENGINES / sizeof ENGINES[0] };

static bool same(const char *wanted, const char *value)
{
    return wanted == NULL || strcmp(wanted, value) == 0;
}

const struct report_figure *report_find(const struct report *r, const char *section,
                                        const char *metric, const char *weights, const char *isa,
                                        int size)
{
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        if (f->size == size && same(section, f->section) && same(metric, f->metric) &&
            same(weights, f->weights) && same(isa, f->isa)) {
            return f;
        }
    }
    return NULL;
}

struct report_figure *report_figure_add(struct report *r, const char *section, const char *metric,
                                        const char *weights, const char *isa, int size,
                                        const char *unit)
{
    const struct report_figure *found = report_find(r, section, metric, weights, isa, size);
    if (found != NULL) return &r->figures[found - r->figures];
    if (r->count == REPORT_FIGURES_MAX) return NULL;
    struct report_figure *f = &r->figures[r->count++];
    memset(f, 0, sizeof *f);
    snprintf(f->section, sizeof f->section, "%s", section);
    snprintf(f->metric, sizeof f->metric, "%s", metric);
    snprintf(f->weights, sizeof f->weights, "%s", weights);
    snprintf(f->isa, sizeof f->isa, "%s", isa);
    snprintf(f->unit, sizeof f->unit, "%s", unit);
    f->size = size;
    return f;
}

static bool record_read(struct report *r, const char *line)
{
    char name[6][REPORT_NAME_MAX], engine[REPORT_NAME_MAX];
    int size, name_at = 0;
    double value;
    if (sscanf(line, "run %d", &r->run) == 1) return r->run >= 1 && r->run <= REPORT_RUNS_MAX;
    if (sscanf(line, "%31s %31s %31s %31s %d %31s %lf %31s", name[0], name[1], name[2], name[3],
               &size, engine, &value, name[4]) != 8) {
        return false;
    }
    while (name_at < ENGINE_NAMES && strcmp(ENGINES[name_at].name, engine) != 0) name_at++;
    if (name_at == ENGINE_NAMES) return false;
    enum report_engine which = ENGINES[name_at].engine;
    struct report_figure *f =
        report_figure_add(r, name[0], name[1], name[2], name[3], size, name[4]);
    if (f == NULL || f->series[which].count == REPORT_VALUES_MAX) return false;
    f->series[which].values[f->series[which].count++] = value;
    f->runs |= UINT64_C(1) << (r->run - 1);
    return true;
}

bool report_read_records(struct report *r, const char *path)
{
    char line[LINE_MAX_BYTES];
    int number = 0;
    bool ok = true;
    FILE *file = fopen(path, "r");
    r->run = 1;
    if (file == NULL) {
        fprintf(stderr, "report: %s: %s\n", path, strerror(errno));
        return false;
    }
    while (ok && fgets(line, sizeof line, file) != NULL) {
        number++;
        ok = record_read(r, line);
        if (!ok) fprintf(stderr, "report: %s:%d: no record, or too many: %s", path, number, line);
    }
    fclose(file);
    return ok;
}

/* Said by name: a commit such as 671e261 is no number. */
static bool is_numeric(const char *key)
{
    static const char *const keys[] = {"cpus", "threads", "memory_bytes", "load_average", "rounds"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i], key) == 0) return true;
    }
    return false;
}

bool report_read_machine(struct report *r, const char *path)
{
    char line[LINE_MAX_BYTES];
    FILE *file = fopen(path, "r");
    r->runs = json_array();
    if (file == NULL || r->runs == NULL) {
        fprintf(stderr, "report: %s: %s\n", path, strerror(errno));
        if (file != NULL) fclose(file);
        return false;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, ' '), *end;
        if (value == NULL) continue;
        *value++ = 0;
        bool begins = strcmp(line, "run") == 0;
        if (begins || r->machine == NULL) {
            json_decref(r->machine);
            r->machine = json_pack("{s:i}", "run", begins ? atoi(value) : 1);
            json_array_append(r->runs, r->machine);
            if (begins) continue;
        }
        double number = strtod(value, &end);
        bool is_number = is_numeric(line) && *value != 0 && *end == 0;
        json_object_set_new(r->machine, line, is_number ? json_real(number) : json_string(value));
    }
    fclose(file);
    if (r->machine == NULL) fprintf(stderr, "report: %s: nothing about a machine\n", path);
    return r->machine != NULL;
}

const json_t *report_machine_of(const struct report *r, const struct report_figure *f)
{
    for (size_t i = json_array_size(r->runs); i-- > 0;) {
        const json_t *machine = json_array_get(r->runs, i);
        json_int_t run = json_integer_value(json_object_get(machine, "run"));
        if (run >= 1 && run <= REPORT_RUNS_MAX && (f->runs >> (run - 1) & 1) != 0) return machine;
    }
    return r->machine;
}

void report_medians(struct report *r)
{
    for (int i = 0; i < r->count * REPORT_ENGINES; i++) {
        struct report_series *s = &r->figures[i / REPORT_ENGINES].series[i % REPORT_ENGINES];
        double sorted[REPORT_VALUES_MAX];
        if (s->count == 0) continue;
        memcpy(sorted, s->values, sizeof *sorted * (size_t)s->count);
        bench_sort(sorted, (size_t)s->count);
        s->median = bench_median(sorted, (size_t)s->count);
    }
}
