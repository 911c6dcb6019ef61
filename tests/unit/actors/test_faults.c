/* test_faults.c - scripts of misbehaviour: what is a rule, which request it is about, and what an
 * answer looks like after it. */
#include "actors/server/faults.h"

#include <math.h>

#include "core/base/check.h"
#include "tests/support/test.h"

static opd_server_faults *script(const char *text) {
    opd_server_faults *faults = NULL;
    CHECK_OK(opd_server_faults_read(NULL, "s", text, strlen(text), &faults));
    return faults;
}

static void bad(const char *text, const char *part) {
    opd_server_faults *faults = NULL;
    CHECK_ERR(opd_server_faults_read(NULL, "s.jsonl", text, strlen(text), &faults), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), part);
    CHECK(faults == NULL);
}

/* The kinds that `count` requests of /generate meet, as letters: . for none, x for one. */
static void check_pattern(const char *text, const char *pattern) {
    opd_server_faults *faults = script(text);
    opd_server_fault fault;
    uint64_t fired = 0;
    for (size_t i = 0; pattern[i] != '\0'; i++) {
        bool is = opd_server_faults_next(faults, "/generate", false, 0, &fault);
        if (is != (pattern[i] == 'x'))
            opd_test_fail(__FILE__, __LINE__, "%s: request %zu", text, i + 1);
        CHECK((fault.kind != OPD_SERVER_FAULT_NONE) == is);
        fired += is;
    }
    CHECK_INT(opd_server_faults_fired(faults), fired);
    opd_server_faults_destroy(faults);
}

TEST(which_requests) {
    check_pattern("{\"do\": \"hang\"}", "xxxx");
    check_pattern("{\"do\": \"hang\", \"nth\": 3}", "..x...");
    check_pattern("{\"do\": \"hang\", \"every\": 3}", "x..x..x");
    check_pattern("{\"do\": \"hang\", \"from\": 2, \"every\": 2, \"count\": 2}", ".x.x.....");
    check_pattern("{\"do\": \"hang\", \"path\": \"/health\"}", "...");
    check_pattern("{\"do\": \"hang\", \"path\": \"*\", \"count\": 1}", "x..");
    check_pattern("{\"do\": \"hang\", \"probability\": 0}", "....");
    check_pattern("", "....");
    check_pattern("# nothing\n\n  \t\r\n{\"do\": \"hang\"}\r\n", "xx");
}

TEST(the_first_rule_that_fires_counts) {
    opd_server_faults *faults = script("{\"do\": \"close\", \"nth\": 2}\n{\"do\": \"hang\"}\n"
                                       "{\"do\": \"short\", \"nth\": 2}\n");
    opd_server_fault fault;
    CHECK(opd_server_faults_next(faults, "/generate?a=1", false, 0, &fault));
    CHECK_INT(fault.kind, OPD_SERVER_FAULT_HANG);
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &fault));
    CHECK_INT(fault.kind, OPD_SERVER_FAULT_CLOSE);
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &fault));
    CHECK_INT(fault.kind, OPD_SERVER_FAULT_HANG); /* the third rule's turn was the second */
    CHECK(!opd_server_faults_next(faults, "/generates", false, 0, &fault));
    CHECK_INT(opd_server_faults_fired(faults), 3);
    opd_server_faults_destroy(faults);
    CHECK(!opd_server_faults_next(NULL, "/generate", false, 0, &fault));
    opd_server_faults_destroy(NULL);
}

TEST(a_window_of_time) {
    opd_server_faults *faults = script("{\"do\": \"hang\", \"after_s\": 1, \"until_s\": 2.5}");
    static const struct {
        double s;
        bool fires;
    } at[] = {{0, false}, {0.9, false}, {1, true}, {2.4, true}, {2.5, false}, {9, false}};
    opd_server_fault fault;
    for (size_t i = 0; i < OPD_COUNTOF(at); i++)
        CHECK_INT(opd_server_faults_next(faults, "/generate", false, (uint64_t)(at[i].s * 1e9),
                                         &fault), at[i].fires);
    opd_server_faults_destroy(faults);
}

/* The share of `probability`, the same for one seed and another for another. */
TEST(chance_has_a_seed) {
    static const char *const texts[] = {"{\"do\": \"hang\", \"probability\": 0.3, \"seed\": 5}",
                                        "{\"do\": \"hang\", \"probability\": 0.3, \"seed\": 5}",
                                        "{\"do\": \"hang\", \"probability\": 0.3, \"seed\": 6}"};
    bool seen[3][2000];
    opd_server_fault fault;
    for (int t = 0; t < 3; t++) {
        opd_server_faults *faults = script(texts[t]);
        for (int i = 0; i < 2000; i++)
            seen[t][i] = opd_server_faults_next(faults, "/generate", false, 0, &fault);
        CHECK_NEAR((double)opd_server_faults_fired(faults), 600, 80);
        opd_server_faults_destroy(faults);
    }
    CHECK(memcmp(seen[0], seen[1], sizeof seen[0]) == 0);
    CHECK(memcmp(seen[0], seen[2], sizeof seen[0]) != 0);
}

