/* stage_rig.h - a small stage of the real actors (dataset, rollout, reward, batcher, trainer, evaluator) around a
 * slow teacher, a checkpoint and a monitor that play their parts from a script.
 *
 * Usage: stage_up; change the stage's fields; stage_run; check what was seen; stage_down. One at a time.
 * Thread: the test's. The stage is the rig's.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_STAGE_RIG_H
#define OPD_TESTS_UNIT_ACTORS_STAGE_RIG_H

#include "actors/evaluator/evaluator_actor.h"
#include "actors/trainer/trainer_actor.h"
#include "tests/support/sys_test.h"

enum { STEPS = 6, BATCH = 2, MEMBERS = 2, MAX_LEN = 24, MAX_NEW = 6, EVENTS_MAX = 64 };
enum { TEACHERS_MAX = 2 };

typedef struct stage {
    opd_test_sys t;
    opd_roles roles;
    opd_model *model;
    opd_kernels *rollout_kernels, *trainer_kernels;
    opd_tokenizer *tokenizer;
    opd_dataset *dataset;
    opd_eval_sets evals;
    opd_learner *learner;
    opd_slot *weights, *eval_weights;
    opd_lane *rollout_lane, *eval_lane, *trainer_lane, *reward_lane;
    opd_kernels *eval_kernels;
    uint64_t evaluated_right[EVENTS_MAX]; /* by step */
    opd_trainer_outcome outcome;
    opd_trainer_config config; /* cases change it between up and run */
    uint32_t staleness;
    uint64_t interrupt_at; /* step after whose report the stage is interrupted; 0: never */
    uint64_t teacher_delay_us;
    size_t teachers; /* that score each sample, all the same */
    /* what happened, in order: 'r' report, 'a' accuracy, 's' saved; and of which step */
    char events[EVENTS_MAX + 1];
    uint64_t steps[EVENTS_MAX];
    size_t event_count;
    double lag_max, wait_s, score_wait_s;
    /* with a filter: group g has one reward where g % 3 is below same_below */
    uint64_t same_below, filter_max;
    uint64_t shown[4 * EVENTS_MAX]; /* groups of the samples, as the batches took them */
    size_t shown_count;
    double filtered; /* as the reports say */
} stage;

/* A stage with one teacher, of STEPS batches. */
stage *stage_up(uint32_t staleness);

/* Runs it to its end. Errors: the trainer's. */
opd_err stage_run(void);
void stage_down(void);

#endif
