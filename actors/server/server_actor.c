/* server_actor.c - the front of the server: exchanges as visits, routes, the simple answers
 * (server_actor.h, server_inside.h).
 *
 * The HTTP server calls back from the loop, outside of the actor; a visit is handed over as an
 * event. Thread: the loop. The front frees itself when the HTTP server has closed.
 */
#include "actors/server/server_actor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "actors/server/server_inside.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "core/base/secret.h"
#include "opd/diagnosis.h"
#include "opd/log.h"

enum {
    DRAIN_MS = 1000,
    NOTICE_MS = 100,  /* between the two steps of a shutdown: what peers sent before they heard of it has come */
    GOODBYE_MS = 1000, /* for the last bytes */
    TEXT_BYTES_MAX = 64 * 1024
};

static const char JSON_TYPE[] = "application/json";

struct opd__front {
    const opd_alloc *alloc;
    opd_system *system;
    opd_pid owner;
    opd_http_server *server; /* NULL once closing */
    opd_server_faults *faults;
    const char *api_key; /* NULL: none */
    struct opd_env *env;
    uint64_t started_ns;
    bool alive;              /* the actor is */
    opd_event closed_event;
    opd_cleanup cleanup;
};

/* ---- visits ---- */

/* An exchange came or went: whoever watches for stalls knows whether any is open. */
static void note_progress(const opd__server *server) {
    opd_progress_note(opd_self_system(server->ctx), opd_list_empty(&server->visits) ? 0 : 1);
}

static void drain_advance(opd__server *self);

static void visit_free(opd__visit *visit) {
    opd__server *server = visit->server;
    opd_event_cancel(&visit->arrived);
    opd_event_cancel(&visit->cancelled);
    if (visit->held) opd_timer_stop(&visit->delay);
    if (visit->node.next != NULL) {
        opd_list_remove(&visit->node);
        note_progress(visit->server);
    }
    opd__generate_fini(visit);
    opd_mem_free(visit->alloc, visit);
    if (server != NULL) drain_advance(server);
}

bool opd__front_post(opd__front *front, opd_event *event) {
    if (!front->alive) return false;
    event->to = front->owner;
    opd_event_post(front->system, event);
    return true;
}

void opd__visit_respond(opd__visit *visit, int status, opd_str *str) {
    opd_buf *buf = NULL;
    opd_http_exchange *exchange = visit->exchange;
    opd_err err = OPD_OK;
    if (str->size > 0) err = opd__answer_wrap(visit, str, &buf);
    if (str->size == 0 || err != OPD_OK) opd_str_fini(str);
    opd__misbehave_answer(visit);
    visit_free(visit);
    if (err == OPD_OK)
        opd_http_respond(exchange, status, buf == NULL ? NULL : JSON_TYPE,
                         buf == NULL ? (opd_slice){.buf = NULL} : opd_slice_whole(buf));
    else
        opd_http_respond_text(exchange, 503, NULL, "");
    opd_buf_release(buf);
}

void opd__error_body(const opd_alloc *alloc, int status, const char *message, bool object_form,
                     opd_slice *out_body) {
    opd_str text;
    opd_str_init(&text, alloc, TEXT_BYTES_MAX);
    if (object_form) opd_sglang_error_object_write(message, status, &text);
    else opd_sglang_error_write(message, &text);
    *out_body = (opd_slice){.buf = NULL};
    if (opd_str_status(&text) != OPD_OK ||
        opd_slice_copy(alloc, text.data, text.size, out_body) != OPD_OK)
        *out_body = (opd_slice){.buf = NULL};
    opd_str_fini(&text);
}

void opd__visit_refuse_as(opd__visit *visit, int status, const char *message, bool object_form,
                          int retry_after_s) {
    char seconds[16];
    opd_http_header headers[] = {{"content-type", JSON_TYPE}, {"retry-after", seconds}};
    opd_http_exchange *exchange = visit->exchange;
    opd_slice body;
    (void)snprintf(seconds, sizeof seconds, "%d", retry_after_s);
    opd__error_body(visit->alloc, status, message, object_form, &body);
    opd__misbehave_answer(visit);
    visit_free(visit);
    opd_http_respond_headers(exchange, status, headers, retry_after_s > 0 ? 2 : 1, body);
    opd_buf_release(body.buf);
}

void opd__visit_refuse(opd__visit *visit, int status, const char *message) {
    opd__visit_refuse_as(visit, status, message, false, status == 503 ? 1 : 0);
}

void opd__visit_drop(opd__visit *visit, uint32_t code, bool hang_up) {
    opd_http_exchange *exchange = visit->exchange;
    visit_free(visit);
    opd_http_exchange_drop(exchange, code, hang_up);
}

/* ---- the simple answers ---- */

