/* test_objectives.c - what an rl stage computes, from its configuration to the gradient by the logits, by the
 * program's own validator and a real learner: every estimator x reduction x correction and every divergence x
 * support x tail x choice of tokens against PyTorch in float64 (tests/golden/make_objectives.py),
 * ||x - ref|| <= 1e-5 ||ref|| + 1e-7; and what must hold of any: neither the order of samples nor the cut into
 * micro-batches matters, and a teacher that agrees adds nothing. The model is a table of logits. */
#include "tests/unit/actors/table_learner.h"

#include "tests/support/test.h"

static size_t learnt;

static void check_learner(const objective_case *c, const case_data *d) {
    table_outcome got;
    const case_result *want = &c->want;
    if (!case_whole(d)) return; /* a learner's mask has no holes but its own: test_estimators.c */
    learnt++;
    table_learn(&c->o, d, NULL, 0, &got);
    if (got.stepped != c->stepped)
        opd_test_fail(__FILE__, __LINE__, "%s, data %zu: a step is %smade", c->text, c->data,
                      got.stepped ? "" : "not ");
    if (!c->stepped) return;
    double loss = want->loss + c->o.signal.coef * want->signal;
    if (c->o.advantage.estimator.kind == OPD_ESTIMATOR_PPO) {
        float wanted[CASE_TOKENS_MAX];
        for (size_t t = 0; t < d->tokens; t++) wanted[t] = (float)c->o.critic.coef * want->dvalues[t];
        case_array(c, "dvalues", got.dvalues, wanted, d->tokens, 1e-5);
        loss += c->o.critic.coef * want->value_loss;
    }
    case_array(c, "dlogits", got.dlogits, want->dlogits, d->tokens * d->vocab, 1e-5);
    case_number(c, "loss", got.v[OPD_METRIC_LOSS], loss, 1e-5);
    case_number(c, "pg_loss", got.v[OPD_METRIC_PG_LOSS], want->pg_loss, 1e-5);
    if (c->o.correction.kind == OPD_CORRECTION_NONE) return;
    case_number(c, "tis", got.v[OPD_METRIC_TIS], want->tis, 1e-5);
    case_number(c, "tis_clipfrac", got.v[OPD_METRIC_TIS_CLIPFRAC], want->tis_clipfrac, 1e-5);
}

TEST(every_combination_learns_what_pytorch_says) {
    learnt = 0;
    CHECK_INT(objective_each(check_learner), 8 * 3 * 6 * 2 * 2 + (4 * 5 * 3 + 1) * 5);
    CHECK_INT(learnt, 8 * 3 * 6 * 2 + (4 * 5 * 3 + 1) * 5);
}

/* ---- what must not matter ---- */

static void check_order_and_cuts(const objective_case *c, const case_data *d) {
    table_outcome whole, other;
    size_t order[CASE_SAMPLES_MAX];
    if (!case_whole(d)) return;
    for (size_t i = 0; i < d->samples; i++) order[i] = (2 * i + 1) % d->samples; /* odd ones, then even */
    if (d->samples % 2 == 0)
        for (size_t i = 0; i < d->samples; i++) order[i] = d->samples - 1 - i;
    table_learn(&c->o, d, NULL, 0, &whole);
    size_t longest = 0;
    for (size_t i = 0; i < d->samples; i++)
        if (d->offsets[i + 1] - d->offsets[i] > longest) longest = d->offsets[i + 1] - d->offsets[i];
    const size_t cuts[] = {0, longest + 1, longest + 3}; /* all in one, mostly one by one, by two */
    for (size_t k = 0; k < 6; k++) {
        table_learn(&c->o, d, k % 2 == 0 ? order : NULL, cuts[k / 2], &other);
        CHECK_INT(other.stepped, whole.stepped);
        case_array(c, "dlogits in another order or cut", other.dlogits, whole.dlogits, d->tokens * d->vocab,
                   1e-6);
        case_array(c, "dvalues in another order or cut", other.dvalues, whole.dvalues, d->tokens, 1e-6);
        if (whole.stepped)
            case_number(c, "loss in another order or cut", other.v[OPD_METRIC_LOSS], whole.v[OPD_METRIC_LOSS],
                        1e-6);
    }
}

TEST(neither_order_nor_cuts_matter_to_a_learner) { (void)objective_each(check_order_and_cuts); }

/* ---- a teacher that agrees ---- */

/* The teacher says of every token what the student says, at the student's temperature. */
static void agree(case_data *d, double temperature) {
    for (size_t t = 0; t < d->tokens; t++) {
        const float *z = d->logits + t * d->vocab;
        double sum = 0;
        for (size_t j = 0; j < d->vocab; j++) sum += exp((double)z[j] / temperature);
        for (size_t j = 0; j < d->vocab; j++) { /* the likeliest first */
            size_t at = j;
            float logp = (float)((double)z[j] / temperature - log(sum));
            float *logps = d->logps + t * d->vocab;
            int32_t *ids = d->ids + t * d->vocab;
            for (; at > 0 && logps[at - 1] < logp; at--) {
                logps[at] = logps[at - 1];
                ids[at] = ids[at - 1];
            }
            logps[at] = logp;
            ids[at] = (int32_t)j;
            if ((size_t)d->sampled[t] == j) d->teacher[t] = d->old[t] = logp;
        }
    }
}

/* Where parts of a distribution do not sum to 1, for what is truncated or raised to a floor, these two are
 * biased (docs/learning.md): they still move mass out of the support or into it. */
static bool biased(const opd_contrast_config *s) {
    bool parts = (s->divergence.tail == OPD_TAIL_TRUNCATE && s->support != OPD_SUPPORT_FULL) ||
                 (s->divergence.tail != OPD_TAIL_RENORMALISE && s->divergence.logp_floor < 0);
    return parts && s->divergence.kind <= OPD_DIVERGENCE_FORWARD_KL && s->support != OPD_SUPPORT_SAMPLED;
}

static void check_agreement(const objective_case *c, const case_data *d) {
    static const float zero[CASE_TOKENS_MAX * CASE_VOCAB_MAX];
    opd_learner_options o = c->o;
    case_data same = *d;
    table_outcome got;
    if (!case_whole(d) || (o.signal.coef == 0 && !o.advantage.use_opd)) return;
    agree(&same, o.temperature);
    o.advantage.estimator.kind = OPD_ESTIMATOR_GRPO; /* what the teacher adds, alone */
    o.advantage.only_reward = true;
    o.advantage.whiten = false;
    o.constant_prob = 0;
    o.advantage.invalid_policy = OPD_INVALID_MASK;
    o.policy.entropy_coef = o.policy.kl_coef = o.advantage.estimator.kl_coef = 0;
    table_learn(&o, &same, NULL, 0, &got);
    CHECK_INT(got.stepped, memchr(d->valid, 1, d->tokens) != NULL);
    if (!got.stepped) return;
    case_number(c, "the loss of who agrees", got.v[OPD_METRIC_LOSS], 0, 0);
    learnt++;
    if (biased(&o.signal)) return;
    case_array(c, "the gradient of who agrees", got.dlogits, zero, d->tokens * d->vocab, 0);
}

TEST(a_teacher_that_agrees_teaches_nothing) {
    learnt = 0;
    (void)objective_each(check_agreement);
    CHECK(learnt > 400);
}
