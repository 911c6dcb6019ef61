/* teacher_probe.c - the HTTP teacher's server: whether it is there and what it serves
 * (teacher_inside.h).
 *
 *   STARTING --model_info agrees--> READY, up <--probe answered-- READY, down
 *       |                              \______ connection lost _____/
 *       +-- start_timeout_s, MISMATCH, UNSUPPORTED --> the system stops
 *
 * The first time a server is asked all that is to be known of it (inquirer.h), if teacher->probe. Else,
 * and after a loss, a probe is GET /model_info (vLLM: /v1/models) and, where nothing else shows that it
 * scores, one small score, with as many alternatives as will be asked for where the server may refuse
 * them. In the end its canaries settle it. Liveness is taken from what happens to requests and from /model_info,
 * not from /health, which on real servers runs a generation and fails under load.
 *
 * Thread: the loop.
 */
#include <stdio.h>
#include <string.h>

#include "actors/teacher/access.h"
#include "actors/teacher/teacher_inside.h"
#include "core/base/check.h"
#include "opd/log.h"
#include "transports/sglang.h"
#include "transports/tls.h"

enum {
    PROBE_TIMEOUT_MS = 5000,
    PROBE_IDS = 4,
    BODY_BYTES_MAX = 64 << 20,    /* where the length of the rollouts is not known */
    BODY_BYTES_BASE = 1 << 20,    /* what stands around the tokens, texts included */
    QUESTION_BYTES_PER_TOKEN = 12,
    ANSWER_BYTES_PER_ENTRY = 256  /* [log-prob, id, text] in decimal */
};

static const uint64_t SUSPECT_NS = 100 * 1000000; /* between two questions to one that may be gone */

uint64_t opd__teacher_ns(double seconds) { return (uint64_t)(seconds * 1e9); }

void opd__teacher_fail(opd__teacher *self, opd_err err) {
    if (self->failed || self->stopping) return;
    self->failed = true;
    opd_system_stop(opd_self_system(self->ctx), err);
}

const char *opd__teacher_where(const opd__teacher *self, int server) {
    const opd_endpoint *endpoint = self->servers[server].endpoint;
    if (endpoint != NULL) return opd_endpoint_name(endpoint);
    return self->c.teacher->url[0] != '\0' ? self->c.teacher->url : "(no address yet)";
}

/* All its addresses. */
static const char *where(const opd__teacher *self) {
    return self->fleet.count > 1 ? self->c.teacher->urls : opd__teacher_where(self, 0);
}

static int index_of(const opd__teacher *self, const opd__server *server) {
    return (int)(server - self->servers);
}

static bool is_up(const opd__teacher *self, const opd__server *server) {
    return self->replicas[index_of(self, server)].up;
}

/* ---- presence ---- */

/* Tells the panel what it should know; the tick tells it again if its mailbox was full. */
static void tell_presence(opd__teacher *self) {
    opd_presence_fields f = {.teacher = self->c.place, .state = (uint32_t)self->presence,
                             .reuses_prefix = opd__teacher_reuses_prefix(self)};
    if (self->presence == self->presence_told || self->c.roles->teacher == OPD_PID_NOBODY) return;
    (void)snprintf(f.model, sizeof f.model, "%s", self->model);
    (void)snprintf(f.why, sizeof f.why, "%s", self->problem_text);
    opd_err err = opd_message_send(self->ctx, self->c.roles->teacher, OPD_MESSAGE_PRESENCE, &f);
    if (err == OPD_OK || err == OPD_ERR_CLOSED) self->presence_told = self->presence;
}

static void set_presence(opd__teacher *self, opd_presence presence) {
    self->presence = presence;
    tell_presence(self);
}

static void came_back(opd__teacher *self) {
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO,
             "teacher %s answers again at %s", self->c.teacher->name, where(self));
    set_presence(self, OPD_PRESENCE_UP);
}

