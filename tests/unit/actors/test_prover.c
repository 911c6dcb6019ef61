/* test_prover.c - the objective prover: what it accepts, what it refuses, and its expectations against
 * drawing. */
#include "actors/trainer/prover.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"
#include "tests/unit/actors/table_learner.h"

/* GRPO with the sampled OPD term. */
static opd_learner_options plain(void) {
    return (opd_learner_options){
        .temperature = 1, .reduction = OPD_REDUCTION_SAMPLE_MEAN, .reduction_length = 1,
        .advantage = {.estimator = {.normalize_rewards = true, .normalize_std = true, .gamma = 1, .lambda = 1},
                      .use_opd = true, .kl_coef = 1},
        .policy = {.clip_low = 0.2, .clip_high = 0.28, .tau_pos = 1, .tau_neg = 1.05}};
}

/* A divergence on the teacher's two most likely ids, and nothing else. */
static opd_learner_options topk(opd_support_kind support) {
    opd_learner_options o = plain();
    o.advantage.only_reward = true;
    o.advantage.kl_coef = 0;
    o.signal = (opd_contrast_config){.coef = 1, .support = support, .k = 2,
                                     .divergence = {.kind = OPD_DIVERGENCE_FORWARD_KL, .jsd_alpha = 0.5}};
    return o;
}

static opd_err prove(const opd_learner_options *o, size_t samples, bool rewarded) {
    opd_proof proof;
    opd_objective_claim claim = {.learner = o, .samples_per_prompt = samples, .rewarded = rewarded};
    return opd_objective_prove(&claim, NULL, &proof);
}

/* ---- what is accepted ---- */

TEST(every_estimator_with_every_reduction_learns) {
    static const opd_policy_kind losses[] = {OPD_POLICY_CLIP, OPD_POLICY_GSPO, OPD_POLICY_SAPO, OPD_POLICY_CISPO};
    for (int estimator = OPD_ESTIMATOR_GRPO; estimator <= OPD_ESTIMATOR_PPO; estimator++)
        for (size_t loss = 0; loss < 4; loss++)
            for (int reduction = 0; reduction < 3; reduction++)
                for (int teacher = 0; teacher < 2; teacher++) {
                    opd_learner_options o = plain();
                    o.advantage.estimator.kind = (opd_estimator_kind)estimator;
                    o.policy.kind = losses[loss];
                    o.reduction = (opd_reduction)reduction;
                    o.advantage.use_opd = teacher != 0;
                    o.advantage.whiten = estimator == OPD_ESTIMATOR_REINFORCE;
                    CHECK_OK(prove(&o, 4, true));
                }
}

TEST(every_divergence_on_every_support_learns) {
    for (int support = OPD_SUPPORT_TEACHER_TOPK; support <= OPD_SUPPORT_FULL; support++)
        for (int kind = 0; kind < 4; kind++)
            for (int tail = 0; tail < 3; tail++)
                for (int alone = 0; alone < 2; alone++) {
                    opd_learner_options o = topk((opd_support_kind)support);
                    o.signal.divergence.kind = (opd_divergence_kind)kind;
                    o.signal.divergence.tail = (opd_divergence_tail)tail;
                    o.signal.divergence.clip = 1e-6;      /* bounds of the data say nothing */
                    o.signal.divergence.logp_floor = -1e-6;
                    o.advantage.only_reward = alone != 0;
                    CHECK_OK(prove(&o, alone ? 1 : 4, !alone));
                }
    opd_learner_options o = topk(OPD_SUPPORT_SAMPLED);
    o.signal.divergence = (opd_divergence_config){.kind = OPD_DIVERGENCE_LOW_VAR, .tail = OPD_TAIL_TRUNCATE};
    CHECK_OK(prove(&o, 1, false));
}

TEST(small_weights_and_no_reward_learn) {
    opd_learner_options o = plain();
    o.advantage.kl_coef = 1e-3;
    CHECK_OK(prove(&o, 4, true));
    CHECK_OK(prove(&o, 1, false)); /* n = 1, but with a teacher */
    o = topk(OPD_SUPPORT_TEACHER_TOPK);
    o.signal.coef = 1e-3;
    CHECK_OK(prove(&o, 1, false));
    o = plain();
    o.constant_prob = 1e-3;
    o.advantage.only_reward = true;
    CHECK_OK(prove(&o, 1, false));
}

