/* test_trace.c - the trace of a run as the file that a viewer reads, and the histogram of its counters. */
#include "core/base/check.h"
#include "core/codec/json.h"
#include "core/env/env.h"
#include "opd/diagnosis.h"
#include "tests/support/script_actor.h"

static const char *kind_name(uint16_t kind) {
    (void)kind;
    return "data";
}

static opd_err send_traced(opd_ctx *ctx, void *arg) {
    opd_trace_set(ctx, 42);
    return opd_send(ctx, *(opd_pid *)arg, script_msg(opd_self_system(ctx), 1, 0));
}

static opd_err end_of_trace(opd_ctx *ctx, void *arg, opd_msg *msg) {
    (void)arg;
    (void)msg;
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static void sample_text(uint64_t trace, char *out, size_t out_size) {
    (void)snprintf(out, out_size, "sample %llu", (unsigned long long)trace);
}

/* Writes a trace of one message and reads the file back. */
static char *traced_run(uint32_t events_max) {
    const char *path = OPD_BINARY_DIR "/test_trace.json";
    opd_test_sys t;
    opd_tracer *tracer = NULL;
    sys_up(&t, &(opd_system_options){.kind_name = kind_name});
    opd_tracer_options options = {.alloc = &t.memory.alloc, .events_max = events_max,
                                  .trace_text = sample_text};
    CHECK_OK(opd_tracer_create(&options, t.system, &tracer));
    opd_pid to = script_spawn(&t, "to\"", (opd_script){.message = end_of_trace});
    script_spawn(&t, "from", (opd_script){.start = send_traced, .arg = &to});
    CHECK_OK(opd_system_run(t.system));
    CHECK_OK(opd_tracer_write(tracer, path));
    CHECK_ERR(opd_tracer_write(tracer, "/nowhere/trace.json"), OPD_ERR_IO);
    opd_tracer_destroy(tracer);
    opd_tracer_destroy(NULL);
    sys_down(&t);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    static char text[16384];
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    (void)remove(path);
    return text;
}

TEST(a_trace_shows_a_samples_way) {
    const char *text = traced_run(0);
    opd_json json;
    opd_json_init(&json, text, strlen(text));
    CHECK(opd_json_skip(&json));
    CHECK_OK(opd_json_finish(&json));
    CHECK_CONTAINS(text, "\"dropped_events\":0");
    CHECK_CONTAINS(text, "\"args\":{\"name\":\"to?\"}}");
    CHECK_CONTAINS(text, "{\"name\":\"wait data\",");
    CHECK_CONTAINS(text, "\"ph\":\"b\",\"id\":\"0x2a\",\"cat\":\"from > to? data\"");
    CHECK_CONTAINS(text, "{\"name\":\"hold data\",");
    CHECK_CONTAINS(text, "{\"name\":\"data\",");
    CHECK_CONTAINS(text, "\"sample\":\"sample 42\"");
}

TEST(a_trace_is_bounded) {
    const char *text = traced_run(2);
    CHECK(strstr(text, "\"dropped_events\":0") == NULL);
    CHECK_CONTAINS(text, "\"dropped_events\":");
}

TEST(histogram) {
    opd_histogram h = {0};
    CHECK_INT(opd_histogram_quantile(&h, 0.5), 0);
    for (uint64_t v = 0; v < 1000; v++) opd_histogram_record(&h, v);
    opd_histogram_record(&h, UINT64_MAX);
    CHECK_INT(opd_histogram_count(&h), 1001);
    CHECK_INT(opd_histogram_quantile(&h, 0.5), 511);
    CHECK_INT(opd_histogram_quantile(&h, 0), 0);
    CHECK(opd_histogram_quantile(&h, 1) == UINT64_MAX);
}
