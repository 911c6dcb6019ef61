/* test_join.c - parts that arrive in any order leave as whole groups in the order of the data
 * set, in the join itself and through the batcher actor with a narrow window to the trainer. */
#include "actors/batcher/join.h"

#include "actors/batcher/batcher_actor.h"
#include "actors/messages.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/script_actor.h"

enum { GROUPS = 40, MEMBERS = 3, PARTS = 3, WINDOW = 5, FIRST = 17 };

/* Item of a part: its own number, never NULL. */
static void *item_of(uint64_t group, uint32_t member, uint32_t part) {
    return (void *)(uintptr_t)(1 + (group * MEMBERS + member) * PARTS + part);
}

/* Puts the parts of all groups of [from, end) in a random order that stays in the window. */
static void shuffle(opd_rng *rng, uint32_t *order, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)opd_rng_below(rng, i), swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

static uint64_t take_all(opd_join *join, uint64_t expected) {
    void *items[MEMBERS * PARTS];
    uint64_t group;
    while (opd_join_next(join, &group, items)) {
        CHECK_INT(group, expected);
        for (uint32_t i = 0; i < MEMBERS * PARTS; i++)
            CHECK(items[i] == item_of(group, i / PARTS, i % PARTS));
        expected++;
    }
    return expected;
}

TEST(any_order_of_arrival_gives_the_order_of_the_data_set) {
    for (uint64_t seed = 0; seed < 50; seed++) {
        opd_test_alloc memory;
        opd_test_alloc_tracing(&memory);
        opd_rng rng;
        opd_join *join;
        opd_rng_init(&rng, seed);
        CHECK_OK(opd_join_create(&memory.alloc, FIRST, WINDOW, MEMBERS, PARTS, &join));
        uint32_t order[WINDOW * MEMBERS * PARTS], n = WINDOW * MEMBERS * PARTS;
        uint64_t next = FIRST;
        for (uint64_t base = FIRST; base < FIRST + GROUPS; base += WINDOW) {
            shuffle(&rng, order, n);
            for (uint32_t i = 0; i < n; i++) {
                uint64_t group = base + order[i] / (MEMBERS * PARTS);
                uint32_t rest = order[i] % (MEMBERS * PARTS), member = rest / PARTS, part = rest % PARTS;
                CHECK_OK(opd_join_put(join, group, member, part, item_of(group, member, part)));
                next = take_all(join, next);
            }
            CHECK_INT(next, base + WINDOW);
        }
        CHECK_INT(opd_join_next_group(join), FIRST + GROUPS);
        opd_join_destroy(join, NULL, NULL);
        CHECK_INT(memory.live, 0);
    }
}

static void count_drop(void *arg, void *item) {
    CHECK(item != NULL);
    ++*(int *)arg;
}

TEST(what_cannot_be_is_refused_and_stays_the_callers) {
    opd_join *join;
    int dropped = 0, x;
    CHECK_OK(opd_join_create(NULL, FIRST, WINDOW, MEMBERS, PARTS, &join));
    CHECK_OK(opd_join_put(join, FIRST, 0, 0, &x));
    CHECK_ERR(opd_join_put(join, FIRST, 0, 0, &x), OPD_ERR_EXISTS);
    CHECK_ERR(opd_join_put(join, FIRST, MEMBERS, 0, &x), OPD_ERR_INVALID);
    CHECK_ERR(opd_join_put(join, FIRST, 0, PARTS, &x), OPD_ERR_INVALID);
    CHECK_ERR(opd_join_put(join, FIRST - 1, 0, 0, &x), OPD_ERR_INVALID);
    CHECK_ERR(opd_join_put(join, FIRST + WINDOW, 0, 0, &x), OPD_ERR_INVALID);
    CHECK_ERR(opd_join_put(join, UINT64_MAX, 0, 0, &x), OPD_ERR_INVALID);
    CHECK_OK(opd_join_put(join, FIRST + WINDOW - 1, MEMBERS - 1, PARTS - 1, &x));
    CHECK_INT(opd_join_missing(join, 0), MEMBERS - 1);
    CHECK_INT(opd_join_missing(join, 1), MEMBERS);
    opd_join_destroy(join, count_drop, &dropped);
    CHECK_INT(dropped, 2); /* exactly what was accepted */
}

