/* http_client.c - the client half of http.h: queue, deadlines, turns, and the choice of the protocol
 * (http_client_inside.h). Connections are http2_client.c and http1_client.c.
 *
 * A call's way: send -> QUEUED -> (turn) WIRE -> DONE -> done(). Whatever ends a call - answer,
 * reset, deadline, cancel, loss, close - goes through opd__client_settle, which moves it to client->done;
 * deliver() hands those out. All work happens in turn(), which the timer or a connection event
 * starts; functions the user calls only change lists and arm the timer. So `done` is never
 * called from inside them, and many sends of one loop turn leave in one write.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "opd/log.h"
#include "transports/http.h"
#include "transports/http_client_inside.h"

static const uint64_t never_ns = UINT64_MAX;
static const uint64_t SOON_NS = 1; /* long past on every clock: the timer fires at its next chance */
static const uint64_t ns_per_ms = 1000000;

static void set_timer(opd_http_client *client, uint64_t at_ns) {
    if (at_ns >= client->timer_at_ns || client->finishing) return;
    client->timer_at_ns = at_ns;
    opd_tcp_timer_set(client->timer, at_ns);
}

static void arm(opd_http_client *client, uint64_t at_ns) {
    if (at_ns == 0 || at_ns >= client->due_ns) return;
    client->due_ns = at_ns;
    set_timer(client, at_ns);
}

void opd__client_arm(opd_http_client *client, uint64_t at_ns) { arm(client, at_ns); }

static uint64_t now_of(const opd_http_client *client) { return opd_tcp_now_ns(client->o.env); }

/* A turn soon, unless one goes on. */
static void wake(opd_http_client *client) {
    if (!client->in_turn && client->timer_at_ns > 1) set_timer(client, SOON_NS);
}

/* ---- calls ---- */

/* Ends a call in whatever state it is: takes it off its list and its stream. */
void opd__client_settle(opd_http_call *call, opd_err err, bool retry_safe, const char *text) {
    opd_http_client *client = call->client;
    if (call->state == OPD__CALL_DONE) return;
    if (call->state == OPD__CALL_QUEUED) client->queued--;
    if (call->state == OPD__CALL_WIRE) {
        client->inflight--;
        client->receiving_bytes -= call->claimed_bytes;
    }
    if (call->stream != NULL) opd__h2_drop(call);
    if (call->pooled != NULL) opd__h1_drop(call->pooled);
    call->pooled = NULL;
    call->state = OPD__CALL_DONE;
    call->err = err;
    call->retry_safe = retry_safe;
    if (err != OPD_OK)
        snprintf(call->error, sizeof call->error, "%s://%s%.64s%.64s: %.300s",
                 opd_url_scheme(&client->url), client->url.authority, client->url.path, call->path, text);
    opd_list_remove(&call->link);
    opd_list_push_back(&client->done, &call->link);
    wake(client);
}

static void deliver(opd_http_client *client) {
    for (opd_list *node; (node = opd_list_pop_front(&client->done)) != NULL;) {
        opd_http_call *call = OPD_CONTAINER_OF(node, opd_http_call, link);
        call->state = OPD__CALL_IDLE;
        call->done(call); /* the call may be gone from here on */
    }
}

void opd__client_settle_queue(opd_http_client *client, opd_err err, const char *text) {
    for (opd_list *node; (node = opd_list_first(&client->queue)) != NULL;)
        opd__client_settle(OPD_CONTAINER_OF(node, opd_http_call, link), err, true, text);
}

/* ---- connections ---- */

void opd__client_back_off(opd_http_client *client) {
    uint64_t next_ms = client->backoff_ms * 2;
    if (next_ms < client->o.backoff_min_ms) next_ms = client->o.backoff_min_ms;
    if (next_ms > client->o.backoff_max_ms) next_ms = client->o.backoff_max_ms;
    client->backoff_ms = next_ms;
    client->retry_at_ns = now_of(client) + next_ms * ns_per_ms;
}

opd_err opd__client_open_error(opd_err err, char *text, size_t text_size) {
    bool there = err == OPD_ERR_UNTRUSTED || err == OPD_ERR_REMOTE || err == OPD_ERR_PROTO ||
                 err == OPD_ERR_UNSUPPORTED; /* it answered, but like this it will not do */
    bool named = err != OPD_ERR_NOT_FOUND;
    snprintf(text, text_size, "%.260s%s", opd_err_context(),
             there || !named ? "" : "; is the server running there?");
    return there || !named ? err : OPD_ERR_REFUSED;
}

