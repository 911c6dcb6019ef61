/* command.c - children that judge (command.h).
 *
 *   IDLE --question--> BUSY --answer--> IDLE
 *     |                 |  \--timeout: SIGKILL, the question is lost--> DYING --exit--> PAUSED
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
#include "core/env/env.h"
#include "opd/log.h"

enum {
    LINE_MAX_BYTES = 1 << 20, /* of an answer */
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
    if (err == OPD_OK) err = opd_child_write(w->child, "\n", 1);
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
    opd_timer_stop(&w->timer);
    w->state = IDLE;
    w->pause_ms = PAUSE_MIN_MS;
    c->has_answered = true;
    OPD_TRY(finish(ctx, state, w, err == OPD_OK ? OPD_REWARD_JUDGED : OPD_REWARD_FAILED));
    return w->state == IDLE ? give(w) : OPD_OK;
}

static opd_err on_time(opd_ctx *ctx, void *state, opd_timer *timer) {
    worker *w = timer->arg;
    if (w->state == PAUSED) return start(w);
    OPD_LOG_WARN("reward %s: no answer within %llu ms; process %d is killed", w->command->o.name,
                 (unsigned long long)w->command->o.timeout_ms, opd_child_pid(w->child));
    w->state = DYING;
    opd_child_kill(w->child, SIGKILL);
    return finish(ctx, state, w, OPD_REWARD_TIMEOUT);
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
                                 .on_exit = on_exit, .line_max = LINE_MAX_BYTES,
                                 .stdin_max = STDIN_MAX_BYTES, .arg = w};
    OPD_TRY(opd_err_prefix(opd_child_spawn(w->command->ctx, o->env, &options, &w->child),
                           "reward %s", o->name));
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
        worker *w = &c->workers[i];
        *w = (worker){.command = c, .state = PAUSED, .pause_ms = PAUSE_MIN_MS};
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
    if (command != NULL) opd_mem_free(command->o.alloc, command);
}
