/* teacher_rig.c - see teacher_rig.h. */
#include "tests/unit/actors/teacher_rig.h"

#include "actors/metrics.h"
#include "actors/panel/panel_actor.h"
#include "core/base/check.h"
#include "transports/sglang.h"

/* ---- the roles ---- */

static opd_err remember_rig(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    *(rig **)state = *(rig *const *)config;
    return OPD_OK;
}

static void copy_slice(void *to, size_t max, opd_slice from) {
    CHECK(from.size_bytes <= max);
    if (from.size_bytes > 0) memcpy(to, opd_slice_data(from), from.size_bytes);
}

static opd_err linger_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err batcher_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    rig *r = *(rig **)state;
    opd_scores_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SCORES, &f));
    CHECK(f.group < (uint64_t)r->count);
    rig_sample *s = &r->scores[f.group];
    if (!r->any_teacher) CHECK_STR(f.teacher, "tutor");
    s->times++;
    s->holds = r->holds;
    s->releases = r->releases;
    s->scored = f.logp.buf != NULL;
    s->attempts = f.attempts;
    s->moves = f.moves;
    s->hedges = f.hedges;
    CHECK(f.wait_ms >= 0 && f.wait_ms <= f.latency_ms);
    memcpy(s->endpoint, f.endpoint, sizeof s->endpoint);
    copy_slice(s->logp, sizeof s->logp, f.logp);
    copy_slice(s->valid, sizeof s->valid, f.valid);
    copy_slice(s->topk, sizeof s->topk, f.topk);
    memcpy(s->reason, f.reason, sizeof s->reason);
    if (++r->got != r->want) return OPD_OK; /* more may come while it lingers */
    opd_timer_init(&r->linger, ctx, linger_over);
    return opd_timer_start_after(&r->linger, r->linger_ms * 1000000);
}

static opd_err dataset_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    rig *r = *(rig **)state;
    opd_hold_fields f;
    (void)ctx;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_HOLD, &f));
    if (f.hold) r->holds++;
    else r->releases++;
    return OPD_OK;
}

static opd_err monitor_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    rig *r = *(rig **)state;
    opd_note_fields f;
    opd_counted_fields counted;
    (void)ctx;
    if (opd_message_read(msg, OPD_MESSAGE_COUNTED, &counted) == OPD_OK) {
        CHECK_INT(counted.metric, OPD_METRIC_TEACHER_QUARANTINES);
        r->quarantines += (int)counted.value;
        return OPD_OK;
    }
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_NOTE, &f));
    size_t used = strlen(r->notes);
    (void)snprintf(r->notes + used, sizeof r->notes - used, "%s\n", f.text);
    return OPD_OK;
}

int32_t rig_token(const rig *r, int group, uint32_t i) {
    return (int32_t)((uint32_t)(group * 7 + 3) * (i + 5) % (uint32_t)r->vocab);
}

static opd_err send_rollout(opd_ctx *ctx, rig *r, opd_link *link, int group) {
    int32_t ids[RIG_TOKENS_MAX * 2];
    uint32_t count = r->prompt_len + r->response_len;
    opd_rollout_fields f = {.group = (uint64_t)group, .prompt_len = r->prompt_len};
    for (uint32_t i = 0; i < count; i++) ids[i] = rig_token(r, group, i);
    OPD_TRY(opd_slice_copy(&r->t.memory.alloc, ids, count * sizeof *ids, &f.tokens));
    opd_err err = opd_message_link_send(ctx, link, OPD_MESSAGE_ROLLOUT, &f);
    opd_buf_release(f.tokens.buf);
    return err;
}

static opd_err source_start(opd_ctx *ctx, void *state, const void *config) {
    rig *r = *(rig *const *)config;
    opd_link *link;
    (void)state;
    OPD_TRY(opd_link_open(ctx, r->roles.teacher, (uint32_t)r->count, 1 << 24, &link));
    for (int group = 0; group < r->count; group++) OPD_TRY(send_rollout(ctx, r, link, group));
    return OPD_OK;
}

static const opd_actor_class batcher_class = {.name = "batcher", .state_size = sizeof(rig *),
                                              .on_start = remember_rig,
                                              .on_message = batcher_message};
