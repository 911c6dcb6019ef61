/* sim_runtime.c - the actor runtime under seeds: random workers, all faults, all checkers.
 *
 * Usage: sim_runtime --seeds A-B [--twice] [--no-faults]
 *   --seeds A-B   one run for each seed of the range; a failing one is printed and kept counting
 *   --twice       each seed twice: the hashes of all that happened must be equal
 *   --no-faults   without faults
 * The last line says how many runs failed and a hash over all; exit status 1 if any did.
 *
 * A run: workers (worker.c) play until each has used up its budget and nothing it began is
 * pending. Those that end meanwhile are started again: in a third of the runs by a keeper that
 * watches them, else by a tree of two supervisors with seeded strategies. Faults stop at
 * half a second of virtual time: what stalls after that does not reach the end and is an error.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "opd/log.h"
#include "opd/sim.h"
#include "opd/supervisor.h"
#include "tests/sim/worker.h"

static const uint64_t MS = 1000000;

typedef struct outcome {
    bool failed;
    uint64_t hash;
    checkers_counts counts;
    opd_sim_stats stats;
} outcome;

/* ---- the keeper: starts what ended again, ends the run when all is quiet --------------- */

/* The workers of one run, and who looks after them. */
typedef struct crew {
    playground ground;
    bool supervised;
    unsigned indices[WORKERS_MAX];
    char ids[WORKERS_MAX][8];
    opd_child_spec inner[WORKERS_MAX], outer[WORKERS_MAX + 1];
    opd_supervisor_options inner_options, outer_options;
} crew;

typedef struct keeper {
    struct crew *crew;
    playground *ground;
    opd_monitor monitors[WORKERS_MAX];
    opd_timer tick;
} keeper;

static void keeper_start_one(opd_ctx *ctx, keeper *k, unsigned i) {
    opd_pid pid = OPD_PID_NOBODY;
    if (worker_spawn(k->ground, i, &pid) != OPD_OK) return; /* at the next tick, then */
    opd_monitor_start(ctx, &k->monitors[i], pid);
}

static opd_err keeper_tick(opd_ctx *ctx, void *state, opd_timer *timer) {
    keeper *k = state;
    playground *g = k->ground;
    bool all_quiet = true;
    for (unsigned i = 0; i < g->count; i++) {
        bool gone = !opd_alive(g->system, g->pids[i]);
        if (gone && !k->crew->supervised) keeper_start_one(ctx, k, i);
        if (gone || !g->quiet[i]) all_quiet = false;
    }
    if (all_quiet) opd_system_stop(g->system, OPD_OK);
    return opd_timer_start_after(timer, 3 * MS);
}

static opd_err keeper_start(opd_ctx *ctx, void *state, const void *config) {
    keeper *k = state;
    k->crew = *(struct crew *const *)config;
    k->ground = &k->crew->ground;
    opd_timer_init(&k->tick, ctx, keeper_tick);
    return opd_timer_start_after(&k->tick, 0);
}

static opd_err keeper_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    keeper *k = state;
    (void)ctx;
    if (signal->kind != OPD_SIGNAL_DOWN) return OPD_OK;
    if (k->ground->pids[signal->monitor - k->monitors] != signal->pid)
        checkers_fail(k->ground->checks, "keeper: DOWN of a worker that was not its");
    return OPD_OK;
}

/* Without its keeper the run ends; what it ends with is not at stake here. */
static void keeper_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_system_stop(((keeper *)state)->ground->system, OPD_OK);
}

static const opd_actor_class keeper_class = {
    .name = "keeper", .state_size = sizeof(keeper), .on_start = keeper_start,
    .on_signal = keeper_signal, .on_stop = keeper_stop,
};

/* ---- the tree: some workers under the top, the others under a supervisor of their own --- */

static opd_err child_start(opd_system *system, void *arg, opd_pid *out_pid) {
    unsigned *index = arg;
    (void)system;
    crew *c = OPD_CONTAINER_OF(index - *index, crew, indices);
    return worker_spawn(&c->ground, *index, out_pid);
}

static opd_err inner_start(opd_system *system, void *arg, opd_pid *out_pid) {
    return opd_supervisor_start(system, &((crew *)arg)->inner_options, out_pid);
}

