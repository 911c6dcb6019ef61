/* test_http1.c - the reader and the writer of HTTP/1.1 on their own: every message whole, in pieces
 * and cut short; and what must not pass for a message. */
#include "core/base/check.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"
#include "transports/http1.h"
#include "transports/http_head.h"

/* One message as a text: "start|name=value ...|body|" and what the reader said of it. */
typedef struct heard {
    opd_str text;
    bool head, end;
    size_t left;
} heard;

static opd_err feed(opd_h1_reader *reader, heard *h, const char *bytes, size_t size) {
    const uint8_t *at = (const uint8_t *)bytes;
    opd_h1_event event;
    do {
        opd_err err = opd_h1_read(reader, &at, &size, &event);
        if (err != OPD_OK) return err;
        if (event.kind == OPD_H1_START && event.name != NULL)
            opd_str_printf(&h->text, "%s %s", event.name, event.value);
        if (event.kind == OPD_H1_START && event.name == NULL) opd_str_printf(&h->text, "%d", reader->status);
        if (event.kind == OPD_H1_HEADER) opd_str_printf(&h->text, " %s=%s", event.name, event.value);
        if (event.kind == OPD_H1_HEAD) opd_str_text(&h->text, "|");
        if (event.kind == OPD_H1_BODY) opd_str_append(&h->text, event.data, event.size_bytes);
        if (event.kind == OPD_H1_END) h->end = true;
    } while (event.kind != OPD_H1_MORE);
    h->left = size;
    return OPD_OK;
}

/* Reads bytes in pieces of `piece` (0: whole). Each piece is an exact allocation. */
static opd_err read_in(opd_h1_reader *reader, heard *h, const char *bytes, size_t size, size_t piece) {
    opd_err err = OPD_OK;
    for (size_t at = 0; at < size && err == OPD_OK && !h->end;) {
        size_t part = piece == 0 || piece > size - at ? size - at : piece;
        char *exact = malloc(part);
        memcpy(exact, bytes + at, part);
        err = feed(reader, h, exact, part);
        free(exact);
        at += part;
        h->left += size - at;
    }
    return err;
}

/* The message gives this text, whole and in pieces of 1, 2, ... bytes; kept or not. */
static void check_message(bool server, const char *bytes, const char *expected, bool keep, bool to_end) {
    size_t size = strlen(bytes);
    for (size_t piece = 0; piece <= size; piece++) {
        opd_h1_reader reader;
        heard h = {0};
        opd_str_init(&h.text, NULL, 4096);
        opd_h1_reader_init(&reader, NULL, server, 4096);
        CHECK_OK(read_in(&reader, &h, bytes, size, piece));
        if (to_end) {
            CHECK(!h.end);
            CHECK_OK(opd_h1_read_end(&reader));
            CHECK_OK(feed(&reader, &h, "", 0));
        }
        CHECK(h.end);
        CHECK_STR(h.text.data, expected);
        CHECK_INT(reader.keep_alive, keep);
        CHECK_OK(opd_h1_read_end(&reader));
        opd_str_fini(&h.text);
        opd_h1_reader_fini(&reader);
    }
}

/* The same message cut anywhere is not a message. */
static void check_cuts(bool server, const char *bytes) {
    for (size_t size = 0; size < strlen(bytes); size++) {
        opd_h1_reader reader;
        heard h = {0};
        opd_str_init(&h.text, NULL, 4096);
        opd_h1_reader_init(&reader, NULL, server, 4096);
        CHECK_OK(read_in(&reader, &h, bytes, size, 0));
        CHECK(!h.end);
        CHECK_ERR(opd_h1_read_end(&reader), OPD_ERR_RESET);
        opd_str_fini(&h.text);
        opd_h1_reader_fini(&reader);
    }
}

