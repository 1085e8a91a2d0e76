/* SPDX-License-Identifier: Apache-2.0 */
/* Geometry and SVG of the charts. */
#include "base/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/utf8.h"

enum {
    PANEL_WIDTH = 330,
    PANEL_HEIGHT = 250,
    PANELS_PER_ROW = 3,
    MARGIN_LEFT = 52,
    MARGIN_RIGHT = 14,
    MARGIN_TOP = 30,
    MARGIN_BOTTOM = 44,
    TITLE_HEIGHT = 34,
    LEGEND_HEIGHT = 30,
    TITLE_LETTER = 9, /* about as wide as one is */
    LEGEND_LETTER = 8,
    LEGEND_KEY = 24,
    LEGEND_GAP = 20,
    TICKS = 5
};

static const char STYLE[] =
    "<style>\n"
    "svg{background:#fff;color:#1f2328;font:12px system-ui,sans-serif}\n"
    "text{fill:currentColor}.h{font-size:15px;font-weight:600}.t{font-weight:600}.s{font-size:11px}"
    "\n"
    ".g{stroke:#d1d9e0}.l{stroke:#6e7781}\n"
    ".c0{--c:#1d5fd1}.c1{--c:#c2570c}.c2{--c:#1a7f37}.c3{--c:#8250df}\n"
    "@media(prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}\n"
    ".g{stroke:#30363d}.l{stroke:#9198a1}\n"
    ".c0{--c:#6cb0ff}.c1{--c:#f0a04b}.c2{--c:#56d364}.c3{--c:#c297ff}}\n"
    "polyline{fill:none;stroke-width:2;stroke:var(--c)}rect.b{fill:var(--c)}circle{fill:var(--c)}\n"
    "polyline.l{stroke-dasharray:5 4;stroke:#6e7781}\n"
    "</style>\n";

struct frame {
    double x, y, width, height; /* of the plotting area */
    double min, max;            /* at its bottom and its top */
    bool logarithmic;
};

struct plot_series *plot_series_add(struct plot_panel *panel, const char *name, enum plot_kind kind,
                                    int colour)
{
    for (int i = 0; i < panel->series_count; i++) {
        if (strcmp(panel->series[i].name, name) == 0) return &panel->series[i];
    }
    if (panel->series_count == PLOT_SERIES_MAX) return &panel->series[PLOT_SERIES_MAX - 1];
    struct plot_series *s = &panel->series[panel->series_count++];
    memset(s, 0, sizeof *s);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->kind = kind;
    s->colour = colour;
    return s;
}

/* The least of 1, 2, 2.5 and 5 times a power of ten that is not below value. */
static double round_up(double value)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    if (value <= 0) return 1;
    double power = pow(10, floor(log10(value)));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i] * power >= value * (1 - 1e-9)) return steps[i] * power;
    }
    return 10 * power;
}

/* What the panel's axis goes from and to, so that all values have their place. */
static void frame_scale(struct frame *f, const struct plot_panel *p)
{
    double min = INFINITY, max = 0;
    for (int s = 0; s < p->series_count; s++) {
        for (int i = 0; i < p->categories; i++) {
            double value = p->series[s].values[i];
            if (!p->series[s].present[i] || !(value > 0)) continue;
            min = fmin(min, value);
            max = fmax(max, value);
        }
    }
    f->logarithmic = p->logarithmic && max > 0;
    f->min = f->logarithmic ? pow(10, floor(log10(min) + 1e-9)) : 0;
    f->max = f->logarithmic ? fmax(pow(10, ceil(log10(max) - 1e-9)), 10 * f->min)
                            : round_up(max / TICKS) * TICKS;
}

static double at_x(const struct frame *f, const struct plot_panel *p, double category)
{
    return f->x + f->width * (category + 0.5) / p->categories;
}

static double at_y(const struct frame *f, double value)
{
    double share = f->logarithmic ? log10(fmax(value, f->min) / f->min) / log10(f->max / f->min)
                                  : value / f->max;
    return f->y + f->height * (1 - fmin(share, 1));
}

/* In few characters, whatever the size. */
static const char *tick_text(double value, char text[PLOT_TEXT_MAX])
{
    if (value >= 1e6)
        snprintf(text, PLOT_TEXT_MAX, "%.3gM", value * 1e-6);
    else if (value >= 1e4)
        snprintf(text, PLOT_TEXT_MAX, "%.3gk", value * 1e-3);
    else
        snprintf(text, PLOT_TEXT_MAX, "%.4g", value);
    return text;
}

