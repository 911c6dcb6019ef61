/* divergence.c - see divergence.h for the formulas. No state, any thread.
 *
 * Elements are visited one by one: their sums, then loss and gradient, then what becomes of it. */
#include "actors/trainer/divergence.h"

#include <math.h>

#include "core/base/check.h"

/* An element of the sum: loss, and derivative by the student's log-prob l. */
typedef struct element {
    double loss, slope;
} element;

static element reverse_kl(double l, double t, bool drawn) {
    double s = exp(l);
    return drawn ? (element){l - t, 1} : (element){s * (l - t), s * (l - t + 1)};
}

static element forward_kl(double l, double t) {
    double p = exp(t);
    return (element){p * (t - l), -p};
}

static element jsd(double alpha, double l, double t) {
    double s = exp(l), p = exp(t), top = fmax(l, t);
    double log_m = top + log((1 - alpha) * exp(l - top) + alpha * exp(t - top));
    return (element){(1 - alpha) * s * (l - log_m) + alpha * p * (t - log_m),
                     (1 - alpha) * s * (l - log_m)};
}

/* weight * exp(d) is exp(t) where the weight is s: no overflow, however small s is. */
static element low_var(double l, double t, bool drawn) {
    double d = t - l, weight = drawn ? 1 : exp(l);
    double excess = d > 1 ? (drawn ? exp(d) : exp(t)) - weight : weight * expm1(d);
    return (element){excess - weight * d, -excess};
}

static element element_of(const opd_divergence_config *config, double l, double t, bool drawn) {
    switch (config->kind) {
    case OPD_DIVERGENCE_REVERSE_KL: return reverse_kl(l, t, drawn);
    case OPD_DIVERGENCE_FORWARD_KL: return forward_kl(l, t);
    case OPD_DIVERGENCE_JSD: return jsd(config->jsd_alpha, l, t);
    case OPD_DIVERGENCE_LOW_VAR: break;
    }
    return low_var(l, t, drawn);
}

static double floored(const opd_divergence_config *config, double logp) {
    return config->logp_floor < 0 ? fmax(logp, config->logp_floor) : logp;
}

/* The bucket's loss and g_r; where its mass is held at the least it is a constant. */
static element bucket(const opd_divergence_config *config, opd_divergence_result *r) {
    double s = 1 - r->student_mass, t = fmax(1 - r->teacher_mass, OPD_DIVERGENCE_TAIL_MIN);
    bool held = s < OPD_DIVERGENCE_TAIL_MIN;
    if (held) s = OPD_DIVERGENCE_TAIL_MIN;
    element e = element_of(config, log(s), log(t), false);
    if (held) e.slope = 0;
    r->outside = e.slope / s;
    return e;
}

/* Log of the sum of exp(logp) over the row. */
static double log_sum(const opd_divergence_config *config, size_t k, const double *logp) {
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < k; i++) top = fmax(top, floored(config, logp[i]));
    for (size_t i = 0; i < k; i++) sum += exp(floored(config, logp[i]) - top);
    return top + log(sum);
}

/* The student's part in the sum by which it is divided: g_i - s_i sum g. */
static void project(const opd_divergence_row *row, const opd_divergence_config *config, double shift,
                    double slopes, double *grad) {
    for (size_t i = 0; i < row->k; i++)
        grad[i] -= slopes * exp(floored(config, row->student[i]) - shift);
}

/* G, and the gradient of an id that was raised to the floor: as of one outside of S. */
static void finish_gradient(const opd_divergence_row *row, const opd_divergence_config *config,
                            opd_divergence_result *r, double *grad) {
    double inside = 0;
    for (size_t i = 0; i < row->k; i++) {
        double p = exp(row->student[i]);
        if (r->clipped) grad[i] = 0;
        if (floored(config, row->student[i]) != row->student[i]) {
            grad[i] = r->outside * p;
            continue;
        }
        r->sum += grad[i];
        inside += p;
    }
    r->sum += r->outside * (1 - inside);
}

void opd_divergence(const opd_divergence_config *config, const opd_divergence_row *row,
                    double *out_grad, opd_divergence_result *out_result) {
    OPD_ASSERT(row->k > 0 && row->k <= row->vocab);
    double student_shift = log_sum(config, row->k, row->student), slopes = 0;
    double teacher_shift = log_sum(config, row->k, row->teacher);
    opd_divergence_result r = {.student_mass = exp(student_shift),
                               .teacher_mass = exp(teacher_shift)};
    bool scaled = config->tail == OPD_TAIL_RENORMALISE;
    if (!scaled) student_shift = teacher_shift = 0;
    for (size_t i = 0; i < row->k; i++) {
        element e = element_of(config, floored(config, row->student[i]) - student_shift,
                               floored(config, row->teacher[i]) - teacher_shift, row->drawn);
        r.loss += e.loss;
        out_grad[i] = e.slope;
        slopes += e.slope;
    }
    if (scaled) project(row, config, student_shift, slopes, out_grad);
    if (config->tail == OPD_TAIL_BUCKET && row->k < row->vocab) {
        element e = bucket(config, &r);
        r.loss += e.loss;
    }
    r.clipped = config->clip > 0 && r.loss > config->clip;
    if (r.clipped) {
        r.loss = config->clip;
        r.outside = 0;
    }
    finish_gradient(row, config, &r, out_grad);
    *out_result = r;
}

opd_err opd_divergence_check(const opd_divergence_config *config) {
    if (config->kind == OPD_DIVERGENCE_JSD && !(config->jsd_alpha > 0 && config->jsd_alpha < 1))
        return opd_fail(OPD_ERR_CONFIG, "opd.jsd_alpha is %g; it must lie between 0 and 1, both "
                        "excluded: at either end nothing is left to learn", config->jsd_alpha);
    if (!isfinite(config->logp_floor) || config->logp_floor > 0)
        return opd_fail(OPD_ERR_CONFIG, "opd.logp_floor is %g; it must be below 0, or 0 for none",
                        config->logp_floor);
    if (!isfinite(config->clip) || config->clip < 0)
        return opd_fail(OPD_ERR_CONFIG, "opd.token_clip is %g; it must be above 0, or 0 for none",
                        config->clip);
    return OPD_OK;
}
