/* panel_rig.h - the panel among teachers that play a part: a source of samples, a batcher that keeps what it gets,
 * a dataset and a monitor that count.
 *
 * Usage: panel_up; change the world's parts, delays, sources; panel_run (or panel_start, and run the system); check
 * world.got and world.asks; panel_down. The run ends when each sample has its SCORES. Thread: the test's.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_PANEL_RIG_H
#define OPD_TESTS_UNIT_ACTORS_PANEL_RIG_H

#include "actors/messages.h"
#include "actors/panel/panel_actor.h"
#include "opd/config.h"
#include "tests/support/sys_test.h"

enum { TEACHERS = 3, SAMPLES = 32, PROMPT = 4, LONGEST = 40, ASKS = 512, MS = 1000000 };

/* What a teacher does with a question. */
typedef enum part {
    SCORE,       /* the right scores, after a while              */
    AWAY,        /* nobody can be reached: CLOSED, or it waits   */
    REFUSE,      /* no score, and a reason                       */
    FULL_ONCE,   /* AGAIN the first time, then SCORE             */
    HANG,        /* nothing until the question's deadline        */
    TOO_LATE,    /* as AWAY, and not ready in time at the start  */
    SHORT        /* a score too few                              */
} part;

typedef struct asked {
    uint32_t teacher, from, to;
    bool wait, alive;
    uint64_t affinity, at_ns, for_ns; /* for_ns: until its deadline */
} asked;

typedef struct got {
    int times;
    uint32_t rows, degraded, attempts;
    size_t teachers;
    uint8_t places[TEACHERS];
    double weights[TEACHERS];
    float logp[TEACHERS * LONGEST];
    uint8_t valid[TEACHERS * LONGEST];
    char teacher[OPD_MESSAGE_TEXT_SIZE], reason[OPD_MESSAGE_TEXT_SIZE];
} got;

typedef struct world {
    opd_test_sys t;
    opd_roles roles;
    opd_config *config;
    part parts[TEACHERS];
    uint64_t delay_ns[TEACHERS];
    /* what the source sends */
    int samples;
    uint32_t length;       /* of a sample              */
    uint32_t chunk;        /* of a CHUNK; 0: none      */
    const char *sources[SAMPLES];
    /* what was seen */
    asked asks[ASKS];
    int ask_count, under_way, under_way_max;
    got got[SAMPLES];
    int done, holds, releases;
    double unserved;
    char notes[1024];
} world;

/* The beginning of a configuration: what every stage needs. */
#define PANEL_HEAD "model: {path: m}\ndata: {path: d}\ntrain: {steps: 1}\nreward: {type: math}\n" \
             "rollout: {samples_per_prompt: 2}\n"

/* Token i of a sample, and what the teacher at `place` scores for a token. */
int32_t panel_token(uint64_t group, uint32_t i);
float panel_score(uint32_t place, int32_t id);

/* opd: keys of opd beside the usual; a, b, c: keys of the teachers. */
void panel_up(world *w, int samples, const char *opd, const char *a, const char *b, const char *c);

/* Spawns the panel, the teachers in use and the source. */
void panel_start(world *w);

/* The same, and runs to the good end. */
void panel_run(world *w);
void panel_down(world *w);

#endif
