/* tracer.c - a run as a Chrome trace: who worked when, and each sample's way (opd/diagnosis.h).
 *
 * A tap that keeps the newest events_max spans in a ring; a span is written when it ends:
 *   a callback   from HANDLED or EVENT to RETURNED       a slice on the actor's row
 *   a job        from JOB_BEGIN to JOB_END                a slice on the lane's row
 *   a wait       from SENT to HANDLED or DEAD             an async span of the message's trace
 *   a hold       from HANDLED to RELEASED                 the same
 * Waits and holds are kept for messages with a trace id only. What is open is found by the
 * message's serial in a table of OPEN_MAX places; a collision forgets the older span, which
 * is counted as dropped, like a span that the ring overwrote.
 *
 * Rows are names, not pids, so that a restarted actor goes on in its row.
 * Thread: the loop's. opd_tracer_destroy frees.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/actor/internal.h"

enum { EVENTS_MAX = 131072, OPEN_MAX = 4096, ROWS_MAX = 256, SLOTS_MAX = UINT16_MAX + 1 };

typedef enum span_kind { SPAN_CALLBACK, SPAN_JOB, SPAN_WAIT, SPAN_HOLD } span_kind;

/* 40 bytes. */
typedef struct span {
    uint64_t begin_ns, end_ns;
    uint64_t trace, serial;
    uint16_t row, from_row, message_kind;
    uint8_t kind, err;
} span;

typedef struct open_span {
    uint64_t serial, since_ns, trace;
    bool handled;
} open_span;

struct opd_tracer {
    opd_tracer_options options;
    opd_tap tap;
    opd_system *system;
    uint64_t began_ns;
    uint64_t count, dropped; /* spans ever; lost to a collision */
    span *ring;
    open_span open[OPEN_MAX]; /* by serial */
    char rows[ROWS_MAX][OPD__NAME_SIZE];
    bool row_is_lane[ROWS_MAX];
    uint32_t row_count;
    uint16_t row_of_slot[SLOTS_MAX];
    span now;       /* the callback at work */
    uint64_t job_began_ns;
};

/* The row of that name; the last row takes those for whom there is none. */
static uint16_t row_of(opd_tracer *t, const char *name, bool is_lane) {
    for (uint32_t i = 0; i < t->row_count; i++)
        if (t->row_is_lane[i] == is_lane && strcmp(t->rows[i], name) == 0) return (uint16_t)i;
    if (t->row_count == ROWS_MAX) return ROWS_MAX - 1;
    opd__text_copy(t->rows[t->row_count], OPD__NAME_SIZE, name);
    t->row_is_lane[t->row_count] = is_lane;
    return (uint16_t)t->row_count++;
}

static uint16_t row_of_pid(const opd_tracer *t, opd_pid pid) {
    return t->row_of_slot[(pid >> 32) & UINT16_MAX];
}

static void add(opd_tracer *t, const span *s) {
    t->ring[t->count++ % t->options.events_max] = *s;
}

/* ---- messages -------------------------------------------------------------------------- */

static void open_message(opd_tracer *t, const opd_tap_record *r, bool handled) {
    open_span *open = &t->open[r->serial % OPEN_MAX];
    if (open->serial != 0 && open->serial != r->serial) t->dropped++;
    *open = (open_span){.serial = r->serial, .since_ns = r->time_ns, .trace = r->trace,
                        .handled = handled};
}

static void close_message(opd_tracer *t, const opd_tap_record *r) {
    open_span *open = &t->open[r->serial % OPEN_MAX];
    if (open->serial != r->serial) return;
    span s = {.begin_ns = open->since_ns, .end_ns = r->time_ns, .trace = open->trace,
              .serial = r->serial, .row = row_of_pid(t, r->to), .from_row = row_of_pid(t, r->from),
              .message_kind = r->message_kind, .err = (uint8_t)r->err,
              .kind = open->handled ? SPAN_HOLD : SPAN_WAIT};
    add(t, &s);
    open->serial = 0;
}

static void on_message(opd_tracer *t, const opd_tap_record *r) {
    if (r->trace == 0) return;
    if (r->kind != OPD_TAP_SENT) close_message(t, r);
    if (r->kind == OPD_TAP_SENT || r->kind == OPD_TAP_HANDLED)
        open_message(t, r, r->kind == OPD_TAP_HANDLED);
}

/* ---- callbacks and jobs ---------------------------------------------------------------- */

