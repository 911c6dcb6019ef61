/* test_attention.c - the contract of attention: packed forward against float64, its gradient by
 * finite differences of that reference, and cached decoding and attention over pages equal to the
 * forward bit for bit. */
#include "core/base/rng.h"
#include "kernels/kernels.h"
#include "tests/support/test.h"

enum { HEADS = 4, KV = 2, DIM = 6, SEQS = 3, TOKENS = 34, WIDTH = (HEADS + 2 * KV) * DIM,
       OUT = HEADS * DIM };
static const size_t starts[SEQS + 1] = {0, 27, 28, TOKENS};
static const opd_attention_shape shape = {HEADS, KV, DIM};

static opd_kernels *kernels_of(opd_cpu_isa isa) {
    opd_kernels *k;
    if (!opd_cpu_isa_available(isa)) SKIP("this processor lacks the instruction set");
    CHECK_OK(opd_kernels_create_cpu(isa, 2, NULL, &k));
    CHECK_OK(k->ops->reserve(k, TOKENS, &shape, 1));
    return k;
}

static void fill_random(float *x, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(4.0 * opd_rng_uniform(opd_rng_at(seed, i, 0, 0)) - 2.0);
}

/* out of token t, head h, of the sequence that starts at `first` */
static void ref_head(const double *qkv, size_t first, size_t t, size_t h, double *out) {
    const size_t kv = (HEADS + h / (HEADS / KV)) * DIM;
    double weights[TOKENS], sum = 0;
    for (size_t j = first; j <= t; j++) {
        double score = 0;
        for (size_t i = 0; i < DIM; i++)
            score += qkv[t * WIDTH + h * DIM + i] * qkv[j * WIDTH + kv + i];
        weights[j] = exp(score / sqrt((double)DIM));
        sum += weights[j];
    }
    for (size_t i = 0; i < DIM; i++) {
        out[i] = 0;
        for (size_t j = first; j <= t; j++)
            out[i] += weights[j] / sum * qkv[j * WIDTH + kv + KV * DIM + i];
    }
}

/* sum of dout * out; fills out unless NULL */
static double ref_loss(const double *qkv, const float *dout, double *out) {
    double loss = 0, head[DIM];
    for (size_t s = 0; s < SEQS; s++)
        for (size_t t = starts[s]; t < starts[s + 1]; t++)
            for (size_t h = 0; h < HEADS; h++) {
                ref_head(qkv, starts[s], t, h, head);
                for (size_t i = 0; i < DIM; i++) {
                    loss += head[i] * (double)dout[t * OUT + h * DIM + i];
                    if (out != NULL) out[t * OUT + h * DIM + i] = head[i];
                }
            }
    return loss;
}

static void close_to(const char *what, const float *x, const double *ref, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += pow((double)x[i] - ref[i], 2);
        norm += ref[i] * ref[i];
    }
    CHECK(norm > 1);
    if (!(sqrt(error) <= 3e-6 * sqrt(norm)))
        opd_test_fail(__FILE__, __LINE__, "%s: error %.3g of norm %.3g", what, sqrt(error),
                      sqrt(norm));
}

static void check_gradient(opd_cpu_isa isa) {
    static float qkv[TOKENS * WIDTH], out[TOKENS * OUT], dout[TOKENS * OUT], dqkv[TOKENS * WIDTH];
    static double wide[TOKENS * WIDTH], ref[TOKENS * OUT], grad[TOKENS * WIDTH];
    const double h = 1e-4;
    opd_kernels *k = kernels_of(isa);
    fill_random(qkv, TOKENS * WIDTH, 1);
    fill_random(dout, TOKENS * OUT, 2);
    fill_random(dqkv, TOKENS * WIDTH, 3); /* must be overwritten */
    for (size_t i = 0; i < TOKENS * WIDTH; i++) wide[i] = (double)qkv[i];
    (void)ref_loss(wide, dout, ref);
    for (size_t i = 0; i < TOKENS * WIDTH; i++) {
        double value = wide[i];
        wide[i] = value + h;
        grad[i] = ref_loss(wide, dout, NULL);
        wide[i] = value - h;
        grad[i] = (grad[i] - ref_loss(wide, dout, NULL)) / (2 * h);
        wide[i] = value;
    }
    k->ops->attention(k, out, qkv, starts, SEQS, &shape);
    k->ops->attention_grad(k, dqkv, dout, qkv, starts, SEQS, &shape);
    close_to("attention", out, ref, TOKENS * OUT);
    close_to("attention_grad", dqkv, grad, TOKENS * WIDTH);
    opd_kernels_destroy(k);
}

