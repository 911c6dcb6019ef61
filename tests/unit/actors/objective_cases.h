/* objective_cases.h - the cases of tests/golden/objectives.bin: what an rl stage computes, by PyTorch.
 *
 * A case is a text of settings. It goes through the program's own validator and becomes the options of a
 * learner by the program's own hand (opd_stage_objective), so that a case proves these, too.
 * Thread: the test's. What a callback gets is freed after it.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_OBJECTIVE_CASES_H
#define OPD_TESTS_UNIT_ACTORS_OBJECTIVE_CASES_H

#include "actors/trainer/learner.h"
#include "opd/config.h"

enum { CASE_SAMPLES_MAX = 8, CASE_TOKENS_MAX = 48, CASE_VOCAB_MAX = 5, CASE_TEXT_MAX = 640 };

/* A batch; arrays by token unless said. */
typedef struct case_data {
    size_t samples, tokens, vocab, offsets[CASE_SAMPLES_MAX + 1];
    uint64_t groups[CASE_SAMPLES_MAX];
    uint8_t reward_valid[CASE_SAMPLES_MAX], mask[CASE_TOKENS_MAX], valid[CASE_TOKENS_MAX];
    int32_t sampled[CASE_TOKENS_MAX];
    double rewards[CASE_SAMPLES_MAX];
    float logits[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    int32_t ids[CASE_TOKENS_MAX * CASE_VOCAB_MAX];  /* the teacher's, likeliest first; -1: no answer */
    float logps[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    float old[CASE_TOKENS_MAX], rollout[CASE_TOKENS_MAX], teacher[CASE_TOKENS_MAX], ref[CASE_TOKENS_MAX];
    float values[CASE_TOKENS_MAX], values_now[CASE_TOKENS_MAX];
} case_data;

typedef struct case_result {
    double loss, pg_loss, kl, tis, tis_clipfrac, value_loss, clip_frac, opsm_frac, ratio, ppo_kl, signal;
    float advantages[CASE_TOKENS_MAX], dlogits[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    float dvalues[CASE_TOKENS_MAX]; /* zeros unless the estimator is ppo */
} case_result;

typedef struct objective_case {
    char text[CASE_TEXT_MAX];
    size_t data;
    bool stepped; /* there is something to learn */
    const opd_config_stage *stage;
    opd_learner_options o; /* what opd_stage_objective sets */
    case_result want;
} objective_case;

/* Asks the validator about settings ("key=value ...", keys without a section are of train) on an rl stage
 * with a teacher. The caller destroys *out. */
opd_err case_config(const char *text, opd_config **out);

/* Calls `check` with each case; returns how many there are. */
size_t objective_each(void (*check)(const objective_case *c, const case_data *d));

/* Whether no token is masked: then the batch can be given to a learner. */
bool case_whole(const case_data *d);

/* Fail the case unless ||value - want|| <= relative * ||want|| + 1e-7. */
void case_number(const objective_case *c, const char *what, double value, double want, double relative);
void case_array(const objective_case *c, const char *what, const float *values, const float *want,
                size_t count, double relative);

#endif
