/* folder.h - the folder of a run: what is where, and which stages are done.
 *
 *   runs/NAME/config.yaml      the effective configuration
 *             state.json       results of the finished stages
 *             metrics.jsonl    a line per step
 *             samples.jsonl    every k-th sample
 *             summary.json     at the end
 *             checkpoints/     step-NNNNNN/, or STAGE/step-NNNNNN/ in a recipe of stages
 *             data/            generated files
 *             trace.json       with run.trace; trace-STAGE.json in a file with stages
 *             log
 * Thread: the caller's, blocking; used between stages. The folder owns its descriptors.
 */
#ifndef OPD_ACTORS_RUN_FOLDER_H
#define OPD_ACTORS_RUN_FOLDER_H

#include "actors/run/result.h"

typedef struct opd_run_folder {
    char path[OPD_PATH_SIZE];
    int metrics_fd, samples_fd, log_fd; /* -1: not open */
    opd_stage_result *results;          /* of finished stages, in order */
    size_t result_count;
    bool made;                          /* by this call: it was not there, or --force */
    bool replaces;                      /* an older run waits aside, see --force      */
    const opd_alloc *alloc;
} opd_run_folder;

/* Makes runs/NAME (or, with resume, opens it and reads what is done; with force, empties it
 * first), writes config.yaml and opens the files. Errors: EXISTS (with the three remedies),
 * NOT_FOUND (nothing to resume), MISMATCH (resume under another configuration), IO, DISK. */
OPD_MUST_CHECK opd_err opd_run_folder_open(opd_run_folder *folder, const opd_config *config,
                                           bool resume, bool force, const opd_alloc *alloc);
void opd_run_folder_close(opd_run_folder *folder);

/* Removes a folder that this call made and in which nothing was learnt or measured, so that a
 * run that failed on its input leaves nothing behind. Any other folder stays. */
void opd_run_folder_abandon(opd_run_folder *folder);

/* The result of a finished stage, or NULL. */
const opd_stage_result *opd_run_folder_result(const opd_run_folder *folder, const char *stage);

/* Adds a finished stage and writes state.json. Errors: IO, DISK, NOMEM. */
OPD_MUST_CHECK opd_err opd_run_folder_add(opd_run_folder *folder,
                                          const opd_stage_result *result);

/* Where a stage's trace goes. */
void opd_run_folder_trace(const opd_run_folder *folder, const opd_config *config,
                          const char *stage, char out[OPD_PATH_SIZE]);

/* Where a stage's checkpoints go. */
void opd_run_folder_checkpoints(const opd_run_folder *folder, const opd_config *config,
                                const char *stage, char out[OPD_PATH_SIZE]);

#endif