static const opd_actor_class dataset_class = {.name = "dataset", .state_size = sizeof(rig *),
                                              .on_start = remember_rig,
                                              .on_message = dataset_message};
static const opd_actor_class monitor_class = {.name = "monitor", .state_size = sizeof(rig *),
                                              .on_start = remember_rig,
                                              .on_message = monitor_message};
static const opd_actor_class source_class = {.name = "source", .on_start = source_start};

/* ---- the rig ---- */

void rig_up(rig *r, int count, uint32_t prompt_len, uint32_t response_len, int32_t vocab) {
    *r = (rig){.count = count, .want = count, .prompt_len = prompt_len,
               .response_len = response_len, .vocab = vocab};
    r->scores = calloc((size_t)count, sizeof *r->scores);
    CHECK(r->scores != NULL);
    sys_up(&r->t, NULL);
    if (r->t.sim != NULL) {
        CHECK_OK(opd_net_sim_create(r->t.sim, NULL, &r->net));
        CHECK_OK(opd_net_sim_join(r->net, r->t.env));
    }
    CHECK_OK(opd_spawn(r->t.system, &batcher_class, NULL, &r, &r->roles.batcher));
    CHECK_OK(opd_spawn(r->t.system, &dataset_class, NULL, &r, &r->roles.dataset));
    CHECK_OK(opd_spawn(r->t.system, &monitor_class, NULL, &r, &r->roles.monitor));
}

uint32_t rig_stage_add(rig *r, const opd_config_teacher *teacher) {
    uint32_t place = (uint32_t)r->stage.teacher_count++;
    opd_config_teacher *t = &r->stage.teachers[place];
    *t = *teacher;
    if (t->fallback == NULL) t->fallback = "";
    if (t->serves == NULL) t->serves = "";
    if (t->urls == NULL) t->urls = "";
    if (t->weight == 0) t->weight = 1;
    return place;
}

void rig_panel(rig *r, const char *model, uint32_t top_k, double temperature) {
    opd_config_opd *o = &r->stage.opd;
    o->enabled = true;
    o->type = model != NULL ? OPD_CONFIG_OPD_TYPE_MEGATRON : OPD_CONFIG_OPD_TYPE_SGLANG;
    if (o->teacher_lost_s <= 0) o->teacher_lost_s = 300;
    if (o->teacher == NULL) o->teacher = r->stage.teachers[0].name;
    if (o->teacher_key == NULL) o->teacher_key = "";
    o->log_prob_top_k = (int64_t)top_k;
    r->stage.rollout.temperature = temperature;
    opd_panel_config config = {.roles = &r->roles, .stage = &r->stage, .model = model,
                               .top_k = (uint32_t)top_k,
                               .max_len = 2 * RIG_TOKENS_MAX, .samples_max = (uint32_t)r->want + 64,
                               .window_msgs = 16, .window_bytes = 1 << 20,
                               .alloc = &r->t.memory.alloc};
    CHECK_OK(opd_spawn(r->t.system, &opd_panel_class, NULL, &config, &r->roles.teacher));
}

void rig_client(rig *r, opd_config_teacher *teacher, opd_teacher_http_config *config) {
    *teacher = (opd_config_teacher){
        .name = "tutor", .url = "", .urls = "", .path = "", .timeout_s = 5, .deadline_s = 30,
        .connect_timeout_s = 2, .max_inflight = 8, .retries = 3, .backoff_ms = 10,
        .backoff_max_ms = 50, .start_timeout_s = 5, .retry_budget = 0.2, .retry_min_per_s = 10,
        .adapt_inflight = true, .hedge_quantile = 0.95, .eject_failures = 5,
        .eject_slow_factor = 5, .eject_s = 5};
    *config = (opd_teacher_http_config){
        .roles = &r->roles, .env = r->t.env, .alloc = &r->t.memory.alloc, .teacher = teacher,
        .teacher_lost_s = 20, .temperature = 1, .vocab_size = 50, .bos_id = 1, .eos_id = 2,
        .tokenizer_hash = ""};
}

