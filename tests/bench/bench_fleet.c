/* bench_fleet.c - a teacher of three replicas that die and dawdle: what becomes of the samples.
 *
 *   opd_bench_fleet [--seconds N] [--undisturbed N] [--rate N] [--seed N] [--verbose]
 *
 * The real teacher actor with the defaults of its configuration, three servers in processes of
 * their own (bench_stub.h), samples offered in an open loop at moments that are drawn
 * beforehand (Poisson), whatever becomes of the earlier ones. First the undisturbed phase; then the
 * disturbed one, with fresh servers and a fresh teacher: server 2 is 20 times slower from its start, and every
 * ten seconds server 0 or 1 in turn is killed (SIGKILL) and started again after 0.7 s.
 *
 * The latency of a sample is from the moment at which it was due to its delivery, so waiting for
 * the teacher's window counts. Every valid score is compared with the stub's formula; a
 * wrong one ends the program. Results: JSON lines on stdout; docs/benchmarks.md explains them.
 * Thread: main is the loop.
 */
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/messages.h"
#include "actors/teacher/teacher_http.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "opd/config.h"
#include "opd/log.h"
#include "tests/bench/bench.h"
#include "tests/bench/bench_stub.h"

enum {
    SERVERS = 3,
    SLOW_SERVER = 2,
    SLOTS = 8,
    PROMPT = 16,
    RESPONSE = 48,
    WINDOW = 4096, /* samples that the teacher may hold */
    KILL_EVERY_MS = 10000,
    KILL_FIRST_MS = 5000,
    BACK_AFTER_MS = 700,
    OFFER_EVERY_MS = 1
};

static const double MEAN_MS = 20, SIGMA = 0.5, SLOWER = 20;

typedef struct bench_fleet_options {
    double seconds, undisturbed_s, rate;
    uint64_t seed;
    bool verbose;
} bench_fleet_options;

/* One phase: what is to be done, and what became of it. */
typedef struct phase {
    const bench_fleet_options *o;
    bool disturbed;
    bench_system b;
    opd_roles roles;
    pid_t pids[SERVERS];
    uint16_t ports[SERVERS];
    uint64_t starts; /* of servers, for their seeds */
    /* the samples, by group */
    uint64_t count;
    double *due_ms, *latency_ms;
    uint8_t *times; /* delivered */
    uint64_t began_ns;
    /* what became of them */
    uint64_t offered, delivered, masked, tokens, valid_tokens, attempts, hedges, moves, kills;
} phase;

extern char **environ;

/* ---- the servers ---- */

static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool bound = fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
                 getsockname(fd, (struct sockaddr *)&address, &size) == 0;
    bench_must(bound ? OPD_OK : opd_fail(OPD_ERR_IO, "no free port"));
    (void)close(fd);
    return ntohs(address.sin_port);
}

static void server_start(phase *p, int i) {
    char port[16], mean[32], seed[32];
    char *argv[] = {"stub", "--stub", port, mean, seed, NULL};
    double slower = p->disturbed && i == SLOW_SERVER ? SLOWER : 1;
    (void)snprintf(port, sizeof port, "%u", p->ports[i]);
    (void)snprintf(mean, sizeof mean, "%g", MEAN_MS * slower);
    (void)snprintf(seed, sizeof seed, "%llu", (unsigned long long)(p->o->seed + 100 + p->starts++));
    int failed = posix_spawn(&p->pids[i], "/proc/self/exe", NULL, NULL, argv, environ);
    bench_must(failed == 0 ? OPD_OK : opd_fail(OPD_ERR_IO, "no server: %s", strerror(failed)));
}

/* Waits until it listens. */
static void server_await(const phase *p, int i) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(p->ports[i]),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (double end_s = bench_now_s() + 10; bench_now_s() < end_s; (void)usleep(1000)) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        bool there = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
        (void)close(fd);
        if (there) return;
    }
    bench_must(opd_fail(OPD_ERR_TIMEOUT, "server %d does not listen", i));
}

static void server_kill(phase *p, int i) {
    (void)kill(p->pids[i], SIGKILL);
    (void)waitpid(p->pids[i], NULL, 0);
    p->pids[i] = 0;
}

/* ---- the disturber ---- */

typedef struct disturber {
    phase *p;
    opd_timer kill, back;
    int victim;
} disturber;

