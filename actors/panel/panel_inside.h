/* panel_inside.h - the state of the panel, shared by its files: panel_actor.c (samples and
 * questions), presence.c (who is there). Nobody else includes it.
 *
 * Invariants: (1) a sample is in `samples` and the map until it is settled, then in `done` until its
 * SCORES has credit; (2) a part is in `waiting` of the teacher it is to be asked of exactly while
 * its state is WAITING; (3) `asked` counts the requests under way at each teacher, warm-ups
 * included, and asked_all is their sum.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_PANEL_INSIDE_H
#define OPD_ACTORS_PANEL_INSIDE_H

#include "actors/panel/panel_actor.h"
#include "actors/panel/sample.h"
#include "core/base/map.h"

/* A teacher as the panel sees it; the index is its place in stage->teachers. */
typedef struct opd__panel_teacher {
    opd_list waiting;    /* parts that are to be asked of it     */
    uint32_t asked;      /* requests under way                   */
    uint32_t share;      /* of them at most                      */
    bool wanted;         /* some sample is to be scored by it, not as a fallback */
    bool reuses_prefix;
    char model[OPD_MESSAGE_TEXT_SIZE], why[OPD_MESSAGE_TEXT_SIZE];
} opd__panel_teacher;

typedef struct opd__panel {
    opd_panel_config c;
    opd_ctx *ctx;
    opd_link *link;
    opd_chains chains;
    opd__panel_teacher teachers[OPD_CONFIG_TEACHERS_MAX];
    opd_presence presence[OPD_CONFIG_TEACHERS_MAX];
    uint32_t asked_all, asked_max;
    uint32_t turn;                        /* whose questions are sent first next time */
    opd_map map;                          /* samples by group and member */
    opd_list samples, done;
    uint32_t early_count;                 /* samples that are known by their chunks */
    uint64_t unserved, unserved_told;     /* samples of a value that nobody serves; told the monitor */
    opd_timer retry;
    bool hold, hold_told;                 /* what the dataset should know, and was told */
    uint32_t held_by;                     /* hold: a teacher that is wanted, and away like all its fallbacks */
    opd_timer lost;                       /* hold: when that was too long */
    bool failed;
} opd__panel;

/* ---- presence.c ---- */

/* Who is there before anybody has said so. */
void opd__panel_presence_init(opd__panel *self);

/* Takes a PRESENCE. Errors: PARSE, LIMIT. */
OPD_MUST_CHECK opd_err opd__panel_presence_take(opd__panel *self, const opd_msg *msg);

/* Some sample is to be scored by the teacher at `place`. Errors: LIMIT. */
OPD_MUST_CHECK opd_err opd__panel_want(opd__panel *self, uint32_t place);

/* Tells the dataset what it should know, if that has changed. False: it had no room; again later. */
bool opd__panel_hold_tell(opd__panel *self);

/* What a teacher serves, for provenance. */
const char *opd__panel_model(void *self, int place);

#endif