void opd__teacher_answered(opd__teacher *self) {
    opd_teacher_health_answer(&self->health, opd_now_ns(self->ctx));
}

static void set_problem(opd__teacher *self, opd_err err, const char *text) {
    self->denied = false;
    self->problem = err;
    (void)snprintf(self->problem_text, sizeof self->problem_text, "%s", text);
}

/* ---- a server that is there ---- */

opd_err opd__teacher_settled(opd__teacher *self, int server) {
    opd_replica *replica = &self->replicas[server];
    const char *name = opd__teacher_where(self, server);
    bool was_down = !replica->up;
    replica->up = true;
    self->servers[server].refused = false;
    if (replica->quarantined) return OPD_OK; /* more canaries tell */
    if (self->ready) {
        if (opd_teacher_health_back(&self->health)) came_back(self);
        else if (was_down)
            opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO,
                     "teacher %s: replica %s answers", self->c.teacher->name, name);
        return opd__teacher_pump(self);
    }
    opd_teacher_health_answer(&self->health, opd_now_ns(self->ctx));
    (void)opd_teacher_health_back(&self->health); /* it was late */
    self->ready = true;
    set_presence(self, OPD_PRESENCE_UP);
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO, "teacher %s answers at %s",
             self->c.teacher->name, name);
    return opd__teacher_pump(self);
}

/* What it serves is right; that it can be believed, its canaries show. */
static opd_err vouch(opd__teacher *self, opd__server *server) {
    if (!opd__canary_is_on(self)) return opd__teacher_settled(self, index_of(self, server));
    opd_err err = opd__canary_settle(self, server);
    return err == OPD_ERR_AGAIN || err == OPD_ERR_CLOSED ? OPD_OK : err; /* the tick probes again */
}

/* ---- probes ---- */

/* What to do about a server that does not let us in. */
static void set_denied(opd__teacher *self, int status) {
    char text[OPD_SGLANG_MESSAGE_SIZE];
    const char *name = self->c.teacher->name;
    if (self->api_key == NULL)
        (void)snprintf(text, sizeof text, "HTTP %d: the server wants an API key; name the environment "
                       "variable that holds it in teachers.%s.api_key_env, or its file in "
                       "teachers.%s.api_key_file", status, name, name);
    else
        (void)snprintf(text, sizeof text, "HTTP %d: the server does not accept the key of teachers.%s."
                       "%s; give the one it was started with", status, name,
                       self->c.teacher->api_key_env[0] != '\0' ? "api_key_env" : "api_key_file");
    set_problem(self, OPD_ERR_REMOTE, text);
    self->denied = true;
}

static bool has_fallback(const opd_config_teacher *t) { return t->fallback[0] != '\0'; }

/* Not there in time, but another one is asked meanwhile. */
static opd_err go_on_without(opd__teacher *self) {
    self->late = true;
    (void)opd_teacher_health_gone(&self->health);
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
             "teacher %s is not ready (%.80s); %.40s is asked instead", self->c.teacher->name,
             self->problem_text[0] != '\0' ? self->problem_text : "nothing has answered",
             self->c.teacher->fallback);
    set_presence(self, OPD_PRESENCE_LATE);
    return opd__teacher_pump(self);
}

/* A probe failed: what that means is decided by the next tick, or at once at start. */
static opd_err start_check(opd__teacher *self) {
    if (self->ready || self->late || opd_now_ns(self->ctx) < self->start_by_ns) return OPD_OK;
    const opd_config_teacher *t = self->c.teacher;
    opd_err err = self->problem == OPD_OK ? OPD_ERR_TIMEOUT : self->problem;
    if (self->denied) {
        opd__teacher_fail(self, opd_fail(OPD_ERR_REMOTE, "teacher %s at %s: %s", t->name, where(self),
                                         self->problem_text));
        return OPD_OK;
    }
    if (has_fallback(t)) return go_on_without(self);
    if (err != OPD_ERR_REFUSED && err != OPD_ERR_UNSUPPORTED && err != OPD_ERR_UNTRUSTED)
        err = OPD_ERR_TIMEOUT;
    opd__teacher_fail(self, opd_fail(err,
        "teacher %s was not ready at %s within %g s (teachers.%s.start_timeout_s); last: %s. Check "
        "that a server runs there, that host and port are right, and that it is an SGLang-compatible "
        "server (best with HTTP/2: --enable-http2)",
        t->name, where(self), t->start_timeout_s, t->name,
        self->problem_text[0] != '\0' ? self->problem_text : "nothing has answered"));
    return OPD_OK;
}

