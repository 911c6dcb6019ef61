/* test_panel_sample.c - ranges of a sample, and how answers become scores: each token once, at its
 * place, and valid only where its own answer says so. */
#include "actors/panel/sample.h"

#include <math.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/base/str.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

enum { PROMPT = 3, MAX_LEN = 64, TOP = 2, ASKED = 3 };

typedef struct rig {
    opd_test_alloc memory;
    opd_config_stage stage;
    opd_chains chains;
    opd_panel_sample *sample;
    int32_t tokens[MAX_LEN];
    opd_buf *rollout_tokens, *rollout_lists;
    uint32_t asked; /* 0, or ASKED */
} rig;

static const char *model(void *arg, int place) {
    (void)arg;
    return place == 0 ? "one" : "other \"quoted\"";
}

/* A sample of teachers a (and b), where a's fallback is b. */
static void rig_up(rig *r, const char *teachers) {
    memset(r, 0, sizeof *r);
    opd_test_alloc_tracing(&r->memory);
    r->stage.teacher_count = 2;
    r->stage.teachers[0] = (opd_config_teacher){.name = "a", .fallback = "b", .serves = "", .weight = 2};
    r->stage.teachers[1] = (opd_config_teacher){.name = "b", .fallback = "", .serves = "", .weight = 1};
    r->stage.opd = (opd_config_opd){.enabled = true, .teacher = teachers, .teacher_key = "",
                                    .type = OPD_CONFIG_OPD_TYPE_SGLANG, .log_prob_top_k = TOP};
    opd_chains_init(&r->chains, &r->stage);
    for (int32_t i = 0; i < MAX_LEN; i++) r->tokens[i] = i * 3;
    r->sample = opd_mem_get(&r->memory.alloc, sizeof *r->sample);
    opd_panel_sample_init(r->sample, &r->stage, 7, 1, PROMPT, "", (opd_slice){.buf = NULL});
}

static void rig_down(rig *r) {
    opd_panel_sample_destroy(r->sample, &r->memory.alloc);
    opd_buf_release(r->rollout_tokens);
    opd_buf_release(r->rollout_lists);
    CHECK_INT(r->memory.live, 0);
}

/* The student's likely ids at tokens [from, to): token * 5 + j. */
static void lists(rig *r, uint32_t from, uint32_t to, opd_slice *out) {
    int32_t ids[MAX_LEN * ASKED];
    *out = (opd_slice){.buf = NULL};
    if (r->asked == 0 || to <= from) return;
    for (uint32_t i = 0; i < (to - from) * r->asked; i++)
        ids[i] = r->tokens[from + i / r->asked] * 5 + (int32_t)(i % r->asked);
    CHECK_OK(opd_slice_copy(&r->memory.alloc, ids, (to - from) * r->asked * sizeof *ids, out));
}

static bool chunk(rig *r, uint32_t from, uint32_t to) {
    opd_chunk_fields f = {.prompt_len = PROMPT, .offset = from};
    bool taken;
    CHECK_OK(opd_slice_copy(&r->memory.alloc, r->tokens + from, (to - from) * sizeof(int32_t), &f.tokens));
    lists(r, from > PROMPT ? from : PROMPT, to, &f.topk);
    CHECK_OK(opd_panel_chunk(r->sample, &f, MAX_LEN, r->asked, &r->memory.alloc, &taken));
    opd_buf_release(f.tokens.buf);
    opd_buf_release(f.topk.buf);
    return taken;
}

static opd_err complete(rig *r, uint32_t count) {
    opd_slice slice;
    CHECK_OK(opd_slice_copy(&r->memory.alloc, r->tokens, count * sizeof(int32_t), &slice));
    opd_buf_release(r->rollout_tokens);
    r->rollout_tokens = slice.buf;
    opd_rollout_fields f = {.prompt_len = PROMPT, .tokens = slice};
    opd_buf_release(r->rollout_lists);
    lists(r, PROMPT, count, &f.topk);
    r->rollout_lists = f.topk.buf;
    return opd_panel_complete(r->sample, &f, r->asked);
}

