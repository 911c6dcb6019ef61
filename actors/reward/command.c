/* command.c - children that judge (command.h).
 *
 *   IDLE --question--> BUSY --answer--> IDLE
 *     |                 |  \--timeout, no msgpack: SIGKILL, the question is lost--> DYING --exit--> PAUSED
 *     +-----exit--------+--exit: the question is lost---------------------------------> PAUSED
 *   PAUSED --timer--> IDLE with a new child
 *
 * Thread: the loop.
 */
#include "actors/reward/command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/codec/msgpack.h"
#include "core/env/env.h"
#include "opd/log.h"

enum {
    ANSWER_MAX_BYTES = 1 << 20,
    STDIN_MAX_BYTES = 128 << 20,
    PAUSE_MIN_MS = 200,
    PAUSE_MAX_MS = 5000,
    FAILURES_MAX = 5 /* in a row before the first answer of all: the program is wrong */
};

typedef enum worker_state { IDLE, BUSY, DYING, PAUSED } worker_state;

typedef struct worker {
    opd_reward_command *command;
    opd_child *child; /* NULL while PAUSED */
    worker_state state;
    opd_reward_question *asked; /* BUSY */
    opd_str answer; /* msgpack: what came of the next value */
    opd_mp_scan scan;
    opd_timer timer;            /* BUSY: the time limit; PAUSED: the next start */
    uint64_t pause_ms;
} worker;

struct opd_reward_command {
    opd_reward_command_options o;
    opd_ctx *ctx;
    opd_list waiting;
    uint32_t failures; /* before the first answer */
    bool has_answered;
    char last_words[160];
    worker workers[];
};

static opd_err start(worker *w);

static opd_err give(worker *w) {
    opd_reward_command *c = w->command;
    opd_list *node = opd_list_pop_front(&c->waiting);
    if (node == NULL) return OPD_OK;
    opd_reward_question *question = OPD_CONTAINER_OF(node, opd_reward_question, node);
    w->asked = question;
    w->state = BUSY;
    opd_err err = opd_child_write(w->child, question->request.data, question->request.size);
    if (err == OPD_OK && !c->o.msgpack) err = opd_child_write(w->child, "\n", 1);
    if (err == OPD_ERR_NOMEM) return err;
    if (err != OPD_OK) OPD_LOG_WARN("reward %s: %s", c->o.name, opd_err_context());
    return opd_timer_start_after(&w->timer, c->o.timeout_ms * 1000000);
}

static opd_err finish(opd_ctx *ctx, void *state, worker *w, opd_reward_failure failure) {
    opd_reward_question *question = w->asked;
    w->asked = NULL;
    question->failure = failure;
    return w->command->o.answered(ctx, state, question);
}

/* What was read of an answer, and did not belong to another question. */
static opd_err on_answer(opd_ctx *ctx, void *state, worker *w, opd_err err) {
    opd_reward_command *c = w->command;
    opd_timer_stop(&w->timer);
    w->state = IDLE;
    w->pause_ms = PAUSE_MIN_MS;
    c->has_answered = true;
    OPD_TRY(finish(ctx, state, w, err == OPD_OK ? OPD_REWARD_JUDGED : OPD_REWARD_FAILED));
    return w->state == IDLE ? give(w) : OPD_OK;
}

static opd_err on_line(opd_ctx *ctx, void *state, opd_child *child, bool is_stderr,
                       const char *line) {
    worker *w = opd_child_arg(child);
    opd_reward_command *c = w->command;
    bool answers = !is_stderr && w->state == BUSY && line[0] == '{';
    opd_err err = OPD_ERR_MISMATCH;
    if (answers) err = opd_reward_question_read(w->asked, line, strlen(line));
    if (err == OPD_ERR_MISMATCH) {
        OPD_LOG_INFO("reward %s: %s", c->o.name, line);
        (void)snprintf(c->last_words, sizeof c->last_words, "%s", line);
        return OPD_OK;
    }
    if (err != OPD_OK) OPD_LOG_WARN("reward %s: %s: %.200s", c->o.name, opd_err_context(), line);
    return on_answer(ctx, state, w, err);
}

/* Nothing that this child says can be an answer any more; its question, if it has one, is lost. */
static opd_err give_up(opd_ctx *ctx, void *state, worker *w, opd_reward_failure failure) {
    bool busy = w->state == BUSY;
    w->state = DYING;
    opd_timer_stop(&w->timer);
    opd_child_kill(w->child, SIGKILL);
    return busy ? finish(ctx, state, w, failure) : OPD_OK;
}

/* A whole value of msgpack. */
static opd_err on_value(opd_ctx *ctx, void *state, worker *w, const char *bytes, size_t size) {
    const char *name = w->command->o.name;
    opd_mp_reader reader;
    opd_mp_reader_init(&reader, bytes, size);
    if (opd_mp_peek(&reader) != OPD_MP_MAP) return OPD_OK; /* a text that was printed is small numbers */
    opd_err err = w->state == BUSY ? opd_reward_question_read(w->asked, bytes, size) : OPD_ERR_MISMATCH;
    if (err != OPD_OK)
        OPD_LOG_WARN("reward %s: %s", name, w->state == BUSY ? opd_err_context() : "an answer without a question");
    return err == OPD_ERR_MISMATCH ? OPD_OK : on_answer(ctx, state, w, err);
}

