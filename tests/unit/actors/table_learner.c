/* table_learner.c - see table_learner.h. With beta1 = 0 and no clipping AdamW's first moment is the gradient
 * itself, bit for bit; the critic's head passes the state on as the value. */
#include "tests/unit/actors/table_learner.h"

#include <math.h>

#include "kernels/cpu/cpu.h"
#include "tests/support/test.h"
#include "tests/unit/actors/table_lm.h"

static opd_learner_options options_of(const opd_learner_options *objective, const case_data *d,
                                      const table_lm *table, opd_model *model, size_t cut) {
    opd_learner_options o = *objective;
    size_t all = d->tokens + d->samples;
    o.lm = &table_lm_ops;
    o.model = model;
    o.objective = OPD_OBJECTIVE_POLICY;
    o.micro_batch_tokens = cut > 0 ? cut : all;
    o.samples_max = d->samples;
    o.tokens_max = all;
    bool all_ids = o.signal.coef > 0 && o.signal.support == OPD_SUPPORT_FULL;
    o.asked_k = o.signal.coef > 0 && opd_support_asks(o.signal.support) ? o.signal.k : 0;
    o.teacher_k = all_ids ? d->vocab : o.student_k + (o.student_k > 0); /* one more than the support takes */
    o.teachers_max = o.steps_per_batch = 1;
    o.ref_params = o.policy.kl_coef > 0 || o.advantage.estimator.kl_coef > 0 ? table->ref_logp : NULL;
    o.optimizer = (opd_optimizer_config){.lr = 1e-3, .beta2 = 0.95, .eps = 1e-8};
    o.critic_lr = 1e-3;
    return o;
}

/* The student's k likeliest ids of a row, ties by the lower id, and what the teacher says of each. The
 * weights that wrote the answers are those that learn. */
static void ask(const case_data *d, size_t row, size_t k, int32_t *out_ids, float *out_logp) {
    const float *logits = d->logits + row * d->vocab;
    bool taken[CASE_VOCAB_MAX] = {false};
    for (size_t i = 0; i < k; i++) {
        size_t best = d->vocab;
        for (size_t j = 0; j < d->vocab; j++)
            if (!taken[j] && (best == d->vocab || logits[j] > logits[best])) best = j;
        taken[best] = true;
        out_ids[i] = (int32_t)best;
        out_logp[i] = NAN;
        for (size_t j = row * d->vocab; j < (row + 1) * d->vocab; j++)
            if (d->ids[j] == (int32_t)best) out_logp[i] = d->logps[j];
    }
}

static void add_sample(opd_batch *batch, const case_data *d, size_t i) {
    size_t row = d->offsets[i], rows = d->offsets[i + 1] - row;
    int32_t tokens[1 + CASE_TOKENS_MAX], ids[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    int32_t asked[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    float logps[CASE_TOKENS_MAX * CASE_VOCAB_MAX], asked_logp[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    tokens[0] = (int32_t)row;
    for (size_t t = 0; t < rows; t++) {
        tokens[1 + t] = d->sampled[row + t];
        ask(d, row + t, batch->asked_k, asked + t * batch->asked_k, asked_logp + t * batch->asked_k);
        for (size_t k = 0; k < batch->top_k; k++) {
            ids[t * batch->top_k + k] = d->ids[(row + t) * d->vocab + k];
            logps[t * batch->top_k + k] = d->logps[(row + t) * d->vocab + k];
        }
    }
    opd_batch_sample s = {.group = d->groups[i], .prompt_len = 1, .response_len = (uint32_t)rows,
                          .tokens = tokens, .rollout_logp = d->rollout + row, .teacher_logp = d->teacher + row,
                          .teacher_valid = d->valid + row, .teacher_topk = ids, .teacher_topk_logp = logps,
                          .asked_ids = asked, .asked_logp = asked_logp,
                          .reward = d->rewards[i], .reward_valid = d->reward_valid[i] != 0};
    CHECK_OK(opd_batch_add(batch, &s));
}

void table_learn(const opd_learner_options *objective, const case_data *d, const size_t *order, size_t cut,
                 table_outcome *out) {
    table_lm table = {.rows = d->tokens, .vocab = d->vocab, .old_logp = d->old, .old_values = d->values,
                      .ref_logp = d->ref};
    opd_tensor tensor;
    opd_model model;
    opd_learner *learner;
    opd_batch *batch;
    bool done = false;
    size_t logits = d->tokens * d->vocab;
    table_lm_set(&table);
    table_model_init(&table, &tensor, &model);
    memcpy(model.params, d->logits, logits * sizeof(float));
    memcpy(model.params + logits, d->values_now, d->tokens * sizeof(float));
    opd_learner_options o = options_of(objective, d, &table, &model, cut);
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &o.kernels));
    CHECK_OK(opd_learner_create(&o, &learner));
    if (opd_learner_critic(learner) != NULL) opd_learner_critic(learner)->head.params[0] = 1;
    CHECK_OK(opd_batch_create(NULL, o.samples_max, o.tokens_max, o.teacher_k, o.asked_k, 1, &batch));
    opd_batch_clear(batch);
    for (size_t i = 0; i < d->samples; i++) add_sample(batch, d, order != NULL ? order[i] : i);
    opd_learner_begin(learner, batch);
    while (!done) CHECK_OK(opd_learner_advance(learner, &done));
    *out = (table_outcome){.stepped = opd_learner_stepped(learner)};
    opd_learner_report(learner, out->v);
    memcpy(out->dlogits, opd_learner_optimizer(learner)->m, logits * sizeof(float));
    memcpy(out->dvalues, opd_learner_optimizer(learner)->m + logits, d->tokens * sizeof(float));
    opd_batch_destroy(batch);
    opd_learner_destroy(learner);
    opd_kernels_destroy(o.kernels);
    table_model_fini(&model);
}
