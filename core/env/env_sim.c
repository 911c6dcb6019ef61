/* env_sim.c - the simulated world: nodes, virtual time, who is next (opd/sim.h).
 *
 * A step is one of what could happen now, chosen by the seed: the turn of a node that was
 * woken or whose timer is due (its system then chooses one of its actors), or the first due
 * sim event (a job, bytes on the network). When nothing could, the clock jumps to the next
 * timer or event; when there is none, the world is stalled.
 *
 * Thread: the world's. opd_sim_destroy frees; a node is freed by its env's destroy, too.
 */
#include <stdio.h>

#include "core/base/check.h"
#include "core/env/sim_inside.h"

enum { CLOSING_EVENTS = 1000 };

/* The simulated wall clock begins on 2024-01-01 00:00:00 UTC. */
static const uint64_t WALL_BEGIN_NS = 1704067200u * (uint64_t)1000000000;

/* ---- sim events ------------------------------------------------------------------------ */

void opd_sim_event_cancel(opd_sim_event *event) {
    if (opd_sim_event_waits(event)) opd_list_remove(&event->node);
}

bool opd_sim_event_waits(const opd_sim_event *event) {
    return event->node.next != NULL && opd_list_linked(&event->node);
}

void opd_sim_event_at(opd_sim_event *event, uint64_t at_ns) {
    opd_sim *sim = opd_sim_of(event->env);
    opd_sim_event_cancel(event);
    event->at_ns = at_ns;
    opd_list *at = sim->events.prev; /* most are later than what waits */
    while (at != &sim->events && OPD_CONTAINER_OF(at, opd_sim_event, node)->at_ns > at_ns)
        at = at->prev;
    opd_list_init(&event->node);
    opd_list_insert_before(at->next, &event->node);
}

static opd_sim_event *first_event(const opd_sim *sim) {
    opd_list *first = opd_list_first(&sim->events);
    return first == NULL ? NULL : OPD_CONTAINER_OF(first, opd_sim_event, node);
}

static void fire(opd_sim_event *event) {
    opd__sim_node *node = opd__sim_node_of(event->env);
    opd_list_remove(&event->node);
    node->woken = true;
    event->fire(event);
}

/* ---- steps ----------------------------------------------------------------------------- */

static bool is_ready(const opd__sim_node *node) {
    if (node->turn == NULL || node->stopped) return false;
    return node->woken || node->timer_at_ns <= node->sim->now_ns;
}

static void run_turn(opd__sim_node *node) {
    node->woken = false;
    if (node->timer_at_ns <= node->sim->now_ns) node->timer_at_ns = UINT64_MAX;
    if (node->turn(node->turn_arg)) node->woken = true;
}

/* The index-th ready node. */
static opd__sim_node *ready_at(const opd_sim *sim, uint64_t index) {
    for (opd_list *n = sim->nodes.next;; n = n->next) {
        opd__sim_node *node = OPD_CONTAINER_OF(n, opd__sim_node, node);
        if (is_ready(node) && index-- == 0) return node;
    }
}

/* Does one thing that can happen now; false: there is none. */
static bool step(opd_sim *sim) {
    uint64_t ready = 0;
    for (opd_list *n = sim->nodes.next; n != &sim->nodes; n = n->next)
        ready += is_ready(OPD_CONTAINER_OF(n, opd__sim_node, node)) ? 1 : 0;
    opd_sim_event *event = first_event(sim);
    bool due = event != NULL && event->at_ns <= sim->now_ns;
    if (ready == 0 && !due) return false;
    uint64_t pick = opd_rng_below(&sim->order, ready + (due ? 1 : 0));
    sim->now_ns += opd_rng_below(&sim->order, sim->options.step_max_ns + 1);
    sim->stats.steps++;
    if (pick == ready)
        fire(event);
    else
        run_turn(ready_at(sim, pick));
    return true;
}

/* When something will happen; UINT64_MAX: never. */
static uint64_t next_time(const opd_sim *sim) {
    const opd_sim_event *event = first_event(sim);
    uint64_t at_ns = event == NULL ? UINT64_MAX : event->at_ns;
    for (opd_list *n = sim->nodes.next; n != &sim->nodes; n = n->next) {
        const opd__sim_node *node = OPD_CONTAINER_OF(n, opd__sim_node, node);
        bool live = node->turn != NULL && !node->stopped;
        if (live && node->timer_at_ns < at_ns) at_ns = node->timer_at_ns;
    }
    return at_ns;
}

/* Whether the run is over: `only` has stopped, or without it every system has. */
static bool is_over(const opd_sim *sim, const opd__sim_node *only) {
    unsigned systems = 0;
    if (only != NULL) return only->stopped;
    for (opd_list *n = sim->nodes.next; n != &sim->nodes; n = n->next) {
        const opd__sim_node *node = OPD_CONTAINER_OF(n, opd__sim_node, node);
        if (node->turn == NULL) continue;
        if (!node->stopped) return false;
        systems++;
    }
    return systems > 0;
}