void rig_teacher(rig *r, opd_teacher_http_config *config) {
    uint32_t place = rig_stage_add(r, config->teacher);
    config->teacher = &r->stage.teachers[place];
    config->place = place;
    r->stage.opd.teacher_lost_s = config->teacher_lost_s;
    rig_panel(r, NULL, config->top_k, config->temperature);
    CHECK_OK(opd_spawn(r->t.system, &opd_teacher_http_class, NULL, config,
                       &r->roles.teachers[place]));
}

void rig_feed(rig *r) {
    opd_pid pid;
    CHECK_OK(opd_spawn(r->t.system, &source_class, NULL, &r, &pid));
}

opd_err rig_run(rig *r) { return opd_system_run(r->t.system); }

void rig_down(rig *r) {
    for (int i = 0; i < r->count; i++) CHECK(r->scores[i].times <= 1);
    free(r->scores);
    if (r->t.sim == NULL) {
        sys_down(&r->t);
        return;
    }
    CHECK_INT(opd_system_stats_get(r->t.system).messages_in_use, 0);
    opd_system_destroy(r->t.system);
    CHECK_OK(opd_env_destroy(r->t.env));
    opd_net_sim_destroy(r->net); /* after its env, before its sim */
    opd_sim_destroy(r->t.sim);
    CHECK_INT(r->t.memory.live, 0);
}

/* ---- the script ---- */

enum { STALLED_MAX = 64, LATE_MAX = 8 };

/* An answer that is held back. */
typedef struct late {
    opd_http_exchange *exchange; /* NULL: free */
    opd_timer timer;
    int status;
    char text[2048];
} late;

typedef struct player {
    script *script;
    opd_ctx *ctx;
    opd_http_server *server;
    opd_http_exchange *stalled[STALLED_MAX];
    int stalled_count;
    late late[LATE_MAX];
    uint64_t dead_until_ns; /* 0: never was */
    bool stopping;
    opd_timer reopen;
    opd_event closed;
} player;

static void respond_json(opd_http_exchange *exchange, int status, const char *text) {
    opd_http_respond_text(exchange, status, "application/json", text);
}

static void respond_late(late *l) {
    respond_json(l->exchange, l->status, l->text);
    l->exchange = NULL;
}

static opd_err on_late(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)state;
    respond_late(OPD_CONTAINER_OF(timer, late, timer));
    return OPD_OK;
}

static void hold_back(player *p, opd_http_exchange *exchange, uint64_t ms, int status, const char *text) {
    late *l = p->late;
    while (l->exchange != NULL) l++;
    CHECK(l < p->late + LATE_MAX && strlen(text) < sizeof l->text);
    l->exchange = exchange;
    l->status = status;
    (void)snprintf(l->text, sizeof l->text, "%s", text);
    opd_timer_init(&l->timer, p->ctx, on_late);
    CHECK_OK(opd_timer_start_after(&l->timer, ms * 1000000));
}

static int group_of(const rig *r, const int32_t *ids, size_t count) {
    for (int g = 0; g < r->count; g++) {
        uint32_t i = 0;
        while (i < count && ids[i] == rig_token(r, g, i)) i++;
        if (i == count && count == r->prompt_len + r->response_len) return g;
    }
    return -1; /* a probe */
}

