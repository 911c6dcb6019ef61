/* tcp_sim.c - streams of the simulated network (tcp_sim.h, tcp_sim_inside.h).
 *
 * Life of a connection:
 *
 *   connect --delay--> arrives at the listener --accepted, delay--> on_open --> bytes --> ends
 *      |                    |
 *      +-- unknown host,    +-- no listener any more, a fault, or cut off for too long
 *          no listener          (it tries again till then): on_open REFUSED
 *
 * A pipe is emptied by one event at a time, so its bytes stay in order. Its end is a FIN after the
 * last byte (closed, finish) or a RST that takes effect at once (closed with bytes unread, lost).
 * Thread: the world's. A stream is freed after its on_closed, a connection by its last user.
 */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "transports/tcp_sim_inside.h"

static const uint64_t RETRY_NS = 50000000; /* a cut is looked at again after this */
static const uint64_t STAGGER_NS = 250000000; /* an address gets so long while there is another */

typedef struct tcp_sim tcp_sim;
typedef struct connection connection;

typedef struct pipe_sim {
    opd_sim_event arrival; /* on the env of the receiving end */
    connection *owner;
    uint32_t begin, size;  /* bytes [begin, begin + size) of the ring are under way */
    bool fin, reset, deaf; /* deaf: nobody receives any more */
    uint8_t *ring;
} pipe_sim;

struct connection {
    opd_net_sim *net;
    opd_list node;
    tcp_sim *ends[2];
    pipe_sim pipes[2];     /* to the end of that index */
    opd_sim_event arrival; /* of the handshake, at the listener */
    uint64_t give_up_ns;
    uint16_t port;
    unsigned users;
    char hosts[2][OPD__NET_NAME_SIZE];
    uint8_t rings[]; /* two windows */
};

struct tcp_sim {
    opd_tcp base; /* first */
    opd_net_sim *net;
    opd_env *env;
    const opd_alloc *alloc;
    const opd_tcp_events *events;
    void *arg;
    connection *link; /* NULL: never had one */
    unsigned side;    /* its index in link */
    opd_sim_event life, writable;
    opd_sim_event stagger; /* the next address instead of one that does not answer */
    opd_err failure;
    char host[OPD__NET_NAME_SIZE];
    char addresses[OPD__NET_ADDRESSES_MAX][OPD__NET_NAME_SIZE]; /* hosts that it stands for */
    unsigned address_count, address_next;
    uint16_t port;
    bool open, ended, closing, pumping, writing, broken, finish;
    uint64_t progress_ns;
    opd_iobatch batch;
};

static tcp_sim *self_of(opd_tcp *tcp) { return (tcp_sim *)(void *)tcp; }

static uint64_t now_of(const opd_net_sim *net) { return opd_sim_now_ns(net->sim); }

/* ---- pipes ----------------------------------------------------------------------------- */

static void connection_unref(connection *c) {
    if (--c->users > 0) return;
    opd_sim_event_cancel(&c->arrival);
    for (unsigned i = 0; i < 2; i++)
        if (c->pipes[i].arrival.env != NULL) opd_sim_event_cancel(&c->pipes[i].arrival);
    c->net->stats.open--;
    opd_list_remove(&c->node);
    opd_mem_free(c->net->options.alloc, c);
}

/* Sees to it that what is in the pipe, or its end, arrives. */
static void pipe_kick(pipe_sim *p, uint64_t delay_ns) {
    if (p->deaf || p->arrival.env == NULL || opd_sim_event_waits(&p->arrival)) return;
    if (p->size > 0 || p->fin || p->reset)
        opd_sim_event_at(&p->arrival, now_of(p->owner->net) + delay_ns);
}

static void pipe_reset(pipe_sim *p) {
    p->size = 0;
    p->reset = true;
    pipe_kick(p, opd__net_delay(p->owner->net));
}

static void pipe_stop(pipe_sim *p) {
    p->deaf = true;
    p->size = 0;
    if (p->arrival.env != NULL) opd_sim_event_cancel(&p->arrival);
}