static void draw_tick(struct strbuf *out, const struct frame *f, double value)
{
    char text[PLOT_TEXT_MAX];
    double y = at_y(f, value);
    strbuf_printf(out, "<line class=\"g\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", f->x,
                  f->x + f->width, y, y);
    strbuf_printf(out, "<text class=\"s\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                  f->x - 6, y + 4, tick_text(value, text));
}

/* Powers of ten, and 2 and 5 times those where they are few. */
static void draw_logarithmic_ticks(struct strbuf *out, const struct frame *f)
{
    double decades = round(log10(f->max / f->min));
    for (int i = 0; i <= (int)decades; i++) {
        double value = f->min * pow(10, i);
        draw_tick(out, f, value);
        if (2 * decades >= TICKS || i == (int)decades) continue;
        draw_tick(out, f, 2 * value);
        draw_tick(out, f, 5 * value);
    }
}

static void draw_axes(struct strbuf *out, const struct plot_panel *p, const struct frame *f)
{
    strbuf_printf(out, "<text class=\"t\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", f->x, f->y - 12,
                  p->title);
    for (int i = 0; i <= TICKS && !f->logarithmic; i++) draw_tick(out, f, f->max * i / TICKS);
    if (f->logarithmic) draw_logarithmic_ticks(out, f);
    for (int i = 0; i < p->categories; i++) {
        strbuf_printf(out,
                      "<text class=\"s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                      at_x(f, p, i), f->y + f->height + 16, p->labels[i]);
    }
    strbuf_printf(out, "<text class=\"s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                  f->x + f->width / 2, f->y + f->height + 34, p->x_label);
    strbuf_printf(
        out,
        "<text class=\"s\" text-anchor=\"middle\" transform=\"translate(%.1f %.1f) rotate(-90)\">%s"
        "</text>\n",
        f->x - 40, f->y + f->height / 2, p->y_label);
}

static void draw_line(struct strbuf *out, const struct plot_panel *p, const struct frame *f,
                      const struct plot_series *s)
{
    strbuf_printf(out, "<polyline class=\"%s c%d\" points=\"", s->kind == PLOT_LIMIT ? "l" : "",
                  s->colour);
    for (int i = 0; i < p->categories; i++) {
        if (s->present[i]) strbuf_printf(out, "%.1f,%.1f ", at_x(f, p, i), at_y(f, s->values[i]));
    }
    strbuf_printf(out, "\"/>\n");
    for (int i = 0; i < p->categories && s->kind == PLOT_LINE; i++) {
        if (!s->present[i]) continue;
        strbuf_printf(out,
                      "<circle class=\"c%d\" r=\"3\" cx=\"%.1f\" cy=\"%.1f\"><title>%s: "
                      "%.4g</title></circle>\n",
                      s->colour, at_x(f, p, i), at_y(f, s->values[i]), s->name, s->values[i]);
    }
}

/* Bar number index of count that share a category. */
static void draw_bars(struct strbuf *out, const struct plot_panel *p, const struct frame *f,
                      const struct plot_series *s, int index, int count)
{
    double width = 0.8 / count;
    for (int i = 0; i < p->categories; i++) {
        if (!s->present[i]) continue;
        double left = at_x(f, p, i - 0.4 + width * index),
               right = at_x(f, p, i - 0.4 + width * (index + 1));
        double y = at_y(f, s->values[i]);
        strbuf_printf(
            out,
            "<rect class=\"b c%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s: "
            "%.4g</title></rect>\n",
            s->colour, left, y, right - left - 1, f->y + f->height - y, s->name, s->values[i]);
        strbuf_printf(
            out, "<text class=\"s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%.3g</text>\n",
            (left + right) / 2, y - 4, s->values[i]);
    }
}

static void draw_panel(struct strbuf *out, const struct plot_panel *p, double x, double y)
{
    struct frame f = {.x = x + MARGIN_LEFT,
                      .y = y + MARGIN_TOP,
                      .width = PANEL_WIDTH - MARGIN_LEFT - MARGIN_RIGHT,
                      .height = PANEL_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM};
    int bars = 0, bar = 0;
    frame_scale(&f, p);
    draw_axes(out, p, &f);
    for (int s = 0; s < p->series_count; s++) bars += p->series[s].kind == PLOT_BAR;
    for (int s = 0; s < p->series_count; s++) {
        if (p->series[s].kind == PLOT_BAR) {
            draw_bars(out, p, &f, &p->series[s], bar++, bars);
        } else {
            draw_line(out, p, &f, &p->series[s]);
        }
    }
}

/* From one name in the legend to the next. */
static double legend_step(const struct plot_series *series)
{
    return LEGEND_KEY + LEGEND_LETTER * (double)strlen(series->name) + LEGEND_GAP;
}

static void draw_legend(struct strbuf *out, const struct plot_panel *all, double y)
{
    double x = MARGIN_LEFT;
    for (int s = 0; s < all->series_count; s++) {
        const struct plot_series *one = &all->series[s];
        if (one->kind == PLOT_LIMIT) {
            strbuf_printf(out, "<polyline class=\"l\" points=\"%.0f,%.0f %.0f,%.0f\"/>", x, y,
                          x + 18, y);
        } else {
            strbuf_printf(out,
                          "<rect class=\"b c%d\" x=\"%.0f\" y=\"%.0f\" width=\"18\" height=\"8\"/>",
                          one->colour, x, y - 4);
        }
        strbuf_printf(out, "<text x=\"%.0f\" y=\"%.0f\">%s</text>\n", x + LEGEND_KEY, y + 4,
                      one->name);
        x += legend_step(one);
    }
}

/* What is not UTF-8 is left out, and so are control characters: XML has neither. */
static void put_escaped(struct strbuf *out, const char *text)
{
    for (size_t i = 0, n, length = strlen(text); i<length; i += n> 0 ? n : 1) {
        n = utf8_sequence_length(text + i, length - i);
        if (text[i] == '&')
            strbuf_puts(out, "&amp;");
        else if (text[i] == '<')
            strbuf_puts(out, "&lt;");
        else if (n > 1 || (n == 1 && text[i] >= ' '))
            strbuf_append(out, text + i, n);
    }
}

void plot_render(const char *title, const struct plot_panel *panels, int count, struct strbuf *out)
{
    int columns = count < PANELS_PER_ROW ? count : PANELS_PER_ROW;
    int rows = (count + PANELS_PER_ROW - 1) / PANELS_PER_ROW;
    double width, legend = MARGIN_LEFT;
    int height = TITLE_HEIGHT + rows * PANEL_HEIGHT + LEGEND_HEIGHT;
    struct plot_panel all = {.series_count = 0}; /* what the legend names */
    for (int i = 0; i < count; i++) {
        for (int s = 0; s < panels[i].series_count; s++) {
            const struct plot_series *one = &panels[i].series[s];
            plot_series_add(&all, one->name, one->kind, one->colour);
        }
    }
    for (int s = 0; s < all.series_count; s++) legend += legend_step(&all.series[s]);
    /* One panel is narrower than what stands above and below it. */
    width = fmax(fmax(columns * PANEL_WIDTH, legend),
                 MARGIN_LEFT + TITLE_LETTER * (double)strlen(title));
    strbuf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" "
                  "viewBox=\"0 0 %.0f %d\" role=\"img\">\n<title>",
                  width, height, width, height);
    put_escaped(out, title);
    strbuf_printf(out, "</title>\n%s<text class=\"h\" x=\"%d\" y=\"24\">", STYLE, MARGIN_LEFT);
    put_escaped(out, title);
    strbuf_puts(out, "</text>\n");
    for (int i = 0; i < count; i++) {
        int row = i / PANELS_PER_ROW, column = i % PANELS_PER_ROW;
        draw_panel(out, &panels[i], column * PANEL_WIDTH, TITLE_HEIGHT + row * PANEL_HEIGHT);
    }
    draw_legend(out, &all, height - LEGEND_HEIGHT * 0.5);
    strbuf_puts(out, "</svg>\n");
}

enum sov_error plot_write(const char *path, const char *title, const struct plot_panel *panels,
                          int count, struct sov_errbuf *err)
{
    struct strbuf image = {0};
    plot_render(title, panels, count, &image);
    enum sov_error rc = strbuf_failed(&image)
                            ? sov_fail(err, SOV_ERR_NOMEM, "%s: no memory for the image", path)
                            : file_replace(path, strbuf_text(&image), image.length, err);
    strbuf_free(&image);
    return rc;
}
