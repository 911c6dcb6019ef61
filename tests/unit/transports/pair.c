/* pair.c - see pair.h. */
#include "tests/unit/transports/pair.h"

#include "core/base/rng.h"
#include "tests/support/test.h"

static void on_header(void *arg, void *user, const char *name, const char *value) {
    (void)arg;
    pair_side *side = user;
    if (strcmp(name, ":status") == 0) side->status = atoi(value);
    opd_str_printf(&side->head, "%s: %s\n", name, value);
}

static void on_body(void *arg, void *user, const uint8_t *bytes, size_t size) {
    pair *p = arg;
    pair_side *side = user;
    opd_str_append(&side->body, bytes, size);
    if (!p->no_consume) opd_h2_consume(side->stream, size);
}

static void on_close(void *arg, void *user, const opd_h2_end *end) {
    (void)arg;
    pair_side *side = user;
    side->closed++;
    side->err = end->err;
    side->retry_safe = end->retry_safe;
    snprintf(side->text, sizeof side->text, "%s", end->text);
    side->stream = NULL;
}

static void client_complete(void *arg, void *user) {
    (void)arg;
    ((pair_side *)user)->complete++;
}

static void *server_request(void *arg, opd_h2_stream *stream) {
    pair *p = arg;
    if (p->refuse || p->request_count == PAIR_STREAMS_MAX) return NULL;
    pair_side *side = &p->requests[p->request_count++];
    side->stream = stream;
    return side;
}

static void server_complete(void *arg, void *user) {
    pair *p = arg;
    pair_side *side = user;
    side->complete++;
    if (p->silent) return;
    opd_http_header header = {"content-type", "text/test"};
    opd_buf *echo = NULL;
    opd_slice body = p->answer;
    if (p->echo) {
        CHECK_OK(opd_buf_create(NULL, side->body.size, &echo));
        if (side->body.size > 0) memcpy(opd_buf_data(echo), side->body.data, side->body.size);
        body = opd_slice_whole(echo);
    }
    CHECK_OK(opd_h2_respond(side->stream, 200, &header, 1, body));
    opd_buf_release(echo);
}

static void on_settings(void *arg) { ((pair *)arg)->settings++; }

static void on_goaway(void *arg, bool calm) {
    (void)calm;
    ((pair *)arg)->goaways++;
}

void pair_init(pair *p, uint32_t stream_window, uint32_t connection_window, uint32_t max_streams) {
    memset(p, 0, sizeof *p);
    p->client_events = (opd_h2_events){.on_header = on_header, .on_body = on_body,
        .on_complete = client_complete, .on_close = on_close, .on_settings = on_settings,
        .on_goaway = on_goaway};
    p->server_events = (opd_h2_events){.on_request = server_request, .on_header = on_header,
        .on_body = on_body, .on_complete = server_complete, .on_close = on_close};
    opd_h2_options options = {.max_streams = max_streams, .stream_window_bytes = stream_window,
        .connection_window_bytes = connection_window, .max_header_bytes = 32768};
    CHECK_OK(opd_h2_create(&options, &p->client_events, p, &p->client));
    options.server = true;
    CHECK_OK(opd_h2_create(&options, &p->server_events, p, &p->server));
    for (int i = 0; i < PAIR_STREAMS_MAX; i++) {
        opd_str_init(&p->calls[i].body, NULL, 64u << 20);
        opd_str_init(&p->calls[i].head, NULL, 1u << 20);
        opd_str_init(&p->requests[i].body, NULL, 64u << 20);
        opd_str_init(&p->requests[i].head, NULL, 1u << 20);
    }
    p->chunk_max = 64;
}

void pair_fini(pair *p) {
    opd_h2_destroy(p->client);
    opd_h2_destroy(p->server);
    for (int i = 0; i < PAIR_STREAMS_MAX; i++) {
        opd_str_fini(&p->calls[i].body);
        opd_str_fini(&p->calls[i].head);
        opd_str_fini(&p->requests[i].body);
        opd_str_fini(&p->requests[i].head);
    }
}

static void feed(pair *p, opd_h2 *to, const uint8_t *bytes, size_t size) {
    while (size > 0) {
        size_t part = size;
        if (p->chunk_state != 0)
            part = 1 + (size_t)(opd_rng_at(p->chunk_state++, 1, 2, 3) % p->chunk_max);
        if (part > size) part = size;
        CHECK_OK(opd_h2_receive(to, bytes, part));
        bytes += part;
        size -= part;
    }
}

static size_t move(pair *p, opd_h2 *from, opd_h2 *to) {
    static opd_iobatch batch;
    opd_iobatch_init(&batch);
    CHECK_OK(opd_h2_pull(from, &batch));
    size_t moved = batch.size_bytes;
    for (size_t i = batch.first; i < batch.count; i++)
        feed(p, to, batch.segments[i].data, batch.segments[i].size_bytes);
    opd_iobatch_clear(&batch);
    return moved;
}

size_t pair_run(pair *p) {
    size_t total = 0, moved;
    do {
        moved = move(p, p->client, p->server);
        moved += move(p, p->server, p->client);
        total += moved;
    } while (moved > 0);
    return total;
}

opd_err pair_request(pair *p, int i, const char *path, opd_slice body) {
    opd_http_header header = {"x-test", "1"};
    opd_h2_request request = {.method = body.size_bytes > 0 ? "POST" : "GET",
        .authority = "test:1", .path_prefix = "", .path = path, .headers = &header,
        .header_count = 1, .body = body};
    return opd_h2_request_send(p->client, &request, &p->calls[i], &p->calls[i].stream);
}

opd_buf *pattern_create(size_t size, unsigned seed) {
    opd_buf *buf;
    CHECK_OK(opd_buf_create(NULL, size, &buf));
    uint8_t *bytes = opd_buf_data(buf);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)((i * 31 + (i >> 13) + seed) & 255);
    return buf;
}

bool pattern_is(const char *bytes, size_t size, unsigned seed) {
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)bytes[i] != (uint8_t)((i * 31 + (i >> 13) + seed) & 255)) return false;
    return true;
}