static opd_panel_part *part(rig *r, uint32_t slot, uint32_t to, bool early) {
    opd_panel_part *p;
    CHECK_OK(opd_panel_part_add(r->sample, slot, to, early, &r->chains, &r->memory.alloc, &p));
    return p;
}

/* Answers a part: -token / 100 - place; `bad`: this token is not valid. */
static void answer(rig *r, opd_panel_part *p, bool with_valid, int bad) {
    uint32_t rows = p->to - p->from;
    float logp[MAX_LEN];
    uint8_t valid[MAX_LEN];
    int32_t topk[MAX_LEN * TOP];
    float topk_logp[MAX_LEN * TOP];
    opd_scored_fields f = {.attempts = 1};
    opd_slice question;
    uint32_t start;
    CHECK_OK(opd_panel_question(p, (opd_slice){.buf = NULL}, &r->memory.alloc, &question, &start));
    CHECK_INT(start, p->from - 1);
    const int32_t *ids = opd_slice_data(question);
    for (uint32_t i = 0; i < rows; i++) {
        logp[i] = (int)(p->from + i) == bad ? NAN : -(float)ids[p->from + i] / 100 - (float)p->rungs.at;
        valid[i] = (int)(p->from + i) != bad;
        for (int32_t k = 0; k < TOP; k++) {
            topk[i * TOP + (uint32_t)k] = ids[p->from + i] + k;
            topk_logp[i * TOP + (uint32_t)k] = -(float)(ids[p->from + i] + k) / 8;
        }
    }
    snprintf(f.endpoint, sizeof f.endpoint, "host%d", (int)p->rungs.at);
    CHECK_OK(opd_slice_copy(&r->memory.alloc, logp, rows * sizeof *logp, &f.logp));
    if (with_valid) CHECK_OK(opd_slice_copy(&r->memory.alloc, valid, rows, &f.valid));
    if (p->slot == 0) CHECK_OK(opd_slice_copy(&r->memory.alloc, topk, rows * TOP * sizeof *topk, &f.topk_ids));
    if (p->slot == 0)
        CHECK_OK(opd_slice_copy(&r->memory.alloc, topk_logp, rows * TOP * sizeof *topk_logp, &f.topk_logp));
    opd_slice asked = opd_panel_ids(p, r->asked);
    if (p->slot == 0 && r->asked > 0) { /* of id i: -i / 16 */
        float said[MAX_LEN * ASKED];
        const int32_t *about = opd_slice_data(asked);
        CHECK_INT(asked.size_bytes, rows * r->asked * sizeof *about);
        for (uint32_t i = 0; i < rows * r->asked; i++) {
            CHECK_INT(about[i], ids[p->from + i / r->asked] * 5 + (int32_t)(i % r->asked));
            said[i] = -(float)about[i] / 16;
        }
        CHECK_OK(opd_slice_copy(&r->memory.alloc, said, rows * r->asked * sizeof *said, &f.ids_logp));
    }
    CHECK_OK(opd_panel_answered(p, &f, p->slot == 0 ? TOP : 0, p->slot == 0 ? r->asked : 0));
    opd_buf_release(f.ids_logp.buf);
    opd_buf_release(question.buf);
    opd_buf_release(f.logp.buf);
    opd_buf_release(f.valid.buf);
    opd_buf_release(f.topk_ids.buf);
    opd_buf_release(f.topk_logp.buf);
}

static opd_scores_fields join(rig *r) {
    opd_panel_names names = {.stage = &r->stage, .model = model};
    opd_scores_fields f;
    CHECK_INT(r->sample->open, 0);
    CHECK_OK(opd_panel_join(r->sample, &names, TOP, r->asked, &r->memory.alloc, &f));
    return f;
}

