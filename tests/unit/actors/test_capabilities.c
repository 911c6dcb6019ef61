/* test_capabilities.c - what is learnt of servers that differ: forms, gateways, temperature, prefixes,
 * limits; of answers in any order; of servers that refuse, fail or are none. */
#include "actors/teacher/capabilities.h"

#include "core/base/str.h"
#include "tests/support/test.h"

enum { VOCAB = 50 };

/* A server as it might be. */
typedef struct fake {
    const char *model, *server; /* bodies of the two GETs; NULL: 404             */
    uint32_t forms;             /* that it has, besides nested                   */
    bool strips_rid, at_temperature, tells_no_alternatives, keeps_prefix;
    int32_t k_max;              /* 0: any                                        */
    int status;                 /* of every score; 0: 200                        */
    const char *body;           /* of every score; NULL: scores                  */
    opd_err err;                /* of every score's transport                    */
    int prefixes;               /* seen                                          */
    int asked[OPD_QUESTION_COUNT];
} fake;

static const opd_config_teacher sglang = {.name = "t", .protocol = OPD_CONFIG_PROTOCOL_SGLANG};
static const opd_config_teacher vllm = {.name = "t", .protocol = OPD_CONFIG_PROTOCOL_VLLM};

static void add_rows(opd_str *out, const opd_sglang_score *q) {
    for (size_t i = q->prompt_count - 1; i < q->count; i++) {
        if (i == q->prompt_count - 1) opd_str_printf(out, "[null,%d,null]", (int)q->ids[i]);
        else opd_str_printf(out, ",[-%d.5,%d,null]", 1 + (int)i % 3, (int)q->ids[i]);
    }
}

/* Alternative j of a row: id j + 1, its log-prob falls by 0.8 / T. */
static double alternative(const fake *f, const opd_sglang_score *q, int j) {
    double t = f->at_temperature && q->temperature > 0 ? q->temperature : 1;
    return -0.3 - 0.8 * j / t;
}

static void add_nested(const fake *f, opd_str *out, const opd_sglang_score *q) {
    opd_str_text(out, "\"input_top_logprobs\":[null");
    for (size_t t = 0; t < q->count - q->prompt_count; t++) {
        opd_str_text(out, ",[");
        for (int j = 0; j < q->top_k; j++)
            opd_str_printf(out, "%s[%.6f,%d,null]", j > 0 ? "," : "", alternative(f, q, j), j + 1);
        opd_str_text(out, "]");
    }
    opd_str_text(out, "],");
}

static void add_flat(const fake *f, opd_str *out, const opd_sglang_score *q) {
    size_t rows = q->count - q->prompt_count;
    opd_str_text(out, "\"input_top_logprobs_val_flat\":[");
    for (size_t i = 0; i < rows * (size_t)q->top_k; i++)
        opd_str_printf(out, "%s%.6f", i > 0 ? "," : "", alternative(f, q, (int)i % q->top_k));
    opd_str_text(out, "],\"input_top_logprobs_idx_flat\":[");
    for (size_t i = 0; i < rows * (size_t)q->top_k; i++)
        opd_str_printf(out, "%s%d", i > 0 ? "," : "", (int)i % q->top_k + 1);
    opd_str_printf(out, "],\"input_top_logprobs_shape\":[%zu,%d],\"input_top_logprobs_null_prefix\":1,",
                   rows, (int)q->top_k);
}

static void add_base64(const fake *f, opd_str *out, const opd_sglang_score *q) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = (q->count - q->prompt_count) * (size_t)q->top_k;
    uint8_t bytes[2][1024] = {{0}};
    CHECK(n * 4 <= sizeof bytes[0] - 3);
    for (size_t i = 0; i < n; i++) {
        float value = (float)alternative(f, q, (int)i % q->top_k);
        int32_t id = (int)i % q->top_k + 1;
        memcpy(bytes[0] + 4 * i, &value, 4);
        memcpy(bytes[1] + 4 * i, &id, 4);
    }
    for (int which = 0; which < 2; which++) {
        opd_str_printf(out, "\"input_top_logprobs_%s_flat_b64\":\"", which == 0 ? "val" : "idx");
        for (size_t i = 0; i < 4 * n; i += 3) {
            const uint8_t *b = bytes[which] + i;
            uint32_t word = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];
            size_t left = 4 * n - i;
            for (size_t d = 0; d < 4; d++)
                opd_str_printf(out, "%c", d <= left ? digits[word >> (18 - 6 * d) & 63] : '=');
        }
        opd_str_printf(out, "\",\"input_top_logprobs_%s_flat_b64_dtype\":\"%s\",",
                       which == 0 ? "val" : "idx", which == 0 ? "float32" : "int32");
    }
    opd_str_printf(out, "\"input_top_logprobs_shape\":[%zu,%d],\"input_top_logprobs_null_prefix\":1,",
                   n / (size_t)q->top_k, (int)q->top_k);
}

