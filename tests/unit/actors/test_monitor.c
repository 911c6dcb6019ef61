/* test_monitor.c - the monitor writes on the disk lane while it goes on formatting on the loop:
 * every line once, in order, whatever is still unwritten when it stops. */
#include <unistd.h>

#include "actors/messages.h"
#include "actors/monitor/monitor_actor.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "tests/support/script_actor.h"

enum { STEPS = 300, BURST = 7 };

typedef struct feeder {
    opd_pid monitor;
    opd_timer timer;
    uint64_t step;
} feeder;

static opd_err feed(opd_ctx *ctx, void *state, opd_timer *timer) {
    feeder *f = timer->arg;
    int sent = 0;
    (void)state;
    for (; sent < BURST && f->step < STEPS; sent++) {
        opd_accuracy_fields fields = {.step = ++f->step, .correct = 1, .total = 2};
        CHECK_OK(opd_message_send(ctx, f->monitor, OPD_MESSAGE_ACCURACY, &fields));
    }
    if (sent > 0) return opd_timer_start_after(timer, 20000);
    opd_system_stop(opd_self_system(ctx), OPD_OK); /* all is read; some is still to be written */
    return OPD_OK;
}

static opd_err feeder_start(opd_ctx *ctx, void *arg) {
    feeder *f = arg;
    f->timer.arg = f;
    opd_timer_init(&f->timer, ctx, feed);
    return opd_timer_start_after(&f->timer, 0);
}

TEST(every_line_is_written_once_in_order_by_the_lane) {
    opd_test_sys t;
    char path[] = "/tmp/opd_monitor_XXXXXX", expected[32], *text = NULL;
    size_t size = 0;
    feeder f = {0};
    sys_up(&t, NULL);
    static const opd_eval_sets SETS = {.count = 1, .set = {{.name = "eval"}}};
    opd_monitor_config c = {.stage = "s", .steps = STEPS, .evals = &SETS, .metrics_interval = 1,
                            .metrics_fd = mkstemp(path), .samples_fd = -1, .screen_fd = -1};
    CHECK(c.metrics_fd >= 0);
    CHECK_OK(opd_lane_open(t.system, "disk", 16, &c.disk));
    CHECK_OK(opd_spawn(t.system, &opd_monitor_class, NULL, &c, &f.monitor));
    (void)script_spawn(&t, "feeder", (opd_script){.start = feeder_start, .arg = &f});
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
    CHECK_OK(opd_file_read(NULL, path, 1 << 20, &text, &size));
    const char *at = text;
    for (int step = 1; step <= STEPS; step++) {
        (void)snprintf(expected, sizeof expected, "\"train/step\":%d,", step);
        const char *end = strchr(at, '\n');
        const char *found = strstr(at, expected);
        CHECK(end != NULL && found != NULL && found < end);
        at = end + 1;
    }
    CHECK_INT(*at, 0);
    opd_mem_free(NULL, text);
    CHECK_INT(close(c.metrics_fd), 0);
    CHECK_INT(unlink(path), 0);
}

/* ---- samples.jsonl ---- */

static const char *const PROVENANCE[] = {"[{\"from\":0,\"to\":2,\"teacher\":\"t\"}]", " [ ] ", "[1,\n2]",
                                         "{\"from\":0}", "[1", "[1]}", NULL};

static int samples_fd;
static size_t lines_want = OPD_COUNTOF(PROVENANCE);

