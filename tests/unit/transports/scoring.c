/* scoring.c - see scoring.h. */
#include "tests/unit/transports/scoring.h"

#include "tests/support/test.h"

enum { TOKENS_MAX = 200, LARGE_TOKENS = 500000, LARGE_ROWS = 50, TOP_MAX = 8 };

static void on_done(opd_http_call *call) { ((room *)call->arg)->done++; }

void room_open(room *r, const asgi_options *asgi, opd_http_client_options options) {
    memset(r, 0, sizeof *r);
    asgi_up(&r->asgi, asgi);
    loop_init();
    options.env = loop_env;
    options.url = r->asgi.url;
    options.backoff_max_ms = 50;
    CHECK_OK(opd_http_client_create(&options, &r->client));
}

void room_close(room *r) {
    loop_client_close(r->client);
    loop_fini();
    asgi_down(&r->asgi);
}

void scoring_make(scoring *s, room *r, unsigned number, size_t count, size_t prompt_count) {
    opd_str text;
    memset(s, 0, sizeof *s);
    s->ids = malloc(count * sizeof *s->ids);
    for (size_t i = 0; i < count; i++) s->ids[i] = (int32_t)((number * 2654435761u + i * 40503u) % 150000);
    s->score = (opd_sglang_score){.ids = s->ids, .count = count, .prompt_count = prompt_count,
                                  .top_k = r->top_k, .vocab_size = ASGI_VOCAB};
    opd_str_init(&text, NULL, 16 << 20);
    CHECK_OK(opd_sglang_score_write(&s->score, &text));
    CHECK_OK(opd_buf_create(NULL, text.size, &s->body));
    memcpy(opd_buf_data(s->body), text.data, text.size);
    opd_str_fini(&text);
    s->call = (opd_http_call){.path = "/generate", .body = opd_slice_whole(s->body), .done = on_done, .arg = r};
}

void scoring_drop(scoring *s) {
    opd_http_call_fini(&s->call);
    opd_buf_release(s->body);
    free(s->ids);
}

/* Row t of the answer, about the token whose hash this is. */
static void check_row(const scoring *s, const opd_sglang_scores *scores, size_t t, uint32_t digest) {
    size_t k = (size_t)s->score.top_k;
    CHECK_INT(scores->valid[t], 1);
    CHECK(scores->logp[t] == asgi_logp(digest));
    for (size_t rank = 0; rank < k; rank++) {
        CHECK_INT(scores->topk_ids[t * k + rank], asgi_topk_id(digest, (int)rank));
        CHECK(scores->topk_logps[t * k + rank] == asgi_topk_logp(digest, (int)rank));
    }
}

void scoring_check(scoring *s) {
    float logp[TOKENS_MAX], topk_logps[TOKENS_MAX * TOP_MAX];
    uint8_t valid[TOKENS_MAX];
    int32_t topk_ids[TOKENS_MAX * TOP_MAX];
    opd_sglang_scores scores = {.logp = logp, .valid = valid, .topk_ids = topk_ids, .topk_logps = topk_logps};
    CHECK_STR(s->call.error, "");
    CHECK_INT(s->call.status, 200);
    CHECK_OK(opd_sglang_score_read(s->call.answer.data, s->call.answer.size, &s->score, &scores));
    uint32_t digest = ASGI_START;
    for (size_t i = 0; i < s->score.count; i++) {
        digest = asgi_digest(digest, s->ids[i]);
        if (i >= s->score.prompt_count) check_row(s, &scores, i - s->score.prompt_count, digest);
    }
    CHECK_INT(scores.valid_count, s->score.count - s->score.prompt_count);
    scoring_drop(s);
}

void room_wait(room *r, int count) {
    for (int i = 0; i < 9 && r->done < count; i++) loop_for_done(&r->done, count);
    CHECK_INT(r->done, count);
}

static void send_and_check(room *r, scoring *all, int count) {
    r->done = 0;
    for (int i = 0; i < count; i++) CHECK_OK(opd_http_client_send(r->client, &all[i].call));
    room_wait(r, count);
    for (int i = 0; i < count; i++) scoring_check(&all[i]);
    free(all);
}

void score_many(room *r, unsigned first, int count) {
    scoring *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++) {
        unsigned number = first + (unsigned)i;
        size_t tokens = 3 + number * 7 % (TOKENS_MAX - 3);
        scoring_make(&all[i], r, number, tokens, 1 + number % (tokens - 1));
    }
    send_and_check(r, all, count);
}

void score_large(room *r, int count) {
    scoring *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++) {
        scoring_make(&all[i], r, (unsigned)i, LARGE_TOKENS, LARGE_TOKENS - LARGE_ROWS);
        CHECK(opd_buf_size(all[i].body) > 3000000);
    }
    send_and_check(r, all, count);
}

/* ---- bodies of any kind ---- */

static uint32_t adler32(const uint8_t *bytes, size_t size) { /* RFC 1950 */
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < size; i++) {
        a = (a + bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

void upload_many(room *r, int count, size_t size_bytes) {
    opd_http_call *calls = calloc((size_t)count, sizeof *calls);
    char expected[96];
    opd_buf *body;
    CHECK_OK(opd_buf_create(NULL, size_bytes, &body));
    uint8_t *bytes = opd_buf_data(body);
    for (size_t i = 0; i < size_bytes; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    (void)snprintf(expected, sizeof expected, "{\"bytes\": %zu, \"adler32\": %u}", size_bytes,
                   adler32(bytes, size_bytes));
    r->done = 0;
    for (int i = 0; i < count; i++) {
        calls[i] = (opd_http_call){.path = "/digest", .body = opd_slice_whole(body), .done = on_done, .arg = r};
        CHECK_OK(opd_http_client_send(r->client, &calls[i]));
    }
    room_wait(r, count);
    for (int i = 0; i < count; i++) {
        CHECK_STR(calls[i].error, "");
        CHECK_INT(calls[i].status, 200);
        CHECK_STR(calls[i].answer.data, expected);
        opd_http_call_fini(&calls[i]);
    }
    opd_buf_release(body);
    free(calls);
}

char *room_get(room *r, const char *path) {
    opd_http_call call = {.path = path, .done = on_done, .arg = r};
    r->done = 0;
    CHECK_OK(opd_http_client_send(r->client, &call));
    loop_until(&r->done, 1);
    CHECK_STR(call.error, "");
    CHECK_INT(call.status, 200);
    char *text = strdup(call.answer.data);
    opd_http_call_fini(&call);
    return text;
}