static void check_row(const rig *r, const opd_scores_fields *f, uint32_t slot, uint32_t token, int place) {
    uint32_t rows = r->sample->have - PROMPT, at = slot * rows + token - PROMPT;
    const float *logp = opd_slice_data(f->logp);
    const uint8_t *valid = opd_slice_data(f->valid);
    const int32_t *topk = opd_slice_data(f->topk);
    const float *topk_logp = opd_slice_data(f->topk_logp);
    if (place < 0) {
        CHECK(!valid[at] && logp[at] == 0);
        return;
    }
    CHECK(valid[at] == 1 && logp[at] == -(float)r->tokens[token] / 100 - (float)place);
    if (slot != 0) return;
    CHECK_INT(topk[(token - PROMPT) * TOP + 1], r->tokens[token] + 1);
    CHECK(topk_logp[(token - PROMPT) * TOP + 1] == -(float)(r->tokens[token] + 1) / 8);
}

TEST(one_answer_is_handed_on_as_it_is) {
    rig r;
    rig_up(&r, "a");
    CHECK_OK(complete(&r, 10));
    opd_panel_part *p = part(&r, 0, 10, false);
    answer(&r, p, true, -1);
    opd_scores_fields f = join(&r);
    CHECK(f.logp.buf == p->scored.logp.buf);
    for (uint32_t i = PROMPT; i < 10; i++) check_row(&r, &f, 0, i, 0);
    CHECK_STR(f.teacher, "a");
    CHECK_INT(f.degraded, 0);
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

/* A sample that was broken off is asked for nothing more: what it has stands, the rest has no score. */
TEST(one_answer_about_a_part_is_not_the_whole) {
    rig r;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, 6));
    answer(&r, part(&r, 0, 6, true), true, -1);
    CHECK_OK(complete(&r, 10));
    opd_scores_fields f = join(&r);
    CHECK_INT(f.valid.size_bytes, 10 - PROMPT);
    CHECK_INT(f.logp.size_bytes, (10 - PROMPT) * sizeof(float));
    for (uint32_t i = PROMPT; i < 10; i++) check_row(&r, &f, 0, i, i < 6 ? 0 : -1);
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

TEST(one_answer_with_a_nan_is_not) {
    rig r;
    rig_up(&r, "a");
    CHECK_OK(complete(&r, 10));
    answer(&r, part(&r, 0, 10, false), true, 5);
    opd_scores_fields f = join(&r);
    for (uint32_t i = PROMPT; i < 10; i++) check_row(&r, &f, 0, i, i == 5 ? -1 : 0);
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

TEST(ranges_meet_at_their_places) {
    rig r;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, PROMPT));
    CHECK_INT(opd_panel_early_to(r.sample, 0, 4), 0);
    CHECK(chunk(&r, PROMPT, 8));
    CHECK_INT(opd_panel_early_to(r.sample, 0, 4), 8);
    CHECK_INT(opd_panel_early_to(r.sample, 0, 6), 0);
    CHECK_INT(opd_panel_early_to(r.sample, 0, 0), 0);
    opd_panel_part *first = part(&r, 0, 8, true);
    CHECK(chunk(&r, 8, 20));
    CHECK_INT(opd_panel_early_to(r.sample, 0, 4), 0); /* one is under way */
    answer(&r, first, true, 4);
    CHECK_INT(opd_panel_early_to(r.sample, 0, 4), 20);
    opd_panel_part *second = part(&r, 0, 20, true);
    CHECK_OK(complete(&r, 24));
    opd_panel_part *last = part(&r, 0, 24, false);
    CHECK_INT(last->from, 20);
    answer(&r, last, false, -1);
    answer(&r, second, false, 9);
    opd_scores_fields f = join(&r);
    for (uint32_t i = PROMPT; i < 24; i++) check_row(&r, &f, 0, i, i == 4 || i == 9 ? -1 : 0);
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