/* Copies up to size bytes in; returns how many fitted. Nobody hears what a deaf pipe takes. */
static size_t pipe_write(pipe_sim *p, const uint8_t *bytes, size_t size) {
    uint32_t window = p->owner->net->options.window_bytes, room = window - p->size;
    if (p->deaf || p->reset) return size;
    if (size > room) size = room;
    for (size_t done = 0; done < size;) {
        uint32_t at = (p->begin + p->size) % window;
        size_t part = window - at < size - done ? window - at : size - done;
        memcpy(p->ring + at, bytes + done, part);
        p->size += (uint32_t)part;
        done += part;
    }
    pipe_kick(p, opd__net_delay(p->owner->net));
    return size;
}

static void tcp_end(tcp_sim *t, opd_err err) {
    pipe_stop(&t->link->pipes[t->side]);
    if (t->ended || t->closing) return;
    t->ended = true;
    const char *why = err == OPD_ERR_CLOSED ? "end of file" : "connection reset by peer";
    t->events->on_end(t->arg, opd_fail(err, "connection lost: %s", why));
}

static void connection_lose(connection *c) {
    c->net->stats.resets++;
    for (unsigned i = 0; i < 2; i++) pipe_reset(&c->pipes[i]);
}

/* Whether what should arrive now has to wait, for a cut or a fault; it then tries again. */
static bool is_held_up(connection *c, opd_sim_event *event, const char *at_host) {
    opd_net_sim *net = c->net;
    uint64_t wait_ns = 0;
    if (opd__net_is_cut(net, c->hosts[0], c->hosts[1])) {
        wait_ns = RETRY_NS;
    } else if (opd_sim_fault(net->sim, OPD_FAULT_NET_PARTITION, at_host)) {
        wait_ns = 1 + opd_sim_draw(net->sim, net->options.fault_max_ns);
        if (opd_net_sim_cut(net, c->hosts[0], c->hosts[1], wait_ns) != OPD_OK) wait_ns = RETRY_NS;
    } else if (opd_sim_fault(net->sim, OPD_FAULT_NET_SLOW, at_host)) {
        wait_ns = 1 + opd_sim_draw(net->sim, net->options.fault_max_ns);
    }
    if (wait_ns > 0) opd_sim_event_at(event, now_of(net) + wait_ns);
    return wait_ns > 0;
}

static void deliver_chunk(pipe_sim *p, tcp_sim *to) {
    opd_net_sim *net = p->owner->net;
    uint32_t window = net->options.window_bytes;
    uint32_t chunk = 1 + (uint32_t)opd_sim_draw(net->sim, net->options.chunk_max_bytes);
    if (chunk > p->size) chunk = p->size;
    if (chunk > window - p->begin) chunk = window - p->begin;
    net->stats.chunks++;
    net->stats.bytes += chunk;
    to->events->on_bytes(to->arg, p->ring + p->begin, chunk);
    if (p->deaf) return; /* it closed */
    p->begin = (p->begin + chunk) % window;
    p->size -= chunk;
    pipe_kick(p, opd_sim_draw(net->sim, net->options.delay_max_ns / 8 + 1));
    tcp_sim *from = p->owner->ends[1 - to->side];
    if (from != NULL && from->writing && !from->closing && !opd_sim_event_waits(&from->writable))
        opd_sim_event_at(&from->writable, now_of(net) + opd__net_delay(net));
}

static void on_arrival(opd_sim_event *event) {
    pipe_sim *p = event->arg;
    connection *c = p->owner;
    unsigned side = (unsigned)(p - c->pipes);
    tcp_sim *to = c->ends[side];
    OPD_ASSERT(to != NULL && !to->closing); /* else the pipe is deaf */
    if (!to->open) { /* not told yet that it stands, or not started */
        opd_sim_event_at(event, now_of(c->net) + opd__net_delay(c->net));
        return;
    }
    if (p->reset) {
        tcp_end(to, OPD_ERR_RESET);
        return;
    }
    if (is_held_up(c, event, c->hosts[side])) return;
    if (opd_sim_fault(c->net->sim, OPD_FAULT_NET_RESET, c->hosts[side])) {
        connection_lose(c);
        return;
    }
    if (p->size > 0)
        deliver_chunk(p, to);
    else
        tcp_end(to, OPD_ERR_CLOSED);
}

