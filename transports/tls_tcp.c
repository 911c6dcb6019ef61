/* tls_tcp.c - a tcp.h stream whose bytes go through a TLS connection (tls_tcp.h).
 *
 *   user --on_pull--> plain --push--> tls --pull--> inner's batch
 *   user <--on_bytes-- input <--read-- tls <--receive-- inner's on_bytes
 *
 * Invariants: (1) the inner stream is closed exactly when this one is, and this one is freed after
 * the inner's on_closed, or at once if it was never started; (2) after `ended` nothing is told but
 * on_closed; (3) the user's callbacks may close the stream at any point: `closing` is looked at
 * after each of them.
 * Thread: the loop.
 */
#include "transports/tls_tcp.h"

#include "core/base/check.h"
#include "opd/log.h"
#include "transports/tcp_ops.h"

enum { INPUT_BYTES = 16 * 1024 };

typedef struct tls_tcp {
    opd_tcp base; /* first */
    opd_tcp *inner;
    opd_tls *tls;
    const opd_alloc *alloc;
    const opd_tcp_events *events; /* NULL: accepted, not started */
    void *arg;
    bool server, told; /* told: the handshake is over */
    bool refused; /* server: the handshake failed; the alert is on its way out */
    bool finish, ended, closing, pulling;
    opd_iobatch plain; /* the user's bytes, not encrypted yet */
    uint8_t input[INPUT_BYTES];
} tls_tcp;

static const opd_tcp_ops tls_ops;

static tls_tcp *self_of(opd_tcp *tcp) { return (tls_tcp *)(void *)tcp; }

static void release(tls_tcp *self) {
    opd_tls_destroy(self->tls);
    opd_iobatch_clear(&self->plain);
    opd_mem_free(self->alloc, self);
}

/* ---- out ---- */

/* Asks the user if nothing is left, and encrypts; whether there was something to encrypt. */
static bool encrypt(tls_tcp *self) {
    if (!self->told || self->ended || self->closing) return false;
    if (self->plain.size_bytes == 0) self->events->on_pull(self->arg, &self->plain);
    if (self->closing || self->plain.size_bytes == 0) return false;
    size_t before = self->plain.size_bytes;
    if (opd_tls_push(self->tls, &self->plain) != OPD_OK) {
        self->finish = true;
        opd_tcp_finish(self->inner);
    }
    return self->plain.size_bytes < before;
}

static void on_pull(void *arg, opd_iobatch *batch) {
    tls_tcp *self = arg;
    self->pulling = true;
    bool more = true;
    while (more && batch->staged_bytes < OPD_IOBATCH_STAGE_BYTES) {
        more = opd_tls_pull(self->tls, batch);
        if (encrypt(self)) more = true;
    }
    if (self->finish && batch->size_bytes == 0) {
        opd_tls_finish(self->tls);
        (void)opd_tls_pull(self->tls, batch);
    }
    self->pulling = false;
}

/* ---- in ---- */

/* The end, told once: before the handshake is over a client hears it as on_open. */
static void end(tls_tcp *self, opd_err err) {
    if (self->ended || self->closing) return;
    self->ended = true;
    if (!self->told && !self->server) {
        self->events->on_open(self->arg, err);
        return;
    }
    if (err != OPD_ERR_CLOSED) err = OPD_ERR_RESET;
    self->events->on_end(self->arg, err);
}

/* A failed connection. A server that closed at once, with bytes of the client unread, would destroy
 * the alert on its way: FIN instead, and the client's end, or the user's patience, ends it. */
static void fail(tls_tcp *self) {
    opd_err err = opd_tls_receive(self->tls, NULL, 0); /* its text: flushing may have set another */
    if (!self->server || self->told) {
        end(self, err);
        return;
    }
    OPD_LOG_DEBUG("a connection was not secured: %s", opd_err_context());
    self->refused = true;
    opd_tcp_finish(self->inner);
}

static void tell_open(tls_tcp *self) {
    self->told = true;
    if (!self->server) self->events->on_open(self->arg, OPD_OK);
}

/* Gives the user all that can be decrypted now. */
static opd_err decrypt(tls_tcp *self) {
    for (size_t size = 1; size > 0 && !self->closing;) {
        OPD_TRY(opd_tls_read(self->tls, self->input, sizeof self->input, &size));
        if (!self->told && opd_tls_state_of(self->tls) != OPD_TLS_STATE_HANDSHAKE) tell_open(self);
        if (size > 0 && !self->closing) self->events->on_bytes(self->arg, self->input, size);
    }
    return OPD_OK;
}