TEST(an_early_part_that_fails_gives_its_range_back) {
    rig r;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, 12));
    opd_panel_part *early = part(&r, 0, 12, true);
    CHECK(!early->rungs.waits);
    CHECK(!opd_panel_early_back(early, &r.chains, &r.memory.alloc));
    CHECK(chunk(&r, 12, 20));
    CHECK_INT(opd_panel_early_to(r.sample, 0, 4), 0); /* not again for this sample */
    CHECK_OK(complete(&r, 22));
    opd_panel_part *last = part(&r, 0, 22, false);
    CHECK_INT(last->from, PROMPT);
    answer(&r, last, true, -1);
    opd_scores_fields f = join(&r);
    for (uint32_t i = PROMPT; i < 22; i++) check_row(&r, &f, 0, i, 0);
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

/* It comes back when the rest was asked for already: it is asked again, by itself. */
TEST(an_early_part_that_fails_late_is_asked_again) {
    rig r;
    opd_msg *held;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, 12));
    opd_panel_part *early = part(&r, 0, 12, true);
    CHECK_OK(complete(&r, 16));
    r.sample->rollout = held = (opd_msg *)(void *)&r; /* only whether it is there counts here */
    answer(&r, part(&r, 0, 16, false), true, -1);
    CHECK(opd_panel_early_back(early, &r.chains, &r.memory.alloc));
    CHECK(!opd_panel_settled(r.sample));
    CHECK(!early->early && early->state == OPD_PART_WAITING && early->from == PROMPT && early->to == 12);
    CHECK(early->rungs.at == 0 && !early->rungs.waits); /* a has a fallback */
    early->rungs.at = 1;
    answer(&r, early, true, -1);
    CHECK(opd_panel_settled(r.sample));
    opd_scores_fields f = join(&r);
    for (uint32_t i = PROMPT; i < 16; i++) check_row(&r, &f, 0, i, i < 12 ? 1 : 0);
    CHECK_INT(f.degraded, 9); /* b's, where a was wanted */
    CHECK_STR(f.teacher, "b");
    opd_panel_scores_drop(&f);
    CHECK(held == r.sample->rollout);
    r.sample->rollout = NULL;
    rig_down(&r);
}

TEST(two_teachers_score_one_sample) {
    rig r;
    rig_up(&r, "a, b");
    CHECK_OK(complete(&r, 9));
    answer(&r, part(&r, 0, 9, false), true, 4);
    answer(&r, part(&r, 1, 9, false), true, 6);
    opd_scores_fields f = join(&r);
    CHECK_INT(f.logp.size_bytes, 2 * 6 * sizeof(float));
    for (uint32_t i = PROMPT; i < 9; i++) {
        check_row(&r, &f, 0, i, i == 4 ? -1 : 0);
        check_row(&r, &f, 1, i, i == 6 ? -1 : 1);
    }
    const uint8_t *places = opd_slice_data(f.teachers);
    const double *weights = opd_slice_data(f.weights);
    CHECK(places[0] == 0 && places[1] == 1 && weights[0] == 2 && weights[1] == 1);
    CHECK_INT(f.degraded, 2);
    CHECK_STR(f.teacher, "a, b");
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

TEST(nobody_gave_a_score) {
    rig r;
    rig_up(&r, "a, b");
    CHECK_OK(complete(&r, 9));
    opd_panel_part_fail(part(&r, 0, 9, false), "gone");
    opd_panel_part_fail(part(&r, 1, 9, false), "gone, too");
    opd_scores_fields f = join(&r);
    CHECK(f.logp.buf == NULL && f.valid.buf == NULL && f.provenance.buf == NULL);
    CHECK_STR(f.reason, "gone, too");
    CHECK_INT(f.degraded, 0);
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

TEST(a_failed_range_is_masked_and_the_rest_stands) {
    rig r;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, 8));
    answer(&r, part(&r, 0, 8, true), true, -1);
    CHECK_OK(complete(&r, 12));
    opd_panel_part_fail(part(&r, 0, 12, false), "gone");
    opd_scores_fields f = join(&r);
    for (uint32_t i = PROMPT; i < 12; i++) check_row(&r, &f, 0, i, i < 8 ? 0 : -1);
    const int32_t *topk = opd_slice_data(f.topk);
    CHECK_INT(topk[(8 - PROMPT) * TOP], -1);
    CHECK(isnan(((const float *)opd_slice_data(f.topk_logp))[(8 - PROMPT) * TOP]));
    CHECK_STR(f.reason, "gone");
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

TEST(provenance_says_who_scored_what) {
    rig r;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, 8));
    opd_panel_part *early = part(&r, 0, 8, true);
    answer(&r, early, true, -1);
    CHECK_OK(complete(&r, 9));
    opd_panel_part *last = part(&r, 0, 9, false);
    last->rungs.at = 1;
    answer(&r, last, true, -1);
    opd_scores_fields f = join(&r);
    const char *want =
        "[{\"from\":0,\"to\":5,\"teacher\":\"a\",\"endpoint\":\"host0\",\"model\":\"one\","
        "\"weight_version\":\"\",\"attempt\":1,\"protocol\":\"sglang\",\"privileged\":false},"
        "{\"from\":5,\"to\":6,\"teacher\":\"b\",\"endpoint\":\"host1\",\"model\":\"other \\\"quoted\\\"\","
        "\"weight_version\":\"\",\"attempt\":1,\"protocol\":\"sglang\",\"privileged\":false}]";
    CHECK_INT(f.provenance.size_bytes, strlen(want));
    CHECK(memcmp(opd_slice_data(f.provenance), want, strlen(want)) == 0);
    CHECK_STR(f.endpoint, "host1");
    opd_panel_scores_drop(&f);
    rig_down(&r);
}