/* ---- what is refused ---- */

TEST(the_drawn_token_s_reverse_kl_as_a_loss_knows_no_teacher) {
    opd_learner_options o = topk(OPD_SUPPORT_SAMPLED);
    o.signal.divergence = (opd_divergence_config){.kind = OPD_DIVERGENCE_REVERSE_KL, .tail = OPD_TAIL_TRUNCATE};
    CHECK_ERR(prove(&o, 1, false), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "is zero"); /* the mean of a score is zero */
    o.policy.entropy_coef = 0.1; /* something else may learn, but not from the teacher */
    CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "no effect");
    o.advantage.only_reward = false;
    CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
}

TEST(one_id_renormalised_is_refused) {
    for (int kind = 0; kind < 4; kind++) {
        opd_learner_options o = topk(OPD_SUPPORT_TEACHER_TOPK);
        o.signal.k = 1;
        o.signal.divergence.kind = (opd_divergence_kind)kind;
        o.signal.divergence.tail = OPD_TAIL_RENORMALISE;
        CHECK_ERR(prove(&o, 1, false), OPD_ERR_CONFIG);
        o.advantage.only_reward = false; /* beside a reward it would go unnoticed */
        CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
        o.signal.divergence.tail = OPD_TAIL_BUCKET;
        CHECK_OK(prove(&o, 4, true));
    }
}

TEST(a_weight_that_whitening_divides_out_is_refused) {
    opd_learner_options o = plain();
    o.advantage.whiten = o.advantage.only_reward = true;
    CHECK_ERR(prove(&o, 4, true), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "whitening");
    o.advantage.only_reward = false;
    CHECK_OK(prove(&o, 4, true));
}

TEST(grpo_alone_with_one_sample_is_refused) {
    opd_learner_options o = plain();
    o.advantage.use_opd = false;
    CHECK_ERR(prove(&o, 1, true), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "rewards that differ");
    CHECK_ERR(prove(&o, 4, false), OPD_ERR_CONFIG); /* as without any reward */
    CHECK_OK(prove(&o, 2, true));
}

TEST(settings_out_of_range_are_refused) {
    opd_learner_options o = topk(OPD_SUPPORT_TEACHER_TOPK);
    const double bad[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < OPD_COUNTOF(bad); i++) {
        o.signal.coef = bad[i];
        CHECK_ERR(prove(&o, 1, false), OPD_ERR_CONFIG);
    }
}

/* ---- drawing ---- */

enum { V = OPD_TOY_VOCAB, N = OPD_TOY_SAMPLES_MAX, OUTCOMES = 81, DRAWS = 100000 };

/* The toy, told once more: the prover's claim is about what a learner does with such a batch. */
static const float STUDENT[V] = {0.4f, -0.3f, 0.1f}, REFERENCE[V] = {-0.2f, 0.3f, 0.2f};
static const float TEACHER[V] = {0.2f, -1.0f, 0.9f};
static const double REWARDS[V] = {1, 0, 0.25};

static void log_softmax(const float *z, double temperature, float *out) {
    double sum = 0;
    for (int j = 0; j < V; j++) sum += exp((double)z[j] / temperature);
    for (int j = 0; j < V; j++) out[j] = (float)((double)z[j] / temperature - log(sum));
}

/* Outcome number `outcome` as a batch: four answers of one token, of two prompts. */
static void make_batch(size_t outcome, double temperature, case_data *d) {
    float student[V], reference[V], teacher[V];
    static const int32_t likeliest[V] = {2, 0, 1};
    *d = (case_data){.samples = N, .tokens = N, .vocab = V};
    log_softmax(STUDENT, temperature, student);
    log_softmax(REFERENCE, temperature, reference);
    log_softmax(TEACHER, temperature, teacher);
    for (size_t i = 0; i < N; i++, outcome /= V) {
        size_t id = outcome % V;
        d->offsets[i + 1] = i + 1;
        d->groups[i] = i / 2;
        d->reward_valid[i] = d->mask[i] = d->valid[i] = 1;
        d->sampled[i] = (int32_t)id;
        d->rewards[i] = REWARDS[id];
        d->old[i] = d->rollout[i] = student[id];
        d->ref[i] = reference[id];
        d->teacher[i] = teacher[id];
        for (size_t j = 0; j < V; j++) {
            d->logits[i * V + j] = STUDENT[j];
            d->ids[i * V + j] = likeliest[j];
            d->logps[i * V + j] = teacher[likeliest[j]];
        }
    }
}