static opd_err stop_when_written(opd_ctx *ctx, void *state, opd_timer *timer) {
    char text[4096];
    size_t lines = 0;
    ssize_t n = pread(samples_fd, text, sizeof text, 0);
    (void)state;
    for (ssize_t i = 0; i < n; i++) lines += text[i] == '\n';
    if (lines < lines_want) return opd_timer_start_after(timer, 100000);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err show_samples(opd_ctx *ctx, void *arg) {
    feeder *feed_to = arg;
    static const int32_t ids[] = {1, 3 + 'a', 3 + 'b', 2};
    static const float logp[] = {-1, -2}, teacher_logp[] = {-1.5f, -9};
    opd_sample_fields f = {.prompt_len = 2, .source = "math \"7\""};
    CHECK_OK(opd_slice_copy(NULL, ids, sizeof ids, &f.tokens));
    CHECK_OK(opd_slice_copy(NULL, logp, sizeof logp, &f.logp));
    CHECK_OK(opd_slice_copy(NULL, teacher_logp, sizeof teacher_logp, &f.teacher_logp));
    CHECK_OK(opd_slice_copy(NULL, "\1", 2, &f.teacher_valid));
    for (size_t i = 0; i < OPD_COUNTOF(PROVENANCE); i++, f.group++) {
        const char *text = PROVENANCE[i];
        f.provenance = (opd_slice){.buf = NULL};
        if (text != NULL) CHECK_OK(opd_slice_copy(NULL, text, strlen(text), &f.provenance));
        CHECK_OK(opd_message_send(ctx, feed_to->monitor, OPD_MESSAGE_SAMPLE, &f));
        opd_buf_release(f.provenance.buf);
    }
    const opd_slice all[] = {f.tokens, f.logp, f.teacher_logp, f.teacher_valid};
    for (size_t i = 0; i < OPD_COUNTOF(all); i++) opd_buf_release(all[i].buf);
    opd_timer_init(&feed_to->timer, ctx, stop_when_written);
    return opd_timer_start_after(&feed_to->timer, 20000);
}

TEST(a_sample_says_where_it_is_from_and_who_scored_it) {
    opd_test_sys t;
    char path[] = "/tmp/opd_monitor_XXXXXX", *text = NULL;
    size_t size = 0;
    feeder f = {0};
    opd_monitor_config c = {.stage = "s", .steps = 1, .metrics_interval = 1, .metrics_fd = -1,
                            .samples_fd = mkstemp(path), .screen_fd = -1};
    samples_fd = c.samples_fd;
    CHECK_OK(opd_tokenizer_create_bytes(NULL, (opd_tokenizer **)(uintptr_t)&c.tokenizer));
    sys_up(&t, NULL);
    CHECK_OK(opd_lane_open(t.system, "disk", 16, &c.disk));
    CHECK_OK(opd_spawn(t.system, &opd_monitor_class, NULL, &c, &f.monitor));
    (void)script_spawn(&t, "feeder", (opd_script){.start = show_samples, .arg = &f});
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
    CHECK_OK(opd_file_read(NULL, path, 1 << 20, &text, &size));
    static const char *const want[] = {"[{\"from\":0,\"to\":2,\"teacher\":\"t\"}]", "[ ]", "null", "null",
                                       "null", "null", "null"};
    char *at = text;
    for (size_t i = 0; i < OPD_COUNTOF(want); i++) {
        char expected[64], *end = strchr(at, '\n');
        CHECK(end != NULL);
        *end = '\0';
        (void)snprintf(expected, sizeof expected, "\"provenance\":%s}", want[i]);
        CHECK_CONTAINS(at, expected);
        CHECK_CONTAINS(at, "\"source\":\"math \\\"7\\\"\",");
        CHECK_CONTAINS(at, "\"reverse_kl\":0.5,");
        at = end + 1;
    }
    CHECK_INT(*at, 0);
    opd_mem_free(NULL, text);
    opd_tokenizer_destroy((opd_tokenizer *)(uintptr_t)c.tokenizer);
    CHECK_INT(close(c.samples_fd), 0);
    CHECK_INT(unlink(path), 0);
}

/* ---- what each teacher contributed ---- */

static opd_err report_teachers(opd_ctx *ctx, void *arg) {
    feeder *f = arg;
    double values[OPD_METRIC_COUNT], teachers[] = {0.75, -0.5, 0, (double)NAN};
    opd_report_fields r = {.step = 1};
    opd_metrics_clear(values);
    values[OPD_METRIC_SAMPLES] = 4;
    values[OPD_METRIC_GRAD_NORM] = (double)INFINITY; /* of a step that was refused: absent */
    CHECK_OK(opd_slice_copy(NULL, values, sizeof values, &r.values));
    CHECK_OK(opd_slice_copy(NULL, teachers, sizeof teachers, &r.teachers));
    CHECK_OK(opd_message_send(ctx, f->monitor, OPD_MESSAGE_REPORT, &r));
    opd_buf_release(r.teachers.buf);
    opd_buf_release(r.values.buf);
    opd_timer_init(&f->timer, ctx, stop_when_written);
    return opd_timer_start_after(&f->timer, 20000);
}

TEST(metrics_name_each_teacher) {
    static const opd_config_teacher teachers[] = {{.name = "math"}, {.name = "code"}};
    opd_test_sys t;
    char path[] = "/tmp/opd_monitor_XXXXXX", text[4096];
    feeder f = {0};
    opd_monitor_config c = {.stage = "s", .steps = 1, .metrics_interval = 1, .samples_fd = -1,
                            .metrics_fd = mkstemp(path), .screen_fd = -1, .teachers = teachers,
                            .teacher_count = 2};
    samples_fd = c.metrics_fd;
    lines_want = 1;
    sys_up(&t, NULL);
    CHECK_OK(opd_lane_open(t.system, "disk", 16, &c.disk));
    CHECK_OK(opd_spawn(t.system, &opd_monitor_class, NULL, &c, &f.monitor));
    (void)script_spawn(&t, "feeder", (opd_script){.start = report_teachers, .arg = &f});
    CHECK_OK(opd_system_run(t.system));
    sys_down(&t);
    ssize_t n = pread(c.metrics_fd, text, sizeof text - 1, 0);
    CHECK(n > 0);
    text[n] = '\0';
    CHECK_CONTAINS(text, "\"opd/teacher/math/token_share\":0.75,\"opd/teacher/math/kl\":-0.5,"
                         "\"opd/teacher/code/token_share\":0}");
    CHECK(strstr(text, "grad_norm") == NULL && strstr(text, "null") == NULL);
    CHECK_INT(close(c.metrics_fd), 0);
    CHECK_INT(unlink(path), 0);
}