static opd_err probe_send(opd__teacher *self, opd__server *server, opd_endpoint_call *call) {
    call->arg = server;
    call->http.attempt_timeout_ms = PROBE_TIMEOUT_MS;
    call->http.deadline_ns = opd_now_ns(self->ctx) + 2 * (uint64_t)PROBE_TIMEOUT_MS * 1000000;
    if (!self->ready && !self->late && call->http.deadline_ns > self->start_by_ns)
        call->http.deadline_ns = self->start_by_ns; /* start_timeout_s holds for a mute server too */
    opd_err err = opd_endpoint_send(call);
    if (err != OPD_OK) {
        opd_endpoint_call_destroy(call);
        return err;
    }
    server->probing = true;
    return OPD_OK;
}

/* A few ids that every vocabulary has. */
static opd_sglang_score probe_question(const opd__teacher *self, int32_t ids[PROBE_IDS]) {
    for (int32_t i = 0; i < PROBE_IDS; i++) ids[i] = i;
    if (self->c.bos_id >= 0) ids[0] = self->c.bos_id;
    return (opd_sglang_score){.ids = ids, .count = PROBE_IDS, .prompt_count = 1,
                              .top_k = self->protocol->capped ? (int32_t)self->c.top_k : 0,
                              .vocab_size = self->c.vocab_size > 0 ? self->c.vocab_size : 0};
}

/* Whether the answer is the score that was asked for. Errors: those of the protocol, NOMEM. */
static opd_err probe_read(const opd__teacher *self, const opd_endpoint_call *call) {
    int32_t ids[PROBE_IDS];
    float logp[PROBE_IDS];
    uint8_t valid[PROBE_IDS];
    opd_sglang_score question = probe_question(self, ids);
    opd_sglang_scores scores = {.logp = logp, .valid = valid};
    size_t cells = PROBE_IDS * (size_t)question.top_k;
    if (cells > 0) {
        scores.topk_ids = opd_mem_get(self->c.alloc, cells * (sizeof(int32_t) + sizeof(float)));
        if (scores.topk_ids == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a probe");
        scores.topk_logps = (float *)(void *)(scores.topk_ids + cells);
    }
    opd_err err = self->protocol->read(call->http.answer.data, call->http.answer.size, &question,
                                       &scores);
    opd_mem_free(self->c.alloc, scores.topk_ids);
    return err;
}

/* Whether the answer of a probe is for this endpoint, and the actor goes on. */
static bool probe_current(opd__teacher *self, const opd_endpoint_call *call) {
    opd__server *server = call->arg;
    if (call->endpoint != server->endpoint) return false;
    server->probing = false;
    return !self->stopping && !self->failed;
}

static bool all_hopeless(const opd__teacher *self) {
    for (size_t i = 0; i < self->fleet.count; i++)
        if (!self->servers[i].hopeless) return false;
    return true;
}

static opd_err on_probe_score(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    opd__teacher *self = state;
    char message[OPD_SGLANG_MESSAGE_SIZE];
    (void)ctx;
    if (!probe_current(self, call)) return OPD_OK;
    opd_err err = call->http.err;
    if (err != OPD_OK) {
        set_problem(self, err, call->http.error);
    } else if (call->http.status != 200) {
        err = OPD_ERR_REMOTE;
        opd_sglang_error_read(call->http.answer.data, call->http.answer.size, message);
        set_problem(self, err, message);
        if (opd_access_denied(call->http.status)) set_denied(self, call->http.status);
        /* such as vLLM's refusal of more alternatives than its --max-logprobs */
        ((opd__server *)call->arg)->hopeless =
            opd_teacher_judge(OPD_OK, call->http.status) == OPD_TEACHER_GIVE_UP;
        if (all_hopeless(self)) self->start_by_ns = 0;
    } else {
        err = probe_read(self, call);
        if (err != OPD_OK) set_problem(self, err, opd_err_context());
    }
    if (err == OPD_OK) return vouch(self, call->arg);
    return start_check(self);
}

static opd_err probe_score(opd__teacher *self, opd__server *server) {
    static const opd_http_header headers[] = {{"content-type", "application/json"}};
    int32_t ids[PROBE_IDS];
    opd_sglang_score question = probe_question(self, ids);
    opd_endpoint_call *call;
    OPD_TRY(opd_endpoint_call_create(server->endpoint, &call));
    opd_err err = self->protocol->write(&question, &call->body);
    if (err != OPD_OK) {
        opd_endpoint_call_destroy(call);
        return err;
    }
    call->http.path = self->protocol->score_path;
    call->http.headers = headers;
    call->http.header_count = OPD_COUNTOF(headers);
    call->answered = on_probe_score;
    return probe_send(self, server, call);
}

/* Another model. Where others score, the fleet goes on without it; else nothing can. */
static void refuse(opd__teacher *self, opd__server *server, opd_err err) {
    if (!self->ready || opd_fleet_up(&self->fleet) == 0) {
        opd__teacher_fail(self, err);
        return;
    }
    if (!server->refused)
        opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_ERROR, "%.180s",
                 opd_err_context());
    server->refused = true;
}

