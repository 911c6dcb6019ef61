/* panel_actor.h - the teachers of a stage as one role: rollouts in, scores out; behind it any number
 * of teachers that answer SCORE.
 *
 * In: ROLLOUT (link; held until its scores are sent, which is the backpressure); CHUNK (the same
 * link; let go at once): tokens of samples that are still being written; PRESENCE of the teachers.
 * Out: SCORES to the batcher (link), exactly one for each ROLLOUT: with scores, or with none and
 * the reason; SCORE requests to the teachers: the in-process scorer, or the teacher_http of each
 * place in stage->teachers; HOLD to the dataset while a teacher is wanted that cannot be reached,
 * nor anybody instead of it.
 *
 * Who is asked: route.h. What for: sample.h. A teacher that has no room (AGAIN) is asked
 * again a little later. One whose actor has ended is not asked and not given up: the data plane is
 * about to be started again, and what was made of its end would be trained on.
 *
 * Stops the system when no teacher of a chain was ready in time (TIMEOUT), and when admission was held
 * for opd.teacher_lost_s (TEACHER_LOST): then no sample is left that could find it out.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_PANEL_ACTOR_H
#define OPD_ACTORS_PANEL_ACTOR_H

#include "actors/roles.h"
#include "opd/config.h"

enum {
    OPD_PANEL_REQUESTS_MAX = OPD_CONFIG_TEACHER_INFLIGHT_MAX,
    OPD_PANEL_CHUNK_TOKENS = 256,    /* where -1 means on                               */
    OPD_PANEL_PROVENANCE_SIZE = 2048 /* of one part, that the windows of links have room for */
};

/* Pointers are borrowed and outlive the actor; roles->batcher is set when it is spawned. */
typedef struct opd_panel_config {
    const opd_roles *roles;
    const opd_config_stage *stage;
    const char *model;    /* what the in-process teacher is; NULL: teachers tell it */
    uint32_t max_len;     /* tokens of a sequence at most                          */
    uint32_t top_k;       /* likely ids of each token that the first teacher lists */
    uint32_t asked_k;     /* of the student's likely ids about which it is asked besides */
    uint32_t samples_max; /* that are known by their chunks; of others none are scored early */
    uint32_t window_msgs; /* of the link to the batcher                            */
    uint64_t window_bytes;
    const opd_alloc *alloc;
} opd_panel_config;

extern const opd_actor_class opd_panel_class;

/* Tokens that a teacher scores at a time while a sample is written; 0: none. reuses_prefix: its
 * server is known to keep what it computed. */
uint32_t opd_teacher_chunk_tokens(const opd_config_teacher *teacher, bool reuses_prefix);

/* Tokens after which the rollout tells the panel how far a sample is: the fewest that a teacher in
 * use may want (a server's wish is known when it answers; chunks that nobody wants are let go of);
 * 0: never. */
uint32_t opd_stage_chunk_tokens(const opd_config_stage *stage);

#endif
