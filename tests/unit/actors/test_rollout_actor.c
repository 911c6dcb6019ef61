/* test_rollout_actor.c - the rollout actor in a real system: groups to three slow receivers, chunks
 * of them to the teacher before, requests beside them, deadlines, more requests than places, and a stop in the middle. */
#include "actors/rollout/rollout_actor.h"

#include "actors/messages.h"
#include "actors/weights.h"
#include "core/base/check.h"
#include "tests/support/sys_test.h"
#include "tests/unit/actors/tiny.h"

enum { VOCAB = 61, GROUPS = 7, MEMBERS = 3, MAX_LEN = 32, ASKS_MAX = 12, RECEIVERS = 3 };

typedef struct world {
    opd_test_sys t;
    opd_roles roles;
    opd_model *model;
    opd_kernels *kernels;
    opd_slot *weights;
    opd_buf *weights_buf;
    opd_lane *lane;
    int rollouts_want, rollouts[RECEIVERS], asks, answers;
    bool stop_at_first;
    int fails; /* this receiver fails at its first message; 0: none */
    opd_buf *seen[GROUPS][MEMBERS]; /* of the tokens: the receivers share the bytes */
    uint32_t chunk_tokens, chunks;
    bool wide;          /* the receivers keep nothing */
    bool keep_chunks;   /* the teacher is slow with them, too */
    uint32_t prompts_max; /* 0: 2 */
    uint64_t void_end;  /* what the last prompt says */
    int aborted;        /* members, as the batcher got them */
    uint32_t late;      /* chunks with more than they had to have */
    struct {
        int32_t tokens[MAX_LEN];
        uint32_t told;
        bool over;
    } chunked[GROUPS][MEMBERS];
    struct {
        opd_generate_fields f;
        uint64_t timeout_ms;
        bool cancel;
        opd_err result;
        int32_t tokens[MAX_LEN];
        uint32_t count, finish;
    } ask[ASKS_MAX];
} world;

static world *w; /* of the running case */

static void maybe_over(opd_ctx *ctx) {
    bool over = w->answers == w->asks;
    for (int i = 0; i < RECEIVERS; i++) over = over && w->rollouts[i] == w->rollouts_want;
    if (w->fails > 0) over = !opd_alive(opd_self_system(ctx), w->roles.rollout);
    if (over || (w->stop_at_first && w->rollouts[0] > 0)) opd_system_stop(opd_self_system(ctx), OPD_OK);
}

/* ---- a receiver that keeps each message a while ---- */

typedef struct receiver {
    int number;
    opd_msg *kept;
    opd_timer timer;
} receiver;

static opd_err receiver_release(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    receiver *r = state;
    opd_msg_release(r->kept);
    r->kept = NULL;
    maybe_over(ctx);
    return OPD_OK;
}

static opd_err receiver_start(opd_ctx *ctx, void *state, const void *config) {
    receiver *r = state;
    r->number = *(const int *)config;
    opd_timer_init(&r->timer, ctx, receiver_release);
    return OPD_OK;
}

static void check_source(uint64_t group, const char *source) {
    char want[16];
    (void)snprintf(want, sizeof want, "kind %d", (int)group);
    CHECK_STR(source, want);
}

static void check_rollout(const opd_rollout_fields *f) {
    size_t length = f->tokens.size_bytes / sizeof(int32_t);
    CHECK(f->group < GROUPS && f->member < MEMBERS);
    CHECK_INT(f->prompt_len, 2 + f->group);
    bool aborted = f->finish == OPD_FINISH_ABORT;
    CHECK(length + aborted > f->prompt_len && length <= MAX_LEN);
    CHECK(!aborted || f->group < w->void_end);
    CHECK_INT(f->logp.size_bytes / sizeof(float), length - f->prompt_len);
    const uint64_t *spans = opd_slice_data(f->spans);
    CHECK(aborted || f->spans.size_bytes > 0);
    if (f->spans.size_bytes > 0) CHECK(spans[0] == 1 && spans[1] == 0);
    CHECK(memcmp(opd_slice_data(f->label), "label", 5) == 0);
    check_source(f->group, f->source);
}

