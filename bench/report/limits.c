/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a figure is held against: llama.cpp in the same run, the floors that the project promises and the aims it has, and
 * the limit of the machine (docs/performance.md, "Roofline").
 */
#include <string.h>

#include "bench/report/report.h"

struct floor {
    const char *section, *metric;
    int size; /* 0: any */
    double floor, aim;
    bool lower_is_better, absolute;
};

static const struct floor FLOORS[] = {
    {"engine", "decode", 1, 1.0, 1.15, false, false},
    {"engine", "decode", 8, 2.2, 4, false, false},
    {"engine", "decode", 16, 2.6, 5, false, false},
    {"engine", "decode", 32, 3, 6, false, false},
    {"engine", "prefill", 256, 2.2, 4, false, false},
    {"engine", "prefill", 2048, 2.2, 4, false, false},
    {"engine", "batch_8_over_1", 8, 5, 8, false, true},
    {"server", "throughput", 32, 3, 6, false, false},
    {"server", "ttft_p50", 32, 1.0 / 3, 1.0 / 6, true, false},
    {"server", "peak_memory", 0, 1.0, 0.8, true, false},
    {"idle", "idle_cpu", 0, 0.049, 0, true, true}, /* prints as 0.0% */
    {"prefix", "seconds", 64, 0.25, 0.1, true, false},
    {"overhead", "request_rate", 32, 3, 10, false, false},
    {"shapes", "prefill_alike", 0, 0.85, 1, false, true},
    {"shapes", "decode_alike", 0, 0.85, 1, false, true},
    {"http", "hit_rate", 64, 0.5, 0.8, false, false},
    {"http", "hit_latency_p50", 1, 2, 1.3, true, false},
    {"isa", "decode", 8, 1.3, 2, false, false},
    {"isa", "prefill", 256, 1.3, 2, false, false},
};

/*
 * Of what the processor computes, the best that was measured: it cannot do more, and less means that something disturbed
 * it. Of the bandwidth, the median: on a virtual machine it is shared with neighbours, who come and go.
 */
static double machine_limit(const struct report *r, const struct report_figure *of,
                            const char *metric, const char *isa)
{
    int threads = (int)json_number_value(json_object_get(report_machine_of(r, of), "threads"));
    const struct report_figure *f = report_find(r, "roofline", metric, NULL, isa, threads);
    if (f == NULL) return 0;
    const struct report_series *s = &f->series[REPORT_MACHINE];
    double limit = s->median;
    for (int i = 0; i < s->count && strcmp(metric, "read_bandwidth") != 0; i++) {
        if (s->values[i] > limit) limit = s->values[i];
    }
    return limit;
}

static double model_cost(const struct report *r, const char *metric, const char *weights)
{
    const struct report_figure *f = report_find(r, NULL, metric, weights, NULL, 0);
    return f == NULL ? 0 : f->series[REPORT_MODEL].median;
}

/* The least time that a step of so many tokens, each attending to so many positions, can take. */
static void speed_limit(const struct report *r, struct report_figure *f)
{
    bool prefill = strcmp(f->metric, "prefill") == 0;
    double bandwidth = machine_limit(r, f, "read_bandwidth", "any") * 1e9;
    double dot = machine_limit(r, f, "int8_dot", f->isa) * 1e12;
    double fma = machine_limit(r, f, "fma", f->isa) * 1e12;
    double tokens = f->size, positions = prefill ? tokens / 2 : REPORT_DECODE_POSITIONS;
    double steps =
        prefill ? (double)((f->size + REPORT_PREFILL_CHUNK - 1) / REPORT_PREFILL_CHUNK) : 1;
    double bytes = steps * model_cost(r, "weight_bytes", f->weights);
    if (!prefill) bytes += tokens * positions * model_cost(r, "kv_bytes", f->weights);
    double macs = tokens * model_cost(r, "macs", f->weights);
    /* Only a prompt's last token meets the output matrix. */
    if (prefill) macs -= (tokens - 1) * model_cost(r, "output_macs", f->weights);
    double attention = tokens * positions * model_cost(r, "attention_macs", f->weights);
    if (bandwidth <= 0 || bytes <= 0) return;
    double memory_s = bytes / bandwidth;
    double compute_s = dot > 0 && fma > 0 ? 2 * macs / dot + 2 * attention / fma : 0;
    f->bound = memory_s > compute_s ? REPORT_BOUND_MEMORY : REPORT_BOUND_COMPUTE;
    f->limit = tokens / (memory_s > compute_s ? memory_s : compute_s);
}

