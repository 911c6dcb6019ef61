/* dial_uv.c - see dial_uv.h. */
#include "transports/dial_uv.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/env/env.h"
#include "transports/tcp_ops.h"

enum { STAGGER_MS = 250 }; /* RFC 8305, section 5 */

/* ---- sockets ---- */

opd__socket_uv *opd__socket_uv_create(struct opd_env *env, const opd_alloc *alloc) {
    opd__socket_uv *socket = opd_mem_get(alloc, sizeof *socket);
    if (socket == NULL) return NULL;
    socket->alloc = alloc;
    if (uv_tcp_init(opd_env_uv_loop(env), &socket->handle) == 0) return socket;
    opd_mem_free(alloc, socket);
    return NULL;
}

static void on_socket_closed(uv_handle_t *handle) {
    opd__socket_uv *socket = (opd__socket_uv *)(void *)handle;
    void (*closed)(void *arg) = socket->closed;
    void *arg = socket->closed_arg;
    opd_mem_free(socket->alloc, socket);
    if (closed != NULL) closed(arg);
}

void opd__socket_uv_close(opd__socket_uv *socket, void (*closed)(void *arg), void *arg) {
    socket->closed = closed;
    socket->closed_arg = arg;
    uv_close((uv_handle_t *)&socket->handle, on_socket_closed);
}

/* ---- ends ---- */

static void one_less(void *arg) {
    opd__dial_uv *dial = arg;
    if (--dial->open == 0 && dial->over) dial->gone(dial); /* the dial may be gone from here on */
}

static void on_timer_closed(uv_handle_t *handle) { one_less(handle->data); }

static void drop_attempt(opd__dial_uv *dial, size_t i) {
    opd__socket_uv *socket = dial->attempts[i];
    dial->attempts[i] = NULL;
    if (socket != NULL) opd__socket_uv_close(socket, one_less, dial);
}

void opd__dial_uv_stop(opd__dial_uv *dial) {
    if (dial->over) return;
    dial->over = true;
    if (dial->resolving) uv_cancel((uv_req_t *)&dial->resolve); /* or it comes back when it is done */
    for (size_t i = 0; i < dial->address_count; i++) drop_attempt(dial, i);
    uv_close((uv_handle_t *)&dial->timer, on_timer_closed);
}

static opd_err fail_dial(const opd__dial_uv *dial) {
    if (dial->address_count == 0)
        return opd_fail(opd__err_of_uv(dial->code), "the name %s does not resolve: %s", dial->host,
                        uv_strerror(dial->code));
    return opd_fail(opd__err_of_uv(dial->code), "cannot connect to %s port %u%s: %s", dial->host,
                    (unsigned)dial->port, dial->address_count > 1 ? " at any of its addresses" : "",
                    uv_strerror(dial->code));
}

static void finish(opd__dial_uv *dial, opd__socket_uv *winner) {
    opd__dial_uv_stop(dial);
    dial->done(dial, winner != NULL ? OPD_OK : fail_dial(dial), winner);
}

/* ---- attempts ---- */

static bool any_under_way(const opd__dial_uv *dial) {
    for (size_t i = 0; i < dial->address_count; i++)
        if (dial->attempts[i] != NULL) return true;
    return false;
}

static void on_connect(uv_connect_t *connect, int status);

static int attempt(opd__dial_uv *dial, size_t i) {
    opd__socket_uv *socket = opd__socket_uv_create(dial->env, dial->alloc);
    if (socket == NULL) return UV_ENOMEM;
    dial->open++;
    dial->attempts[i] = socket;
    socket->dial = dial;
    socket->connect.data = socket;
    return uv_tcp_connect(&socket->connect, &socket->handle,
                          (const struct sockaddr *)&dial->addresses[i], on_connect);
}

/* Begins the next attempt that can be begun; when none is left and none under way, it is over. */
static void try_next(opd__dial_uv *dial) {
    while (dial->address_next < dial->address_count) {
        size_t i = dial->address_next++;
        int code = attempt(dial, i);
        if (code == 0) break;
        dial->code = code;
        drop_attempt(dial, i);
    }
    if (!any_under_way(dial)) finish(dial, NULL);
}