static void answer_scores(player *p, opd_http_exchange *exchange, const opd_sglang_generate *q,
                          script_step step) {
    float logp[2 * RIG_TOKENS_MAX];
    const opd_sglang_item *item = &q->items[0];
    size_t start = (size_t)item->ask.logprob_start, rows = item->count - start;
    opd_json_writer w;
    opd_str out;
    script *s = p->script;
    bool canary = strncmp(item->rid, "opd-sing-", 9) == 0;
    s->canaries += canary;
    s->questions += strncmp(item->rid, "opd-ask-", 8) == 0;
    bool aborts = canary && s->canaries >= s->aborts_from && s->canaries <= s->aborts_to;
    bool lies = canary && s->canaries >= s->lie_from && s->canaries <= s->lie_to;
    bool renewed = s->version_from > 0 && s->canaries >= s->version_from;
    const char *version = s->versions[renewed];
    for (size_t i = 0; i < rows; i++) {
        logp[i] = -(float)(item->ids[start + i] + 1) / 100;
        if (lies) logp[i] = s->lie > 0 ? logp[i] - s->lie : -logf((float)s->rig->vocab);
    }
    if (step == STEP_NULLS) logp[2] = (float)NAN;
    opd_sglang_answer a = {.rid = item->rid, .prompt_count = item->count,
                           .weight_version = version != NULL ? version : "default", .return_logprob = true,
                           .finish = step == STEP_ABORT || aborts ? OPD_SGLANG_FINISH_ABORT
                                                        : OPD_SGLANG_FINISH_LENGTH,
                           .message = "Abort in waiting queue",
                           .input = {.ids = item->ids + start, .logp = logp,
                                     .count = step == STEP_SHORT ? rows - 1 : rows}};
    opd_str_init(&out, &p->script->rig->t.memory.alloc, 1 << 20);
    opd_json_writer_init(&w, &out, 0);
    opd_sglang_answer_write(&a, &w);
    if (step == STEP_OK_LATE || step == STEP_OK_LAST) hold_back(p, exchange, s->late_ms, 200, out.data);
    else if (canary && s->canaries == s->late_canary) hold_back(p, exchange, 2 * s->late_ms, 200, out.data);
    else respond_json(exchange, 200, out.data);
    opd_str_fini(&out);
}

static void on_closed(void *arg) {
    player *p = arg;
    opd_event_post(opd_self_system(p->ctx), &p->closed);
}

static void play(player *p, opd_http_exchange *exchange, const opd_sglang_generate *q) {
    script *s = p->script;
    static const opd_http_header after[] = {{"retry-after", "1"}};
    int group = group_of(s->rig, q->items[0].ids, q->items[0].count);
    int turn = group < 0 ? s->step_count : s->seen[group]++;
    script_step step = group < 0 ? STEP_OK
                                 : s->steps[turn < s->step_count ? turn : s->step_count - 1];
    if (s->generates < 256)
        (void)snprintf(s->rids[s->generates], sizeof s->rids[0], "%.60s", q->items[0].rid);
    s->generates++;
    switch (step) {
    case STEP_500: respond_json(exchange, 500, "{\"error\":{\"message\":\"boom\"}}"); return;
    case STEP_400: respond_json(exchange, 400, "{\"error\":{\"message\":\"too long\"}}"); return;
    case STEP_503_AFTER:
        opd_http_respond_headers(exchange, 503, after, 1, (opd_slice){.buf = NULL});
        return;
    case STEP_DIES:
        if (p->dead_until_ns > 0) {
            answer_scores(p, exchange, q, STEP_OK);
            return;
        }
        p->dead_until_ns = opd_now_ns(p->ctx) + 1500000000;
        respond_json(exchange, 503, "<html>no server is available</html>");
        return;
    case STEP_401_ECHO: respond_json(exchange, 401, opd_http_exchange_header(exchange, "authorization")); return;
    case STEP_503: respond_json(exchange, 503, "<html>no server is available</html>"); return;
    case STEP_502_LATE: hold_back(p, exchange, s->late_ms, 502, ""); return;
    case STEP_OK_LAST:
        opd_http_exchange_goaway(exchange, OPD_HTTP_GOAWAY_GRACEFUL);
        answer_scores(p, exchange, q, step);
        return;
    case STEP_GARBAGE: respond_json(exchange, 200, "{\"meta_info\": oops"); return;
    case STEP_CLOSE:
    case STEP_STALL:
        CHECK(p->stalled_count < STALLED_MAX);
        p->stalled[p->stalled_count++] = exchange;
        if (step == STEP_STALL || p->server == NULL) return;
        opd_http_server_close(p->server, 0, on_closed, p);
        p->server = NULL;
        return;
    default: answer_scores(p, exchange, q, step);
    }
}

/* Shows those out who do not have the key. */
static bool may_enter(script *s, opd_http_exchange *exchange) {
    const char *shown = opd_http_exchange_header(exchange, "authorization");
    char wanted[256];
    if (s->key == NULL) {
        CHECK(shown == NULL);
        return true;
    }
    (void)snprintf(wanted, sizeof wanted, "Bearer %s", s->key);
    if (shown != NULL && strcmp(shown, wanted) == 0) {
        s->shown++;
        return true;
    }
    respond_json(exchange, 401, "{\"error\":\"Unauthorized\"}");
    return false;
}

