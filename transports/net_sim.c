/* net_sim.c - the simulated network: hosts, names, cuts, listeners, timers (tcp_sim.h).
 * Thread: the world's. Hosts and names are freed with the network, the rest by its close. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/tcp_sim_inside.h"

enum { FIRST_PORT = 20000 };

uint64_t opd__net_delay(opd_net_sim *net) {
    const opd_net_sim_options *o = &net->options;
    return o->delay_min_ns + opd_sim_draw(net->sim, o->delay_max_ns - o->delay_min_ns + 1);
}

/* ---- hosts ----------------------------------------------------------------------------- */

static opd__net_host *host_named(const opd_net_sim *net, const char *name) {
    for (opd_list *n = net->hosts.next; n != &net->hosts; n = n->next) {
        opd__net_host *host = OPD_CONTAINER_OF(n, opd__net_host, node);
        if (strcmp(host->name, name) == 0) return host;
    }
    return NULL;
}

static bool is_self(const char *host) {
    static const char *const names[] = {"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"};
    for (size_t i = 0; i < OPD_COUNTOF(names); i++)
        if (strcmp(host, names[i]) == 0) return true;
    return false;
}

opd_env *opd__net_find_host(const opd_net_sim *net, opd_env *from, const char *host) {
    if (is_self(host)) return from;
    const opd__net_host *found = host_named(net, host);
    return found == NULL ? NULL : found->env;
}

opd_err opd_net_sim_join(opd_net_sim *net, opd_env *env) {
    const char *name = opd_sim_env_name(env);
    opd__net_host *host = host_named(net, name);
    if (host == NULL) {
        host = opd_mem_get(net->options.alloc, sizeof *host);
        if (host == NULL) return opd_fail(OPD_ERR_NOMEM, "host %s", name);
        (void)snprintf(host->name, sizeof host->name, "%s", name);
        opd_list_init(&host->node);
        opd_list_push_back(&net->hosts, &host->node);
    }
    host->env = env;
    env->tcp = &net->ops;
    return OPD_OK;
}

/* ---- names ----------------------------------------------------------------------------- */

static opd__net_name *name_of(const opd_net_sim *net, const char *name) {
    for (opd_list *n = net->names.next; n != &net->names; n = n->next) {
        opd__net_name *found = OPD_CONTAINER_OF(n, opd__net_name, node);
        if (strcmp(found->name, name) == 0) return found;
    }
    return NULL;
}

const opd__net_name *opd__net_find_name(const opd_net_sim *net, const char *name) {
    return name_of(net, name);
}

opd_err opd_net_sim_name(opd_net_sim *net, const char *name, const char *const *hosts,
                         size_t count) {
    OPD_ASSERT(count <= OPD__NET_ADDRESSES_MAX);
    opd__net_name *entry = name_of(net, name);
    if (entry == NULL) {
        entry = opd_mem_get(net->options.alloc, sizeof *entry);
        if (entry == NULL) return opd_fail(OPD_ERR_NOMEM, "name %s", name);
        (void)snprintf(entry->name, sizeof entry->name, "%s", name);
        opd_list_init(&entry->node);
        opd_list_push_back(&net->names, &entry->node);
    }
    entry->count = (unsigned)count;
    for (size_t i = 0; i < count; i++)
        (void)snprintf(entry->hosts[i], sizeof entry->hosts[i], "%s", hosts[i]);
    return OPD_OK;
}

/* ---- cuts ------------------------------------------------------------------------------ */

static bool joins(const opd__net_cut *cut, const char *a, const char *b) {
    return (strcmp(cut->a, a) == 0 && strcmp(cut->b, b) == 0) ||
           (strcmp(cut->a, b) == 0 && strcmp(cut->b, a) == 0);
}

bool opd__net_is_cut(const opd_net_sim *net, const char *a, const char *b) {
    uint64_t now_ns = opd_sim_now_ns(net->sim);
    for (size_t i = 0; i < OPD__NET_CUTS_MAX; i++)
        if (net->cuts[i].until_ns > now_ns && joins(&net->cuts[i], a, b)) return true;
    return false;
}

