/* test_reward_judges.c - judges outside of opd, as the reward actor asks them: child processes that
 * answer, crash, hang and babble; groups; sums; a judge over HTTP. Real processes and sockets. */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/check.h"
#include "tests/support/reward_rig.h"
#include "transports/http.h"

typedef struct world {
    reward_rig rig;
    char program[256];
    const char *python; /* one that has msgpack */
    opd_http_server *server; /* of the judge over HTTP */
    uint64_t requests;
} world;

static void world_up(world *w, const char *const *responses, uint32_t members) {
    memset(w, 0, sizeof *w);
    reward_rig_up(&w->rig, responses, members);
    if (w->rig.t.sim != NULL) SKIP("a simulated world has no processes");
    (void)snprintf(w->program, sizeof w->program, "%s/judge_%d.sh", OPD_BINARY_DIR, getpid());
}

static void write_program(const world *w, const char *text) {
    FILE *file = fopen(w->program, "w");
    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK(fclose(file) == 0);
    CHECK(chmod(w->program, 0755) == 0);
}

/* A shell script as the judge: "$line" is a question, "$id" its id. */
static void write_judge(const world *w, const char *body) {
    char text[2048];
    int size = snprintf(text, sizeof text, "#!/bin/sh\nwhile read -r line; do id=${line#*\\\"id\\\":}; "
                        "id=${id%%%%,*}\n%s\ndone\n", body);
    CHECK(size > 0 && (size_t)size < sizeof text);
    write_program(w, text);
}

/* Debian's Python has its msgpack; another one may lack it. */
static void need_msgpack(world *w) {
    static const char *const PYTHONS[] = {"/usr/bin/python3", "/usr/local/bin/python3"};
    for (size_t i = 0; i < OPD_COUNTOF(PYTHONS) && w->python == NULL; i++) {
        char command[128];
        (void)snprintf(command, sizeof command, "%s -c 'import msgpack' 2>/dev/null", PYTHONS[i]);
        if (system(command) == 0) w->python = PYTHONS[i];
    }
    if (w->python == NULL) SKIP("no Python with msgpack (Debian: python3-msgpack)");
}

static void world_down(world *w) {
    (void)unlink(w->program);
    reward_rig_down(&w->rig);
}

