/* teacher_host.c - a child process that is the teacher (teacher_host.h).
 *
 *   RUNNING --ready line--> READY --exit--> PAUSING --timer--> RUNNING ...
 *      |  \--first exit: the system stops
 *      +--STOP--> STOPPING --exit--> gone
 *
 * Invariant: at most one child exists. Thread: the loop. The runtime owns the child.
 */
#include "actors/teacher/teacher_host.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "actors/messages.h"
#include "core/base/check.h"
#include "core/env/env.h"
#include "opd/log.h"

enum {
    PAUSE_MIN_MS = 200,
    PAUSE_MAX_MS = 5000,
    KILL_AFTER_MS = 3000, /* less than the system's stop_timeout_ms */
    WORDS_MAX = 4,        /* last lines of stderr kept for an error */
    WORD_SIZE = 160
};

static const char READY[] = "opd serve: ready on ";

typedef struct host {
    opd_teacher_host_config c;
    opd_child *child; /* NULL: none */
    bool was_ready;   /* some child got that far        */
    bool ready;       /* this one did                   */
    bool stopping;
    uint32_t restarts;
    uint64_t pause_ms;
    opd_timer timer; /* PAUSING: the next start; STOPPING: SIGKILL */
    char url[OPD_MESSAGE_TEXT_SIZE];
    char words[WORDS_MAX][WORD_SIZE]; /* a ring */
    unsigned word_count;
} host;

/* ---- news for the teacher ---- */

static opd_err tell(const host *self) {
    opd_buf *buf;
    size_t size = strlen(self->url) + 1;
    OPD_TRY(opd_buf_create(self->c.alloc, size, &buf));
    memcpy(opd_buf_data(buf), self->url, size);
    opd_slot_put(self->c.endpoint, buf, opd_slot_get(self->c.endpoint, NULL) + 1);
    opd_buf_release(buf);
    return OPD_OK;
}

/* ---- the child ---- */

static opd_err on_ready(opd_ctx *ctx, host *self, const char *url) {
    (void)snprintf(self->url, sizeof self->url, "%s", url);
    self->url[strcspn(self->url, " \t\r\n")] = '\0';
    self->ready = self->was_ready = true;
    self->pause_ms = PAUSE_MIN_MS;
    if (self->restarts > 0)
        opd_note(ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO,
                 "teacher %s runs again, process %d (start number %u)", self->c.name,
                 opd_child_pid(self->child), self->restarts + 1);
    return tell(self);
}

static opd_err on_line(opd_ctx *ctx, void *state, opd_child *child, bool is_stderr,
                       const char *line) {
    host *self = state;
    (void)child;
    if (!is_stderr && strncmp(line, READY, sizeof READY - 1) == 0)
        return on_ready(ctx, self, line + sizeof READY - 1);
    OPD_LOG_INFO("teacher %s: %s", self->c.name, line);
    (void)snprintf(self->words[self->word_count++ % WORDS_MAX], WORD_SIZE, "%s", line);
    return OPD_OK;
}

/* The child's last lines, oldest first, as one text. */
static void last_words(const host *self, char *out, size_t out_size) {
    size_t used = 0;
    unsigned first = self->word_count > WORDS_MAX ? self->word_count - WORDS_MAX : 0;
    out[0] = '\0';
    for (unsigned i = first; i < self->word_count && used < out_size; i++) {
        int n = snprintf(out + used, out_size - used, "%s%s", i > first ? " | " : "",
                         self->words[i % WORDS_MAX]);
        if (n > 0) used += (size_t)n;
    }
}

static opd_err start_child(opd_ctx *ctx, host *self);

static opd_err on_pause_over(opd_ctx *ctx, void *state, opd_timer *timer) {
    host *self = state;
    (void)timer;
    if (self->stopping) {
        if (self->child != NULL) opd_child_kill(self->child, SIGKILL);
        return OPD_OK;
    }
    self->restarts++;
    return start_child(ctx, self);
}

static opd_err pause_and_restart(host *self) {
    uint64_t pause_ms = self->pause_ms;
    self->pause_ms = pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause_ms * 2;
    return opd_timer_start_after(&self->timer, pause_ms * 1000000);
}

static opd_err on_exit(opd_ctx *ctx, void *state, opd_child *child, int64_t exit_status,
                       int term_signal) {
    host *self = state;
    char how[64], words[WORDS_MAX * WORD_SIZE];
    (void)child;
    self->child = NULL;
    if (self->stopping) {
        opd_exit(ctx, OPD_OK);
        return OPD_OK;
    }
    if (term_signal != 0)
        (void)snprintf(how, sizeof how, "killed by signal %d", term_signal);
    else
        (void)snprintf(how, sizeof how, "exit status %lld", (long long)exit_status);
    last_words(self, words, sizeof words);
    if (!self->was_ready) {
        opd_system_stop(opd_self_system(ctx),
                        opd_fail(OPD_ERR_REMOTE,
                                 "teacher %s: `%s serve --model %s` ended before it was ready (%s). "
                                 "Its last words: %s",
                                 self->c.name, self->c.program, self->c.model, how,
                                 words[0] != '\0' ? words : "none"));
        return OPD_OK;
    }
    opd_note(ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
             "teacher %s ended (%s); it is started again", self->c.name, how);
    bool told = self->url[0] == '\0';
    self->url[0] = '\0';
    self->ready = false;
    if (!told) OPD_TRY(tell(self));
    return pause_and_restart(self);
}

static opd_err start_child(opd_ctx *ctx, host *self) {
    char threads[16], cache[16];
    (void)snprintf(threads, sizeof threads, "%u", self->c.threads == 0 ? 1 : self->c.threads);
    (void)snprintf(cache, sizeof cache, "%u", self->c.cache_mb);
    const char *const argv[] = {self->c.program, "serve",     "--model", self->c.model,
                                "--port",        "0",         "--threads", threads,
                                "--prefix-cache-mb", cache, "--exit-with-parent", NULL};
    opd_child_options options = {.argv = argv, .on_line = on_line, .on_exit = on_exit};
    self->ready = false;
    self->word_count = 0;
    opd_err err = opd_child_spawn(ctx, self->c.env, &options, &self->child);
    if (err == OPD_OK || !self->was_ready)
        return opd_err_prefix(err, "teacher %s: cannot run %s", self->c.name, self->c.program);
    opd_note(ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN, "teacher %s: cannot run %s: %s",
             self->c.name, self->c.program, opd_err_context());
    return pause_and_restart(self);
}

/* ---- the actor ---- */

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    host *self = state;
    self->c = *(const opd_teacher_host_config *)config;
    self->pause_ms = PAUSE_MIN_MS;
    opd_timer_init(&self->timer, ctx, on_pause_over);
    OPD_TRY(tell(self)); /* what an earlier one told is void */
    return start_child(ctx, self);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    host *self = state;
    if (signal->kind != OPD_SIGNAL_STOP) return OPD_OK;
    self->stopping = true;
    opd_timer_stop(&self->timer);
    if (self->child == NULL) return OPD_OK;
    opd_child_kill(self->child, SIGTERM);
    opd_stop_defer(ctx);
    return opd_timer_start_after(&self->timer, (uint64_t)KILL_AFTER_MS * 1000000);
}

const opd_actor_class opd_teacher_host_class = {
    .name = "teacher-host",
    .state_size = sizeof(host),
    .on_start = on_start,
    .on_signal = on_signal,
};
