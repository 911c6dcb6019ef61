/* objective_cases.c - see objective_cases.h; the format stands in tests/golden/make_objectives.py. */
#include "tests/unit/actors/objective_cases.h"

#include "actors/run/assets.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

enum { DATASETS_MAX = 8, MAGIC = 0x4f50444f, ARGS_MAX = 96 };

typedef struct reader {
    const char *at, *end;
} reader;

static void take(reader *r, void *out, size_t size) {
    CHECK((size_t)(r->end - r->at) >= size);
    memcpy(out, r->at, size);
    r->at += size;
}

static int32_t take_int(reader *r) {
    int32_t value;
    take(r, &value, sizeof value);
    return value;
}

static double take_number(reader *r) {
    float value;
    take(r, &value, sizeof value);
    return (double)value;
}

static void take_bytes(reader *r, size_t count, uint8_t *out) {
    for (size_t i = 0; i < count; i++) out[i] = (uint8_t)take_int(r);
}

static void take_data(reader *r, case_data *d) {
    d->samples = (size_t)take_int(r);
    d->tokens = (size_t)take_int(r);
    d->vocab = (size_t)take_int(r);
    CHECK(d->samples <= CASE_SAMPLES_MAX && d->tokens <= CASE_TOKENS_MAX && d->vocab <= CASE_VOCAB_MAX);
    for (size_t i = 0; i <= d->samples; i++) d->offsets[i] = (size_t)take_int(r);
    for (size_t i = 0; i < d->samples; i++) d->groups[i] = (uint64_t)take_int(r);
    take_bytes(r, d->samples, d->reward_valid);
    take_bytes(r, d->tokens, d->mask);
    take_bytes(r, d->tokens, d->valid);
    take(r, d->sampled, d->tokens * sizeof(int32_t));
    take(r, d->ids, d->tokens * d->vocab * sizeof(int32_t));
    for (size_t i = 0; i < d->samples; i++) d->rewards[i] = take_number(r);
    take(r, d->logits, d->tokens * d->vocab * sizeof(float));
    take(r, d->logps, d->tokens * d->vocab * sizeof(float));
    float *columns[] = {d->old, d->rollout, d->teacher, d->ref, d->values, d->values_now};
    for (size_t i = 0; i < OPD_COUNTOF(columns); i++) take(r, columns[i], d->tokens * sizeof(float));
}

static void take_result(reader *r, const case_data *d, bool critic, case_result *out) {
    double *numbers[] = {&out->loss, &out->pg_loss, &out->kl, &out->tis, &out->tis_clipfrac,
                         &out->value_loss, &out->clip_frac, &out->opsm_frac, &out->ratio, &out->ppo_kl,
                         &out->signal};
    *out = (case_result){.loss = 0};
    for (size_t i = 0; i < OPD_COUNTOF(numbers); i++) *numbers[i] = take_number(r);
    take(r, out->advantages, d->tokens * sizeof(float));
    take(r, out->dlogits, d->tokens * d->vocab * sizeof(float));
    if (critic) take(r, out->dvalues, d->tokens * sizeof(float));
}

opd_err case_config(const char *text, opd_config **out) {
    char words[2 * CASE_TEXT_MAX];
    const char *args[ARGS_MAX + 1];
    size_t count = 0, used = 0;
    for (const char *at = text; *at != '\0';) {
        size_t length = strcspn(at, " ");
        bool section = memchr(at, '.', strcspn(at, "=")) != NULL;
        int written = snprintf(words + used, sizeof words - used, "%s%.*s", section ? "" : "train.",
                               (int)length, at);
        CHECK(count + 2 <= ARGS_MAX && (size_t)written < sizeof words - used);
        args[count++] = "--set";
        args[count++] = words + used;
        used += (size_t)written + 1;
        at += length + (at[length] == ' ');
    }
    args[count] = NULL;
    return config_load(RL_TEXT, args, out);
}

size_t objective_each(void (*check)(const objective_case *c, const case_data *d)) {
    char *bytes;
    size_t size;
    CHECK_OK(opd_file_read(NULL, OPD_SOURCE_DIR "/tests/golden/objectives.bin", 1 << 20, &bytes, &size));
    reader r = {bytes, bytes + size};
    CHECK_INT(take_int(&r), MAGIC);
    size_t datasets = (size_t)take_int(&r), cases = (size_t)take_int(&r);
    CHECK(datasets <= DATASETS_MAX);
    case_data *all = calloc(datasets, sizeof *all);
    for (size_t i = 0; i < datasets; i++) take_data(&r, &all[i]);
    for (size_t i = 0; i < cases; i++) {
        objective_case c = {.data = (size_t)take_int(&r), .stepped = take_int(&r) != 0};
        size_t length = (size_t)take_int(&r);
        opd_config *config;
        CHECK(c.data < datasets && length < sizeof c.text);
        take(&r, c.text, length);
        if (case_config(c.text, &config) != OPD_OK)
            opd_test_fail(__FILE__, __LINE__, "%s: %s", c.text, opd_err_context());
        c.stage = &config->stages[0];
        opd_stage_objective(c.stage, &c.o);
        take_result(&r, &all[c.data], c.o.advantage.estimator.kind == OPD_ESTIMATOR_PPO, &c.want);
        check(&c, &all[c.data]);
        opd_config_destroy(config);
    }
    CHECK(r.at == r.end);
    free(all);
    opd_mem_free(NULL, bytes);
    return cases;
}

bool case_whole(const case_data *d) { return memchr(d->mask, 0, d->tokens) == NULL; }

void case_number(const objective_case *c, const char *what, double value, double want, double relative) {
    if (fabs(value - want) <= relative * fabs(want) + 1e-7) return;
    opd_test_fail(__FILE__, __LINE__, "%s, data %zu: %s is %.10g, not %.10g", c->text, c->data, what, value,
                  want);
}

void case_array(const objective_case *c, const char *what, const float *values, const float *want,
                size_t count, double relative) {
    double off = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        off += pow((double)values[i] - (double)want[i], 2);
        norm += pow((double)want[i], 2);
    }
    if (sqrt(off) <= relative * sqrt(norm) + 1e-7) return;
    opd_test_fail(__FILE__, __LINE__, "%s, data %zu: %s is off by %g of %g", c->text, c->data, what,
                  sqrt(off), sqrt(norm));
}
