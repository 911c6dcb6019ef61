/* panel_rig.c - see panel_rig.h. */
#include "tests/unit/actors/panel_rig.h"

#include "actors/metrics.h"
#include "core/base/check.h"

int32_t panel_token(uint64_t group, uint32_t i) { return (int32_t)(group * 50 + i); }

float panel_score(uint32_t place, int32_t id) { return -(float)(id + 1) / 64 - (float)place * 1000; }

/* ---- a teacher ---- */

typedef struct question {
    opd_msg *msg;
    opd_timer timer;
    struct actor *actor;
} question;

typedef struct actor {
    world *w;
    uint32_t place;
    question questions[SAMPLES * 4];
    bool was_full;
} actor;

typedef struct actor_config {
    world *w;
    uint32_t place;
} actor_config;

static void reply_scores(opd_ctx *ctx, actor *a, opd_msg *msg, size_t fewer) {
    opd_score_fields ask;
    float logp[LONGEST + PROMPT];
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_SCORE, &ask));
    uint32_t n = (uint32_t)(ask.tokens.size_bytes / sizeof(int32_t));
    const int32_t *ids = opd_slice_data(ask.tokens);
    uint32_t rows = n - 1 - ask.start;
    for (uint32_t i = 0; i < rows; i++) logp[i] = panel_score(a->place, ids[ask.start + 1 + i]);
    opd_scored_fields f = {.attempts = 1};
    CHECK_OK(opd_slice_copy(&a->w->t.memory.alloc, logp, (rows - fewer) * sizeof *logp, &f.logp));
    opd_message_reply(ctx, msg, OPD_MESSAGE_SCORED, &f);
    opd_buf_release(f.logp.buf);
}

static opd_err on_answer_time(opd_ctx *ctx, void *state, opd_timer *timer) {
    actor *a = state;
    question *q = timer->arg;
    a->w->under_way--;
    switch (a->w->parts[a->place]) {
    case HANG:
    case REFUSE: {
        opd_scored_fields f = {.attempts = 2, .reason = "it cannot"};
        opd_message_reply(ctx, q->msg, OPD_MESSAGE_SCORED, &f);
        break;
    }
    case TOO_LATE:
    case AWAY: opd_reply_error(ctx, q->msg, opd_fail(OPD_ERR_CLOSED, "away")); break;
    case SHORT: reply_scores(ctx, a, q->msg, 1); break;
    default: reply_scores(ctx, a, q->msg, 0);
    }
    opd_msg_release(q->msg);
    q->msg = NULL;
    return OPD_OK;
}

static void note_ask(opd_ctx *ctx, actor *a, const opd_score_fields *f) {
    world *w = a->w;
    CHECK(w->ask_count < ASKS);
    w->asks[w->ask_count++] = (asked){
        .teacher = a->place, .from = f->start + 1, .wait = f->wait, .affinity = f->affinity,
        .to = (uint32_t)(f->tokens.size_bytes / sizeof(int32_t)), .at_ns = opd_now_ns(ctx),
        .for_ns = f->deadline_ns - opd_now_ns(ctx)};
    if (++w->under_way > w->under_way_max) w->under_way_max = w->under_way;
}

static opd_err teacher_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    actor *a = state;
    world *w = a->w;
    opd_score_fields f;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_SCORE, &f));
    if (w->parts[a->place] == FULL_ONCE && !a->was_full) {
        a->was_full = true;
        opd_reply_error(ctx, msg, opd_fail(OPD_ERR_AGAIN, "full"));
        return OPD_OK;
    }
    note_ask(ctx, a, &f);
    opd_msg_take(ctx, msg);
    size_t i = 0;
    while (a->questions[i].msg != NULL) i++;
    question *q = &a->questions[i];
    *q = (question){.msg = msg, .actor = a};
    opd_timer_init(&q->timer, ctx, on_answer_time);
    q->timer.arg = q;
    bool away = w->parts[a->place] == AWAY || w->parts[a->place] == TOO_LATE;
    if (away && f.wait) return OPD_OK; /* until somebody says otherwise */
    if (w->parts[a->place] == HANG) return opd_timer_start(&q->timer, f.deadline_ns);
    return opd_timer_start_after(&q->timer, w->delay_ns[a->place] + 1);
}

static opd_err say_presence(opd_ctx *ctx, const actor *a, opd_presence state) {
    opd_presence_fields f = {.teacher = a->place, .state = (uint32_t)state, .model = "model"};
    return opd_message_send(ctx, a->w->roles.teacher, OPD_MESSAGE_PRESENCE, &f);
}

