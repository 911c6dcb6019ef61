/* test_teacher_fleet.c - the decisions about a fleet, in virtual time with seeded dice: which
 * replica, which is left out, how many requests, how many retries, when to hedge. */
#include "actors/teacher/budget.h"
#include "actors/teacher/hedge.h"
#include "actors/teacher/replica.h"
#include "core/base/rng.h"
#include "tests/support/test.h"

static const uint64_t MS = 1000000, S = 1000000000;
enum { MANY = 5 };

typedef struct world {
    opd_replica replicas[MANY];
    opd_fleet fleet;
    opd_rng rng;
    uint64_t now;
} world;

static void world_up(world *w, size_t count, uint64_t seed) {
    *w = (world){.now = S};
    opd_rng_init(&w->rng, seed);
    w->fleet = (opd_fleet){.replicas = w->replicas, .count = count,
                           .rules = {.failures_max = 3, .slow_factor = 5, .eject_ns = S}};
    for (size_t i = 0; i < count; i++) {
        opd_replica_init(&w->replicas[i], 8, false);
        w->replicas[i].up = true;
    }
}

static int choose(world *w, int avoid, bool other_only) {
    return opd_fleet_choose(&w->fleet, avoid, other_only, w->now, opd_rng_next(&w->rng));
}

static void good(world *w, int i, double ms) {
    bool trial = opd_fleet_begin(&w->fleet, i, 10);
    (void)opd_fleet_good(&w->fleet, i, 10, trial, ms, w->now);
}

static bool bad(world *w, int i) {
    bool trial = opd_fleet_begin(&w->fleet, i, 10);
    return opd_fleet_bad(&w->fleet, i, 10, trial, false, w->now);
}

/* ---- choice ---- */

/* Requests that begin alike meet at one replica; when one goes only its own move. */
TEST(every_affinity_has_a_home) {
    enum { AFFINITIES = 2000 };
    world w;
    int homes[AFFINITIES + 1], at[MANY] = {0};
    world_up(&w, MANY, 1);
    CHECK_INT(opd_fleet_home(&w.fleet, 0), OPD_REPLICA_NONE);
    for (int a = 1; a <= AFFINITIES; a++) {
        homes[a] = opd_fleet_home(&w.fleet, (uint64_t)a);
        CHECK_INT(opd_fleet_home(&w.fleet, (uint64_t)a), homes[a]);
        at[homes[a]]++;
    }
    for (int i = 0; i < MANY; i++) CHECK(at[i] > AFFINITIES / MANY / 2 && at[i] < 2 * AFFINITIES / MANY);
    w.replicas[2].up = false;
    for (int a = 1; a <= AFFINITIES; a++) {
        int home = opd_fleet_home(&w.fleet, (uint64_t)a);
        CHECK(homes[a] == 2 ? home != 2 : home == homes[a]);
    }
}

TEST(home_is_preferred_while_it_is_worth_it) {
    world w;
    world_up(&w, 2, 1);
    uint64_t affinity = 1;
    while (opd_fleet_home(&w.fleet, affinity) != 1) affinity++;
    w.replicas[1].tokens = 300;
    CHECK_INT(opd_fleet_prefer(&w.fleet, 0, affinity, 300, w.now), 1);
    CHECK_INT(opd_fleet_prefer(&w.fleet, 0, affinity, 299, w.now), 0); /* clearly busier */
    CHECK_INT(opd_fleet_prefer(&w.fleet, 1, affinity, 0, w.now), 1);
    CHECK_INT(opd_fleet_prefer(&w.fleet, 0, 0, 999, w.now), 0);
    CHECK_INT(opd_fleet_prefer(&w.fleet, OPD_REPLICA_NONE, affinity, 999, w.now), OPD_REPLICA_NONE);
    w.replicas[1].not_before_ns = w.now + 1; /* it asked for time */
    CHECK_INT(opd_fleet_prefer(&w.fleet, 0, affinity, 999, w.now), 0);
    w.replicas[1].not_before_ns = 0;
    w.replicas[1].in_flight = 8; /* it is full */
    CHECK_INT(opd_fleet_prefer(&w.fleet, 0, affinity, 999, w.now), 0);
    w.replicas[1].in_flight = 0;
    w.replicas[0].state = OPD_REPLICA_OUT; /* and was chosen for its trial */
    CHECK_INT(opd_fleet_prefer(&w.fleet, 0, affinity, 999, w.now), 0);
}

