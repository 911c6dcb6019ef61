/* tcp_uv.c - tcp.h over libuv: streams, vectored writes, listening.
 *
 * dial_uv.c makes the connected socket of a stream out of a host and a port. A stream lives until
 * its socket is closed and its dial is gone. A failed write is not reported by itself: the read
 * side of the same socket reports the loss right after.
 * Thread: the loop. A write to a dead peer must not kill the process, so SIGPIPE is ignored
 * from the first socket on, unless the program installed a handler of its own.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "core/actor/transport.h"
#include "core/base/check.h"
#include "core/env/env.h"
#include "opd/log.h"
#include "transports/dial_uv.h"
#include "transports/tcp_ops.h"

enum {
    INPUT_BYTES = 256 * 1024, /* large answers: fewer reads */
    INPUT_ALIGN_BYTES = 64,
    BACKLOG = 512,
    ROUNDS_MAX = 16,
    TURN_BYTES_MAX = 512 * 1024 /* about 0.2 ms of copying; the kernel would take 4 MB at once */
};

typedef struct tcp_uv {
    opd_tcp base; /* first */
    opd__socket_uv *socket; /* NULL: not yet, or closed */
    opd__dial_uv dial;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct opd_env *env;
    opd_pid owner;
    const opd_alloc *alloc;
    const opd_tcp_events *events; /* NULL: accepted, not started */
    void *arg;
    bool dialling; /* until the dial is gone */
    bool open, ended, closing;
    bool pumping, writing, broken, finish;
    uint64_t progress_ns;
    opd_iobatch batch;
    /* INPUT_BYTES, a block of its own that is never zeroed: what is not read stays untouched. On a
     * boundary of a cache line: the kernel copies twice as slowly to other places. */
    void *input_block;
    uint8_t *input;
} tcp_uv;

static tcp_uv *self_of(opd_tcp *tcp) { return (tcp_uv *)(void *)tcp; }

static uv_stream_t *handle_of(const tcp_uv *tcp) { return (uv_stream_t *)&tcp->socket->handle; }

static uv_loop_t *loop_of(struct opd_env *env) { return opd_env_uv_loop(env); }

static void ignore_sigpipe(void) {
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
}

opd_err opd__err_of_uv(int code) {
    switch (code) {
        case UV_ENOMEM: return OPD_ERR_NOMEM;
        case UV_EADDRINUSE: return OPD_ERR_EXISTS;
        case UV_ECONNREFUSED:
        case UV_EHOSTUNREACH:
        case UV_ENETUNREACH:
        case UV_ETIMEDOUT: return OPD_ERR_REFUSED;
        case UV_EAI_NONAME:
        case UV_EAI_NODATA: return OPD_ERR_NOT_FOUND;
        case UV_EOF: return OPD_ERR_CLOSED;
        case UV_ECONNRESET:
        case UV_EPIPE: return OPD_ERR_RESET;
        default: return OPD_ERR_IO;
    }
}

/* ---- end of life ---- */

static void tcp_free(tcp_uv *tcp) {
    const opd_alloc *alloc = tcp->alloc;
    opd_mem_free(alloc, tcp->input_block);
    opd_mem_free(alloc, tcp);
}

static void maybe_release(tcp_uv *tcp) {
    if (!tcp->closing || tcp->socket != NULL || tcp->dialling) return;
    opd_iobatch_clear(&tcp->batch);
    bool entered = opd_transport_enter(tcp->env, tcp->owner);
    if (tcp->events != NULL) tcp->events->on_closed(tcp->arg);
    opd_transport_leave(tcp->env, entered);
    tcp_free(tcp);
}

static void on_socket_closed(void *arg) {
    tcp_uv *tcp = arg;
    tcp->socket = NULL;
    maybe_release(tcp);
}

static void tcp_close(tcp_uv *tcp) {
    if (tcp->closing) return;
    tcp->closing = true;
    OPD_ASSERT(tcp->socket != NULL || tcp->dialling); /* so that a callback will come */
    if (tcp->dialling) opd__dial_uv_stop(&tcp->dial);
    if (tcp->socket != NULL) opd__socket_uv_close(tcp->socket, on_socket_closed, tcp);
}

