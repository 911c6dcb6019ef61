/* recorder.c - the flight recorder: the last envelope headers of a system (opd/diagnosis.h).
 *
 * A tap that writes one fixed record into a ring. Told are the facts that a post-mortem needs:
 * who sent, handled, refused, lost and answered what, and who began and ended; not the ends of
 * callbacks, releases, jobs and who watches whom. The ring is allocated with the system, 64 bytes a record.
 *
 * Thread: the loop's; freed by opd_system_destroy.
 */
#include <stdio.h>

#include "core/actor/line.h"

enum {
    NOT_TOLD = OPD_TAP_BIT(OPD_TAP_EVENT) | OPD_TAP_BIT(OPD_TAP_RETURNED) |
               OPD_TAP_BIT(OPD_TAP_RELEASED) | OPD_TAP_BIT(OPD_TAP_JOB_BEGIN) |
               OPD_TAP_BIT(OPD_TAP_JOB_END) | /* a decode step each: they would flood the ring */
               OPD_TAP_BIT(OPD_TAP_FREED) | OPD_TAP_BIT(OPD_TAP_MONITORED) |
               OPD_TAP_BIT(OPD_TAP_UNMONITORED)
};

static void record(void *arg, const opd_tap_record *r) {
    opd__recorder *recorder = arg;
    recorder->ring[recorder->count++ % OPD_RECORDER_RECORDS] = (opd__record){
        .time_ns = r->time_ns, .from = r->from, .to = r->to, .serial = r->serial,
        .correlation = r->correlation, .trace = r->trace,
        .bytes = r->bytes < UINT32_MAX ? (uint32_t)r->bytes : UINT32_MAX,
        .message_kind = r->message_kind, .kind = (uint8_t)r->kind, .err = (uint8_t)r->err};
}

opd_err opd__recorder_create(opd_system *system) {
    opd__recorder *recorder = opd_mem_get(system->options.alloc, sizeof *recorder);
    if (recorder == NULL) return opd_fail(OPD_ERR_NOMEM, "flight recorder");
    recorder->tap = (opd_tap){.record = record, .arg = recorder,
                              .kinds = OPD_TAP_BIT(OPD_TAP_KIND_COUNT) - 1 - NOT_TOLD};
    system->recorder = recorder;
    opd_tap_add(system, &recorder->tap);
    return OPD_OK;
}

static void describe(opd__line *line, const opd_system *system, const opd__record *r) {
    opd__line_add(line, "%14.6f %-9s ", (double)r->time_ns / 1e9,
                  opd_tap_kind_name((opd_tap_kind)r->kind));
    opd__line_pid(line, system, r->from);
    opd__line_add(line, " -> ");
    opd__line_pid(line, system, r->to);
    if (r->serial != 0) {
        opd__line_add(line, " ");
        opd__line_kind(line, system, r->message_kind);
        opd__line_add(line, " #%llu %u B", (unsigned long long)r->serial, r->bytes);
    }
    if (r->correlation != 0)
        opd__line_add(line, " request %llx", (unsigned long long)r->correlation);
    if (r->trace != 0) opd__line_add(line, " trace %llx", (unsigned long long)r->trace);
    if (r->err != OPD_OK) opd__line_add(line, " %s", opd_err_text((opd_err)r->err));
}

void opd_recorder_dump(const opd_system *system, size_t lines_max, opd_line_fn out, void *arg) {
    const opd__recorder *recorder = system->recorder;
    if (recorder == NULL) return;
    uint64_t kept = recorder->count < OPD_RECORDER_RECORDS ? recorder->count : OPD_RECORDER_RECORDS;
    if (lines_max < kept) kept = lines_max;
    for (uint64_t i = recorder->count - kept; i < recorder->count; i++) {
        opd__line line = {.used = 0};
        describe(&line, system, &recorder->ring[i % OPD_RECORDER_RECORDS]);
        opd__line_end(&line, out, arg);
    }
}

static void line_to_stderr(void *arg, const char *line) {
    (void)arg;
    (void)fprintf(stderr, "%s\n", line);
}

/* Of an assertion on the loop's thread. */
static void on_assert(void *arg) {
    (void)fprintf(stderr, "the last records of this loop:\n");
    opd_recorder_dump(arg, OPD_RECORDER_DUMP_LINES, line_to_stderr, NULL);
}

void opd__recorder_arm(opd_system *system) {
    if (system->recorder != NULL) opd_assert_hook_set(on_assert, system);
}

void opd__recorder_destroy(opd_system *system) {
    if (system->recorder == NULL) return;
    opd_assert_hook_set(NULL, NULL);
    opd_tap_remove(system, &system->recorder->tap);
    opd_mem_free(system->options.alloc, system->recorder);
    system->recorder = NULL;
}