static opd_err on_back(opd_ctx *ctx, void *state, opd_timer *timer) {
    disturber *d = state;
    (void)ctx;
    (void)timer;
    server_start(d->p, d->victim);
    return OPD_OK;
}

static opd_err on_kill(opd_ctx *ctx, void *state, opd_timer *timer) {
    disturber *d = state;
    (void)ctx;
    d->victim = (int)(d->p->kills++ % SLOW_SERVER); /* 0 and 1 in turn */
    server_kill(d->p, d->victim);
    OPD_TRY(opd_timer_start_after(&d->back, (uint64_t)BACK_AFTER_MS * 1000000));
    return opd_timer_start_after(timer, (uint64_t)KILL_EVERY_MS * 1000000);
}

static opd_err disturber_start(opd_ctx *ctx, void *state, const void *config) {
    disturber *d = state;
    d->p = *(phase *const *)config;
    opd_timer_init(&d->kill, ctx, on_kill);
    opd_timer_init(&d->back, ctx, on_back);
    return opd_timer_start_after(&d->kill, (uint64_t)KILL_FIRST_MS * 1000000);
}

static const opd_actor_class disturber_class = {.name = "disturber",
                                                .state_size = sizeof(disturber),
                                                .on_start = disturber_start};

/* ---- the samples ---- */

static int32_t token_of(uint64_t group, uint64_t at) {
    return (int32_t)(3 + (group * 7919 + at * 104729) % (BENCH_STUB_VOCAB - 3));
}

static double since_ms(const phase *p, opd_ctx *ctx) {
    return (double)(opd_now_ns(ctx) - p->began_ns) / 1e6;
}

static void check_scores(phase *p, const opd_scores_fields *f) {
    const float *logp = f->logp.buf != NULL ? opd_slice_data(f->logp) : NULL;
    const uint8_t *valid = f->valid.buf != NULL ? opd_slice_data(f->valid) : NULL;
    p->tokens += RESPONSE;
    if (logp == NULL) {
        p->masked++;
        return;
    }
    for (uint64_t i = 0; i < RESPONSE; i++) {
        if (valid != NULL && !valid[i]) continue;
        p->valid_tokens++;
        if (logp[i] != bench_stub_score(token_of(f->group, PROMPT + i), PROMPT + i))
            bench_must(opd_fail(OPD_ERR_MISMATCH, "sample %llu has a forged score",
                                (unsigned long long)f->group));
    }
}

/* A sample came back. */
static void delivered(phase *p, opd_ctx *ctx, const opd_scores_fields *f) {
    if (f->group >= p->offered || p->times[f->group]++ != 0)
        bench_must(opd_fail(OPD_ERR_MISMATCH, "a sample was delivered twice"));
    p->latency_ms[f->group] = since_ms(p, ctx) - p->due_ms[f->group];
    p->attempts += f->attempts;
    p->hedges += f->hedges;
    p->moves += f->moves;
    check_scores(p, f);
    if (p->o->verbose && p->latency_ms[f->group] > 150)
        (void)fprintf(stderr, "  %8.0f ms: sample %llu took %.0f ms: waited %.0f, attempts %u, hedges %u, "
                      "moves %u, %s %s\n", since_ms(p, ctx), (unsigned long long)f->group,
                      p->latency_ms[f->group], f->wait_ms, f->attempts, f->hedges, f->moves,
                      f->endpoint, f->reason);
    if (++p->delivered == p->count) opd_system_stop(opd_self_system(ctx), OPD_OK);
}

typedef struct source {
    phase *p;
    opd_link *link;
    opd_timer timer;
} source;

static opd_err offer(opd_ctx *ctx, source *s, uint64_t group) {
    int32_t ids[PROMPT + RESPONSE];
    opd_rollout_fields f = {.group = group, .prompt_len = PROMPT};
    for (uint64_t i = 0; i < PROMPT + RESPONSE; i++) ids[i] = token_of(group, i);
    OPD_TRY(opd_slice_copy(NULL, ids, sizeof ids, &f.tokens));
    opd_err err = opd_message_link_send(ctx, s->link, OPD_MESSAGE_ROLLOUT, &f);
    opd_buf_release(f.tokens.buf);
    return err;
}