/* Reads what the server tells; one that tells nothing is asked for a score at its start. */
static opd_err judge_info(opd__teacher *self, const opd_endpoint_call *call) {
    opd_sglang_model_info info = {.vocab_size = -1, .bos_id = -1, .eos_id = -1};
    if (call->http.status == 200 &&
        self->protocol->read_info(call->http.answer.data, call->http.answer.size, &info) != OPD_OK)
        info = (opd_sglang_model_info){.vocab_size = -1, .bos_id = -1, .eos_id = -1};
    opd__server *server = call->arg;
    if (info.model_path[0] != '\0')
        (void)snprintf(self->model, sizeof self->model, "%.*s", (int)sizeof self->model - 1,
                       info.model_path);
    opd_err err = opd__teacher_check_info(self, index_of(self, server), &info);
    if (err != OPD_OK) {
        refuse(self, server, err);
        return OPD_OK;
    }
    if (!self->ready) opd__teacher_warn_unchecked(self, &info);
    /* one score shows that it scores: where nothing else does, and after a loss */
    bool score = self->ready ? self->c.teacher->probe && !opd__canary_is_on(self) : info.vocab_size < 0;
    return score ? probe_score(self, server) : vouch(self, server);
}

/* What a server says that is up, but was suspected to be gone. One that is busy answers this all the same. */
static opd_err judge_suspect(opd__teacher *self, int server, const opd_endpoint_call *call) {
    char text[64];
    bool nobody = call->http.err == OPD_OK && call->http.status == 503; /* but the proxy */
    if (!nobody && opd_teacher_judge(call->http.err, call->http.status) != OPD_TEACHER_WAIT) return OPD_OK;
    (void)snprintf(text, sizeof text, "HTTP %d, also to GET %.30s", call->http.status, self->protocol->info_path);
    return opd__teacher_gone(self, server, call->http.err == OPD_OK ? text : call->http.error);
}

