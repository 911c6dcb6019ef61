/* test_teacher_http.c - the HTTP teacher against a server that misbehaves by script: exactly one
 * SCORES for every ROLLOUT, whatever happens, and never a number that no server gave. */
#include "actors/teacher/teacher_http.h"
#include "tests/unit/actors/teacher_rig.h"

#include <stdlib.h>

typedef struct bench {
    rig rig;
    script script;
    char url[64];
    opd_config_teacher teacher;
    opd_teacher_http_config config;
} bench;

/* A bench with `count` samples of 4 + 5 tokens and a quick, patient teacher. */
static void bench_up(bench *b, int count, const script_step *steps, int step_count) {
    memset(b, 0, sizeof *b);
    rig_up(&b->rig, count, 4, 5, 50);
    memcpy(b->script.steps, steps, (size_t)step_count * sizeof *steps);
    b->script.step_count = step_count;
    script_up(&b->script, &b->rig);
    (void)snprintf(b->url, sizeof b->url, "http://127.0.0.1:%u/generate", b->script.port);
    rig_client(&b->rig, &b->teacher, &b->config);
    b->teacher.url = b->url;
}

static void bench_start(bench *b) {
    rig_teacher(&b->rig, &b->config);
    rig_feed(&b->rig);
}

#define BENCH(b, count, ...)                                                             \
    static bench b;                                                                      \
    do {                                                                                 \
        const script_step steps_[] = {__VA_ARGS__};                                      \
        bench_up(&b, count, steps_, (int)(sizeof steps_ / sizeof steps_[0]));            \
    } while (0)

/* Every sample has its right scores, all valid, after this many attempts. */
static void check_scored(const bench *b, uint32_t attempts) {
    CHECK_INT(b->rig.got, b->rig.count);
    for (int g = 0; g < b->rig.count; g++) {
        const rig_sample *s = &b->rig.scores[g];
        CHECK_INT(s->times, 1);
        CHECK(s->scored);
        CHECK_STR(s->reason, "");
        CHECK_INT(s->attempts, attempts);
        for (uint32_t i = 0; i < b->rig.response_len; i++) {
            int32_t id = rig_token(&b->rig, g, b->rig.prompt_len + i);
            CHECK_INT(s->valid[i], 1);
            CHECK(s->logp[i] == -(float)(id + 1) / 100);
        }
    }
}

static void check_refused(const bench *b, uint32_t attempts, const char *reason) {
    CHECK_INT(b->rig.got, b->rig.count);
    for (int g = 0; g < b->rig.count; g++) {
        const rig_sample *s = &b->rig.scores[g];
        CHECK_INT(s->times, 1);
        CHECK(!s->scored);
        CHECK_INT(s->attempts, attempts);
        CHECK_CONTAINS(s->reason, reason);
    }
}

/* No two attempts share a rid, none is a prefix of another: all have one width. */
static void check_rids(const bench *b) {
    for (int i = 0; i < b->script.generates; i++) {
        CHECK_INT(strlen(b->script.rids[i]), strlen(b->script.rids[0]));
        for (int j = 0; j < i; j++) CHECK(strcmp(b->script.rids[i], b->script.rids[j]) != 0);
    }
}

TEST(every_rollout_is_scored) {
    BENCH(b, 40, STEP_OK);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_scored(&b, 1);
    CHECK_INT(b.script.generates, 40);
    CHECK_INT(b.rig.holds, 0);
    check_rids(&b);
    rig_down(&b.rig);
}

TEST(server_errors_are_tried_again) {
    BENCH(b, 10, STEP_500, STEP_500, STEP_OK);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_scored(&b, 3);
    check_rids(&b);
    rig_down(&b.rig);
}

TEST(retries_end) {
    BENCH(b, 10, STEP_500);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_refused(&b, 4, "boom"); /* one attempt and three retries */
    CHECK_INT(b.script.generates, 40);
    rig_down(&b.rig);
}

TEST(retry_after_is_honoured) {
    BENCH(b, 5, STEP_503_AFTER, STEP_OK);
    bench_start(&b);
    uint64_t began = opd_env_now_ns(b.rig.t.env);
    CHECK_OK(rig_run(&b.rig));
    CHECK((opd_env_now_ns(b.rig.t.env) - began) / 1000000 >= 990);
    check_scored(&b, 2);
    rig_down(&b.rig);
}

