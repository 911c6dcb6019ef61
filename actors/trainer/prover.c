/* prover.c - see prover.h. Thread: any. */
#include "actors/trainer/prover.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"

enum { GROUPS = 2, V = OPD_TOY_VOCAB, N = OPD_TOY_SAMPLES_MAX };

/* Below this, as a share of a weight, is rounding: gradients are sums of a few floats around 1. */
#define NOTHING 1e-4

static const float STUDENT[V] = {0.4f, -0.3f, 0.1f}; /* logits */
static const float REFERENCE[V] = {-0.2f, 0.3f, 0.2f};
static const float TEACHERS[2][V] = {{0.2f, -1.0f, 0.9f}, {0.9f, -0.6f, -0.1f}};
static const double REWARDS[V] = {1, 0, 0.25};

struct opd_toy {
    const opd_alloc *alloc;
    opd_advantage_config advantage;
    opd_policy_config policy;
    opd_divisor divisor;
    opd_contrast_config signal;
    double constant_prob, temperature;
    bool rewarded;
    size_t group_size, samples;
    opd_contrast *contrast;
    float student[V], reference[V], teacher[V]; /* log-probs at the temperature */
    double probs[V];
    int32_t teacher_ids[V], student_ids[V]; /* most likely first */
    float teacher_logps[V], asked_logps[V]; /* of these, and of the student's */
};

/* log-softmax of logits / temperature. */
static void log_probs(const float *logits, double temperature, float *out) {
    double sum = 0;
    for (size_t j = 0; j < V; j++) sum += exp((double)logits[j] / temperature);
    for (size_t j = 0; j < V; j++) out[j] = (float)((double)logits[j] / temperature - log(sum));
}

static void rank(const float *logp, int32_t *out_ids) {
    for (int32_t j = 0; j < V; j++) {
        int32_t at = j;
        for (; at > 0 && logp[j] > logp[out_ids[at - 1]]; at--) out_ids[at] = out_ids[at - 1];
        out_ids[at] = j;
    }
}

/* The signal with what depends on the data put where it shows. */
static opd_contrast_config toy_signal(const opd_learner_options *o) {
    opd_contrast_config signal = o->signal;
    bool none = signal.coef == 0;
    signal.divergence.clip = signal.divergence.logp_floor = 0;
    signal.selection = OPD_SELECT_ALL;
    if (none) signal.support = OPD_SUPPORT_SAMPLED; /* not looked at */
    if (o->model != NULL && signal.k >= (size_t)o->model->config.vocab_size) signal.k = V;
    else if (signal.k > V - 1) signal.k = V - 1;
    return signal;
}