/* SGLang counts a context of which an input may take all but one token. */
static void model_info(opd__visit *visit) {
    const opd_server_config *c = &visit->server->c;
    opd_sglang_model_info info = {.weight_version = "default",
                                  .model_type = "llama",
                                  .vocab_size = c->model->vocab_size,
                                  .bos_id = c->model->bos_id,
                                  .eos_id = c->model->eos_id,
                                  .pad_id = c->model->pad_id,
                                  .context_size = c->model->max_position + 1,
                                  .scores_at_temperature = true};
    opd_str out;
    (void)snprintf(info.model_path, sizeof info.model_path, "%s", c->model_path);
    if (c->tokenizer != NULL)
        (void)snprintf(info.tokenizer_hash, sizeof info.tokenizer_hash, "%016" PRIx64,
                       opd_tokenizer_hash(c->tokenizer));
    opd_str_init(&out, visit->alloc, TEXT_BYTES_MAX);
    opd_sglang_model_info_write(&info, &out);
    opd__visit_respond(visit, 200, &out);
}

static void server_info(opd__visit *visit) {
    const opd_server_config *c = &visit->server->c;
    opd_json_writer w;
    opd_str out;
    opd_str_init(&out, visit->alloc, TEXT_BYTES_MAX);
    opd_json_writer_init(&w, &out, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "server");
    opd_json_write_text(&w, "opd");
    opd_json_write_key(&w, "version");
    opd_json_write_text(&w, OPD_VERSION);
    opd_json_write_key(&w, "model_path");
    opd_json_write_text(&w, c->model_path);
    opd_json_write_key(&w, "max_req_input_len");
    opd_json_write_int64(&w, c->model->max_position);
    opd_json_write_key(&w, "enable_http2");
    opd_json_write_bool(&w, true);
    opd_json_write_object_end(&w);
    opd__visit_respond(visit, 200, &out);
}

/* Best effort, as SGLang: 200 also for a rid nobody knows. Our own visit has no rid. */
static void abort_request(opd__visit *visit) {
    opd__server *server = visit->server;
    char rid[OPD_SGLANG_NAME_SIZE] = "";
    bool all = false;
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, opd_http_exchange_body(visit->exchange),
                  opd_http_exchange_body_size(visit->exchange));
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "rid"))
            opd_json_read_string(&json, rid, sizeof rid);
        else if (opd_json_text_is(key, "abort_all"))
            opd_json_read_bool(&json, &all);
        else
            opd_json_skip(&json);
    }
    if (opd_json_finish(&json) != OPD_OK || (rid[0] == '\0' && !all)) {
        opd__visit_refuse_as(visit, 400, "expected {\"rid\": \"...\"} with one exact rid, or "
                             "{\"abort_all\": true}", true, 0);
        return;
    }
    for (opd_list *n = server->visits.next; n != &server->visits; n = n->next)
        if (opd__generate_abort(OPD_CONTAINER_OF(n, opd__visit, node), all ? NULL : rid) && !all)
            break;
    opd_str none;
    opd_str_init(&none, visit->alloc, 1);
    opd__visit_respond(visit, 200, &none);
}

/* ---- routes ---- */

typedef struct route {
    const char *path;
    const char *methods[3]; /* NULL-terminated */
    void (*begin)(opd__visit *visit);
} route;

static const route ROUTES[] = {
    {"/generate", {"POST", "PUT"}, opd__generate_begin},
    {"/health", {"GET"}, opd__health_begin},
    {"/health_generate", {"GET"}, opd__health_begin},
    {"/model_info", {"GET"}, model_info},
    {"/get_model_info", {"GET"}, model_info},
    {"/server_info", {"GET"}, server_info},
    {"/get_server_info", {"GET"}, server_info},
    {"/abort_request", {"POST"}, abort_request},
};

void opd__visit_dispatch(opd__visit *visit) {
    const char *path = opd_http_exchange_path(visit->exchange);
    const char *method = opd_http_exchange_method(visit->exchange);
    size_t size = strcspn(path, "?");
    for (size_t i = 0; i < OPD_COUNTOF(ROUTES); i++) {
        if (strlen(ROUTES[i].path) != size || memcmp(ROUTES[i].path, path, size) != 0) continue;
        for (const char *const *m = ROUTES[i].methods; *m != NULL; m++)
            if (strcmp(*m, method) == 0) {
                ROUTES[i].begin(visit);
                return;
            }
        opd__visit_refuse(visit, 405, "Method Not Allowed");
        return;
    }
    opd__visit_refuse(visit, 404, "Not Found");
}

/* ---- from the HTTP server to the actor ---- */

