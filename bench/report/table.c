/* SPDX-License-Identifier: Apache-2.0 */
/* The table on standard output. */
#include <stdio.h>
#include <string.h>

#include "bench/report/report.h"

static const char *note(const struct report_figure *f, char text[64])
{
    text[0] = 0;
    if (f->has_floor) {
        snprintf(text, 64, "%s %.3g, aim %.3g: %s", f->lower_is_better ? "at most" : "floor",
                 f->floor, f->aim, f->met ? "met" : "NOT MET");
    }
    return text;
}

/* A number in five or so digits, whatever its size; bytes in millions. */
static const char *number(const struct report_figure *f, enum report_engine engine, char text[32])
{
    const struct report_series *s = &f->series[engine];
    double v = strcmp(f->unit, "B") == 0 ? s->median * 1e-6 : s->median;
    if (s->count == 0) {
        snprintf(text, 32, "-");
    } else {
        snprintf(text, 32, "%.*f", v >= 100 ? 1 : v >= 1 ? 2 : 4, v);
    }
    return text;
}

/* Where there are several: who measured what. */
static void print_runs(const struct report *r)
{
    static const char *const keys[] = {"date", "cpu", "threads", "commit", "sections"};
    for (size_t i = 0; i < json_array_size(r->runs) && json_array_size(r->runs) > 1; i++) {
        const json_t *machine = json_array_get(r->runs, i);
        printf("run %-10lld", (long long)json_integer_value(json_object_get(machine, "run")));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const json_t *v = json_object_get(machine, keys[k]);
            if (json_is_string(v)) printf("%s %s", k == 0 ? "" : ",", json_string_value(v));
            if (json_is_number(v)) printf(", %g %s", json_number_value(v), keys[k]);
        }
        printf("\n");
    }
}

static void print_machine(const struct report *r)
{
    static const char *const keys[] = {"cpu", "threads", "isas", "commit", "llama", "load_average"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(r->machine, keys[i]);
        if (json_is_string(v)) printf("%-14s %s\n", keys[i], json_string_value(v));
        if (json_is_number(v)) printf("%-14s %g\n", keys[i], json_number_value(v));
    }
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        if (strcmp(f->section, "roofline") != 0) continue;
        printf("%-14s %s, %d threads: %.3f %s\n", f->metric, f->isa, f->size,
               f->series[REPORT_MACHINE].median, f->unit);
    }
    const struct report_figure *foreign = report_find(r, "machine", "foreign_cpu", NULL, NULL, 0);
    int disturbed = 0;
    if (foreign == NULL) return;
    for (int i = 0; i < foreign->series[REPORT_MACHINE].count; i++) {
        if (foreign->series[REPORT_MACHINE].values[i] > 5) disturbed++;
    }
    printf("%-14s in %d of %d measurements more than 5%% of the CPUs\n", "other programs",
           disturbed, foreign->series[REPORT_MACHINE].count);
}

static bool is_detail(const struct report_figure *f)
{
    static const char *const hidden[] = {"answers",        "errors",        "load",
                                         "weight_bytes",   "macs",          "kv_bytes",
                                         "attention_macs", "prompt_tokens", "output_macs"};
    if (strcmp(f->section, "roofline") == 0 || strcmp(f->section, "machine") == 0) return true;
    if (strncmp(f->metric, "total_", 6) == 0 || strncmp(f->metric, "gap_", 4) == 0) return true;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        if (strcmp(f->metric, hidden[i]) == 0) return true;
    }
    return false;
}

/* What stands in the columns of a section's names: the weights of shapes are "SHAPE/TYPE". */
struct columns {
    const char *section, *weights, *isa, *peer;
    int width, isa_width;
};
static const struct columns COLUMNS[] = {
    {"shapes", "weights", "isa", "llama.cpp", 20, 7},
    {"http", "peer", "client", "peer", 10, 8},
    {NULL, "weights", "isa", "llama.cpp", 7, 7},
};
static const struct columns *columns_of(const char *section)
{
    const struct columns *c = COLUMNS;
    while (c->section != NULL && strcmp(c->section, section) != 0) c++;
    return c;
}

