/* teacher_rig.h - a small run around one teacher actor, for tests: a source of rollouts, a
 * batcher that records SCORES, a dataset that records HOLD, a monitor that records notes.
 *
 * Usage: rig_up; spawn servers; rig_teacher (the panel with one teacher); rig_feed; rig_run;
 * check rig.scores; rig_down. The run ends when `want` SCORES are there (or the system stops).
 */
#ifndef OPD_TESTS_UNIT_ACTORS_TEACHER_RIG_H
#define OPD_TESTS_UNIT_ACTORS_TEACHER_RIG_H

#include "actors/messages.h"
#include "actors/roles.h"
#include "actors/teacher/teacher_http.h"
#include "tests/support/sys_test.h"
#include "transports/http.h"
#include "transports/tcp_sim.h"

enum {
    RIG_SCRIPT_SAMPLES_MAX = 64, /* with a script; else as many as the pool of messages lets */
    RIG_TOKENS_MAX = 64,
    RIG_TOPK_MAX = 4
};

typedef struct rig_sample {
    int times; /* SCORES received */
    bool scored; /* with log-probs */
    uint32_t attempts, moves, hedges;
    char endpoint[OPD_MESSAGE_TEXT_SIZE];
    float logp[RIG_TOKENS_MAX];
    uint8_t valid[RIG_TOKENS_MAX];
    int32_t topk[RIG_TOKENS_MAX * RIG_TOPK_MAX];
    char reason[OPD_MESSAGE_TEXT_SIZE];
    int holds, releases; /* of the run when it came */
} rig_sample;

typedef struct rig {
    opd_test_sys t;
    opd_net_sim *net; /* of a simulated env; NULL: a real one */
    opd_roles roles;
    opd_config_stage stage; /* of rig_panel */
    int want, got;
    bool any_teacher; /* others than the one called tutor may score */
    uint64_t linger_ms; /* the run goes on for so long after the last SCORES */
    opd_timer linger;
    rig_sample *scores; /* [count], by group; the rig's */
    int holds, releases, quarantines;
    char notes[4096];
    /* the samples */
    int count;
    uint32_t prompt_len, response_len;
    int32_t vocab;
} rig;

void rig_up(rig *r, int count, uint32_t prompt_len, uint32_t response_len, int32_t vocab);

/* Token i of sample `group`. */
int32_t rig_token(const rig *r, int group, uint32_t i);

/* Adds a teacher to the stage, with what its test left NULL; returns its place. */
uint32_t rig_stage_add(rig *r, const opd_config_teacher *teacher);

/* Spawns the panel of the stage's teachers; the first of them is asked if nothing else is said.
 * model: of a teacher in this process, NULL for servers. */
void rig_panel(rig *r, const char *model, uint32_t top_k, double temperature);

/* What a test's client of one teacher is usually configured with; its address is still to be set. */
void rig_client(rig *r, opd_config_teacher *teacher, opd_teacher_http_config *config);

/* The panel with one teacher over HTTP, as config says. */
void rig_teacher(rig *r, opd_teacher_http_config *config);

/* Spawns the source, which sends all rollouts at once. */
void rig_feed(rig *r);

/* Runs to the end. */
opd_err rig_run(rig *r);
void rig_down(rig *r);

/* ---- a teacher that plays a script ---- */

typedef enum script_step {
    STEP_OK,         /* right scores: -(id + 1) / 100        */
    STEP_500,
    STEP_503_AFTER,  /* with Retry-After: 1                  */
    STEP_400,
    STEP_SHORT,      /* a row too few                        */
    STEP_ABORT,      /* 200, finish_reason abort             */
    STEP_NULLS,      /* the second response token is null    */
    STEP_GARBAGE,    /* 200, no JSON                         */
    STEP_STALL,      /* no answer                            */
    STEP_CLOSE,      /* the server goes away, back in 0.5 s  */
    STEP_OK_LAST,    /* after late_ms; the connection ends with it, in order */
    STEP_502_LATE,   /* after late_ms                        */
    STEP_OK_LATE,    /* after late_ms                        */
    STEP_401_ECHO,   /* repeats the key that was shown       */
    STEP_503,        /* without Retry-After                  */
    STEP_DIES        /* the first time: from now on for 1.5 s a proxy says 503 to all; then OK */
} script_step;

typedef struct script {
    rig *rig;
    script_step steps[16]; /* of the n-th /generate of a sample; the last one repeats */
    int step_count;
    uint16_t port;
    int info_status;       /* of /model_info; 0: 200          */
    const char *info;      /* its body; NULL: as our server   */
    const char *key;       /* that requests must show; NULL: none */
    int lie_from, lie_to;  /* canaries, counted from 1, whose scores are wrong: by `lie`, or uniform */
    float lie;             /* nats; 0: uniform */
    const char *versions[2]; /* weight versions before and from version_from on; NULL: "default" */
    int version_from;      /* canary; 0: never */
    bool stays_closed;     /* after STEP_CLOSE */
    int aborts_from, aborts_to; /* canaries that are aborted, with 200 */
    int late_canary;       /* is answered after 2 late_ms; 0: none */
    uint64_t late_ms;
    const char *server_info; /* NULL: 404 */
    /* seen */
    int canaries, questions; /* of capabilities */
    int shown; /* requests with it */
    int generates, infos, aborts;
    int seen[RIG_SCRIPT_SAMPLES_MAX];
    char rids[256][64];
} script;

/* Spawns the server; script->port is set. */
void script_up(script *s, rig *r);

#endif
