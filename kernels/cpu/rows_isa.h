/* kernels/cpu/rows_isa.h - the operations on token rows, compiled once per instruction set.
 *
 * Included by ops_*.c after ISA(name) is defined. Element-wise work is plain loops that the
 * compiler vectorises (without contraction a vector and its scalar tail give equal bits);
 * sums use the fixed lanes of lanes_isa.h. Contracts in isa.h and kernels.h.
 */
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes_isa.h"

/* sum of a[i] * b[i] * c[i]; c may be NULL */
static float dot3(const float *a, const float *b, const float *c, size_t n) {
    lanes sum = lanes_all(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes x = lanes_load(a + i) * lanes_load(b + i);
        sum += c == NULL ? x : x * lanes_load(c + i);
    }
    if (i < n) {
        lanes x = lanes_load_part(a + i, n - i, 0) * lanes_load_part(b + i, n - i, 0);
        sum += c == NULL ? x : x * lanes_load_part(c + i, n - i, 0);
    }
    return lanes_fold_sum(sum);
}

static void ISA(rmsnorm)(float *y, float *inv_rms, const float *x, const float *w, size_t t,
                         size_t d, float eps) {
    for (size_t row = 0; row < t; row++) {
        const float *in = x + row * d;
        float *out = y + row * d;
        float inverse = 1.0f / sqrtf(dot3(in, in, NULL, d) / (float)d + eps);
        for (size_t i = 0; i < d; i++) out[i] = in[i] * inverse * w[i];
        if (inv_rms != NULL) inv_rms[row] = inverse;
    }
}

/* dx_i += r w_i dy_i - x_i r^3/d sum_j w_j dy_j x_j, with r = inv_rms */
static void ISA(rmsnorm_dx)(float *dx, const float *dy, const float *x, const float *w,
                            const float *inv_rms, size_t t, size_t d) {
    for (size_t row = 0; row < t; row++) {
        const float *in = x + row * d, *g = dy + row * d;
        float *out = dx + row * d;
        float r = inv_rms[row];
        float back = dot3(g, w, in, d) * r * r * r / (float)d;
        for (size_t i = 0; i < d; i++) out[i] += g[i] * w[i] * r - in[i] * back;
    }
}

static void ISA(rmsnorm_dw)(float *dw, const float *dy, const float *x, const float *inv_rms,
                            size_t t, size_t d, size_t c0, size_t c1) {
    for (size_t row = 0; row < t; row++) {
        const float *in = x + row * d, *g = dy + row * d;
        float r = inv_rms[row];
        for (size_t i = c0; i < c1; i++) dw[i] += g[i] * in[i] * r;
    }
}

static void ISA(rope)(float *x, const int32_t *positions, const float *table, size_t t,
                      size_t stride, size_t heads, size_t head_dim, bool backward) {
    size_t half = head_dim / 2;
    float sign = backward ? -1.0f : 1.0f;
    for (size_t row = 0; row < t; row++) {
        const float *cosine = table + (size_t)positions[row] * head_dim;
        const float *sine = cosine + half;
        for (size_t h = 0; h < heads; h++) {
            float *low = x + row * stride + h * head_dim, *high = low + half;
            for (size_t i = 0; i < half; i++) {
                float a = low[i], b = high[i], s = sign * sine[i];
                low[i] = a * cosine[i] - b * s;
                high[i] = b * cosine[i] + a * s;
            }
        }
    }
}

/* sigmoid of sixteen */
LANES_INLINE lanes sigmoid(lanes x) {
    return lanes_all(1.0f) / (lanes_all(1.0f) + lanes_exp(-x));
}

static void ISA(swiglu)(float *y, const float *gu, size_t t, size_t f) {
    for (size_t row = 0; row < t; row++) {
        const float *gate = gu + row * 2 * f, *up = gate + f;
        float *out = y + row * f;
        size_t i = 0;
        for (; i + LANES <= f; i += LANES) {
            lanes g = lanes_load(gate + i);
            lanes_store(out + i, g * sigmoid(g) * lanes_load(up + i));
        }
        if (i < f) {
            lanes g = lanes_load_part(gate + i, f - i, 0);
            lanes_store_part(out + i, g * sigmoid(g) * lanes_load_part(up + i, f - i, 0), f - i);
        }
    }
}

/* With s = sigmoid(g): d(g s)/dg = s (1 + g (1 - s)). */
static void ISA(swiglu_grad)(float *dgu, const float *dy, const float *gu, size_t t, size_t f) {
    const lanes one = lanes_all(1.0f);
    for (size_t row = 0; row < t; row++) {
        const float *gate = gu + row * 2 * f, *up = gate + f, *out = dy + row * f;
        float *dgate = dgu + row * 2 * f, *dup = dgate + f;
        for (size_t i = 0; i < f; i += LANES) {
            size_t n = f - i;
            bool whole = n >= LANES;
            lanes g = whole ? lanes_load(gate + i) : lanes_load_part(gate + i, n, 0);
            lanes u = whole ? lanes_load(up + i) : lanes_load_part(up + i, n, 0);
            lanes d = whole ? lanes_load(out + i) : lanes_load_part(out + i, n, 0);
            lanes s = sigmoid(g);
            lanes dg = d * u * s * (one + g * (one - s)), du = d * g * s;
            if (whole) {
                lanes_store(dgate + i, dg);
                lanes_store(dup + i, du);
            } else {
                lanes_store_part(dgate + i, dg, n);
                lanes_store_part(dup + i, du, n);
            }
        }
    }
}

static void ISA(add)(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static double ISA(sum_squares)(const float *x, size_t n) {
    double part[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) part[j] += (double)x[i + j] * (double)x[i + j];
    for (size_t j = 0; i < n; i++, j++) part[j] += (double)x[i] * (double)x[i];
    double sum = 0;
    for (size_t j = 0; j < LANES; j++) sum += part[j];
    return sum;
}

static void ISA(adamw)(float *p, float *m, float *v, const float *g, size_t n,
                       const opd_adamw_args *args) {
    const opd_adamw_args a = *args;
    for (size_t i = 0; i < n; i++) {
        float grad = g[i] * a.grad_scale;
        m[i] = a.beta1 * m[i] + (1.0f - a.beta1) * grad;
        v[i] = a.beta2 * v[i] + (1.0f - a.beta2) * grad * grad;
        float update = a.step_size * m[i] / (sqrtf(v[i] * a.v_scale) + a.eps);
        p[i] -= update + a.decay * p[i];
    }
}