static void on_bytes(void *arg, const uint8_t *bytes, size_t size_bytes) {
    tls_tcp *self = arg;
    if (self->ended || self->closing || self->refused) return;
    opd_err err = opd_tls_receive(self->tls, bytes, size_bytes);
    if (err == OPD_OK) err = decrypt(self);
    if (self->closing) return;
    bool over = err == OPD_OK && opd_tls_state_of(self->tls) == OPD_TLS_STATE_ENDED;
    opd_tcp_flush(self->inner); /* handshake, or the alert that says what is wrong */
    if (self->closing) return;
    if (err != OPD_OK)
        fail(self);
    else if (over)
        end(self, opd_fail(OPD_ERR_CLOSED, "connection lost: end of file"));
}

static void on_open(void *arg, opd_err err) {
    tls_tcp *self = arg;
    if (err != OPD_OK) end(self, err);
    else opd_tcp_flush(self->inner); /* ClientHello */
}

static void on_end(void *arg, opd_err err) {
    tls_tcp *self = arg;
    if (!self->told)
        err = opd_fail(OPD_ERR_RESET, "the connection was lost during the TLS handshake; does the "
                       "peer speak TLS on this port?");
    else if (err == OPD_ERR_CLOSED)
        err = opd_fail(OPD_ERR_RESET, "connection lost: it was cut without TLS's close_notify");
    end(self, err);
}

static void on_closed(void *arg) {
    tls_tcp *self = arg;
    self->events->on_closed(self->arg);
    release(self);
}

static const opd_tcp_events inner_events = {on_open, on_bytes, on_pull, on_end, on_closed};

/* ---- the stream's calls ---- */

static void stream_flush(opd_tcp *base) { opd_tcp_flush(self_of(base)->inner); }

static uint64_t stream_stalled_ns(const opd_tcp *base) {
    return opd_tcp_stalled_ns(((const tls_tcp *)(const void *)base)->inner);
}

/* Says close_notify if it can leave at once; what the user had not sent is dropped. */
static void stream_close(opd_tcp *base) {
    tls_tcp *self = self_of(base);
    if (self->closing) return;
    self->closing = true;
    if (self->events == NULL) {
        opd_tcp_close(self->inner);
        release(self);
        return;
    }
    self->finish = true;
    if (self->told && !self->ended && !self->pulling) opd_tcp_flush(self->inner);
    opd_tcp_close(self->inner);
}

static void stream_finish(opd_tcp *base) {
    tls_tcp *self = self_of(base);
    self->finish = true;
    opd_tcp_finish(self->inner);
}

static void stream_start(opd_tcp *base, const opd_tcp_events *events, void *arg) {
    tls_tcp *self = self_of(base);
    self->events = events;
    self->arg = arg;
    opd_tcp_start(self->inner, &inner_events, self);
}

static const opd_tcp_ops tls_ops = {.flush = stream_flush, .stalled_ns = stream_stalled_ns,
                                    .close = stream_close, .finish = stream_finish,
                                    .start = stream_start};

/* ---- beginnings ---- */

static opd_err stream_create(const opd_tls_context *context, const opd_alloc *alloc, const char *host,
                             tls_tcp **out_self) {
    tls_tcp *self = opd_mem_get(alloc, sizeof *self);
    if (self == NULL) return opd_fail(OPD_ERR_NOMEM, "TLS with %s: no memory for a stream", host);
    opd_err err = opd_tls_create(context, host, &self->tls);
    if (err != OPD_OK) {
        opd_mem_free(alloc, self);
        return err;
    }
    self->base.ops = &tls_ops;
    self->alloc = alloc;
    opd_iobatch_init(&self->plain);
    *out_self = self;
    return OPD_OK;
}

opd_err opd_tls_connect(const opd_tls_context *context, struct opd_env *env, const opd_alloc *alloc,
                        const char *host, uint16_t port, const opd_tcp_events *events, void *arg,
                        opd_tcp **out_tcp) {
    tls_tcp *self = NULL;
    if (context == NULL) return opd_tcp_connect(env, alloc, host, port, events, arg, out_tcp);
    OPD_TRY(stream_create(context, alloc, host, &self));
    self->events = events;
    self->arg = arg;
    opd_err err = opd_tcp_connect(env, alloc, host, port, &inner_events, self, &self->inner);
    if (err != OPD_OK) {
        release(self);
        return err;
    }
    *out_tcp = &self->base;
    return OPD_OK;
}

opd_err opd_tls_accept(const opd_tls_context *context, const opd_alloc *alloc, opd_tcp **tcp) {
    tls_tcp *self = NULL;
    if (context == NULL) return OPD_OK;
    OPD_TRY(stream_create(context, alloc, "a client", &self));
    self->server = true;
    self->inner = *tcp;
    *tcp = &self->base;
    return OPD_OK;
}

opd_tls_alpn opd_tls_tcp_alpn(const opd_tcp *tcp) {
    OPD_ASSERT(tcp->ops == &tls_ops);
    return opd_tls_alpn_of(((const tls_tcp *)(const void *)tcp)->tls);
}
