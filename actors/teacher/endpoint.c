/* endpoint.c - HTTP calls as events of an actor (endpoint.h).
 *
 * A call's way: created -> sent (counted) -> done by the client -> its event -> read, here or by a
 * job -> answered -> freed. `refs` counts the client, until its closed event was delivered or dropped, and the
 * calls that exist. A call that is over is kept for the next one, with the memory of its answer, as
 * long as that is little: fresh memory for each of thousands of answers costs as much as receiving
 * them.
 * Thread: the loop.
 */
#include "actors/teacher/endpoint.h"

#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/secret.h"

enum { SPARE_ANSWER_BYTES_MAX = 256 * 1024, SPARE_BYTES_MAX = 16 << 20 };

struct opd_endpoint {
    opd_endpoint_options options;
    opd_system *system;
    opd_pid owner;
    opd_http_client *client; /* NULL once closing */
    char name[300];
    char *authorization; /* the header's value; NULL: none */
    unsigned refs;
    opd_list spare; /* calls that are over and lend their memory to the next */
    size_t spare_bytes;
    bool abandoned;
    opd_event closed_event;
    opd_cleanup cleanup; /* tells us that the actor ends */
};

static void unref(opd_endpoint *endpoint) {
    if (--endpoint->refs > 0) return;
    opd_secret_free(endpoint->options.alloc, endpoint->authorization);
    opd_mem_free(endpoint->options.alloc, endpoint);
}

/* ---- calls ---- */

static size_t spare_size(const opd_endpoint_call *call) {
    return sizeof *call + call->http.answer.capacity;
}

/* A call that is over, its memory that of an answer like the next one; NULL: none. */
static opd_endpoint_call *take_spare(opd_endpoint *endpoint) {
    opd_list *node = opd_list_pop_front(&endpoint->spare);
    if (node == NULL) return NULL;
    opd_endpoint_call *call = OPD_CONTAINER_OF(node, opd_endpoint_call, node);
    endpoint->spare_bytes -= spare_size(call);
    opd_str answer = call->http.answer, head = call->http.head;
    memset(call, 0, sizeof *call);
    call->http.answer = answer;
    call->http.head = head;
    return call;
}

/* Keeps the memory of a call, unless it is too much. */
static bool keep_spare(opd_endpoint *endpoint, opd_endpoint_call *call) {
    if (endpoint->client == NULL || call->http.answer.capacity > SPARE_ANSWER_BYTES_MAX ||
        endpoint->spare_bytes + spare_size(call) > SPARE_BYTES_MAX)
        return false;
    opd_http_call_reset(&call->http);
    opd_list_init(&call->node);
    opd_list_push_front(&endpoint->spare, &call->node);
    endpoint->spare_bytes += spare_size(call);
    return true;
}

static void free_call(opd_endpoint *endpoint, opd_endpoint_call *call) {
    opd_http_call_fini(&call->http);
    opd_mem_free(endpoint->options.alloc, call);
}

opd_err opd_endpoint_call_create(opd_endpoint *endpoint, opd_endpoint_call **out_call) {
    opd_endpoint_call *call = take_spare(endpoint);
    if (call == NULL) call = opd_mem_get(endpoint->options.alloc, sizeof *call);
    if (call == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a call");
    call->endpoint = endpoint;
    opd_str_init(&call->body, endpoint->options.alloc, endpoint->options.max_body_bytes);
    endpoint->refs++;
    *out_call = call;
    return OPD_OK;
}

void opd_endpoint_call_destroy(opd_endpoint_call *call) {
    if (call == NULL) return;
    opd_endpoint *endpoint = call->endpoint;
    if (call->reading != NULL) call->read_drop(call);
    opd_buf_release(call->http.body.buf);
    opd_str_fini(&call->body);
    if (!keep_spare(endpoint, call)) free_call(endpoint, call);
    unref(endpoint);
}

static opd_err answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    opd_err err = call->answered(ctx, state, call);
    opd_endpoint_call_destroy(call);
    return err;
}

static void keep_read(opd_endpoint_call *call, opd_err err, const char *text) {
    call->read_err = err;
    (void)snprintf(call->read_text, sizeof call->read_text, "%s", err == OPD_OK ? "" : text);
}

static opd_err run_read(opd_job *job) {
    opd_endpoint_call *call = OPD_CONTAINER_OF(job, opd_endpoint_call, job);
    return call->read(call);
}

