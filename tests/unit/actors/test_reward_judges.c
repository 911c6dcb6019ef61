/* test_reward_judges.c - judges outside of opd, as the reward actor asks them: child processes that
 * answer, crash, hang and babble; groups; sums; a judge over HTTP. Real processes and sockets. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/messages.h"
#include "actors/reward/question.h"
#include "actors/reward/reward_actor.h"
#include "core/base/check.h"
#include "tests/support/script_actor.h"
#include "transports/http.h"

enum { SAMPLES_MAX = 32, WINDOW = 8 };

typedef struct world {
    opd_test_sys t;
    opd_roles roles;
    opd_lane *lane;
    opd_link *link; /* of the source */
    opd_monitor monitor;
    opd_tokenizer *tokenizer;
    const char *const *responses; /* NULL-terminated */
    uint32_t members;             /* of a group */
    uint64_t sent, got, total;
    opd_reward_fields rewards[SAMPLES_MAX];
    char program[256];
    opd_http_server *server; /* of the judge over HTTP */
    uint64_t requests;
} world;

/* ---- around the actor ---- */

static opd_err batcher_message(opd_ctx *ctx, void *arg, opd_msg *msg) {
    world *w = arg;
    opd_reward_fields *f = &w->rewards[w->got];
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_REWARD, f));
    CHECK_INT(f->group * w->members + f->member, w->got); /* in order, each once */
    if (++w->got == w->total) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err source_pump(opd_ctx *ctx, world *w) {
    while (w->sent < w->total) {
        int32_t ids[256];
        size_t prompt, count;
        const char *text = w->responses[w->sent];
        CHECK_OK(opd_tokenizer_encode(w->tokenizer, "what?", 5, false, ids, 200, &prompt));
        CHECK_OK(opd_tokenizer_encode(w->tokenizer, text, strlen(text), false, ids + prompt, 200, &count));
        opd_rollout_fields f = {.group = w->sent / w->members,
                                .member = (uint32_t)(w->sent % w->members),
                                .prompt_len = (uint32_t)prompt};
        CHECK_OK(opd_slice_copy(NULL, ids, (prompt + count) * sizeof *ids, &f.tokens));
        CHECK_OK(opd_slice_copy(NULL, "7", 1, &f.label));
        opd_err err = opd_message_link_send(ctx, w->link, OPD_MESSAGE_ROLLOUT, &f);
        opd_buf_release(f.tokens.buf);
        opd_buf_release(f.label.buf);
        if (err == OPD_ERR_AGAIN) return OPD_OK;
        OPD_TRY(err);
        w->sent++;
    }
    return OPD_OK;
}

static opd_err source_start(opd_ctx *ctx, void *arg) {
    world *w = arg;
    opd_monitor_start(ctx, &w->monitor, w->roles.reward);
    OPD_TRY(opd_link_open(ctx, w->roles.reward, WINDOW, 1 << 16, &w->link));
    return source_pump(ctx, w);
}

static opd_err source_signal(opd_ctx *ctx, void *arg, const opd_signal *signal) {
    if (signal->kind == OPD_SIGNAL_DOWN) opd_system_stop(opd_self_system(ctx), signal->reason);
    return signal->kind == OPD_SIGNAL_CREDIT ? source_pump(ctx, arg) : OPD_OK;
}

static void world_up(world *w, const char *const *responses, uint32_t members) {
    memset(w, 0, sizeof *w);
    sys_up(&w->t, NULL);
    if (w->t.sim != NULL) SKIP("a simulated world has no processes");
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &w->tokenizer));
    CHECK_OK(opd_lane_open(w->t.system, "reward", 4, &w->lane));
    w->responses = responses;
    w->members = members;
    while (responses[w->total] != NULL) w->total++;
    CHECK(w->total <= SAMPLES_MAX);
    (void)snprintf(w->program, sizeof w->program, "%s/judge_%d.sh", OPD_BINARY_DIR, getpid());
}

/* A shell script as the judge: "$line" is a question, "$id" its id. */
static void write_judge(const world *w, const char *body) {
    FILE *file = fopen(w->program, "w");
    CHECK(file != NULL);
    CHECK(fprintf(file, "#!/bin/sh\nwhile read -r line; do id=${line#*\\\"id\\\":}; id=${id%%%%,*}\n"
                        "%s\ndone\n", body) > 0);
    CHECK(fclose(file) == 0);
    CHECK(chmod(w->program, 0755) == 0);
}

static opd_err world_run(world *w, const opd_reward_part *parts, uint32_t count) {
    opd_pid pid;
    w->roles.batcher = script_spawn(&w->t, "batcher", (opd_script){.message = batcher_message, .arg = w});
    opd_reward_config config = {.parts = parts, .part_count = count, .samples_per_prompt = w->members,
                                .tokenizer = w->tokenizer, .lane = w->lane, .env = w->t.env,
                                .roles = &w->roles, .window_msgs = WINDOW,
                                .alloc = &w->t.memory.alloc};
    OPD_TRY(opd_spawn(w->t.system, &opd_reward_class, NULL, &config, &w->roles.reward));
    pid = script_spawn(&w->t, "source", (opd_script){.start = source_start, .signal = source_signal, .arg = w});
    CHECK(pid != OPD_PID_NOBODY);
    return opd_system_run(w->t.system);
}

