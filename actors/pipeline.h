/* pipeline.h - one stage as a set of actors: spawned, linked, run to the end, taken down.
 *
 * The only file that knows every role. Order of start (and, reversed, of stopping):
 *   monitor, checkpoint, trainer, batcher, reward, [scorer], [teacher, [teacher host]],
 *   rollout, [evaluator], dataset, guardian
 * so that every actor finds those it opens links to.
 * Thread: the caller's becomes the loop's until the stage has ended.
 */
#ifndef OPD_ACTORS_PIPELINE_H
#define OPD_ACTORS_PIPELINE_H

#include "actors/monitor/screen.h"
#include "actors/run/assets.h"
#include "actors/trainer/trainer_actor.h"

typedef struct opd_pipeline_options {
    opd_assets *assets;
    const char *checkpoint_dir;
    const char *program;             /* the opd command, for `opd serve` children */
    int metrics_fd, samples_fd, screen_fd; /* -1: none */
    opd_screen screen;
    bool handle_signals;
} opd_pipeline_options;

/* Runs the stage. out_outcome tells what happened, also after an error. Errors: the reason
 * the system stopped with. */
OPD_MUST_CHECK opd_err opd_pipeline_run(const opd_pipeline_options *options,
                                        opd_trainer_outcome *out_outcome);

#endif
