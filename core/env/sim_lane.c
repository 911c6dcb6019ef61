/* sim_lane.c - compute threads of a simulated node: jobs that take virtual time (opd/env.h).
 *
 * A lane runs one task at a time, in order: it begins (soon after it was submitted or the one
 * before ended), takes a seeded time, and ends. Its `run` is called at one of the two moments,
 * which the seed chooses: that is as early or as late as a real thread could touch what it
 * shares. Thread: the world's. lane_close frees.
 */
#include "core/base/check.h"
#include "core/env/sim_inside.h"

enum { BEGIN_DELAY_NS = 20000 };

struct opd_env_lane {
    opd_sim_event event; /* the next beginning or end */
    opd__sim_node *node;
    opd_env_task *first, *last;
    bool begun, ran; /* the first task: it is under way, its run was called */
};

static void begin_soon(opd_env_lane *lane) {
    opd_sim *sim = lane->node->sim;
    lane->begun = lane->ran = false;
    opd_sim_event_at(&lane->event, sim->now_ns + opd_rng_below(&sim->work, BEGIN_DELAY_NS));
}

static void run_first(opd_env_lane *lane) {
    lane->ran = true;
    lane->first->run(lane->first);
}

/* Ends the first task; afterwards it may be gone. */
static void end_first(opd_env_lane *lane) {
    opd_env_task *task = lane->first;
    if (!lane->ran) run_first(lane);
    lane->first = task->next;
    if (lane->first == NULL) lane->last = NULL;
    lane->begun = lane->ran = false;
    task->done(task);
}

static void on_event(opd_sim_event *event) {
    opd_env_lane *lane = event->arg;
    opd_sim *sim = lane->node->sim;
    if (lane->begun) {
        end_first(lane);
        if (lane->first != NULL) begin_soon(lane);
        return;
    }
    uint64_t min_ns = sim->options.job_min_ns, spread_ns = sim->options.job_max_ns - min_ns;
    uint64_t took_ns = min_ns + opd_rng_below(&sim->work, spread_ns + 1);
    lane->begun = true;
    opd_sim_event_at(event, sim->now_ns + took_ns);
    if (opd_rng_below(&sim->work, 2) == 0) run_first(lane);
}

opd_err opd__sim_lane_open(opd_env *env, const char *name, opd_env_lane **out_lane) {
    opd__sim_node *node = opd__sim_node_of(env);
    opd_env_lane *lane = opd_mem_get(node->sim->options.alloc, sizeof *lane);
    if (lane == NULL) return opd_fail(OPD_ERR_NOMEM, "lane %s", name);
    lane->node = node;
    lane->event = (opd_sim_event){.env = env, .fire = on_event, .arg = lane};
    opd_sim_handle_opened(env);
    *out_lane = lane;
    return OPD_OK;
}

void opd__sim_lane_submit(opd_env_lane *lane, opd_env_task *task) {
    task->next = NULL;
    if (lane->last == NULL)
        lane->first = task;
    else
        lane->last->next = task;
    lane->last = task;
    if (lane->first == task) begin_soon(lane);
}

void opd__sim_lane_close(opd_env_lane *lane) {
    opd_sim_event_cancel(&lane->event);
    while (lane->first != NULL) end_first(lane);
    opd_sim_handle_closed(&lane->node->env);
    opd_mem_free(lane->node->sim->options.alloc, lane);
}