static void world_down(world *w) {
    (void)unlink(w->program);
    sys_down(&w->t);
    opd_tokenizer_destroy(w->tokenizer);
}

static opd_reward_part by_command(const char *const *argv) {
    return (opd_reward_part){.kind = OPD_REWARD_BY_COMMAND, .name = "script", .weight = 1,
                             .argv = argv, .workers = 2, .timeout_ms = 20000};
}

static void got(const world *w, size_t i, double reward, opd_reward_failure failure) {
    const opd_reward_fields *f = &w->rewards[i];
    if (f->valid != (failure == OPD_REWARD_JUDGED) || f->failure != (uint32_t)failure ||
        (f->valid && fabs(f->reward - reward) > 1e-12))
        opd_test_fail(__FILE__, __LINE__, "sample %zu: valid %d, reward %g, failure %u", i, f->valid,
                      f->reward, f->failure);
}

/* ---- child processes ---- */

TEST(a_command_judges_every_sample_in_order) {
    static const char *const TEXTS[] = {"good", "bad", "good \"quoted\"\n", "bad", "good", "bad",
                                        "good", "bad", "good", "good", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    write_judge(&w, "echo some words of the judge\n"
                    "case \"$line\" in *good*) echo \"{\\\"id\\\":$id,\\\"reward\\\":1.5}\";;\n"
                    "*) echo \"{\\\"score\\\":-0.25, \\\"id\\\":$id, \\\"why\\\":[1]}\";; esac");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_command(argv);
    CHECK_OK(world_run(&w, &part, 1));
    CHECK_INT(w.got, w.total);
    for (size_t i = 0; i < w.total; i++)
        got(&w, i, TEXTS[i][0] == 'g' ? 1.5 : -0.25, OPD_REWARD_JUDGED);
    world_down(&w);
}

TEST(a_crash_or_a_hang_costs_that_sample_only) {
    static const char *const TEXTS[] = {"fine", "crash", "fine", "hang", "fine", "null", "fine",
                                        "wrong", "fine", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    write_judge(&w, "case \"$line\" in *crash*) kill -9 $$;; *hang*) exec sleep 100;;\n"
                    "*null*) echo \"{\\\"id\\\":$id,\\\"reward\\\":null}\";;\n"
                    "*wrong*) echo \"{\\\"id\\\":$id,\\\"reward\\\":\\\"much\\\"}\";;\n"
                    "*) echo \"{\\\"id\\\":$id,\\\"reward\\\":1}\";; esac");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_command(argv);
    part.timeout_ms = 3000;
    CHECK_OK(world_run(&w, &part, 1));
    for (size_t i = 0; i < w.total; i++)
        got(&w, i, 1, TEXTS[i][0] == 'f'   ? OPD_REWARD_JUDGED
                      : TEXTS[i][0] == 'h' ? OPD_REWARD_TIMEOUT
                                           : OPD_REWARD_FAILED);
    world_down(&w);
}

TEST(a_judge_that_never_answers_ends_the_run_with_its_last_words) {
    static const char *const TEXTS[] = {"a", "b", "c", "d", "e", "f", "g", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    write_judge(&w, "echo no module named judge >&2; exit 3");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_command(argv);
    opd_log_memory said;
    log_memory_start(&said);
    CHECK(world_run(&w, &part, 1) == OPD_ERR_REMOTE);
    opd_log_sink_set(NULL, NULL);
    CHECK(strstr(said.text, "never gave an answer; its last words: no module named judge") != NULL);
    world_down(&w);
}

TEST(a_command_that_does_not_exist_is_named) {
    static const char *const TEXTS[] = {"a", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    const char *const argv[] = {"/nonexistent/judge", NULL};
    opd_reward_part part = by_command(argv);
    CHECK(world_run(&w, &part, 1) == OPD_ERR_NOT_FOUND);
    CHECK(strstr(opd_err_context(), "/nonexistent/judge") != NULL);
    world_down(&w);
}

TEST(a_group_is_judged_at_once_and_parts_are_summed) {
    static const char *const TEXTS[] = {"A: 7", "A: 8", "lost", "A: 7", "A: 7", "A: 7", NULL};
    static world w;
    world_up(&w, TEXTS, 2);
    write_judge(&w, "case \"$line\" in *lost*) echo \"{\\\"id\\\":$id,\\\"rewards\\\":[null,3]}\";;\n"
                    "*) echo \"{\\\"id\\\":$id,\\\"rewards\\\":[1,2]}\";; esac");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part parts[] = {by_command(argv),
                               {.name = "math", .weight = 10, .rule = OPD_REWARD_RULE_MATH}};
    parts[0].group = true;
    parts[0].weight = 0.5;
    CHECK_OK(world_run(&w, parts, 2));
    got(&w, 0, 10.5, OPD_REWARD_JUDGED);
    got(&w, 1, 1, OPD_REWARD_JUDGED);
    got(&w, 2, 0, OPD_REWARD_FAILED);
    got(&w, 3, 11.5, OPD_REWARD_JUDGED);
    got(&w, 4, 10.5, OPD_REWARD_JUDGED);
    got(&w, 5, 11, OPD_REWARD_JUDGED);
    world_down(&w);
}

/* ---- over HTTP ---- */

static void on_cancelled(void *arg, opd_http_exchange *exchange) {
    (void)arg;
    opd_http_respond_text(exchange, 500, NULL, "late");
}

/* Refuses "bad", is silent on "hang", and "busy" on every odd request. */
static void on_request(void *arg, opd_http_exchange *exchange) {
    world *w = arg;
    const char *body = opd_http_exchange_body(exchange);
    CHECK_STR(opd_http_exchange_path(exchange), "/v1/score");
    w->requests++;
    if (strstr(body, "hang") != NULL) opd_http_exchange_on_cancel(exchange, on_cancelled, NULL);
    else if (strstr(body, "bad") != NULL) opd_http_respond_text(exchange, 400, NULL, "bad");
    else if (strstr(body, "busy") != NULL && w->requests % 2 == 1)
        opd_http_respond_text(exchange, 503, NULL, "busy");
    else opd_http_respond_text(exchange, 200, "application/json",
                               strstr(body, "number") != NULL ? "0.5" : "{\"score\": 0.75}");
}

static opd_err server_start(opd_ctx *ctx, void *arg) {
    world *w = arg;
    (void)ctx;
    opd_http_server_options options = {.alloc = &w->t.memory.alloc, .env = w->t.env};
    return opd_http_server_create(&options, on_request, w, &w->server);
}

static void on_closed(void *arg) { (void)arg; }

static void server_stop(opd_ctx *ctx, void *arg) {
    world *w = arg;
    (void)ctx;
    opd_http_server_close(w->server, 0, on_closed, NULL);
}

TEST(a_judge_behind_a_url_is_asked_again_when_it_is_busy) {
    static const char *const TEXTS[] = {"busy", "good", "bad", "number", "hang", "good", NULL};
    static world w;
    char url[64];
    world_up(&w, TEXTS, 1);
    (void)script_spawn(&w.t, "judge", (opd_script){.start = server_start, .stop = server_stop, .arg = &w});
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/v1/score", opd_http_server_port(w.server));
    opd_reward_part part = {.kind = OPD_REWARD_BY_URL, .name = "url", .weight = 2, .url = url,
                            .workers = 1, .retries = 1, .timeout_ms = 1500};
    CHECK_OK(world_run(&w, &part, 1));
    got(&w, 0, 1.5, OPD_REWARD_JUDGED);
    got(&w, 1, 1.5, OPD_REWARD_JUDGED);
    got(&w, 2, 0, OPD_REWARD_FAILED);
    got(&w, 3, 1, OPD_REWARD_JUDGED);
    got(&w, 4, 0, OPD_REWARD_TIMEOUT);
    got(&w, 5, 1.5, OPD_REWARD_JUDGED);
    CHECK_INT(w.requests, 8); /* busy twice, hang twice, the others once */
    world_down(&w);
}

/* ---- questions and answers ---- */

static opd_err read_answer(uint32_t count, bool group, const char *text, double *out) {
    opd_reward_question q = {.id = 5, .count = count, .group = group, .rewards = out};
    return opd_reward_question_read(&q, text, strlen(text));
}

TEST(answers_that_are_none_never_become_a_number) {
    double r[2] = {0, 0};
    CHECK_OK(read_answer(1, false, "2.5", r));
    CHECK_NEAR(r[0], 2.5, 0);
    CHECK_OK(read_answer(1, false, " {\"x\": {}, \"reward\": -1e3} ", r));
    CHECK_NEAR(r[0], -1000, 0);
    CHECK_OK(read_answer(1, false, "{\"reward\": null}", r));
    CHECK(isnan(r[0]));
    CHECK_OK(read_answer(2, true, "{\"rewards\": [1, null], \"id\": 5}", r));
    CHECK(r[0] == 1 && isnan(r[1]));
    CHECK_OK(read_answer(2, true, "[3,4]", r));
    static const char *const WRONG[] = {"", "x", "{}", "{\"reward\": \"1\"}", "{\"reward\": 1} 2", "NaN",
                                        "{\"reward\": NaN}", "1e999", "true", "[1]", "{\"rewards\":[1]}",
                                        "{\"reward\": 1", "Infinity"};
    for (size_t i = 0; i < OPD_COUNTOF(WRONG); i++)
        if (read_answer(1, false, WRONG[i], r) == OPD_OK)
            opd_test_fail(__FILE__, __LINE__, "%s was read", WRONG[i]);
    CHECK(read_answer(2, true, "{\"rewards\":[1]}", r) != OPD_OK);
    CHECK(read_answer(2, true, "{\"rewards\":[1,2,3]}", r) != OPD_OK);
    CHECK(read_answer(1, false, "{\"id\": 6, \"reward\": 1}", r) == OPD_ERR_MISMATCH);
}
