/* test_teacher_replicas.c - one teacher of three servers, of which some misbehave by script: every
 * sample gets its right scores from the others, and no server makes the rest slow. */
#include "actors/teacher/teacher_http.h"
#include "tests/unit/actors/teacher_rig.h"

enum { REPLICAS = 3};

typedef struct bench {
    rig rig;
    script scripts[REPLICAS];
    char urls[256];
    opd_config_teacher teacher;
    opd_teacher_http_config config;
} bench;

/* Replica i begins with step firsts[i] and then repeats thens[i]. */
static void bench_up(bench *b, int count, const script_step firsts[REPLICAS],
                     const script_step thens[REPLICAS]) {
    memset(b, 0, sizeof *b);
    rig_up(&b->rig, count, 4, 5, 50);
    for (int i = 0; i < REPLICAS; i++) {
        script *s = &b->scripts[i];
        s->steps[0] = firsts[i];
        s->steps[1] = thens[i];
        s->step_count = 2;
        script_up(s, &b->rig);
        size_t used = strlen(b->urls);
        (void)snprintf(b->urls + used, sizeof b->urls - used, "%shttp://127.0.0.1:%u",
                       i > 0 ? ", " : "", s->port);
    }
    rig_client(&b->rig, &b->teacher, &b->config);
    b->teacher.urls = b->urls;
}

static void bench_start(bench *b) {
    rig_teacher(&b->rig, &b->config);
    rig_feed(&b->rig);
}

#define BENCH(b, count, first0, first1, first2, then0, then1, then2)                         \
    static bench b;                                                                          \
    do {                                                                                     \
        static const script_step firsts_[] = {first0, first1, first2};                       \
        static const script_step thens_[] = {then0, then1, then2};                           \
        bench_up(&b, count, firsts_, thens_);                                                \
    } while (0)

static void run(bench *b) {
    bench_start(b);
    CHECK_OK(rig_run(&b->rig));
}

static int index_of(const bench *b, const char *endpoint) {
    for (int i = 0; i < REPLICAS; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "127.0.0.1:%u", b->scripts[i].port);
        if (strcmp(name, endpoint) == 0) return i;
    }
    return -1;
}

/* Every sample has its right scores, from a replica that gives some. */
static void check_scored(const bench *b) {
    CHECK_INT(b->rig.got, b->rig.count);
    for (int g = 0; g < b->rig.count; g++) {
        const rig_sample *s = &b->rig.scores[g];
        CHECK_INT(s->times, 1);
        CHECK_STR(s->reason, "");
        CHECK(s->scored);
        CHECK(index_of(b, s->endpoint) >= 0);
        for (uint32_t i = 0; i < b->rig.response_len; i++) {
            int32_t id = rig_token(&b->rig, g, b->rig.prompt_len + i);
            CHECK_INT(s->valid[i], 1);
            CHECK(s->logp[i] == -(float)(id + 1) / 100);
        }
    }
}

static uint32_t sum_of(const bench *b, size_t offset) {
    uint32_t sum = 0;
    for (int g = 0; g < b->rig.count; g++)
        sum += *(const uint32_t *)(const void *)((const char *)&b->rig.scores[g] + offset);
    return sum;
}

#define SUM(b, field) sum_of(b, offsetof(rig_sample, field))

TEST(samples_are_spread) {
    BENCH(b, 60, STEP_OK, STEP_OK, STEP_OK, STEP_OK, STEP_OK, STEP_OK);
    run(&b);
    check_scored(&b);
    CHECK_INT(SUM(&b, moves), 0);
    int generates = 0, answered = 0;
    for (int i = 0; i < REPLICAS; i++) {
        generates += b.scripts[i].generates;
        answered += b.scripts[i].generates > 0;
    }
    CHECK(generates >= 60 && answered >= 2);
    CHECK_INT(b.rig.holds, 0);
    rig_down(&b.rig);
}

TEST(a_replica_that_fails_is_left_out) {
    BENCH(b, 60, STEP_500, STEP_OK, STEP_OK, STEP_500, STEP_OK, STEP_OK);
    run(&b);
    check_scored(&b);
    CHECK(SUM(&b, moves) >= 5);
    CHECK(b.scripts[0].generates >= 5);
    CHECK(b.scripts[0].generates <= 5 + 8); /* what was under way when the breaker opened */
    CHECK_CONTAINS(b.rig.notes, "left out");
    rig_down(&b.rig);
}

