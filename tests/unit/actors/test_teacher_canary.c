/* test_teacher_canary.c - what a teacher asks its servers at start, and what it does about those that
 * cannot be believed: kept out before the first sample, put away in the middle, taken back, outvoted. */
#include "actors/teacher/teacher_http.h"
#include "tests/unit/actors/teacher_rig.h"

enum { REPLICAS = 3 };

typedef struct bench {
    rig rig;
    script scripts[REPLICAS];
    char urls[256];
    opd_config_teacher teacher;
    opd_teacher_account account;
    opd_teacher_http_config config;
} bench;

static void bench_up(bench *b, int replicas, int samples) {
    memset(b, 0, sizeof *b);
    rig_up(&b->rig, samples, 4, 5, 50);
    for (int i = 0; i < replicas; i++) {
        size_t used = strlen(b->urls);
        script_up(&b->scripts[i], &b->rig);
        b->scripts[i].step_count = 1; /* STEP_OK */
        (void)snprintf(b->urls + used, sizeof b->urls - used, "%shttp://127.0.0.1:%u", i > 0 ? ", " : "",
                       b->scripts[i].port);
    }
    b->teacher = (opd_config_teacher){
        .name = "tutor", .url = "", .urls = b->urls, .path = "", .fallback = "", .timeout_s = 5,
        .deadline_s = 30, .connect_timeout_s = 2, .max_inflight = 8, .retries = 3, .backoff_ms = 10,
        .backoff_max_ms = 50, .start_timeout_s = 5, .retry_budget = 0.2, .retry_min_per_s = 10,
        .eject_s = 5, .probe = true, .canary_s = 0.1, .canary_tolerance = 0.02, .chunk_tokens = -1};
    b->config = (opd_teacher_http_config){
        .roles = &b->rig.roles, .env = b->rig.t.env, .alloc = &b->rig.t.memory.alloc,
        .teacher = &b->teacher, .teacher_lost_s = 20, .temperature = 1, .vocab_size = 50, .bos_id = 1,
        .eos_id = 2, .pad_id = -1, .tokenizer_hash = "", .account = &b->account};
}

/* Canaries `from` to `to`, counted from 1, are wrong by half a nat. */
static void lie_by_half(script *s, int from, int to) {
    s->lie = 0.5f;
    s->lie_from = from;
    s->lie_to = to;
}

static opd_err run(bench *b) {
    rig_teacher(&b->rig, &b->config);
    rig_feed(&b->rig);
    return rig_run(&b->rig);
}

static void check_scored(const bench *b) {
    CHECK_INT(b->rig.got, b->rig.count);
    for (int g = 0; g < b->rig.count; g++) {
        const rig_sample *s = &b->rig.scores[g];
        CHECK(s->scored && s->times == 1);
        for (uint32_t i = 0; i < b->rig.response_len; i++) {
            int32_t id = rig_token(&b->rig, g, b->rig.prompt_len + i);
            CHECK(s->valid[i] == 1 && s->logp[i] == -(float)(id + 1) / 100);
        }
    }
}

TEST(a_server_is_asked_before_the_first_sample) {
    static bench b;
    bench_up(&b, 1, 10);
    b.scripts[0].server_info = "{\"version\":\"0.5.10\",\"max_req_input_len\":900}";
    CHECK_OK(run(&b));
    check_scored(&b);
    CHECK_INT(b.scripts[0].questions, 7);
    CHECK_INT(b.scripts[0].canaries, 3);
    CHECK_INT(b.scripts[0].generates, 7 + 3 + 10);
    CHECK_CONTAINS(b.rig.notes, "teacher tutor: SGLang 0.5.10, HTTP/2, up to 900 tokens");
    CHECK_CONTAINS(b.account.capabilities, "\"version\":\"0.5.10\"");
    CHECK_INT(b.account.quarantines, 0);
    rig_down(&b.rig);
}