TEST(early_rules_are_asked_for_apart) {
    opd_server_faults *faults = script("{\"do\": \"early\"}\n{\"do\": \"idle_close\", "
                                       "\"delay_ms\": 300}");
    opd_server_fault fault;
    CHECK(!opd_server_faults_next(faults, "/generate", false, 0, &fault));
    CHECK(opd_server_faults_next(faults, "/generate", true, 0, &fault));
    CHECK_INT(fault.kind, OPD_SERVER_FAULT_EARLY);
    CHECK_INT(fault.status, 413);
    CHECK_INT(opd_server_faults_idle_close_ms(faults), 300);
    CHECK_INT(opd_server_faults_idle_close_ms(NULL), 0);
    CHECK(!opd_server_faults_http1_only(faults) && !opd_server_faults_http1_only(NULL));
    opd_server_faults_destroy(faults);
}

TEST(a_server_without_http2) {
    opd_server_faults *faults = script("{\"do\": \"http1_only\"}");
    opd_server_fault fault;
    CHECK(!opd_server_faults_next(faults, "/generate", false, 0, &fault));
    CHECK(opd_server_faults_http1_only(faults));
    opd_server_faults_destroy(faults);
    bad("{\"do\": \"http1_only\", \"nth\": 1}", "no key of the action http1_only");
}

TEST(parameters_arrive) {
    opd_server_faults *faults = script(
        "{\"do\": \"status\", \"status\": 503, \"retry_after_s\": 2, \"text\": \"full\", \"form\": "
        "\"object\", \"delay_ms\": 40, \"nth\": 1}\n"
        "{\"do\": \"reset\", \"code\": \"CANCEL\", \"nth\": 2}\n"
        "{\"do\": \"goaway\", \"kind\": \"two_step\", \"nth\": 3}\n"
        "{\"do\": \"stall\", \"bytes\": 77, \"chunked\": true, \"nth\": 4}\n");
    opd_server_fault f;
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &f));
    CHECK_INT(f.status, 503);
    CHECK_INT(f.retry_after_s, 2);
    CHECK_STR(f.text, "full");
    CHECK(f.object_form);
    CHECK_INT(f.delay_ms, 40);
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &f));
    CHECK_INT(f.code, 8);
    CHECK_INT(f.delay_ms, 0);
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &f));
    CHECK_INT(f.goaway, OPD_SERVER_FAULT_GOAWAY_TWO_STEP);
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &f));
    CHECK_INT(f.bytes, 77);
    CHECK(f.chunked);
    opd_server_faults_destroy(faults);
}

TEST(mistakes_are_named_with_their_line) {
    bad("\n# one\n{\"do\": \"hang\"", "s.jsonl:3: byte");
    bad("{\"do\": \"hang\"} x", "s.jsonl:1: byte");
    bad("[]", "s.jsonl:1");
    bad("{}", "\"do\" is missing");
    bad("{\"do\": \"explode\"}", "no \"explode\"; one of delay, hang");
    bad("{\"do\": \"hang\", \"nht\": 3}", "no key \"nht\"");
    bad("{\"do\": \"hang\", \"do\": \"hang\"}", "there twice");
    bad("{\"do\": \"hang\", \"nth\": 0}", "nth must be from 1");
    bad("{\"do\": \"hang\", \"nth\": \"3\"}", "byte");
    bad("{\"do\": \"hang\", \"count\": 2, \"nth\": 3}", "\"nth\" is one request");
    bad("{\"do\": \"hang\", \"probability\": 1.5}", "from 0 to 1");
    bad("{\"do\": \"hang\", \"after_s\": 3, \"until_s\": 3}", "later than after_s");
    bad("{\"do\": \"hang\", \"path\": \"generate\"}", "begin with /");
    bad("{\"do\": \"hang\", \"bytes\": 3}", "no key of the action hang");
    bad("{\"do\": \"reset\"}", "needs the key \"code\"");
    bad("{\"do\": \"reset\", \"code\": \"OOPS\"}", "one of NO_ERROR");
    bad("{\"do\": \"goaway\", \"kind\": 3}", "byte");
    bad("{\"do\": \"status\", \"status\": 99}", "from 200 to 599");
    bad("{\"do\": \"value\", \"row\": 1}", "needs the key \"text\"");
    bad("{\"do\": \"delay\"}", "needs the key \"delay_ms\"");
    bad("{\"do\": \"idle_close\", \"delay_ms\": 5, \"nth\": 1}", "no key of the action idle_close");
}