static void end(tcp_uv *tcp, int code) {
    if (tcp->ended || tcp->closing) return;
    tcp->ended = true;
    uv_read_stop(handle_of(tcp));
    opd_err err = opd__err_of_uv(code);
    if (err != OPD_ERR_CLOSED) err = OPD_ERR_RESET;
    bool entered = opd_transport_enter(tcp->env, tcp->owner);
    tcp->events->on_end(tcp->arg, opd_fail(err, "connection lost: %s", uv_strerror(code)));
    opd_transport_leave(tcp->env, entered);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out_buf) {
    (void)suggested;
    tcp_uv *tcp = handle->data;
    *out_buf = uv_buf_init((char *)tcp->input, INPUT_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf) {
    tcp_uv *tcp = stream->data;
    if (tcp->closing) return;
    if (size < 0) end(tcp, (int)size);
    if (size <= 0) return;
    bool entered = opd_transport_enter(tcp->env, tcp->owner);
    tcp->events->on_bytes(tcp->arg, (const uint8_t *)buf->base, (size_t)size);
    opd_transport_leave(tcp->env, entered);
}

/* ---- writing ---- */

static size_t bufs_of(opd_iobatch *batch, uv_buf_t *bufs) {
    size_t count = 0;
    for (size_t i = batch->first; i < batch->count; i++) {
        const opd_iosegment *s = &batch->segments[i];
        bufs[count++] = uv_buf_init((char *)(uintptr_t)s->data, (unsigned)s->size_bytes);
    }
    return count;
}

static void pump(tcp_uv *tcp);

static void on_written(uv_write_t *write, int status) {
    tcp_uv *tcp = write->data;
    tcp->writing = false;
    if (tcp->closing) return;
    if (status < 0) {
        tcp->broken = true;
        return;
    }
    tcp->progress_ns = opd_tcp_now_ns(tcp->env);
    opd_iobatch_written(&tcp->batch, tcp->batch.size_bytes);
    pump(tcp);
}

/* Writes what goes at once, queues the rest; whether the batch is empty again. `patient`: leave
 * it all to the loop, so that one busy peer does not hold up the others. */
static bool write_batch(tcp_uv *tcp, bool patient) {
    uv_buf_t bufs[OPD_IOBATCH_SEGMENTS_MAX];
    uv_stream_t *stream = handle_of(tcp);
    size_t count = bufs_of(&tcp->batch, bufs);
    int taken = patient ? UV_EAGAIN : uv_try_write(stream, bufs, (unsigned)count);
    if (taken > 0) opd_iobatch_written(&tcp->batch, (size_t)taken);
    tcp->progress_ns = opd_tcp_now_ns(tcp->env);
    if (tcp->batch.size_bytes == 0) return true;
    count = bufs_of(&tcp->batch, bufs);
    tcp->write.data = tcp;
    bool failed = (taken < 0 && taken != UV_EAGAIN) ||
                  uv_write(&tcp->write, stream, bufs, (unsigned)count, on_written) != 0;
    tcp->broken = failed;
    tcp->writing = !failed;
    return false;
}

static void on_shutdown(uv_shutdown_t *shutdown, int status) { (void)shutdown, (void)status; }

static void pump(tcp_uv *tcp) {
    if (!tcp->open || tcp->pumping || tcp->writing || tcp->broken || tcp->ended || tcp->closing)
        return;
    tcp->pumping = true;
    bool entered = opd_transport_enter(tcp->env, tcp->owner), more = true;
    size_t given_bytes = 0;
    for (int round = 0; more && !tcp->closing; round++) {
        tcp->events->on_pull(tcp->arg, &tcp->batch);
        if (tcp->closing || tcp->batch.size_bytes == 0) break;
        given_bytes += tcp->batch.size_bytes;
        more = write_batch(tcp, round >= ROUNDS_MAX || given_bytes > TURN_BYTES_MAX);
    }
    opd_transport_leave(tcp->env, entered);
    tcp->pumping = false;
    if (!tcp->finish || tcp->closing || tcp->writing || tcp->broken) return;
    tcp->broken = true; /* nothing may be written after FIN */
    uv_shutdown(&tcp->shutdown, handle_of(tcp), on_shutdown);
}

static void stream_flush(opd_tcp *base) { pump(self_of(base)); }

static void stream_finish(opd_tcp *base) {
    tcp_uv *tcp = self_of(base);
    tcp->finish = true;
    pump(tcp);
}

static uint64_t stream_stalled_ns(const opd_tcp *base) {
    const tcp_uv *tcp = (const tcp_uv *)(const void *)base;
    return tcp->writing ? opd_tcp_now_ns(tcp->env) - tcp->progress_ns : 0;
}

static void open_stream(tcp_uv *tcp) {
    tcp->open = true;
    tcp->socket->handle.data = tcp;
    uv_tcp_nodelay(&tcp->socket->handle, 1);
    uv_read_start(handle_of(tcp), on_alloc, on_read);
}

/* ---- connecting ---- */

static void on_dialled(opd__dial_uv *dial, opd_err err, opd__socket_uv *winner) {
    tcp_uv *tcp = dial->arg;
    tcp->socket = winner;
    if (err == OPD_OK) open_stream(tcp);
    else tcp->ended = true;
    bool entered = opd_transport_enter(tcp->env, tcp->owner);
    tcp->events->on_open(tcp->arg, err);
    opd_transport_leave(tcp->env, entered);
}

static void on_dial_gone(opd__dial_uv *dial) {
    tcp_uv *tcp = dial->arg;
    tcp->dialling = false;
    maybe_release(tcp);
}

static tcp_uv *tcp_create(struct opd_env *env, const opd_alloc *alloc) {
    tcp_uv *tcp = opd_mem_get(alloc, sizeof *tcp);
    if (tcp == NULL) return NULL;
    tcp->input_block = opd_mem_resize(alloc, NULL, INPUT_BYTES + INPUT_ALIGN_BYTES);
    if (tcp->input_block == NULL) {
        opd_mem_free(alloc, tcp);
        return NULL;
    }
    size_t beyond = (uintptr_t)tcp->input_block % INPUT_ALIGN_BYTES;
    tcp->input = (uint8_t *)tcp->input_block + (INPUT_ALIGN_BYTES - beyond);
    tcp->base.ops = &opd__tcp_uv_ops;
    tcp->env = env;
    tcp->owner = opd_transport_owner(env);
    tcp->alloc = alloc;
    opd_iobatch_init(&tcp->batch);
    ignore_sigpipe();
    return tcp;
}

static opd_err stream_connect(struct opd_env *env, const opd_alloc *alloc, const char *host,
                              uint16_t port, const opd_tcp_events *events, void *arg,
                              opd_tcp **out_tcp) {
    tcp_uv *tcp = tcp_create(env, alloc);
    if (tcp == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a connection to %s", host);
    tcp->dial = (opd__dial_uv){.env = env, .alloc = alloc, .done = on_dialled, .gone = on_dial_gone,
                               .arg = tcp};
    tcp->dialling = true;
    opd__dial_uv_start(&tcp->dial, host, port);
    tcp->events = events;
    tcp->arg = arg;
    *out_tcp = &tcp->base;
    return OPD_OK;
}

/* ---- listening ---- */

typedef struct listener_uv {
    opd_tcp_listener base; /* first */
    uv_tcp_t handle;
    struct opd_env *env;
    opd_pid owner;
    const opd_alloc *alloc;
    uint16_t port;
    void (*accepted)(void *arg, opd_tcp *tcp);
    void (*closed)(void *arg);
    void *arg, *closed_arg;
    /* libuv stops listening until a connection is taken, so one that we have no memory for
     * is taken into this handle and closed. */
    uv_tcp_t reject;
    bool rejecting, reject_again, handle_closed;
} listener_uv;

static void listener_release(listener_uv *listener) {
    if (!listener->handle_closed || listener->rejecting) return;
    bool entered = opd_transport_enter(listener->env, listener->owner);
    if (listener->closed != NULL) listener->closed(listener->closed_arg);
    opd_transport_leave(listener->env, entered);
    opd_mem_free(listener->alloc, listener);
}

static void reject(listener_uv *listener);

static void on_rejected(uv_handle_t *handle) {
    listener_uv *listener = handle->data;
    listener->rejecting = false;
    if (listener->reject_again && !uv_is_closing((uv_handle_t *)&listener->handle)) reject(listener);
    listener_release(listener);
}

static void reject(listener_uv *listener) {
    listener->reject_again = listener->rejecting;
    if (listener->rejecting || uv_tcp_init(loop_of(listener->env), &listener->reject) != 0) return;
    listener->rejecting = true;
    listener->reject.data = listener;
    uv_accept((uv_stream_t *)&listener->handle, (uv_stream_t *)&listener->reject);
    uv_close((uv_handle_t *)&listener->reject, on_rejected);
}

static void on_connection(uv_stream_t *stream, int status) {
    listener_uv *listener = stream->data;
    tcp_uv *tcp = status == 0 ? tcp_create(listener->env, listener->alloc) : NULL;
    if (tcp != NULL) tcp->socket = opd__socket_uv_create(listener->env, listener->alloc);
    if (tcp == NULL || tcp->socket == NULL) {
        OPD_LOG_WARN("port %u: a connection was not accepted: %s", (unsigned)listener->port,
                     status < 0 ? uv_strerror(status) : "out of memory");
        if (tcp != NULL) tcp_free(tcp);
        if (status == 0) reject(listener);
        return;
    }
    tcp->owner = listener->owner;
    if (uv_accept(stream, handle_of(tcp)) != 0) {
        tcp_close(tcp);
        return;
    }
    bool entered = opd_transport_enter(listener->env, listener->owner);
    listener->accepted(listener->arg, &tcp->base);
    opd_transport_leave(tcp->env, entered);
}

static void stream_start(opd_tcp *base, const opd_tcp_events *events, void *arg) {
    tcp_uv *tcp = self_of(base);
    tcp->events = events;
    tcp->arg = arg;
    open_stream(tcp);
}

static void on_listener_closed(uv_handle_t *handle) {
    listener_uv *listener = handle->data;
    listener->handle_closed = true;
    listener_release(listener);
}

static void listener_close(opd_tcp_listener *base, void (*closed)(void *arg), void *arg) {
    listener_uv *listener = (listener_uv *)(void *)base;
    listener->closed = closed;
    listener->closed_arg = arg;
    uv_close((uv_handle_t *)&listener->handle, on_listener_closed);
}

static int listener_open(listener_uv *listener, const struct sockaddr *address) {
    int code = uv_tcp_bind(&listener->handle, address, 0);
    if (code == 0) code = uv_listen((uv_stream_t *)&listener->handle, BACKLOG, on_connection);
    struct sockaddr_storage bound;
    int size = sizeof bound;
    if (code == 0)
        code = uv_tcp_getsockname(&listener->handle, (struct sockaddr *)&bound, &size);
    if (code != 0) return code;
    listener->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                       : ((struct sockaddr_in *)&bound)->sin_port);
    return 0;
}

static opd_err fail_listen(int code, const char *host, uint16_t port) {
    if (code == UV_EADDRINUSE)
        return opd_fail(OPD_ERR_EXISTS, "port %u on %s is in use by another program; choose "
                        "another, or 0 for any free one", (unsigned)port, host);
    return opd_fail(opd__err_of_uv(code), "cannot listen on %s port %u: %s", host, (unsigned)port,
                    uv_strerror(code));
}

static opd_err listener_listen(struct opd_env *env, const opd_alloc *alloc, const char *host,
                               uint16_t port, void (*accepted)(void *arg, opd_tcp *tcp),
                               void *arg, opd_tcp_listener **out_listener) {
    struct sockaddr_storage address;
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)&address) != 0 &&
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)&address) != 0)
        return opd_fail(OPD_ERR_INVALID, "cannot bind to \"%s\": give a numeric address such as "
                        "127.0.0.1 or ::1", host);
    listener_uv *listener = opd_mem_get(alloc, sizeof *listener);
    if (listener == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory to listen on %s", host);
    *listener = (listener_uv){
        .base.ops = &opd__tcp_uv_ops, .env = env, .owner = opd_transport_owner(env), .alloc = alloc,
        .port = port, .accepted = accepted, .arg = arg};
    ignore_sigpipe();
    int code = uv_tcp_init(loop_of(env), &listener->handle);
    if (code != 0) {
        opd_mem_free(alloc, listener);
        return fail_listen(code, host, port);
    }
    listener->handle.data = listener;
    code = listener_open(listener, (const struct sockaddr *)&address);
    if (code != 0) {
        listener_close(&listener->base, NULL, NULL);
        return fail_listen(code, host, port);
    }
    *out_listener = &listener->base;
    return OPD_OK;
}

static uint16_t listener_port(const opd_tcp_listener *base) {
    return ((const listener_uv *)(const void *)base)->port;
}

static void stream_close(opd_tcp *base) { tcp_close(self_of(base)); }

const opd_tcp_ops opd__tcp_uv_ops = {
    .connect = stream_connect,
    .flush = stream_flush,
    .stalled_ns = stream_stalled_ns,
    .close = stream_close,
    .finish = stream_finish,
    .start = stream_start,
    .listen = listener_listen,
    .listener_port = listener_port,
    .listener_close = listener_close,
    .timer_create = opd__timer_uv_create,
    .timer_set = opd__timer_uv_set,
    .timer_close = opd__timer_uv_close,
};