TEST(a_client_error_is_not_repeated) {
    BENCH(b, 10, STEP_400);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_refused(&b, 1, "too long");
    rig_down(&b.rig);
}

TEST(an_invalid_answer_is_asked_for_once_more) {
    BENCH(b, 5, STEP_SHORT, STEP_OK);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_scored(&b, 2);
    rig_down(&b.rig);
}

TEST(two_short_answers_are_the_end) {
    BENCH(b, 5, STEP_SHORT);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_refused(&b, 2, "invalid answer");
    rig_down(&b.rig);
}

TEST(an_abort_with_200_is_no_score) {
    BENCH(b, 5, STEP_ABORT);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_refused(&b, 2, "Abort in waiting queue");
    rig_down(&b.rig);
}

TEST(garbage_with_200_is_no_score) {
    BENCH(b, 5, STEP_GARBAGE);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_refused(&b, 2, "invalid answer");
    rig_down(&b.rig);
}

TEST(a_null_is_one_invalid_token) {
    BENCH(b, 5, STEP_NULLS);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    for (int g = 0; g < 5; g++) {
        const rig_sample *s = &b.rig.scores[g];
        CHECK(s->scored);
        for (uint32_t i = 0; i < 5; i++) CHECK_INT(s->valid[i], i == 1 ? 0 : 1);
        CHECK(s->logp[1] == 0);
    }
    rig_down(&b.rig);
}

TEST(a_stall_ends_with_the_deadline) {
    BENCH(b, 10, STEP_STALL);
    b.teacher.timeout_s = 0.3;
    b.teacher.deadline_s = 0.7;
    b.teacher.retries = 100;
    bench_start(&b);
    uint64_t began = opd_env_now_ns(b.rig.t.env);
    CHECK_OK(rig_run(&b.rig));
    uint64_t took_ms = (opd_env_now_ns(b.rig.t.env) - began) / 1000000;
    CHECK(took_ms >= 690 && took_ms < 3000);
    CHECK_INT(b.rig.got, 10);
    for (int g = 0; g < 10; g++) {
        CHECK(!b.rig.scores[g].scored);
        CHECK_CONTAINS(b.rig.scores[g].reason, "deadline");
    }
    rig_down(&b.rig);
}

/* The server disappears with samples under way and is back half a second later. */
TEST(a_loss_is_waited_out) {
    BENCH(b, 20, STEP_CLOSE, STEP_OK);
    b.teacher.retries = 0; /* a loss must not use up an attempt */
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    CHECK_INT(b.rig.got, 20);
    for (int g = 0; g < 20; g++) CHECK_STR(b.rig.scores[g].reason, "");
    CHECK(b.rig.holds >= 1);
    CHECK(b.rig.releases >= 1);
    CHECK_CONTAINS(b.rig.notes, "is lost");
    CHECK_CONTAINS(b.rig.notes, "answers again");
    rig_down(&b.rig);
}

/* A proxy whose server is gone says 503, as a busy server does: several in a row are a loss. */
TEST(a_proxy_without_its_server_is_waited_out) {
    BENCH(b, 12, STEP_DIES);
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    CHECK_INT(b.rig.got, 12);
    for (int g = 0; g < 12; g++) {
        CHECK(b.rig.scores[g].scored);
        CHECK(b.rig.scores[g].attempts <= 4);
    }
    CHECK(b.rig.holds == 1 && b.rig.releases == 1);
    CHECK_CONTAINS(b.rig.notes, "is lost (HTTP 503");
    rig_down(&b.rig);
}

/* What had been sent before is answered late: the server as such is still gone, and admission held. */
TEST(a_late_answer_does_not_bring_a_lost_server_back) {
    BENCH(b, 2, STEP_DIES, STEP_OK_LATE);
    b.script.seen[0] = 1;
    b.script.late_ms = 600;
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    CHECK(b.rig.scores[0].scored && b.rig.scores[1].scored);
    CHECK(b.rig.scores[0].holds == 1 && b.rig.scores[0].releases == 0);
    CHECK(b.rig.holds == 1 && b.rig.releases == 1);
    rig_down(&b.rig);
}