static opd_err on_probe_info(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    opd__teacher *self = state;
    char text[OPD_SGLANG_MESSAGE_SIZE], message[OPD_SGLANG_MESSAGE_SIZE];
    (void)ctx;
    if (!probe_current(self, call)) return OPD_OK;
    if (is_up(self, call->arg)) return judge_suspect(self, index_of(self, call->arg), call);
    opd_teacher_verdict verdict = opd_teacher_judge(call->http.err, call->http.status);
    int status = call->http.status;
    bool there = verdict == OPD_TEACHER_READ || status == 404 || status == 405;
    if (call->http.err == OPD_OK && there) return judge_info(self, call);
    if (call->http.err == OPD_OK && opd_access_denied(status)) {
        set_denied(self, status);
    } else if (call->http.err == OPD_OK) {
        opd_sglang_error_read(call->http.answer.data, call->http.answer.size, message);
        (void)snprintf(text, sizeof text, "GET %s: HTTP %d: %.400s", self->protocol->info_path,
                       status, message);
        set_problem(self, OPD_ERR_REMOTE, text);
    } else {
        set_problem(self, call->http.err, call->http.error);
    }
    ((opd__server *)call->arg)->hopeless =
        verdict == OPD_TEACHER_GIVE_UP || call->http.err == OPD_ERR_UNTRUSTED;
    if (all_hopeless(self)) self->start_by_ns = 0; /* waiting longer cannot help */
    return start_check(self);
}

opd_err opd__teacher_probe_failed(opd__teacher *self, opd__server *server, opd_err err, const char *why) {
    const opd_inquiry *in = &server->inquirer.inquiry;
    bool asked = !server->known && self->c.teacher->probe;
    set_problem(self, err, why);
    if (asked && in->denied != 0) set_denied(self, in->denied);
    server->hopeless = err == OPD_ERR_UNTRUSTED || (asked && (in->denied != 0 || in->unusable));
    if (all_hopeless(self)) self->start_by_ns = 0; /* waiting longer cannot help */
    return start_check(self);
}

static opd_err on_inquired(opd_ctx *ctx, void *state, opd_inquirer *inquirer) {
    opd__teacher *self = state;
    opd__server *server = inquirer->o.arg;
    const opd_inquiry *in = &inquirer->inquiry;
    (void)ctx;
    server->probing = false;
    if (self->stopping || self->failed) return OPD_OK;
    if (in->trouble != OPD_OK) return opd__teacher_probe_failed(self, server, in->trouble, in->trouble_text);
    if (in->unusable) return opd__teacher_probe_failed(self, server, OPD_ERR_REMOTE, in->found.refusal);
    if (in->found.model.model_path[0] != '\0')
        (void)snprintf(self->model, sizeof self->model, "%.*s", (int)sizeof self->model - 1,
                       in->found.model.model_path);
    opd_err err = opd__teacher_take_capabilities(self, index_of(self, server), &in->found);
    if (err == OPD_OK) return vouch(self, server);
    refuse(self, server, err);
    return OPD_OK;
}

/* A server that was never asked what it can do. */
static opd_err inquire(opd__teacher *self, opd__server *server) {
    const opd_teacher_http_config *c = &self->c;
    opd_inquirer_options options = {
        .inquiry = {.protocol = self->protocol, .alloc = c->alloc, .bos_id = c->bos_id,
                    .vocab_size = c->vocab_size > 0 ? c->vocab_size : -1, .top_k = c->top_k,
                    .max_len = c->max_len, .nonce = self->rid_nonce + self->rid_next++},
        .endpoint = server->endpoint, .attempt_timeout_ms = PROBE_TIMEOUT_MS,
        .deadline_ns = opd_now_ns(self->ctx) + 2 * (uint64_t)PROBE_TIMEOUT_MS * 1000000,
        .done = on_inquired, .arg = server};
    if (!self->ready && !self->late && options.deadline_ns > self->start_by_ns)
        options.deadline_ns = self->start_by_ns;
    opd_err err = opd_inquirer_start(self->ctx, &server->inquirer, &options);
    server->probing = err == OPD_OK;
    return err == OPD_ERR_AGAIN ? OPD_OK : err;
}