/* Offers all that is due. */
static opd_err on_due(opd_ctx *ctx, void *state, opd_timer *timer) {
    source *s = state;
    phase *p = s->p;
    while (p->offered < p->count && p->due_ms[p->offered] <= since_ms(p, ctx)) {
        opd_err err = offer(ctx, s, p->offered);
        if (err == OPD_ERR_AGAIN) break; /* it has come, and waits */
        OPD_TRY(err);
        p->offered++;
    }
    return p->offered < p->count ? opd_timer_start_after(timer, (uint64_t)OFFER_EVERY_MS * 1000000)
                                 : OPD_OK;
}

static opd_err source_start(opd_ctx *ctx, void *state, const void *config) {
    source *s = state;
    s->p = *(phase *const *)config;
    s->p->began_ns = opd_now_ns(ctx);
    opd_timer_init(&s->timer, ctx, on_due);
    OPD_TRY(opd_link_open(ctx, s->p->roles.teacher, WINDOW, (uint64_t)WINDOW << 12, &s->link));
    return opd_timer_start_after(&s->timer, 1000000);
}

static const opd_actor_class source_class = {.name = "source", .state_size = sizeof(source),
                                             .on_start = source_start};

static opd_err remember(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    *(phase **)state = *(phase *const *)config;
    return OPD_OK;
}

static opd_err on_scores(opd_ctx *ctx, void *state, opd_msg *msg) {
    opd_scores_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SCORES, &f));
    delivered(*(phase **)state, ctx, &f);
    return OPD_OK;
}

static const opd_actor_class sink_class = {.name = "sink", .state_size = sizeof(phase *),
                                           .on_start = remember, .on_message = on_scores};

static opd_err on_note(opd_ctx *ctx, void *state, opd_msg *msg) {
    phase *p = *(phase **)state;
    opd_note_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_NOTE, &f));
    if (p->o->verbose) (void)fprintf(stderr, "  %8.0f ms: %s\n", since_ms(p, ctx), f.text);
    return OPD_OK;
}

static const opd_actor_class monitor_class = {.name = "monitor", .state_size = sizeof(phase *),
                                              .on_start = remember, .on_message = on_note};

/* ---- a phase ---- */

/* The moments at which samples are due. */
static void draw(phase *p, double seconds) {
    opd_rng rng;
    double at_ms = 0;
    opd_rng_init(&rng, p->o->seed);
    p->count = (uint64_t)(seconds * p->o->rate);
    p->due_ms = calloc(p->count, sizeof *p->due_ms);
    p->latency_ms = calloc(p->count, sizeof *p->latency_ms);
    p->times = calloc(p->count, 1);
    if (p->due_ms == NULL || p->latency_ms == NULL || p->times == NULL)
        bench_must(opd_fail(OPD_ERR_NOMEM, "no memory for the samples"));
    for (uint64_t i = 0; i < p->count; i++) {
        at_ms -= log(1 - opd_rng_uniform(opd_rng_next(&rng))) * 1000 / p->o->rate;
        p->due_ms[i] = at_ms;
    }
}

static opd_config *configure(const phase *p) {
    char text[512];
    opd_config *config;
    int size = snprintf(text, sizeof text,
                        "model: {path: student}\ndata: {path: data}\nopd: {enabled: true, type: sglang}\n"
                        "train: {steps: 1}\nteachers:\n  tutor:\n    urls: [http://127.0.0.1:%u, "
                        "http://127.0.0.1:%u, http://127.0.0.1:%u]\n",
                        p->ports[0], p->ports[1], p->ports[2]);
    bench_must(opd_config_load_text(NULL, "bench", text, (size_t)size, NULL, &config));
    return config;
}

static void run_phase(phase *p, double seconds) {
    const void *self = &p;
    draw(p, seconds);
    for (int i = 0; i < SERVERS; i++) {
        p->ports[i] = free_port();
        server_start(p, i);
    }
    for (int i = 0; i < SERVERS; i++) server_await(p, i);
    opd_config *config = configure(p);
    bench_up(&p->b, NULL);
    p->roles.monitor = bench_spawn(&p->b, &monitor_class, self);
    p->roles.batcher = bench_spawn(&p->b, &sink_class, self);
    opd_teacher_http_config teacher = {
        .roles = &p->roles, .env = p->b.env,
        .teacher = opd_config_teacher_find(&config->stages[0], "tutor"),
        .teacher_lost_s = config->stages[0].opd.teacher_lost_s, .max_len = PROMPT + RESPONSE,
        .temperature = 1, .vocab_size = BENCH_STUB_VOCAB, .bos_id = 1, .eos_id = 2,
        .tokenizer_hash = "stub", .window_msgs = WINDOW, .window_bytes = (uint64_t)WINDOW << 12};
    p->roles.teacher = bench_spawn(&p->b, &opd_teacher_http_class, &teacher);
    if (p->disturbed) (void)bench_spawn(&p->b, &disturber_class, self);
    (void)bench_spawn(&p->b, &source_class, self);
    (void)bench_run_s(&p->b);
    bench_down(&p->b);
    opd_config_destroy(config);
    for (int i = 0; i < SERVERS; i++)
        if (p->pids[i] > 0) server_kill(p, i);
}

