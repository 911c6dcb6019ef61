/* monitor_actor.c - gathers lines, writes them in the background (monitor_actor.h).
 *
 * Invariants: `filling` collects text while `writing` is on the lane; they swap when a job
 * ends; on_stop writes what is left, so nothing told is lost in an ordered stop.
 * Thread: the loop, except write_job (the disk lane). The actor owns the text buffers, not the
 * file descriptors.
 */
#include "actors/monitor/monitor_actor.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "actors/messages.h"
#include "actors/evaluator/sets.h"
#include "actors/trainer/mixture.h"
#include "core/base/check.h"
#include "core/codec/json.h"
#include "opd/log.h"

enum { OUT_METRICS, OUT_SAMPLES, OUT_SCREEN, OUTS };

#define PLAIN_LINE_NS UINT64_C(5000000000) /* between progress lines off a terminal */
#define LIVE_LINE_NS UINT64_C(100000000)   /* between rewrites on one */

typedef struct monitor {
    opd_monitor_config c;
    opd_ctx *ctx;
    int fds[OUTS];
    opd_str filling[OUTS], writing[OUTS], text;
    opd_job job;
    bool busy, live_line, failed;
    uint64_t begin_ns, shown_ns, lost_lines;
    double samples, invalid_tokens;
    double counted[OPD_METRIC_COUNT]; /* by COUNTED, so far */
} monitor;

/* ---- writing ---- */