static opd_err ask_info(opd__teacher *self, opd__server *server) {
    opd_endpoint_call *call;
    OPD_TRY(opd_endpoint_call_create(server->endpoint, &call));
    call->http.path = self->protocol->info_path;
    call->answered = on_probe_info;
    opd_err err = probe_send(self, server, call);
    return err == OPD_ERR_AGAIN ? OPD_OK : err;
}

static opd_err probe(opd__teacher *self, opd__server *server) {
    if (server->probing || server->endpoint == NULL || self->failed || self->stopping) return OPD_OK;
    return self->c.teacher->probe && !server->known ? inquire(self, server) : ask_info(self, server);
}

opd_err opd__teacher_suspect(opd__teacher *self, int i) {
    opd__server *server = &self->servers[i];
    uint64_t now = opd_now_ns(self->ctx);
    bool may = is_up(self, server) && !server->probing && !self->failed && !self->stopping;
    if (!may || now - server->suspected_ns < SUSPECT_NS) return OPD_OK;
    server->suspected_ns = now;
    return ask_info(self, server);
}

/* ---- endpoints ---- */

static opd_err on_closed(opd_ctx *ctx, void *state, opd_endpoint *endpoint) {
    opd__teacher *self = state;
    (void)endpoint;
    self->endpoints_open--;
    if (self->stopping && self->endpoints_open == 0) opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

uint64_t opd_teacher_question_max_bytes(uint32_t max_len) {
    if (max_len == 0) return BODY_BYTES_MAX;
    return BODY_BYTES_BASE + (uint64_t)max_len * QUESTION_BYTES_PER_TOKEN;
}

uint64_t opd_teacher_answer_max_bytes(uint32_t max_len, uint64_t top_k) {
    if (max_len == 0) return BODY_BYTES_MAX;
    return BODY_BYTES_BASE + max_len * (1 + top_k) * ANSWER_BYTES_PER_ENTRY;
}

static opd_err open_url(opd__teacher *self, opd__server *server, const char *url) {
    const opd_config_teacher *t = self->c.teacher;
    opd_tls_options tls = {.ca_file = t->ca_file, .cert_file = t->cert_file,
                           .key_file = t->key_file, .unverified = !t->verify};
    opd_endpoint_options options = {
        .alloc = self->c.alloc,
        .env = self->c.env,
        .url = url,
        .tls = &tls,
        .api_key = self->api_key,
        .max_inflight = (uint32_t)self->c.teacher->max_inflight + 3, /* probe, abort, canary */
        .connections = (uint32_t)t->connections,
        .connect_timeout_ms = opd__teacher_ns(self->c.teacher->connect_timeout_s) / 1000000,
        .max_body_bytes = opd_teacher_question_max_bytes(self->c.max_len),
        .max_answer_bytes = opd_teacher_answer_max_bytes(self->c.max_len, self->c.top_k),
        .reader = &self->reader,
        .closed = on_closed};
    OPD_TRY(opd_err_prefix(opd_endpoint_open(self->ctx, &options, &server->endpoint),
                           "teachers.%s.url", self->c.teacher->name));
    self->endpoints_open++;
    return probe(self, server);
}

/* The key would be seen by anyone on the way. Said once, of the first such address. */
static void warn_exposed(const opd__teacher *self) {
    char url[OPD_CONFIG_URL_SIZE];
    for (size_t i = 0; self->api_key != NULL && i < self->fleet.count; i++) {
        if (!opd_config_url_at(self->c.teacher, i, url, sizeof url) || !opd_access_exposed(url))
            continue;
        opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
                 "teacher %s: its API key goes to %.100s in clear text; use https://",
                 self->c.teacher->name, url);
        return;
    }
}

