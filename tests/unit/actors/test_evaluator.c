/* test_evaluator.c - pass@1 is counted right over a played rollout: right, wrong, cut and missing
 * answers; a bounded number in flight; several askers one after another. */
#include <unistd.h>

#include "actors/evaluator/evaluator_actor.h"
#include "actors/messages.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "tests/support/sys_test.h"

enum { PROBLEMS = 20, INFLIGHT = 3, PLACES = 16 };

static opd_roles roles;
static opd_tokenizer *tokenizer;
static uint64_t asked, versions_seen;
static size_t waiting_max;
static uint64_t group_next;
static uint32_t samples = 1;

/* Plays rollout: answers in bundles, the newest first; problem i gets "#### i", which is the
 * label of those with i % 4 == 0; i % 5 == 1 fails; i % 4 == 2 is cut by the limit. */
typedef struct player {
    opd_msg *waiting[PLACES];
    size_t count;
    opd_timer timer;
} player;

static void answer(opd_ctx *ctx, opd_msg *msg) {
    opd_generate_fields f;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_GENERATE, &f));
    if (f.group % 5 == 1) {
        opd_reply_error(ctx, msg, opd_fail(OPD_ERR_TIMEOUT, "too late"));
    } else {
        char text[32];
        int32_t ids[32];
        size_t count;
        opd_generated_fields out = {.finish = f.group % 4 == 2};
        (void)snprintf(text, sizeof text, "The answer is %d.\n#### %d", (int)f.group, (int)f.group);
        CHECK_OK(opd_tokenizer_encode(tokenizer, text, strlen(text), false, ids, 32, &count));
        CHECK_OK(opd_slice_copy(NULL, ids, count * sizeof *ids, &out.tokens));
        CHECK_OK(opd_slice_copy(NULL, ids, count * sizeof *ids, &out.logp));
        opd_message_reply(ctx, msg, OPD_MESSAGE_GENERATED, &out);
        opd_buf_release(out.tokens.buf);
        opd_buf_release(out.logp.buf);
    }
    opd_msg_release(msg);
}

static opd_err player_fire(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    player *p = state;
    while (p->count > 0) answer(ctx, p->waiting[--p->count]);
    return OPD_OK;
}

static opd_err player_start(opd_ctx *ctx, void *state, const void *config) {
    (void)config;
    opd_timer_init(&((player *)state)->timer, ctx, player_fire);
    return OPD_OK;
}

static opd_err player_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    player *p = state;
    opd_generate_fields f;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_GENERATE, &f));
    CHECK_INT(f.group, group_next++ % (PROBLEMS * samples)); /* in order */
    CHECK_INT(((const int32_t *)opd_slice_data(f.tokens))[0], 1);
    versions_seen |= UINT64_C(1) << f.min_version;
    asked++;
    CHECK(p->count < PLACES);
    p->waiting[p->count++] = msg;
    opd_msg_take(ctx, msg);
    if (p->count > waiting_max) waiting_max = p->count;
    return opd_timer_start_after(&p->timer, 50000);
}

static void player_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    player *p = state;
    for (size_t i = 0; i < p->count; i++) opd_msg_release(p->waiting[i]);
}

static opd_actor_class player_class = {
    .name = "rollout", .state_size = sizeof(player), .on_start = player_start,
    .on_message = player_message, .on_stop = player_stop};

/* ---- the askers ---- */

static int ask_count, answers, refused;
static bool stop_early;

static opd_err evaluated(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)state;
    (void)arg;
    opd_evaluated_fields f;
    if (err == OPD_ERR_AGAIN) {
        refused++;
    } else {
        CHECK_INT(err, OPD_OK);
        CHECK_OK(opd_message_read(reply, OPD_MESSAGE_EVALUATED, &f));
        CHECK_INT(f.total, PROBLEMS);
        CHECK_INT(f.correct, 4); /* 0 4 8 12 16 less 16, which failed */
        CHECK(f.response_len > 10 && f.response_len < 32);
        CHECK_NEAR(f.truncated, 4.0 / PROBLEMS, 1e-12); /* 2 10 14 18, and 6 failed */
        CHECK(f.pass.buf == NULL);
    }
    if (++answers == ask_count || stop_early) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    (void)config;
    for (uint64_t i = 0; i < (uint64_t)ask_count; i++) {
        opd_evaluate_fields f = {.min_version = i + 1, .set = i % 2};
        CHECK_OK(opd_message_request(ctx, roles.evaluator, OPD_MESSAGE_EVALUATE, &f,
                                     OPD_NO_DEADLINE, evaluated, NULL, NULL));
    }
    return OPD_OK;
}

static opd_actor_class asker_class = {.name = "trainer", .on_start = asker_start};