TEST(a_context_that_is_too_short_ends_the_start) {
    static bench b;
    bench_up(&b, 1, 3);
    b.config.max_len = 60;
    b.scripts[0].server_info = "{\"context_length\":50}";
    CHECK_ERR(run(&b), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "at most 49 tokens");
    CHECK_INT(b.rig.got, 0);
    rig_down(&b.rig);
}

TEST(a_temperature_that_is_not_shown_is_refused) {
    static bench b;
    bench_up(&b, 1, 3);
    b.config.temperature = 0.7;
    CHECK_ERR(run(&b), OPD_ERR_UNSUPPORTED);
    CHECK_CONTAINS(opd_err_context(), "rollout.temperature is 0.7");
    rig_down(&b.rig);
}

TEST(a_key_is_asked_for_when_the_door_is_shut) {
    static bench b;
    bench_up(&b, 1, 3);
    b.scripts[0].key = "k";
    CHECK_ERR(run(&b), OPD_ERR_REMOTE);
    CHECK_CONTAINS(opd_err_context(), "teachers.tutor.api_key_env");
    rig_down(&b.rig);
}

TEST(uniform_scores_never_begin_a_run) {
    static bench b;
    bench_up(&b, 1, 3);
    b.teacher.start_timeout_s = 1;
    b.scripts[0].lie_to = 1000;
    CHECK_ERR(run(&b), OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(opd_err_context(), "all scores are the same");
    CHECK_INT(b.rig.got, 0);
    CHECK_INT(b.rig.quarantines, 1);
    rig_down(&b.rig);
}

TEST(a_change_is_quarantined_and_two_good_rounds_end_it) {
    static bench b;
    bench_up(&b, 1, 3);
    b.rig.linger_ms = 4600; /* rounds at each second */
    lie_by_half(&b.scripts[0], 4, 6);
    CHECK_OK(run(&b));
    check_scored(&b);
    CHECK_INT(b.rig.quarantines, 1);
    CHECK_INT(b.account.quarantines, 1);
    CHECK_CONTAINS(b.rig.notes, "is in quarantine: its scores changed by 0.5 nats, allowed 0.02");
    CHECK_CONTAINS(b.rig.notes, "is lost (in quarantine");
    CHECK_CONTAINS(b.rig.notes, "out of quarantine");
    CHECK(b.rig.holds >= 1 && b.rig.releases >= 1);
    rig_down(&b.rig);
}

TEST(other_weights_are_a_new_baseline) {
    static bench b;
    bench_up(&b, 1, 3);
    b.rig.linger_ms = 2600;
    b.scripts[0].lie = 0.5f;
    b.scripts[0].lie_from = b.scripts[0].version_from = 4;
    b.scripts[0].lie_to = 1000;
    b.scripts[0].versions[0] = "w1";
    b.scripts[0].versions[1] = "w2";
    CHECK_OK(run(&b));
    CHECK_INT(b.rig.quarantines, 0);
    CHECK_CONTAINS(b.rig.notes, "has weights \"w2\" now, which are a new baseline");
    rig_down(&b.rig);
}

TEST(one_of_three_is_outvoted) {
    static bench b;
    bench_up(&b, 3, 30);
    b.rig.linger_ms = 1500;
    lie_by_half(&b.scripts[1], 0, 1000); /* in its canaries alone: its other scores are right */
    CHECK_OK(run(&b));
    check_scored(&b);
    CHECK_INT(b.rig.quarantines, 1);
    CHECK_CONTAINS(b.rig.notes, "0.5 nats from its siblings, allowed 0.1");
    const char *once = strstr(b.rig.notes, "does not tell its tokenizer"); /* of three that do not */
    CHECK(once != NULL && strstr(once + 1, "does not tell its") == NULL);
    CHECK_INT(b.rig.holds, 0);
    rig_down(&b.rig);
}

TEST(of_two_that_disagree_neither_is_put_away) {
    static bench b;
    bench_up(&b, 2, 10);
    b.rig.linger_ms = 1500;
    lie_by_half(&b.scripts[1], 0, 1000);
    CHECK_OK(run(&b));
    CHECK_INT(b.rig.quarantines, 0);
    CHECK_CONTAINS(b.rig.notes, "differ by 0.5 nats; neither can be believed over the other");
    rig_down(&b.rig);
}

TEST(a_server_that_comes_back_is_not_asked_it_all_again) {
    static bench b;
    bench_up(&b, 1, 10);
    b.scripts[0].steps[0] = STEP_CLOSE;
    b.scripts[0].steps[1] = STEP_OK;
    b.scripts[0].step_count = 2;
    CHECK_OK(run(&b));
    CHECK_INT(b.rig.got, 10);
    CHECK_INT(b.scripts[0].questions, 7);
    CHECK(b.scripts[0].canaries >= 6);
    CHECK_CONTAINS(b.rig.notes, "answers again");
    rig_down(&b.rig);
}

/* Another model takes over the address between two samples: no request fails, and the next round is far away. */
TEST(a_new_connection_is_asked_at_once) {
    static bench b;
    bench_up(&b, 1, 6);
    b.rig.want = 4; /* the first answer a second after the start is the fourth */
    b.rig.linger_ms = 1500;
    b.teacher.canary_s = 1000;
    b.teacher.max_inflight = 1;
    b.scripts[0].steps[0] = STEP_OK_LAST;
    b.scripts[0].late_ms = 300;
    lie_by_half(&b.scripts[0], 4, 6);
    CHECK_OK(run(&b));
    CHECK_INT(b.rig.quarantines, 1);
    CHECK_CONTAINS(b.rig.notes, "is in quarantine: its scores changed by 0.5 nats");
    int first = 7 + 3; /* requests of the start */
    while (strncmp(b.scripts[0].rids[first], "opd-sing-", 9) != 0) first++;
    CHECK(first <= 7 + 3 + 4); /* before a fifth sample */
    rig_down(&b.rig);
}

/* The same server all the time, that ends each connection: it is asked again, but no more than once a second. */
TEST(many_new_connections_are_few_rounds) {
    static bench b;
    bench_up(&b, 1, 40);
    b.teacher.canary_s = 1000;
    b.teacher.max_inflight = 1;
    b.scripts[0].steps[0] = STEP_OK_LAST;
    b.scripts[0].late_ms = 50;
    uint64_t began_ns = opd_env_now_ns(b.rig.t.env);
    CHECK_OK(run(&b));
    check_scored(&b);
    uint64_t seconds = (opd_env_now_ns(b.rig.t.env) - began_ns) / 1000000000;
    CHECK(b.scripts[0].canaries > 3 && (uint64_t)b.scripts[0].canaries <= 3 * (seconds + 2));
    CHECK_INT(b.rig.quarantines, 0);
    rig_down(&b.rig);
}

/* A round is under way as a proxy says that the server is gone, which it is not: the server is settled by a
 * round of its own, and the answer to the first one is about nothing any more. */
TEST(an_answer_to_a_round_that_was_begun_anew_says_nothing) {
    static bench b;
    bench_up(&b, 1, 1);
    b.rig.linger_ms = 2700;
    b.scripts[0].steps[0] = STEP_502_LATE;
    b.scripts[0].steps[1] = STEP_OK;
    b.scripts[0].step_count = 2;
    b.scripts[0].late_ms = 1200; /* rounds at each second: in the middle of the second one */
    b.scripts[0].late_canary = 4;
    CHECK_OK(run(&b));
    check_scored(&b);
    CHECK(b.scripts[0].canaries >= 7);
    CHECK_INT(b.rig.quarantines, 0);
    rig_down(&b.rig);
}

/* A busy server aborts with status 200: that says nothing of its scores, at the start or later. */
TEST(an_aborted_canary_says_nothing) {
    static bench b;
    bench_up(&b, 1, 3);
    b.rig.linger_ms = 2600;
    b.scripts[0].aborts_from = 2;
    b.scripts[0].aborts_to = 2;
    CHECK_OK(run(&b));
    check_scored(&b);
    CHECK(b.scripts[0].canaries >= 5);
    CHECK_INT(b.rig.quarantines, 0);
    rig_down(&b.rig);
}
