/* test_kernels.c - the contract of the op table: every op of every instruction set against a
 * float64 reference by relative error, gradients by finite differences of that reference.
 * (Whole-model gradients against PyTorch are in tests/unit/models/test_graph.c.) */
#include "kernels/kernels.h"

#include "core/base/rng.h"
#include "tests/support/test.h"

enum { THREADS = 2 };

static opd_kernels *kernels_of(opd_cpu_isa isa) {
    opd_kernels *k;
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    CHECK_OK(opd_kernels_create_cpu(isa, THREADS, NULL, &k));
    return k;
}

static float *random_floats(size_t n, uint64_t seed) {
    float *x = malloc((n + 1) * sizeof *x);
    CHECK(x != NULL);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(2.0 * opd_rng_uniform(opd_rng_at(seed, i, 0, 0)) - 1.0);
    return x;
}

static double *zero_doubles(size_t n) {
    double *x = calloc(n + 1, sizeof *x);
    CHECK(x != NULL);
    return x;
}

/* Fails unless ||x - ref|| <= tolerance ||ref|| + 1e-9. */
static void close_to(const char *what, const float *x, const double *ref, size_t n,
                     double tolerance) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += pow((double)x[i] - ref[i], 2);
        norm += ref[i] * ref[i];
    }
    if (!(sqrt(error) <= tolerance * sqrt(norm) + 1e-9))
        opd_test_fail(__FILE__, __LINE__, "%s: error %.3g of norm %.3g", what, sqrt(error),
                      sqrt(norm));
}

/* ---- matrices ------------------------------------------------------------------------------ */