TEST(a_replica_that_is_not_there_is_done_without) {
    BENCH(b, 40, STEP_OK, STEP_OK, STEP_OK, STEP_OK, STEP_OK, STEP_OK);
    (void)snprintf(b.urls + strlen(b.urls), 64, ", http://127.0.0.1:1");
    run(&b);
    check_scored(&b);
    CHECK_INT(b.rig.holds, 0);
    CHECK_INT(SUM(&b, attempts), 40 + (int)SUM(&b, hedges));
    rig_down(&b.rig);
}

TEST(a_replica_that_dies_hands_over_its_samples) {
    BENCH(b, 60, STEP_CLOSE, STEP_OK, STEP_OK, STEP_CLOSE, STEP_OK, STEP_OK);
    b.teacher.retries = 0; /* a loss must not use up an attempt */
    run(&b);
    check_scored(&b);
    CHECK_INT(b.rig.holds, 0);
    CHECK(SUM(&b, moves) >= 1);
    CHECK_CONTAINS(b.rig.notes, "the others go on");
    rig_down(&b.rig);
}

TEST(when_all_die_admission_is_held) {
    BENCH(b, 6, STEP_CLOSE, STEP_CLOSE, STEP_CLOSE, STEP_OK, STEP_OK, STEP_OK);
    b.teacher.retries = 0;
    run(&b);
    check_scored(&b);
    CHECK(b.rig.holds >= 1);
    CHECK_INT(b.rig.holds, b.rig.releases);
    CHECK_CONTAINS(b.rig.notes, "is lost");
    CHECK_CONTAINS(b.rig.notes, "answers again");
    rig_down(&b.rig);
}

/* The late ones are asked for elsewhere, and ended by their rid where they hang. */
TEST(a_replica_that_stalls_is_hedged) {
    BENCH(b, 60, STEP_STALL, STEP_OK, STEP_OK, STEP_STALL, STEP_OK, STEP_OK);
    b.rig.linger_ms = 100;
    run(&b);
    check_scored(&b);
    CHECK(b.scripts[0].generates >= 1);
    CHECK_INT(SUM(&b, hedges), SUM(&b, attempts) - 60);
    CHECK(SUM(&b, hedges) >= (uint32_t)b.scripts[0].generates);
    for (int g = 0; g < 60; g++) {
        CHECK(b.rig.scores[g].hedges <= 1);
        CHECK(index_of(&b, b.rig.scores[g].endpoint) != 0);
    }
    CHECK(b.scripts[0].aborts >= 1 && b.scripts[0].aborts <= b.scripts[0].generates);
    rig_down(&b.rig);
}

TEST(a_replica_that_asks_for_time_costs_none) {
    BENCH(b, 60, STEP_503_AFTER, STEP_OK, STEP_OK, STEP_503_AFTER, STEP_OK, STEP_OK);
    run(&b);
    check_scored(&b);
    CHECK(b.scripts[0].generates <= 8);
    rig_down(&b.rig);
}

TEST(a_sample_that_breaks_two_replicas_is_given_up) {
    BENCH(b, 20, STEP_500, STEP_500, STEP_500, STEP_500, STEP_500, STEP_500);
    run(&b);
    for (int g = 0; g < 20; g++) {
        CHECK(!b.rig.scores[g].scored);
        CHECK_INT(b.rig.scores[g].attempts, 2);
        CHECK_CONTAINS(b.rig.scores[g].reason, "boom");
        CHECK_STR(b.rig.scores[g].endpoint, "");
    }
    rig_down(&b.rig);
}

/* Two requests each at most, over all replicas. */
TEST(concurrency_is_bounded_over_all) {
    BENCH(b, 10, STEP_STALL, STEP_STALL, STEP_STALL, STEP_STALL, STEP_STALL, STEP_STALL);
    b.teacher.max_inflight = 2;
    b.teacher.timeout_s = 0.2;
    b.teacher.deadline_s = 0.5;
    run(&b);
    int generates = 0;
    for (int i = 0; i < REPLICAS; i++) generates += b.scripts[i].generates;
    CHECK(generates <= 2 * 3); /* in half a second, each for a fifth */
    for (int g = 0; g < 10; g++) CHECK_CONTAINS(b.rig.scores[g].reason, "deadline");
    rig_down(&b.rig);
}