static void begin_callback(opd_tracer *t, const opd_tap_record *r) {
    t->now = (span){.begin_ns = r->time_ns, .trace = r->trace, .serial = r->serial,
                    .row = row_of_pid(t, r->to), .message_kind = r->message_kind,
                    .kind = SPAN_CALLBACK};
}

static void end_callback(opd_tracer *t, const opd_tap_record *r) {
    t->now.end_ns = r->time_ns;
    t->now.err = (uint8_t)r->err;
    add(t, &t->now);
}

static void end_job(opd_tracer *t, const opd_tap_record *r) {
    span s = {.begin_ns = t->job_began_ns, .end_ns = r->time_ns, .trace = r->trace,
              .row = row_of(t, r->name, true), .from_row = row_of_pid(t, r->to),
              .kind = SPAN_JOB, .err = (uint8_t)r->err};
    add(t, &s);
}

static void record(void *arg, const opd_tap_record *r) {
    opd_tracer *t = arg;
    switch (r->kind) {
    case OPD_TAP_SPAWNED:
        t->row_of_slot[(r->to >> 32) & UINT16_MAX] = row_of(t, r->name, false);
        break;
    case OPD_TAP_SENT:
    case OPD_TAP_DEAD:
    case OPD_TAP_RELEASED: on_message(t, r); break;
    case OPD_TAP_HANDLED:
        on_message(t, r);
        begin_callback(t, r);
        break;
    case OPD_TAP_EVENT: begin_callback(t, r); break;
    case OPD_TAP_RETURNED: end_callback(t, r); break;
    case OPD_TAP_JOB_BEGIN: t->job_began_ns = r->time_ns; break; /* its END comes next */
    case OPD_TAP_JOB_END: end_job(t, r); break;
    default: break;
    }
}

opd_err opd_tracer_create(const opd_tracer_options *options, opd_system *system,
                          opd_tracer **out_tracer) {
    opd_tracer_options o = options == NULL ? (opd_tracer_options){0} : *options;
    if (o.events_max == 0) o.events_max = EVENTS_MAX;
    opd_tracer *t = opd_mem_get(o.alloc, sizeof *t);
    if (t == NULL) return opd_fail(OPD_ERR_NOMEM, "tracer");
    t->ring = opd_mem_get(o.alloc, o.events_max * sizeof *t->ring);
    if (t->ring == NULL) {
        opd_mem_free(o.alloc, t);
        return opd_fail(OPD_ERR_NOMEM, "tracer of %u events", o.events_max);
    }
    t->options = o;
    t->system = system;
    t->began_ns = system->clock_ns;
    (void)row_of(t, "outside", false); /* row 0: messages of nobody */
    for (opd_list *n = system->actors.next; n != &system->actors; n = n->next) {
        const opd_ctx *ctx = OPD_CONTAINER_OF(n, opd_ctx, spawned);
        t->row_of_slot[(ctx->pid >> 32) & UINT16_MAX] = row_of(t, ctx->name, false);
    }
    t->tap = (opd_tap){.record = record, .arg = t};
    opd_tap_add(system, &t->tap);
    *out_tracer = t;
    return OPD_OK;
}

void opd_tracer_destroy(opd_tracer *t) {
    if (t == NULL) return;
    opd_tap_remove(t->system, &t->tap);
    opd_mem_free(t->options.alloc, t->ring);
    opd_mem_free(t->options.alloc, t);
}

/* ---- the file -------------------------------------------------------------------------- */

/* One line of the file: a span's begin or end, or a whole slice. */
typedef struct mark {
    uint64_t time_ns;
    uint32_t index; /* of the span in the ring */
    bool is_end;    /* of a wait or hold */
} mark;

static int by_time(const void *a, const void *b) {
    const mark *x = a, *y = b;
    if (x->time_ns != y->time_ns) return x->time_ns < y->time_ns ? -1 : 1;
    if (x->index != y->index) return x->index < y->index ? -1 : 1;
    return x->is_end - y->is_end;
}

/* Names are opd's own, but a user may name an actor: anything that JSON forbids becomes '?'. */
static void put_text(FILE *file, const char *text) {
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        (void)fputc(c < 0x20 || c == '"' || c == '\\' || c >= 0x7f ? '?' : c, file);
    }
}

static void put_args(FILE *file, const opd_tracer *t, const span *s) {
    char text[64];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)s->trace);
    if (t->options.trace_text != NULL) t->options.trace_text(s->trace, text, sizeof text);
    if (s->trace != 0) {
        (void)fputs(",\"args\":{\"sample\":\"", file);
        put_text(file, text);
        (void)fprintf(file, "\",\"message\":%llu}", (unsigned long long)s->serial);
    }
}