static opd_err read_done(opd_ctx *ctx, void *state, opd_job *job) {
    opd_endpoint_call *call = OPD_CONTAINER_OF(job, opd_endpoint_call, job);
    opd_list_remove(&call->node);
    keep_read(call, job->err, job->text);
    return answer(ctx, state, call);
}

/* Whether a lane reads the answer. One that has too much to do leaves it to the loop. */
static bool hand_to_lane(opd_ctx *ctx, opd_endpoint_call *call) {
    opd_endpoint_reader *reader = call->endpoint->options.reader;
    if (reader == NULL || reader->lane == NULL ||
        call->http.answer.size <= reader->inline_max_bytes)
        return false;
    call->job = (opd_job){.run = run_read, .done = read_done};
    if (opd_job_submit(ctx, reader->lane, &call->job) != OPD_OK) return false;
    opd_list_push_back(&reader->calls, &call->node);
    return true;
}

static opd_err deliver_answer(opd_ctx *ctx, void *state, opd_event *event) {
    opd_endpoint_call *call = OPD_CONTAINER_OF(event, opd_endpoint_call, event);
    if (call->read != NULL && call->http.err == OPD_OK && call->http.status == 200) {
        if (hand_to_lane(ctx, call)) return OPD_OK;
        opd_err err = call->read(call);
        keep_read(call, err, err == OPD_OK ? "" : opd_err_context());
    }
    return answer(ctx, state, call);
}

void opd_endpoint_reader_init(opd_endpoint_reader *reader, opd_lane *lane,
                              size_t inline_max_bytes) {
    reader->lane = lane;
    reader->inline_max_bytes = inline_max_bytes;
    opd_list_init(&reader->calls);
}

void opd_endpoint_reader_fini(opd_endpoint_reader *reader) {
    for (opd_list *node; (node = opd_list_pop_front(&reader->calls)) != NULL;)
        opd_endpoint_call_destroy(OPD_CONTAINER_OF(node, opd_endpoint_call, node));
}

static void drop_answer(opd_event *event) {
    opd_endpoint_call_destroy(OPD_CONTAINER_OF(event, opd_endpoint_call, event));
}

static void on_done(opd_http_call *http) {
    opd_endpoint_call *call = http->arg;
    if (call->endpoint->abandoned)
        opd_endpoint_call_destroy(call);
    else
        opd_event_post(call->endpoint->system, &call->event);
}

/* Adds the key to the call's headers. */
static void authorize(opd_endpoint_call *call) {
    const opd_endpoint *endpoint = call->endpoint;
    size_t count = call->http.header_count;
    if (endpoint->authorization == NULL || call->http.headers == call->headers) return;
    OPD_ASSERT(count <= OPD_ENDPOINT_HEADERS_MAX);
    for (size_t i = 0; i < count; i++) call->headers[i] = call->http.headers[i];
    call->headers[count] = (opd_http_header){"authorization", endpoint->authorization};
    call->http.headers = call->headers;
    call->http.header_count = count + 1;
}

opd_err opd_endpoint_send(opd_endpoint_call *call) {
    opd_endpoint *endpoint = call->endpoint;
    if (endpoint->client == NULL) return opd_fail(OPD_ERR_CLOSED, "%s is closing", endpoint->name);
    OPD_TRY(opd_str_status(&call->body));
    if (call->body.size > 0 && call->http.body.buf == NULL) {
        OPD_TRY(opd_str_to_buf(&call->body, &call->http.body.buf)); /* the wire may outlive the call */
        call->http.body = opd_slice_whole(call->http.body.buf);
    }
    authorize(call);
    call->http.done = on_done;
    call->http.arg = call;
    call->event.to = endpoint->owner;
    call->event.deliver = deliver_answer;
    call->event.drop = drop_answer;
    return opd_http_client_send(endpoint->client, &call->http);
}

void opd_endpoint_cancel(opd_endpoint_call *call) { opd_http_client_cancel(&call->http); }

/* ---- the endpoint ---- */

static opd_err deliver_closed(opd_ctx *ctx, void *state, opd_event *event) {
    opd_endpoint *endpoint = OPD_CONTAINER_OF(event, opd_endpoint, closed_event);
    opd_err err = OPD_OK;
    opd_cleanup_stop(&endpoint->cleanup);
    if (endpoint->options.closed != NULL) err = endpoint->options.closed(ctx, state, endpoint);
    unref(endpoint);
    return err;
}

