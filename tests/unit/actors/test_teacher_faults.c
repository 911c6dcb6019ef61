/* test_teacher_faults.c - the teacher's client against `opd serve`'s own server under a script of
 * faults: one test for each way in which servers are known to fail (docs/teacher.md has the table).
 *
 * Compiled twice: as teacher_faults over HTTP/2, and with FAULTS_HTTP1 as teacher_faults_http1 against the same
 * server on a port that speaks HTTP/1.1 alone, where the client has to find that out first.
 *
 * In every one: exactly one SCORES for each sample, none later than its deadline; every valid score
 * is the model's own; what is not valid is 0; and no memory is held in the end.
 */
#include "actors/teacher/policy.h"
#include "core/base/check.h"
#include "tests/unit/actors/serve_rig.h"

enum { DEADLINE_S = 6, SCRIPT_MAX = 2048 };
#ifdef FAULTS_HTTP1
enum { HTTP1 = true };
#else
enum { HTTP1 = false };
#endif

typedef struct outcome {
    int scored, refused; /* samples */
    int masked;          /* tokens of scored samples */
    uint32_t attempts_max, attempts_min, attempts; /* of a sample; of all together */
    uint64_t took_ms;
} outcome;

static serve_rig s;
static opd_teacher_http_config config;

static void up(int count, const char *faults) {
    char text[SCRIPT_MAX];
    (void)snprintf(text, sizeof text, "%s%s", HTTP1 ? "{\"do\": \"http1_only\"}\n" : "", faults);
    serve_up(&s, count, text);
    config = serve_teacher(&s, 1);
    s.teacher.timeout_s = 2.5;
    s.teacher.deadline_s = DEADLINE_S;
    s.teacher.max_inflight = 64;
}

static void check_tokens(int group, outcome *o) {
    const rig_sample *sample = &s.rig.scores[group];
    float logp[SERVE_RESPONSE];
    int32_t topk[SERVE_RESPONSE * SERVE_TOP_K];
    serve_direct(&s, group, 1, logp, topk);
    for (int i = 0; i < SERVE_RESPONSE; i++) {
        if (sample->valid[i]) CHECK(fabsf(sample->logp[i] - logp[i]) <= 1.2e-7f * fabsf(logp[i]));
        else CHECK(sample->logp[i] == 0);
        o->masked += !sample->valid[i];
        for (int j = 0; j < SERVE_TOP_K; j++) {
            int32_t id = sample->topk[i * SERVE_TOP_K + j];
            CHECK(id == -1 || id == topk[i * SERVE_TOP_K + j] || !sample->valid[i]);
        }
    }
}

static outcome run_for(int deadline_s) {
    outcome o = {.attempts_min = UINT32_MAX};
    if (s.rig.roles.teacher == OPD_PID_NOBODY) {
        rig_teacher(&s.rig, &config);
        rig_feed(&s.rig);
    }
    uint64_t began = opd_env_now_ns(s.rig.t.env);
    CHECK_OK(rig_run(&s.rig));
    o.took_ms = (opd_env_now_ns(s.rig.t.env) - began) / 1000000;
    CHECK(o.took_ms < (uint64_t)deadline_s * 1000 + 2000);
    CHECK_INT(s.rig.got, s.rig.count);
    for (int g = 0; g < s.rig.count; g++) {
        const rig_sample *sample = &s.rig.scores[g];
        CHECK_INT(sample->times, 1);
        if (sample->scored) check_tokens(g, &o);
        else CHECK(sample->reason[0] != '\0');
        o.scored += sample->scored;
        o.refused += !sample->scored;
        o.attempts += sample->attempts;
        if (sample->attempts > o.attempts_max) o.attempts_max = sample->attempts;
        if (sample->attempts < o.attempts_min) o.attempts_min = sample->attempts;
    }
    return o;
}

static outcome run(void) { return run_for(DEADLINE_S); }

/* How many requests the script spoiled. */
static uint64_t fired(void) { return opd_server_faults_fired(s.server.faults); }

static void down(void) { serve_down(&s); }

/* Every sample is scored whole in the end; the most attempts one took. 0: as many as it happens
 * (streams that were on their way when the server refused to take more are sent again). Each fault costs one attempt, or
 * none; of those that end a connection of HTTP/1.1 without a byte, so many more may cost none: the client sends again what went out on a kept one. */
