/* tcp_sim_inside.h - the structs behind tcp_sim.h, shared by net_sim.c (hosts, cuts, listeners,
 * timers) and tcp_sim.c (streams).
 *
 * A connection joins two ends, 0 the one that connected, and has two pipes: pipes[i] carries
 * bytes to end i. It lives while an end, or its handshake, refers to it; an end may be gone
 * while the last bytes it sent are still under way. Thread: the world's.
 */
#ifndef OPD_TRANSPORTS_TCP_SIM_INSIDE_H
#define OPD_TRANSPORTS_TCP_SIM_INSIDE_H

#include "core/base/list.h"
#include "core/env/sim.h"
#include "transports/tcp_ops.h"
#include "transports/tcp_sim.h"

enum { OPD__NET_NAME_SIZE = 32, OPD__NET_CUTS_MAX = 64, OPD__NET_ADDRESSES_MAX = 4 };

/* A name and the hosts it stands for. */
typedef struct opd__net_name {
    opd_list node;
    char name[OPD__NET_NAME_SIZE];
    char hosts[OPD__NET_ADDRESSES_MAX][OPD__NET_NAME_SIZE];
    unsigned count;
} opd__net_name;

typedef struct opd__net_host {
    opd_list node;
    opd_env *env;
    char name[OPD__NET_NAME_SIZE];
} opd__net_host;

typedef struct opd__net_cut {
    char a[OPD__NET_NAME_SIZE], b[OPD__NET_NAME_SIZE];
    uint64_t until_ns; /* past: free */
} opd__net_cut;

struct opd_net_sim {
    opd_tcp_ops ops; /* first: env->tcp points here */
    opd_sim *sim;
    opd_net_sim_options options;
    opd_list hosts, names, listeners, connections;
    opd__net_cut cuts[OPD__NET_CUTS_MAX];
    uint16_t next_port;
    opd_net_sim_stats stats;
};

typedef struct opd__net_listener {
    opd_tcp_listener base; /* first */
    opd_net_sim *net;
    opd_list node;
    opd_env *env;
    const opd_alloc *alloc;
    uint16_t port;
    void (*accepted)(void *arg, opd_tcp *tcp);
    void (*closed)(void *arg);
    void *arg, *closed_arg;
    opd_sim_event gone;
} opd__net_listener;

static inline opd_net_sim *opd__net_of(const struct opd_env *env) {
    return (opd_net_sim *)(uintptr_t)(const void *)env->tcp;
}

/* net_sim.c */
uint64_t opd__net_delay(opd_net_sim *net);
bool opd__net_is_cut(const opd_net_sim *net, const char *a, const char *b);
opd_env *opd__net_find_host(const opd_net_sim *net, opd_env *from, const char *host);
const opd__net_name *opd__net_find_name(const opd_net_sim *net, const char *name); /* NULL: none */
opd__net_listener *opd__net_find_listener(const opd_net_sim *net, const opd_env *env,
                                          uint16_t port);

/* tcp_sim.c: the stream entries of the table, and opd_net_sim_reset. */
void opd__net_streams_init(opd_tcp_ops *ops);

#endif