TEST(a_group_that_left_does_not_come_again) {
    opd_join *join;
    int x;
    uint64_t group;
    void *items[1];
    CHECK_OK(opd_join_create(NULL, 0, 2, 1, 1, &join));
    CHECK_OK(opd_join_put(join, 0, 0, 0, &x));
    CHECK_INT(opd_join_next(join, &group, items), 1);
    CHECK_ERR(opd_join_put(join, 0, 0, 0, &x), OPD_ERR_INVALID);
    CHECK_OK(opd_join_put(join, 2, 0, 0, &x)); /* its place is another's now */
    CHECK_INT(opd_join_next(join, &group, items), 0);
    opd_join_destroy(join, NULL, NULL);
}

TEST(no_memory_is_an_error) {
    for (long n = 1; n <= 3; n++) {
        opd_test_alloc memory;
        opd_join *join;
        opd_test_alloc_failing(&memory, n, false);
        CHECK_ERR(opd_join_create(&memory.alloc, 0, 4, 2, 2, &join), OPD_ERR_NOMEM);
        CHECK_INT(memory.live, 0);
    }
    opd_join_destroy(NULL, NULL, NULL);
}

/* ---- the batcher actor ---- */

enum { RESPONSE = 4, PROMPT = 3 };

/* Plays the trainer: holds a sample for a while, so that credit is short. */
typedef struct sink {
    uint64_t group;
    uint32_t member;
    bool teacher;
    opd_msg *kept;
    opd_timer timer;
} sink;

static uint64_t sink_end;
static uint32_t sink_seen;

static opd_err sink_release(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    sink *s = state;
    opd_msg_release(s->kept);
    s->kept = NULL;
    if (s->group == sink_end) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err sink_start(opd_ctx *ctx, void *state, const void *config) {
    sink *s = state;
    *s = (sink){.group = FIRST, .teacher = *(const bool *)config};
    opd_timer_init(&s->timer, ctx, sink_release);
    return OPD_OK;
}

static opd_err sink_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    sink *s = state;
    opd_sample_fields f;
    CHECK_OK(opd_message_read(msg, OPD_MESSAGE_SAMPLE, &f));
    CHECK_INT(f.group, s->group);
    CHECK_INT(f.member, s->member);
    CHECK_INT(f.prompt_len, PROMPT);
    CHECK_NEAR(f.reward, (double)f.group + f.member, 0);
    CHECK(f.reward_valid);
    CHECK_INT(((const int32_t *)opd_slice_data(f.tokens))[0], f.group * MEMBERS + f.member);
    CHECK((f.teacher_logp.buf != NULL) == s->teacher);
    CHECK_STR(f.teacher, s->teacher ? "t" : "");
    CHECK_STR(f.source, "math");
    CHECK(opd_slice_data(f.provenance) == opd_slice_data(f.teacher_valid)); /* handed on as it came */
    CHECK_INT(f.degraded, s->teacher ? f.member : 0);
    if (++s->member == MEMBERS) s->member = 0, s->group++;
    sink_seen++;
    CHECK(s->kept == NULL); /* a window of one */
    s->kept = msg;
    opd_msg_take(ctx, msg);
    return opd_timer_start_after(&s->timer, 1000);
}

static void sink_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_msg_release(((sink *)state)->kept);
}

static const opd_actor_class sink_class = {.name = "trainer", .state_size = sizeof(sink),
                                           .on_start = sink_start, .on_message = sink_message,
                                           .on_stop = sink_stop};

/* Plays rollout, reward and teacher at once. */
typedef struct source_config {
    const opd_roles *roles;
    const opd_alloc *alloc;
    uint64_t seed;
    uint32_t groups;
    bool teacher;
} source_config;

static opd_slice bytes_of(const opd_alloc *alloc, size_t size, int32_t first) {
    opd_slice slice;
    unsigned char data[64] = {0};
    memcpy(data, &first, sizeof first);
    CHECK_OK(opd_slice_copy(alloc, data, size, &slice));
    return slice;
}