TEST(the_lighter_of_two_is_chosen) {
    world w;
    world_up(&w, 2, 1);
    w.replicas[0].tokens = 500;
    w.replicas[1].tokens = 400;
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 1);
    w.replicas[1].tokens = 600;
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 0);
}

TEST(two_choices_keep_loads_close) {
    world w;
    uint64_t least = UINT64_MAX, most = 0;
    world_up(&w, MANY, 2);
    for (int i = 0; i < MANY; i++) w.replicas[i].pace.limit_max = 100000, w.replicas[i].pace.limit = 100000;
    for (int n = 0; n < 5000; n++)
        (void)opd_fleet_begin(&w.fleet, choose(&w, OPD_REPLICA_NONE, false), 1 + opd_rng_below(&w.rng, 100));
    for (int i = 0; i < MANY; i++) {
        if (w.replicas[i].tokens < least) least = w.replicas[i].tokens;
        if (w.replicas[i].tokens > most) most = w.replicas[i].tokens;
    }
    CHECK(most - least < 1000); /* of 50,000 each; at random it would be some 2,000 */
}

TEST(who_failed_is_avoided_while_there_is_another) {
    world w;
    world_up(&w, 2, 3);
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, 0, false), 1);
    w.replicas[1].up = false;
    CHECK_INT(choose(&w, 0, false), 0);
    CHECK_INT(choose(&w, 0, true), OPD_REPLICA_NONE);
    w.replicas[0].up = false;
    CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), OPD_REPLICA_NONE);
}

TEST(a_full_replica_gets_nothing) {
    world w;
    world_up(&w, 2, 4);
    for (int i = 0; i < 16; i++) {
        int r = choose(&w, OPD_REPLICA_NONE, false);
        CHECK(r != OPD_REPLICA_NONE);
        (void)opd_fleet_begin(&w.fleet, r, 5);
    }
    CHECK_INT(w.replicas[0].in_flight, 8);
    CHECK_INT(w.replicas[1].in_flight, 8);
    CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), OPD_REPLICA_NONE);
}

TEST(who_asked_for_time_is_left_alone) {
    world w;
    world_up(&w, 2, 5);
    w.replicas[0].not_before_ns = w.now + S;
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 1);
    w.replicas[1].not_before_ns = w.now + S;
    CHECK(choose(&w, OPD_REPLICA_NONE, false) != OPD_REPLICA_NONE); /* all did: the pause is the sample's */
}

/* ---- breakers ---- */

TEST(failures_in_a_row_put_a_replica_out_and_a_trial_brings_it_back) {
    world w;
    world_up(&w, 2, 6);
    CHECK(!bad(&w, 0) && !bad(&w, 0));
    good(&w, 0, 10);                       /* in a row, not in all */
    CHECK(!bad(&w, 0) && !bad(&w, 0) && bad(&w, 0));
    CHECK_INT(w.replicas[0].state, OPD_REPLICA_OUT);
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 1);
    w.now += S;
    CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 0); /* the trial comes first */
    CHECK(opd_fleet_begin(&w.fleet, 0, 10));
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 1); /* and alone */
    CHECK(opd_fleet_good(&w.fleet, 0, 10, true, 10, w.now));
    CHECK_INT(w.replicas[0].state, OPD_REPLICA_IN);
}

TEST(time_out_grows_and_is_forgotten) {
    world w;
    world_up(&w, 2, 7);
    for (int i = 0; i < 3; i++) (void)bad(&w, 0);
    for (uint64_t n = 1; n < 20; n++) {
        uint64_t out = n < OPD_REPLICA_GROWTH ? n : OPD_REPLICA_GROWTH;
        CHECK_INT(w.replicas[0].out_until_ns - w.now, out * S);
        w.now = w.replicas[0].out_until_ns;
        CHECK(!bad(&w, 0)); /* the trial fails */
        CHECK_INT(w.replicas[0].state, OPD_REPLICA_OUT);
    }
    w.now = w.replicas[0].out_until_ns;
    good(&w, 0, 10);
    CHECK_INT(w.replicas[0].ejections, OPD_REPLICA_GROWTH);
    w.now += 13 * S;
    good(&w, 0, 10);
    CHECK_INT(w.replicas[0].ejections, 0);
}