static void figure_judge(const struct report *r, struct report_figure *f)
{
    const struct report_series *ours = &f->series[REPORT_SOVEREIGN],
                               *theirs = &f->series[REPORT_PEER];
    if (ours->count > 0 && theirs->count > 0 && theirs->median > 0) {
        f->ratio = ours->median / theirs->median;
    }
    if (strcmp(f->metric, "prefill") == 0 || strcmp(f->metric, "decode") == 0) speed_limit(r, f);
    if (strstr(f->metric, "_read") != NULL && strcmp(f->section, "kernels") == 0) {
        f->limit = strcmp(f->metric, "stream_read") == 0
                       ? machine_limit(r, f, "read_bandwidth", "any")
                       : 0;
        f->bound = REPORT_BOUND_MEMORY;
    }
    if (strstr(f->metric, "_compute") != NULL) {
        f->limit = machine_limit(r, f, "int8_dot", f->isa);
        f->bound = REPORT_BOUND_COMPUTE;
    }
    for (size_t i = 0; i < sizeof FLOORS / sizeof *FLOORS; i++) {
        const struct floor *t = &FLOORS[i];
        if (strcmp(t->section, f->section) != 0 || strcmp(t->metric, f->metric) != 0) continue;
        if (t->size != 0 && t->size != f->size) continue;
        double value = t->absolute ? ours->median : f->ratio;
        if (ours->count == 0) continue;
        if (!t->absolute && f->ratio <= 0) {
            f->unjudged = true;
            continue;
        }
        f->has_floor = true;
        f->lower_is_better = t->lower_is_better;
        f->absolute = t->absolute;
        f->floor = t->floor;
        f->aim = t->aim;
        f->met = t->lower_is_better ? value <= t->floor : value >= t->floor;
    }
}

/* Own throughput at batch 8 over batch 1, from the medians. Stated for the types of 4 and 8 bits in blocks of 32. */
static void add_batch_gain(struct report *r)
{
    static const char *const types[] = {"q4_0", "q8_0"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const struct report_figure *one = report_find(r, "engine", "decode", types[i], NULL, 1);
        const struct report_figure *eight = report_find(r, "engine", "decode", types[i], NULL, 8);
        if (one == NULL || eight == NULL) continue;
        struct report_figure *f =
            report_figure_add(r, "engine", "batch_8_over_1", types[i], one->isa, 8, "x");
        if (f == NULL) return;
        f->runs = one->runs | eight->runs;
        for (int e = REPORT_SOVEREIGN; e <= REPORT_PEER; e++) {
            if (one->series[e].count == 0 || one->series[e].median <= 0) continue;
            f->series[e].median = eight->series[e].median / one->series[e].median;
            f->series[e].values[0] = f->series[e].median;
            f->series[e].count = 1;
        }
    }
}

/*
 * How much of its limit each shape reaches, over how much TinyLlama's reaches with the same type, of either engine. The
 * limits differ as the shapes' bytes do where memory sets them, and as their multiply-adds do elsewhere. Call when the
 * figures have their limits.
 */
static void add_likeness(struct report *r)
{
    static const char reference_shape[] = "tinyllama";
    for (int i = 0, count = r->count; i < count; i++) {
        const struct report_figure *f = &r->figures[i];
        char weights[REPORT_NAME_MAX], metric[REPORT_NAME_MAX];
        const char *type = strchr(f->weights, '/');
        if (strcmp(f->section, "shapes") != 0 || type == NULL) continue;
        if (strcmp(f->metric, "prefill") != 0 && strcmp(f->metric, "decode") != 0) continue;
        snprintf(weights, sizeof weights, "%s%.10s", reference_shape, type);
        const struct report_figure *reference =
            report_find(r, "shapes", f->metric, weights, f->isa, f->size);
        if (reference == NULL || reference == f || f->limit <= 0 || reference->limit <= 0) continue;
        snprintf(metric, sizeof metric, "%.10s_alike", f->metric);
        struct report_figure *alike =
            report_figure_add(r, "shapes", metric, f->weights, f->isa, f->size, "x");
        if (alike == NULL) return;
        alike->runs = f->runs | reference->runs;
        for (int e = REPORT_SOVEREIGN; e <= REPORT_PEER; e++) {
            const struct report_series *s = &f->series[e], *by = &reference->series[e];
            if (s->count == 0 || by->count == 0 || by->median <= 0) continue;
            alike->series[e].median = s->median / f->limit / (by->median / reference->limit);
            alike->series[e].values[0] = alike->series[e].median;
            alike->series[e].count = 1;
        }
    }
}

void report_judge(struct report *r)
{
    add_batch_gain(r);
    int count = r->count;
    for (int i = 0; i < count; i++) figure_judge(r, &r->figures[i]);
    add_likeness(r);
    for (int i = count; i < r->count; i++) figure_judge(r, &r->figures[i]);
}
