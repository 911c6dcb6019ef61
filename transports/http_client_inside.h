/* http_client_inside.h - what the parts of the client share: http_client.c (queue, deadlines, turns),
 * http_call.c (one call), http2_client.c (the connections of HTTP/2) and http1_client.c (the pool of
 * HTTP/1.1). For them only; rules and thread as in http.h.
 *
 * Which protocol the endpoint speaks is learned without sending it a call: HTTP/2 by prior
 * knowledge first; a peer that answers its preface with "HTTP/" or hangs up (over TLS: whose ALPN is
 * not h2) is asked by a GET over HTTP/1.1, and any whole head in answer says that it speaks that.
 * `http1` holds that knowledge until http1_until_ns; then HTTP/2 is tried again beside the pool,
 * which goes on meanwhile.
 */
#ifndef OPD_TRANSPORTS_HTTP_CLIENT_INSIDE_H
#define OPD_TRANSPORTS_HTTP_CLIENT_INSIDE_H

#include "transports/http.h"
#include "transports/tls_tcp.h"
#include "transports/url.h"

enum { OPD__CALL_IDLE, OPD__CALL_QUEUED, OPD__CALL_WIRE, OPD__CALL_DONE };
enum { OPD__HEAD_BYTES_MAX = 64 * 1024 };

struct opd_http_client {
    opd_http_client_options o;
    opd_url url;
    opd_tls_context *tls; /* NULL: cleartext */
    opd_list queue, wire, done; /* of calls */
    uint32_t queued, inflight;
    size_t receiving_bytes; /* sum of claimed_bytes over wire */
    opd_list conns;         /* HTTP/2; those that are closing, too */
    opd_tcp_timer *timer;
    uint64_t timer_at_ns; /* when it fires: for what is due, or for a turn */
    uint64_t due_ns;      /* the earliest limit of a call or connection, or earlier */
    uint64_t backoff_ms, retry_at_ns;
    opd_list h1_conns; /* the pool; idle ones in front, latest first */
    uint32_t h1_count;
    bool h1_probing; /* the GET is under way: calls wait */
    bool http1;      /* the endpoint speaks HTTP/1.1 */
    uint64_t http1_until_ns;
    uint64_t replays, connections; /* sent again; made */
    bool in_turn, again, closing, finishing; /* again: another turn right after this one */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- http_client.c ---- */

/* Makes the timer fire at at_ns at the latest; 0 and UINT64_MAX: no wish. */
void opd__client_arm(opd_http_client *client, uint64_t at_ns);
void opd__client_back_off(opd_http_client *client);

/* Asks for one more turn: there may be something to do that the present one has not seen. */
void opd__client_again(opd_http_client *client);

/* Hands out answers, starts calls, writes, closes. Ends every event of a connection. */
void opd__client_turn(opd_http_client *client);

/* What to call a connection that could not be opened (the error of on_open, with its context). */
opd_err opd__client_open_error(opd_err err, char *text, size_t text_size);

/* Opens a stream to the endpoint. Errors: as opd_tls_connect. */
opd_err opd__client_connect(opd_http_client *client, const opd_tcp_events *events, void *arg,
                            opd_tcp **out_tcp) OPD_MUST_CHECK;

/* Ends a call, or all that wait. text: what happened. */
void opd__client_settle(opd_http_call *call, opd_err err, bool retry_safe, const char *text);
void opd__client_settle_queue(opd_http_client *client, opd_err err, const char *text);

/* ---- http_call.c ---- */

const char *opd__call_method(const opd_http_call *call);
void opd__call_ready(opd_http_call *call, opd_http_client *client); /* to be sent by it */
void opd__call_to_wire(opd_http_call *call);                  /* from the queue */
bool opd__call_replay(opd_http_call *call); /* back to its front, unheard; false: too often */
void opd__call_sent(opd_http_call *call);                     /* its first byte leaves */
void opd__call_header(opd_http_call *call, const char *name, const char *value);
void opd__call_body(opd_http_call *call, const uint8_t *bytes, size_t size_bytes); /* may settle */

/* Times out what is due in a list of calls. */
void opd__calls_expire(opd_list *calls, uint64_t now_ns);

/* ---- http2_client.c ---- */

/* Whether a connection takes calls now; whether one does or is being opened. */
bool opd__h2_settled(const opd_http_client *client);
bool opd__h2_any(const opd_http_client *client);

/* Begins to open one more; false: it could not, and what waits was told if there is no other. */
bool opd__h2_dial(opd_http_client *client);

/* Puts waiting calls on connections and opens what is missing. */
void opd__h2_fill(opd_http_client *client);

/* Writes what waits, and closes connections that have served their time. */
void opd__h2_flush(opd_http_client *client);

/* Deadlines of connections: connecting, SETTINGS, silence. */
void opd__h2_expire(opd_http_client *client, uint64_t now_ns);

/* The call on this stream (call->stream) was settled: nobody waits for the rest. */
void opd__h2_drop(opd_http_call *call);

/* ---- http1_client.c ---- */

/* Asks the endpoint whether it speaks HTTP/1.1; `why` it does not speak HTTP/2. */
void opd__h1_probe(opd_http_client *client, const char *why);

/* Puts waiting calls on idle connections and opens what is missing. */
void opd__h1_fill(opd_http_client *client);

/* Writes what waits; closes idle connections that are no longer wanted. */
void opd__h1_flush(opd_http_client *client);

/* Deadlines of connections: connecting, the probe, idleness. */
void opd__h1_expire(opd_http_client *client, uint64_t now_ns);

/* The call on this connection (call->pooled) was settled: it carries no other. */
void opd__h1_drop(void *pooled);

#endif
