/* checkpoint.h - a run's state on disk, written so that a crash leaves the old or the new one.
 *
 * checkpoints/step-000100/ is a Hugging Face directory (config.json, generation_config.json,
 * model.safetensors, the tokenizer's files) plus
 *   optimizer.safetensors  AdamW's moments as tensors "m.NAME" and "v.NAME"
 *   trainer_state.json     {"step", "group", "optimizer_step", "seed", "stage", "teacher"}
 * It is written under another name and renamed when whole.
 * Thread: any; blocking file calls (the run's disk lane). Nothing is kept.
 */
#ifndef OPD_ACTORS_CHECKPOINT_H
#define OPD_ACTORS_CHECKPOINT_H

#include "models/model.h"
#include "models/optimizer.h"
#include "models/tokenizer.h"
#include "opd/alloc.h"

/* What a resumed run needs besides weights and moments. */
typedef struct opd_checkpoint_state {
    uint64_t step;           /* batches done; names the folder          */
    uint64_t group;          /* first group that is not learnt yet       */
    uint64_t optimizer_step;
    uint64_t seed;
} opd_checkpoint_state;

/* Writes dir/step-NNNNNN (replacing one of that step) and then removes all but the `keep`
 * newest (0: none is removed). state: [3 * param_count] weights, m, v.
 * model gives configuration and tensor names; its own weights are not read.
 * Errors: IO, DISK (nothing half-written stays), NOMEM. */
OPD_MUST_CHECK opd_err opd_checkpoint_write(const char *dir, const opd_model *model,
                                            const opd_tokenizer *tokenizer,
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

/* Fills optimizer's moments and step from path/optimizer.safetensors.
 * Errors: NOT_FOUND, PARSE, MISMATCH (a tensor of another shape, named). */
OPD_MUST_CHECK opd_err opd_checkpoint_read_moments(const char *path, const opd_model *model,
                                                   opd_optimizer *optimizer,
                                                   const opd_alloc *alloc);

#endif
