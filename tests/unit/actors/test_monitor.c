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
    opd_monitor_config c = {.stage = "s", .steps = STEPS, .metrics_interval = 1,
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
