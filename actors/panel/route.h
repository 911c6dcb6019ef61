/* route.h - which teacher is asked for a part of a sample, and which after that one failed.
 *
 * Each teacher may name another as its fallback. A question goes down that chain, each teacher
 * once, without waiting for one that cannot be reached. Where the chain ends (or comes back to
 * who was asked before) the first that could not be reached is asked again and waited for. Who
 * gave no score although it answered is not asked twice: it has used up its own retries. After
 * that nobody is left, and the tokens stay without a score.
 *
 * Pure. Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_PANEL_ROUTE_H
#define OPD_ACTORS_PANEL_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "actors/messages.h"
#include "opd/config.h"

enum { OPD_ROUTE_NOBODY = -1 };

/* The teachers of a stage by their places. */
typedef struct opd_chains {
    uint32_t count;
    int8_t fallback[OPD_CONFIG_TEACHERS_MAX]; /* a place, or OPD_ROUTE_NOBODY */
    bool used[OPD_CONFIG_TEACHERS_MAX];
} opd_chains;

void opd_chains_init(opd_chains *chains, const opd_config_stage *stage);

/* How far a question has got. */
typedef struct opd_rungs {
    uint32_t asked, away; /* bits by place: was asked; could not be reached */
    int8_t first, at;     /* places; at: OPD_ROUTE_NOBODY at the end        */
    bool waits;           /* `at` is to wait until it can be reached        */
} opd_rungs;

/* Begins at a teacher; it is to wait where nobody else can be asked. */
void opd_rungs_init(opd_rungs *rungs, const opd_chains *chains, int first);

/* The teacher at `at` failed; away: it could not be reached. Returns the next, or NOBODY. */
int opd_rungs_next(opd_rungs *rungs, const opd_chains *chains, bool away);

/* Whether somebody is asked after the teacher at `at`, should that give no score in time. */
bool opd_rungs_more(const opd_rungs *rungs, const opd_chains *chains);

/* Whether a teacher and everyone it may be replaced by are in a state of which `counts` says
 * yes. */
bool opd_chain_all(const opd_chains *chains, int first,
                   const opd_presence states[OPD_CONFIG_TEACHERS_MAX], bool (*counts)(opd_presence));

#endif
