/* bench_lane.c - what leaves the loop, and what does nothing: loop -> compute -> loop, idle.
 *
 * lane_round_trip: one actor submits an empty job to a lane, and the next one when that is done;
 * the figure is two thread changes. idle: 100 actors and a lane with nothing to do for 10 s;
 * the figure is the CPU time of the whole process. Thread: the loop's, run_nothing the lane's.
 */
#include <sys/resource.h>

#include "tests/bench/bench.h"

enum { JOBS = 100000, IDLE_ACTORS = 100, IDLE_S = 10 };

typedef struct submitter {
    opd_lane *lane;
    opd_job job;
    uint64_t done;
} submitter;

static opd_err run_nothing(opd_job *job) {
    (void)job;
    return OPD_OK;
}

static opd_err job_done(opd_ctx *ctx, void *state, opd_job *job) {
    submitter *s = state;
    if (++s->done < JOBS) return opd_job_submit(ctx, s->lane, job);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static opd_err submitter_start(opd_ctx *ctx, void *state, const void *config) {
    submitter *s = state;
    s->lane = *(opd_lane *const *)config;
    s->job = (opd_job){.run = run_nothing, .done = job_done};
    return opd_job_submit(ctx, s->lane, &s->job);
}

static const opd_actor_class submitter_class = {.name = "submitter",
                                                .state_size = sizeof(submitter),
                                                .on_start = submitter_start};

static double lane_round_trip(void) {
    bench_system b;
    opd_lane *lane = NULL;
    bench_up(&b, NULL);
    bench_must(opd_lane_open(b.system, "bench", 1, &lane));
    (void)bench_spawn(&b, &submitter_class, &lane);
    double seconds = bench_run_s(&b);
    bench_down(&b);
    return JOBS / seconds;
}

/* ---- idle ------------------------------------------------------------------------------ */

typedef struct sleeper {
    opd_timer timer;
} sleeper;

static opd_err sleeper_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)ctx;
    (void)state;
    (void)bench_msg_number(msg);
    return OPD_OK;
}

static opd_err stop_all(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)state;
    (void)timer;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err alarm_start(opd_ctx *ctx, void *state, const void *config) {
    sleeper *s = state;
    (void)config;
    opd_timer_init(&s->timer, ctx, stop_all);
    return opd_timer_start_after(&s->timer, IDLE_S * UINT64_C(1000000000));
}

static const opd_actor_class sleeper_class = {.name = "sleeper", .state_size = sizeof(sleeper),
                                              .on_message = sleeper_message};
static const opd_actor_class alarm_class = {.name = "alarm", .state_size = sizeof(sleeper),
                                            .on_start = alarm_start};

static double cpu_ms(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) bench_must(opd_fail(OPD_ERR_IO, "getrusage"));
    return 1e3 * (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-3 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double idle(void) {
    bench_system b;
    opd_lane *lane = NULL;
    bench_up(&b, NULL);
    bench_must(opd_lane_open(b.system, "bench", 1, &lane));
    for (int i = 0; i < IDLE_ACTORS; i++) {
        opd_pid pid = bench_spawn(&b, &sleeper_class, NULL);
        bench_must(opd_post(b.system, pid, bench_msg(b.system, 1, 1)));
    }
    (void)bench_spawn(&b, &alarm_class, NULL);
    double before_ms = cpu_ms();
    (void)bench_run_s(&b);
    double used_ms = cpu_ms() - before_ms;
    bench_down(&b);
    return used_ms;
}

const bench_case bench_lane_cases[] = {
    {.name = "lane_round_trip", .unit = "jobs/s", .run = lane_round_trip},
    {.name = "idle_100_actors_10_s", .unit = "cpu_ms", .run = idle, .slow = true},
    {.name = NULL},
};