/* ---- the report ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Nearest rank; latency_ms is sorted. */
static double quantile(const phase *p, double q) {
    uint64_t rank = (uint64_t)ceil(q * (double)p->count);
    return p->latency_ms[rank == 0 ? 0 : rank - 1];
}

static void emit(const char *name, double value, const char *unit, const phase *p) {
    double load[1] = {0}, count = (double)p->count;
    (void)getloadavg(load, 1);
    printf("{\"case\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"samples\":%llu,\"rate\":%g,"
           "\"p50_ms\":%.4g,\"p90_ms\":%.4g,\"p99_ms\":%.4g,\"p999_ms\":%.4g,\"max_ms\":%.4g,"
           "\"masked\":%llu,\"attempts\":%.4f,\"hedges\":%.4f,\"moves\":%llu,\"kills\":%llu,\"load\":%.2f}\n",
           name, value, unit, (unsigned long long)p->count, p->o->rate, quantile(p, 0.5),
           quantile(p, 0.9), quantile(p, 0.99), quantile(p, 0.999), quantile(p, 1),
           (unsigned long long)p->masked, (double)p->attempts / count, (double)p->hedges / count,
           (unsigned long long)p->moves, (unsigned long long)p->kills, load[0]);
    (void)fflush(stdout);
}

static void report(phase *calm, phase *rough) {
    phase *phases[] = {calm, rough};
    uint64_t accounted = 0;
    for (int i = 0; i < 2; i++)
        qsort(phases[i]->latency_ms, phases[i]->count, sizeof(double), by_value);
    for (uint64_t i = 0; i < rough->count; i++) accounted += rough->times[i] == 1;
    emit("fleet_p99_undisturbed", quantile(calm, 0.99), "ms", calm);
    emit("fleet_p99_disturbed", quantile(rough, 0.99), "ms", rough);
    emit("fleet_p99_ratio", quantile(rough, 0.99) / quantile(calm, 0.99), "ratio", rough);
    emit("fleet_valid_share", (double)rough->valid_tokens / (double)rough->tokens, "share", rough);
    emit("fleet_accounted", (double)accounted / (double)rough->count, "share", rough);
}

static int stub_main(char **argv) {
    bench_stub_options o = {.port = (uint16_t)strtoul(argv[2], NULL, 10), .slots = SLOTS,
                            .mean_ms = strtod(argv[3], NULL), .sigma = SIGMA,
                            .seed = strtoull(argv[4], NULL, 10)};
    return bench_stub_main(&o);
}

int main(int argc, char **argv) {
    bench_fleet_options o = {.seconds = 300, .undisturbed_s = 60, .rate = 320, .seed = 1};
    opd_log_level_set(OPD_LOG_LEVEL_ERROR);
    if (argc == 5 && strcmp(argv[1], "--stub") == 0) return stub_main(argv);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (strcmp(argv[i], "--verbose") == 0) o.verbose = true;
        else if (strcmp(argv[i], "--seconds") == 0) o.seconds = strtod(value, NULL), i++;
        else if (strcmp(argv[i], "--undisturbed") == 0) o.undisturbed_s = strtod(value, NULL), i++;
        else if (strcmp(argv[i], "--rate") == 0) o.rate = strtod(value, NULL), i++;
        else if (strcmp(argv[i], "--seed") == 0) o.seed = strtoull(value, NULL, 10), i++;
        else bench_must(opd_fail(OPD_ERR_INVALID, "no such option: %s", argv[i]));
    }
    if (!(o.seconds >= 1 && o.undisturbed_s >= 1 && o.rate >= 1))
        bench_must(opd_fail(OPD_ERR_INVALID, "seconds and rate are at least 1"));
    phase calm = {.o = &o}, rough = {.o = &o, .disturbed = true};
    run_phase(&calm, o.undisturbed_s);
    run_phase(&rough, o.seconds);
    report(&calm, &rough);
    return 0;
}