opd_err opd_net_sim_cut(opd_net_sim *net, const char *a, const char *b, uint64_t duration_ns) {
    uint64_t now_ns = opd_sim_now_ns(net->sim);
    for (size_t i = 0; i < OPD__NET_CUTS_MAX; i++) {
        opd__net_cut *cut = &net->cuts[i];
        if (cut->until_ns > now_ns) continue;
        (void)snprintf(cut->a, sizeof cut->a, "%s", a);
        (void)snprintf(cut->b, sizeof cut->b, "%s", b);
        cut->until_ns = duration_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + duration_ns;
        return OPD_OK;
    }
    return opd_fail(OPD_ERR_LIMIT, "%d cuts between hosts are the most", OPD__NET_CUTS_MAX);
}

void opd_net_sim_heal(opd_net_sim *net, const char *a, const char *b) {
    for (size_t i = 0; i < OPD__NET_CUTS_MAX; i++)
        if (joins(&net->cuts[i], a, b)) net->cuts[i].until_ns = 0;
}

/* ---- listeners ------------------------------------------------------------------------- */

opd__net_listener *opd__net_find_listener(const opd_net_sim *net, const opd_env *env,
                                          uint16_t port) {
    for (opd_list *n = net->listeners.next; n != &net->listeners; n = n->next) {
        opd__net_listener *l = OPD_CONTAINER_OF(n, opd__net_listener, node);
        if (l->env == env && l->port == port) return l;
    }
    return NULL;
}

static uint16_t free_port(opd_net_sim *net, const opd_env *env) {
    while (opd__net_find_listener(net, env, net->next_port) != NULL) net->next_port++;
    return net->next_port++;
}

static void listener_gone(opd_sim_event *event) {
    opd__net_listener *l = event->arg;
    if (l->closed != NULL) l->closed(l->closed_arg);
    opd_mem_free(l->alloc, l);
}