static opd_err tree_start(crew *c, uint64_t seed, opd_pid *out_pid) {
    unsigned outside = (unsigned)(opd_rng_at(seed, 101, 0, 0) % c->ground.count);
    opd_backoff backoff = {.base_ms = 1, .max_ms = 10};
    for (unsigned i = 0; i < c->ground.count; i++) {
        opd_child_spec *spec = i < outside ? &c->outer[i + 1] : &c->inner[i - outside];
        c->indices[i] = i;
        (void)snprintf(c->ids[i], sizeof c->ids[i], "w%u", i);
        *spec = (opd_child_spec){.id = c->ids[i], .start = child_start, .arg = &c->indices[i],
                                 .stop_timeout_ms = 20, .backoff = backoff};
    }
    c->outer[0] = (opd_child_spec){.id = "inner", .start = inner_start, .arg = c,
                                   .backoff = backoff};
    c->inner_options = (opd_supervisor_options){
        .name = "inner", .children = c->inner, .child_count = c->ground.count - outside,
        .strategy = (opd_strategy)(opd_rng_at(seed, 102, 0, 0) % 3), .restarts_max = 20};
    c->outer_options = (opd_supervisor_options){
        .name = "outer", .children = c->outer, .child_count = outside + 1,
        .strategy = (opd_strategy)(opd_rng_at(seed, 103, 0, 0) % 3), .restarts_max = 1000};
    return opd_supervisor_start(c->ground.system, &c->outer_options, out_pid);
}

/* ---- one run --------------------------------------------------------------------------- */

static bool only_workers(void *arg, opd_fault site, const char *name) {
    (void)arg;
    return site == OPD_FAULT_ALLOC || name[0] == 'w';
}

static opd_err ground_open(crew *c, opd_sim *sim, opd_env *env, uint64_t seed) {
    playground *g = &c->ground;
    opd_system_options options = {.alloc = opd_sim_alloc(sim), .actors_max = 16,
                                  .messages_max = 64, .timers_max = 256, .stop_timeout_ms = 100};
    *c = (crew){.supervised = seed % 3 != 0};
    g->alloc = options.alloc;
    g->count = 2 + (unsigned)(opd_rng_at(seed, 100, 0, 0) % (WORKERS_MAX - 1));
    OPD_TRY(opd_system_create(&options, env, &g->system));
    g->checks = checkers_create(g->system);
    for (unsigned i = 0; i < g->count; i++) g->budgets[i] = 60;
    for (unsigned i = 0; i < LANES; i++)
        OPD_TRY(opd_lane_open(g->system, "lane", 3, &g->lanes[i]));
    OPD_TRY(opd_slot_create(g->system, &g->slot));
    opd_pid pid = OPD_PID_NOBODY;
    OPD_TRY(opd_spawn(g->system, &keeper_class, NULL, &c, &pid));
    return c->supervised ? tree_start(c, seed, &pid) : OPD_OK;
}

static void ground_close(playground *g) {
    opd_slot_destroy(g->slot);
    opd_system_destroy(g->system);
    checkers_destroy(g->checks);
}

static void report(uint64_t seed, const playground *g, opd_err err, const char *text) {
    const char *violation = checkers_violation(g->checks);
    char kept[1024];
    (void)snprintf(kept, sizeof kept, "%s", text); /* the context, which others overwrite */
    text = kept;
    printf("seed %llu: %s\n", (unsigned long long)seed, violation != NULL ? violation : text);
    if (err != OPD_OK && violation != NULL) printf("  and %s\n", text);
    checkers_print(g->checks, stdout);
}

/* Most runs end in order; some are killed, some are destroyed as they are, at any time. */
typedef enum ending { IN_ORDER, KILLED, DESTROYED } ending;

static opd_err play(playground *g, opd_sim *sim, uint64_t seed, ending *out_ending) {
    uint64_t die = opd_rng_at(seed, 104, 0, 0) % 10;
    uint64_t at_ns = opd_sim_now_ns(sim) + opd_rng_at(seed, 105, 0, 0) % (80 * MS);
    *out_ending = die == 0 ? KILLED : die == 1 ? DESTROYED : IN_ORDER;
    if (*out_ending == IN_ORDER) return opd_system_run(g->system);
    opd_system_begin(g->system);
    opd_err err = opd_sim_run(sim, at_ns, NULL, NULL);
    if (err == OPD_OK && *out_ending == KILLED) {
        opd_system_kill(g->system, OPD_ERR_INTERRUPTED);
        err = opd_sim_run(sim, OPD_SIM_FOREVER, NULL, NULL);
    }
    opd_err reason = opd_system_end(g->system);
    return err != OPD_OK ? err : reason;
}