static opd_err write_all(int fd, const opd_str *text) {
    for (size_t at = 0; at < text->size;) {
        ssize_t n = write(fd, text->data + at, text->size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return opd_fail(errno == ENOSPC ? OPD_ERR_DISK : OPD_ERR_IO,
                            "the run's metrics, samples or screen cannot be written: %s",
                            strerror(errno));
        at += (size_t)n;
    }
    return OPD_OK;
}

static opd_err write_texts(const int *fds, opd_str *texts) {
    opd_err result = OPD_OK;
    for (int i = 0; i < OUTS; i++) {
        if (fds[i] >= 0 && result == OPD_OK) result = write_all(fds[i], &texts[i]);
        opd_str_clear(&texts[i]);
    }
    return result;
}

static opd_err write_job(opd_job *job) {
    monitor *m = job->arg;
    return write_texts(m->fds, m->writing);
}

static opd_err flush(monitor *m);

static opd_err written(opd_ctx *ctx, void *state, opd_job *job) {
    monitor *m = state;
    m->busy = false;
    if (job->err == OPD_OK) return flush(m);
    m->failed = true; /* a disk that is full is so for the next monitor too: the run stops */
    opd_system_stop(opd_self_system(ctx), opd_fail(job->err, "%s", job->text));
    return OPD_OK;
}

static opd_err flush(monitor *m) {
    bool empty = true;
    for (int i = 0; i < OUTS; i++) empty = empty && m->filling[i].size == 0;
    if (m->busy || m->failed || empty) return OPD_OK;
    for (int i = 0; i < OUTS; i++) {
        opd_str swap = m->writing[i];
        m->writing[i] = m->filling[i];
        m->filling[i] = swap;
    }
    m->busy = true;
    m->job = (opd_job){.run = write_job, .done = written, .arg = m};
    return opd_job_submit(m->ctx, m->c.disk, &m->job);
}

/* A line that did not fit is counted and left out; memory stays bounded. */
static void settle(monitor *m, int out) {
    if (opd_str_status(&m->filling[out]) == OPD_OK) return;
    m->lost_lines++;
    opd_str_clear(&m->filling[out]);
}

/* A line of metrics or samples, an object that begins with its stage. */
static opd_json_writer line_begin(monitor *m, int out) {
    opd_json_writer w;
    opd_json_writer_init(&w, &m->filling[out], 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "stage");
    opd_json_write_text(&w, m->c.stage);
    return w;
}

static void line_end(monitor *m, int out, opd_json_writer *w) {
    opd_json_write_object_end(w);
    opd_str_text(&m->filling[out], "\n");
    settle(m, out);
}

/* ---- the screen ---- */

/* Ends the live line, so that another line can follow. */
static void leave_live_line(monitor *m) {
    if (m->live_line) opd_str_text(&m->filling[OUT_SCREEN], "\n");
    m->live_line = false;
}

static void show_line(monitor *m, const char *line) {
    if (m->fds[OUT_SCREEN] < 0) return;
    leave_live_line(m);
    opd_str_printf(&m->filling[OUT_SCREEN], "%s\n", line);
    settle(m, OUT_SCREEN);
}

static void show_progress(monitor *m, uint64_t step, const double *values, bool last) {
    uint64_t now = opd_now_ns(m->ctx);
    uint64_t pause = m->c.screen.terminal ? LIVE_LINE_NS : PLAIN_LINE_NS;
    if (m->fds[OUT_SCREEN] < 0 || (!last && now - m->shown_ns < pause)) return;
    m->shown_ns = now;
    opd_progress p = {.stage = m->c.stage, .step = step, .steps = m->c.steps,
                      .elapsed_s = (double)(now - m->begin_ns) * 1e-9,
                      .steps_here = step - m->c.first_step, .samples = m->samples,
                      .invalid_tokens = m->invalid_tokens, .values = values,
                      .policy = m->c.policy, .teacher = m->c.teacher};
    opd_str *out = &m->filling[OUT_SCREEN];
    if (m->c.screen.terminal) opd_str_text(out, "\r\033[K");
    opd_screen_progress(&m->c.screen, &p, out);
    m->live_line = m->c.screen.terminal;
    if (!m->live_line) opd_str_text(out, "\n");
    settle(m, OUT_SCREEN);
}

/* ---- what comes in ---- */

/* opd/teacher/NAME/...: what each teacher contributed. */
static void write_teachers(const monitor *m, opd_json_writer *w, const double *values) {
    static const char *const names[] = {"token_share", "kl"};
    for (size_t i = 0; i < 2 * m->c.teacher_count; i++) {
        char key[OPD_CONFIG_NAME_MAX + 32];
        if (!isfinite(values[i])) continue;
        (void)snprintf(key, sizeof key, "opd/teacher/%s/%s", m->c.teachers[i / 2].name, names[i % 2]);
        opd_json_write_key(w, key);
        opd_json_write_double(w, values[i]);
    }
}

/* teachers: as in REPORT, or NULL. */
static void write_metrics(monitor *m, uint64_t step, const double *values, const double *teachers) {
    opd_json_writer w = line_begin(m, OUT_METRICS);
    opd_json_write_key(&w, "train/step");
    opd_json_write_int64(&w, (int64_t)step);
    for (int i = 0; i < OPD_METRIC_COUNT; i++) {
        if (!isfinite(values[i])) continue;
        opd_json_write_key(&w, opd_metric_name((opd_metric)i));
        opd_json_write_double(&w, values[i]);
    }
    if (teachers != NULL) write_teachers(m, &w, teachers);
    line_end(m, OUT_METRICS, &w);
}

static opd_err on_report(monitor *m, const opd_msg *msg) {
    opd_report_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_REPORT, &f));
    double values[OPD_METRIC_COUNT];
    bool whole = f.values.size_bytes == OPD_METRIC_COUNT * sizeof *values &&
                 (f.teachers.buf == NULL ||
                  f.teachers.size_bytes == 2 * m->c.teacher_count * sizeof *values);
    if (!whole)
        return opd_fail(OPD_ERR_PARSE, "monitor: a report of %zu and %zu bytes", f.values.size_bytes,
                        f.teachers.size_bytes);
    memcpy(values, opd_slice_data(f.values), sizeof values);
    for (int i = 0; i < OPD_METRIC_COUNT; i++)
        if (m->counted[i] > 0) values[i] = m->counted[i];
    m->samples += values[OPD_METRIC_SAMPLES];
    if (!isnan(values[OPD_METRIC_INVALID_TOKENS]))
        m->invalid_tokens += values[OPD_METRIC_INVALID_TOKENS];
    if (f.step % m->c.metrics_interval == 0) write_metrics(m, f.step, values, opd_slice_data(f.teachers));
    show_progress(m, f.step, values, f.step == m->c.steps);
    return OPD_OK;
}