static opd_reward_part by_command(const char *const *argv) {
    return (opd_reward_part){.kind = OPD_REWARD_BY_COMMAND, .name = "script", .weight = 1,
                             .argv = argv, .workers = 2, .timeout_ms = 20000};
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
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    CHECK_INT(w.rig.got, w.rig.total);
    for (size_t i = 0; i < w.rig.total; i++)
        reward_rig_got(&w.rig, i, TEXTS[i][0] == 'g' ? 1.5 : -0.25, OPD_REWARD_JUDGED);
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
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    for (size_t i = 0; i < w.rig.total; i++)
        reward_rig_got(&w.rig, i, 1, TEXTS[i][0] == 'f'   ? OPD_REWARD_JUDGED
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
    CHECK(reward_rig_run(&w.rig, &part, 1) == OPD_ERR_REMOTE);
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
    CHECK(reward_rig_run(&w.rig, &part, 1) == OPD_ERR_NOT_FOUND);
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
    CHECK_OK(reward_rig_run(&w.rig, parts, 2));
    reward_rig_got(&w.rig, 0, 10.5, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 1, 1, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 2, 0, OPD_REWARD_FAILED);
    reward_rig_got(&w.rig, 3, 11.5, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 4, 10.5, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 5, 11, OPD_REWARD_JUDGED);
    world_down(&w);
}

TEST(a_sum_that_is_no_number_is_no_reward) {
    static const char *const TEXTS[] = {"large", "fine", "huge", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    write_judge(&w, "case \"$line\" in *large*) v=1e308;; *huge*) v=-1e300;; *) v=1;; esac\n"
                    "echo \"{\\\"id\\\":$id,\\\"reward\\\":$v}\"");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_command(argv);
    part.weight = 1e6;
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    reward_rig_got(&w.rig, 0, 0, OPD_REWARD_FAILED);
    reward_rig_got(&w.rig, 1, 1e6, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 2, 0, OPD_REWARD_FAILED);
    world_down(&w);
}

/* ---- msgpack ---- */

/* A judge in Python: "r" is the response, "say" writes a value, "raw" writes bytes. */
static void write_msgpack_judge(const world *w, const char *body) {
    char text[2048];
    int size = snprintf(text, sizeof text, "#!%s\nimport os, sys, time\n"
                        "try:\n import msgpack\nexcept ImportError:\n sys.exit(77)\n"
                        "def raw(b):\n sys.stdout.buffer.write(b); sys.stdout.buffer.flush()\n"
                        "def say(v): raw(msgpack.packb(v))\n"
                        "for q in msgpack.Unpacker(sys.stdin.buffer, read_size=1):\n"
                        " r = q.get('response')\n%s\n", w->python, body);
    CHECK(size > 0 && (size_t)size < sizeof text);
    write_program(w, text);
}

static opd_reward_part by_msgpack(const char *const *argv) {
    opd_reward_part part = by_command(argv);
    part.msgpack = true;
    return part;
}

TEST(a_command_judges_in_msgpack) {
    static const char *const TEXTS[] = {"good", "bad", "good \"quoted\"\n", "bad", "good \xC3\xA9 \xE2\x82\xAC", "bad",
                                        "good", "integer", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    need_msgpack(&w);
    write_msgpack_judge(&w, " assert q['prompt'] == 'what?' and q['label'] == '7' and q['source'] == ''\n"
                            " if '\"' in r: assert r == 'good \"quoted\"\\n', r\n"
                            " if len(r) == 8: assert r == 'good \\u00e9 \\u20ac', r\n"
                            " print('words', flush=True)\n"
                            " b = msgpack.packb({'id': q['id'], 'why': [1, {'a': b'x'}], 'score':\n"
                            "    7 if r == 'integer' else 1.5 if r[0] == 'g' else -0.25})\n"
                            " for i in range(len(b)): raw(b[i:i+1])"); /* in pieces of a byte */
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_msgpack(argv);
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    for (size_t i = 0; i < w.rig.total; i++)
        reward_rig_got(&w.rig, i, TEXTS[i][0] == 'g' ? 1.5 : TEXTS[i][0] == 'i' ? 7 : -0.25, OPD_REWARD_JUDGED);
    world_down(&w);
}

TEST(hostile_msgpack_costs_that_sample_only) {
    static const char *const TEXTS[] = {"fine", "unknown tag", "fine", "two", "too long", "fine", "half", "fine", NULL};
    static world w;
    world_up(&w, TEXTS, 1);
    need_msgpack(&w);
    write_msgpack_judge(&w, " a = {'id': q['id'], 'reward': 1.0}\n"
                            " if r == 'unknown tag': raw(b'\\xc1' * 3000000)\n"
                            " elif r == 'too long': raw(b'\\xdf\\xff\\xff\\xff\\xff')\n"
                            " elif r == 'half': raw(msgpack.packb(a)[:-3]); sys.exit(0)\n"
                            " elif r == 'two': say({'id': q['id'] + 1, 'reward': 9.0}); say([1, 'x']); say(a); say(a)\n"
                            " else: say(a)");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_msgpack(argv);
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    for (size_t i = 0; i < w.rig.total; i++)
        reward_rig_got(&w.rig, i, 1, i == 1 || i == 4 || i == 6 ? OPD_REWARD_FAILED : OPD_REWARD_JUDGED);
    world_down(&w);
}

TEST(a_group_is_judged_in_msgpack) {
    static const char *const TEXTS[] = {"1", "22", "333", "lost", "1", "1", NULL};
    static world w;
    world_up(&w, TEXTS, 2);
    need_msgpack(&w);
    write_msgpack_judge(&w, " s = q['responses']\n"
                            " say({'id': q['id'], 'rewards': [None if t == 'lost' else len(t) for t in s]})");
    const char *const argv[] = {w.program, NULL};
    opd_reward_part part = by_msgpack(argv);
    part.group = true;
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    for (size_t i = 0; i < w.rig.total; i++)
        reward_rig_got(&w.rig, i, (double)strlen(TEXTS[i]), i == 3 ? OPD_REWARD_FAILED : OPD_REWARD_JUDGED);
    world_down(&w);
}

/* ---- over HTTP ---- */

static void on_cancelled(void *arg, opd_http_exchange *exchange) {
    (void)arg;
    opd_http_respond_text(exchange, 500, NULL, "late");
}

/* Refuses "bad", is silent on "hang", and "busy" on every odd request; some answers are none. */
static void on_request(void *arg, opd_http_exchange *exchange) {
    static char huge[3 << 19]; /* digits of one number */
    world *w = arg;
    const char *body = opd_http_exchange_body(exchange);
    CHECK_STR(opd_http_exchange_path(exchange), "/v1/score");
    w->requests++;
    if (strstr(body, "hang") != NULL) opd_http_exchange_on_cancel(exchange, on_cancelled, NULL);
    else if (strstr(body, "huge") != NULL) {
        memset(huge, '1', sizeof huge - 1);
        opd_http_respond_text(exchange, 200, "application/json", huge);
    } else if (strstr(body, "broken") != NULL) opd_http_respond_text(exchange, 200, "application/json", "{\"score\": 1");
    else if (strstr(body, "text") != NULL) opd_http_respond_text(exchange, 200, "application/json", "{\"score\": \"1\"}");
    else if (strstr(body, "NaN") != NULL) opd_http_respond_text(exchange, 200, "application/json", "NaN");
    else if (strstr(body, "empty") != NULL) opd_http_respond_text(exchange, 200, "application/json", "");
    else if (strstr(body, "bad") != NULL) opd_http_respond_text(exchange, 400, NULL, "bad");
    else if (strstr(body, "busy") != NULL && w->requests % 2 == 1)
        opd_http_respond_text(exchange, 503, NULL, "busy");
    else opd_http_respond_text(exchange, 200, "application/json",
                               strstr(body, "number") != NULL ? "0.5" : "{\"score\": 0.75}");
}

static opd_err server_start(opd_ctx *ctx, void *arg) {
    world *w = arg;
    (void)ctx;
    opd_http_server_options options = {.alloc = &w->rig.t.memory.alloc, .env = w->rig.t.env};
    return opd_http_server_create(&options, on_request, w, &w->server);
}

static void on_closed(void *arg) { (void)arg; }

static void server_stop(opd_ctx *ctx, void *arg) {
    world *w = arg;
    (void)ctx;
    opd_http_server_close(w->server, 0, on_closed, NULL);
}

TEST(a_judge_behind_a_url_is_asked_again_when_it_is_busy) {
    static const char *const TEXTS[] = {"busy", "good", "bad", "number", "hang", "good", "huge", "broken", "text",
                                        "NaN", "empty", "good", NULL};
    static world w;
    char url[64];
    world_up(&w, TEXTS, 1);
    (void)script_spawn(&w.rig.t, "judge", (opd_script){.start = server_start, .stop = server_stop, .arg = &w});
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/v1/score", opd_http_server_port(w.server));
    opd_reward_part part = {.kind = OPD_REWARD_BY_URL, .name = "url", .weight = 2, .url = url,
                            .workers = 1, .retries = 1, .timeout_ms = 4000};
    CHECK_OK(reward_rig_run(&w.rig, &part, 1));
    reward_rig_got(&w.rig, 0, 1.5, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 1, 1.5, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 2, 0, OPD_REWARD_FAILED);
    reward_rig_got(&w.rig, 3, 1, OPD_REWARD_JUDGED);
    reward_rig_got(&w.rig, 4, 0, OPD_REWARD_TIMEOUT);
    reward_rig_got(&w.rig, 5, 1.5, OPD_REWARD_JUDGED);
    for (size_t i = 6; i < 11; i++) reward_rig_got(&w.rig, i, 0, OPD_REWARD_FAILED);
    reward_rig_got(&w.rig, 11, 1.5, OPD_REWARD_JUDGED);
    CHECK_INT(w.requests, 14); /* busy twice, hang twice, the others once: such answers are final */
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

static opd_err read_bytes(uint32_t count, const char *bytes, size_t size, double *out) {
    opd_reward_question q = {.id = 5, .count = count, .group = count > 1, .msgpack = true, .rewards = out};
    return opd_reward_question_read(&q, bytes, size);
}

#define READ_BYTES(count, bytes, out) read_bytes(count, bytes, sizeof(bytes) - 1, out)

TEST(answers_in_msgpack_that_are_none_never_become_a_number) {
    double r[2] = {0, 0};
    CHECK_OK(READ_BYTES(1, "\x82\xa2id\x05\xa6reward\xcb\xbf\xf0\0\0\0\0\0\0", r));
    CHECK_NEAR(r[0], -1, 0);
    CHECK_OK(READ_BYTES(1, "\x82\x01\x93\x01\x02\x80\xa5score\x07", r));
    CHECK_NEAR(r[0], 7, 0);
    CHECK_OK(READ_BYTES(2, "\x81\xa7rewards\x92\x01\xc0", r));
    CHECK(r[0] == 1 && isnan(r[1]));
    CHECK_OK(READ_BYTES(1, "\x81\xa6reward\xcb\x7f\xf8\0\0\0\0\0\0", r)); /* as null */
    CHECK(isnan(r[0]));
    CHECK_ERR(READ_BYTES(1, "\x81\xa6reward\xcb\x7f\xf0\0\0\0\0\0\0", r), OPD_ERR_INVALID); /* infinite */
    CHECK_ERR(READ_BYTES(1, "\x81\xa6reward\xa1" "1", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(1, "\x81\xa6reward\xc3", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(1, "\x81\xa6reward\x91\x01", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(1, "\x81\xa2id\x05", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(1, "\x93\x01\x02\x03", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(2, "\x81\xa7rewards\x91\x01", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(2, "\x81\xa7rewards\x01", r), OPD_ERR_INVALID);
    CHECK_ERR(READ_BYTES(1, "\x82\xa2id\x06\xa6reward\x01", r), OPD_ERR_MISMATCH);
    CHECK_ERR(READ_BYTES(1, "\x82\xa2id\xa1x\xa6reward\x01", r), OPD_ERR_MISMATCH);
    CHECK_ERR(READ_BYTES(1, "\x81\xa6reward", r), OPD_ERR_PARSE);
    CHECK_ERR(READ_BYTES(1, "\x81\xa6reward\x01\x01", r), OPD_ERR_PARSE);
    char deep[64] = "\x81\xa1x";
    memset(deep + 3, 0x91, sizeof deep - 4);
    CHECK_ERR(read_bytes(1, deep, sizeof deep, r), OPD_ERR_LIMIT);
}