static opd_err keep(opd_ctx *ctx, receiver *r, opd_msg *msg) {
    CHECK(r->kept == NULL); /* a window of one */
    r->kept = msg;
    opd_msg_take(ctx, msg);
    return opd_timer_start_after(&r->timer, (uint64_t)(r->number + 1) * 100000);
}

static void check_chunk(const opd_chunk_fields *f) {
    uint32_t n = (uint32_t)(f->tokens.size_bytes / sizeof(int32_t)), end = f->offset + n;
    CHECK(f->group < GROUPS && f->member < MEMBERS && n > 0 && end <= MAX_LEN);
    CHECK_INT(f->prompt_len, 2 + f->group);
    CHECK_INT(f->epoch, 1);
    check_source(f->group, f->source);
    uint32_t *told = &w->chunked[f->group][f->member].told;
    CHECK(!w->chunked[f->group][f->member].over); /* its rollout comes last */
    CHECK_INT(f->offset, *told);                  /* no gap, nothing twice  */
    bool warm = f->offset == 0 && f->member == 0; /* may be the prompt alone */
    uint32_t fresh = f->offset == 0 ? end - f->prompt_len : n;
    uint32_t least = warm ? 0 : w->chunk_tokens;
    CHECK(end >= f->prompt_len && fresh >= least);
    w->late += fresh > least;
    memcpy(w->chunked[f->group][f->member].tokens + f->offset, opd_slice_data(f->tokens), n * 4);
    *told = end;
    w->chunks++;
}

static void check_told(const opd_rollout_fields *f) {
    uint32_t told = w->chunked[f->group][f->member].told;
    CHECK(told <= f->tokens.size_bytes / 4);
    CHECK(memcmp(w->chunked[f->group][f->member].tokens, opd_slice_data(f->tokens), told * 4) == 0);
    w->chunked[f->group][f->member].over = true;
}

static opd_err receiver_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    receiver *r = state;
    opd_rollout_fields f;
    opd_chunk_fields chunk;
    if (r->number == 2 && w->chunk_tokens > 0 && opd_msg_kind(msg) == OPD_MESSAGE_CHUNK) {
        CHECK_OK(opd_message_read(msg, OPD_MESSAGE_CHUNK, &chunk));
        check_chunk(&chunk);
        return w->keep_chunks ? keep(ctx, r, msg) : OPD_OK;
    }
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &f));
    check_rollout(&f);
    opd_buf **seen = &w->seen[f.group][f.member];
    CHECK(*seen == NULL || opd_buf_data(*seen) == opd_buf_data(f.tokens.buf)); /* not copied */
    if (*seen == NULL) *seen = opd_buf_retain(f.tokens.buf);
    w->rollouts[r->number]++;
    w->aborted += r->number == 0 && f.finish == OPD_FINISH_ABORT;
    if (r->number == 2) check_told(&f);
    if (r->number == w->fails && r->number > 0) return opd_fail(OPD_ERR_REMOTE, "on purpose");
    if (w->wide) { /* no credit is short */
        maybe_over(ctx);
        return OPD_OK;
    }
    return keep(ctx, r, msg);
}

static void receiver_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_msg_release(((receiver *)state)->kept);
}

static const opd_actor_class receiver_class = {
    .name = "receiver", .state_size = sizeof(receiver), .on_start = receiver_start,
    .on_message = receiver_message, .on_stop = receiver_stop};

/* ---- the source of prompts ---- */

typedef struct source {
    opd_link *link;
    uint64_t next;
} source;