opd_err opd__client_connect(opd_http_client *client, const opd_tcp_events *events, void *arg,
                            opd_tcp **out_tcp) {
    return opd_tls_connect(client->tls, client->o.env, client->o.alloc, client->url.host,
                           client->url.port, events, arg, out_tcp);
}

/* ---- the turn ---- */

/* Puts waiting calls on the wire, as far as we and the peer allow. Over HTTP/1.1, when that knowledge
 * is old, HTTP/2 is tried beside it. */
static void fill(opd_http_client *client) {
    if (client->closing || client->h1_probing) return;
    if (!client->http1) {
        opd__h2_fill(client);
        return;
    }
    if (opd_list_empty(&client->queue)) return;
    if (!opd__h2_any(client) && now_of(client) >= client->http1_until_ns) (void)opd__h2_dial(client);
    opd__h1_fill(client);
}

static void on_timer_closed(void *arg) {
    opd_http_client *client = arg;
    void (*closed)(void *) = client->closed;
    void *closed_arg = client->closed_arg;
    opd_tls_context_destroy(client->tls);
    opd_mem_free(client->o.alloc, client);
    closed(closed_arg);
}

void opd__client_turn(opd_http_client *client) {
    client->in_turn = true;
    client->again = false;
    deliver(client);
    fill(client);
    opd__h2_flush(client);
    opd__h1_flush(client);
    client->in_turn = false;
    bool waiting = !client->http1 && !client->h1_probing && !opd_list_empty(&client->queue) &&
                   !opd__h2_any(client);
    if (!opd_list_empty(&client->done) || client->again) wake(client);
    else if (waiting && !client->closing) arm(client, client->retry_at_ns + 1);
    if (!client->closing || client->finishing || !opd_list_empty(&client->done) ||
        !opd_list_empty(&client->conns) || !opd_list_empty(&client->h1_conns))
        return;
    client->finishing = true;
    opd_tcp_timer_close(client->timer, on_timer_closed, client);
}

void opd__client_again(opd_http_client *client) {
    client->again = true;
    wake(client);
}

/* ---- deadlines ---- */

/* Most of its firings only begin a turn; lists are looked through when something in them is due. */
static void on_timer(void *arg) {
    opd_http_client *client = arg;
    uint64_t now_ns = now_of(client);
    client->timer_at_ns = never_ns;
    client->in_turn = true;
    if (now_ns >= client->due_ns) {
        client->due_ns = never_ns;
        opd__calls_expire(&client->queue, now_ns);
        opd__calls_expire(&client->wire, now_ns);
        opd__h2_expire(client, now_ns);
        opd__h1_expire(client, now_ns);
    }
    opd__client_turn(client);
    set_timer(client, client->due_ns);
}

/* ---- the API ---- */

static uint64_t or_default(uint64_t value, uint64_t fallback) { return value ? value : fallback; }

static void options_complete(opd_http_client_options *o) {
    o->max_inflight = (uint32_t)or_default(o->max_inflight, 128);
    o->max_queue = (uint32_t)or_default(o->max_queue, 4096);
    o->max_answer_bytes = or_default(o->max_answer_bytes, 256u << 20);
    o->max_total_bytes = or_default(o->max_total_bytes, 1u << 30);
    o->stream_window_bytes = (uint32_t)or_default(o->stream_window_bytes, 16u << 20);
    o->connection_window_bytes = (uint32_t)or_default(o->connection_window_bytes, 256u << 20);
    o->connect_timeout_ms = or_default(o->connect_timeout_ms, 5000);
    o->settings_timeout_ms = or_default(o->settings_timeout_ms, 10000);
    o->backoff_min_ms = or_default(o->backoff_min_ms, 50);
    o->backoff_max_ms = or_default(o->backoff_max_ms, 2000);
    o->connections = (uint32_t)or_default(o->connections, 1);
    o->max_streams = (uint32_t)or_default(o->max_streams, o->max_inflight);
    o->connection_calls_max = (uint32_t)or_default(o->connection_calls_max, 1u << 29);
    o->ping_after_ms = or_default(o->ping_after_ms, 20000);
    o->ping_timeout_ms = or_default(o->ping_timeout_ms, 20000);
    o->http1_connections = (uint32_t)or_default(o->http1_connections, 64);
    o->http1_idle_ms = or_default(o->http1_idle_ms, 3500);
    o->http1_ttl_ms = or_default(o->http1_ttl_ms, 60000);
}