/* One that says so of some samples only is busy, not gone. */
TEST(a_busy_server_is_not_lost) {
    BENCH(b, 12, STEP_503, STEP_503, STEP_OK);
    for (int i = 0; i < 3; i++) b.script.seen[i] = 2;
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    CHECK_INT(b.rig.got, 12);
    for (int g = 0; g < 12; g++) CHECK(b.rig.scores[g].scored);
    rig_down(&b.rig);
}

TEST(a_teacher_that_stays_away_stops_the_run) {
    BENCH(b, 5, STEP_500);
    b.config.teacher_lost_s = 0.5;
    b.teacher.retries = 1000;
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_TEACHER_LOST);
    CHECK_CONTAINS(opd_err_context(), "tutor");
    CHECK_INT(b.rig.got, 0);
    rig_down(&b.rig);
}

/* All samples have come to their deadlines and none is admitted: the run must not wait for ever. */
TEST(a_loss_without_samples_that_wait_stops_the_run_too) {
    BENCH(b, 3, STEP_CLOSE);
    b.script.stays_closed = true;
    b.teacher.timeout_s = 0.2;
    b.teacher.deadline_s = 0.4;
    b.config.teacher_lost_s = 2;
    b.rig.linger_ms = 20000;
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_TEACHER_LOST);
    CHECK_CONTAINS(opd_err_context(), "tutor");
    CHECK_INT(b.rig.got, 3);
    CHECK_INT(b.rig.holds, 1);
    rig_down(&b.rig);
}

TEST(nobody_there_at_start) {
    BENCH(b, 3, STEP_OK);
    b.teacher.url = "http://127.0.0.1:1";
    b.teacher.start_timeout_s = 0.5;
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_REFUSED);
    CHECK_CONTAINS(opd_err_context(), "127.0.0.1:1");
    CHECK_INT(b.rig.got, 0);
    rig_down(&b.rig);
}

TEST(another_vocabulary_is_refused) {
    BENCH(b, 3, STEP_OK);
    b.script.info = "{\"vocab_size\": 51}";
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "51 against 50");
    CHECK_INT(b.script.generates, 0);
    rig_down(&b.rig);
}

TEST(another_tokenizer_is_refused) {
    BENCH(b, 3, STEP_OK);
    b.config.tokenizer_hash = "0123456789abcdef";
    b.script.info = "{\"vocab_size\": 50, \"tokenizer_hash\": \"fedcba9876543210\"}";
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "tokenizer_hash");
    rig_down(&b.rig);
}

TEST(a_temperature_it_cannot_score_at_is_refused) {
    BENCH(b, 3, STEP_OK);
    b.config.temperature = 0.7;
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_UNSUPPORTED);
    CHECK_CONTAINS(opd_err_context(), "0.7");
    rig_down(&b.rig);
}

TEST(a_silent_server_is_probed_with_a_score) {
    BENCH(b, 3, STEP_OK);
    b.script.info_status = 404;
    b.script.info = "{\"object\":\"error\",\"message\":\"Not Found\"}";
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_scored(&b, 1);
    CHECK_INT(b.script.generates, 4);
    CHECK_CONTAINS(b.rig.notes, "does not tell its vocabulary size, end-of-text id, tokenizer: not");
    rig_down(&b.rig);
}

/* ---- servers that want a key ---- */

TEST(a_key_goes_with_every_request) {
    BENCH(b, 10, STEP_500, STEP_OK);
    b.script.key = "sk-of-the-test";
    CHECK_INT(setenv("OPD_TEST_KEY", b.script.key, 1), 0);
    b.teacher.api_key_env = "OPD_TEST_KEY";
    b.script.info_status = 404;
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_scored(&b, 2);
    CHECK_INT(b.script.shown, b.script.generates + b.script.infos);
    CHECK_INT(b.script.generates, 21); /* and the probe */
    CHECK(strstr(b.rig.notes, b.script.key) == NULL);
    rig_down(&b.rig);
}