TEST(requests) {
    static const char get[] = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Y:  two words \t\r\n\r\n";
    check_message(true, get, "GET /a?b=c host=x x-y=two words|", true, false);
    check_cuts(true, get);
    static const char post[] = "\r\nPOST / HTTP/1.1\r\nhost:\r\nContent-Length: 5\r\n\r\nhello";
    check_message(true, post, "POST / host= content-length=5|hello", true, false);
    check_cuts(true, post + 2);
    static const char chunks[] = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
        "5;ext=\"1\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nTrailer: dropped\r\n\r\n";
    check_message(true, chunks, "POST / host=x transfer-encoding=Chunked|hello0123456789", true, false);
    check_cuts(true, chunks);
    check_message(true, "GET http://x:8/p HTTP/1.1\r\nHost: x:8\r\nConnection: x , Close\r\n\r\n",
                  "GET /p host=x:8 connection=x , Close|", false, false);
    check_message(true, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * host=x|", true, false);
    check_message(true, "GET / HTTP/1.0\r\n\r\n", "GET /|", false, false);
    check_message(true, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                  "GET / connection=Keep-Alive|", true, false);
}

TEST(answers) {
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    check_message(false, answer, "200 content-length=3|abc", true, false);
    check_cuts(false, answer);
    check_message(false, "HTTP/1.1 503\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n",
                  "503 retry-after=2 content-length=0|", true, false);
    check_message(false, "HTTP/1.1 204 No Content\r\n\r\n", "204|", true, false);
    check_message(false, "HTTP/1.1 304 x\r\nContent-Length: 10\r\n\r\n", "304 content-length=10|", true, false);
    check_message(false, "HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n"
                  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                  "200 transfer-encoding=chunked|x", true, false);
    check_message(false, "HTTP/1.1 200 OK\r\n\r\nall of it", "200|all of it", false, true);
    check_message(false, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "200 content-length=1|x", false, false);
}

TEST(answer_to_head_has_no_body) {
    opd_h1_reader reader;
    heard h = {0};
    opd_str_init(&h.text, NULL, 4096);
    opd_h1_reader_init(&reader, NULL, false, 4096);
    opd_h1_reader_next(&reader, true);
    CHECK_OK(read_in(&reader, &h, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 38, 0));
    CHECK(h.end);
    opd_str_fini(&h.text);
    opd_h1_reader_fini(&reader);
}

/* Two requests in one piece: the reader stops between them. */
TEST(one_message_at_a_time) {
    static const char two[] = "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
    opd_h1_reader reader;
    heard h = {0};
    opd_str_init(&h.text, NULL, 4096);
    opd_h1_reader_init(&reader, NULL, true, 4096);
    CHECK(opd_h1_reader_fresh(&reader));
    CHECK_OK(feed(&reader, &h, two, strlen(two)));
    CHECK_STR(h.text.data, "GET /1 host=x|");
    CHECK_INT(h.left, strlen(two) / 2);
    opd_h1_reader_next(&reader, false);
    CHECK(opd_h1_reader_fresh(&reader));
    CHECK_OK(feed(&reader, &h, two + strlen(two) / 2, h.left));
    CHECK_STR(h.text.data, "GET /1 host=x|GET /2 host=x|");
    CHECK_INT(h.left, 0);
    opd_str_fini(&h.text);
    opd_h1_reader_fini(&reader);
}

typedef struct bad {
    const char *bytes;
    opd_err err;
    int refusal;
} bad;

static void check_bad(bool server, const bad *b) {
    size_t size = strlen(b->bytes);
    for (size_t piece = 0; piece < 3; piece++) {
        opd_h1_reader reader;
        heard h = {0};
        opd_str_init(&h.text, NULL, 8192);
        opd_h1_reader_init(&reader, NULL, server, 256);
        opd_err err = read_in(&reader, &h, b->bytes, size, piece);
        if (err != b->err) opd_test_fail(__FILE__, __LINE__, "%s: %s", b->bytes, opd_err_name(err));
        if (server) CHECK_INT(reader.refusal, b->refusal);
        CHECK(!h.end);
        opd_h1_event event;
        const uint8_t *at = (const uint8_t *)"x";
        CHECK_ERR(opd_h1_read(&reader, &at, &(size_t){1}, &event), b->err); /* and stays so */
        opd_str_fini(&h.text);
        opd_h1_reader_fini(&reader);
    }
}

#define GET "GET / HTTP/1.1\r\nHost: x\r\n"
#define LONG "0123456789012345678901234567890123456789012345678901234567890123456789"

TEST(no_requests) {
    static const bad all[] = {
        {"GET / HTTP/1.1\r\n\r\n", OPD_ERR_PROTO, 400},                       /* no host */
        {GET "Host: y\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length: 1, 1\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length: +1\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length: 0x1\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length:\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Content-Length: 99999999999999999999\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Transfer-Encoding: gzip, chunked\r\n\r\n", OPD_ERR_UNSUPPORTED, 501},
        {GET "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", OPD_ERR_PROTO, 400},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET " folded: x\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "Name : x\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET ": x\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "no colon\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "A: b\rc\r\n\r\n", OPD_ERR_PROTO, 400},
        {GET "A: b\n\r\n", OPD_ERR_PROTO, 400}, /* LF without CR */
        {"\n", OPD_ERR_PROTO, 400},
        {"GET  / HTTP/1.1\r\n", OPD_ERR_PROTO, 400},
        {"GET / HTTP/1.1 \r\n", OPD_ERR_UNSUPPORTED, 505},
        {"GET x HTTP/1.1\r\n", OPD_ERR_PROTO, 400},
        {"GET /\x80 HTTP/1.1\r\n", OPD_ERR_PROTO, 400},
        {"G@T / HTTP/1.1\r\n", OPD_ERR_PROTO, 400},
        {"GET /\r\n", OPD_ERR_PROTO, 400},
        {"PRI * HTTP/2.0\r\n\r\n", OPD_ERR_UNSUPPORTED, 505},
        {"GET / http/1.1\r\n", OPD_ERR_PROTO, 400},
        {GET "A: " LONG LONG LONG LONG "\r\n\r\n", OPD_ERR_LIMIT, 431},
        {"GET /" LONG LONG LONG LONG, OPD_ERR_LIMIT, 431}};
    for (size_t i = 0; i < OPD_COUNTOF(all); i++) check_bad(true, &all[i]);
}