TEST(what_was_sent_before_decides_no_trial) {
    world w;
    world_up(&w, 2, 8);
    bool early = opd_fleet_begin(&w.fleet, 0, 10);
    for (int i = 0; i < 3; i++) (void)bad(&w, 0);
    w.now += S;
    bool trial = opd_fleet_begin(&w.fleet, 0, 10);
    CHECK(!early && trial);
    CHECK(!opd_fleet_good(&w.fleet, 0, 10, early, 10, w.now));
    CHECK_INT(w.replicas[0].state, OPD_REPLICA_TRIAL);
    opd_fleet_neither(&w.fleet, 0, 10, trial, w.now); /* cancelled: another one, now */
    CHECK_INT(w.replicas[0].state, OPD_REPLICA_OUT);
    CHECK_INT(choose(&w, OPD_REPLICA_NONE, false), 0);
}

TEST(a_slow_replica_is_an_outlier_until_it_is_fast) {
    world w;
    world_up(&w, 3, 9);
    for (int n = 0; n < 20; n++)
        for (int i = 0; i < 3; i++) good(&w, i, i == 2 ? 200 : 10 + n % 3);
    for (int i = 0; i < 3; i++) CHECK(opd_fleet_outlier(&w.fleet, i, w.now) == (i == 2));
    CHECK(!opd_fleet_outlier(&w.fleet, 2, w.now)); /* it is out already */
    w.now += S;
    good(&w, 2, 200); /* its trial is answered, but as late as ever */
    CHECK_INT(w.replicas[2].state, OPD_REPLICA_OUT);
    w.now += 2 * S;
    good(&w, 2, 40); /* a lucky one: less than five times the median of 11, more than half of that */
    CHECK_INT(w.replicas[2].state, OPD_REPLICA_OUT);
    w.now += 3 * S;
    good(&w, 2, 12);
    CHECK_INT(w.replicas[2].state, OPD_REPLICA_IN);
    for (int n = 0; n < 20; n++) good(&w, 2, 40); /* in use it may be that */
    CHECK(!opd_fleet_outlier(&w.fleet, 2, w.now));
}

static void overtaken(world *w, int i, double after_ms) {
    bool trial = opd_fleet_begin(&w->fleet, i, 10);
    opd_fleet_overtaken(&w->fleet, i, 10, trial, after_ms, w->now);
}

/* Hedges hide how slow a replica is: its requests end when they are overtaken, long before they
 * took slow_factor times the median. That they always are says enough. */
TEST(a_replica_that_is_always_overtaken_is_slow) {
    world w;
    world_up(&w, 3, 10);
    for (int n = 0; n < 20; n++)
        for (int i = 0; i < 2; i++) good(&w, i, 20);
    for (int n = 1; n <= OPD_REPLICA_OUTLIER_LEAST; n++) {
        overtaken(&w, 2, 60); /* three times the median, of five */
        CHECK(opd_fleet_outlier(&w.fleet, 2, w.now) == (n == OPD_REPLICA_OUTLIER_LEAST));
    }
    for (uint64_t n = 1; n < 4; n++) { /* each trial that is overtaken leaves it out for longer */
        CHECK_INT(w.replicas[2].out_until_ns - w.now, n * S);
        w.now += n * S;
        overtaken(&w, 2, 60);
        CHECK_INT(w.replicas[2].state, OPD_REPLICA_OUT);
    }
    for (int n = 0; n < 100; n++) { /* now and then is chance */
        overtaken(&w, 1, 60);
        if (n % 4 == 3) good(&w, 1, 20);
        CHECK(!opd_fleet_outlier(&w.fleet, 1, w.now));
    }
}

/* The last one is never left out, however often something else was faster. */
TEST(the_last_one_is_no_outlier) {
    world w;
    world_up(&w, 2, 11);
    w.replicas[1].up = false;
    for (int n = 0; n < 20; n++) overtaken(&w, 0, 60);
    CHECK(!opd_fleet_outlier(&w.fleet, 0, w.now));
    w.replicas[1].up = true;
    w.fleet.rules.slow_factor = 0; /* the rule is off */
    CHECK(!opd_fleet_outlier(&w.fleet, 0, w.now));
}