static void all_scored_but(const char *faults, uint32_t attempts_max, uint32_t replays_max) {
    up(SERVE_COUNT, faults);
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.masked, 0);
    if (attempts_max > 0)
        CHECK(o.attempts_max == attempts_max || (replays_max > 0 && o.attempts_max < attempts_max));
    CHECK(fired() > 0);
    uint64_t attempts = SERVE_COUNT + (attempts_max > 1 ? fired() : 0);
    if (attempts_max > 0) CHECK(o.attempts <= attempts && o.attempts + replays_max >= attempts);
    down();
}

static void all_scored(const char *faults, uint32_t attempts_max) { all_scored_but(faults, attempts_max, 0); }

/* No sample is scored: each was asked `attempts` times, all of them in vain, and says why. */
static void all_refused(const char *faults, uint32_t attempts, const char *reason) {
    up(SERVE_COUNT, faults);
    outcome o = run();
    CHECK_INT(o.refused, SERVE_COUNT);
    CHECK_INT(o.attempts_min, attempts);
    CHECK_INT(o.attempts_max, attempts);
    CHECK_INT(fired(), SERVE_COUNT * attempts);
    for (int g = 0; g < SERVE_COUNT; g++) CHECK_CONTAINS(s.rig.scores[g].reason, reason);
    down();
}

/* ---- idle connections ---- */

typedef struct late_source {
    opd_timer timer;
} late_source;

static opd_err feed_now(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    rig_feed(&s.rig);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err late_start(opd_ctx *ctx, void *state, const void *unused) {
    late_source *late = state;
    (void)unused;
    opd_timer_init(&late->timer, ctx, feed_now);
    return opd_timer_start_after(&late->timer, 1200 * (uint64_t)1000000);
}

static const opd_actor_class late_class = {.name = "late", .state_size = sizeof(late_source),
                                           .on_start = late_start};

/* The connection of the first probe is closed while nothing happens; nobody notices. */
TEST(idle_connection_is_closed) {
    opd_pid pid;
    up(SERVE_COUNT, "{\"do\": \"idle_close\", \"delay_ms\": 200}");
    rig_teacher(&s.rig, &config);
    CHECK_OK(opd_spawn(s.rig.t.system, &late_class, NULL, NULL, &pid));
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 1);
    CHECK_INT(s.rig.holds, s.rig.releases);
    down();
}

/* Every request ends its connection: over HTTP/1.1 that is what a server's crash, a reset and a GOAWAY that drops look
 * like, too. Samples are given up after so many losses, whatever their retries. */
static void all_lost(const char *faults) {
    up(SERVE_COUNT, faults);
    s.teacher.deadline_s = 60;
    s.teacher.retries = 0;
    config.teacher_lost_s = 60;
    outcome o = run_for(60);
    CHECK_INT(o.refused, SERVE_COUNT);
    CHECK_INT(o.attempts_min, OPD_TEACHER_BREAKS_MAX);
    CHECK_INT(o.attempts_max, OPD_TEACHER_BREAKS_MAX);
    /* HTTP/1.1: for each, and kept connections are replayed; HTTP/2: one ends the others on its connection, too */
    CHECK(fired() >= (HTTP1 ? SERVE_COUNT : 1) * OPD_TEACHER_BREAKS_MAX);
    for (int g = 0; g < SERVE_COUNT; g++) CHECK_CONTAINS(s.rig.scores[g].reason, "connection lost");
    down();
}

/* The race: the connection is closed while the requests are on their way to it. All of HTTP/2 were on it; over HTTP/1.1 it
 * was a kept one, and the request goes out again by itself. */
TEST(idle_connection_is_closed_under_the_request) {
    up(SERVE_COUNT, "{\"do\": \"close\", \"nth\": 1}");
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.masked, 0);
    CHECK_INT(o.attempts_max, HTTP1 ? 1 : 2);
    CHECK_INT(fired(), 1);
    down();
}

/* ---- slow, silent, busy ---- */

TEST(slower_than_the_attempt) {
    up(SERVE_COUNT, "{\"do\": \"delay\", \"delay_ms\": 3000, \"count\": 10}");
    s.teacher.timeout_s = 0.3;
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 2);
    down();
}

TEST(slower_than_the_proxy) {
    all_scored("{\"do\": \"status\", \"status\": 504, \"delay_ms\": 200, \"count\": 10}", 2);
}

TEST(no_answer_ends_with_the_deadline) {
    up(SERVE_COUNT, "{\"do\": \"hang\"}");
    s.teacher.timeout_s = 0.2;
    s.teacher.deadline_s = 0.9;
    s.teacher.retries = 100;
    outcome o = run();
    CHECK_INT(o.refused, SERVE_COUNT);
    CHECK(o.attempts_min >= 2 && o.took_ms >= 890 && o.took_ms < 3000);
    for (int g = 0; g < SERVE_COUNT; g++) CHECK_CONTAINS(s.rig.scores[g].reason, "deadline");
    down();
}