#define CHUNKED GET "Transfer-Encoding: chunked\r\n\r\n"

TEST(no_chunks) {
    static const bad all[] = {
        {CHUNKED "x\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED " 1\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "-1\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "0x1\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "1 \r\na\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "1\na\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "1000000000000000\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "1\r\nab\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "1\r\nabc\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "1;" LONG LONG LONG LONG "\r\n", OPD_ERR_LIMIT, 431},
        {CHUNKED "0\r\n folded\r\n\r\n", OPD_ERR_PROTO, 400},
        {CHUNKED "0\r\nA: " LONG LONG LONG LONG "\r\n\r\n", OPD_ERR_LIMIT, 431}};
    for (size_t i = 0; i < OPD_COUNTOF(all); i++) check_bad(true, &all[i]);
}

TEST(no_answers) {
    static const bad all[] = {
        {"HTTP/2.0 200 OK\r\n", OPD_ERR_UNSUPPORTED, 0}, {"HTTP/1.1\r\n", OPD_ERR_PROTO, 0},
        {"HTTP/1.1 20 OK\r\n", OPD_ERR_PROTO, 0},        {"HTTP/1.1 2000\r\n", OPD_ERR_PROTO, 0},
        {"HTTP/1.1 099 x\r\n", OPD_ERR_PROTO, 0},        {"HTTP/1.1 101 x\r\n", OPD_ERR_PROTO, 0},
        {"HTTP/1.1 700 x\r\n", OPD_ERR_PROTO, 0},        {"\r\n", OPD_ERR_PROTO, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", OPD_ERR_PROTO, 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", OPD_ERR_PROTO, 0},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", OPD_ERR_UNSUPPORTED, 0}};
    for (size_t i = 0; i < OPD_COUNTOF(all); i++) check_bad(false, &all[i]);
}

TEST(interim_answers_are_bounded) {
    opd_h1_reader reader;
    heard h = {0};
    opd_str_init(&h.text, NULL, 4096);
    opd_h1_reader_init(&reader, NULL, false, 256);
    opd_err err = OPD_OK;
    for (int i = 0; i < 100 && err == OPD_OK; i++) err = feed(&reader, &h, "HTTP/1.1 100 x\r\n\r\n", 18);
    CHECK_INT(err, OPD_ERR_LIMIT);
    opd_str_fini(&h.text);
    opd_h1_reader_fini(&reader);
}

TEST(no_memory_for_a_line) {
    opd_test_alloc memory;
    opd_test_alloc_failing(&memory, 1, false);
    opd_h1_reader reader;
    heard h = {0};
    opd_str_init(&h.text, NULL, 4096);
    opd_h1_reader_init(&reader, &memory.alloc, true, 4096);
    CHECK_ERR(feed(&reader, &h, "GET /", 5), OPD_ERR_NOMEM);
    opd_str_fini(&h.text);
    opd_h1_reader_fini(&reader);
    CHECK_INT(memory.live, 0);
}

/* ---- the writer ---- */

static void pull_all(opd_h1_writer *writer, opd_str *out) {
    static opd_iobatch batch;
    while (!opd_h1_writer_empty(writer)) {
        opd_iobatch_init(&batch);
        opd_h1_writer_pull(writer, &batch);
        for (size_t i = batch.first; i < batch.count; i++)
            opd_str_append(out, batch.segments[i].data, batch.segments[i].size_bytes);
        opd_iobatch_clear(&batch);
    }
}

static opd_buf *filled(size_t size) {
    opd_buf *buf;
    CHECK_OK(opd_buf_create(NULL, size, &buf));
    memset(opd_buf_data(buf), 'b', size);
    return buf;
}

/* What is written is read back: small and large bodies, heads beyond one batch. */
TEST(what_is_written_is_read) {
    char *big = calloc(1, 40001);
    memset(big, 'v', 40000);
    opd_http_header headers[] = {{"x-small", "1 2"}, {"x-big", big}};
    for (size_t size = 0; size < 200000; size = size * 7 + 1) {
        opd_h1_writer writer;
        opd_str out;
        opd_buf *body = filled(size + 1);
        opd_str_init(&out, NULL, 1 << 20);
        opd_h1_writer_init(&writer, NULL, 64 * 1024);
        CHECK_OK(opd_h1_write_request(&writer, "POST", "h:1", "/p", "/x", headers, 2,
                                      (opd_slice){body, 0, size}));
        pull_all(&writer, &out);
        opd_h1_reader reader;
        heard h = {0};
        opd_str_init(&h.text, NULL, 1 << 20);
        opd_h1_reader_init(&reader, NULL, true, 64 * 1024);
        CHECK_OK(read_in(&reader, &h, out.data, out.size, 1000));
        CHECK(h.end);
        CHECK_INT(reader.length_bytes, size);
        CHECK(strncmp(h.text.data, "POST /p/x host=h:1 x-small=1 2 x-big=vvv", 40) == 0);
        CHECK(size == 0 || h.text.data[h.text.size - 1] == 'b');
        opd_str_fini(&h.text);
        opd_str_fini(&out);
        opd_h1_reader_fini(&reader);
        opd_h1_writer_fini(&writer);
        opd_buf_release(body);
    }
    free(big);
}

TEST(what_would_break_a_message_is_not_written) {
    static const opd_http_header bad_headers[] = {
        {"x", "a\r\nb: c"}, {"x", "a\n"}, {"x y", "a"}, {"", "a"}, {"Upper", "a"}, {"x:", "a"},
        {"content-length", "3"}, {"transfer-encoding", "chunked"}, {"host", "y"}, {"upgrade", "h2c"},
        {"connection", "x"}};
    opd_h1_writer writer;
    opd_h1_writer_init(&writer, NULL, 4096);
    for (size_t i = 0; i < OPD_COUNTOF(bad_headers); i++) {
        CHECK_ERR(opd_h1_write_request(&writer, "GET", "h", "", "/", &bad_headers[i], 1, (opd_slice){0}),
                  OPD_ERR_INVALID);
        CHECK_ERR(opd_h1_write_response(&writer, 200, &bad_headers[i], 1, (opd_slice){0}, false),
                  OPD_ERR_INVALID);
    }
    CHECK_ERR(opd_h1_write_request(&writer, "GET", "h", "", "/a b", NULL, 0, (opd_slice){0}), OPD_ERR_INVALID);
    CHECK_ERR(opd_h1_write_request(&writer, "G T", "h", "", "/", NULL, 0, (opd_slice){0}), OPD_ERR_INVALID);
    CHECK(opd_h1_writer_empty(&writer));
    char value[5000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    opd_http_header large = {"x", value};
    CHECK_ERR(opd_h1_write_request(&writer, "GET", "h", "", "/", &large, 1, (opd_slice){0}), OPD_ERR_LIMIT);
    CHECK(opd_h1_writer_empty(&writer));
    opd_str out;
    opd_str_init(&out, NULL, 4096);
    CHECK_OK(opd_h1_write_response(&writer, 204, NULL, 0, (opd_slice){0}, true));
    pull_all(&writer, &out);
    CHECK_STR(out.data, "HTTP/1.1 204 \r\nconnection: close\r\n\r\n");
    opd_str_fini(&out);
    opd_h1_writer_fini(&writer);
}
