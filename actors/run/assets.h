/* assets.h - what a stage works on: models, tokenizer, data, learner, and all its sizes.
 *
 * Everything that can be wrong with a stage's inputs is found here, before an actor or a child
 * process exists.
 * Thread: the caller's, blocking; afterwards each asset belongs to the lane or actor that the
 * pipeline gives it to. opd_assets_close frees all of it.
 */
#ifndef OPD_ACTORS_RUN_ASSETS_H
#define OPD_ACTORS_RUN_ASSETS_H

#include "actors/checkpoint/checkpoint.h"
#include "actors/dataset/dataset.h"
#include "actors/evaluator/sets.h"
#include "actors/trainer/learner.h"
#include "opd/config.h"

/* Every bound of a stage, derived from its configuration in one place (sizes_of). */
typedef struct opd_sizes {
    uint32_t max_len;        /* tokens of a sequence                                     */
    uint32_t score_len;      /* the same as teachers see it, with a privileged prompt    */
    uint32_t batch_prompts;  /* groups (or examples) of a batch                          */
    uint32_t samples;        /* per prompt; 1 for examples                               */
    uint32_t window_groups;  /* groups in work: batch_prompts * (max_staleness + 1), and spare_groups */
    uint32_t spare_groups;   /* of over-sampling: rollout.over_sampling_prompts - batch_prompts */
    uint32_t window_msgs;    /* samples in work                                          */
    uint64_t window_bytes;   /* and their payload                                        */
    uint32_t slots;          /* sequences decoded at once                                */
    uint32_t messages_max;   /* envelopes of the system                                  */
    uint32_t teacher_k;      /* likely ids of each token that the teacher lists          */
    uint32_t asked_k;        /* of the student's likely ids about which it is asked      */
    uint32_t parts;          /* questions about one sample, to all its teachers          */
    size_t micro_tokens;     /* of a micro-batch                                         */
    uint64_t teacher_cache_bytes; /* keys and values that an in-process teacher keeps     */
    size_t batch_tokens;     /* of a whole batch                                         */
} opd_sizes;

typedef struct opd_assets {
    const opd_config_stage *config;
    const opd_lm_ops *lm;      /* what the models are made of; NULL: the transformer */
    const opd_alloc *alloc;
    opd_tokenizer *tokenizer;
    char tokenizer_hash[17];   /* 16 hex digits */
    opd_model *model;
    opd_model *teacher;        /* in-process teacher, or NULL */
    opd_model *reference;      /* what KL terms hold the student to, or NULL */
    opd_dataset *train;        /* NULL where the stage has none */
    opd_dataset *validation;   /* held-out examples of a supervised stage, or NULL */
    opd_eval_sets evals;
    opd_eval_metric best;      /* train.keep_best, where it is given */
    opd_kernels *rollout_kernels, *trainer_kernels, *scorer_kernels;
    opd_kernels *eval_kernels; /* of the engine of evaluations beside the training; NULL: none */
    opd_learner *learner;      /* NULL in eval stages */
    opd_sizes sizes;
    uint64_t first_step, steps; /* batches done before (resume); in all */
    opd_checkpoint_state resumed; /* what the checkpoint says; zeros without one */
} opd_assets;

/* Loads and checks everything for a stage. checkpoint_dir: where its checkpoints are; with
 * resume the newest one, if any, is continued. lm (models/lm.h): NULL is the transformer.
 * Errors: those of models, data and configuration, each with its place. */
OPD_MUST_CHECK opd_err opd_assets_open(opd_assets *assets, const opd_config_stage *config,
                                       const char *checkpoint_dir, bool resume,
                                       const opd_lm_ops *lm, const opd_alloc *alloc);
void opd_assets_close(opd_assets *assets);

/* The directory of a configured teacher: its path, or path/step-NNNNNN. */
OPD_MUST_CHECK opd_err opd_teacher_dir(const opd_config_teacher *teacher, char *out,
                                       size_t out_size);

/* The first of the teachers that distil in this stage, or NULL without OPD. */
const opd_config_teacher *opd_stage_teacher(const opd_config_stage *config);

/* At which ids the stage compares student and teacher (objective.c). */
opd_support_kind opd_stage_support(const opd_config_opd *opd);

/* Sets what a stage's learner computes: reduction and temperature; of an rl stage advantages, losses,
 * correction, signal and critic, too. Nothing else of the options is touched. */
void opd_stage_objective(const opd_config_stage *config, opd_learner_options *out);

/* Tries on three tokens whether an rl stage's learner can learn (trainer/prover.h), and says so in the
 * log. Errors: CONFIG with the reason; NOMEM. */
OPD_MUST_CHECK opd_err opd_stage_prove(const opd_config_stage *config,
                                       const opd_learner_options *options);

#endif