TEST(too_many_rules) {
    char text[(OPD_SERVER_FAULTS_RULES_MAX + 1) * 16];
    size_t used = 0;
    for (int i = 0; i <= OPD_SERVER_FAULTS_RULES_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "{\"do\":\"hang\"}\n");
    bad(text, "s.jsonl:257: more than 256 rules");
}

/* ---- answers ---- */

/* An answer of three rows and two alternatives after the fault. */
static void written(const char *rule, opd_str *out) {
    int32_t ids[] = {3, 4, 5}, topk_ids[] = {0, 0, 4, 6, 5, 7};
    float logp[] = {0, -0.5f, -0.25f}, topk_logps[] = {0, 0, -0.5f, -2, -0.25f, -3};
    opd_server_faults *faults = script(rule);
    opd_server_fault fault;
    opd_json_writer w;
    CHECK(opd_server_faults_next(faults, "/generate", false, 0, &fault));
    opd_server_fault_numbers numbers = {.ids = ids, .logp = logp, .topk_logps = topk_logps,
                                        .topk_ids = topk_ids, .vocab_size = 8};
    opd_sglang_answer a = {.rid = "r", .prompt_count = 3, .weight_version = "default",
                           .return_logprob = true,
                           .input = {.ids = ids, .logp = logp, .count = 3, .top_k = 2,
                                     .topk_ids = topk_ids, .topk_logps = topk_logps}};
    opd_server_fault_answer(&fault, &numbers, &a);
    opd_str_init(out, NULL, 1 << 16);
    opd_json_writer_init(&w, out, 0);
    opd_sglang_answer_write(&a, &w);
    opd_server_fault_text(&fault, out);
    CHECK_OK(opd_str_status(out));
    opd_server_faults_destroy(faults);
}

static void shows(const char *rule, const char *part) {
    opd_str text;
    written(rule, &text);
    CHECK_CONTAINS(text.data, part);
    opd_str_fini(&text);
}

TEST(wrong_answers) {
    shows("{\"do\": \"delay\", \"delay_ms\": 1}",
          "\"input_token_logprobs\":[[null,3,null],[-0.5,4,null],[-0.25,5,null]]");
    shows("{\"do\": \"value\", \"text\": \"NaN\"}", "[NaN,4,null],[-0.25,5,null]]");
    shows("{\"do\": \"value\", \"text\": \"null\", \"row\": 2}", "[-0.5,4,null],[null,5,null]]");
    shows("{\"do\": \"value\", \"text\": \"1\", \"row\": 3}", "[-0.5,4,null],[-0.25,5,null]]");
    shows("{\"do\": \"short\"}", "[[null,3,null],[-0.5,4,null]]");
    shows("{\"do\": \"long\"}", "[[null,0,null],[null,3,null],[-0.5,4,null]");
    shows("{\"do\": \"ids\", \"row\": 2}", "[-0.25,4,null]]");
    shows("{\"do\": \"ragged\", \"row\": 1}",
          "\"input_top_logprobs\":[null,[[-0.5,4,null]],[[-0.25,5,null],[-3,7,null]]]");
    shows("{\"do\": \"prompt_tokens\"}", "\"prompt_tokens\":2");
    shows("{\"do\": \"weight_version\", \"text\": \"v2\"}", "\"weight_version\":\"v2\"");
    shows("{\"do\": \"nan_happened\"}", "\"type\":\"stop\",\"matched\":\"NaN happened\"");
    shows("{\"do\": \"abort\"}", "\"type\":\"abort\",\"message\":\"Abort in waiting queue\"");
    shows("{\"do\": \"abort\"}", "\"input_token_logprobs\":[]");
    shows("{\"do\": \"pad\", \"bytes\": 5}", "{\"padding\":\"xxxxx\",\"output_ids\"");
}

TEST(a_uniform_answer_is_the_same_everywhere) {
    opd_str text;
    char number[32];
    written("{\"do\": \"uniform\"}", &text);
    (void)snprintf(number, sizeof number, "%.5f", (double)-logf(8));
    int found = 0;
    for (const char *at = text.data; (at = strstr(at, number)) != NULL; at++) found++;
    CHECK_INT(found, 2 + 4); /* rows, alternatives */
    opd_str_fini(&text);
}