static void send_part(opd_ctx *ctx, opd_link *link, const source_config *c, uint64_t group,
                      uint32_t member, uint32_t part) {
    int32_t id = (int32_t)(group * MEMBERS + member);
    opd_slice tokens = bytes_of(c->alloc, (PROMPT + RESPONSE) * 4, id);
    opd_slice logp = bytes_of(c->alloc, RESPONSE * 4, 0), valid = bytes_of(c->alloc, RESPONSE, 1);
    opd_slice spans = bytes_of(c->alloc, 16, 0);
    opd_rollout_fields rollout = {.group = group, .member = member, .prompt_len = PROMPT,
                                  .tokens = tokens, .logp = logp, .spans = spans,
                                  .source = "math"};
    opd_reward_fields reward = {.group = group, .member = member,
                                .reward = (double)group + member, .valid = true};
    opd_scores_fields scores = {.group = group, .member = member, .logp = logp, .valid = valid,
                                .teacher = "t", .provenance = valid, .degraded = member};
    const void *fields[] = {&rollout, &reward, &scores};
    static const opd_message_kind kinds[] = {OPD_MESSAGE_ROLLOUT, OPD_MESSAGE_REWARD,
                                             OPD_MESSAGE_SCORES};
    CHECK_OK(opd_message_link_send(ctx, link, kinds[part], fields[part]));
    opd_buf_release(tokens.buf);
    opd_buf_release(logp.buf);
    opd_buf_release(valid.buf);
    opd_buf_release(spans.buf);
}

static opd_err source_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    const source_config *c = config;
    opd_link *link;
    opd_rng rng;
    uint32_t parts = c->teacher ? 3 : 2, n = c->groups * MEMBERS * parts, *order;
    order = malloc(n * sizeof *order);
    opd_rng_init(&rng, c->seed);
    shuffle(&rng, order, n);
    OPD_TRY(opd_link_open(ctx, c->roles->batcher, n, 1 << 20, &link));
    for (uint32_t i = 0; i < n; i++)
        send_part(ctx, link, c, FIRST + order[i] / (MEMBERS * parts),
                  order[i] / parts % MEMBERS, order[i] % parts);
    free(order);
    return OPD_OK;
}

static const opd_actor_class source_class = {.name = "source", .on_start = source_start};

static void run_batcher(uint64_t seed, bool teacher, uint32_t want_groups) {
    opd_test_sys t;
    opd_roles roles = {0};
    opd_pid source;
    sys_up(&t, NULL);
    sink_seen = 0;
    sink_end = FIRST + want_groups;
    opd_batcher_config batcher = {.roles = &roles, .first_group = FIRST, .groups_max = 8,
                                  .samples_per_prompt = MEMBERS, .teacher = teacher,
                                  .window_msgs = 1, .window_bytes = 1 << 16,
                                  .alloc = &t.memory.alloc};
    source_config c = {&roles, &t.memory.alloc, seed, 8, teacher};
    CHECK_OK(opd_spawn(t.system, &sink_class, NULL, &teacher, &roles.trainer));
    CHECK_OK(opd_spawn(t.system, &opd_batcher_class, NULL, &batcher, &roles.batcher));
    CHECK_OK(opd_spawn(t.system, &source_class, NULL, &c, &source));
    CHECK_OK(opd_system_run(t.system));
    CHECK(sink_seen >= want_groups * MEMBERS);
    sys_down(&t);
}

TEST(batcher_feeds_the_trainer_in_order) {
    for (uint64_t seed = 1; seed < 6; seed++) run_batcher(seed, seed % 2, 8);
}

TEST(batcher_stopped_half_way_drops_everything) {
    for (uint64_t seed = 1; seed < 4; seed++) run_batcher(seed, true, (uint32_t)seed);
}

/* A member that came twice, or parts of different lengths, end the batcher with the reason. */
typedef struct bad_config {
    const opd_roles *roles;
    const opd_alloc *alloc;
    bool twice;
    int scores; /* a place in BAD_SCORES; -1: no teacher */
} bad_config;

/* Scores, and in what they fall short. */
static const struct {
    size_t teachers, weights; /* elements; 0: absent           */
    size_t logp, valid;       /* teachers that they are enough for */
    double weight;            /* the last one                  */
    bool good;
} BAD_SCORES[] = {
    {0, 0, 1, 1, 0, true},  {2, 2, 2, 2, 0.5, true}, {1, 1, 1, 1, 0, true},
    {2, 2, 1, 2, 1, false}, /* the second teacher's log-probs are missing */
    {2, 2, 2, 1, 1, false}, {0, 0, 2, 2, 0, false},  {2, 0, 2, 2, 0, false}, {2, 1, 2, 2, 1, false},
    {0, 1, 1, 1, 1, false}, {2, 2, 2, 2, -1, false}, {2, 2, 2, 2, NAN, false},
    {2, 2, 2, 2, INFINITY, false},
};