TEST(overload_503) {
    all_scored("{\"do\": \"status\", \"status\": 503, \"count\": 20}", 2);
}

TEST(overload_503_with_retry_after) {
    up(SERVE_COUNT, "{\"do\": \"status\", \"status\": 503, \"retry_after_s\": 1, \"count\": 20}");
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK(o.took_ms >= 990);
    down();
}

TEST(overload_408_and_429) {
    all_scored("{\"do\": \"status\", \"status\": 408, \"form\": \"object\", \"count\": 10}\n"
               "{\"do\": \"status\", \"status\": 429, \"from\": 11, \"count\": 10}", 2);
}

TEST(overload_for_ever) {
    all_refused("{\"do\": \"status\", \"status\": 503, \"text\": \"The request queue is full.\"}", 4,
                "The request queue is full.");
}

TEST(internal_error_500) {
    all_scored("{\"do\": \"status\", \"status\": 500, \"count\": 10}", 2);
}

/* What a server says that still works on an earlier attempt: asking again would not help. */
TEST(duplicate_rid_400) {
    all_refused("{\"do\": \"status\", \"status\": 400, \"text\": \"Duplicate request ID: x\"}", 1, "HTTP 400: Duplicate request ID");
}

/* ---- 200, but no scores ---- */

TEST(abort_with_200) {
    all_scored("{\"do\": \"abort\", \"count\": 24}", 2);
    all_refused("{\"do\": \"abort\"}", 2, "Abort in waiting queue");
}

TEST(nan_happened_with_200) { all_refused("{\"do\": \"nan_happened\"}", 2, "NaN happened"); }

/* One score of each sample is no number, or none that a log-prob can be: that token alone is
 * masked. */
static void one_token_masked(const char *literal) {
    char rule[128];
    (void)snprintf(rule, sizeof rule, "{\"do\": \"value\", \"row\": 3, \"text\": \"%s\"}", literal);
    up(SERVE_COUNT, rule);
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 1);
    CHECK_INT(o.masked, SERVE_COUNT);
    for (int g = 0; g < SERVE_COUNT; g++) CHECK_INT(s.rig.scores[g].valid[2], 0);
    down();
}

TEST(null_score) { one_token_masked("null"); }
TEST(infinite_score) { one_token_masked("-1e999"); }
TEST(clamped_score) { one_token_masked("-3.4028235e38"); }
TEST(positive_score) { one_token_masked("0.5"); }

/* No JSON has these words: the whole answer is refused. */
TEST(nan_literal) {
    all_refused("{\"do\": \"value\", \"row\": 3, \"text\": \"NaN\"}", 2, "invalid answer");
    all_refused("{\"do\": \"value\", \"row\": 3, \"text\": \"-Infinity\"}", 2, "invalid answer");
}

/* NaN logits that a server turned into zeros: sglang issue 33187. */
TEST(uniform_scores) {
    all_refused("{\"do\": \"uniform\"}", 2, "no finite score");
    all_scored("{\"do\": \"uniform\", \"count\": 24}", 2);
}

TEST(short_rows) { all_refused("{\"do\": \"short\"}", 2, "input_token_logprobs has 9 rows"); }
TEST(long_rows) { all_refused("{\"do\": \"long\"}", 2, "input_token_logprobs has 11 rows"); }
TEST(truncated_prompt) { all_refused("{\"do\": \"prompt_tokens\"}", 2, "does it truncate"); }
TEST(changed_ids) { all_refused("{\"do\": \"ids\", \"row\": 4}", 2, "is about token"); }

/* The alternatives of one row end early: they count for nothing, the score stands. */
TEST(ragged_alternatives) {
    up(SERVE_COUNT, "{\"do\": \"ragged\", \"row\": 2}");
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.masked, 0);
    for (int g = 0; g < SERVE_COUNT; g++) {
        CHECK(s.rig.scores[g].topk[SERVE_TOP_K] >= 0);
        CHECK_INT(s.rig.scores[g].topk[SERVE_TOP_K + 1], -1);
    }
    down();
}

/* ---- health ---- */

/* A health check that fails or takes long is not what the client goes by. */
TEST(health_flaps) {
    up(SERVE_COUNT, "{\"path\": \"/health\", \"do\": \"status\", \"status\": 503}\n"
                    "{\"path\": \"/health_generate\", \"do\": \"hang\"}\n"
                    "{\"path\": \"/model_info\", \"do\": \"delay\", \"delay_ms\": 400}");
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 1);
    down();
}