/* Nothing is left to do now: jumps ahead. Sets *out_over where time ends here. */
static opd_err jump(opd_sim *sim, uint64_t until_ns, bool *out_over) {
    uint64_t at_ns = next_time(sim);
    sim->busy_steps = 0;
    if (at_ns == UINT64_MAX && until_ns == OPD_SIM_FOREVER)
        return opd__sim_fail_busy(sim, OPD_ERR_INTERNAL,
                                  "stalled: no actor is ready, no timer runs, no job or byte is "
                                  "on its way");
    *out_over = at_ns > until_ns;
    sim->now_ns = at_ns > until_ns ? until_ns : at_ns > sim->now_ns ? at_ns : sim->now_ns;
    return OPD_OK;
}

typedef struct goal {
    uint64_t until_ns;
    bool (*done)(void *arg);
    void *arg;
    const opd__sim_node *only;
} goal;

static opd_err run_world(opd_sim *sim, const goal *g) {
    const opd_sim_options *o = &sim->options;
    bool over = false;
    while (!over && sim->now_ns < g->until_ns && !is_over(sim, g->only)) {
        if (g->done != NULL && g->done(g->arg)) return OPD_OK;
        if (!step(sim))
            OPD_TRY(jump(sim, g->until_ns, &over));
        else if (++sim->busy_steps > o->busy_steps_max)
            return opd__sim_fail_busy(sim, OPD_ERR_LIMIT, "busy without end, never idle");
        if (sim->now_ns - OPD__SIM_BEGIN_NS > o->time_max_ns)
            return opd__sim_fail_busy(sim, OPD_ERR_TIMEOUT, "not done in the time it has");
    }
    return OPD_OK;
}

static opd_err run(opd_sim *sim, const goal *g) {
    OPD_ASSERT(!sim->running);
    sim->running = true;
    opd_err err = run_world(sim, g);
    sim->running = false;
    return err;
}

opd_err opd_sim_run(opd_sim *sim, uint64_t until_ns, bool (*done)(void *arg), void *arg) {
    return run(sim, &(goal){.until_ns = until_ns, .done = done, .arg = arg});
}

/* ---- the table of a node --------------------------------------------------------------- */

static uint64_t sim_now_ns(opd_env *env) { return opd__sim_node_of(env)->sim->now_ns; }

static uint64_t sim_wall_ns(opd_env *env) {
    return WALL_BEGIN_NS + opd__sim_node_of(env)->sim->now_ns - OPD__SIM_BEGIN_NS;
}

static uint64_t sim_random(opd_env *env) { return opd_rng_next(&opd__sim_node_of(env)->random); }

static void sim_attach(opd_env *env, bool (*turn)(void *arg), void *arg) {
    opd__sim_node *node = opd__sim_node_of(env);
    OPD_ASSERT(turn == NULL || node->turn == NULL);
    node->turn = turn;
    node->turn_arg = arg;
    node->stopped = false;
    node->woken = turn != NULL;
}

static void sim_wake(opd_env *env) { opd__sim_node_of(env)->woken = true; }

static void sim_timer_arm(opd_env *env, uint64_t at_ns) {
    opd__sim_node_of(env)->timer_at_ns = at_ns;
}

static opd_err sim_run(opd_env *env) {
    opd__sim_node *node = opd__sim_node_of(env);
    node->stopped = false;
    node->woken = true;
    return run(node->sim, &(goal){.until_ns = OPD_SIM_FOREVER, .only = node});
}

static void sim_stop(opd_env *env) { opd__sim_node_of(env)->stopped = true; }

static uint32_t sim_choose(opd_env *env, uint32_t count) {
    return (uint32_t)opd_rng_below(&opd__sim_node_of(env)->sim->order, count);
}

static bool sim_env_fault(opd_env *env, opd_fault site, const char *name) {
    return opd_sim_fault(opd__sim_node_of(env)->sim, site, name);
}

/* What a killed actor closed on its way out needs a few callbacks to be gone. */
static void let_close(opd__sim_node *node) {
    opd_sim *sim = node->sim;
    unsigned fired = 0;
    for (opd_list *n = sim->events.next;
         node->handles > 0 && fired < CLOSING_EVENTS && n != &sim->events;) {
        opd_sim_event *event = OPD_CONTAINER_OF(n, opd_sim_event, node);
        n = n->next;
        if (event->env != &node->env) continue;
        fire(event);
        fired++;
        n = sim->events.next; /* a callback may have changed the list */
    }
}

/* What is left for a node without open handles are the last callbacks of closed ones. */
static opd_err sim_destroy(opd_env *env) {
    opd__sim_node *node = opd__sim_node_of(env);
    opd_sim *sim = node->sim;
    let_close(node);
    if (node->handles > 0)
        return opd_fail(OPD_ERR_INTERNAL, "the node %s still has %u open handles", node->name,
                        node->handles);
    for (opd_list *n = sim->events.next; n != &sim->events;) {
        opd_sim_event *event = OPD_CONTAINER_OF(n, opd_sim_event, node);
        n = n->next;
        if (event->env != env) continue;
        fire(event);
        n = sim->events.next; /* a callback may have changed the list */
    }
    opd_list_remove(&node->node);
    opd_mem_free(sim->options.alloc, node);
    return OPD_OK;
}

