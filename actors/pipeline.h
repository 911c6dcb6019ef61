/* pipeline.h - one stage as a set of actors: spawned, linked, run to the end, taken down.
 *
 * tree.c is the only file that knows every role. Order of start (and, reversed, of stopping):
 *   monitor, checkpoint, [teacher hosts], trainer, batcher, reward, [scorer], [panel, teachers],
 *   rollout, [eval-rollout], [evaluator], dataset
 * so that every actor finds those it opens links to.
 * Thread: the caller's becomes the loop's until the stage has ended.
 */
#ifndef OPD_ACTORS_PIPELINE_H
#define OPD_ACTORS_PIPELINE_H

#include "actors/monitor/screen.h"
#include "actors/run/assets.h"
#include "actors/trainer/trainer_actor.h"

/* Copied by open; what it points to lives until close. */
typedef struct opd_pipeline_options {
    opd_assets *assets;
    const char *checkpoint_dir;
    const char *program;             /* the opd command, for `opd serve` children */
    int metrics_fd, samples_fd, screen_fd; /* -1: none */
    opd_screen screen;
    bool handle_signals;             /* SIGUSR1 prints the topology, too */
    struct opd_teacher_account *accounts; /* by place in stage->teachers; NULL: none */
    const char *trace_path;          /* a Chrome trace of the stage; NULL: none */
    opd_env *env;                    /* to run on, borrowed; NULL: a real one, made for it */
    void (*watch)(void *arg, opd_system *system); /* called before the first actor is spawned,
                                                     to add taps (opd/tap.h); may be NULL */
    void *watch_arg;
} opd_pipeline_options;

/* A stage whose actors live. */
typedef struct opd_pipeline opd_pipeline;

/* Spawns every role on the env; nothing moves before the env runs. out_outcome is written until
 * close, also when the stage fails. Errors: those of the roles' starts, NOMEM; nothing is left
 * open then. Ended by opd_pipeline_close. */
OPD_MUST_CHECK opd_err opd_pipeline_open(const opd_pipeline_options *options,
                                         opd_trainer_outcome *out_outcome,
                                         opd_pipeline **out_pipeline);

/* Runs the loop until the stage has ended; once. Errors: the reason the system stopped with. */
OPD_MUST_CHECK opd_err opd_pipeline_run(opd_pipeline *pipeline);

/* What a signal does: the run stops in order after its present step and saves; with `now` it ends
 * at once and nothing is saved. On the loop's thread, while it runs. */
void opd_pipeline_interrupt(opd_pipeline *pipeline, int signal_number, bool now);

/* Takes everything down in reverse and hands on `err` (the result of run) with its context; a
 * failure of closing counts where err is OPD_OK. */
OPD_MUST_CHECK opd_err opd_pipeline_close(opd_pipeline *pipeline, opd_err err);

/* The running parts, for those who watch or disturb them. Owned by the pipeline. */
opd_system *opd_pipeline_system(opd_pipeline *pipeline);
const opd_roles *opd_pipeline_roles(const opd_pipeline *pipeline);

/* The three in one: open, run, close. */
OPD_MUST_CHECK opd_err opd_pipeline_execute(const opd_pipeline_options *options,
                                            opd_trainer_outcome *out_outcome);

#endif