static void run(int count, uint32_t mailbox) {
    char path[] = "/tmp/opd-evaluator-XXXXXX", rows[PROBLEMS * 64] = "";
    for (int i = 0; i < PROBLEMS; i++)
        (void)snprintf(rows + strlen(rows), 64, "{\"prompt\":\"problem %d\",\"label\":\"%d\"}\n", i,
                       i % 4 == 0 ? i : 1000);
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(opd_file_write_atomic(path, rows, strlen(rows)));
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &tokenizer));
    opd_dataset_options options = {.path = path, .keys = {.prompt = "prompt", .label = "label"},
                                   .max_len = 100, .tokenizer = tokenizer};
    opd_dataset *dataset;
    opd_test_sys t;
    opd_pid asker;
    CHECK_OK(opd_dataset_open(&options, &dataset));
    unlink(path);
    asked = versions_seen = waiting_max = group_next = 0;
    ask_count = count, answers = refused = 0;
    player_class.mailbox_msgs_max = mailbox;
    sys_up(&t, NULL);
    opd_eval_sets sets = {.count = 2};
    sets.set[1] = (opd_eval_set){.name = "eval", .dataset = dataset, .samples = samples, .max_new = 9};
    sets.set[0] = sets.set[1];
    opd_evaluator_config config = {.sets = &sets, .roles = &roles, .tokenizer = tokenizer,
                                   .rule = OPD_REWARD_RULE_MATH, .inflight = INFLIGHT, .alloc = &t.memory.alloc};
    CHECK_OK(opd_spawn(t.system, &player_class, NULL, NULL, &roles.rollout));
    CHECK_OK(opd_spawn(t.system, &opd_evaluator_class, NULL, &config, &roles.evaluator));
    CHECK_OK(opd_spawn(t.system, &asker_class, NULL, NULL, &asker));
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
    opd_dataset_close(dataset);
    opd_tokenizer_destroy(tokenizer);
}

TEST(answers_are_counted) {
    run(1, 64);
    CHECK_INT(answers, 1);
    CHECK_INT(asked, PROBLEMS);
    CHECK_INT(waiting_max, INFLIGHT);
}

TEST(a_full_mailbox_is_waited_for) {
    run(1, 1); /* every second request is refused at first */
    CHECK_INT(asked, PROBLEMS);
}

TEST(askers_are_served_one_after_another) {
    run(3, 64);
    CHECK_INT(answers, 3);
    CHECK_INT(asked, 3 * PROBLEMS);
    CHECK_INT(versions_seen, 14); /* each under the version it asked for: 1, 2, 3 */
}

TEST(too_many_askers_are_told_so) {
    run(10, 64);
    CHECK_INT(answers, 10);
    CHECK_INT(refused, 2);
}

TEST(a_stop_in_the_middle_drops_everything) {
    stop_early = true;
    run(3, 64);
    CHECK_INT(answers, 1);
}

/* ---- names ---- */

TEST(the_numbers_of_an_evaluation_have_names) {
    static const struct { const char *name; uint32_t set, k; } CASES[] = {
        {"eval/accuracy", 0, 0}, {"eval/pass@1", 0, 1}, {"eval/pass@6", 0, 6}, {"eval/more", 1, 0}};
    static const char *const NONE[] = {"eval/pass@3", "accuracy", "eval/more-pass@1", "eval/eval", ""};
    opd_eval_sets sets = {.count = 2, .set = {{.name = "eval", .samples = 6},
                                              {.name = "more", .named = true, .samples = 1}}};
    opd_eval_metric m;
    for (size_t i = 0; i < OPD_COUNTOF(CASES); i++) {
        CHECK_OK(opd_eval_metric_find(&sets, CASES[i].name, &m));
        CHECK(m.set == CASES[i].set && m.k == CASES[i].k);
    }
    for (size_t i = 0; i < OPD_COUNTOF(NONE); i++) {
        CHECK_ERR(opd_eval_metric_find(&sets, NONE[i], &m), OPD_ERR_CONFIG);
        CHECK_CONTAINS(opd_err_context(), "there are eval/accuracy, eval/pass@1, eval/pass@2, eval/pass@4, eval/pass@6, eval/more");
    }
    opd_eval_result r = {.accuracy = {.accuracy = 0.25}, .pass_count = 1, .pass = {{.k = 2, .value = 0.5}}};
    CHECK_NEAR(opd_eval_metric_of(&(opd_eval_metric){0, 0}, &r), 0.25, 0);
    CHECK_NEAR(opd_eval_metric_of(&(opd_eval_metric){0, 2}, &r), 0.5, 0);
    sets.count = 0;
    CHECK_ERR(opd_eval_metric_find(&sets, "eval/accuracy", &m), OPD_ERR_CONFIG);
}

/* ---- several answers ---- */

static opd_err many_evaluated(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    opd_evaluated_fields f;
    opd_eval_result r;
    (void)state;
    (void)arg;
    CHECK_INT(err, OPD_OK);
    CHECK_OK(opd_message_read(reply, OPD_MESSAGE_EVALUATED, &f));
    CHECK_OK(opd_eval_result_read(f.correct, f.total, f.response_len, f.truncated, &f.pass, &r));
    CHECK_INT(f.total, 3 * PROBLEMS);
    CHECK_INT(r.pass_count, 3); /* 1, 2 and 3 */
    CHECK_NEAR(r.pass[0].value, r.accuracy.accuracy, 1e-12);
    CHECK_NEAR(r.pass[2].value * PROBLEMS, (double)f.correct, 1e-9); /* one right answer each, at most */
    CHECK(r.pass[0].value < r.pass[1].value && r.pass[1].value < r.pass[2].value);
    f.pass.size_bytes -= 8;
    CHECK_ERR(opd_eval_result_read(f.correct, f.total, 1, 0, &f.pass, &r), OPD_ERR_PARSE);
    CHECK_ERR(opd_eval_result_read(9, 8, 1, 0, &f.pass, &r), OPD_ERR_PARSE);
    answers++;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err many_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    (void)config;
    opd_evaluate_fields f = {.min_version = 1, .set = 1};
    return opd_message_request(ctx, roles.evaluator, OPD_MESSAGE_EVALUATE, &f, OPD_NO_DEADLINE,
                               many_evaluated, NULL, NULL);
}

TEST(several_answers_give_pass_at_k) {
    samples = 3;
    asker_class.on_start = many_start;
    run(1, 64);
    CHECK_INT(answers, 1);
    CHECK_INT(asked, 3 * PROBLEMS);
}