static void drop_closed(opd_event *event) {
    unref(OPD_CONTAINER_OF(event, opd_endpoint, closed_event));
}

static void on_closed(void *arg) {
    opd_endpoint *endpoint = arg;
    if (endpoint->abandoned)
        unref(endpoint);
    else
        opd_event_post(endpoint->system, &endpoint->closed_event);
}

static void on_owner_end(opd_cleanup *cleanup) {
    opd_endpoint *endpoint = OPD_CONTAINER_OF(cleanup, opd_endpoint, cleanup);
    endpoint->abandoned = true;
    opd_endpoint_close(endpoint);
}

/* The URL without the "/generate" that users of other trainers put there. */
static opd_err base_url(const char *url, char *out, size_t out_size) {
    static const char generate[] = "/generate";
    size_t size = strlen(url), tail = sizeof generate - 1;
    if (size >= out_size) return opd_fail(OPD_ERR_INVALID, "the teacher's URL is too long");
    while (size > 0 && url[size - 1] == '/') size--;
    if (size > tail && memcmp(url + size - tail, generate, tail) == 0) size -= tail;
    memcpy(out, url, size);
    out[size] = '\0';
    return OPD_OK;
}

opd_err opd_endpoint_open(opd_ctx *ctx, const opd_endpoint_options *options,
                          opd_endpoint **out_endpoint) {
    char url[1024];
    OPD_TRY(base_url(options->url, url, sizeof url));
    opd_endpoint *endpoint = opd_mem_get(options->alloc, sizeof *endpoint);
    if (endpoint == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for an endpoint");
    opd_http_client_options client = {.alloc = options->alloc,
                                      .env = options->env,
                                      .url = url,
                                      .tls = options->tls,
                                      .max_inflight = options->max_inflight,
                                      .connections = options->connections,
                                      .max_answer_bytes = options->max_answer_bytes,
                                      .max_total_bytes =
                                          options->max_answer_bytes * options->max_inflight,
                                      .connect_timeout_ms = options->connect_timeout_ms};
    opd_err err = OPD_OK;
    if (options->api_key != NULL)
        err = opd_secret_copy(options->alloc, "Bearer ", options->api_key, &endpoint->authorization);
    if (err == OPD_OK) err = opd_http_client_create(&client, &endpoint->client);
    if (err != OPD_OK) {
        opd_secret_free(options->alloc, endpoint->authorization);
        opd_mem_free(options->alloc, endpoint);
        return err;
    }
    endpoint->options = *options;
    endpoint->options.url = endpoint->options.api_key = NULL; /* not kept */
    endpoint->options.tls = NULL;
    endpoint->system = opd_self_system(ctx);
    endpoint->owner = opd_self(ctx);
    endpoint->refs = 1;
    opd_list_init(&endpoint->spare);
    const char *name = opd_http_client_authority(endpoint->client);
    size_t size = strnlen(name, sizeof endpoint->name - 1);
    memcpy(endpoint->name, name, size);
    endpoint->closed_event.to = endpoint->owner;
    endpoint->closed_event.deliver = deliver_closed;
    endpoint->closed_event.drop = drop_closed;
    opd_cleanup_start(ctx, &endpoint->cleanup, on_owner_end);
    *out_endpoint = endpoint;
    return OPD_OK;
}

void opd_endpoint_close(opd_endpoint *endpoint) {
    if (endpoint == NULL || endpoint->client == NULL) return;
    opd_http_client *client = endpoint->client;
    endpoint->client = NULL;
    for (opd_list *node; (node = opd_list_pop_front(&endpoint->spare)) != NULL;)
        free_call(endpoint, OPD_CONTAINER_OF(node, opd_endpoint_call, node));
    opd_http_client_close(client, on_closed, endpoint);
}

const char *opd_endpoint_name(const opd_endpoint *endpoint) { return endpoint->name; }

opd_http_protocol opd_endpoint_protocol(const opd_endpoint *endpoint) {
    return endpoint->client != NULL ? opd_http_client_protocol(endpoint->client)
                                    : OPD_HTTP_PROTOCOL_UNKNOWN;
}

uint64_t opd_endpoint_connections(const opd_endpoint *endpoint) {
    return endpoint->client != NULL ? opd_http_client_connections(endpoint->client) : 0;
}