static opd_err source_pump(opd_ctx *ctx, source *s) {
    while (s->next < GROUPS) {
        int32_t ids[16];
        opd_prompt_fields f = {.group = s->next, .epoch = 1, .place = s->next,
                               .void_end = s->next + 1 == GROUPS ? w->void_end : 0};
        for (int32_t i = 0; i < 16; i++) ids[i] = (i * 7 + (int32_t)s->next * 3 + 5) % VOCAB;
        CHECK_OK(opd_slice_copy(NULL, ids, (2 + s->next) * sizeof *ids, &f.tokens));
        CHECK_OK(opd_slice_copy(NULL, "label", 5, &f.label));
        (void)snprintf(f.source, sizeof f.source, "kind %d", (int)s->next);
        opd_err err = opd_message_link_send(ctx, s->link, OPD_MESSAGE_PROMPT, &f);
        opd_buf_release(f.tokens.buf);
        opd_buf_release(f.label.buf);
        if (err == OPD_ERR_AGAIN) return OPD_OK;
        OPD_TRY(err);
        s->next++;
    }
    return OPD_OK;
}

static opd_err source_start(opd_ctx *ctx, void *state, const void *config) {
    source *s = state;
    OPD_TRY(opd_link_open(ctx, w->roles.rollout, *(const uint32_t *)config, 1 << 16, &s->link));
    return source_pump(ctx, s);
}

static opd_err source_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    return signal->kind == OPD_SIGNAL_CREDIT ? source_pump(ctx, state) : OPD_OK;
}

static const opd_actor_class source_class = {.name = "dataset", .state_size = sizeof(source),
                                             .on_start = source_start, .on_signal = source_signal};

/* ---- the asker ---- */

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)state;
    size_t i = (size_t)(uintptr_t)arg;
    opd_generated_fields f;
    w->ask[i].result = err;
    if (err == OPD_OK) {
        CHECK_OK(opd_message_read(reply, OPD_MESSAGE_GENERATED, &f));
        w->ask[i].count = (uint32_t)(f.tokens.size_bytes / sizeof(int32_t));
        w->ask[i].finish = f.finish;
        CHECK_INT(f.logp.size_bytes / sizeof(float), w->ask[i].count);
        memcpy(w->ask[i].tokens, opd_slice_data(f.tokens), f.tokens.size_bytes);
    }
    w->answers++;
    maybe_over(ctx);
    return OPD_OK;
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    (void)config;
    for (int i = 0; i < w->asks; i++) {
        int32_t ids[] = {1, 9, 30};
        opd_generate_fields f = w->ask[i].f;
        CHECK_OK(opd_slice_copy(NULL, ids, sizeof ids, &f.tokens));
        uint64_t id;
        CHECK_OK(opd_message_request(ctx, w->roles.rollout, OPD_MESSAGE_GENERATE, &f,
                                     opd_deadline_in(ctx, w->ask[i].timeout_ms), answered,
                                     (void *)(uintptr_t)i, &id));
        opd_buf_release(f.tokens.buf);
        if (w->ask[i].cancel) opd_request_cancel(ctx, id);
    }
    return OPD_OK;
}

static const opd_actor_class asker_class = {.name = "asker", .on_start = asker_start};

/* ---- the cases ---- */

static void world_up(world *world_) {
    w = world_;
    memset(w, 0, sizeof *w);
    sys_up(&w->t, NULL);
    w->model = tiny_model(VOCAB, 2, 5);
    w->kernels = tiny_kernels(1);
    CHECK_OK(opd_slot_create(w->t.system, &w->weights));
    CHECK_OK(opd_weights_buf(w->model, NULL, &w->weights_buf));
    opd_slot_put(w->weights, w->weights_buf, 1);
    CHECK_OK(opd_lane_open(w->t.system, "rollout", 2, &w->lane));
}

static opd_generate_fields generate(uint32_t max_new, uint64_t group) {
    return (opd_generate_fields){.max_new = max_new, .temperature = 1, .top_p = 1, .seed = 3,
                                 .group = group};
}