static opd_err tls_open(opd_http_client *client) {
    static const opd_tls_options trusting_the_system;
    const opd_tls_options *tls = client->o.tls != NULL ? client->o.tls : &trusting_the_system;
    client->o.tls = NULL; /* not ours to keep */
    if (!client->url.secure) return OPD_OK;
    if (tls->unverified)
        OPD_LOG_WARN("https://%s: the server's certificate is not verified: anyone on the way can read "
                     "and change what it answers", client->url.authority);
    return opd_tls_context_create(client->o.alloc, false, tls, &client->tls);
}

opd_err opd_http_client_create(const opd_http_client_options *options,
                               opd_http_client **out_client) {
    opd_url url;
    OPD_TRY(opd_url_parse(options->url, &url));
    opd_http_client *client = opd_mem_get(options->alloc, sizeof *client);
    if (client == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a client of %s", options->url);
    client->o = *options;
    client->o.url = NULL;
    client->url = url;
    options_complete(&client->o);
    opd_list_init(&client->queue);
    opd_list_init(&client->wire);
    opd_list_init(&client->done);
    opd_list_init(&client->conns);
    opd_list_init(&client->h1_conns);
    client->timer_at_ns = client->due_ns = never_ns;
    opd_err err = tls_open(client);
    if (err == OPD_OK)
        err = opd_tcp_timer_create(options->env, options->alloc, on_timer, client, &client->timer);
    if (err != OPD_OK) {
        opd_tls_context_destroy(client->tls);
        opd_mem_free(options->alloc, client);
        return err;
    }
    *out_client = client;
    return OPD_OK;
}

opd_err opd_http_client_send(opd_http_client *client, opd_http_call *call) {
    if (client->closing)
        return opd_fail(OPD_ERR_CLOSED, "the client of %s is closing", client->url.authority);
    if (call->path == NULL || call->path[0] != '/' || call->done == NULL)
        return opd_fail(OPD_ERR_INVALID, "a call to %s needs a path that starts with / and a done "
                        "callback", client->url.authority);
    if (client->queued >= client->o.max_queue)
        return opd_fail(OPD_ERR_AGAIN, "%u calls to %s are waiting already", client->queued,
                        client->url.authority);
    OPD_ASSERT(call->state == OPD__CALL_IDLE);
    opd__call_ready(call, client);
    call->state = OPD__CALL_QUEUED;
    opd_list_init(&call->link);
    opd_list_push_back(&client->queue, &call->link);
    client->queued++;
    arm(client, call->deadline_ns);
    wake(client);
    return OPD_OK;
}

void opd_http_client_cancel(opd_http_call *call) {
    if (call->state == OPD__CALL_QUEUED || call->state == OPD__CALL_WIRE)
        opd__client_settle(call, OPD_ERR_CANCELLED, call->state == OPD__CALL_QUEUED, "cancelled by the caller");
}

void opd_http_client_close(opd_http_client *client, void (*closed)(void *arg), void *arg) {
    OPD_ASSERT(!client->closing && closed != NULL);
    client->closing = true;
    client->closed = closed;
    client->closed_arg = arg;
    opd__client_settle_queue(client, OPD_ERR_CLOSED, "the client was closed");
    for (opd_list *node; (node = opd_list_first(&client->wire)) != NULL;)
        opd__client_settle(OPD_CONTAINER_OF(node, opd_http_call, link), OPD_ERR_CLOSED, false,
               "the client was closed");
    wake(client);
}

uint32_t opd_http_client_queued(const opd_http_client *client) { return client->queued; }
uint32_t opd_http_client_inflight(const opd_http_client *client) { return client->inflight; }
const char *opd_http_client_authority(const opd_http_client *client) { return client->url.authority; }

uint64_t opd_http_client_replays(const opd_http_client *client) { return client->replays; }
uint64_t opd_http_client_connections(const opd_http_client *client) { return client->connections; }

opd_http_protocol opd_http_client_protocol(const opd_http_client *client) {
    if (client->http1) return OPD_HTTP_PROTOCOL_HTTP1;
    return opd__h2_settled(client) ? OPD_HTTP_PROTOCOL_HTTP2 : OPD_HTTP_PROTOCOL_UNKNOWN;
}
