/* remote.c - questions over HTTP (remote.h).
 *
 * A slot is one question under way: its call, or the pause before its next attempt.
 * Thread: the loop. The endpoint outlives us where calls are under way.
 */
#include "actors/reward/remote.h"

#include <string.h>

#include "actors/teacher/endpoint.h"
#include "core/base/check.h"
#include "opd/log.h"

enum {
    ANSWER_BYTES_MAX = 1 << 20,
    BODY_BYTES_MAX = 128 << 20,
    CONNECT_TIMEOUT_MS = 5000,
    PAUSE_MIN_MS = 200,
    PAUSE_MAX_MS = 30000
};

typedef struct slot {
    opd_reward_remote *remote;
    opd_reward_question *asked; /* NULL: free */
    uint32_t attempts;
    opd_timer timer; /* the pause */
} slot;

struct opd_reward_remote {
    opd_reward_remote_options o;
    opd_ctx *ctx;
    opd_endpoint *endpoint;
    const char *path; /* in o.url: its last segment, with the slash; "/" where it has none */
    opd_list waiting;
    slot slots[];
};

static const opd_http_header JSON_HEADERS[] = {{"content-type", "application/json"}};

static opd_err send_attempt(slot *s);

static opd_err give(slot *s) {
    opd_list *node = opd_list_pop_front(&s->remote->waiting);
    if (node == NULL) return OPD_OK;
    s->asked = OPD_CONTAINER_OF(node, opd_reward_question, node);
    s->attempts = 0;
    return send_attempt(s);
}

static opd_err finish(opd_ctx *ctx, void *state, slot *s, opd_reward_failure failure) {
    opd_reward_question *question = s->asked;
    s->asked = NULL;
    question->failure = failure;
    OPD_TRY(s->remote->o.answered(ctx, state, question));
    return s->asked == NULL ? give(s) : OPD_OK;
}

static bool is_transient(const opd_endpoint_call *call) {
    int status = call->http.status;
    if (call->http.err != OPD_OK) return call->http.err != OPD_ERR_LIMIT;
    return status == 408 || status == 409 || status == 425 || status == 429 || status >= 500;
}

/* One more attempt after a pause; false when there were enough. */
static bool may_retry(slot *s) { return s->attempts <= s->remote->o.retries; }

static opd_err pause_before_retry(slot *s) {
    uint64_t pause_ms = PAUSE_MIN_MS;
    for (uint32_t i = 1; i < s->attempts && pause_ms < PAUSE_MAX_MS; i++) pause_ms *= 2;
    if (pause_ms > PAUSE_MAX_MS) pause_ms = PAUSE_MAX_MS;
    return opd_timer_start_after(&s->timer, pause_ms * 1000000);
}

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    slot *s = call->arg;
    const char *name = s->remote->o.name;
    if (is_transient(call)) {
        OPD_LOG_WARN("reward %s: attempt %u: %s (HTTP %d)", name, s->attempts,
                     call->http.err != OPD_OK ? call->http.error : "refused", call->http.status);
        if (may_retry(s)) return pause_before_retry(s);
        bool late = call->http.err == OPD_ERR_TIMEOUT;
        return finish(ctx, state, s, late ? OPD_REWARD_TIMEOUT : OPD_REWARD_FAILED);
    }
    opd_err err = call->http.status == 200 ? OPD_OK : OPD_ERR_REMOTE;
    if (call->http.err != OPD_OK) err = call->http.err;
    if (err == OPD_OK)
        err = opd_reward_question_read(s->asked, call->http.answer.data, call->http.answer.size);
    if (err != OPD_OK)
        OPD_LOG_WARN("reward %s: no reward: HTTP %d, %.200s", name, call->http.status,
                     call->http.answer.data != NULL ? call->http.answer.data : "");
    return finish(ctx, state, s, err == OPD_OK ? OPD_REWARD_JUDGED : OPD_REWARD_FAILED);
}

static opd_err send_attempt(slot *s) {
    opd_endpoint_call *call;
    OPD_TRY(opd_endpoint_call_create(s->remote->endpoint, &call));
    call->http.path = s->remote->path;
    call->http.method = "POST";
    call->http.headers = JSON_HEADERS;
    call->http.header_count = OPD_COUNTOF(JSON_HEADERS);
    call->http.attempt_timeout_ms = s->remote->o.timeout_ms;
    opd_str_append(&call->body, s->asked->request.data, s->asked->request.size);
    call->answered = on_answer;
    call->arg = s;
    s->attempts++;
    opd_err err = opd_endpoint_send(call);
    if (err != OPD_OK) opd_endpoint_call_destroy(call);
    return err;
}

static opd_err on_pause_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    return send_attempt(timer->arg);
}

/* Splits the URL: what is in front of the last slash of its path, and the rest. */
static opd_err split_url(const char *url, char *out_base, size_t base_size, const char **out_path) {
    const char *scheme = strstr(url, "://"), *host = scheme != NULL ? scheme + 3 : url;
    const char *slash = strrchr(host, '/');
    size_t size = slash != NULL ? (size_t)(slash - url) : strlen(url);
    if (size >= base_size) return opd_fail(OPD_ERR_INVALID, "the URL is too long");
    memcpy(out_base, url, size);
    out_base[size] = '\0';
    *out_path = slash != NULL ? slash : "/";
    return OPD_OK;
}

opd_err opd_reward_remote_open(opd_ctx *ctx, const opd_reward_remote_options *options,
                               opd_reward_remote **out_remote) {
    size_t size = sizeof(opd_reward_remote) + options->inflight * sizeof(slot);
    opd_reward_remote *r = opd_mem_get(options->alloc, size);
    if (r == NULL) return opd_fail(OPD_ERR_NOMEM, "reward %s: no memory", options->name);
    r->o = *options;
    r->ctx = ctx;
    opd_list_init(&r->waiting);
    for (uint32_t i = 0; i < options->inflight; i++) {
        r->slots[i].remote = r;
        opd_timer_init(&r->slots[i].timer, ctx, on_pause_over);
        r->slots[i].timer.arg = &r->slots[i];
    }
    *out_remote = r;
    char base[1024];
    OPD_TRY(split_url(options->url, base, sizeof base, &r->path));
    opd_endpoint_options o = {.alloc = options->alloc, .env = options->env, .url = base,
                              .max_inflight = options->inflight,
                              .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                              .max_body_bytes = BODY_BYTES_MAX,
                              .max_answer_bytes = ANSWER_BYTES_MAX};
    return opd_err_prefix(opd_endpoint_open(ctx, &o, &r->endpoint), "reward %s", options->name);
}

opd_err opd_reward_remote_ask(opd_reward_remote *remote, opd_reward_question *question) {
    opd_list_push_back(&remote->waiting, &question->node);
    for (uint32_t i = 0; i < remote->o.inflight; i++)
        if (remote->slots[i].asked == NULL) return give(&remote->slots[i]);
    return OPD_OK;
}

void opd_reward_remote_close(opd_reward_remote *remote) {
    if (remote == NULL) return;
    opd_endpoint_close(remote->endpoint); /* answers go nowhere: the actor has ended */
    opd_mem_free(remote->o.alloc, remote);
}