/* A teacher that sees another prompt is asked about that and the response, from the right place on; where
 * a part stands among the response is the same for all. */
TEST(a_privileged_prompt_stands_in_place_of_the_prompt) {
    static const int32_t longer[] = {100, 101, 102, 103, 104}, shorter[] = {100};
    const struct { const int32_t *ids; uint32_t count; } prompts[] = {{longer, 5}, {shorter, 1}};
    for (size_t i = 0; i < OPD_COUNTOF(prompts); i++) {
        rig r;
        opd_slice privileged, tokens;
        uint32_t start, n = prompts[i].count;
        rig_up(&r, "a, b");
        CHECK_OK(opd_slice_copy(&r.memory.alloc, prompts[i].ids, n * sizeof(int32_t), &privileged));
        r.sample->privileged = privileged;
        r.stage.teachers[0].privileged = true;
        CHECK(opd_panel_privileged(r.sample, &r.stage, 0).buf == privileged.buf);
        CHECK(opd_panel_privileged(r.sample, &r.stage, 1).buf == NULL);
        CHECK(chunk(&r, 0, 8));
        opd_panel_part *early = part(&r, 0, 8, true);
        CHECK_OK(complete(&r, 10));
        opd_panel_part *last = part(&r, 0, 10, false);
        const opd_panel_part *parts[] = {early, last};
        for (size_t j = 0; j < 2; j++) {
            const opd_panel_part *p = parts[j];
            CHECK_OK(opd_panel_question(p, privileged, &r.memory.alloc, &tokens, &start));
            CHECK_INT(tokens.size_bytes / sizeof(int32_t), n + p->to - PROMPT);
            CHECK_INT(start + 1, n + p->from - PROMPT); /* the first that is scored is `from` */
            const int32_t *ids = opd_slice_data(tokens);
            for (uint32_t k = 0; k < n; k++) CHECK_INT(ids[k], prompts[i].ids[k]);
            for (uint32_t k = PROMPT; k < p->to; k++) CHECK_INT(ids[n + k - PROMPT], r.tokens[k]);
            opd_buf_release(tokens.buf);
        }
        answer(&r, early, true, -1);
        answer(&r, last, true, -1);
        answer(&r, part(&r, 1, 10, false), true, -1);
        opd_scores_fields f = join(&r);
        for (uint32_t t = PROMPT; t < 10; t++) check_row(&r, &f, 0, t, 0);
        opd_str text;
        opd_str_init(&text, &r.memory.alloc, 4096);
        opd_str_append(&text, opd_slice_data(f.provenance), f.provenance.size_bytes);
        CHECK_CONTAINS(text.data, "\"teacher\":\"a\",\"endpoint\":\"host0\",\"model\":\"one\","
                       "\"weight_version\":\"\",\"attempt\":1,\"protocol\":\"sglang\",\"privileged\":true}");
        CHECK_CONTAINS(text.data, "\"protocol\":\"sglang\",\"privileged\":false}");
        opd_str_fini(&text);
        opd_panel_scores_drop(&f);
        rig_down(&r);
    }
}

