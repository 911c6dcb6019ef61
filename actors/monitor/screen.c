/* screen.c - formats progress and tables (screen.h). Thread: any. Nothing to free. */
#include "actors/monitor/screen.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES_MAX = 1024, STAGE_WIDTH = 12, WIDTH_COMFORTABLE = 110 };

static const char *paint(const opd_screen *s, const char *code) { return s->color ? code : ""; }

static void append_eta(const opd_progress *p, opd_str *out) {
    if (p->steps_here == 0 || p->step >= p->steps) return;
    double left = p->elapsed_s / (double)p->steps_here * (double)(p->steps - p->step);
    unsigned seconds = left < 359999 ? (unsigned)(left + 0.5) : 359999;
    if (seconds >= 3600)
        opd_str_printf(out, "  eta %u:%02u:%02u", seconds / 3600, seconds / 60 % 60, seconds % 60);
    else
        opd_str_printf(out, "  eta %u:%02u", seconds / 60, seconds % 60);
}

static void append_teacher(const opd_screen *s, const opd_progress *p, opd_str *out) {
    const double *v = p->values;
    if (!isnan(v[OPD_METRIC_OPD_REVERSE_KL]))
        opd_str_printf(out, "  kl %.4f", v[OPD_METRIC_OPD_REVERSE_KL]);
    double share = v[OPD_METRIC_VALID_SHARE];
    if (!isnan(share)) {
        bool low = share < 0.99995;
        opd_str_printf(out, "  %svalid %.1f %%%s", low ? paint(s, "\033[33m") : "", share * 100,
                       low ? paint(s, "\033[0m") : "");
    }
}

/* Appends at most `columns` visible columns of a line; escape sequences take none. */
static void append_cut(const opd_str *line, size_t columns, opd_str *out) {
    size_t at = 0, shown = 0;
    while (at < line->size && shown < columns) {
        if (line->data[at] != '\033') shown++;
        else while (line->data[at] != 'm') at++;
        at++;
    }
    opd_str_append(out, line->data, at);
    if (at < line->size) opd_str_text(out, memchr(line->data, '\033', at) ? "\033[0m" : "");
}

/* The most important numbers first: a narrow terminal cuts the end of the line. */
static void format_progress(const opd_screen *s, const opd_progress *p, opd_str *out) {
    const double *v = p->values;
    bool narrow = s->terminal && s->width > 0 && s->width < WIDTH_COMFORTABLE;
    opd_str_printf(out, "%s%-*s%s step %*" PRIu64 "/%" PRIu64, paint(s, "\033[1m"),
                   narrow ? 0 : STAGE_WIDTH, p->stage, paint(s, "\033[0m"),
                   snprintf(NULL, 0, "%" PRIu64, p->steps), p->step, p->steps);
    if (p->elapsed_s > 0)
        opd_str_printf(out, "  %.0f%s/s", p->samples / p->elapsed_s, narrow ? "" : " samples");
    if (p->policy && !isnan(v[OPD_METRIC_RAW_REWARD]))
        opd_str_printf(out, "  reward %.3f", v[OPD_METRIC_RAW_REWARD]);
    if (!p->policy && !isnan(v[OPD_METRIC_LOSS]))
        opd_str_printf(out, "  loss %.4f", v[OPD_METRIC_LOSS]);
    if (p->teacher) append_teacher(s, p, out);
    append_eta(p, out);
    if (p->invalid_tokens > 0) opd_str_printf(out, "  masked %.0f tokens", p->invalid_tokens);
    if (p->teacher && !isnan(v[OPD_METRIC_OPD_OVERLAP]))
        opd_str_printf(out, "  overlap %.2f", v[OPD_METRIC_OPD_OVERLAP]);
}

/* A line longer than the terminal would wrap, and then not be rewritten in place. */
void opd_screen_progress(const opd_screen *s, const opd_progress *p, opd_str *out) {
    opd_str line;
    opd_str_init(&line, out->alloc, LINE_BYTES_MAX);
    format_progress(s, p, &line);
    bool cut = s->terminal && s->width > 1;
    append_cut(&line, cut ? (size_t)s->width - 1 : line.size, out);
    opd_str_fini(&line);
}

void opd_screen_table(const opd_screen *s, const opd_table_row *rows, size_t count,
                      opd_str *out) {
    opd_str_printf(out, "\n  %s%-24s  accuracy   95 %% interval      problems%s\n",
                   paint(s, "\033[1m"), "", paint(s, "\033[0m"));
    for (size_t i = 0; i < count; i++) {
        const opd_accuracy *a = &rows[i].accuracy;
        opd_str_printf(out, "  %-24s  %6.1f %%   %5.1f - %5.1f %%  %10zu\n", rows[i].name,
                       a->accuracy * 100, a->low * 100, a->high * 100, a->n);
    }
}