static opd_err on_counted(monitor *m, const opd_msg *msg) {
    opd_counted_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_COUNTED, &f));
    if (f.metric < OPD_METRIC_COUNT) m->counted[f.metric] += f.value;
    return OPD_OK;
}

static opd_err on_accuracy(monitor *m, const opd_msg *msg) {
    opd_accuracy_fields f;
    opd_eval_result r;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_ACCURACY, &f));
    OPD_TRY(opd_eval_result_read(f.correct, f.total, f.response_len, f.truncated, &f.pass, &r));
    if (f.set >= m->c.evals->count)
        return opd_fail(OPD_ERR_PARSE, "monitor: an accuracy of set %u", f.set);
    const opd_eval_set *set = &m->c.evals->set[f.set];
    opd_json_writer w = line_begin(m, OUT_METRICS);
    opd_json_write_key(&w, "train/step");
    opd_json_write_int64(&w, (int64_t)f.step);
    opd_eval_result_write(set, &r, &w);
    line_end(m, OUT_METRICS, &w);
    opd_str_clear(&m->text);
    opd_str_printf(&m->text, "%-12s after step %llu: ", m->c.stage, (unsigned long long)f.step);
    opd_eval_result_show(set, &r, &m->text);
    if (opd_str_status(&m->text) == OPD_OK) show_line(m, m->text.data);
    return OPD_OK;
}

/* Mean of student minus teacher over the valid tokens of a sample; NaN without any. */
static double sample_kl(const opd_sample_fields *f) {
    const float *student = opd_slice_data(f->logp);
    opd_mixture teachers = {.teachers = f->teachers.buf != NULL ? f->teachers.size_bytes : 1,
                            .rows = f->logp.size_bytes / sizeof *student,
                            .weights = opd_slice_data(f->weights),
                            .logp = opd_slice_data(f->teacher_logp),
                            .valid = opd_slice_data(f->teacher_valid)};
    double sum = 0, count = 0, teacher;
    for (size_t t = 0; teachers.logp != NULL && t < teachers.rows; t++) {
        if (!opd_mixture_at(&teachers, t, &teacher)) continue;
        sum += (double)student[t] - teacher;
        count++;
    }
    return count > 0 ? sum / count : (double)NAN;
}

static void write_text(monitor *m, opd_json_writer *w, const char *key, const int32_t *ids,
                       size_t count) {
    opd_str_clear(&m->text);
    opd_tokenizer_decode(m->c.tokenizer, ids, count, true, &m->text);
    opd_json_write_key(w, key);
    opd_json_write_string(w, m->text.data != NULL ? m->text.data : "", m->text.size);
}

/* Who scored what. It comes as text from whoever scored; one that would break the line is left out. */
static void write_provenance(opd_json_writer *w, opd_slice provenance) {
    const char *text = opd_slice_data(provenance), *raw;
    size_t size = provenance.size_bytes;
    opd_json json;
    opd_json_write_key(w, "provenance");
    if (text != NULL) {
        opd_json_init(&json, text, size);
        bool array = opd_json_peek(&json) == OPD_JSON_ARRAY && opd_json_raw(&json, &raw, &size);
        if (array && opd_json_finish(&json) == OPD_OK && memchr(raw, '\n', size) == NULL) {
            opd_json_write_raw(w, raw, size);
            return;
        }
        OPD_LOG_WARN("monitor: a sample's provenance is no JSON array on one line: left out");
    }
    opd_json_write_null(w);
}