/* What the teacher says of the student's ids lies beside the tokens that they are of, asked in parts or at
 * once; where it said nothing there is no number. */
TEST(the_students_ids_are_asked_about_in_place) {
    for (int parts = 1; parts <= 3; parts++) {
        rig r;
        rig_up(&r, "a, b");
        r.asked = ASKED;
        if (parts > 1) {
            CHECK(chunk(&r, 0, PROMPT));
            CHECK(chunk(&r, PROMPT, 7));
            answer(&r, part(&r, 0, 7, true), true, -1);
        }
        if (parts > 2) {
            CHECK(chunk(&r, 7, 9));
            opd_panel_part_fail(part(&r, 0, 9, false), "nobody");
        }
        CHECK_OK(complete(&r, 12));
        answer(&r, part(&r, 0, 12, false), true, -1);
        answer(&r, part(&r, 1, 12, false), true, -1);
        opd_scores_fields f = join(&r);
        const float *said = opd_slice_data(f.asked_logp);
        CHECK_INT(f.asked_logp.size_bytes, (12 - PROMPT) * ASKED * sizeof *said);
        for (uint32_t t = PROMPT; t < 12; t++)
            for (uint32_t j = 0; j < ASKED; j++) {
                float x = said[(t - PROMPT) * ASKED + j];
                if (parts == 3 && t >= 7 && t < 9) CHECK(isnan(x));
                else CHECK(x == -(float)(r.tokens[t] * 5 + (int32_t)j) / 16);
            }
        opd_panel_scores_drop(&f);
        rig_down(&r);
    }
}

TEST(chunks_that_do_not_fit_change_nothing) {
    rig r;
    rig_up(&r, "a");
    CHECK(!chunk(&r, 2, 5));        /* does not begin */
    CHECK(!chunk(&r, 0, 2));        /* less than the prompt */
    CHECK(chunk(&r, 0, 6));
    CHECK(!chunk(&r, 5, 9));        /* overlaps */
    CHECK(!chunk(&r, 7, 9));        /* leaves a gap */
    CHECK(chunk(&r, 6, MAX_LEN));
    CHECK_INT(r.sample->have, MAX_LEN);
    rig_down(&r);
}

/* What was scored early must be about the tokens that the sample has in the end. */
TEST(a_rollout_of_other_tokens_is_refused) {
    rig r;
    rig_up(&r, "a");
    CHECK(chunk(&r, 0, 6));
    r.tokens[5]++;
    CHECK_ERR(complete(&r, 9), OPD_ERR_INTERNAL);
    r.tokens[5]--;
    CHECK_ERR(complete(&r, 5), OPD_ERR_INTERNAL); /* shorter than what was told */
    CHECK_OK(complete(&r, 6));
    rig_down(&r);
}

TEST(arrays_of_another_length_are_no_answer) {
    rig r;
    rig_up(&r, "a");
    CHECK_OK(complete(&r, 9));
    opd_panel_part *p = part(&r, 0, 9, false);
    opd_scored_fields f = {.attempts = 1};
    float logp[8] = {0};
    CHECK_ERR(opd_panel_answered(p, &f, 0, 0), OPD_ERR_INTERNAL);
    CHECK_OK(opd_slice_copy(&r.memory.alloc, logp, 5 * sizeof *logp, &f.logp));
    CHECK_ERR(opd_panel_answered(p, &f, 0, 0), OPD_ERR_INTERNAL);
    opd_buf_release(f.logp.buf);
    CHECK_INT(r.sample->open, 1);
    rig_down(&r);
}