static void on_timer(uv_timer_t *timer) {
    opd__dial_uv *dial = timer->data;
    try_next(dial);
    if (!dial->over && dial->address_next < dial->address_count)
        uv_timer_start(&dial->timer, on_timer, STAGGER_MS, 0);
}

static void on_connect(uv_connect_t *connect, int status) {
    opd__socket_uv *socket = connect->data;
    opd__dial_uv *dial = socket->dial;
    if (uv_is_closing((uv_handle_t *)&socket->handle)) return;
    for (size_t i = 0; i < dial->address_count; i++) {
        if (dial->attempts[i] != socket) continue;
        if (status < 0) drop_attempt(dial, i);
        else dial->attempts[i] = NULL;
    }
    if (status < 0) {
        dial->code = status;
        on_timer(&dial->timer);
        return;
    }
    socket->dial = NULL;
    dial->open--; /* the timer's close is still to come: not the last */
    finish(dial, socket);
}

/* ---- addresses ---- */

void opd__addresses_interleave(struct sockaddr_storage *addresses, size_t count) {
    for (size_t i = 1; i < count; i++) {
        size_t other = i;
        while (other < count && addresses[other].ss_family == addresses[i - 1].ss_family) other++;
        if (other == count) return; /* one family is left */
        struct sockaddr_storage moved = addresses[other];
        memmove(&addresses[i + 1], &addresses[i], (other - i) * sizeof *addresses);
        addresses[i] = moved;
    }
}

static void take_addresses(opd__dial_uv *dial, const struct addrinfo *info) {
    for (; info != NULL && dial->address_count < OPD__DIAL_ADDRESSES_MAX; info = info->ai_next) {
        if (info->ai_family != AF_INET && info->ai_family != AF_INET6) continue;
        struct sockaddr_storage *to = &dial->addresses[dial->address_count++];
        memcpy(to, info->ai_addr, info->ai_addrlen);
        if (to->ss_family == AF_INET6)
            ((struct sockaddr_in6 *)to)->sin6_port = htons(dial->port);
        else
            ((struct sockaddr_in *)to)->sin_port = htons(dial->port);
    }
    opd__addresses_interleave(dial->addresses, dial->address_count);
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *info) {
    opd__dial_uv *dial = resolve->data;
    dial->resolving = false;
    if (!dial->over) {
        dial->code = status != 0 ? status : UV_EAI_NONAME;
        if (status == 0) take_addresses(dial, info);
        on_timer(&dial->timer);
    }
    uv_freeaddrinfo(info);
    one_less(dial);
}

static void init(opd__dial_uv *dial, const char *host, uint16_t port) {
    snprintf(dial->host, sizeof dial->host, "%s", host);
    dial->port = port;
    uv_timer_init(opd_env_uv_loop(dial->env), &dial->timer); /* cannot fail */
    dial->timer.data = dial;
    dial->open = 1;
}

void opd__dial_uv_start_at(opd__dial_uv *dial, const char *host, uint16_t port,
                           const struct sockaddr_storage *addresses, size_t count) {
    OPD_ASSERT(count > 0 && count <= OPD__DIAL_ADDRESSES_MAX);
    init(dial, host, port);
    memcpy(dial->addresses, addresses, count * sizeof *addresses);
    dial->address_count = count;
    uv_timer_start(&dial->timer, on_timer, 0, 0);
}

void opd__dial_uv_start(opd__dial_uv *dial, const char *host, uint16_t port) {
    struct sockaddr_storage address;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)&address) == 0 ||
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)&address) == 0) {
        opd__dial_uv_start_at(dial, host, port, &address, 1);
        return;
    }
    init(dial, host, port);
    dial->resolve.data = dial;
    dial->code = uv_getaddrinfo(opd_env_uv_loop(dial->env), &dial->resolve, on_resolved, dial->host,
                                NULL, &hints);
    dial->resolving = dial->code == 0;
    dial->open += dial->resolving;
    if (!dial->resolving) uv_timer_start(&dial->timer, on_timer, 0, 0);
}