TEST(an_abort_shows_the_key_too) {
    BENCH(b, 2, STEP_STALL, STEP_OK);
    b.script.key = "sk-of-the-test";
    CHECK_INT(setenv("OPD_TEST_KEY", b.script.key, 1), 0);
    b.teacher.api_key_env = "OPD_TEST_KEY";
    b.teacher.timeout_s = 0.2;
    b.rig.linger_ms = 50;
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_scored(&b, 2);
    CHECK_INT(b.script.aborts, 2);
    rig_down(&b.rig);
}

TEST(a_server_that_wants_a_key_ends_the_start) {
    BENCH(b, 3, STEP_OK);
    b.script.key = "sk-of-the-test";
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_REMOTE);
    CHECK_CONTAINS(opd_err_context(), "wants an API key");
    CHECK_CONTAINS(opd_err_context(), "teachers.tutor.api_key_env");
    CHECK_INT(b.script.infos + b.script.generates, 0);
    rig_down(&b.rig);
}

TEST(a_key_that_is_not_accepted_is_not_repeated) {
    BENCH(b, 3, STEP_OK);
    b.script.key = "sk-of-the-test";
    CHECK_INT(setenv("OPD_TEST_KEY", "sk-another", 1), 0);
    b.teacher.api_key_env = "OPD_TEST_KEY";
    bench_start(&b);
    CHECK_ERR(rig_run(&b.rig), OPD_ERR_REMOTE);
    CHECK_CONTAINS(opd_err_context(), "does not accept the key of teachers.tutor.api_key_env");
    CHECK(strstr(opd_err_context(), "sk-another") == NULL);
    rig_down(&b.rig);
}

/* It was let in at the start, and now is told its own key. */
TEST(a_key_that_comes_back_is_not_repeated_either) {
    BENCH(b, 3, STEP_401_ECHO);
    b.script.key = "sk-of-the-test";
    CHECK_INT(setenv("OPD_TEST_KEY", "sk-of-the-test", 1), 0);
    b.teacher.api_key_env = "OPD_TEST_KEY";
    bench_start(&b);
    CHECK_OK(rig_run(&b.rig));
    check_refused(&b, 1, "HTTP 401: the server does not let us in");
    for (int g = 0; g < 3; g++) CHECK(strstr(b.rig.scores[g].reason, "sk-") == NULL);
    rig_down(&b.rig);
}

TEST(a_missing_variable_is_named) {
    BENCH(b, 3, STEP_OK);
    b.teacher.api_key_env = "OPD_TEST_NO_SUCH_KEY";
    CHECK_ERR(opd_spawn(b.rig.t.system, &opd_teacher_http_class, NULL, &b.config,
                        &b.rig.roles.teacher), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "teachers.tutor.api_key_env");
    CHECK_CONTAINS(opd_err_context(), "OPD_TEST_NO_SUCH_KEY");
    opd_system_stop(b.rig.t.system, OPD_OK);
    CHECK_OK(rig_run(&b.rig));
    rig_down(&b.rig);
}

/* ---- a launched server, found by the slot of its host ---- */

static void slot_say(bench *b, const char *url) {
    opd_buf *buf;
    CHECK_OK(opd_buf_create(NULL, strlen(url) + 1, &buf));
    memcpy(opd_buf_data(buf), url, strlen(url) + 1);
    opd_slot_put(b->config.endpoint, buf, opd_slot_get(b->config.endpoint, NULL) + 1);
    opd_buf_release(buf);
}

/* The host says where the server is, a while after the rollouts came. */
typedef struct late_host {
    bench *b;
    opd_timer timer;
} late_host;