static void add_answer(fake *f, opd_str *out, const opd_sglang_score *q) {
    bool form = (f->forms & (1u << q->form)) != 0;
    bool seen = q->count > OPD_INQUIRY_SCORE_IDS && f->prefixes++ > 0;
    opd_str_printf(out, "{\"meta_info\":{\"id\":\"%s\",\"finish_reason\":{\"type\":\"length\"},"
                   "\"prompt_tokens\":%zu,\"cached_tokens\":%d,\"weight_version\":\"w1\",",
                   f->strips_rid ? "0123" : q->rid, q->count, f->keeps_prefix && seen ? 128 : 0);
    if (q->top_k > 0 && !f->tells_no_alternatives) {
        if (form && q->form == OPD_SGLANG_FORM_BASE64) add_base64(f, out, q);
        else if (form && q->form == OPD_SGLANG_FORM_FLAT) add_flat(f, out, q);
        else add_nested(f, out, q);
    }
    opd_str_text(out, "\"input_token_logprobs\":[");
    add_rows(out, q);
    opd_str_text(out, "]}}");
}

static void add_vllm(opd_str *out, const opd_sglang_score *q) {
    opd_str_text(out, "{\"choices\":[{\"finish_reason\":\"length\",\"prompt_logprobs\":[null");
    for (size_t i = 1; i < q->count; i++) {
        opd_str_printf(out, ",{\"%d\":{\"logprob\":-0.5,\"rank\":1}", (int)q->ids[i]);
        for (int j = 1; j < q->top_k; j++)
            opd_str_printf(out, ",\"%d\":{\"logprob\":-%d,\"rank\":%d}", 40 + j, j + 1, j + 1);
        opd_str_text(out, "}");
    }
    opd_str_printf(out, "]}],\"usage\":{\"prompt_tokens\":%zu}}", q->count);
}

static void answer(opd_inquiry *in, fake *f, opd_question question) {
    char rid[OPD_INQUIRY_RID_SIZE];
    opd_inquiry_answer a = {.err = OPD_OK, .error = "", .status = 200};
    const char *get = question == OPD_QUESTION_MODEL ? f->model : f->server;
    opd_str out;
    opd_str_init(&out, NULL, 1 << 16);
    f->asked[question]++;
    if (opd_inquiry_path(in, question) != NULL) {
        a.status = get != NULL ? 200 : 404;
        opd_str_text(&out, get != NULL ? get : "{\"detail\":\"Not Found\"}");
    } else {
        opd_sglang_score q = opd_inquiry_score(in, question, rid);
        CHECK(strlen(rid) == strlen("opd-ask-0123456789abcdef-00."));
        CHECK(q.count >= 2 && q.prompt_count < q.count);
        for (size_t i = 0; i < q.count; i++) CHECK(q.ids[i] >= 0 && q.ids[i] < VOCAB - 1);
        if (f->k_max > 0 && q.top_k > f->k_max) {
            a.status = 400;
            opd_str_text(&out, "{\"error\":{\"message\":\"Requested prompt logprobs of 30, which is greater "
                               "than max allowed: 20\"}}");
        } else if (f->err != OPD_OK) {
            a.err = f->err;
            a.error = "the connection broke";
            a.status = 0;
        } else if (f->body != NULL || f->status != 0) {
            a.status = f->status != 0 ? f->status : 200;
            opd_str_text(&out, f->body != NULL ? f->body : "{\"error\":{\"message\":\"no\"}}");
        } else if (in->o.protocol->forms) {
            add_answer(f, &out, &q);
        } else {
            add_vllm(&out, &q);
        }
    }
    a.body = out.data != NULL ? out.data : "";
    a.size_bytes = out.size;
    opd_inquiry_take(in, question, &a);
    opd_str_fini(&out);
}

/* Asks all, in order or, of what is under way, the newest first. */
static void inquire(opd_inquiry *in, fake *f, const opd_config_teacher *protocol, uint32_t top_k,
                    bool newest_first) {
    opd_inquiry_options o = {.protocol = opd_teacher_protocol_of(protocol), .vocab_size = -1, .bos_id = -1,
                             .top_k = top_k, .nonce = 7};
    opd_question under_way[OPD_QUESTION_COUNT];
    int n = 0;
    opd_inquiry_init(in, &o);
    for (;;) {
        while (opd_inquiry_next(in, &under_way[n])) n++;
        if (n == 0) break;
        CHECK(!opd_inquiry_done(in));
        opd_question q = newest_first ? under_way[n - 1] : under_way[0];
        if (!newest_first) memmove(under_way, under_way + 1, (size_t)(n - 1) * sizeof *under_way);
        n--;
        answer(in, f, q);
    }
    CHECK(opd_inquiry_done(in));
    for (int q = 0; q < OPD_QUESTION_COUNT; q++) CHECK(f->asked[q] <= 1);
}