static opd_err on_bytes(opd_ctx *ctx, void *state, opd_child *child, const void *bytes, size_t size_bytes) {
    worker *w = opd_child_arg(child);
    opd_err err = OPD_OK;
    size_t begin = 0;
    if (w->state == DYING) return OPD_OK;
    opd_str_append(&w->answer, bytes, size_bytes);
    OPD_TRY(opd_str_status(&w->answer));
    while (w->state != DYING && opd_mp_scan_value(&w->scan, w->answer.data + begin, w->answer.size - begin,
                                                  ANSWER_MAX_BYTES, &err)) {
        size_t size = (size_t)w->scan.size_bytes;
        w->scan = (opd_mp_scan){0};
        OPD_TRY(on_value(ctx, state, w, w->answer.data + begin, size));
        begin += size;
    }
    if (err != OPD_OK) {
        OPD_LOG_WARN("reward %s: no msgpack on stdout (%s); process %d is killed", w->command->o.name,
                     opd_err_context(), opd_child_pid(child));
        return give_up(ctx, state, w, OPD_REWARD_FAILED);
    }
    opd_str_drop(&w->answer, begin);
    return OPD_OK;
}

static opd_err on_time(opd_ctx *ctx, void *state, opd_timer *timer) {
    worker *w = timer->arg;
    if (w->state == PAUSED) return start(w);
    OPD_LOG_WARN("reward %s: no answer within %llu ms; process %d is killed", w->command->o.name,
                 (unsigned long long)w->command->o.timeout_ms, opd_child_pid(w->child));
    return give_up(ctx, state, w, OPD_REWARD_TIMEOUT);
}

static opd_err on_exit(opd_ctx *ctx, void *state, opd_child *child, int64_t exit_status,
                       int term_signal) {
    worker *w = opd_child_arg(child);
    opd_reward_command *c = w->command;
    bool busy = w->state == BUSY;
    if (w->state != DYING)
        OPD_LOG_WARN("reward %s: process %d ended (%s %lld)", c->o.name, opd_child_pid(child),
                     term_signal != 0 ? "signal" : "exit status",
                     term_signal != 0 ? (long long)term_signal : (long long)exit_status);
    w->child = NULL;
    w->state = PAUSED;
    opd_timer_stop(&w->timer);
    if (!c->has_answered && ++c->failures >= FAILURES_MAX)
        return opd_fail(OPD_ERR_REMOTE, "reward %s: `%s` ended %u times and never gave an answer; its "
                        "last words: %s", c->o.name, c->o.argv[0], c->failures,
                        c->last_words[0] != '\0' ? c->last_words : "none");
    OPD_TRY(opd_timer_start_after(&w->timer, w->pause_ms * 1000000));
    w->pause_ms = 2 * w->pause_ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : 2 * w->pause_ms;
    return busy ? finish(ctx, state, w, OPD_REWARD_FAILED) : OPD_OK;
}

static opd_err start(worker *w) {
    const opd_reward_command_options *o = &w->command->o;
    opd_child_options options = {.alloc = o->alloc, .argv = o->argv, .on_line = on_line,
                                 .on_bytes = o->msgpack ? on_bytes : NULL, .on_exit = on_exit,
                                 .line_max = ANSWER_MAX_BYTES, .stdin_max = STDIN_MAX_BYTES, .arg = w};
    OPD_TRY(opd_err_prefix(opd_child_spawn(w->command->ctx, o->env, &options, &w->child),
                           "reward %s", o->name));
    opd_str_clear(&w->answer);
    w->scan = (opd_mp_scan){0};
    w->state = IDLE;
    return give(w);
}

opd_err opd_reward_command_open(opd_ctx *ctx, const opd_reward_command_options *options,
                                opd_reward_command **out_command) {
    size_t size = sizeof(opd_reward_command) + options->workers * sizeof(worker);
    opd_reward_command *c = opd_mem_get(options->alloc, size);
    if (c == NULL) return opd_fail(OPD_ERR_NOMEM, "reward %s: no memory", options->name);
    memset(c, 0, size);
    c->o = *options;
    c->ctx = ctx;
    opd_list_init(&c->waiting);
    *out_command = c;
    for (uint32_t i = 0; i < options->workers; i++) {
        worker *w = &c->workers[i]; /* zeroed: close may come before its turn */
        *w = (worker){.command = c, .state = PAUSED, .pause_ms = PAUSE_MIN_MS};
        opd_str_init(&w->answer, options->alloc, 2 * ANSWER_MAX_BYTES);
        opd_timer_init(&w->timer, ctx, on_time);
        w->timer.arg = w;
        OPD_TRY(start(w));
    }
    return OPD_OK;
}

opd_err opd_reward_command_ask(opd_reward_command *command, opd_reward_question *question) {
    opd_list_push_back(&command->waiting, &question->node);
    for (uint32_t i = 0; i < command->o.workers; i++)
        if (command->workers[i].state == IDLE) return give(&command->workers[i]);
    return OPD_OK;
}

void opd_reward_command_close(opd_reward_command *command) {
    if (command == NULL) return;
    for (uint32_t i = 0; i < command->o.workers; i++) opd_str_fini(&command->workers[i].answer);
    opd_mem_free(command->o.alloc, command);
}