static void put_name(FILE *file, const opd_tracer *t, const span *s) {
    char room[8];
    if (s->kind == SPAN_JOB) {
        put_text(file, t->rows[s->from_row]);
    } else if (s->serial == 0) {
        (void)fputs("event", file);
    } else {
        if (s->kind != SPAN_CALLBACK) (void)fputs(s->kind == SPAN_WAIT ? "wait " : "hold ", file);
        put_text(file, opd_kind_name(t->system, s->message_kind, room, sizeof room));
    }
}

static double us_of(const opd_tracer *t, uint64_t ns) {
    return ns > t->began_ns ? (double)(ns - t->began_ns) / 1000 : 0;
}

static void put_mark(FILE *file, const opd_tracer *t, const mark *m) {
    const span *s = &t->ring[m->index];
    (void)fputs(",\n{\"name\":\"", file);
    put_name(file, t, s);
    (void)fprintf(file, "\",\"pid\":1,\"tid\":%u,\"ts\":%.3f", s->row + 1u, us_of(t, m->time_ns));
    if (s->kind == SPAN_CALLBACK || s->kind == SPAN_JOB) {
        (void)fprintf(file, ",\"ph\":\"X\",\"dur\":%.3f",
                      us_of(t, s->end_ns) - us_of(t, s->begin_ns));
    } else {
        char room[8]; /* a category of its own for each hop: spans of one id and category nest */
        (void)fprintf(file, ",\"ph\":\"%c\",\"id\":\"0x%llx\",\"cat\":\"", m->is_end ? 'e' : 'b',
                      (unsigned long long)s->trace);
        put_text(file, t->rows[s->from_row]);
        (void)fputs(" > ", file);
        put_text(file, t->rows[s->row]);
        (void)fputc(' ', file);
        put_text(file, opd_kind_name(t->system, s->message_kind, room, sizeof room));
        (void)fputc('"', file);
    }
    put_args(file, t, s);
    (void)fputc('}', file);
}

static void put_head(FILE *file, const opd_tracer *t, uint64_t dropped) {
    (void)fprintf(file,
                  "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped_events\":%llu},\n"
                  "\"traceEvents\":[\n"
                  "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"opd\"}}",
                  (unsigned long long)dropped);
    for (uint32_t i = 0; i < t->row_count; i++) {
        (void)fprintf(file, ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%u,"
                      "\"args\":{\"name\":\"%s", i + 1, t->row_is_lane[i] ? "lane " : "");
        put_text(file, t->rows[i]);
        (void)fputs("\"}}", file);
    }
}

/* Marks of what the ring holds, in order of time. Errors: NOMEM. Freed by the caller. */
static opd_err marks_of(const opd_tracer *t, size_t kept, mark **out_marks, size_t *out_count) {
    mark *marks = opd_mem_get(t->options.alloc, (2 * kept + 1) * sizeof *marks);
    if (marks == NULL) return opd_fail(OPD_ERR_NOMEM, "trace of %zu events", kept);
    size_t count = 0;
    for (uint32_t i = 0; i < kept; i++) {
        const span *s = &t->ring[i];
        marks[count++] = (mark){.time_ns = s->begin_ns, .index = i};
        if (s->kind == SPAN_WAIT || s->kind == SPAN_HOLD)
            marks[count++] = (mark){.time_ns = s->end_ns, .index = i, .is_end = true};
    }
    qsort(marks, count, sizeof *marks, by_time);
    *out_marks = marks;
    *out_count = count;
    return OPD_OK;
}

opd_err opd_tracer_write(opd_tracer *t, const char *path) {
    size_t max = t->options.events_max, kept = t->count < max ? (size_t)t->count : max, count = 0;
    mark *marks = NULL;
    OPD_TRY(marks_of(t, kept, &marks, &count));
    FILE *file = fopen(path, "w");
    if (file != NULL) {
        put_head(file, t, t->dropped + (t->count - kept));
        for (size_t i = 0; i < count; i++) put_mark(file, t, &marks[i]);
        (void)fputs("\n]}\n", file);
    }
    opd_mem_free(t->options.alloc, marks);
    if (file == NULL) return opd_fail(OPD_ERR_IO, "%s: %s", path, strerror(errno));
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) return opd_fail(OPD_ERR_DISK, "%s: cannot be written", path);
    return OPD_OK;
}