static opd_err teacher_start(opd_ctx *ctx, void *state, const void *config) {
    actor *a = state;
    const actor_config *c = config;
    a->w = c->w;
    a->place = c->place;
    part plays = a->w->parts[a->place];
    return say_presence(ctx, a, plays == AWAY       ? OPD_PRESENCE_DOWN
                                : plays == TOO_LATE ? OPD_PRESENCE_LATE
                                                    : OPD_PRESENCE_UP);
}

/* A message of no kind: the teacher comes back. */
static opd_err teacher_or_news(opd_ctx *ctx, void *state, opd_msg *msg) {
    actor *a = state;
    if (opd_msg_is_request(msg)) return teacher_message(ctx, state, msg);
    a->w->parts[a->place] = SCORE;
    for (size_t i = 0; i < OPD_COUNTOF(a->questions); i++)
        if (a->questions[i].msg != NULL)
            OPD_TRY(opd_timer_start_after(&a->questions[i].timer, 1));
    return say_presence(ctx, a, OPD_PRESENCE_UP);
}

static void teacher_stop(opd_ctx *ctx, void *state) {
    actor *a = state;
    (void)ctx;
    for (size_t i = 0; i < OPD_COUNTOF(a->questions); i++) opd_msg_release(a->questions[i].msg);
}

static const opd_actor_class teacher_class = {
    .name = "teacher", .state_size = sizeof(actor), .on_start = teacher_start, .mailbox_msgs_max = 4096,
    .mailbox_bytes_max = 16 << 20, .on_message = teacher_or_news, .on_stop = teacher_stop};

/* ---- the others ---- */

static opd_err remember(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    *(world **)state = *(world *const *)config;
    return OPD_OK;
}

static opd_err batcher_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    world *w = *(world **)state;
    opd_scores_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SCORES, &f));
    got *g = &w->got[f.group];
    g->times++;
    g->rows = (uint32_t)(f.logp.size_bytes / sizeof(float));
    g->degraded = f.degraded;
    g->attempts = f.attempts;
    g->teachers = f.teachers.size_bytes;
    CHECK(g->rows <= TEACHERS * LONGEST && f.valid.size_bytes == g->rows);
    CHECK(f.weights.size_bytes == g->teachers * sizeof(double));
    if (g->rows > 0) {
        memcpy(g->logp, opd_slice_data(f.logp), f.logp.size_bytes);
        memcpy(g->valid, opd_slice_data(f.valid), f.valid.size_bytes);
    }
    if (g->teachers > 0) {
        memcpy(g->places, opd_slice_data(f.teachers), g->teachers);
        memcpy(g->weights, opd_slice_data(f.weights), f.weights.size_bytes);
    }
    memcpy(g->teacher, f.teacher, sizeof g->teacher);
    memcpy(g->reason, f.reason, sizeof g->reason);
    if (++w->done == w->samples) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err dataset_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    world *w = *(world **)state;
    opd_hold_fields f;
    (void)ctx;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_HOLD, &f));
    if (f.hold) w->holds++;
    else w->releases++;
    return OPD_OK;
}

static opd_err monitor_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    world *w = *(world **)state;
    opd_note_fields f;
    opd_counted_fields counted;
    (void)ctx;
    if (opd_msg_kind(msg) == OPD_MESSAGE_COUNTED) {
        OPD_TRY(opd_message_read(msg, OPD_MESSAGE_COUNTED, &counted));
        CHECK_INT(counted.metric, OPD_METRIC_TEACHER_UNSERVED);
        w->unserved += counted.value;
        return OPD_OK;
    }
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_NOTE, &f));
    size_t used = strlen(w->notes);
    (void)snprintf(w->notes + used, sizeof w->notes - used, "%s\n", f.text);
    return OPD_OK;
}

static const opd_actor_class batcher_class = {
    .name = "batcher", .state_size = sizeof(world *), .on_start = remember, .on_message = batcher_message};
static const opd_actor_class dataset_class = {
    .name = "dataset", .state_size = sizeof(world *), .on_start = remember, .on_message = dataset_message};
static const opd_actor_class monitor_class = {
    .name = "monitor", .state_size = sizeof(world *), .on_start = remember, .on_message = monitor_message};

/* Writes all samples at once, a chunk every 5 ms, as the student would. */
typedef struct source {
    world *w;
    opd_link *link;
    opd_timer timer;
    uint32_t told;
} source;

static void copy_source(char out[OPD_MESSAGE_TEXT_SIZE], const char *from) {
    (void)snprintf(out, OPD_MESSAGE_TEXT_SIZE, "%s", from == NULL ? "" : from);
}