opd_err opd_toy_create(const opd_objective_claim *claim, int teacher, double scale,
                       const opd_alloc *alloc, opd_toy **out_toy) {
    const opd_learner_options *o = claim->learner;
    OPD_ASSERT(claim->samples_per_prompt > 0 && o->temperature > 0);
    opd_toy *t = opd_mem_get(alloc, sizeof *t);
    if (t == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory to prove the objective");
    *t = (opd_toy){.alloc = alloc, .advantage = o->advantage, .policy = o->policy,
                   .signal = toy_signal(o), .temperature = o->temperature,
                   .rewarded = claim->rewarded};
    t->constant_prob = o->constant_prob > 0 ? 0.3 : 0;
    t->group_size = claim->samples_per_prompt < N / GROUPS ? claim->samples_per_prompt : N / GROUPS;
    t->samples = GROUPS * t->group_size;
    t->divisor = (opd_divisor){.reduction = o->reduction, .batch_size = t->samples,
                               .batch_tokens = t->samples, .length = 1};
    t->advantage.kl_coef *= scale;
    t->signal.coef *= scale;
    log_probs(STUDENT, t->temperature, t->student);
    log_probs(REFERENCE, t->temperature, t->reference);
    log_probs(TEACHERS[teacher], t->temperature, t->teacher);
    for (size_t j = 0; j < V; j++) t->probs[j] = exp((double)t->student[j]);
    rank(t->student, t->student_ids);
    rank(t->teacher, t->teacher_ids);
    for (size_t j = 0; j < V; j++) t->teacher_logps[j] = t->teacher[t->teacher_ids[j]];
    for (size_t j = 0; j < V; j++) t->asked_logps[j] = t->teacher[t->student_ids[j]];
    opd_err err = opd_contrast_create(&t->signal, V, alloc, &t->contrast);
    if (err != OPD_OK) {
        opd_mem_free(alloc, t);
        return err;
    }
    *out_toy = t;
    return OPD_OK;
}

void opd_toy_destroy(opd_toy *t) {
    if (t == NULL) return;
    opd_contrast_destroy(t->contrast);
    opd_mem_free(t->alloc, t);
}

size_t opd_toy_samples(const opd_toy *t) { return t->samples; }

double opd_toy_probability(const opd_toy *t, int32_t id) { return t->probs[id]; }

/* An outcome as a batch: sample i is token i. */
typedef struct outcome {
    size_t offsets[N + 1];
    uint64_t groups[N];
    double rewards[N];
    uint8_t valid[N], mask[N];
    float student[N], teacher[N], reference[N], values[N], returns[N], advantages[N];
    float weights[N], entropy[N], dlogp[N], dentropy[N];
} outcome;

static void fill(const opd_toy *t, const int32_t *ids, outcome *b) {
    *b = (outcome){.offsets = {0}};
    for (size_t i = 0; i < t->samples; i++) {
        b->offsets[i + 1] = i + 1;
        b->groups[i] = i / t->group_size;
        b->rewards[i] = t->rewarded ? REWARDS[ids[i]] : 0;
        b->valid[i] = 1;
        b->student[i] = t->student[ids[i]];
        b->teacher[i] = t->teacher[ids[i]];
        b->reference[i] = t->reference[ids[i]];
    }
    if (t->constant_prob > 0)
        opd_constant_teacher(t->constant_prob, t->samples, b->student, b->teacher, b->valid);
}

/* The policy's gradients by log-prob and entropy of each token, and the weights; all 0 where the
 * learner would make no step. */
static opd_err policy_pass(const opd_toy *t, outcome *b) {
    opd_advantage_input in = {
        .sample_count = t->samples, .offsets = b->offsets, .groups = b->groups, .rewards = b->rewards,
        .reward_valid = b->valid, .student_logp = b->student, .teacher_logp = b->teacher,
        .teacher_valid = b->valid, .rollout_logp = b->student, .ref_logp = b->reference,
        .values = b->values, .out_returns = b->returns};
    opd_advantage_stats stats;
    OPD_TRY(opd_advantage_compute(t->alloc, &t->advantage, &in, b->advantages, b->mask, &stats));
    if (!stats.steppable) memset(b->mask, 0, sizeof b->mask);
    opd_reduction_weights(&t->divisor, t->samples, b->offsets, b->mask, b->weights);
    opd_policy_input loss = {
        .sample_count = t->samples, .offsets = b->offsets, .logp = b->student, .old_logp = b->student,
        .advantages = b->advantages, .weights = b->weights, .rollout_logp = b->student,
        .ref_logp = b->reference, .entropy = b->entropy};
    opd_policy_stats policy = {.loss = 0};
    opd_policy_loss(&t->policy, &loss, b->dlogp, b->dentropy, &policy);
    return OPD_OK;
}

opd_err opd_toy_gradient(opd_toy *t, const int32_t *ids, double out[OPD_TOY_VOCAB]) {
    outcome b;
    opd_score_row rows[N];
    float logits[N * V];
    int32_t student_ids[N * V], teacher_ids[N * V];
    float teacher_logps[N * V], asked_logps[N * V];
    opd_contrast_stats stats = {.loss = 0};
    fill(t, ids, &b);
    OPD_TRY(policy_pass(t, &b));
    for (size_t i = 0; i < t->samples; i++) {
        rows[i] = (opd_score_row){i, ids[i], (float)(1 / t->temperature)};
        memcpy(logits + i * V, STUDENT, sizeof STUDENT);
        memcpy(student_ids + i * V, t->student_ids, sizeof t->student_ids);
        memcpy(teacher_ids + i * V, t->teacher_ids, sizeof t->teacher_ids);
        memcpy(teacher_logps + i * V, t->teacher_logps, sizeof t->teacher_logps);
        memcpy(asked_logps + i * V, t->asked_logps, sizeof t->asked_logps);
        if (t->signal.coef == 0) b.weights[i] = 0;
    }
    opd_contrast_rows in = {.rows = rows, .dlogp = b.dlogp, .dentropy = b.dentropy, .weights = b.weights,
                            .teacher_logp = b.teacher, .student_ids = student_ids, .student_k = V,
                            .asked_logps = asked_logps,
                            .listed = V, .teacher_ids = teacher_ids, .teacher_logps = teacher_logps};
    opd_contrast_begin(t->contrast, &in, &stats);
    opd_contrast_grad(t->contrast, 0, t->samples, logits);
    for (size_t j = 0; j < V; j++) out[j] = 0;
    for (size_t i = 0; i < t->samples * V; i++) out[i % V] += (double)logits[i];
    return OPD_OK;
}

opd_err opd_toy_expectation(opd_toy *t, double out[OPD_TOY_VOCAB]) {
    size_t outcomes = 1;
    for (size_t i = 0; i < t->samples; i++) outcomes *= V;
    for (size_t j = 0; j < V; j++) out[j] = 0;
    for (size_t o = 0; o < outcomes; o++) {
        int32_t ids[N];
        double probability = 1, gradient[V];
        for (size_t i = 0, rest = o; i < t->samples; i++, rest /= V) {
            ids[i] = (int32_t)(rest % V);
            probability *= t->probs[ids[i]];
        }
        OPD_TRY(opd_toy_gradient(t, ids, gradient));
        for (size_t j = 0; j < V; j++) out[j] += probability * gradient[j];
    }
    return OPD_OK;
}

/* ---- the three claims ---- */

static opd_err expectation(const opd_objective_claim *claim, int teacher, double scale,
                           const opd_alloc *alloc, double out[V]) {
    opd_toy *toy;
    OPD_TRY(opd_toy_create(claim, teacher, scale, alloc, &toy));
    opd_err err = opd_toy_expectation(toy, out);
    opd_toy_destroy(toy);
    return err;
}

static double distance(const double *a, const double *b) {
    double sum = 0;
    for (size_t j = 0; j < V; j++) sum += (a[j] - b[j]) * (a[j] - b[j]);
    return sqrt(sum);
}

/* Neither the teacher nor its weight shows in the expectation. */
static opd_err deaf(const opd_learner_options *o, bool whatever_weight) {
    if (whatever_weight && o->advantage.whiten)
        return opd_fail(OPD_ERR_CONFIG, "opd.kl_coef or opd.loss_coef has no effect: on three tokens the "
                        "expected gradient is the same when it is doubled; whitening divides it "
                        "out again where no reward stands beside it: set train.normalize_advantages: false, or "
                        "give rewards and rollout.samples_per_prompt of 2 or more");
    return opd_fail(OPD_ERR_CONFIG, "cannot learn from the teacher: opd.kl_coef or opd.loss_coef has no effect, on "
                    "three tokens the expected gradient is the same whatever it says; use the sampled signal in "
                    "the advantage (opd.kl_coef), or another opd.divergence or opd.tail");
}

opd_err opd_objective_prove(const opd_objective_claim *claim, const opd_alloc *alloc,
                            opd_proof *out_proof) {
    static const double zero[V] = {0};
    const opd_learner_options *o = claim->learner;
    double first[V], second[V], doubled[V];
    double weight = (o->advantage.use_opd ? o->advantage.kl_coef : 0) + o->signal.coef;
    OPD_TRY(expectation(claim, 0, 1, alloc, first));
    *out_proof = (opd_proof){.norm = distance(first, zero)};
    if (!(out_proof->norm > 1e-7))
        return opd_fail(OPD_ERR_CONFIG, "cannot learn: on three tokens the expected gradient of this "
                        "combination of estimator, reward and signal is zero; give the samples rewards "
                        "that differ within a group, or a teacher a weight (opd.kl_coef, opd.loss_coef)");
    if (weight == 0) return OPD_OK;
    OPD_TRY(expectation(claim, 0, 2, alloc, doubled));
    if (!(distance(first, doubled) > NOTHING * weight)) return deaf(o, true);
    if (o->constant_prob > 0) return OPD_OK;
    OPD_TRY(expectation(claim, 1, 1, alloc, second));
    out_proof->teacher = distance(first, second);
    if (!(out_proof->teacher > NOTHING * weight)) return deaf(o, false);
    return OPD_OK;
}