#define MODEL "{\"model_path\":\"/m/Qwen3-8B\",\"weight_version\":\"w1\"}"
#define SERVER "{\"version\":\"0.5.17\",\"max_req_input_len\":32763,\"context_length\":32768,\"enable_http2\":true," \
               "\"max_running_requests\":256,\"internal_states\":[{\"version\":1}]}"
#define ALL (1u << OPD_SGLANG_FORM_FLAT | 1u << OPD_SGLANG_FORM_BASE64)

TEST(a_new_server_can_do_it_all) {
    for (int newest_first = 0; newest_first < 2; newest_first++) {
        fake f = {.model = MODEL, .server = SERVER, .forms = ALL, .keeps_prefix = true};
        opd_inquiry in;
        inquire(&in, &f, &sglang, 4, newest_first != 0);
        CHECK(in.trouble == OPD_OK && !in.unusable && in.found.scores);
        CHECK_INT(in.found.forms, ALL | 1u << OPD_SGLANG_FORM_NESTED);
        CHECK_INT(in.found.form, OPD_SGLANG_FORM_BASE64);
        CHECK_INT(in.found.top_k_given, OPD_TRI_YES);
        CHECK_INT(in.found.keeps_prefix, OPD_TRI_YES);
        CHECK_INT(in.found.cached, 128);
        CHECK_INT(in.found.at_temperature, OPD_TRI_NO);
        CHECK(in.found.told_count && in.found.told_rid && in.found.echoes_ids);
        CHECK(!in.found.strips_forms && !in.found.strips_rid);
        CHECK_INT(opd_capabilities_longest(&in.found), 32763);
        CHECK_INT(opd_capabilities_chunk_tokens(&in.found), 256);
        CHECK_INT(in.found.server.max_running, 256);
        CHECK_STR(in.found.weight_version, "w1");
        CHECK_STR(in.found.refusal, "");
    }
}

TEST(an_old_server_has_nested_alternatives) {
    fake f = {.model = MODEL, .server = "{\"version\":\"0.5.15.post1\"}"};
    opd_inquiry in;
    inquire(&in, &f, &sglang, 4, false);
    CHECK_INT(in.found.form, OPD_SGLANG_FORM_NESTED);
    CHECK(!in.found.strips_forms);
    CHECK_INT(in.found.keeps_prefix, OPD_TRI_NO);
    CHECK_INT(opd_capabilities_chunk_tokens(&in.found), 0);
}

TEST(flat_is_asked_for_where_base64_does_not_come) {
    fake f = {.model = MODEL, .server = SERVER, .forms = 1u << OPD_SGLANG_FORM_FLAT};
    opd_inquiry in;
    inquire(&in, &f, &sglang, 4, true);
    CHECK_INT(in.found.form, OPD_SGLANG_FORM_FLAT);
}

TEST(a_gateway_that_drops_fields_is_found_out) {
    fake f = {.model = MODEL, .server = SERVER, .strips_rid = true};
    opd_inquiry in;
    char line[200];
    inquire(&in, &f, &sglang, 4, false);
    CHECK_INT(in.found.form, OPD_SGLANG_FORM_NESTED);
    CHECK(in.found.strips_forms && in.found.strips_rid);
    opd_capabilities_line(&in.found, in.o.protocol, line, sizeof line);
    CHECK_CONTAINS(line, "SGLang 0.5.17, Qwen3-8B, up to 32763 tokens, nested");
    CHECK_CONTAINS(line, "dropped");
}

TEST(a_server_that_scores_at_a_temperature_shows_it) {
    fake f = {.model = MODEL, .server = SERVER, .at_temperature = true};
    opd_inquiry in;
    inquire(&in, &f, &sglang, 0, false);
    CHECK_INT(in.found.at_temperature, OPD_TRI_YES);
    CHECK_INT(in.found.top_k, 0);
    f = (fake){.model = "{\"vocab_size\":50,\"scores_at_temperature\":true}", .tells_no_alternatives = true};
    inquire(&in, &f, &sglang, 0, false);
    CHECK_INT(in.found.at_temperature, OPD_TRI_YES); /* as it says */
    f = (fake){.model = MODEL, .tells_no_alternatives = true};
    inquire(&in, &f, &sglang, 0, false);
    CHECK_INT(in.found.at_temperature, OPD_TRI_UNKNOWN);
    CHECK_INT(in.found.forms, 0);
}

TEST(a_silent_server_is_believed_as_far_as_it_scores) {
    fake f = {.model = NULL};
    opd_inquiry in;
    inquire(&in, &f, &sglang, 0, false);
    CHECK(in.found.scores && !in.unusable && in.trouble == OPD_OK);
    CHECK_INT(opd_capabilities_longest(&in.found), -1);
    CHECK_CONTAINS(in.found.refusal, "GET /server_info: HTTP 404");
}