static outcome run_seed(uint64_t seed, uint32_t faults) {
    opd_sim *sim = NULL;
    opd_env *env = NULL;
    crew c;
    playground *g = &c.ground;
    outcome out = {.failed = true};
    opd_sim_options options = {.job_max_ns = 3 * MS, .time_max_ns = 20000 * MS, .faults = faults,
                               .faults_until_ns = 500 * MS,
                               .fault_one_in = 5u << opd_rng_at(seed, 106, 0, 0) % 6,
                               .fault_allowed = only_workers};
    opd_err err = opd_sim_create(seed, &options, &sim);
    if (err == OPD_OK) err = opd_sim_env(sim, "node", &env);
    if (err == OPD_OK) err = ground_open(&c, sim, env, seed);
    OPD_ASSERT(err == OPD_OK); /* no fault fires before the run */
    ending how = IN_ORDER;
    err = play(g, sim, seed, &how);
    /* An end with a reason is an end too: memory may lack for a restart. */
    bool ended = opd_system_stats_get(g->system).actors == 0;
    if (ended) checkers_end(g->checks);
    out.failed = (!ended && how != DESTROYED) || checkers_violation(g->checks) != NULL;
    if (out.failed) report(seed, g, err, opd_err_context());
    out.hash = checkers_hash(g->checks);
    out.counts = checkers_counts_get(g->checks);
    ground_close(g);
    if (g->cleanups_run != g->cleanups_begun) {
        printf("seed %llu: %llu of %llu cleanups ran\n", (unsigned long long)seed,
               (unsigned long long)g->cleanups_run, (unsigned long long)g->cleanups_begun);
        out.failed = true;
    }
    out.stats = opd_sim_stats_get(sim);
    if (out.stats.live_blocks != 0) {
        printf("seed %llu: %zu blocks, %zu bytes are not free at the end\n",
               (unsigned long long)seed, out.stats.live_blocks, out.stats.live_bytes);
        out.failed = true;
    }
    opd_sim_destroy(sim);
    return out;
}

/* ---- all runs -------------------------------------------------------------------------- */

typedef struct plan {
    uint64_t first, last;
    uint32_t faults;
    bool twice;
} plan;

static void add_counts(outcome *sum, const outcome *run) {
    sum->counts.sent += run->counts.sent;
    sum->counts.requested += run->counts.requested;
    sum->counts.spawned += run->counts.spawned;
    sum->counts.credits += run->counts.credits;
    sum->counts.refused += run->counts.refused;
    sum->counts.downs += run->counts.downs;
    sum->stats.steps += run->stats.steps;
    for (unsigned i = 0; i < OPD_FAULT_COUNT; i++) sum->stats.faults[i] += run->stats.faults[i];
    sum->hash = opd_rng_at(sum->hash, run->hash, 0, 0);
}

static unsigned run_all(const plan *p) {
    outcome sum = {.failed = false};
    unsigned failed = 0;
    for (uint64_t seed = p->first; seed <= p->last; seed++) {
        outcome run = run_seed(seed, p->faults);
        if (p->twice && run_seed(seed, p->faults).hash != run.hash) {
            printf("seed %llu: two runs differ\n", (unsigned long long)seed);
            run.failed = true;
        }
        failed += run.failed ? 1 : 0;
        add_counts(&sum, &run);
    }
    printf("%llu steps, %llu messages, %llu requests, %llu actors, %llu credits, %llu refused, "
           "%llu downs; faults:", (unsigned long long)sum.stats.steps,
           (unsigned long long)sum.counts.sent, (unsigned long long)sum.counts.requested,
           (unsigned long long)sum.counts.spawned, (unsigned long long)sum.counts.credits,
           (unsigned long long)sum.counts.refused, (unsigned long long)sum.counts.downs);
    for (unsigned i = 0; i < OPD_FAULT_COUNT; i++)
        printf(" %llu", (unsigned long long)sum.stats.faults[i]);
    printf("\n%u of %llu seeds failed, hash %016llx\n", failed,
           (unsigned long long)(p->last - p->first + 1), (unsigned long long)sum.hash);
    return failed;
}

static bool parse(int argc, char **argv, plan *out) {
    *out = (plan){.first = 1, .last = 20, .faults = OPD_SIM_FAULTS_ALL};
    for (int i = 1; i < argc; i++) {
        char *rest = NULL;
        if (strcmp(argv[i], "--twice") == 0) {
            out->twice = true;
        } else if (strcmp(argv[i], "--no-faults") == 0) {
            out->faults = 0;
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            out->first = out->last = strtoull(argv[++i], &rest, 10);
            if (*rest == '-') out->last = strtoull(rest + 1, &rest, 10);
            if (*rest != '\0') return false;
        } else {
            return false;
        }
    }
    return true;
}

static void no_log(void *arg, opd_log_level level, const char *text) {
    (void)arg;
    (void)level;
    (void)text;
}

int main(int argc, char **argv) {
    plan p;
    if (!parse(argc, argv, &p)) {
        fprintf(stderr, "usage: %s [--seeds A-B] [--twice] [--no-faults]\n", argv[0]);
        return 2;
    }
    opd_log_sink_set(no_log, NULL); /* crashes and forced ends are what is wanted here */
    return run_all(&p) == 0 ? 0 : 1;
}
