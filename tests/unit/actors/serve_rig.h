/* serve_rig.h - a tiny random model behind the real server, in the rig of teacher_rig.h, for tests
 * of the server and of the teacher's client against it.
 *
 * Usage: serve_up; spawn a teacher with serve_teacher's config; rig_feed; rig_run; serve_down.
 * Thread: the loop. serve_down checks that no memory is held.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_SERVE_RIG_H
#define OPD_TESTS_UNIT_ACTORS_SERVE_RIG_H

#include "actors/server/server_actor.h"
#include "actors/teacher/teacher_http.h"
#include "kernels/kernels.h"
#include "tests/unit/actors/teacher_rig.h"

enum {
    SERVE_COUNT = 24, /* samples of most tests */
    SERVE_PROMPT = 5,
    SERVE_RESPONSE = 9,
    SERVE_VOCAB = 50,
    SERVE_TOP_K = 3
};

typedef struct serve_rig {
    rig rig;
    opd_model *model;
    opd_kernels *scorer_kernels, *rollout_kernels;
    opd_slot *weights;
    opd_server_config server; /* as it was started */
    uint16_t port;
    char url[64];
    opd_config_teacher teacher;
} serve_rig;

/* A rig with `count` samples and a server that listens; faults: its script, or NULL. */
void serve_up(serve_rig *s, int count, const char *faults);

/* Starts another server with s->server; s->url is its. */
void serve_start(serve_rig *s);

void serve_down(serve_rig *s);

/* The graph's own scores of one sample. */
void serve_direct(const serve_rig *s, int group, float temperature, float logp[SERVE_RESPONSE],
                  int32_t topk[SERVE_RESPONSE * SERVE_TOP_K]);

/* A quick teacher's config for s->url; it and s->teacher may be changed before the spawn. */
opd_teacher_http_config serve_teacher(serve_rig *s, double temperature);

#endif