/* The first outcome that is this one but for the order of prompts and of their answers (which does not matter:
 * test_objectives.c). */
static size_t first_alike(size_t outcome) {
    size_t pair[2] = {outcome % (V * V), outcome / (V * V)};
    for (int g = 0; g < 2; g++) {
        size_t swapped = pair[g] % V * V + pair[g] / V;
        if (swapped < pair[g]) pair[g] = swapped;
    }
    size_t low = pair[0] < pair[1] ? pair[0] : pair[1], high = pair[0] + pair[1] - low;
    return low * V * V + high;
}

/* What a learner makes of each outcome; the settings that the prover puts where they show, there. */
static void learn_outcomes(const opd_learner_options *objective, double gradients[OUTCOMES][V]) {
    opd_learner_options o = *objective;
    o.signal.divergence.clip = o.signal.divergence.logp_floor = 0;
    o.signal.selection = OPD_SELECT_ALL;
    if (o.signal.k > V - 1) o.signal.k = V - 1;
    o.student_k = o.signal.coef > 0 && o.signal.support != OPD_SUPPORT_FULL ? o.signal.k : 0;
    o.reduction_length = 1;
    if (o.constant_prob > 0) o.constant_prob = 0.3;
    for (size_t i = 0; i < OUTCOMES; i++) {
        case_data d;
        table_outcome got;
        size_t same = first_alike(i);
        if (same < i) {
            memcpy(gradients[i], gradients[same], sizeof gradients[i]);
            continue;
        }
        make_batch(i, o.temperature, &d);
        table_learn(&o, &d, NULL, 0, &got);
        for (size_t j = 0; j < V; j++) gradients[i][j] = 0;
        for (size_t j = 0; j < (size_t)N * V && got.stepped; j++) gradients[i][j % V] += (double)got.dlogits[j];
    }
}

/* How often each outcome was drawn; seeded. */
static void draw(double temperature, uint32_t counts[OUTCOMES]) {
    float student[V];
    opd_rng rng;
    opd_rng_init(&rng, 17);
    log_softmax(STUDENT, temperature, student);
    memset(counts, 0, OUTCOMES * sizeof *counts);
    for (int n = 0; n < DRAWS; n++) {
        size_t outcome = 0;
        for (int i = 0; i < N; i++) {
            double u = opd_rng_uniform(opd_rng_next(&rng)) - exp((double)student[0]);
            size_t id = u < 0 ? 0 : u < exp((double)student[1]) ? 1 : 2;
            outcome = outcome * V + id;
        }
        counts[outcome]++;
    }
}

static void expect(const opd_learner_options *o, int teacher, double out[V]) {
    opd_toy *toy;
    opd_objective_claim claim = {.learner = o, .samples_per_prompt = 2, .rewarded = true};
    CHECK_OK(opd_toy_create(&claim, teacher, 1, NULL, &toy));
    CHECK_INT(opd_toy_samples(toy), N);
    CHECK_OK(opd_toy_expectation(toy, out));
    opd_toy_destroy(toy);
}

/* Distance of two vectors in units that count: 4 standard errors (and rounding) in some coordinate are 1. */
static double apart(const double *mean, const double *error, const double *other) {
    double most = 0;
    for (int j = 0; j < V; j++) most = fmax(most, fabs(mean[j] - other[j]) / (4 * error[j] + 1e-6));
    return most;
}

/* Whether a case is the first with its estimator and KL, its estimator and teacher, or its divergence. What else
 * there is does not show: the student is the rollout's, so that corrections are 1, and answers have one token, so
 * that reductions are alike. */
static bool first_of_its_kind(const objective_case *c) {
    enum { KEYS = 512 };
    static char seen[3][KEYS];
    const opd_config_train *t = &c->stage->train;
    const opd_config_opd *o = &c->stage->opd;
    const opd_contrast_config *s = &c->o.signal;
    int place = t->kl_loss_coef > 0 ? 1 : t->kl_coef > 0 ? 2 : 0;
    size_t reference = (((size_t)t->estimator * 3 + (size_t)place) * 4 + (size_t)t->kl_loss_type) * 2 + t->unbiased_kl;
    size_t teacher = (((size_t)t->estimator * 2 + o->enabled) * 4 + (size_t)o->type) * 2 + o->only_reward;
    size_t divergence = (((size_t)s->divergence.kind * 6 + (size_t)s->support) * 3 + (size_t)s->divergence.tail) * 2 + 1;
    const size_t keys[] = {reference, teacher, s->coef > 0 ? divergence : 0};
    bool first = false;
    for (size_t i = 0; i < OPD_COUNTOF(keys); i++) {
        CHECK(keys[i] < KEYS);
        first = first || !seen[i][keys[i]];
        seen[i][keys[i]] = 1;
    }
    return first;
}