static void print_section(const struct report *r, const char *section)
{
    bool titled = false;
    const struct columns *c = columns_of(section);
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        char ours[32], theirs[32], text[64], ratio[16] = "", limit[32] = "";
        if (strcmp(f->section, section) != 0 || is_detail(f)) continue;
        if (!titled) {
            titled = true;
            printf("\n%-9s %-15s %-*s %-*s %5s %10s %10s %-10s %6s %13s\n", section, "figure",
                   c->width, c->weights, c->isa_width, c->isa, "size", "sovereign", c->peer, "unit",
                   "ratio", "of the limit");
        }
        if (f->ratio > 0) snprintf(ratio, sizeof ratio, "%.2f", f->ratio);
        if (f->limit > 0) {
            snprintf(limit, sizeof limit, "%.0f%% %s",
                     100 * f->series[REPORT_SOVEREIGN].median / f->limit,
                     f->bound == REPORT_BOUND_MEMORY ? "memory" : "compute");
        }
        printf("%-9s %-15s %-*s %-*s %5d %10s %10s %-10s %6s %13s  %s\n", "", f->metric, c->width,
               f->weights, c->isa_width, f->isa, f->size, number(f, REPORT_SOVEREIGN, ours),
               number(f, REPORT_PEER, theirs), strcmp(f->unit, "B") == 0 ? "MB" : f->unit, ratio,
               limit, note(f, text));
    }
}

static double percent_of_limit(const struct report_figure *f)
{
    return f->limit > 0 ? 100 * f->series[REPORT_SOVEREIGN].median / f->limit : 0;
}

/* The kernels in one line per number of rows, instead of four. */
static void print_kernels(const struct report *r)
{
    bool titled = false;
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *read = &r->figures[i];
        if (strcmp(read->section, "kernels") != 0 || strcmp(read->metric, "stream_read") != 0)
            continue;
        const struct report_figure *stream =
            report_find(r, "kernels", "stream_compute", read->weights, read->isa, read->size);
        const struct report_figure *cache =
            report_find(r, "kernels", "cache_compute", read->weights, read->isa, read->size);
        if (stream == NULL || cache == NULL) continue;
        if (!titled) {
            titled = true;
            printf("\n%-9s %-7s %-7s %5s   %-41s   %s\n", "kernels", "weights", "isa", "rows",
                   "weights from memory", "weights in cache");
        }
        printf("%-9s %-7s %-7s %5d   %6.2f GB/s (%3.0f%%)  %6.3f TOPS (%3.0f%%)   %6.3f TOPS "
               "(%3.0f%%)\n",
               "", read->weights, read->isa, read->size, read->series[REPORT_SOVEREIGN].median,
               percent_of_limit(read), stream->series[REPORT_SOVEREIGN].median,
               percent_of_limit(stream), cache->series[REPORT_SOVEREIGN].median,
               percent_of_limit(cache));
    }
}

/* What the sampler takes for a token. */
static void print_sampling(const struct report *r)
{
    bool titled = false;
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        if (strcmp(f->section, "kernels") != 0 || strncmp(f->metric, "sample_", 7) != 0) continue;
        if (!titled) {
            titled = true;
            printf("\n%-9s %-26s %-7s %10s %10s\n", "kernels", "one pick", "isa", "vocabulary",
                   "us");
        }
        printf("%-9s %-26s %-7s %10d %10.1f\n", "", f->metric + 7, f->isa, f->size,
               f->series[REPORT_SOVEREIGN].median);
    }
}

bool report_print(const struct report *r)
{
    static const char *const sections[] = {"engine", "isa",      "server", "idle",
                                           "prefix", "overhead", "http",   "shapes"};
    int below = 0, floors = 0, unjudged = 0;
    print_machine(r);
    print_runs(r);
    print_kernels(r);
    print_sampling(r);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) print_section(r, sections[i]);
    for (int i = 0; i < r->count; i++) {
        floors += r->figures[i].has_floor;
        below += r->figures[i].has_floor && !r->figures[i].met;
        unjudged += r->figures[i].unjudged;
    }
    printf("\n%d of %d floors met\n", floors - below, floors);
    if (unjudged > 0) printf("%d could not be judged: the peer was not measured\n", unjudged);
    return floors > 0 && below == 0 && unjudged == 0;
}