static opd_err host_speaks(opd_ctx *ctx, void *state, opd_timer *timer) {
    late_host *h = state;
    (void)timer;
    CHECK_INT(h->b->rig.got, 0);
    slot_say(h->b, h->b->url);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err host_start(opd_ctx *ctx, void *state, const void *config) {
    late_host *h = state;
    h->b = *(bench *const *)config;
    slot_say(h->b, "");
    opd_timer_init(&h->timer, ctx, host_speaks);
    return opd_timer_start_after(&h->timer, 30 * 1000000);
}

static const opd_actor_class host_class = {.name = "host", .state_size = sizeof(late_host),
                                           .on_start = host_start};

/* spoken: the slot holds the URL before the teacher starts, as after its restart. */
static void score_by_slot(bench *b, bool spoken) {
    bench *self = b;
    opd_pid pid;
    b->teacher.url = "";
    CHECK_OK(opd_slot_create(b->rig.t.system, &b->config.endpoint));
    if (spoken) slot_say(b, b->url);
    bench_start(b);
    if (!spoken) CHECK_OK(opd_spawn(b->rig.t.system, &host_class, NULL, &self, &pid));
    CHECK_OK(rig_run(&b->rig));
    check_scored(b, 1);
    opd_slot_destroy(b->config.endpoint);
    rig_down(&b->rig);
}

TEST(a_server_that_was_launched_before_is_found) {
    BENCH(b, 10, STEP_OK);
    score_by_slot(&b, true);
}

TEST(a_server_that_is_launched_later_is_waited_for) {
    BENCH(b, 10, STEP_OK);
    score_by_slot(&b, false);
}

/* ---- with a fallback ---- */

/* A second teacher, which always answers, stands in for the first; both behind the panel. */
static void with_fallback(bench *b, script *other, opd_teacher_http_config *config) {
    static char url[64];
    static opd_config_teacher second;
    *other = (script){.steps = {STEP_OK}, .step_count = 1};
    script_up(other, &b->rig);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u", other->port);
    second = b->teacher;
    second.name = "other";
    second.url = url;
    b->teacher.fallback = "other";
    *config = b->config;
    b->config.place = rig_stage_add(&b->rig, &b->teacher);
    config->place = rig_stage_add(&b->rig, &second);
    b->config.teacher = &b->rig.stage.teachers[b->config.place];
    config->teacher = &b->rig.stage.teachers[config->place];
    rig_panel(&b->rig, NULL, 0, 1);
    CHECK_OK(opd_spawn(b->rig.t.system, &opd_teacher_http_class, "first", &b->config,
                       &b->rig.roles.teachers[b->config.place]));
    CHECK_OK(opd_spawn(b->rig.t.system, &opd_teacher_http_class, "second", config,
                       &b->rig.roles.teachers[config->place]));
    b->rig.any_teacher = true;
    rig_feed(&b->rig);
}

/* The first one disappears with samples under way: they go on at the other, and nothing pauses. */
TEST(a_loss_goes_to_the_fallback) {
    static script other;
    opd_teacher_http_config config;
    BENCH(b, 20, STEP_CLOSE, STEP_OK);
    with_fallback(&b, &other, &config);
    CHECK_OK(rig_run(&b.rig));
    CHECK_INT(b.rig.got, 20);
    for (int g = 0; g < 20; g++) {
        CHECK_STR(b.rig.scores[g].reason, "");
        CHECK(b.rig.scores[g].scored);
    }
    CHECK_INT(b.rig.holds, 0);
    CHECK(other.generates > 0);
    CHECK_CONTAINS(b.rig.notes, "other is asked instead");
    rig_down(&b.rig);
}

/* It was never there: a warning, and the run goes on. */
TEST(a_teacher_that_is_late_has_a_fallback) {
    static script other;
    opd_teacher_http_config config;
    BENCH(b, 20, STEP_OK);
    b.teacher.url = "http://127.0.0.1:1";
    b.teacher.start_timeout_s = 0.2;
    with_fallback(&b, &other, &config);
    CHECK_OK(rig_run(&b.rig));
    CHECK_INT(b.rig.got, 20);
    CHECK_INT(other.generates, 20);
    CHECK_CONTAINS(b.rig.notes, "teacher tutor is not ready");
    rig_down(&b.rig);
}

/* Its own retries come first, then the other. */
TEST(a_sample_without_a_score_goes_to_the_fallback) {
    static script other;
    opd_teacher_http_config config;
    BENCH(b, 5, STEP_400);
    with_fallback(&b, &other, &config);
    CHECK_OK(rig_run(&b.rig));
    for (int g = 0; g < 5; g++) {
        CHECK(b.rig.scores[g].scored);
        CHECK_INT(b.rig.scores[g].attempts, 2);
    }
    CHECK_INT(b.script.generates, 5);
    CHECK_INT(other.generates, 5);
    rig_down(&b.rig);
}