/* ---- writing --------------------------------------------------------------------------- */

/* Moves the batch into the pipe; whether all of it went. A part is left at random, as a
 * kernel may do. */
static bool write_batch(tcp_sim *t) {
    pipe_sim *p = &t->link->pipes[1 - t->side];
    bool part = opd_sim_draw(t->net->sim, 8) == 0;
    while (t->batch.size_bytes > 0) {
        const opd_iosegment *s = &t->batch.segments[t->batch.first];
        size_t size = part && s->size_bytes > 1 ? s->size_bytes / 2 : s->size_bytes;
        size_t taken = pipe_write(p, s->data, size);
        if (taken > 0) opd_iobatch_written(&t->batch, taken);
        if (part || taken < size) break;
    }
    t->progress_ns = now_of(t->net);
    t->writing = t->batch.size_bytes > 0;
    if (part && t->writing) opd_sim_event_at(&t->writable, t->progress_ns + opd__net_delay(t->net));
    return !t->writing;
}

static void pump(tcp_sim *t) {
    if (!t->open || t->pumping || t->writing || t->broken || t->ended || t->closing) return;
    t->pumping = true;
    do {
        t->events->on_pull(t->arg, &t->batch);
    } while (!t->closing && t->batch.size_bytes > 0 && write_batch(t));
    t->pumping = false;
    if (!t->finish || t->closing || t->writing) return;
    t->broken = true; /* nothing may be written after FIN */
    pipe_sim *p = &t->link->pipes[1 - t->side];
    p->fin = true;
    pipe_kick(p, opd__net_delay(t->net));
}

static void on_writable(opd_sim_event *event) {
    tcp_sim *t = event->arg;
    if (t->closing || t->ended || !t->writing) return;
    if (write_batch(t)) pump(t);
}

static void stream_flush(opd_tcp *base) { pump(self_of(base)); }

static void stream_finish(opd_tcp *base) {
    self_of(base)->finish = true;
    pump(self_of(base));
}

static uint64_t stream_stalled_ns(const opd_tcp *base) {
    const tcp_sim *t = (const tcp_sim *)(const void *)base;
    return t->writing ? now_of(t->net) - t->progress_ns : 0;
}

/* ---- end of life ----------------------------------------------------------------------- */

static void unlink_stream(tcp_sim *t) {
    connection *c = t->link;
    c->ends[t->side] = NULL;
    t->link = NULL;
    connection_unref(c);
}

static void on_gone(opd_sim_event *event) {
    tcp_sim *t = event->arg;
    if (t->link != NULL) unlink_stream(t);
    opd_iobatch_clear(&t->batch);
    if (t->events != NULL) t->events->on_closed(t->arg);
    opd_mem_free(t->alloc, t);
}

/* Says goodbye to the other end. */
static void leave(tcp_sim *t) {
    pipe_sim *in = &t->link->pipes[t->side], *out = &t->link->pipes[1 - t->side];
    bool unread = in->size > 0;
    pipe_stop(in);
    if (unread) {
        pipe_reset(out);
    } else {
        out->fin = true;
        pipe_kick(out, opd__net_delay(t->net));
    }
}

static void stream_close(opd_tcp *base) {
    tcp_sim *t = self_of(base);
    if (t->closing) return;
    t->closing = true;
    opd_sim_handle_closed(t->env);
    opd_sim_event_cancel(&t->writable);
    opd_sim_event_cancel(&t->stagger);
    if (t->link != NULL) leave(t);
    t->life.fire = on_gone;
    opd_sim_event_at(&t->life, now_of(t->net) + opd_sim_draw(t->net->sim, 1000));
}

/* ---- connecting ------------------------------------------------------------------------ */