static opd_err send_tokens(opd_ctx *ctx, source *s, uint64_t group, bool whole, uint32_t from, uint32_t to) {
    world *w = s->w;
    int32_t ids[PROMPT + LONGEST];
    opd_rollout_fields r = {.group = group, .prompt_len = PROMPT};
    opd_chunk_fields c = {.group = group, .prompt_len = PROMPT, .offset = from};
    for (uint32_t i = from; i < to; i++) ids[i - from] = panel_token(group, i);
    copy_source(r.source, w->sources[group]);
    copy_source(c.source, w->sources[group]);
    opd_slice tokens;
    OPD_TRY(opd_slice_copy(&w->t.memory.alloc, ids, (to - from) * sizeof *ids, &tokens));
    r.tokens = c.tokens = tokens;
    opd_err err = whole ? opd_message_link_send(ctx, s->link, OPD_MESSAGE_ROLLOUT, &r)
                        : opd_message_link_send(ctx, s->link, OPD_MESSAGE_CHUNK, &c);
    opd_buf_release(tokens.buf);
    return err;
}

static opd_err source_timer(opd_ctx *ctx, void *state, opd_timer *timer) {
    source *s = state;
    world *w = s->w;
    uint32_t to = w->chunk == 0 ? w->length : s->told + (s->told == 0 ? PROMPT : w->chunk);
    bool whole = to >= w->length;
    if (whole) to = w->length;
    for (int g = 0; g < w->samples; g++)
        OPD_TRY(send_tokens(ctx, s, (uint64_t)g, whole, whole ? 0 : s->told, to));
    s->told = to;
    return whole ? OPD_OK : opd_timer_start_after(timer, 5 * MS);
}

static opd_err source_start(opd_ctx *ctx, void *state, const void *config) {
    source *s = state;
    s->w = *(world *const *)config;
    opd_timer_init(&s->timer, ctx, source_timer);
    OPD_TRY(opd_link_open(ctx, s->w->roles.teacher, 4 * SAMPLES, 1 << 20, &s->link));
    return opd_timer_start_after(&s->timer, MS); /* presence first */
}

static const opd_actor_class source_class = {.name = "source", .state_size = sizeof(source),
                                             .on_start = source_start};

/* ---- the world ---- */

void panel_up(world *w, int samples, const char *opd, const char *a, const char *b, const char *c) {
    char text[1024];
    memset(w, 0, sizeof *w);
    int size = snprintf(text, sizeof text,
                        PANEL_HEAD "opd: {enabled: true, type: sglang%s}\nteachers:\n"
                        "  a: {url: \"http://h:1\"%s}\n  b: {url: \"http://h:2\"%s}\n"
                        "  c: {url: \"http://h:3\"%s}\n", opd, a, b, c);
    CHECK_OK(opd_config_load_text(NULL, "test", text, (size_t)size, NULL, &w->config));
    w->samples = samples;
    w->length = PROMPT + 20;
    sys_up(&w->t, NULL);
    CHECK_OK(opd_spawn(w->t.system, &batcher_class, NULL, &w, &w->roles.batcher));
    CHECK_OK(opd_spawn(w->t.system, &dataset_class, NULL, &w, &w->roles.dataset));
    CHECK_OK(opd_spawn(w->t.system, &monitor_class, NULL, &w, &w->roles.monitor));
}

void panel_start(world *w) {
    opd_pid pid;
    opd_panel_config config = {.roles = &w->roles, .stage = &w->config->stages[0],
                               .top_k = (uint32_t)w->config->stages[0].opd.log_prob_top_k,
                               .max_len = PROMPT + LONGEST, .samples_max = SAMPLES,
                               .window_msgs = 4, .window_bytes = 1 << 16, .alloc = &w->t.memory.alloc};
    CHECK_OK(opd_spawn(w->t.system, &opd_panel_class, NULL, &config, &w->roles.teacher));
    for (uint32_t i = 0; i < TEACHERS; i++)
        if (opd_config_teacher_used(config.stage, i))
            CHECK_OK(opd_spawn(w->t.system, &teacher_class, NULL, &(actor_config){w, i},
                               &w->roles.teachers[i]));
    CHECK_OK(opd_spawn(w->t.system, &source_class, NULL, &w, &pid));
}

void panel_run(world *w) {
    panel_start(w);
    CHECK_OK(opd_system_run(w->t.system));
    CHECK_INT(w->done, w->samples);
    for (int g = 0; g < w->samples; g++) CHECK_INT(w->got[g].times, 1);
}

void panel_down(world *w) {
    sys_down(&w->t);
    opd_config_destroy(w->config);
}
