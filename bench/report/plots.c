/* SPDX-License-Identifier: Apache-2.0 */
/* Which charts there are, and what is in them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plot.h"
#include "bench/report/report.h"

enum { CHART_PATH_MAX = 4096 };

struct chart {
    struct plot_panel panels[PLOT_PANELS_MAX];
    int count;
};

/* The panel of that title, made if there is none; NULL when there are too many. */
static struct plot_panel *chart_panel(struct chart *c, const char *title, const char *x_label,
                                      const char *y_label)
{
    for (int i = 0; i < c->count; i++) {
        if (strcmp(c->panels[i].title, title) == 0) return &c->panels[i];
    }
    if (c->count == PLOT_PANELS_MAX) return NULL;
    struct plot_panel *p = &c->panels[c->count++];
    snprintf(p->title, sizeof p->title, "%s", title);
    snprintf(p->x_label, sizeof p->x_label, "%s", x_label);
    snprintf(p->y_label, sizeof p->y_label, "%s", y_label);
    return p;
}

/* Categories are sizes, in increasing order; the values of all series move up to make room. -1: too many. */
static int panel_category(struct plot_panel *p, int size)
{
    int at = 0;
    while (at < p->categories && atoi(p->labels[at]) < size) at++;
    if (at < p->categories && atoi(p->labels[at]) == size) return at;
    if (p->categories == PLOT_CATEGORIES_MAX) return -1;
    size_t tail = (size_t)(p->categories - at);
    memmove(&p->labels[at + 1], &p->labels[at], tail * sizeof *p->labels);
    for (int s = 0; s < p->series_count; s++) {
        struct plot_series *one = &p->series[s];
        memmove(&one->values[at + 1], &one->values[at], tail * sizeof *one->values);
        memmove(&one->present[at + 1], &one->present[at], tail * sizeof *one->present);
        one->present[at] = false;
    }
    snprintf(p->labels[at], sizeof p->labels[at], "%d", size);
    p->categories++;
    return at;
}

static void panel_value(struct plot_panel *p, const char *series, enum plot_kind kind, int colour,
                        int size, double value)
{
    int category = p == NULL || value <= 0 ? -1 : panel_category(p, size);
    if (category < 0) return;
    struct plot_series *s = plot_series_add(p, series, kind, colour);
    s->values[category] = value;
    s->present[category] = true;
}

static void panel_figure(struct plot_panel *p, const struct report_figure *f, enum plot_kind kind)
{
    panel_value(p, "Sovereign", kind, 0, f->size, f->series[REPORT_SOVEREIGN].median);
    panel_value(p, "llama.cpp", kind, 1, f->size, f->series[REPORT_PEER].median);
    panel_value(p, "limit of the machine", PLOT_LIMIT, 0, f->size, f->limit);
}

static bool is(const struct report_figure *f, const char *section, const char *metric)
{
    return strcmp(f->section, section) == 0 && strcmp(f->metric, metric) == 0;
}

static bool chart_write(struct chart *c, const char *folder, const char *name, const char *title)
{
    char path[CHART_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s.svg", folder, name);
    struct sov_errbuf err;
    bool ok = c->count == 0 || plot_write(path, title, c->panels, c->count, &err) == SOV_OK;
    if (!ok) fprintf(stderr, "report: %s\n", err.message);
    memset(c, 0, sizeof *c);
    return ok;
}

static void add_engine(struct chart *c, const struct report *r, const char *metric,
                       const char *x_label, enum plot_kind kind)
{
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        char title[PLOT_TEXT_MAX];
        if (!is(f, "engine", metric)) continue;
        snprintf(title, sizeof title, "%s, %s", f->weights, f->isa);
        panel_figure(chart_panel(c, title, x_label, "tokens/s"), f, kind);
    }
}

static void add_server(struct chart *c, const struct report *r)
{
    static const struct {
        const char *metric, *title, *label;
    } panels[] = {
        {"throughput", "Throughput", "tokens/s"},
        {"ttft_p50", "Time to first token, p50", "s"},
        {"ttft_p95", "Time to first token, p95", "s"},
        {"ttft_p99", "Time to first token, p99", "s"},
        {"tpot_p50", "Time per further token, p50", "s"},
        {"tpot_p95", "Time per further token, p95", "s"},
        {"tpot_p99", "Time per further token, p99", "s"},
    };
    for (size_t p = 0; p < sizeof panels / sizeof *panels; p++) {
        for (int i = 0; i < r->count; i++) {
            const struct report_figure *f = &r->figures[i];
            if (!is(f, "server", panels[p].metric)) continue;
            panel_figure(chart_panel(c, panels[p].title, "clients", panels[p].label), f, PLOT_BAR);
        }
    }
}

static void add_kernels(struct chart *c, const struct report *r)
{
    char weights[PLOT_SERIES_MAX][REPORT_NAME_MAX];
    int seen = 0;
    for (int i = 0; i < r->count; i++) {
        const struct report_figure *f = &r->figures[i];
        char title[PLOT_TEXT_MAX];
        int colour = 0;
        if (!is(f, "kernels", "stream_compute")) continue;
        while (colour < seen && strcmp(weights[colour], f->weights) != 0) colour++;
        if (colour == PLOT_SERIES_MAX - 1) continue; /* one is left for the limit */
        if (colour == seen) snprintf(weights[seen++], sizeof weights[0], "%s", f->weights);
        snprintf(title, sizeof title, "%s", f->isa);
        struct plot_panel *panel = chart_panel(c, title, "rows of activations", "TOPS (int8)");
        panel_value(panel, f->weights, PLOT_LINE, colour % 4, f->size,
                    f->series[REPORT_SOVEREIGN].median);
        panel_value(panel, "instruction peak", PLOT_LIMIT, 0, f->size, f->limit);
    }
}

bool report_write_plots(const struct report *r, const char *folder)
{
    static struct chart c;
    add_engine(&c, r, "decode", "sequences decoded together", PLOT_LINE);
    bool ok = chart_write(&c, folder, "decode", "Decode, tokens per second");
    add_engine(&c, r, "prefill", "tokens of prompt", PLOT_BAR);
    ok = chart_write(&c, folder, "prefill", "Prefill, tokens per second") && ok;
    add_server(&c, r);
    ok = chart_write(&c, folder, "server", "Server: prompts of 100 tokens, answers of 32") && ok;
    add_kernels(&c, r);
    return chart_write(&c, folder, "kernels", "Matrix kernels, weights streamed from memory") && ok;
}
