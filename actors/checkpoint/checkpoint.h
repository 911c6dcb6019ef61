/* checkpoint.h - a run's state on disk, written so that a crash leaves the old or the new one.
 *
 * checkpoints/step-000100/ is a Hugging Face directory (config.json, generation_config.json,
 * model.safetensors, the tokenizer's files) plus
 *   optimizer.safetensors  AdamW's moments as tensors "m.NAME" and "v.NAME"
 *   critic.safetensors     with a critic: its head's weights and their moments, named alike
 *   trainer_state.json     the counts of OPD_CHECKPOINT_COUNTS, by name
 * It is written under another name and put in place when whole; one of the same step changes
 * places with it in one move (where the file system cannot, it is removed first).
 * Thread: any; blocking file calls (the run's disk lane). Nothing is kept.
 */
#ifndef OPD_ACTORS_CHECKPOINT_H
#define OPD_ACTORS_CHECKPOINT_H

#include "models/model.h"
#include "models/optimizer.h"
#include "models/tokenizer.h"
#include "opd/alloc.h"

/* What a resumed run needs besides weights and moments: where it was (step: batches done,
 * names the folder; group: the first that is not learnt yet), and what the stage had counted
 * and measured, so that its summary is that of an undisturbed run (before_total 0: the
 * accuracy at the start was not measured). best_step: the checkpoint with the best value, best_1e9
 * billionths, of train.keep_best, 0: none yet; judged_step: one whose value was being measured, 0: none. */
#define OPD_CHECKPOINT_COUNTS(X)                                                               \
    X(step) X(group) X(optimizer_step) X(seed)                                                 \
    X(samples) X(response_tokens) X(invalid_tokens) X(unscored_batches) X(skipped_steps)       \
    X(before_correct) X(before_total) X(degraded_tokens)                                       \
    X(best_step) X(best_1e9) X(judged_step)

typedef struct opd_checkpoint_state {
#define X(name) uint64_t name;
    OPD_CHECKPOINT_COUNTS(X)
#undef X
} opd_checkpoint_state;

/* Writes dir/step-NNNNNN (replacing one of that step) and then removes all but the `keep`
 * newest, the best and the one being judged (0: none is removed). state: [3 * param_count] weights, m, v; and as much of the critic's
 * head, which is given as a model, or NULL. The models give configuration and tensor names; their
 * own weights are not read.
 * Errors: IO, DISK (nothing half-written stays), NOMEM. */
OPD_MUST_CHECK opd_err opd_checkpoint_write(const char *dir, const opd_model *model,
                                            const opd_model *critic, const opd_tokenizer *tokenizer,
                                            const opd_checkpoint_state *info,
                                            const float *state, uint32_t keep,
                                            const opd_alloc *alloc);

/* Path of dir/step-NNNNNN to out[OPD_PATH_SIZE]. */
void opd_checkpoint_path(const char *dir, uint64_t step, char *out);

/* Finds the newest whole checkpoint below dir. Errors: NOT_FOUND. */
OPD_MUST_CHECK opd_err opd_checkpoint_newest(const char *dir, uint64_t *out_step);

/* Reads trainer_state.json. Errors: NOT_FOUND, PARSE. */
OPD_MUST_CHECK opd_err opd_checkpoint_read(const char *path, const opd_alloc *alloc,
                                           opd_checkpoint_state *out_info);

/* Fills optimizer's moments from path/optimizer.safetensors; its step counter is in
 * opd_checkpoint_state.
 * Errors: NOT_FOUND, PARSE, MISMATCH (a tensor of another shape, named). */
OPD_MUST_CHECK opd_err opd_checkpoint_read_moments(const char *path, const opd_model *model,
                                                   opd_optimizer *optimizer,
                                                   const opd_alloc *alloc);

/* The same with weights and moments of the critic's head, from path/critic.safetensors. */
OPD_MUST_CHECK opd_err opd_checkpoint_read_critic(const char *path, opd_model *head,
                                                  opd_optimizer *optimizer,
                                                  const opd_alloc *alloc);

#endif