/* ---- HTTP/2 ---- */

TEST(goaway_graceful) { all_scored("{\"do\": \"goaway\", \"kind\": \"graceful\", \"every\": 7}", 0); }
TEST(goaway_in_two_steps) { all_scored("{\"do\": \"goaway\", \"kind\": \"two_step\", \"nth\": 5}", 1); }

TEST(goaway_at_every_request) {
    up(SERVE_COUNT, "{\"do\": \"goaway\", \"kind\": \"graceful\"}");
    s.teacher.max_inflight = 1;
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    down();
}

/* Streams that the server did not process go out again unseen. Over HTTP/1.1 nothing says that it did not, unless the
 * connection was a kept one. */
TEST(goaway_drops_streams) {
    all_scored_but("{\"do\": \"goaway\", \"kind\": \"drop\", \"nth\": 3}", HTTP1 ? 2 : 1, HTTP1);
}

TEST(goaway_enhance_your_calm) {
    up(SERVE_COUNT, "{\"do\": \"goaway\", \"kind\": \"calm\", \"nth\": 3}");
    s.teacher.retries = 0;
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK(HTTP1 || o.took_ms >= 50); /* it did back off; HTTP/1.1 cannot ask for that */
    down();
}

TEST(reset_refused_stream) {
    up(SERVE_COUNT, "{\"do\": \"reset\", \"code\": \"REFUSED_STREAM\", \"count\": 40}");
    s.teacher.retries = 0;
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK(o.attempts_max > 1);
    down();
}

/* It costs no retry, so only the deadline ends it; the pauses grow all the same. */
TEST(reset_refused_stream_for_ever) {
    up(SERVE_COUNT, "{\"do\": \"reset\", \"code\": \"REFUSED_STREAM\"}");
    s.teacher.deadline_s = 1;
    s.teacher.backoff_max_ms = 400;
    outcome o = run();
    CHECK_INT(o.refused, SERVE_COUNT);
    CHECK(o.took_ms >= 990);
    CHECK(o.attempts_min >= (HTTP1 ? 1 : 3) && o.attempts_max <= 12); /* a loss there waits for a probe */
    for (int g = 0; g < SERVE_COUNT; g++) CHECK_CONTAINS(s.rig.scores[g].reason, "deadline");
    down();
}

TEST(reset_internal_error) {
    all_scored_but("{\"do\": \"reset\", \"code\": \"INTERNAL_ERROR\", \"count\": 20}", 2, HTTP1);
    if (HTTP1) all_lost("{\"do\": \"reset\", \"code\": \"INTERNAL_ERROR\"}");
    else all_refused("{\"do\": \"reset\", \"code\": \"INTERNAL_ERROR\"}", 4, "reset");
}

TEST(reset_cancel) { all_scored_but("{\"do\": \"reset\", \"code\": \"CANCEL\", \"count\": 20}", 2, HTTP1); }
TEST(reset_no_error) {
    if (HTTP1) all_lost("{\"do\": \"reset\", \"code\": \"NO_ERROR\"}");
    else all_refused("{\"do\": \"reset\", \"code\": \"NO_ERROR\"}", 4, "reset");
}

TEST(early_413) {
    all_refused("{\"do\": \"early\", \"status\": 413, \"text\": \"too large\"}", 1, "client_max_body_size): too large");
}

TEST(fewer_streams_in_flight) {
    all_scored("{\"do\": \"settings\", \"streams\": 1, \"nth\": 2}", 0);
}

/* ---- connections ---- */

TEST(connection_lost_with_50_streams) {
    up(50, "{\"do\": \"close\", \"nth\": 50}\n{\"do\": \"delay\", \"delay_ms\": 300, \"count\": 49}");
    s.teacher.retries = 0; /* a loss must not use up an attempt */
    outcome o = run();
    CHECK_INT(o.scored, 50);
    CHECK_INT(o.attempts_min, HTTP1 ? 1 : 2); /* there each request has a connection of its own */
    CHECK_INT(o.attempts_max, 2);
    CHECK_INT(o.attempts, HTTP1 ? 51 : 100);
    CHECK_INT(s.rig.holds, s.rig.releases);
    down();
}

/* A request that kills its server each time is given up. */
TEST(connection_lost_each_time) { all_lost("{\"do\": \"close\"}"); }

/* The server takes one stream at once and lets the first one hang: its place is free again when its
 * attempt ends, and all others pass through it. */
