/* sim_fault.c - what fails in a simulated world, its allocator, and the account of its turns.
 *
 * A site is armed for a whole run or not at all, so that seeds differ in kind: some have lost
 * connections only, some crashes only, some everything. Thread: the world's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/env/sim_inside.h"

static const char *const site_names[OPD_FAULT_COUNT] = {
    [OPD_FAULT_SEND_AGAIN] = "a send refused",
    [OPD_FAULT_LINK_AGAIN] = "a link without credit",
    [OPD_FAULT_REQUEST_AGAIN] = "a request refused",
    [OPD_FAULT_MSG_CREATE] = "no message in the pool",
    [OPD_FAULT_ACTOR_CRASH] = "a crash",
    [OPD_FAULT_JOB] = "a job failed",
    [OPD_FAULT_ALLOC] = "out of memory",
    [OPD_FAULT_NET_REFUSE] = "connection refused",
    [OPD_FAULT_NET_RESET] = "connection lost",
    [OPD_FAULT_NET_SLOW] = "a slow peer",
    [OPD_FAULT_NET_PARTITION] = "a partition",
};

bool opd_sim_fault(opd_sim *sim, opd_fault site, const char *name) {
    const opd_sim_options *o = &sim->options;
    if (!sim->running || !sim->armed[site]) return false;
    if (sim->now_ns - OPD__SIM_BEGIN_NS >= o->faults_until_ns) return false;
    if (o->fault_allowed != NULL && !o->fault_allowed(o->fault_arg, site, name)) return false;
    if (opd_rng_below(&sim->faults, o->fault_one_in) != 0) return false;
    sim->stats.faults[site]++;
    (void)opd_fail(OPD_ERR_REMOTE, "simulated: %s (seed %llu, at %llu us%s%s)", site_names[site],
                   (unsigned long long)sim->seed,
                   (unsigned long long)((sim->now_ns - OPD__SIM_BEGIN_NS) / 1000),
                   *name == '\0' ? "" : ", ", name);
    return true;
}

/* ---- memory ---------------------------------------------------------------------------- */

enum { HEADER = 16 }; /* bytes before a block, which keep its size and its alignment */

static void count_block(opd_sim_stats *stats, size_t size_bytes) {
    stats->live_blocks++;
    stats->live_bytes += size_bytes;
    if (stats->live_bytes > stats->live_bytes_max) stats->live_bytes_max = stats->live_bytes;
}

static void *sim_resize(void *context, void *ptr, size_t size_bytes) {
    opd_sim *sim = context;
    const opd_alloc *inner = sim->options.alloc;
    char *old = ptr == NULL ? NULL : (char *)ptr - HEADER;
    size_t old_bytes = 0;
    if (old != NULL) memcpy(&old_bytes, old, sizeof old_bytes);
    if (size_bytes > 0 && opd_sim_fault(sim, OPD_FAULT_ALLOC, "")) return NULL;
    if (size_bytes > SIZE_MAX - HEADER) return NULL;
    char *block = NULL;
    if (size_bytes == 0)
        opd_mem_free(inner, old);
    else if ((block = opd_mem_resize(inner, old, size_bytes + HEADER)) == NULL)
        return NULL;
    if (old != NULL) {
        sim->stats.live_blocks--;
        sim->stats.live_bytes -= old_bytes;
    }
    if (block == NULL) return NULL;
    memcpy(block, &size_bytes, sizeof size_bytes);
    count_block(&sim->stats, size_bytes);
    return block + HEADER;
}

const opd_alloc *opd_sim_alloc(opd_sim *sim) { return &sim->alloc; }

void opd__sim_faults_init(opd_sim *sim) {
    for (unsigned site = 0; site < OPD_FAULT_COUNT; site++) {
        bool drawn = opd_rng_below(&sim->faults, 4) == 0;
        bool named = (sim->options.faults >> site & 1) != 0;
        sim->armed[site] = named && (drawn || sim->options.faults_all_armed);
    }
    sim->alloc = (opd_alloc){.resize = sim_resize, .context = sim};
}

/* ---- turns ----------------------------------------------------------------------------- */

void opd__sim_turned(opd_env *env, uint64_t pid, const char *name) {
    opd__sim_node *node = opd__sim_node_of(env);
    opd_sim *sim = node->sim;
    sim->hash = opd_rng_at(sim->hash, sim->now_ns, node->id, pid);
    opd__sim_turn *turn = &sim->recent[sim->turns++ % OPD__SIM_RECENT];
    turn->pid = pid;
    turn->node_id = node->id;
    (void)snprintf(turn->name, sizeof turn->name, "%s", name);
}

typedef struct share {
    const opd__sim_turn *turn;
    unsigned count;
} share;

static int by_count(const void *a, const void *b) {
    unsigned x = ((const share *)a)->count, y = ((const share *)b)->count;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Who had the last turns, most first; returns how many actors they were. */
static size_t shares_of(const opd_sim *sim, share *shares) {
    size_t count = 0, turns = sim->turns < OPD__SIM_RECENT ? sim->turns : OPD__SIM_RECENT;
    for (size_t i = 0; i < turns; i++) {
        const opd__sim_turn *turn = &sim->recent[i];
        size_t at = 0;
        while (at < count && (shares[at].turn->pid != turn->pid ||
                              shares[at].turn->node_id != turn->node_id))
            at++;
        if (at == count) shares[count++] = (share){.turn = turn};
        shares[at].count++;
    }
    qsort(shares, count, sizeof *shares, by_count);
    return count;
}

opd_err opd__sim_fail_busy(const opd_sim *sim, opd_err err, const char *what) {
    share shares[OPD__SIM_RECENT];
    char text[512];
    size_t count = shares_of(sim, shares);
    int length = snprintf(text, sizeof text, "%s (seed %llu, at %llu us); most of the last turns:",
                          what, (unsigned long long)sim->seed,
                          (unsigned long long)((sim->now_ns - OPD__SIM_BEGIN_NS) / 1000));
    for (size_t i = 0; i < count && i < 4 && length > 0 && (size_t)length < sizeof text; i++)
        length += snprintf(text + length, sizeof text - (size_t)length, "%s %s (%u)",
                           i == 0 ? "" : ",", shares[i].turn->name, shares[i].count);
    return opd_fail(err, "%s%s", text, count == 0 ? " none" : "");
}