/* y = x w^T, dx = dy w, dw = dy^T x, each on top of what was there. */
static void check_matrices(opd_kernels *k, size_t t, size_t n, size_t d, bool add) {
    float *x = random_floats(t * d, 1), *w = random_floats(n * d, 2), *y = random_floats(t * n, 3);
    float *dy = random_floats(t * n, 4), *dx = random_floats(t * d, 5), *dw = random_floats(n * d, 6);
    float *packed = random_floats(k->ops->pack_size(n, d), 7);
    double *ry = zero_doubles(t * n), *rx = zero_doubles(t * d), *rw = zero_doubles(n * d);
    for (size_t i = 0; i < t * n; i++) ry[i] = add ? (double)y[i] : 0;
    for (size_t i = 0; i < t * d; i++) rx[i] = add ? (double)dx[i] : 0;
    for (size_t i = 0; i < n * d; i++) rw[i] = (double)dw[i];
    for (size_t a = 0; a < t; a++)
        for (size_t b = 0; b < n; b++)
            for (size_t c = 0; c < d; c++) {
                double grad = (double)dy[a * n + b];
                ry[a * n + b] += (double)x[a * d + c] * (double)w[b * d + c];
                rx[a * d + c] += grad * (double)w[b * d + c];
                rw[b * d + c] += grad * (double)x[a * d + c];
            }
    k->ops->pack(k, packed, w, n, d);
    k->ops->linear(k, y, x, packed, t, n, d, add);
    k->ops->pack_dx(k, packed, w, n, d);
    k->ops->linear_dx(k, dx, dy, packed, t, n, d, add);
    k->ops->linear_dw(k, dw, dy, x, t, n, d);
    close_to("linear", y, ry, t * n, 3e-6);
    close_to("linear_dx", dx, rx, t * d, 3e-6);
    close_to("linear_dw", dw, rw, n * d, 3e-6);
    void *all[] = {x, w, y, dy, dx, dw, packed, ry, rx, rw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void check_all_matrices(opd_cpu_isa isa) {
    static const size_t sizes[][3] = {{1, 1, 1},   {1, 64, 64},  {6, 64, 8},   {7, 65, 33},
                                      {5, 17, 3},  {13, 130, 70}, {97, 79, 40}, {110, 300, 9},
                                      {3, 16, 600}, {700, 20, 18}};
    opd_kernels *k = kernels_of(isa);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int add = 0; add < 2; add++)
            check_matrices(k, sizes[i][0], sizes[i][1], sizes[i][2], add != 0);
    opd_kernels_destroy(k);
}

TEST(matrices_plain) { check_all_matrices(OPD_CPU_ISA_PLAIN); }
TEST(matrices_avx2) { check_all_matrices(OPD_CPU_ISA_AVX2); }
TEST(matrices_avx512) { check_all_matrices(OPD_CPU_ISA_AVX512); }

/* The vector products are chains of fused additions in ascending order, one per output: bit for bit
 * what fmaf gives, and so the same bits from every instruction set that has them. */
static void check_fused_chains(opd_cpu_isa isa) {
    const size_t t = 97, n = 79, d = 600;
    opd_kernels *k = kernels_of(isa);
    float *x = random_floats(t * d, 1), *w = random_floats(n * d, 2);
    float *y = random_floats(t * n, 3), *ref = random_floats(t * n, 3);
    float *packed = random_floats(k->ops->pack_size(n, d), 4);
    k->ops->pack(k, packed, w, n, d);
    k->ops->linear(k, y, x, packed, t, n, d, true);
    for (size_t i = 0; i < t; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t c = 0; c < d; c++)
                ref[i * n + j] = fmaf(x[i * d + c], w[j * d + c], ref[i * n + j]);
    CHECK(memcmp(y, ref, t * n * sizeof *y) == 0);
    void *all[] = {x, w, y, ref, packed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    opd_kernels_destroy(k);
}

TEST(fused_chains_avx2) { check_fused_chains(OPD_CPU_ISA_AVX2); }
TEST(fused_chains_avx512) { check_fused_chains(OPD_CPU_ISA_AVX512); }

/* ---- rows ----------------------------------------------------------------------------------- */

static double ref_silu(double g) { return g / (1 + exp(-g)); }

static void check_swiglu(opd_kernels *k, size_t t, size_t f) {
    float *gu = random_floats(t * 2 * f, 1), *y = random_floats(t * f, 2);
    float *dy = random_floats(t * f, 3), *dgu = random_floats(t * 2 * f, 4);
    double *ry = zero_doubles(t * f), *rg = zero_doubles(t * 2 * f);
    const double h = 1e-5;
    for (size_t i = 0; i < t * 2 * f; i++) gu[i] *= 12.0f;
    for (size_t a = 0; a < t; a++)
        for (size_t i = 0; i < f; i++) {
            size_t at = a * 2 * f + i;
            double g = (double)gu[at], u = (double)gu[at + f], d = (double)dy[a * f + i];
            ry[a * f + i] = ref_silu(g) * u;
            rg[at] = d * u * (ref_silu(g + h) - ref_silu(g - h)) / (2 * h);
            rg[at + f] = d * ref_silu(g);
        }
    k->ops->swiglu(k, y, gu, t, f);
    k->ops->swiglu_grad(k, dgu, dy, gu, t, f);
    close_to("swiglu", y, ry, t * f, 1e-6);
    close_to("swiglu_grad", dgu, rg, t * 2 * f, 1e-6);
    void *all[] = {gu, y, dy, dgu, ry, rg};
    for (size_t i = 0; i < 6; i++) free(all[i]);
}

/* sum_i dy_i y_i of one row of RMSNorm */
static double ref_norm(const double *x, const float *w, const float *dy, size_t d, double eps) {
    double squares = 0, sum = 0;
    for (size_t i = 0; i < d; i++) squares += x[i] * x[i];
    for (size_t i = 0; i < d; i++) sum += (double)dy[i] * x[i] * (double)w[i];
    return sum / sqrt(squares / (double)d + eps);
}

static void check_rmsnorm(opd_kernels *k, size_t t, size_t d) {
    const double eps = 1e-5, h = 1e-4;
    float *x = random_floats(t * d, 1), *w = random_floats(d, 2), *dy = random_floats(t * d, 3);
    float *y = random_floats(t * d, 4), *dx = random_floats(t * d, 5), *dw = random_floats(d, 6);
    float *inv = random_floats(t, 7);
    double *rx = zero_doubles(t * d), *rw = zero_doubles(d), *ry = zero_doubles(t * d);
    double *row = zero_doubles(d);
    for (size_t i = 0; i < d; i++) rw[i] = (double)dw[i];
    for (size_t a = 0; a < t; a++) {
        double squares = 0;
        for (size_t i = 0; i < d; i++) {
            row[i] = (double)x[a * d + i];
            squares += row[i] * row[i];
        }
        double inverse = 1 / sqrt(squares / (double)d + eps);
        for (size_t i = 0; i < d; i++) {
            ry[a * d + i] = row[i] * (double)w[i] * inverse;
            rw[i] += (double)dy[a * d + i] * row[i] * inverse;
            double value = row[i];
            row[i] = value + h;
            double up = ref_norm(row, w, dy + a * d, d, eps);
            row[i] = value - h;
            rx[a * d + i] = (double)dx[a * d + i] + (up - ref_norm(row, w, dy + a * d, d, eps)) / (2 * h);
            row[i] = value;
        }
    }
    k->ops->rmsnorm(k, y, inv, x, w, t, d, (float)eps);
    k->ops->rmsnorm_grad(k, dx, dw, dy, x, w, inv, t, d);
    close_to("rmsnorm", y, ry, t * d, 1e-6);
    close_to("rmsnorm dx", dx, rx, t * d, 3e-6);
    close_to("rmsnorm dw", dw, rw, d, 3e-6);
    void *all[] = {x, w, dy, y, dx, dw, inv, rx, rw, ry, row};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void check_embedding(opd_kernels *k) {
    enum { V = 9, D = 70, T = 140 };
    float *table = random_floats(V * D, 1), *y = random_floats(T * D, 2), *dy = random_floats(T * D, 3);
    float *grad = random_floats(V * D, 4);
    double *ry = zero_doubles(T * D), *rg = zero_doubles(V * D);
    int32_t ids[T];
    for (size_t i = 0; i < V * D; i++) rg[i] = (double)grad[i];
    for (size_t t = 0; t < T; t++) {
        ids[t] = (int32_t)(t * t % V);
        for (size_t i = 0; i < D; i++) {
            ry[t * D + i] = (double)table[(size_t)ids[t] * D + i];
            rg[(size_t)ids[t] * D + i] += (double)dy[t * D + i];
        }
    }
    k->ops->embed(k, y, table, ids, T, D);
    k->ops->embed_grad(k, grad, dy, ids, T, D);
    close_to("embed", y, ry, T * D, 0);
    close_to("embed_grad", grad, rg, V * D, 1e-6);
    void *all[] = {table, y, dy, grad, ry, rg};
    for (size_t i = 0; i < 6; i++) free(all[i]);
}

/* Rotation by the angle, and back. */
static void check_rope(opd_kernels *k) {
    enum { T = 70, HEADS = 3, DIM = 6, STRIDE = 23 };
    float *x = random_floats(T * STRIDE, 1), *start = random_floats(T * STRIDE, 1);
    float table[10 * DIM];
    int32_t positions[T];
    double *ref = zero_doubles(T * STRIDE), *same = zero_doubles(T * STRIDE);
    for (int p = 0; p < 10; p++)
        for (int i = 0; i < DIM / 2; i++) {
            table[p * DIM + i] = (float)cos(0.3 * p * (i + 1));
            table[p * DIM + DIM / 2 + i] = (float)sin(0.3 * p * (i + 1));
        }
    for (size_t i = 0; i < T * STRIDE; i++) ref[i] = same[i] = (double)start[i];
    for (size_t t = 0; t < T; t++) {
        positions[t] = (int32_t)(t * 7 % 10);
        for (size_t h = 0; h < HEADS; h++)
            for (size_t i = 0; i < DIM / 2; i++) {
                double angle = 0.3 * positions[t] * (double)(i + 1);
                size_t at = t * STRIDE + h * DIM + i;
                double a = (double)start[at], b = (double)start[at + DIM / 2];
                ref[at] = a * cos(angle) - b * sin(angle);
                ref[at + DIM / 2] = b * cos(angle) + a * sin(angle);
            }
    }
    k->ops->rope(k, x, positions, table, T, STRIDE, HEADS, DIM, false);
    close_to("rope", x, ref, T * STRIDE, 1e-6);
    k->ops->rope(k, x, positions, table, T, STRIDE, HEADS, DIM, true);
    close_to("rope backward", x, same, T * STRIDE, 1e-6);
    void *all[] = {x, start, ref, same};
    for (size_t i = 0; i < 4; i++) free(all[i]);
}

static void check_all_rows(opd_cpu_isa isa) {
    opd_kernels *k = kernels_of(isa);
    check_swiglu(k, 3, 16);
    check_swiglu(k, 67, 37);
    check_rmsnorm(k, 2, 16);
    check_rmsnorm(k, 66, 70);
    check_embedding(k);
    check_rope(k);
    opd_kernels_destroy(k);
}

TEST(rows_plain) { check_all_rows(OPD_CPU_ISA_PLAIN); }
TEST(rows_avx2) { check_all_rows(OPD_CPU_ISA_AVX2); }
TEST(rows_avx512) { check_all_rows(OPD_CPU_ISA_AVX512); }

/* ---- the vocabulary ------------------------------------------------------------------------- */

/* dlogp * log p[target] + dent * entropy of one row of z = logits * inv_t */
static double ref_row(const double *logits, size_t v, double inv_t, int32_t target, double dlogp,
                      double dent, double *out_logp, double *out_entropy) {
    double top = -INFINITY, sum = 0, entropy = 0;
    for (size_t i = 0; i < v; i++) top = fmax(top, logits[i] * inv_t);
    for (size_t i = 0; i < v; i++) sum += exp(logits[i] * inv_t - top);
    for (size_t i = 0; i < v; i++) {
        double logp = logits[i] * inv_t - top - log(sum);
        entropy -= exp(logp) * logp;
    }
    *out_logp = logits[target] * inv_t - top - log(sum);
    *out_entropy = entropy;
    return dlogp * *out_logp + dent * entropy;
}

static void check_logprob(opd_cpu_isa isa, size_t v) {
    enum { N = 6, TOP = 3 };
    const double h = 1e-4;
    opd_kernels *k = kernels_of(isa);
    float *logits = random_floats(N * v, 8), *dlogp = random_floats(N, 1), *dent = random_floats(N, 2);
    float inv_t[N], logp[N], entropy[N], top_logp[N * TOP];
    int32_t targets[N], top_ids[N * TOP];
    double *ref = zero_doubles(N * v), *row = zero_doubles(v), rl[N], re[N], ignored[2];
    for (size_t i = 0; i < N * v; i++) logits[i] *= 6.0f;
    for (size_t a = 0; a < N; a++) {
        inv_t[a] = a % 2 ? 1.0f : 1.5f;
        targets[a] = (int32_t)((a * 5 + 1) % v);
        for (size_t i = 0; i < v; i++) row[i] = (double)logits[a * v + i];
        double t = (double)inv_t[a], dl = (double)dlogp[a], de = (double)dent[a];
        ref_row(row, v, t, targets[a], dl, de, &rl[a], &re[a]);
        for (size_t i = 0; i < v; i++) {
            double value = row[i];
            row[i] = value + h;
            double up = ref_row(row, v, t, targets[a], dl, de, &ignored[0], &ignored[1]);
            row[i] = value - h;
            ref[a * v + i] = (up - ref_row(row, v, t, targets[a], dl, de, &ignored[0],
                                           &ignored[1])) / (2 * h);
            row[i] = value;
        }
    }
    k->ops->logprob(k, logp, entropy, top_ids, top_logp, TOP, logits, targets, inv_t, N, v);
    close_to("logp", logp, rl, N, 1e-6);
    close_to("entropy", entropy, re, N, 3e-6);
    for (size_t a = 0; a < N; a++)
        for (size_t j = 0; j < TOP; j++) {
            size_t better = 0;
            for (size_t i = 0; i < v; i++)
                better += logits[a * v + i] > logits[a * v + (size_t)top_ids[a * TOP + j]];
            CHECK_INT(better, j);
        }
    k->ops->logprob_grad(k, logits, targets, inv_t, dlogp, dent, N, v);
    close_to("logprob_grad", logits, ref, N * v, 1e-5);
    void *all[] = {logits, dlogp, dent, ref, row};
    for (size_t i = 0; i < 5; i++) free(all[i]);
    opd_kernels_destroy(k);
}

TEST(logprob_plain) {
    check_logprob(OPD_CPU_ISA_PLAIN, 5);
    check_logprob(OPD_CPU_ISA_PLAIN, 100);
}
TEST(logprob_avx2) {
    check_logprob(OPD_CPU_ISA_AVX2, 5);
    check_logprob(OPD_CPU_ISA_AVX2, 100);
}

TEST(logprob_avx512) {
    check_logprob(OPD_CPU_ISA_AVX512, 5);
    check_logprob(OPD_CPU_ISA_AVX512, 100);
}

TEST(equal_logits_rank_by_id) {
    opd_kernels *k = kernels_of(OPD_CPU_ISA_AUTO);
    float logits[20], logp, top_logp[20], one = 1.0f;
    int32_t target = 3, top_ids[20];
    for (int i = 0; i < 20; i++) logits[i] = i % 2 ? 1.0f : 2.0f;
    k->ops->logprob(k, &logp, NULL, top_ids, top_logp, 20, logits, &target, &one, 1, 20);
    for (int i = 0; i < 20; i++) CHECK_INT(top_ids[i], i < 10 ? 2 * i : 2 * (i - 10) + 1);
    opd_kernels_destroy(k);
}

/* Frequencies of many evenly spaced draws against the truncated distribution. */
static void check_sampling(opd_cpu_isa isa, opd_sampling sampling, const double *expected) {
    enum { V = 5, DRAWS = 2000 };
    static const double p[V] = {0.1, 0.4, 0.05, 0.25, 0.2};
    opd_kernels *k = kernels_of(isa);
    opd_attention_shape shape = {1, 1, 2};
    CHECK_OK(k->ops->reserve(k, 1, &shape, V));
    double counts[V] = {0};
    const opd_sampling *settings = &sampling;
    for (int i = 0; i < DRAWS; i++) {
        float logits[V], logp, u = ((float)i + 0.5f) / DRAWS;
        int32_t id;
        for (int j = 0; j < V; j++) logits[j] = (float)(log(p[j]) * (double)sampling.temperature);
        k->ops->sample(k, &id, &logp, logits, &u, &settings, 1, V);
        CHECK(id >= 0 && id < V);
        CHECK_NEAR(logp, log(p[id]), 1e-5); /* before any truncation */
        counts[id] += 1.0 / DRAWS;
    }
    for (int j = 0; j < V; j++) CHECK_NEAR(counts[j], expected[j], 2e-3);
    opd_kernels_destroy(k);
}

static void check_all_sampling(opd_cpu_isa isa) {
    check_sampling(isa, (opd_sampling){.temperature = 0.7f, .top_p = 1.0f},
                   (double[]){0.1, 0.4, 0.05, 0.25, 0.2});
    check_sampling(isa, (opd_sampling){.temperature = 1.0f, .top_k = 2, .top_p = 1.0f},
                   (double[]){0, 0.4 / 0.65, 0, 0.25 / 0.65, 0});
    check_sampling(isa, (opd_sampling){.temperature = 1.3f, .top_p = 0.8f},
                   (double[]){0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85});
    check_sampling(isa, (opd_sampling){.temperature = 1.0f, .top_p = 0.01f},
                   (double[]){0, 1, 0, 0, 0});
    check_sampling(isa, (opd_sampling){.temperature = 1.0f, .top_k = 3, .top_p = 0.7f},
                   (double[]){0, 0.4 / 0.65, 0, 0.25 / 0.65, 0}); /* 0.65/0.85 >= 0.7 */
}

TEST(sampling_plain) { check_all_sampling(OPD_CPU_ISA_PLAIN); }
TEST(sampling_avx2) { check_all_sampling(OPD_CPU_ISA_AVX2); }
TEST(sampling_avx512) { check_all_sampling(OPD_CPU_ISA_AVX512); }

/* ---- choosing the instruction set ------------------------------------------------------------ */

TEST(environment_forces_the_instruction_set) {
    opd_kernels *k;
    setenv("OPD_CPU_ISA", "sse9", 1);
    CHECK_ERR(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &k), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "sse9");
    setenv("OPD_CPU_ISA", "plain", 1);
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &k));
    CHECK_STR(opd_kernels_name(k), "cpu-plain");
    opd_kernels_destroy(k);
    unsetenv("OPD_CPU_ISA");
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_PLAIN, 1, NULL, &k));
    CHECK_INT(k->ops->threads(k), 1);
    opd_kernels_destroy(k);
}
