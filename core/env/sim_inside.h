/* sim_inside.h - the structs behind opd/sim.h, shared by env_sim.c, sim_lane.c, sim_fault.c.
 *
 * Invariants:
 *  1. `events` is sorted by time; among equals the first inserted is the first.
 *  2. Each kind of decision has a sequence of random numbers of its own, so that a new fault site
 *     or a longer message does not change the order of the actors.
 *  3. No decision depends on an address, on real time or on floating point.
 * Thread: the world's.
 */
#ifndef OPD_CORE_ENV_SIM_INSIDE_H
#define OPD_CORE_ENV_SIM_INSIDE_H

#include "core/base/list.h"
#include "core/base/rng.h"
#include "core/env/sim.h"

enum { OPD__SIM_NAME_SIZE = 32, OPD__SIM_RECENT = 256 };

#define OPD__SIM_BEGIN_NS ((uint64_t)1000000000)

/* A turn that happened, for the text of a world that does not end. */
typedef struct opd__sim_turn {
    uint64_t pid;
    uint32_t node_id;
    char name[OPD__SIM_NAME_SIZE];
} opd__sim_turn;

struct opd_sim {
    opd_sim_options options;
    uint64_t seed, now_ns, hash;
    opd_rng order, work, faults, net; /* sequences: who is next, jobs, faults, network */
    opd_list nodes, events;
    uint32_t next_node_id;
    bool running;
    uint64_t busy_steps; /* since the world was idle last */
    bool armed[OPD_FAULT_COUNT];
    opd_alloc alloc; /* opd_sim_alloc */
    opd_sim_stats stats;
    uint64_t turns;
    opd__sim_turn recent[OPD__SIM_RECENT]; /* turn t is at t % OPD__SIM_RECENT */
};

typedef struct opd__sim_node {
    opd_env env; /* first */
    opd_sim *sim;
    opd_list node;
    uint32_t id;
    uint32_t handles; /* open: lanes and what transports hold */
    char name[OPD__SIM_NAME_SIZE];
    opd_rng random;
    bool (*turn)(void *arg);
    void *turn_arg;
    uint64_t timer_at_ns;
    bool woken, stopped;
} opd__sim_node;

static inline opd__sim_node *opd__sim_node_of(opd_env *env) {
    return (opd__sim_node *)(void *)env;
}

/* sim_lane.c: the lane entries of the table. */
opd_err opd__sim_lane_open(opd_env *env, const char *name, opd_env_lane **out_lane);
void opd__sim_lane_submit(opd_env_lane *lane, opd_env_task *task);
void opd__sim_lane_close(opd_env_lane *lane);

/* sim_fault.c */
void opd__sim_faults_init(opd_sim *sim);
void opd__sim_turned(opd_env *env, uint64_t pid, const char *name);

/* Appends who had most of the last turns to this thread's error text and returns err. */
opd_err opd__sim_fail_busy(const opd_sim *sim, opd_err err, const char *what);

#endif