TEST(short_sequences_where_the_context_is_short) {
    fake f = {.model = "{\"vocab_size\":50,\"bos_token_id\":1,\"context_length\":7}"};
    opd_inquiry in;
    inquire(&in, &f, &sglang, 2, false);
    CHECK_INT(in.score_ids, 6);
    CHECK_INT(in.ids[0], 1);
    CHECK_INT(f.asked[OPD_QUESTION_PREFIX], 0);
    CHECK_INT(in.found.keeps_prefix, OPD_TRI_UNKNOWN);
    CHECK(in.found.scores);
}

TEST(more_alternatives_than_it_gives_are_refused_with_its_words) {
    fake f = {.model = "{\"data\":[{\"id\":\"m\",\"max_model_len\":4096}]}", .server = "{\"version\":\"0.9.1\"}",
              .k_max = 20};
    opd_inquiry in;
    inquire(&in, &f, &vllm, 30, false);
    CHECK(in.unusable);
    CHECK_CONTAINS(in.found.refusal, "max allowed: 20");
    CHECK_CONTAINS(in.found.refusal, "/v1/completions");
    f.k_max = 0;
    memset(f.asked, 0, sizeof f.asked);
    inquire(&in, &f, &vllm, 10, false);
    CHECK(!in.unusable && in.trouble == OPD_OK);
    CHECK_INT(in.found.top_k_given, OPD_TRI_YES);
    CHECK_INT(in.found.at_temperature, OPD_TRI_NO);
    CHECK_INT(opd_capabilities_longest(&in.found), 4095);
    CHECK_STR(in.found.model.model_path, "m");
    CHECK_INT(f.asked[OPD_QUESTION_BASE64] + f.asked[OPD_QUESTION_TEMPERATURE] + f.asked[OPD_QUESTION_PREFIX], 0);
}

TEST(a_server_that_cannot_score_is_unusable) {
    fake f = {.model = MODEL, .status = 400, .body = "{\"error\":{\"message\":\"scoring is off\"}}"};
    opd_inquiry in;
    inquire(&in, &f, &sglang, 0, false);
    CHECK(in.unusable && !in.found.scores);
    CHECK_CONTAINS(in.found.refusal, "scoring is off");
}

TEST(trouble_is_no_verdict) {
    static const struct { int status; const char *body; opd_err err; const char *text; } cases[] = {
        {503, "{\"error\":{\"message\":\"queue is full\"}}", OPD_OK, "queue is full"},
        {500, "boom", OPD_OK, "HTTP 500: boom"},
        {0, NULL, OPD_ERR_RESET, "the connection broke"},
        {200, "{\"meta_info\":", OPD_OK, "no scoring answer"},
        {200, "{\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":\"busy\"}}}", OPD_OK, "busy"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake f = {.model = MODEL, .status = cases[i].status, .body = cases[i].body, .err = cases[i].err};
        opd_inquiry in;
        inquire(&in, &f, &sglang, 0, i % 2 == 0);
        CHECK(in.trouble != OPD_OK && !in.unusable && !in.denied);
        CHECK_CONTAINS(in.trouble_text, cases[i].text);
    }
}

TEST(a_door_that_is_shut_is_told_apart) {
    fake f = {.model = MODEL, .status = 401, .body = "{\"error\":\"the key sk-1 is wrong\"}"};
    opd_inquiry in;
    inquire(&in, &f, &vllm, 0, false); /* its key guards the scores, not everything */
    CHECK(in.denied && in.trouble == OPD_ERR_REMOTE);
    CHECK_CONTAINS(in.trouble_text, "HTTP 401: it does not let us in");
    CHECK(strstr(in.trouble_text, "sk-1") == NULL);
}

TEST(capabilities_are_written_as_json) {
    fake f = {.model = MODEL, .server = SERVER, .forms = ALL, .keeps_prefix = true};
    opd_inquiry in;
    opd_json_writer w;
    opd_str out;
    inquire(&in, &f, &sglang, 4, false);
    opd_str_init(&out, NULL, 4096);
    opd_json_writer_init(&w, &out, 0);
    opd_capabilities_write(&in.found, in.o.protocol, &w);
    CHECK_OK(opd_str_status(&out));
    CHECK_CONTAINS(out.data, "\"protocol\":\"sglang\",\"server\":null,\"version\":\"0.5.17\"");
    CHECK_CONTAINS(out.data, "\"forms\":[\"nested\",\"flat\",\"base64\"],\"top_k\":4,\"top_k_given\":true");
    CHECK_CONTAINS(out.data, "\"keeps_prefix\":true,\"scores_at_temperature\":false,\"strips_fields\":false");
    opd_str_fini(&out);
}
