/* test_panel.c - the panel among teachers that play a part: who is asked for what, who instead of one
 * that fails, and exactly one SCORES for each ROLLOUT, right at every token that is valid. */
#include "actors/panel/panel_actor.h"

#include "actors/messages.h"
#include "actors/metrics.h"
#include "core/base/check.h"
#include "tests/support/sys_test.h"

enum { TEACHERS = 3, SAMPLES = 32, PROMPT = 4, LONGEST = 40, ASKS = 512, MS = 1000000 };

/* What a teacher does with a question. */
typedef enum part {
    SCORE,       /* the right scores, after a while              */
    AWAY,        /* nobody can be reached: CLOSED, or it waits   */
    REFUSE,      /* no score, and a reason                       */
    FULL_ONCE,   /* AGAIN the first time, then SCORE             */
    HANG,        /* nothing until the question's deadline        */
    TOO_LATE,    /* as AWAY, and not ready in time at the start  */
    SHORT        /* a score too few                              */
} part;

typedef struct asked {
    uint32_t teacher, from, to;
    bool wait, alive;
    uint64_t affinity, at_ns, for_ns; /* for_ns: until its deadline */
} asked;

typedef struct got {
    int times;
    uint32_t rows, degraded, attempts;
    size_t teachers;
    uint8_t places[TEACHERS];
    double weights[TEACHERS];
    float logp[TEACHERS * LONGEST];
    uint8_t valid[TEACHERS * LONGEST];
    char teacher[OPD_MESSAGE_TEXT_SIZE], reason[OPD_MESSAGE_TEXT_SIZE];
} got;

typedef struct world {
    opd_test_sys t;
    opd_roles roles;
    opd_config *config;
    part parts[TEACHERS];
    uint64_t delay_ns[TEACHERS];
    /* what the source sends */
    int samples;
    uint32_t length;       /* of a sample              */
    uint32_t chunk;        /* of a CHUNK; 0: none      */
    const char *sources[SAMPLES];
    /* what was seen */
    asked asks[ASKS];
    int ask_count, under_way, under_way_max;
    got got[SAMPLES];
    int done, holds, releases;
    double unserved;
    char notes[1024];
} world;

static int32_t token(uint64_t group, uint32_t i) { return (int32_t)(group * 50 + i); }

static float score(uint32_t place, int32_t id) { return -(float)(id + 1) / 64 - (float)place * 1000; }

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
    for (uint32_t i = 0; i < rows; i++) logp[i] = score(a->place, ids[ask.start + 1 + i]);
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
    for (uint32_t i = from; i < to; i++) ids[i - from] = token(group, i);
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

#define HEAD "model: {path: m}\ndata: {path: d}\ntrain: {steps: 1}\nreward: {type: math}\n" \
             "rollout: {samples_per_prompt: 2}\n"