TEST(cancelled_stream_frees_its_place) {
    up(SERVE_COUNT, "{\"do\": \"settings\", \"streams\": 1, \"path\": \"/model_info\"}\n"
                    "{\"do\": \"hang\", \"count\": 1}");
    s.teacher.timeout_s = 0.3;
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 2);
    CHECK(o.took_ms >= 290);
    down();
}

/* ---- bodies ---- */

/* Over HTTP/1.1 the connection ends with the body, so that it counts as lost; how often a sample is asked until it is given
 * up is then a matter of its deadline, too. */
static void truncated_for_ever(const char *faults) {
    up(SERVE_COUNT, faults);
    outcome o = run();
    CHECK_INT(o.refused, SERVE_COUNT);
    CHECK(o.attempts_min >= 4 && o.attempts_max <= (HTTP1 ? OPD_TEACHER_BREAKS_MAX : 4));
    CHECK(HTTP1 ? fired() <= o.attempts : fired() == o.attempts); /* there the deadline may come before the connection */
    for (int g = 0; g < SERVE_COUNT && !HTTP1; g++) CHECK_CONTAINS(s.rig.scores[g].reason, "broken answer");
    down();
}

TEST(truncated_body) {
    all_scored("{\"do\": \"truncate\", \"bytes\": 1, \"count\": 8}\n"
               "{\"do\": \"truncate\", \"bytes\": 200, \"count\": 16}", 2);
    truncated_for_ever("{\"do\": \"truncate\", \"bytes\": 300}");
}

/* In the middle of a chunk (HTTP/2 has none), and of a base64 text. */
TEST(truncated_chunk) {
    all_scored("{\"do\": \"truncate\", \"chunked\": true, \"bytes\": 1, \"count\": 8}\n"
               "{\"do\": \"truncate\", \"chunked\": true, \"bytes\": 620, \"count\": 16}", 2);
}

TEST(truncated_base64) { all_scored("{\"do\": \"truncate\", \"bytes\": 620, \"count\": 24}", 2); }

static void stalled(const char *faults) {
    up(SERVE_COUNT, faults);
    s.teacher.timeout_s = 0.3;
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 2);
    CHECK_INT(o.attempts, SERVE_COUNT + fired());
    down();
}

TEST(stalled_body) { stalled("{\"do\": \"stall\", \"bytes\": 150, \"count\": 24}"); }
TEST(stalled_chunk) { stalled("{\"do\": \"stall\", \"chunked\": true, \"bytes\": 150, \"count\": 24}"); }

/* Alternatives without end, or whatever: the client takes what its own sizes allow. */
TEST(endless_body) {
    up(SERVE_COUNT, "{\"do\": \"pad\", \"bytes\": 1500000}");
    config.max_len = 32;
    s.teacher.timeout_s = 20; /* megabytes, on a busy machine: it is not about time here */
    s.teacher.deadline_s = 40;
    outcome o = run();
    CHECK_INT(o.refused, SERVE_COUNT);
    CHECK_INT(o.attempts_max, 1);
    CHECK_CONTAINS(s.rig.scores[0].reason, "max_answer_bytes");
    down();
}

/* ---- weights ---- */

/* Scores stay what the server gives; the run's log says that the teacher was changed. */
TEST(weights_change_between_attempts) {
    up(SERVE_COUNT, "{\"do\": \"weight_version\", \"text\": \"v2\", \"from\": 10, \"count\": 5}");
    outcome o = run();
    CHECK_INT(o.scored, SERVE_COUNT);
    CHECK_CONTAINS(s.rig.notes, "version v2 after default (changes so far: 1)");
    down();
}

/* ---- all at once ---- */

TEST(chaos) {
    up(60, "{\"probability\": 0.1, \"seed\": 1, \"do\": \"status\", \"status\": 503}\n"
           "{\"probability\": 0.1, \"seed\": 2, \"do\": \"reset\", \"code\": \"INTERNAL_ERROR\"}\n"
           "{\"probability\": 0.1, \"seed\": 3, \"do\": \"truncate\", \"bytes\": 99}\n"
           "{\"probability\": 0.1, \"seed\": 4, \"do\": \"value\", \"text\": \"null\"}\n"
           "{\"probability\": 0.1, \"seed\": 5, \"do\": \"short\"}\n"
           "{\"probability\": 0.1, \"seed\": 6, \"do\": \"goaway\", \"kind\": \"drop\", \"count\": 3}\n"
           "{\"probability\": 0.1, \"seed\": 7, \"do\": \"uniform\"}\n");
    outcome o = run();
    CHECK(o.scored >= 50);
    CHECK(fired() >= 20);
    down();
}