static size_t drawn_of;

static void check_drawing(const objective_case *c, const case_data *unused) {
    static const double zero[V];
    static uint32_t drawn[2][OUTCOMES]; /* by temperature: 1, another */
    double gradients[OUTCOMES][V], exact[V], other[V], mean[V] = {0}, error[V] = {0};
    uint32_t *counts = drawn[c->o.temperature != 1];
    (void)unused;
    if (!first_of_its_kind(c)) return;
    drawn_of++;
    if (counts[0] == 0) draw(c->o.temperature, counts);
    learn_outcomes(&c->o, gradients);
    for (int i = 0; i < OUTCOMES; i++)
        for (int j = 0; j < V; j++) {
            mean[j] += gradients[i][j] * counts[i] / DRAWS;
            error[j] += gradients[i][j] * gradients[i][j] * counts[i] / DRAWS;
        }
    for (int j = 0; j < V; j++) error[j] = sqrt(fmax(error[j] - mean[j] * mean[j], 0) / DRAWS);
    expect(&c->o, 0, exact);
    if (!(apart(mean, error, exact) <= 1))
        opd_test_fail(__FILE__, __LINE__, "%s: the expectation is %.2f times 4 standard errors away", c->text,
                      apart(mean, error, exact));
    CHECK(apart(mean, error, zero) > 2); /* so close that no gradient would be told from it, ... */
    bool taught = (c->o.advantage.use_opd && c->o.advantage.kl_coef > 0) || c->o.signal.coef > 0;
    if (!taught || c->o.constant_prob > 0) return;
    expect(&c->o, 1, other); /* ... and another teacher */
    CHECK(apart(mean, error, other) > 1);
}

/* Of every accepted combination (test_combinations.c): drawn answers, learnt from by a real learner. */
TEST(expectations_are_the_means_of_drawing) {
    (void)objective_each(check_drawing);
    CHECK(drawn_of >= 8 * 8 + 4 * 5 * 3 + 1);
}

/* The sampled term is a policy gradient: its expectation is the gradient of KL(student || teacher), which the
 * divergence over the whole vocabulary has without drawing. */
TEST(the_sampled_term_expects_what_the_whole_distribution_gives) {
    double sampled[OPD_TOY_VOCAB], whole[OPD_TOY_VOCAB];
    opd_toy *toy;
    opd_learner_options o = plain(), full = topk(OPD_SUPPORT_FULL);
    o.advantage.only_reward = true;
    full.signal.divergence.kind = OPD_DIVERGENCE_REVERSE_KL;
    opd_objective_claim claim = {.learner = &o, .samples_per_prompt = 1};
    CHECK_OK(opd_toy_create(&claim, 0, 1, NULL, &toy));
    CHECK_OK(opd_toy_expectation(toy, sampled));
    opd_toy_destroy(toy);
    claim.learner = &full;
    CHECK_OK(opd_toy_create(&claim, 0, 1, NULL, &toy));
    CHECK_OK(opd_toy_expectation(toy, whole));
    opd_toy_destroy(toy);
    for (int j = 0; j < OPD_TOY_VOCAB; j++) CHECK_NEAR(sampled[j], whole[j], 1e-6);
}

TEST(a_toy_that_cannot_be_made_leaves_nothing) {
    for (long fail_at = 1;; fail_at++) {
        CHECK(fail_at < 10000);
        opd_test_alloc memory;
        opd_proof proof;
        opd_learner_options o = topk(OPD_SUPPORT_TEACHER_TOPK);
        opd_objective_claim claim = {.learner = &o, .samples_per_prompt = 1};
        opd_test_alloc_failing(&memory, fail_at, false);
        opd_err err = opd_objective_prove(&claim, &memory.alloc, &proof);
        CHECK(err == OPD_OK || err == OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
        if (err == OPD_OK && atomic_load(&memory.calls) < fail_at) break;
    }
}
