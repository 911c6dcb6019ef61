/* bench_client.c - the client actor against any HTTP server: requests per second.
 *
 *   opd_bench_client URL BODY_FILE ANSWER_BYTES CONNECTIONS CALLS
 *
 * One actor holds one endpoint with CONNECTIONS connections and keeps 100 calls per connection
 * under way until CALLS were answered: the same work as h2load -c CONNECTIONS -m 100 -n CALLS -d
 * BODY_FILE, which tests/bench/run.py runs beside it. Each call is built as the teacher actor
 * builds one (its own body, deadline, attempt limit) and answered in the actor's context; the
 * answer is then discarded unparsed. Every answer's status and size is checked.
 *
 * Prints one JSON line. Any error ends the program. Thread: the loop's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "actors/teacher/endpoint.h"
#include "opd/log.h"
#include "tests/bench/bench.h"

enum { STREAMS = 100, BODY_BYTES_MAX = 1 << 20, DEADLINE_S = 600, ATTEMPT_MS = 60000 };

typedef struct work {
    opd_env *env;
    const char *url, *body;
    size_t body_bytes, answer_bytes;
    uint32_t connections;
    uint64_t calls;
    double begun_s, took_s; /* from the first send to the last answer */
} work;

typedef struct asker {
    work *task;
    opd_endpoint *endpoint;
    uint64_t sent, answered;
} asker;

static void ask(asker *self);

static opd_err on_answer(opd_ctx *ctx, void *state, opd_endpoint_call *call) {
    asker *self = state;
    if (call->http.err != OPD_OK) bench_must(opd_fail(call->http.err, "%s", call->http.error));
    if (call->http.status != 200 || call->http.answer.size != self->task->answer_bytes)
        bench_must(opd_fail(OPD_ERR_MISMATCH, "status %d with %zu bytes", call->http.status,
                            call->http.answer.size));
    self->answered++;
    if (self->sent < self->task->calls) ask(self);
    if (self->answered < self->task->calls) return OPD_OK;
    self->task->took_s = bench_now_s() - self->task->begun_s;
    opd_endpoint_close(self->endpoint);
    opd_exit(ctx, OPD_OK);
    return OPD_OK;
}

static void ask(asker *self) {
    static const opd_http_header headers[] = {{"content-type", "application/json"}};
    const work *job = self->task;
    opd_endpoint_call *call = NULL;
    bench_must(opd_endpoint_call_create(self->endpoint, &call));
    opd_str_append(&call->body, job->body, job->body_bytes);
    call->http.path = "/answer";
    call->http.headers = headers;
    call->http.header_count = 1;
    call->http.deadline_ns = opd_env_now_ns(job->env) + DEADLINE_S * UINT64_C(1000000000);
    call->http.attempt_timeout_ms = ATTEMPT_MS;
    call->answered = on_answer;
    bench_must(opd_endpoint_send(call));
    self->sent++;
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    asker *self = state;
    self->task = *(work *const *)config;
    opd_endpoint_options options = {.env = self->task->env, .url = self->task->url,
                                    .max_inflight = STREAMS * self->task->connections,
                                    .connections = self->task->connections,
                                    .connect_timeout_ms = 5000, .max_body_bytes = BODY_BYTES_MAX,
                                    .max_answer_bytes = 1 << 20};
    bench_must(opd_endpoint_open(ctx, &options, &self->endpoint));
    self->task->begun_s = bench_now_s();
    while (self->sent < options.max_inflight && self->sent < self->task->calls) ask(self);
    return OPD_OK;
}

static const opd_actor_class asker_class = {.name = "asker", .state_size = sizeof(asker),
                                            .on_start = asker_start};

static char *read_body(const char *path, size_t *out_bytes) {
    char *body = malloc(BODY_BYTES_MAX);
    FILE *file = fopen(path, "rb");
    if (body == NULL || file == NULL) bench_must(opd_fail(OPD_ERR_IO, "cannot read %s", path));
    *out_bytes = fread(body, 1, BODY_BYTES_MAX, file);
    (void)fclose(file);
    return body;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        (void)fprintf(stderr, "usage: %s URL BODY_FILE ANSWER_BYTES CONNECTIONS CALLS\n", argv[0]);
        return 2;
    }
    bench_system b;
    work job = {.url = argv[1], .answer_bytes = strtoul(argv[3], NULL, 10),
               .connections = (uint32_t)strtoul(argv[4], NULL, 10),
               .calls = strtoull(argv[5], NULL, 10)}, *config = &job;
    char *body = read_body(argv[2], &job.body_bytes);
    job.body = body;
    opd_log_level_set(OPD_LOG_LEVEL_WARN);
    bench_up(&b, NULL);
    job.env = b.env;
    (void)bench_spawn(&b, &asker_class, &config);
    (void)bench_run_s(&b);
    bench_down(&b);
    free(body);
    printf("{\"value\":%.6g,\"unit\":\"requests/s\",\"versions\":{\"opd\":\"%s\",\"libuv\":\"%s\"}}\n",
           (double)job.calls / job.took_s, OPD_VERSION, uv_version_string());
    return 0;
}