static void world_run(uint32_t window_msgs, uint32_t requests_max, bool prompts) {
    opd_pid *receivers[RECEIVERS] = {&w->roles.batcher, &w->roles.reward, &w->roles.teacher}, pid;
    for (int i = 0; i < RECEIVERS; i++)
        CHECK_OK(opd_spawn(w->t.system, &receiver_class, NULL, &i, receivers[i]));
    opd_rollout_config config = {
        .model = &w->model->config, .kernels = w->kernels, .lane = w->lane, .weights = w->weights,
        .roles = &w->roles, .slots = 4, .max_len = MAX_LEN,
        .prompts_max = w->prompts_max > 0 ? w->prompts_max : 2,
        .requests_max = requests_max, .samples_per_prompt = MEMBERS, .max_new = 9,
        .sampling = {.temperature = 1, .top_p = 1}, .seed = 8, .teacher = true,
        .chunk_tokens = w->chunk_tokens,
        .window_msgs = window_msgs, .window_bytes = 1 << 16, .alloc = &w->t.memory.alloc};
    uint32_t window = config.prompts_max;
    w->rollouts_want = prompts ? GROUPS * MEMBERS : 0;
    CHECK_OK(opd_spawn(w->t.system, &opd_rollout_class, NULL, &config, &w->roles.rollout));
    if (prompts) CHECK_OK(opd_spawn(w->t.system, &source_class, NULL, &window, &pid));
    if (w->asks > 0) CHECK_OK(opd_spawn(w->t.system, &asker_class, NULL, NULL, &pid));
    CHECK_OK(opd_system_run(w->t.system));
}

static void world_down(void) {
    opd_slot_destroy(w->weights);
    for (int i = 0; i < GROUPS * MEMBERS; i++) opd_buf_release(w->seen[i / MEMBERS][i % MEMBERS]);
    sys_down(&w->t);
    opd_buf_release(w->weights_buf);
    opd_kernels_destroy(w->kernels);
    opd_model_destroy(w->model);
}

TEST(every_member_reaches_every_receiver_once_through_tiny_windows) {
    world world_;
    world_up(&world_);
    world_run(1, 1, true);
    for (int i = 0; i < RECEIVERS; i++) CHECK_INT(w->rollouts[i], GROUPS * MEMBERS);
    for (int g = 0; g < GROUPS; g++)
        for (int m = 0; m < MEMBERS; m++) CHECK(w->seen[g][m] != NULL);
    world_down();
}

/* Aborted in the middle of their answers, or before: each of their members still leaves once, to all. */
TEST(groups_that_nobody_wants_any_more_are_aborted) {
    for (uint32_t window_msgs = 1; window_msgs < 64; window_msgs *= 8) {
        world world_;
        world_up(&world_);
        w->void_end = 5, w->prompts_max = GROUPS;
        w->wide = window_msgs > 1;
        w->chunk_tokens = w->wide ? 2 : 0;
        world_run(window_msgs, 1, true);
        for (int i = 0; i < RECEIVERS; i++) CHECK_INT(w->rollouts[i], GROUPS * MEMBERS);
        CHECK(w->aborted > 0 && w->aborted <= 5 * MEMBERS);
        world_down();
    }
}

/* With credit for all: the prompt when the group starts, then each time enough tokens are there. */
TEST(chunks_tell_the_teacher_how_far_a_sample_is) {
    world world_;
    world_up(&world_);
    w->chunk_tokens = 3, w->wide = true;
    world_run(64, 1, true);
    CHECK_INT(w->late, 0);
    uint32_t longest = 0;
    for (int g = 0; g < GROUPS; g++) {
        CHECK(w->chunked[g][0].told >= 2 + (uint32_t)g);
        for (int m = 0; m < MEMBERS; m++) {
            uint32_t told = w->chunked[g][m].told, prompt = 2 + (uint32_t)g;
            size_t length = opd_buf_size(w->seen[g][m]) / sizeof(int32_t);
            if (told > 0) CHECK_INT((told - prompt) % 3, 0);
            CHECK(length - (told > 0 ? told : prompt) <= 3); /* no more than a chunk is untold */
            longest = told - prompt > longest && told > 0 ? told - prompt : longest;
        }
    }
    CHECK(longest >= 6); /* several chunks of a sample */
    world_down();
}

TEST(chunks_without_credit_are_left_out_and_made_up_for) {
    world world_;
    world_up(&world_);
    w->chunk_tokens = 1, w->keep_chunks = true;
    w->asks = 3; /* these are nobody's to score */
    for (uint64_t i = 0; i < 3; i++) w->ask[i].f = generate(8, i);
    world_run(1, 2, true);
    CHECK(w->chunks > 0 && w->late > 0);
    for (int i = 0; i < RECEIVERS; i++) CHECK_INT(w->rollouts[i], GROUPS * MEMBERS);
    world_down();
}