static tcp_sim *stream_create(opd_env *env, const opd_alloc *alloc) {
    tcp_sim *t = opd_mem_get(alloc, sizeof *t);
    if (t == NULL) return NULL;
    t->net = opd__net_of(env);
    t->base.ops = &t->net->ops;
    t->env = env;
    t->alloc = alloc;
    t->life = (opd_sim_event){.env = env, .arg = t};
    t->writable = (opd_sim_event){.env = env, .fire = on_writable, .arg = t};
    t->stagger = (opd_sim_event){.env = env, .arg = t};
    opd_iobatch_init(&t->batch);
    opd_sim_handle_opened(env);
    return t;
}

static void attach(connection *c, unsigned side, tcp_sim *t) {
    c->ends[side] = t;
    c->users++;
    c->pipes[side].arrival = (opd_sim_event){.env = t->env, .fire = on_arrival,
                                             .arg = &c->pipes[side]};
    t->link = c;
    t->side = side;
}

static opd_err try_next(tcp_sim *t);

static void on_open(opd_sim_event *event) {
    tcp_sim *t = event->arg;
    opd_sim_event_cancel(&t->stagger);
    if (t->failure == OPD_OK) {
        t->open = true;
        t->events->on_open(t->arg, OPD_OK);
        return;
    }
    if (t->address_next < t->address_count) {
        if (t->link != NULL) unlink_stream(t);
        opd_err err = try_next(t);
        if (err == OPD_OK) return;
        t->failure = err;
    }
    t->ended = true;
    t->net->stats.refused++;
    if (t->address_count == 0)
        t->events->on_open(t->arg, opd_fail(t->failure, "the name %s does not resolve", t->host));
    else
        t->events->on_open(t->arg, opd_fail(t->failure, "cannot connect to %s port %u: %s", t->host,
                                            (unsigned)t->port, opd_err_text(t->failure)));
}

/* on_open comes later, with err. */
static void open_later(tcp_sim *t, opd_err err) {
    t->failure = err;
    t->life.fire = on_open;
    opd_sim_event_at(&t->life, now_of(t->net) + opd__net_delay(t->net));
}

/* The listener's side of the connection; NULL: it has no memory for it. */
static tcp_sim *accept_end(connection *c, const opd__net_listener *l) {
    tcp_sim *t = stream_create(l->env, l->alloc);
    if (t != NULL) attach(c, 1, t);
    return t;
}

/* The handshake arrives where the listener was when it left. */
static void on_handshake(opd_sim_event *event) {
    connection *c = event->arg;
    opd_net_sim *net = c->net;
    tcp_sim *client = c->ends[0], *server = NULL;
    opd__net_listener *l = opd__net_find_listener(net, event->env, c->port);
    bool waits = client != NULL && !client->closing;
    if (waits && l != NULL && now_of(net) < c->give_up_ns && is_held_up(c, event, c->hosts[1]))
        return;
    bool refused = l == NULL || opd__net_is_cut(net, c->hosts[0], c->hosts[1]) ||
                   opd_sim_fault(net->sim, OPD_FAULT_NET_REFUSE, c->hosts[1]);
    if (waits && !refused) server = accept_end(c, l);
    if (waits) open_later(client, server == NULL ? OPD_ERR_REFUSED : OPD_OK);
    connection_unref(c);
    if (server != NULL) l->accepted(l->arg, &server->base);
}

