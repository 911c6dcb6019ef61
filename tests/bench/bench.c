/* bench.c - what the benchmarks share (bench.h). Thread: main is the loop. */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WATCHDOG_MS = 1000 };

void bench_must(opd_err err) {
    if (err == OPD_OK) return;
    (void)fprintf(stderr, "bench: %s: %s\n", opd_err_name(err), opd_err_context());
    exit(1);
}

double bench_now_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void bench_up(bench_system *b, const opd_system_options *options) {
    bench_must(opd_env_uv_create(NULL, &b->env));
    opd_system_options o = options == NULL ? (opd_system_options){0} : *options;
    o.recorder = true;
    bench_must(opd_system_create(&o, b->env, &b->system));
    bench_must(opd_watchdog_start(b->env, b->system, NULL, WATCHDOG_MS, &b->watchdog));
}

double bench_run_s(bench_system *b) {
    double start = bench_now_s();
    bench_must(opd_system_run(b->system));
    return bench_now_s() - start;
}

void bench_down(bench_system *b) {
    opd_watchdog_stop(b->watchdog);
    opd_system_destroy(b->system);
    bench_must(opd_env_destroy(b->env));
}

opd_pid bench_spawn(bench_system *b, const opd_actor_class *actor_class, const void *config) {
    opd_pid pid = OPD_PID_NOBODY;
    bench_must(opd_spawn(b->system, actor_class, NULL, config, &pid));
    return pid;
}

opd_msg *bench_msg(opd_system *system, uint16_t kind, uint64_t number) {
    opd_msg *msg = NULL;
    opd_mp_writer w;
    bench_must(opd_msg_create(system, kind, &msg));
    bench_must(opd_body_begin(msg, 1, 1, BENCH_BODY_BYTES, &w));
    opd_mp_write_u64(&w, number);
    bench_must(opd_body_end(msg, &w));
    return msg;
}

uint64_t bench_msg_number(const opd_msg *msg) {
    opd_mp_reader r;
    bench_must(opd_body_read(msg, 1, 1, &r));
    uint64_t number = opd_mp_read_u64(&r);
    bench_must(opd_mp_reader_status(&r));
    return number;
}

void bench_send(opd_ctx *ctx, opd_pid to, uint16_t kind, uint64_t number) {
    bench_must(opd_send(ctx, to, bench_msg(opd_self_system(ctx), kind, number)));
}