static void send_scores(opd_ctx *ctx, opd_link *link, const bad_config *c) {
    double weights[2] = {1, 1};
    opd_scores_fields f = {.group = FIRST};
    size_t n = BAD_SCORES[c->scores].weights;
    if (n > 0) weights[n - 1] = BAD_SCORES[c->scores].weight;
    f.logp = bytes_of(c->alloc, BAD_SCORES[c->scores].logp * RESPONSE * sizeof(float), 0);
    f.valid = bytes_of(c->alloc, BAD_SCORES[c->scores].valid * RESPONSE, 1);
    if (BAD_SCORES[c->scores].teachers > 0)
        f.teachers = bytes_of(c->alloc, BAD_SCORES[c->scores].teachers, 1);
    if (n > 0) CHECK_OK(opd_slice_copy(c->alloc, weights, n * sizeof *weights, &f.weights));
    CHECK_OK(opd_message_link_send(ctx, link, OPD_MESSAGE_SCORES, &f));
    opd_buf *all[] = {f.logp.buf, f.valid.buf, f.teachers.buf, f.weights.buf};
    for (size_t i = 0; i < 4; i++) opd_buf_release(all[i]);
}

static opd_err bad_start(opd_ctx *ctx, void *state, const void *config) {
    const bad_config *c = config;
    opd_link *link;
    opd_monitor_start(ctx, state, c->roles->batcher);
    OPD_TRY(opd_link_open(ctx, c->roles->batcher, 16, 1 << 20, &link));
    if (c->scores >= 0) {
        source_config good = {c->roles, c->alloc, 0, 1, true};
        send_part(ctx, link, &good, FIRST, 0, 0);
        send_part(ctx, link, &good, FIRST, 0, 1);
        send_scores(ctx, link, c);
        return OPD_OK;
    }
    for (uint32_t m = 0; m < MEMBERS; m++) {
        opd_reward_fields reward = {.group = FIRST, .member = c->twice ? 0 : m};
        opd_rollout_fields rollout = {.group = FIRST, .member = m, .prompt_len = PROMPT + 9,
                                      .tokens = bytes_of(c->alloc, 28, 0), .logp = bytes_of(c->alloc, 8, 0)};
        CHECK_OK(opd_message_link_send(ctx, link, OPD_MESSAGE_REWARD, &reward));
        CHECK_OK(opd_message_link_send(ctx, link, OPD_MESSAGE_ROLLOUT, &rollout));
        opd_buf_release(rollout.tokens.buf);
        opd_buf_release(rollout.logp.buf);
    }
    return OPD_OK;
}

static opd_err bad_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)state;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    opd_system_stop(opd_self_system(ctx), opd_fail(signal->reason, "%s", signal->text));
    return OPD_OK;
}

static opd_err take_one(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    (void)msg;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

/* scores: a place in BAD_SCORES of the only member's, else -1. */
static opd_err run_bad(bool twice, int scores) {
    static const opd_actor_class bad = {.name = "bad", .state_size = sizeof(opd_monitor),
                                        .on_start = bad_start, .on_signal = bad_signal};
    opd_test_sys t;
    opd_roles roles = {0};
    opd_pid source;
    sys_up(&t, NULL);
    opd_batcher_config batcher = {.roles = &roles, .first_group = FIRST, .groups_max = 1,
                                  .samples_per_prompt = scores < 0 ? MEMBERS : 1,
                                  .teacher = scores >= 0, .window_msgs = 1,
                                  .window_bytes = 1 << 16, .alloc = &t.memory.alloc};
    bad_config c = {&roles, &t.memory.alloc, twice, scores};
    roles.trainer = script_spawn(&t, "trainer", (opd_script){.message = take_one});
    CHECK_OK(opd_spawn(t.system, &opd_batcher_class, NULL, &batcher, &roles.batcher));
    CHECK_OK(opd_spawn(t.system, &bad, NULL, &c, &source));
    opd_err err = opd_system_run(t.system);
    char text[256];
    (void)snprintf(text, sizeof text, "%s", opd_err_context());
    sys_down(&t);
    if (err != OPD_OK) CHECK_CONTAINS(text, twice ? "came twice" : "different lengths");
    return err;
}

TEST(batcher_refuses_what_cannot_be) {
    CHECK_INT(run_bad(true, -1), OPD_ERR_EXISTS);
    CHECK_INT(run_bad(false, -1), OPD_ERR_MISMATCH);
}

TEST(batcher_refuses_scores_that_do_not_fit_their_teachers) {
    for (int i = 0; i < (int)OPD_COUNTOF(BAD_SCORES); i++) {
        (void)fprintf(stderr, "case %d\n", i);
        CHECK_INT(run_bad(false, i), BAD_SCORES[i].good ? OPD_OK : OPD_ERR_MISMATCH);
    }
}