static opd_err deliver_visit(opd_ctx *ctx, void *state, opd_event *event) {
    opd__visit *visit = OPD_CONTAINER_OF(event, opd__visit, arrived);
    opd__server *self = state;
    visit->server = self;
    visit->began_ns = opd_now_ns(ctx);
    opd_list_push_back(&self->visits, &visit->node);
    note_progress(self);
    if (opd_http_exchange_cancelled(visit->exchange))
        opd__visit_refuse(visit, 503, "cancelled"); /* goes nowhere */
    else if (self->draining && strcmp(opd_http_exchange_path(visit->exchange), "/abort_request") != 0)
        opd__visit_refuse(visit, 503, "the server is stopping");
    else
        opd__misbehave_begin(visit);
    return OPD_OK;
}

static void drop_visit(opd_event *event) {
    opd__visit_refuse(OPD_CONTAINER_OF(event, opd__visit, arrived), 503, "the server is stopping");
}

static opd_err deliver_cancelled(opd_ctx *ctx, void *state, opd_event *event) {
    (void)ctx;
    (void)state;
    opd__visit *visit = OPD_CONTAINER_OF(event, opd__visit, cancelled);
    if (visit->server == NULL) return OPD_OK; /* it has not arrived yet */
    if (visit->held) opd__visit_refuse(visit, 503, "cancelled"); /* goes nowhere */
    else opd__generate_cancel(visit);
    return OPD_OK;
}

static void on_cancel(void *arg, opd_http_exchange *exchange) {
    opd__visit *visit = arg;
    (void)exchange;
    if (visit->front->alive) opd_event_post(visit->front->system, &visit->cancelled);
}

/* Answers 401 unless the request has the key, or needs none. Returns whether it did. */
static bool refused_without_key(const opd__front *front, opd_http_exchange *exchange) {
    static const char open_path[] = "/health", scheme[] = "Bearer ";
    static const char text[] = "{\"error\":\"Unauthorized\"}";
    opd_http_header headers[] = {{"content-type", JSON_TYPE}, {"www-authenticate", "Bearer"}};
    opd_slice body = {.buf = NULL};
    if (front->api_key == NULL ||
        strncmp(opd_http_exchange_path(exchange), open_path, sizeof open_path - 1) == 0)
        return false;
    const char *given = opd_http_exchange_header(exchange, "authorization");
    if (given != NULL && strncasecmp(given, scheme, sizeof scheme - 1) == 0 &&
        opd_secret_equal(front->api_key, given + sizeof scheme - 1))
        return false;
    if (opd_slice_copy(front->alloc, text, sizeof text - 1, &body) != OPD_OK) body.buf = NULL;
    opd_http_respond_headers(exchange, 401, headers, OPD_COUNTOF(headers), body);
    opd_buf_release(body.buf);
    return true;
}

static void on_exchange(void *arg, opd_http_exchange *exchange) {
    opd__front *front = arg;
    if (refused_without_key(front, exchange)) return;
    opd__visit *visit = front->alive ? opd_mem_get(front->alloc, sizeof *visit) : NULL;
    if (visit == NULL) {
        opd_http_respond_text(exchange, 503, NULL, "");
        return;
    }
    visit->front = front;
    visit->alloc = front->alloc;
    visit->exchange = exchange;
    visit->arrived.to = visit->cancelled.to = front->owner;
    visit->arrived.deliver = deliver_visit;
    visit->arrived.drop = drop_visit;
    visit->cancelled.deliver = deliver_cancelled;
    opd_http_exchange_on_cancel(exchange, on_cancel, visit);
    opd_event_post(front->system, &visit->arrived);
}

static void on_early(void *arg, opd_http_exchange *exchange) {
    opd__front *front = arg;
    if (!refused_without_key(front, exchange) && front->alive)
        opd__misbehave_early(front->faults, opd_env_now_ns(front->env) - front->started_ns,
                             front->alloc, exchange);
}

/* ---- the front ---- */