/* A request that is to help another one is sent to a replica that is known to be well. */
TEST(a_hedge_is_no_trial) {
    world w;
    world_up(&w, 3, 12);
    for (int i = 0; i < 3; i++) (void)bad(&w, 2);
    w.now += S;
    for (int i = 0; i < 50; i++) CHECK_INT(choose(&w, 0, true), 1);
    w.replicas[1].up = false;
    CHECK_INT(choose(&w, 0, true), OPD_REPLICA_NONE);
    CHECK_INT(choose(&w, 0, false), 2);
}

/* Random outcomes for a long time: the counts are right, and somebody is always there. */
TEST(one_replica_always_stays) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        world w;
        size_t count = 1 + seed % MANY;
        struct { int server; bool trial; } sent[64];
        size_t sent_count = 0;
        world_up(&w, count, seed);
        for (int step = 0; step < 500; step++) {
            w.now += opd_rng_below(&w.rng, 300) * MS;
            uint64_t dice = opd_rng_below(&w.rng, 10);
            if (dice == 0) (void)opd_fleet_outlier(&w.fleet, (int)opd_rng_below(&w.rng, count), w.now);
            if (dice < 5 && sent_count < 64) {
                int r = choose(&w, (int)opd_rng_below(&w.rng, count + 1) - 1, false);
                CHECK(r != OPD_REPLICA_NONE || sent_count > 0); /* NONE: because they are full */
                if (r == OPD_REPLICA_NONE) continue;
                CHECK(w.replicas[r].in_flight < 8);
                CHECK(w.replicas[r].state != OPD_REPLICA_TRIAL || opd_fleet_in(&w.fleet) == 0);
                sent[sent_count].server = r;
                sent[sent_count++].trial = opd_fleet_begin(&w.fleet, r, 7);
            } else if (sent_count > 0) {
                size_t at = opd_rng_below(&w.rng, sent_count);
                int r = sent[at].server;
                bool trial = sent[at].trial;
                sent[at] = sent[--sent_count];
                if (dice < 8) (void)opd_fleet_bad(&w.fleet, r, 7, trial, dice == 7, w.now);
                else if (dice == 8 && step % 2) opd_fleet_neither(&w.fleet, r, 7, trial, w.now);
                else if (dice == 8) opd_fleet_overtaken(&w.fleet, r, 7, trial, 5, w.now);
                else (void)opd_fleet_good(&w.fleet, r, 7, trial, 1 + (double)(dice * (uint64_t)step % 90), w.now);
            }
            CHECK(opd_fleet_in(&w.fleet) >= 1);
            uint64_t in_flight = 0, tokens = 0;
            for (size_t i = 0; i < count; i++) {
                in_flight += w.replicas[i].in_flight;
                tokens += w.replicas[i].tokens;
            }
            CHECK_INT(in_flight, sent_count);
            CHECK_INT(tokens, 7 * sent_count);
        }
    }
}

/* ---- retry budget ---- */

TEST(retries_stay_within_their_share) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        enum { STEPS = 4000 };
        static uint64_t at[STEPS];
        static bool is_retry[STEPS];
        opd_budget b;
        opd_rng r;
        uint64_t now = 5 * S, count = 0, refused = 0;
        opd_budget_init(&b, 0.2, 2);
        opd_rng_init(&r, seed);
        for (int i = 0; i < STEPS; i++) {
            now += opd_rng_below(&r, seed % 2 == 0 ? 5 : 100) * MS;
            bool retry = opd_rng_below(&r, 2) == 0;
            if (retry && !opd_budget_take(&b, now)) {
                refused++;
                continue;
            }
            if (!retry) opd_budget_request(&b, now);
            at[count] = now;
            is_retry[count++] = retry;
        }
        CHECK(refused > 0); /* half of all wanted to be retries */
        /* at each retry, what the ten seconds behind it hold */
        for (uint64_t i = 0; i < count; i++) {
            double requests = 0, retries = 0;
            for (uint64_t j = i + 1; j-- > 0 && at[j] / S + OPD_BUDGET_SECONDS > at[i] / S;) {
                requests += !is_retry[j];
                retries += is_retry[j];
            }
            if (is_retry[i]) CHECK(retries <= 0.2 * requests + 2 * OPD_BUDGET_SECONDS);
        }
    }
}