static opd_err on_sample(monitor *m, const opd_msg *msg) {
    opd_sample_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SAMPLE, &f));
    const int32_t *ids = opd_slice_data(f.tokens);
    size_t count = f.tokens.size_bytes / sizeof *ids;
    opd_json_writer w = line_begin(m, OUT_SAMPLES);
    opd_json_write_key(&w, "group");
    opd_json_write_int64(&w, (int64_t)f.group);
    opd_json_write_key(&w, "member");
    opd_json_write_int64(&w, f.member);
    write_text(m, &w, "prompt", ids, f.prompt_len);
    write_text(m, &w, "response", ids + f.prompt_len, count - f.prompt_len);
    opd_json_write_key(&w, "reward");
    if (f.reward_valid) opd_json_write_double(&w, f.reward);
    else opd_json_write_null(&w);
    opd_json_write_key(&w, "reverse_kl");
    opd_json_write_double(&w, sample_kl(&f));
    opd_json_write_key(&w, "teacher");
    opd_json_write_text(&w, f.teacher);
    opd_json_write_key(&w, "source");
    opd_json_write_text(&w, f.source);
    opd_json_write_key(&w, "endpoint");
    opd_json_write_text(&w, f.endpoint);
    opd_json_write_key(&w, "reason");
    opd_json_write_text(&w, f.reason);
    write_provenance(&w, f.provenance);
    line_end(m, OUT_SAMPLES, &w);
    return OPD_OK;
}

static opd_err on_note(monitor *m, const opd_msg *msg) {
    opd_note_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_NOTE, &f));
    char line[OPD_MESSAGE_TEXT_SIZE + 32];
    (void)snprintf(line, sizeof line, "%-12s %s", m->c.stage, f.text);
    show_line(m, line);
    return OPD_OK;
}

/* ---- the actor ---- */

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    monitor *m = state;
    m->c = *(const opd_monitor_config *)config;
    m->ctx = ctx;
    m->begin_ns = m->shown_ns = opd_now_ns(ctx);
    m->invalid_tokens = (double)m->c.invalid_tokens;
    m->fds[OUT_METRICS] = m->c.metrics_fd;
    m->fds[OUT_SAMPLES] = m->c.samples_fd;
    m->fds[OUT_SCREEN] = m->c.screen_fd;
    for (int i = 0; i < OUTS; i++) {
        opd_str_init(&m->filling[i], m->c.alloc, OPD_MONITOR_TEXT_MAX);
        opd_str_init(&m->writing[i], m->c.alloc, OPD_MONITOR_TEXT_MAX);
    }
    opd_str_init(&m->text, m->c.alloc, OPD_MONITOR_TEXT_MAX);
    return OPD_OK;
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    (void)ctx;
    monitor *m = state;
    switch (opd_msg_kind(msg)) {
    case OPD_MESSAGE_REPORT: OPD_TRY(on_report(m, msg)); break;
    case OPD_MESSAGE_COUNTED: OPD_TRY(on_counted(m, msg)); break;
    case OPD_MESSAGE_ACCURACY: OPD_TRY(on_accuracy(m, msg)); break;
    case OPD_MESSAGE_SAMPLE: OPD_TRY(on_sample(m, msg)); break;
    default: OPD_TRY(on_note(m, msg)); break;
    }
    return flush(m);
}

static void on_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    monitor *m = state;
    leave_live_line(m);
    if (write_texts(m->fds, m->writing) != OPD_OK || write_texts(m->fds, m->filling) != OPD_OK)
        OPD_LOG_ERROR("monitor: %s", opd_err_context());
    if (m->lost_lines > 0)
        OPD_LOG_WARN("monitor: %llu times lines were left out for want of room",
                     (unsigned long long)m->lost_lines);
    for (int i = 0; i < OUTS; i++) {
        opd_str_fini(&m->filling[i]);
        opd_str_fini(&m->writing[i]);
    }
    opd_str_fini(&m->text);
}

/* No work waits for what is only to be seen: when a thousand of them are unread, more are
 * counted and gone. A line of each step goes to metrics.jsonl, so reports are not keep-latest. */
static const opd_kind_policy policies[] = {{OPD_MESSAGE_REPORT, OPD_OVERFLOW_DROP},
                                           {OPD_MESSAGE_NOTE, OPD_OVERFLOW_DROP},
                                           {OPD_MESSAGE_SAMPLE, OPD_OVERFLOW_DROP}};

const opd_actor_class opd_monitor_class = {
    .name = "monitor", .state_size = sizeof(monitor), .mailbox_msgs_max = 1024,
    .mailbox_bytes_max = 16u << 20, .policies = policies,
    .policy_count = OPD_COUNTOF(policies), .on_start = on_start, .on_message = on_message,
    .on_stop = on_stop};