opd_err opd__teacher_begin(opd__teacher *self) {
    char url[OPD_CONFIG_URL_SIZE];
    OPD_TRY(opd_access_key(self->c.teacher, self->c.alloc, &self->api_key));
    warn_exposed(self);
    self->start_by_ns = opd_now_ns(self->ctx) + opd__teacher_ns(self->c.teacher->start_timeout_s);
    for (size_t i = 0; i < self->fleet.count; i++)
        if (opd_config_url_at(self->c.teacher, i, url, sizeof url))
            OPD_TRY(open_url(self, &self->servers[i], url));
    return OPD_OK;
}

opd_err opd__teacher_move(opd__teacher *self, const char *url) {
    opd__server *server = &self->servers[0];
    if (self->stopping || self->failed) return OPD_OK;
    opd_endpoint_close(server->endpoint);
    server->endpoint = NULL;
    server->probing = server->round.under_way = false;
    if (self->ready) OPD_TRY(opd__teacher_gone(self, 0, "its server ended"));
    return url[0] == '\0' ? OPD_OK : open_url(self, server, url);
}

/* The last one is gone: nobody answers. */
static void all_gone(opd__teacher *self, const char *why) {
    if (!opd_teacher_health_gone(&self->health)) return;
    set_problem(self, OPD_ERR_REFUSED, why);
    bool fallback = has_fallback(self->c.teacher);
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
             "teacher %s is lost (%.100s)%s%.40s%s", self->c.teacher->name, why,
             fallback ? "; " : "; admission pauses", self->c.teacher->fallback,
             fallback ? " is asked instead" : "");
    set_presence(self, OPD_PRESENCE_DOWN);
}

void opd__teacher_unusable(opd__teacher *self, const char *why) {
    if (!self->ready) set_problem(self, OPD_ERR_REMOTE, why);
    else if (opd_fleet_up(&self->fleet) == 0) all_gone(self, why);
}

opd_err opd__teacher_gone(opd__teacher *self, int server, const char *why) {
    opd__server *lost = &self->servers[server];
    uint64_t now = opd_now_ns(self->ctx);
    if (!is_up(self, lost)) return OPD_OK;
    self->replicas[server].up = false;
    if (opd_fleet_up(&self->fleet) == 0)
        all_gone(self, why);
    else
        opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
                 "teacher %s: replica %s is lost (%.100s); the others go on",
                 self->c.teacher->name, opd__teacher_where(self, server), why);
    bool first = now - lost->lost_at_ns >= OPD__TEACHER_TICK_NS;
    lost->lost_at_ns = now;
    return first ? probe(self, lost) : OPD_OK; /* one that flaps waits for the tick */
}

/* Asks every server that does not answer. */
static opd_err probe_lost(opd__teacher *self) {
    for (size_t i = 0; i < self->fleet.count; i++)
        if (!self->replicas[i].up) OPD_TRY(probe(self, &self->servers[i]));
    return OPD_OK;
}

static bool is_probing(const opd__teacher *self) {
    for (size_t i = 0; i < self->fleet.count; i++)
        if (self->servers[i].probing) return true;
    return false;
}

opd_err opd__teacher_tick(opd__teacher *self) {
    const opd_config_teacher *t = self->c.teacher;
    tell_presence(self);
    if (!self->ready && !self->late) {
        if (!is_probing(self)) OPD_TRY(start_check(self));
        return probe_lost(self);
    }
    if (opd_teacher_health_lost(&self->health, opd__teacher_ns(self->c.teacher_lost_s),
                                opd_now_ns(self->ctx)))
        opd__teacher_fail(self, opd_fail(OPD_ERR_TEACHER_LOST,
            "teacher %s at %s has answered nothing for %g s (opd.teacher_lost_s) while %u samples "
            "wait; last: %s. Start the server again and continue with --resume",
            t->name, where(self), self->c.teacher_lost_s, self->waiting_count,
            self->problem_text[0] != '\0' ? self->problem_text : "no attempt succeeded"));
    opd__canary_tick(self);
    return probe_lost(self);
}