static opd_err deliver_closed(opd_ctx *ctx, void *state, opd_event *event) {
    opd__front *front = OPD_CONTAINER_OF(event, opd__front, closed_event);
    opd__server *self = state;
    opd_cleanup_stop(&front->cleanup);
    self->front = NULL;
    opd_mem_free(front->alloc, front);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static void drop_closed(opd_event *event) {
    opd__front *front = OPD_CONTAINER_OF(event, opd__front, closed_event);
    opd_mem_free(front->alloc, front);
}

static void on_closed(void *arg) {
    opd__front *front = arg;
    if (front->alive)
        opd_event_post(front->system, &front->closed_event);
    else
        opd_mem_free(front->alloc, front);
}

static void front_close(opd__front *front, uint64_t drain_ms) {
    opd_http_server *server = front->server;
    front->server = NULL;
    if (server != NULL) opd_http_server_close(server, drain_ms, on_closed, front);
}

static void on_owner_end(opd_cleanup *cleanup) {
    opd__front *front = OPD_CONTAINER_OF(cleanup, opd__front, cleanup);
    front->alive = false;
    front_close(front, 0);
}

static opd_err front_open(opd__server *self) {
    const opd_server_config *c = &self->c;
    opd__front *front = opd_mem_get(c->alloc, sizeof *front);
    if (front == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for the server");
    opd_http_server_options options = {
        .alloc = c->alloc, .env = c->env, .host = c->host, .port = c->port,
        .tls = c->tls, .max_body_bytes = OPD_SERVER_BODY_BYTES_MAX,
        .max_total_bytes = OPD_SERVER_BODIES_BYTES_MAX,
        .max_answers_bytes = OPD_SERVER_ANSWERS_BYTES_MAX,
        .idle_timeout_ms = opd_server_faults_idle_close_ms(c->faults),
        .http1_only = opd_server_faults_http1_only(c->faults),
        .early = c->faults != NULL || c->api_key != NULL ? on_early : NULL};
    opd_err err = opd_http_server_create(&options, on_exchange, front, &front->server);
    if (err != OPD_OK) {
        opd_mem_free(c->alloc, front);
        return err;
    }
    front->alloc = c->alloc;
    front->system = opd_self_system(self->ctx);
    front->owner = opd_self(self->ctx);
    front->faults = c->faults;
    front->api_key = c->api_key;
    front->env = c->env;
    front->started_ns = self->started_ns;
    front->alive = true;
    front->closed_event.to = front->owner;
    front->closed_event.deliver = deliver_closed;
    front->closed_event.drop = drop_closed;
    opd_cleanup_start(self->ctx, &front->cleanup, on_owner_end);
    if (c->out_port != NULL) *c->out_port = opd_http_server_port(front->server);
    self->front = front;
    return OPD_OK;
}

/* ---- the way out ---- */

/* The second step, when nothing is under way any more. */
static void drain_advance(opd__server *self) {
    if (!self->noticed || !opd_list_empty(&self->visits) || self->front == NULL) return;
    opd_timer_stop(&self->drain);
    front_close(self->front, GOODBYE_MS);
}

static opd_err drain_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__server *self = state;
    (void)ctx;
    (void)timer;
    if (self->front != NULL) front_close(self->front, 0);
    return OPD_OK;
}

static opd_err notice_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__server *self = state;
    self->noticed = true;
    opd_timer_init(timer, ctx, drain_over);
    opd_err err = opd_timer_start_after(timer, self->c.drain_ms * 1000000);
    drain_advance(self);
    return err;
}

static opd_err drain_begin(opd__server *self) {
    self->draining = true;
    opd_http_server_drain(self->front->server);
    opd_timer_init(&self->drain, self->ctx, notice_over);
    return opd_timer_start_after(&self->drain, NOTICE_MS * (uint64_t)1000000);
}

/* ---- the actor ---- */

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    opd__server *self = state;
    self->c = *(const opd_server_config *)config;
    self->ctx = ctx;
    self->started_ns = opd_env_now_ns(self->c.env);
    if (self->c.max_queue == 0) self->c.max_queue = OPD_SERVER_QUEUE_DEFAULT;
    if (self->c.drain_ms == 0) self->c.drain_ms = DRAIN_MS;
    if (self->c.max_work_bytes == 0) self->c.max_work_bytes = OPD_SERVER_WORK_BYTES_DEFAULT;
    opd_list_init(&self->visits);
    opd_list_init(&self->spent);
    return front_open(self);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)state;
    OPD_LOG_WARN("%s got a message of kind %u, which is not for it", opd_self_name(ctx),
                 opd_msg_kind(msg));
    return OPD_OK;
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    opd__server *self = state;
    if (signal->kind != OPD_SIGNAL_STOP || self->front == NULL || self->draining) return OPD_OK;
    opd_stop_defer(ctx);
    return drain_begin(self);
}

static void on_stop(opd_ctx *ctx, void *state) {
    opd__server *self = state;
    (void)ctx;
    if (self->visits.next == NULL) return;
    self->noticed = false; /* the front ends with its owner */
    opd__answer_spent_free(self);
    for (opd_list *node; (node = opd_list_first(&self->visits)) != NULL;)
        opd__visit_refuse(OPD_CONTAINER_OF(node, opd__visit, node), 503, "the server is stopping");
    OPD_ASSERT(self->queued == 0 && self->work_bytes == 0);
}

const opd_actor_class opd_server_class = {
    .name = "server",
    .state_size = sizeof(opd__server),
    .requests_max = 4096,
    .on_start = on_start,
    .on_message = on_message,
    .on_signal = on_signal,
    .on_stop = on_stop,
};