TEST(an_empty_budget_fills_again) {
    opd_budget b;
    opd_budget_init(&b, 0, 1);
    for (int i = 0; i < 10; i++) CHECK(opd_budget_take(&b, 100 * S));
    CHECK(!opd_budget_take(&b, 100 * S));
    CHECK(!opd_budget_take(&b, 109 * S));
    CHECK(opd_budget_take(&b, 110 * S));
    CHECK(opd_budget_take(&b, 100000 * S));
}

/* ---- hedging ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

TEST(the_delay_is_the_quantile_of_the_window) {
    opd_hedge h;
    opd_rng r;
    static double all[2000], last[OPD_HEDGE_WINDOW];
    opd_hedge_init(&h, 0.95);
    opd_rng_init(&r, 11);
    for (int n = 0; n < 2000; n++) {
        all[n] = (double)(1 + opd_rng_below(&r, 500));
        opd_hedge_answer(&h, all[n]);
        int count = n + 1 < OPD_HEDGE_WINDOW ? n + 1 : OPD_HEDGE_WINDOW;
        memcpy(last, all + n + 1 - count, (size_t)count * sizeof *last);
        qsort(last, (size_t)count, sizeof *last, compare);
        int rank = (int)ceil(0.95 * count);
        CHECK(opd_hedge_delay_ms(&h) == (count < OPD_HEDGE_LEAST ? 0 : last[rank - 1]));
    }
    opd_hedge_init(&h, 0);
    for (int n = 0; n < 100; n++) opd_hedge_answer(&h, 5);
    CHECK(opd_hedge_delay_ms(&h) == 0);
}

/* ---- concurrency ---- */

/* A server that does `capacity` at once in base_ms and is slower in proportion beyond. */
static double served_ms(double base_ms, double capacity, double in_flight) {
    return in_flight <= capacity ? base_ms : base_ms * in_flight / capacity;
}

TEST(concurrency_finds_the_servers_capacity) {
    static const double capacities[] = {2, 8, 30, 100};
    for (size_t i = 0; i < 4; i++) {
        opd_pace p;
        opd_pace_init(&p, 512, true);
        double sum = 0, latency_sum = 0;
        for (int n = 0; n < 100000; n++) {
            uint32_t in_flight = opd_pace_limit(&p); /* there is always more to send */
            CHECK(in_flight >= 1 && in_flight <= 512);
            double ms = served_ms(20, capacities[i], in_flight);
            opd_pace_answer(&p, ms, in_flight);
            sum += n >= 50000 ? in_flight : 0;
            latency_sum += n >= 50000 ? ms : 0;
        }
        double mean = sum / 50000, latency = latency_sum / 50000;
        CHECK(mean >= 0.9 * capacities[i]); /* it is used fully ... */
        CHECK(latency <= 20 * 3.5);         /* ... and not buried   */
    }
}

TEST(a_fast_server_gets_all_it_may) {
    opd_pace p;
    opd_pace_init(&p, 64, true);
    for (int n = 0; n < 200; n++) opd_pace_answer(&p, 20, opd_pace_limit(&p));
    CHECK_INT(opd_pace_limit(&p), 64);
    opd_pace_init(&p, 64, false);
    for (int n = 0; n < 2000; n++) opd_pace_answer(&p, n, 64);
    CHECK_INT(opd_pace_limit(&p), 64);
}

TEST(an_overload_cuts_once_for_a_burst) {
    opd_pace p;
    opd_pace_init(&p, 10, true);
    for (int n = 0; n < 50; n++) opd_pace_overload(&p, S + (uint64_t)n * 1000);
    CHECK_INT(opd_pace_limit(&p), 7);
    for (int n = 0; n < 50; n++) opd_pace_overload(&p, 2 * S + (uint64_t)n * S);
    CHECK_INT(opd_pace_limit(&p), 1);
}