/* opd: keys of opd beside the usual; a, b, c: keys of the teachers. */
static void up(world *w, int samples, const char *opd, const char *a, const char *b, const char *c) {
    char text[1024];
    memset(w, 0, sizeof *w);
    int size = snprintf(text, sizeof text,
                        HEAD "opd: {enabled: true, type: sglang%s}\nteachers:\n"
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

static void start(world *w) {
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

static void run(world *w) {
    start(w);
    CHECK_OK(opd_system_run(w->t.system));
    CHECK_INT(w->done, w->samples);
    for (int g = 0; g < w->samples; g++) CHECK_INT(w->got[g].times, 1);
}

static void down(world *w) {
    sys_down(&w->t);
    opd_config_destroy(w->config);
}

/* Row `slot` of a sample has the scores of the teacher at `place` everywhere. */
static void check_slot(const world *w, int group, uint32_t slot, uint32_t place) {
    uint32_t rows = w->length - PROMPT;
    const got *g = &w->got[group];
    CHECK(g->rows >= (slot + 1) * rows);
    for (uint32_t i = 0; i < rows; i++) {
        CHECK_INT(g->valid[slot * rows + i], 1);
        CHECK(g->logp[slot * rows + i] == score(place, token((uint64_t)group, PROMPT + i)));
    }
}

static int asks_of(const world *w, uint32_t teacher) {
    int count = 0;
    for (int i = 0; i < w->ask_count; i++) count += w->asks[i].teacher == teacher;
    return count;
}

TEST(one_teacher_scores_all) {
    static world w;
    up(&w, SAMPLES, ", teacher: b", "", "", "");
    run(&w);
    CHECK_INT(w.ask_count, SAMPLES);
    for (int g = 0; g < SAMPLES; g++) check_slot(&w, g, 0, 1);
    for (int i = 0; i < w.ask_count; i++) {
        CHECK(w.asks[i].wait && w.asks[i].affinity != 0);
        CHECK(w.asks[i].from == PROMPT && w.asks[i].to == w.length);
    }
    CHECK_INT(w.holds, 0);
    CHECK_INT(w.got[0].degraded, 0);
    down(&w);
}

TEST(samples_go_where_their_source_says) {
    static world w;
    up(&w, 7, ", teacher: c, teacher_key: k", ", serves: [math, logic]", ", serves: code", "");
    w.sources[0] = "math";
    w.sources[1] = "code";
    w.sources[2] = "logic";
    w.sources[3] = "poems";
    w.sources[4] = "c";
    w.sources[6] = "songs";
    run(&w);
    static const uint32_t places[] = {0, 1, 0, 2, 2, 2, 2};
    CHECK(w.unserved == 2);
    for (int g = 0; g < 7; g++) {
        check_slot(&w, g, 0, places[g]);
        CHECK_INT(w.got[g].places[0], places[g]);
    }
    CHECK_CONTAINS(w.notes, "no teacher serves 'poems'");
    CHECK_INT(w.got[3].degraded, 0);
    down(&w);
}

TEST(several_teachers_score_one_sample) {
    static world w;
    up(&w, 5, ", teacher: [c, a]", ", weight: 0.25", "", ", weight: 3");
    run(&w);
    for (int g = 0; g < 5; g++) {
        check_slot(&w, g, 0, 2);
        check_slot(&w, g, 1, 0);
        CHECK_INT(w.got[g].teachers, 2);
        CHECK(w.got[g].places[0] == 2 && w.got[g].places[1] == 0);
        CHECK(w.got[g].weights[0] == 3 && w.got[g].weights[1] == 0.25);
        CHECK_STR(w.got[g].teacher, "c, a");
    }
    down(&w);
}

TEST(the_fallback_is_asked_at_once) {
    static world w;
    up(&w, 8, ", teacher: a", ", fallback: b", ", fallback: c", "");
    w.parts[0] = AWAY;
    w.parts[1] = REFUSE;
    run(&w);
    for (int g = 0; g < 8; g++) {
        check_slot(&w, g, 0, 2);
        CHECK_INT(w.got[g].degraded, w.length - PROMPT);
        CHECK_INT(w.got[g].places[0], 2);
        CHECK_STR(w.got[g].teacher, "c");
    }
    for (int i = 0; i < w.ask_count; i++) CHECK(!w.asks[i].wait);
    CHECK_INT(w.holds, 0); /* b answers, though it says nothing useful */
    down(&w);
}

TEST(nobody_scores_it_and_it_is_masked) {
    static world w;
    up(&w, 4, ", teacher: a", ", fallback: b", "", "");
    w.parts[0] = REFUSE;
    w.parts[1] = SHORT;
    run(&w);
    for (int g = 0; g < 4; g++) {
        CHECK_INT(w.got[g].rows, 0);
        CHECK_CONTAINS(w.got[g].reason, "scores for 20 tokens");
        CHECK_INT(w.got[g].attempts, 3);
    }
    CHECK_INT(asks_of(&w, 0), 4); /* who answered is not asked again */
    down(&w);
}

/* Of two that score together one fails: the other one's scores stand. */
TEST(a_slot_that_fails_leaves_the_other) {
    static world w;
    up(&w, 4, ", teacher: [a, b]", "", "", "");
    w.parts[1] = REFUSE;
    run(&w);
    for (int g = 0; g < 4; g++) {
        check_slot(&w, g, 0, 0);
        for (uint32_t i = 0; i < 20; i++) CHECK_INT(w.got[g].valid[20 + i], 0);
        CHECK_INT(w.got[g].degraded, 20);
    }
    down(&w);
}

/* A teacher that hangs has half of the time that is left; the last one has all of it. */
TEST(who_hangs_leaves_time_for_the_next) {
    static world w;
    up(&w, 4, ", teacher: a", ", timeout_s: 4, deadline_s: 4, fallback: b", ", fallback: c", "");
    w.parts[0] = w.parts[1] = HANG;
    run(&w);
    CHECK_INT(w.ask_count, 12);
    for (int g = 0; g < 4; g++) check_slot(&w, g, 0, 2);
    for (int i = 0; i < w.ask_count; i++) {
        static const uint64_t shares_ms[] = {2000, 1000, 1000};
        CHECK(w.asks[i].for_ns <= shares_ms[w.asks[i].teacher] * MS);
    }
    down(&w);
}

/* A chunk that hangs takes no more of its sample's time than an attempt may. */
TEST(a_chunk_that_hangs_is_asked_again_with_all_the_time) {
    static world w;
    up(&w, 3, ", teacher: a", ", chunk_tokens: 4, timeout_s: 0.1, deadline_s: 0.4", "", "");
    w.chunk = 5;
    w.parts[0] = HANG;
    run(&w);
    int again = 0;
    for (int i = 0; i < w.ask_count; i++) {
        again += w.asks[i].wait && w.asks[i].from == PROMPT && w.asks[i].for_ns > 100 * MS;
        CHECK(w.asks[i].for_ns <= (w.asks[i].wait ? 400 : 100) * MS);
    }
    CHECK_INT(again, 3);
    for (int g = 0; g < 3; g++) CHECK_INT(w.got[g].rows, 0);
    down(&w);
}

/* ---- away, and back ---- */

typedef struct herald {
    world *w;
    uint32_t place;
    opd_timer timer;
} herald;

static opd_err herald_fires(opd_ctx *ctx, void *state, opd_timer *timer) {
    herald *h = state;
    opd_note_fields f = {.level = 0};
    (void)timer;
    CHECK_INT(h->w->done, 0);
    return opd_message_send(ctx, h->w->roles.teachers[h->place], OPD_MESSAGE_NOTE, &f);
}

static opd_err herald_start(opd_ctx *ctx, void *state, const void *config) {
    herald *h = state;
    *h = *(const herald *)config;
    opd_timer_init(&h->timer, ctx, herald_fires);
    return opd_timer_start_after(&h->timer, 300 * MS); /* all else is long done, on a busy machine too */
}

static const opd_actor_class herald_class = {.name = "herald", .state_size = sizeof(herald),
                                             .on_start = herald_start};

TEST(while_all_are_away_the_first_is_waited_for) {
    static world w;
    opd_pid pid;
    up(&w, 4, ", teacher: a", ", fallback: b", ", fallback: a", "");
    w.parts[0] = w.parts[1] = AWAY;
    CHECK_OK(opd_spawn(w.t.system, &herald_class, NULL, &(herald){.w = &w, .place = 0}, &pid));
    run(&w);
    for (int g = 0; g < 4; g++) check_slot(&w, g, 0, 0);
    CHECK_INT(w.ask_count, 12);
    for (int i = 0; i < w.ask_count; i++) CHECK(w.asks[i].wait == (i >= 8));
    CHECK(w.holds == 1 && w.releases == 1);
    CHECK_INT(w.got[0].degraded, 0);
    down(&w);
}

/* It is not wanted before the first sample that is its own: the dataset hears of it then. */
TEST(who_is_wanted_later_pauses_admission_then) {
    static world w;
    opd_pid pid;
    up(&w, 1, ", teacher: a, teacher_key: k", "", "", "");
    w.parts[1] = AWAY;
    w.sources[0] = "b";
    CHECK_OK(opd_spawn(w.t.system, &herald_class, NULL, &(herald){.w = &w, .place = 1}, &pid));
    run(&w);
    check_slot(&w, 0, 0, 1);
    CHECK(w.holds == 1 && w.releases == 1);
    down(&w);
}

TEST(all_too_late_at_the_start_stops_the_run) {
    static world w;
    up(&w, 4, ", teacher: a", ", fallback: b", ", fallback: c", "");
    w.parts[0] = w.parts[1] = w.parts[2] = TOO_LATE;
    start(&w);
    CHECK_ERR(opd_system_run(w.t.system), OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(opd_err_context(), "teacher a was not ready in time, and neither was anybody who is asked "
                                      "instead of it");
    CHECK_INT(w.done, 0);
    down(&w);
}

/* One of them in time is enough. */
TEST(one_too_late_at_the_start_is_replaced) {
    static world w;
    up(&w, 4, ", teacher: a", ", fallback: b", ", fallback: c", "");
    w.parts[0] = w.parts[2] = TOO_LATE;
    run(&w);
    for (int g = 0; g < 4; g++) check_slot(&w, g, 0, 1);
    CHECK_INT(w.holds, 0);
    down(&w);
}

/* ---- room ---- */

TEST(a_full_teacher_is_asked_again) {
    static world w;
    up(&w, 6, ", teacher: a", "", "", "");
    w.parts[0] = FULL_ONCE;
    run(&w);
    for (int g = 0; g < 6; g++) check_slot(&w, g, 0, 0);
    CHECK_INT(w.ask_count, 6);
    CHECK_INT(w.got[0].attempts, 1);
    down(&w);
}

TEST(all_together_have_a_bound) {
    static world w;
    up(&w, SAMPLES, ", teacher: [a, b], teacher_inflight_max: 6", "", "", "");
    w.delay_ns[0] = w.delay_ns[1] = 2 * MS;
    run(&w);
    CHECK(w.under_way_max <= 6 && w.under_way_max >= 5);
    for (int g = 0; g < SAMPLES; g++) {
        check_slot(&w, g, 0, 0);
        check_slot(&w, g, 1, 1);
    }
    down(&w);
}

/* One that hangs does not take what the other needs. */
TEST(a_teacher_that_hangs_leaves_room_for_the_other) {
    static world w;
    up(&w, 12, ", teacher: a, teacher_key: k, teacher_inflight_max: 3", "", "", "");
    for (int g = 0; g < 12; g++) w.sources[g] = g < 11 ? "a" : "b";
    w.delay_ns[0] = 100 * MS;
    run(&w);
    int last_b = 0;
    for (int i = 0; i < w.ask_count; i++)
        if (w.asks[i].teacher == 1) last_b = i;
    CHECK(last_b < 3);
    down(&w);
}

/* Nor without a bound over all: each may always be asked its own max_inflight. */
TEST(without_a_bound_of_all_each_has_its_own) {
    static world w;
    up(&w, SAMPLES, ", teacher: a, teacher_key: k", ", max_inflight: 4", ", max_inflight: 4084",
       ", max_inflight: 1");
    for (int g = 0; g < SAMPLES; g++) w.sources[g] = g < SAMPLES - 1 ? "a" : "b";
    w.delay_ns[0] = 100 * MS;
    run(&w);
    int first_b = 0;
    while (w.asks[first_b].teacher != 1) first_b++;
    CHECK_INT(first_b, OPD_PANEL_REQUESTS_MAX - 4084 - 1);
    down(&w);
}

/* ---- while the student writes ---- */

/* Every token of a sample was asked for exactly once, of one teacher. */
static void check_cover(const world *w, int samples) {
    uint32_t asked_for = 0;
    for (int i = 0; i < w->ask_count; i++)
        if (w->asks[i].from >= PROMPT) asked_for += w->asks[i].to - w->asks[i].from;
    CHECK_INT(asked_for, (uint32_t)samples * (w->length - PROMPT));
}

TEST(chunks_are_scored_while_more_is_written) {
    static world w;
    up(&w, 6, ", teacher: a", ", chunk_tokens: 4", "", "");
    w.chunk = 5;
    run(&w);
    for (int g = 0; g < 6; g++) check_slot(&w, g, 0, 0);
    check_cover(&w, 6);
    int early = 0, prompts = 0, last = 0;
    for (int i = 0; i < w.ask_count; i++) {
        early += w.asks[i].from >= PROMPT && w.asks[i].to < w.length;
        prompts += w.asks[i].to == PROMPT;
        last += w.asks[i].to == w.length;
        if (w.asks[i].to < w.length) CHECK(!w.asks[i].wait);
    }
    CHECK_INT(prompts, 6); /* the source tells each sample's prompt by itself */
    CHECK_INT(early, 18);
    CHECK_INT(last, 6);
    CHECK_INT(w.got[0].attempts, 4); /* warm-ups are nobody's */
    down(&w);
}

/* The answer to a chunk takes longer than the student: the rest is asked for beside it. */
TEST(a_slow_chunk_does_not_keep_the_rest_waiting) {
    static world w;
    up(&w, 3, ", teacher: a", ", chunk_tokens: 4", "", "");
    w.chunk = 5;
    w.delay_ns[0] = 60 * MS;
    run(&w);
    for (int g = 0; g < 3; g++) check_slot(&w, g, 0, 0);
    check_cover(&w, 3);
    CHECK_INT(w.got[0].attempts, 2);
    down(&w);
}

TEST(a_chunk_without_a_score_is_asked_again_in_the_end) {
    static world w;
    up(&w, 3, ", teacher: a", ", chunk_tokens: 4, fallback: b", "", "");
    w.chunk = 5;
    w.parts[0] = REFUSE;
    run(&w);
    for (int g = 0; g < 3; g++) {
        check_slot(&w, g, 0, 1);
        CHECK_INT(w.got[g].degraded, 20);
    }
    for (int i = 0; i < w.ask_count; i++) /* the fallback is asked for whole samples only */
        if (w.asks[i].teacher == 1) CHECK(w.asks[i].from == PROMPT && w.asks[i].to == w.length);
    down(&w);
}

TEST(two_teachers_and_chunks) {
    static world w;
    up(&w, 5, ", teacher: [a, b]", ", chunk_tokens: 6", ", chunk_tokens: 0", "");
    w.chunk = 3;
    w.delay_ns[0] = 7 * MS;
    run(&w);
    for (int g = 0; g < 5; g++) {
        check_slot(&w, g, 0, 0);
        check_slot(&w, g, 1, 1);
    }
    CHECK_INT(asks_of(&w, 1), 5);
    down(&w);
}

TEST(what_the_rollout_is_told_to_send) {
    opd_config *config;
    const char *text = HEAD "opd: {enabled: true, type: sglang, teacher: [a, b]}\nteachers:\n"
                            "  a: {url: \"http://h:1\", chunk_tokens: 64}\n"
                            "  b: {url: \"http://h:2\", chunk_tokens: 32}\n"
                            "  c: {url: \"http://h:3\", chunk_tokens: 8}\n";
    CHECK_OK(opd_config_load_text(NULL, "test", text, strlen(text), NULL, &config));
    const opd_config_stage *s = &config->stages[0];
    CHECK_INT(opd_stage_chunk_tokens(s), 32); /* c is not asked */
    CHECK_INT(opd_teacher_chunk_tokens(&s->teachers[0], false), 64);
    opd_config_teacher t = {.chunk_tokens = -1};
    CHECK_INT(opd_teacher_chunk_tokens(&t, false), 0);
    CHECK_INT(opd_teacher_chunk_tokens(&t, true), OPD_PANEL_CHUNK_TOKENS);
    t.protocol = OPD_CONFIG_PROTOCOL_VLLM;
    CHECK_INT(opd_teacher_chunk_tokens(&t, true), 0);
    opd_config_destroy(config);
    /* a server may keep prefixes; of the teacher in this process it is known */
    const char *own = HEAD "opd: {enabled: true, type: sglang}\nteachers: {a: {path: /tmp}}\n";
    CHECK_OK(opd_config_load_text(NULL, "test", own, strlen(own), NULL, &config));
    CHECK_INT(opd_stage_chunk_tokens(&config->stages[0]), OPD_PANEL_CHUNK_TOKENS);
    config->stages[0].opd.type = OPD_CONFIG_OPD_TYPE_MEGATRON;
    CHECK_INT(opd_stage_chunk_tokens(&config->stages[0]), OPD_PANEL_CHUNK_TOKENS);
    config->stages[0].device.teacher_cache_mb = 0;
    CHECK_INT(opd_stage_chunk_tokens(&config->stages[0]), 0);
    opd_config_destroy(config);
}

/* Short prompts are computed with the first answer. */
TEST(a_short_prompt_is_not_asked_for_by_itself) {
    static world w;
    up(&w, 6, ", teacher: a", ", chunk_tokens: 5", "", "");
    w.chunk = 5;
    run(&w);
    for (int i = 0; i < w.ask_count; i++) CHECK(w.asks[i].to > PROMPT);
    for (int g = 0; g < 6; g++) check_slot(&w, g, 0, 0);
    check_cover(&w, 6);
    down(&w);
}