TEST(gradient_plain) { check_gradient(OPD_CPU_ISA_PLAIN); }
TEST(gradient_avx2) { check_gradient(OPD_CPU_ISA_AVX2); }
TEST(gradient_avx512) { check_gradient(OPD_CPU_ISA_AVX512); }

/* Fills the cache with the first rows at once, then decodes the rest one by one. */
static void check_decode(opd_cpu_isa isa) {
    enum { CAPACITY = 48, FILLED = 9 };
    static float qkv[TOKENS * WIDTH], out[TOKENS * OUT], one[OUT], cache[2][KV * DIM * CAPACITY];
    opd_kernels *k = kernels_of(isa);
    fill_random(qkv, TOKENS * WIDTH, 4);
    k->ops->attention(k, out, qkv, starts, SEQS, &shape);
    for (size_t i = 0; i < KV * DIM * CAPACITY; i++) cache[0][i] = cache[1][i] = NAN; /* stale */
    opd_kv_view view = {cache[0], cache[1], 0};
    k->ops->cache_fill(k, &view, qkv, FILLED, CAPACITY, &shape);
    for (size_t t = FILLED; t < starts[1]; t++) {
        view.length = t + 1;
        k->ops->attention_decode(k, one, qkv + t * WIDTH, &view, 1, CAPACITY, &shape);
        CHECK(memcmp(one, out + t * OUT, sizeof one) == 0);
    }
    opd_kernels_destroy(k);
}

TEST(decode_equals_forward_plain) { check_decode(OPD_CPU_ISA_PLAIN); }
TEST(decode_equals_forward_avx2) { check_decode(OPD_CPU_ISA_AVX2); }
TEST(decode_equals_forward_avx512) { check_decode(OPD_CPU_ISA_AVX512); }

/* Reads each sequence in two pieces, the second with keys that are there already, and stale
 * numbers beyond them. */
static void check_paged(opd_cpu_isa isa) {
    enum { PAGES = 6, LAYERS = 2, PAGE_FLOATS = 2 * KV * DIM * OPD_KV_PAGE };
    static const uint32_t pages[SEQS][2] = {{5, 5}, {1, 1}, {3, 3}};
    static float qkv[TOKENS * WIDTH], out[TOKENS * OUT], got[TOKENS * OUT],
        pool[PAGES][LAYERS][PAGE_FLOATS];
    opd_kernels *k = kernels_of(isa);
    fill_random(qkv, TOKENS * WIDTH, 5);
    k->ops->attention(k, out, qkv, starts, SEQS, &shape);
    for (size_t cut = 1; cut < starts[1]; cut++) {
        memset(pool, 0xff, sizeof pool); /* every number is a NaN */
        opd_kv_paged seqs[SEQS];
        for (size_t s = 0; s < SEQS; s++)
            seqs[s] = (opd_kv_paged){.base = pool[0][1], .stride = LAYERS * PAGE_FLOATS,
                                     .pages = pages[s]};
        size_t first[2] = {0, cut}, rest[2] = {0, starts[1] - cut};
        k->ops->attention_paged(k, got, qkv, starts, seqs, SEQS, &shape);
        CHECK(memcmp(got, out, sizeof got) == 0);
        memset(pool, 0xff, sizeof pool);
        k->ops->attention_paged(k, got, qkv, first, seqs, 1, &shape);
        seqs[0].past = seqs[0].filled = cut;
        k->ops->attention_paged(k, got + cut * OUT, qkv + cut * WIDTH, rest, seqs, 1, &shape);
        CHECK(memcmp(got, out, starts[1] * OUT * sizeof(float)) == 0);
        seqs[0].past = cut / 2; /* again, from before the cut */
        seqs[0].filled = starts[1];
        rest[1] = starts[1] - cut / 2;
        k->ops->attention_paged(k, got + cut / 2 * OUT, qkv + cut / 2 * WIDTH, rest, seqs, 1, &shape);
        CHECK(memcmp(got, out, starts[1] * OUT * sizeof(float)) == 0);
    }
    opd_kernels_destroy(k);
}

TEST(pages_equal_forward_plain) { check_paged(OPD_CPU_ISA_PLAIN); }
TEST(pages_equal_forward_avx2) { check_paged(OPD_CPU_ISA_AVX2); }
TEST(pages_equal_forward_avx512) { check_paged(OPD_CPU_ISA_AVX512); }