static void on_exchange(void *arg, opd_http_exchange *exchange) {
    player *p = arg;
    script *s = p->script;
    if (!may_enter(s, exchange)) return;
    if (opd_now_ns(p->ctx) < p->dead_until_ns) {
        respond_json(exchange, 503, "<html>no server is available</html>");
        return;
    }
    if (strcmp(opd_http_exchange_path(exchange), "/model_info") == 0) {
        s->infos++;
        respond_json(exchange, s->info_status == 0 ? 200 : s->info_status,
                     s->info != NULL ? s->info : "{\"vocab_size\": 50, \"eos_token_id\": 2}");
        return;
    }
    opd_sglang_generate q;
    opd_sglang_limits limits = {.vocab_size = s->rig->vocab, .context_size = 1000};
    if (strcmp(opd_http_exchange_path(exchange), "/server_info") == 0) {
        respond_json(exchange, s->server_info != NULL ? 200 : 404, s->server_info != NULL ? s->server_info : "{}");
        return;
    }
    if (strcmp(opd_http_exchange_path(exchange), "/abort_request") == 0) {
        s->aborts++;
        respond_json(exchange, 200, "{}");
        return;
    }
    CHECK_STR(opd_http_exchange_path(exchange), "/generate");
    CHECK_OK(opd_sglang_generate_read(opd_http_exchange_body(exchange),
                                      opd_http_exchange_body_size(exchange), &limits,
                                      &s->rig->t.memory.alloc, &q));
    play(p, exchange, &q);
    opd_sglang_generate_fini(&q);
}

static opd_err listen_on(player *p, uint16_t port) {
    opd_http_server_options options = {.alloc = &p->script->rig->t.memory.alloc,
                                       .env = p->script->rig->t.env, .port = port};
    OPD_TRY(opd_http_server_create(&options, on_exchange, p, &p->server));
    p->script->port = opd_http_server_port(p->server);
    return OPD_OK;
}

static void release_stalled(player *p) {
    for (int i = 0; i < p->stalled_count; i++)
        opd_http_respond_text(p->stalled[i], 500, NULL, "");
    p->stalled_count = 0;
}

static opd_err deliver_closed(opd_ctx *ctx, void *state, opd_event *event) {
    player *p = state;
    (void)event;
    release_stalled(p);
    if (p->stopping) opd_exit(ctx, OPD_OK);
    if (p->stopping || p->script->stays_closed) return OPD_OK;
    return opd_timer_start_after(&p->reopen, 500000000);
}

static opd_err on_reopen(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)ctx;
    (void)timer;
    player *p = state;
    return listen_on(p, p->script->port);
}

static opd_err player_start(opd_ctx *ctx, void *state, const void *config) {
    player *p = state;
    p->script = *(script *const *)config;
    p->ctx = ctx;
    p->closed.to = opd_self(ctx);
    p->closed.deliver = deliver_closed;
    opd_timer_init(&p->reopen, ctx, on_reopen);
    return listen_on(p, 0);
}

static opd_err player_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    player *p = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    p->stopping = true;
    opd_timer_stop(&p->reopen);
    for (late *l = p->late; l < p->late + LATE_MAX; l++) {
        if (l->exchange == NULL) continue;
        opd_timer_stop(&l->timer);
        respond_late(l);
    }
    if (p->server == NULL) return OPD_OK;
    opd_http_server_close(p->server, 0, on_closed, p);
    p->server = NULL;
    opd_stop_defer(ctx);
    return OPD_OK;
}

static const opd_actor_class player_class = {.name = "script", .state_size = sizeof(player),
                                             .on_start = player_start,
                                             .on_signal = player_signal};

void script_up(script *s, rig *r) {
    opd_pid pid;
    CHECK(r->count <= RIG_SCRIPT_SAMPLES_MAX);
    s->rig = r;
    CHECK_OK(opd_spawn(r->t.system, &player_class, NULL, &s, &pid));
}