static opd_err listener_listen(struct opd_env *env, const opd_alloc *alloc, const char *host,
                               uint16_t port, void (*accepted)(void *arg, opd_tcp *tcp),
                               void *arg, opd_tcp_listener **out_listener) {
    opd_net_sim *net = opd__net_of(env);
    if (!is_self(host) && strcmp(host, opd_sim_env_name(env)) != 0)
        return opd_fail(OPD_ERR_INVALID, "cannot bind to \"%s\": it is not the host %s", host,
                        opd_sim_env_name(env));
    if (port == 0) port = free_port(net, env);
    if (opd__net_find_listener(net, env, port) != NULL)
        return opd_fail(OPD_ERR_EXISTS, "port %u on %s is in use by another program; choose "
                        "another, or 0 for any free one", (unsigned)port, host);
    opd__net_listener *l = opd_mem_get(alloc, sizeof *l);
    if (l == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory to listen on %s", host);
    *l = (opd__net_listener){.base.ops = &net->ops, .net = net, .env = env, .alloc = alloc,
                             .port = port, .accepted = accepted, .arg = arg};
    l->gone = (opd_sim_event){.env = env, .fire = listener_gone, .arg = l};
    opd_list_init(&l->node);
    opd_list_push_back(&net->listeners, &l->node);
    opd_sim_handle_opened(env);
    *out_listener = &l->base;
    return OPD_OK;
}

static uint16_t listener_port(const opd_tcp_listener *listener) {
    return ((const opd__net_listener *)(const void *)listener)->port;
}

static void listener_close(opd_tcp_listener *listener, void (*closed)(void *arg), void *arg) {
    opd__net_listener *l = (opd__net_listener *)(void *)listener;
    l->closed = closed;
    l->closed_arg = arg;
    opd_list_remove(&l->node);
    opd_sim_handle_closed(l->env);
    opd_sim_event_at(&l->gone, opd_sim_now_ns(l->net->sim));
}

/* ---- timers ---------------------------------------------------------------------------- */

typedef struct timer_sim {
    opd_tcp_timer base; /* first */
    const opd_alloc *alloc;
    opd_sim_event event;
    void (*fired)(void *arg);
    void (*closed)(void *arg);
    void *arg, *closed_arg;
    bool closing;
} timer_sim;

static void timer_event(opd_sim_event *event) {
    timer_sim *timer = event->arg;
    if (!timer->closing) {
        timer->fired(timer->arg);
        return;
    }
    if (timer->closed != NULL) timer->closed(timer->closed_arg);
    opd_mem_free(timer->alloc, timer);
}

static opd_err timer_create(struct opd_env *env, const opd_alloc *alloc, void (*fired)(void *arg),
                            void *arg, opd_tcp_timer **out_timer) {
    timer_sim *timer = opd_mem_get(alloc, sizeof *timer);
    if (timer == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a timer");
    timer->base.ops = &opd__net_of(env)->ops;
    timer->alloc = alloc;
    timer->fired = fired;
    timer->arg = arg;
    timer->event = (opd_sim_event){.env = env, .fire = timer_event, .arg = timer};
    opd_sim_handle_opened(env);
    *out_timer = &timer->base;
    return OPD_OK;
}

static void timer_set(opd_tcp_timer *base, uint64_t at_ns) {
    timer_sim *timer = (timer_sim *)(void *)base;
    opd_sim_event_cancel(&timer->event);
    if (at_ns != UINT64_MAX) opd_sim_event_at(&timer->event, at_ns);
}

static void timer_close(opd_tcp_timer *base, void (*closed)(void *arg), void *arg) {
    timer_sim *timer = (timer_sim *)(void *)base;
    timer->closing = true;
    timer->closed = closed;
    timer->closed_arg = arg;
    opd_sim_handle_closed(timer->event.env);
    opd_sim_event_at(&timer->event, opd_sim_now_ns(opd_sim_of(timer->event.env)));
}

/* ---- creation and end ------------------------------------------------------------------ */

static void fill_defaults(opd_net_sim_options *o) {
    if (o->delay_min_ns == 0) o->delay_min_ns = 50000;
    if (o->delay_max_ns == 0) o->delay_max_ns = 2000000;
    if (o->delay_max_ns < o->delay_min_ns) o->delay_max_ns = o->delay_min_ns;
    if (o->chunk_max_bytes == 0) o->chunk_max_bytes = 4096;
    if (o->window_bytes == 0) o->window_bytes = 16384;
    if (o->connect_timeout_ns == 0) o->connect_timeout_ns = 3000000000u;
    if (o->fault_max_ns == 0) o->fault_max_ns = 300000000;
}

opd_err opd_net_sim_create(opd_sim *sim, const opd_net_sim_options *options,
                           opd_net_sim **out_net) {
    opd_net_sim_options filled = options == NULL ? (opd_net_sim_options){0} : *options;
    fill_defaults(&filled);
    opd_net_sim *net = opd_mem_get(filled.alloc, sizeof *net);
    if (net == NULL) return opd_fail(OPD_ERR_NOMEM, "simulated network");
    net->sim = sim;
    net->options = filled;
    net->next_port = FIRST_PORT;
    opd_list_init(&net->hosts);
    opd_list_init(&net->names);
    opd_list_init(&net->listeners);
    opd_list_init(&net->connections);
    opd__net_streams_init(&net->ops);
    net->ops.listen = listener_listen;
    net->ops.listener_port = listener_port;
    net->ops.listener_close = listener_close;
    net->ops.timer_create = timer_create;
    net->ops.timer_set = timer_set;
    net->ops.timer_close = timer_close;
    *out_net = net;
    return OPD_OK;
}

opd_net_sim_stats opd_net_sim_stats_get(const opd_net_sim *net) { return net->stats; }

void opd_net_sim_destroy(opd_net_sim *net) {
    if (net == NULL) return;
    OPD_ASSERT(opd_list_empty(&net->listeners) && opd_list_empty(&net->connections));
    for (opd_list *n; (n = opd_list_pop_front(&net->hosts)) != NULL;)
        opd_mem_free(net->options.alloc, OPD_CONTAINER_OF(n, opd__net_host, node));
    for (opd_list *n; (n = opd_list_pop_front(&net->names)) != NULL;)
        opd_mem_free(net->options.alloc, OPD_CONTAINER_OF(n, opd__net_name, node));
    opd_mem_free(net->options.alloc, net);
}
