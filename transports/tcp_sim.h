/* tcp_sim.h - a simulated network behind tcp.h, for the nodes of a simulated world (opd/sim.h).
 *
 * Hosts are nodes by name; "127.0.0.1", "::1" and "localhost" are the node itself. Other names stand
 * for several hosts (opd_net_sim_name), which are tried in turn: the next when one failed, or instead of
 * one that has not answered within 250 ms. A connection
 * keeps its bytes in order and loses none while it stands; connections overtake one another.
 * Bytes travel in chunks of seeded size with seeded delays; a writer is held up when a
 * window of bytes is under way. A cut between two hosts holds everything back (a connect then
 * fails after a while) until it heals. The fault sites OPD_FAULT_NET_* refuse and reset
 * connections (NET_REFUSE also makes a name not resolve), stop readers for a while and cut hosts off.
 *
 * Bounds: window_bytes for each direction of a connection; 64 cuts.
 * Thread: the world's. The network outlives what is open on it and ends before its world.
 */
#ifndef OPD_TRANSPORTS_TCP_SIM_H
#define OPD_TRANSPORTS_TCP_SIM_H

#include "opd/sim.h"
#include "transports/tcp.h"

typedef struct opd_net_sim opd_net_sim;

/* 0 means the default of the comment. */
typedef struct opd_net_sim_options {
    const opd_alloc *alloc;
    uint64_t delay_min_ns, delay_max_ns; /* one way; 50,000 and 2,000,000 */
    uint32_t chunk_max_bytes;            /* a chunk has 1 .. this many bytes; 4,096 */
    uint32_t window_bytes;               /* sent and not yet received; 16,384 */
    uint64_t connect_timeout_ns;         /* to a host that is cut off; 3 s */
    uint64_t fault_max_ns;               /* longest slowness or cut by a fault; 300 ms */
} opd_net_sim_options;

/* A network without hosts; options may be NULL. Errors: NOMEM. */
opd_err opd_net_sim_create(opd_sim *sim, const opd_net_sim_options *options,
                           opd_net_sim **out_net) OPD_MUST_CHECK;

/* Puts a node of the world on the network under its name: from now on tcp.h on this env is
 * simulated. A node that was ended and made again takes its host over. Errors: NOMEM. */
opd_err opd_net_sim_join(opd_net_sim *net, opd_env *env) OPD_MUST_CHECK;

/* Lets a name stand for up to four hosts, in this order, from now on; count 0: it does not resolve.
 * Each connection looks it up anew. Errors: NOMEM. */
opd_err opd_net_sim_name(opd_net_sim *net, const char *name, const char *const *hosts,
                         size_t count) OPD_MUST_CHECK;

/* Cuts two hosts off from each other for duration_ns (UINT64_MAX: until healed). They need not
 * be on the network yet. Errors: LIMIT. */
opd_err opd_net_sim_cut(opd_net_sim *net, const char *a, const char *b,
                        uint64_t duration_ns) OPD_MUST_CHECK;
void opd_net_sim_heal(opd_net_sim *net, const char *a, const char *b);

/* Loses every connection between two hosts, in both directions. */
void opd_net_sim_reset(opd_net_sim *net, const char *a, const char *b);

typedef struct opd_net_sim_stats {
    uint64_t connects, refused; /* tried; failed for whatever reason */
    uint64_t chunks, bytes;     /* received */
    uint64_t resets;            /* connections lost */
    uint32_t open;              /* connections that exist now */
} opd_net_sim_stats;

opd_net_sim_stats opd_net_sim_stats_get(const opd_net_sim *net);

/* NULL is legal. Streams and listeners must be closed, their envs destroyed: an assertion. */
void opd_net_sim_destroy(opd_net_sim *net);

#endif