static opd_err connection_create(tcp_sim *client, const opd__net_listener *l) {
    opd_net_sim *net = client->net;
    uint32_t window = net->options.window_bytes;
    connection *c = opd_mem_get(net->options.alloc, sizeof *c + 2 * (size_t)window);
    if (c == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a connection");
    c->net = net;
    c->port = l->port;
    c->users = 1; /* the handshake */
    c->give_up_ns = now_of(net) + net->options.connect_timeout_ns;
    c->arrival = (opd_sim_event){.env = l->env, .fire = on_handshake, .arg = c};
    for (unsigned i = 0; i < 2; i++) {
        c->pipes[i].owner = c;
        c->pipes[i].ring = c->rings + i * (size_t)window;
        const opd_env *env = i == 0 ? client->env : l->env;
        (void)snprintf(c->hosts[i], sizeof c->hosts[i], "%s",
                       opd_sim_env_name((opd_env *)(uintptr_t)(const void *)env));
    }
    opd_list_init(&c->node);
    opd_list_push_back(&net->connections, &c->node);
    net->stats.open++;
    attach(c, 0, client);
    opd_sim_event_at(&c->arrival, now_of(net) + opd__net_delay(net));
    return OPD_OK;
}

static void on_stagger(opd_sim_event *event) {
    tcp_sim *t = event->arg;
    opd_sim_event_cancel(&t->life);
    if (t->link != NULL) {
        leave(t);
        unlink_stream(t);
    }
    opd_err err = try_next(t);
    if (err != OPD_OK) open_later(t, err);
}

/* Starts towards the next address. Errors: NOMEM. */
static opd_err try_next(tcp_sim *t) {
    opd_net_sim *net = t->net;
    const char *host = t->addresses[t->address_next++];
    const opd_env *there = opd__net_find_host(net, t->env, host);
    opd__net_listener *l = there == NULL ? NULL : opd__net_find_listener(net, there, t->port);
    t->stagger.fire = on_stagger;
    if (t->address_next < t->address_count) opd_sim_event_at(&t->stagger, now_of(net) + STAGGER_NS);
    if (l != NULL) return connection_create(t, l);
    open_later(t, there == NULL ? OPD_ERR_NOT_FOUND : OPD_ERR_REFUSED);
    return OPD_OK;
}

static void on_resolved(opd_sim_event *event) {
    tcp_sim *t = event->arg;
    const opd__net_name *name = opd__net_find_name(t->net, t->host);
    if (name != NULL && !opd_sim_fault(t->net->sim, OPD_FAULT_NET_REFUSE, t->host)) {
        t->address_count = name->count;
        memcpy(t->addresses, name->hosts, sizeof t->addresses);
    }
    opd_err err = t->address_count > 0 ? try_next(t) : OPD_ERR_NOT_FOUND;
    if (err != OPD_OK) open_later(t, err);
}

static opd_err stream_connect(struct opd_env *env, const opd_alloc *alloc, const char *host,
                              uint16_t port, const opd_tcp_events *events, void *arg,
                              opd_tcp **out_tcp) {
    tcp_sim *t = stream_create(env, alloc);
    if (t == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a connection to %s", host);
    opd_net_sim *net = t->net;
    opd_err err = OPD_OK;
    net->stats.connects++;
    (void)snprintf(t->host, sizeof t->host, "%s", host);
    t->port = port;
    if (opd__net_find_name(net, host) != NULL) {
        t->life.fire = on_resolved;
        opd_sim_event_at(&t->life, now_of(net) + opd__net_delay(net));
    } else { /* it is a host, or nothing */
        memcpy(t->addresses[0], t->host, sizeof t->host);
        t->address_count = 1;
        err = try_next(t);
    }
    if (err != OPD_OK) {
        opd_sim_handle_closed(env);
        opd_mem_free(alloc, t);
        return err;
    }
    t->events = events;
    t->arg = arg;
    *out_tcp = &t->base;
    return OPD_OK;
}

static void stream_start(opd_tcp *base, const opd_tcp_events *events, void *arg) {
    tcp_sim *t = self_of(base);
    t->events = events;
    t->arg = arg;
    t->open = true;
}

void opd_net_sim_reset(opd_net_sim *net, const char *a, const char *b) {
    for (opd_list *n = net->connections.next; n != &net->connections; n = n->next) {
        connection *c = OPD_CONTAINER_OF(n, connection, node);
        bool same = strcmp(c->hosts[0], a) == 0 && strcmp(c->hosts[1], b) == 0;
        bool turned = strcmp(c->hosts[0], b) == 0 && strcmp(c->hosts[1], a) == 0;
        if (same || turned) connection_lose(c);
    }
}

void opd__net_streams_init(opd_tcp_ops *ops) {
    *ops = (opd_tcp_ops){.connect = stream_connect, .flush = stream_flush,
                         .stalled_ns = stream_stalled_ns, .close = stream_close,
                         .finish = stream_finish, .start = stream_start};
}