static const opd_env_ops sim_ops = {
    .now_ns = sim_now_ns,
    .wall_ns = sim_wall_ns,
    .random = sim_random,
    .attach = sim_attach,
    .wake = sim_wake,
    .timer_arm = sim_timer_arm,
    .run = sim_run,
    .stop = sim_stop,
    .lane_open = opd__sim_lane_open,
    .lane_submit = opd__sim_lane_submit,
    .lane_close = opd__sim_lane_close,
    .choose = sim_choose,
    .turned = opd__sim_turned,
    .fault = sim_env_fault,
    .destroy = sim_destroy,
};

/* ---- creation and end ------------------------------------------------------------------ */

static void fill_defaults(opd_sim_options *o) {
    if (o->step_max_ns == 0) o->step_max_ns = 2000;
    if (o->job_min_ns == 0) o->job_min_ns = 20000;
    if (o->job_max_ns == 0) o->job_max_ns = 5000000;
    if (o->job_max_ns < o->job_min_ns) o->job_max_ns = o->job_min_ns;
    if (o->busy_steps_max == 0) o->busy_steps_max = 1000000;
    if (o->time_max_ns == 0) o->time_max_ns = UINT64_MAX;
    if (o->faults_until_ns == 0) o->faults_until_ns = UINT64_MAX;
    if (o->fault_one_in == 0) o->fault_one_in = 50;
}

opd_err opd_sim_create(uint64_t seed, const opd_sim_options *options, opd_sim **out_sim) {
    opd_sim_options filled = options == NULL ? (opd_sim_options){0} : *options;
    fill_defaults(&filled);
    opd_sim *sim = opd_mem_get(filled.alloc, sizeof *sim);
    if (sim == NULL) return opd_fail(OPD_ERR_NOMEM, "simulation");
    sim->options = filled;
    sim->seed = seed;
    sim->hash = seed;
    sim->now_ns = OPD__SIM_BEGIN_NS;
    opd_rng *sequences[] = {&sim->order, &sim->work, &sim->faults, &sim->net};
    for (size_t i = 0; i < OPD_COUNTOF(sequences); i++)
        opd_rng_init(sequences[i], opd_rng_at(seed, i, 0, 0));
    opd_list_init(&sim->nodes);
    opd_list_init(&sim->events);
    opd__sim_faults_init(sim);
    *out_sim = sim;
    return OPD_OK;
}

void opd_sim_destroy(opd_sim *sim) {
    if (sim == NULL) return;
    OPD_ASSERT(!sim->running);
    for (opd_list *n; (n = opd_list_first(&sim->nodes)) != NULL;) {
        opd__sim_node *node = OPD_CONTAINER_OF(n, opd__sim_node, node);
        OPD_ASSERT(node->turn == NULL);        /* its system was not destroyed */
        opd_err err = sim_destroy(&node->env);
        OPD_ASSERT(err == OPD_OK);             /* something on it was not closed */
    }
    opd_mem_free(sim->options.alloc, sim);
}

opd_err opd_sim_env(opd_sim *sim, const char *name, opd_env **out_env) {
    opd__sim_node *node = opd_mem_get(sim->options.alloc, sizeof *node);
    if (node == NULL) return opd_fail(OPD_ERR_NOMEM, "node %s", name);
    node->env.ops = &sim_ops;
    node->sim = sim;
    node->id = sim->next_node_id++;
    (void)snprintf(node->name, sizeof node->name, "%s", name);
    opd_rng_init(&node->random, opd_rng_at(sim->seed, node->id, 1, 0));
    node->timer_at_ns = UINT64_MAX;
    opd_list_push_back(&sim->nodes, &node->node);
    *out_env = &node->env;
    return OPD_OK;
}

opd_sim *opd_sim_of(opd_env *env) {
    OPD_ASSERT(env->ops == &sim_ops);
    return opd__sim_node_of(env)->sim;
}

const char *opd_sim_env_name(opd_env *env) { return opd__sim_node_of(env)->name; }

void opd_sim_handle_opened(opd_env *env) { opd__sim_node_of(env)->handles++; }

void opd_sim_handle_closed(opd_env *env) {
    OPD_ASSERT(opd__sim_node_of(env)->handles > 0);
    opd__sim_node_of(env)->handles--;
}

uint64_t opd_sim_draw(opd_sim *sim, uint64_t n) { return opd_rng_below(&sim->net, n); }

uint64_t opd_sim_now_ns(const opd_sim *sim) { return sim->now_ns; }

opd_sim_stats opd_sim_stats_get(const opd_sim *sim) {
    opd_sim_stats stats = sim->stats;
    stats.hash = sim->hash;
    return stats;
}