TEST(requests_are_answered_beside_the_prompts) {
    world world_;
    world_up(&world_);
    w->asks = ASKS_MAX;
    for (uint64_t i = 0; i < ASKS_MAX; i++) w->ask[i].f = generate(8, i % 4);
    world_run(1, 2, true); /* twelve requests, two places */
    for (int i = 0; i < ASKS_MAX; i++) {
        CHECK_INT(w->ask[i].result, OPD_OK);
        CHECK(w->ask[i].count > 0 && w->ask[i].count <= 8);
        CHECK_INT(w->ask[i].count, w->ask[i % 4].count); /* the same key, the same answer */
        CHECK(memcmp(w->ask[i].tokens, w->ask[i % 4].tokens, w->ask[i].count * 4) == 0);
    }
    world_down();
}

TEST(bad_requests_are_answered_with_the_reason) {
    world world_;
    world_up(&world_);
    w->asks = 5;
    for (uint64_t i = 0; i < 5; i++) w->ask[i].f = generate(8, i);
    w->ask[0].f.max_new = 0;
    w->ask[1].f.top_p = 0;
    w->ask[2].f.temperature = NAN;
    w->ask[3].f.top_k = UINT32_MAX;
    world_run(1, 2, false);
    for (int i = 0; i < 4; i++) CHECK_INT(w->ask[i].result, OPD_ERR_INVALID);
    CHECK_INT(w->ask[4].result, OPD_OK);
    world_down();
}

/* The first request can never start, and takes the only place until its deadline. */
TEST(an_expired_request_makes_room_for_those_behind_it) {
    world world_;
    world_up(&world_);
    w->asks = 3;
    for (uint64_t i = 0; i < 3; i++) w->ask[i].f = generate(8, i);
    w->ask[0].f.min_version = 99;
    w->ask[0].timeout_ms = 40;
    w->ask[1].timeout_ms = 40; /* expires while it waits */
    world_run(1, 1, false);
    CHECK_INT(w->ask[0].result, OPD_ERR_TIMEOUT);
    CHECK_INT(w->ask[1].result, OPD_ERR_TIMEOUT);
    CHECK_INT(w->ask[2].result, OPD_OK);
    world_down();
}

/* The same without a deadline: its asker took it back. */
TEST(a_cancelled_request_makes_room_for_those_behind_it) {
    world world_;
    world_up(&world_);
    w->asks = 3;
    for (uint64_t i = 0; i < 3; i++) w->ask[i].f = generate(8, i);
    w->ask[0].f.min_version = w->ask[1].f.min_version = 99;
    w->ask[0].cancel = w->ask[1].cancel = true;
    world_run(1, 1, false);
    CHECK_INT(w->ask[0].result, OPD_ERR_CANCELLED);
    CHECK_INT(w->ask[1].result, OPD_ERR_CANCELLED);
    CHECK_INT(w->ask[2].result, OPD_OK);
    world_down();
}

TEST(a_stop_in_the_middle_drops_everything) {
    world world_;
    world_up(&world_);
    w->stop_at_first = true;
    w->asks = ASKS_MAX;
    for (uint64_t i = 0; i < ASKS_MAX; i++) w->ask[i].f = generate(30, i);
    world_run(1, 2, true);
    CHECK(w->rollouts[0] < GROUPS * MEMBERS);
    world_down();
}

/* A send to one receiver succeeds and the next one fails: what was sent is not ours any more (it
 * was released once too often). */
TEST(a_receiver_that_fails_ends_it_and_nothing_is_released_twice) {
    world world_;
    world_up(&world_);
    w->fails = 1; /* between the two others */
    world_run(1, 1, true);
    CHECK(!opd_alive(w->t.system, w->roles.rollout));
    CHECK(w->rollouts[0] > 0 && w->rollouts[0] < GROUPS * MEMBERS);
    world_down();
}
