/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small SVG charts: panels side by side, each with categories along x and some series of lines or bars over them.
 * Readable on light and on dark pages: the colours follow the reader's preference. The title may be any text; the others
 * are put in as they are: the caller keeps what means something in XML out of them.
 */
#ifndef SOV_BASE_PLOT_H
#define SOV_BASE_PLOT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/strbuf.h"

enum { PLOT_CATEGORIES_MAX = 12, PLOT_SERIES_MAX = 6, PLOT_PANELS_MAX = 64, PLOT_TEXT_MAX = 64 };

enum plot_kind { PLOT_LINE, PLOT_BAR, PLOT_LIMIT }; /* a limit is a dashed line without marks */

struct plot_series {
    char name[PLOT_TEXT_MAX];
    enum plot_kind kind;
    int colour; /* 0 to 3; limits have their own */
    double values[PLOT_CATEGORIES_MAX];
    bool present[PLOT_CATEGORIES_MAX];
};

struct plot_panel {
    char title[PLOT_TEXT_MAX], x_label[PLOT_TEXT_MAX], y_label[PLOT_TEXT_MAX];
    bool
        logarithmic; /* values by their logarithm, from one power of ten to another; otherwise from 0 */
    int categories;
    char labels[PLOT_CATEGORIES_MAX][PLOT_TEXT_MAX];
    struct plot_series series[PLOT_SERIES_MAX];
    int series_count;
};

/* The series of that name in the panel, made if there is none. Names beyond PLOT_SERIES_MAX share the last one. */
struct plot_series *plot_series_add(struct plot_panel *panel, const char *name, enum plot_kind kind,
                                    int colour);
/* Appends the panels as an SVG image, with a legend of all their series. */
void plot_render(const char *title, const struct plot_panel *panels, int count, struct strbuf *out);
/* The same into a file, which is replaced. SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error plot_write(const char *path, const char *title, const struct plot_panel *panels,
                          int count, struct sov_errbuf *err);

#endif
