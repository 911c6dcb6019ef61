/* child_uv.c - child processes of an actor (env.h).
 *
 * Each output stream is read one chunk at a time: a chunk stops reading and posts the
 * stream's event; its delivery hands out the lines and starts reading again. So a slow actor
 * slows the child, and memory is line_max bytes per stream.
 *
 * What is written to its stdin waits in blocks of the pipe, freed as they are read or as it closes.
 *
 *   RUNNING --process ended, both streams at their end--> exit event --delivered--> closing
 *      |                                                                              |
 *      +-- the actor ended: SIGKILL, no events ---------------------------------------+--> freed
 *
 * Invariants: on_exit comes after the last line; the block is freed when every handle has
 * closed and the exit was delivered or the actor is gone. Thread: the loop's.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <uv.h>

#include "core/base/check.h"
#include "core/env/env.h"

enum { LINE_MAX_DEFAULT = 4096, STREAMS = 2 };

typedef struct child_stream {
    opd_child *child;
    uv_pipe_t pipe;
    opd_event event;
    char *line;  /* line_max + 1 bytes: what came and was not delivered */
    size_t used; /* bytes in line */
    bool opened, at_end;
} child_stream;

struct opd_child {
    opd_system *system;
    const opd_alloc *alloc;
    opd_child_options options;
    uv_process_t process;
    child_stream streams[STREAMS];
    uv_pipe_t input; /* its stdin */
    bool input_opened;
    size_t input_bytes; /* written and not yet read by the pipe */
    opd_event exit_event;
    opd_cleanup cleanup;
    int64_t exit_status;
    int term_signal;
    unsigned open_handles;
    bool exited, finished; /* finished: nothing more will be called */
};

static void free_if_over(opd_child *child) {
    if (child->open_handles > 0 || !child->finished) return;
    for (int i = 0; i < STREAMS; i++) opd_mem_free(child->alloc, child->streams[i].line);
    opd_mem_free(child->alloc, child);
}

static void on_close(uv_handle_t *handle) {
    opd_child *child = handle->data;
    child->open_handles--;
    free_if_over(child);
}

static void close_handle(opd_child *child, uv_handle_t *handle) {
    if (uv_is_closing(handle)) return;
    handle->data = child;
    uv_close(handle, on_close);
}

static void close_input(opd_child *child) {
    if (child->input_opened) close_handle(child, (uv_handle_t *)&child->input);
}

static void post_exit_if_over(opd_child *child) {
    bool over = child->exited;
    for (int i = 0; i < STREAMS; i++) over = over && child->streams[i].at_end;
    if (over && !child->finished) opd_event_post(child->system, &child->exit_event);
}

static void on_exit_uv(uv_process_t *process, int64_t exit_status, int term_signal) {
    opd_child *child = process->data;
    child->exited = true;
    child->exit_status = exit_status;
    child->term_signal = term_signal;
    close_handle(child, (uv_handle_t *)process);
    close_input(child);
    post_exit_if_over(child);
}

/* ---- output ---------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    child_stream *s = OPD_CONTAINER_OF(handle, child_stream, pipe);
    (void)suggested;
    *out = uv_buf_init(s->line + s->used, (unsigned)(s->child->options.line_max - s->used));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf) {
    child_stream *s = OPD_CONTAINER_OF(stream, child_stream, pipe);
    (void)buf;
    if (count == 0) return;
    (void)uv_read_stop(stream);
    if (count > 0)
        s->used += (size_t)count;
    else
        s->at_end = true; /* end of file, or an error that ends it as well */
    opd_event_post(s->child->system, &s->event);
}

/* Gives out the bytes, or the complete lines (at the end, or when the buffer is full: also the rest). */
static opd_err give_lines(opd_ctx *ctx, void *state, child_stream *s) {
    opd_child *child = s->child;
    size_t begin = 0;
    if (s == &child->streams[0] && child->options.on_bytes != NULL && s->used > 0) {
        size_t used = s->used;
        s->used = 0;
        return child->options.on_bytes(ctx, state, child, s->line, used);
    }
    while (begin < s->used) {
        char *line = s->line + begin;
        char *newline = memchr(line, '\n', s->used - begin);
        bool whole = begin == 0 && s->used == child->options.line_max;
        if (newline == NULL && !s->at_end && !whole) break;
        size_t length = newline == NULL ? s->used - begin : (size_t)(newline - line);
        line[length] = '\0'; /* over the newline, or in the spare byte */
        begin += newline == NULL ? length : length + 1;
        OPD_TRY(child->options.on_line(ctx, state, child, s == &child->streams[1], line));
    }
    memmove(s->line, s->line + begin, s->used - begin);
    s->used -= begin;
    return OPD_OK;
}

static opd_err deliver_lines(opd_ctx *ctx, void *state, opd_event *event) {
    child_stream *s = OPD_CONTAINER_OF(event, child_stream, event);
    OPD_TRY(give_lines(ctx, state, s));
    if (!s->at_end && uv_read_start((uv_stream_t *)&s->pipe, on_alloc, on_read) == 0)
        return OPD_OK;
    s->at_end = true;
    close_handle(s->child, (uv_handle_t *)&s->pipe);
    post_exit_if_over(s->child);
    return OPD_OK;
}

static opd_err deliver_exit(opd_ctx *ctx, void *state, opd_event *event) {
    opd_child *child = OPD_CONTAINER_OF(event, opd_child, exit_event);
    opd_cleanup_stop(&child->cleanup);
    opd_err err = OPD_OK;
    if (child->options.on_exit != NULL)
        err = child->options.on_exit(ctx, state, child, child->exit_status, child->term_signal);
    child->finished = true;
    free_if_over(child);
    return err;
}

/* The actor ends: kill the child and reap it here, which SIGKILL makes a matter of moments;
 * its handle is closed before the loop could see the end. */
static void on_actor_end(opd_cleanup *cleanup) {
    opd_child *child = OPD_CONTAINER_OF(cleanup, opd_child, cleanup);
    child->finished = true;
    opd_event_cancel(&child->exit_event);
    for (int i = 0; i < STREAMS; i++) {
        opd_event_cancel(&child->streams[i].event);
        if (child->streams[i].opened)
            close_handle(child, (uv_handle_t *)&child->streams[i].pipe);
    }
    close_input(child);
    if (!child->exited) {
        (void)uv_process_kill(&child->process, SIGKILL);
        (void)waitpid(child->process.pid, NULL, 0);
        close_handle(child, (uv_handle_t *)&child->process);
    }
    free_if_over(child);
}

/* ---- spawn ----------------------------------------------------------------------------- */

/* Our environment with env_add in place of equal names; freed with one opd_mem_free. */
static opd_err build_env(const opd_alloc *alloc, const char *const *env_add, char ***out_env) {
    size_t inherited = 0, added = 0;
    while (environ[inherited] != NULL) inherited++;
    while (env_add[added] != NULL) added++;
    char **env = opd_mem_get(alloc, (inherited + added + 1) * sizeof *env);
    if (env == NULL) return opd_fail(OPD_ERR_NOMEM, "environment");
    size_t count = 0;
    for (size_t i = 0; i < inherited; i++) {
        bool replaced = false;
        for (size_t j = 0; j < added && !replaced; j++) {
            const char *equals = strchr(env_add[j], '=');
            size_t name = equals == NULL ? strlen(env_add[j]) : (size_t)(equals - env_add[j]) + 1;
            replaced = strncmp(environ[i], env_add[j], name) == 0;
        }
        if (!replaced) env[count++] = environ[i];
    }
    for (size_t j = 0; j < added; j++) env[count++] = (char *)(uintptr_t)env_add[j];
    *out_env = env;
    return OPD_OK;
}

static opd_err child_create(opd_ctx *ctx, const opd_child_options *options,
                            opd_child **out_child) {
    const opd_alloc *alloc = options->alloc;
    opd_child *child = opd_mem_get(alloc, sizeof *child);
    if (child == NULL) return opd_fail(OPD_ERR_NOMEM, "child process");
    *child = (opd_child){
        .system = opd_self_system(ctx), .alloc = alloc, .options = *options};
    if (child->options.line_max == 0) child->options.line_max = LINE_MAX_DEFAULT;
    child->exit_event = (opd_event){.to = opd_self(ctx), .deliver = deliver_exit};
    for (int i = 0; i < STREAMS; i++) {
        child_stream *s = &child->streams[i];
        s->child = child;
        s->at_end = true;
        s->event = (opd_event){.to = opd_self(ctx), .deliver = deliver_lines};
        if (options->on_line == NULL) continue;
        s->line = opd_mem_get(alloc, child->options.line_max + 1);
        if (s->line == NULL) {
            opd_mem_free(alloc, child->streams[0].line);
            opd_mem_free(alloc, child);
            return opd_fail(OPD_ERR_NOMEM, "child process");
        }
    }
    *out_child = child;
    return OPD_OK;
}

static void open_streams(opd_child *child, uv_loop_t *loop, uv_stdio_container_t *stdio) {
    stdio[0].flags = UV_IGNORE;
    if (child->options.stdin_max > 0) {
        (void)uv_pipe_init(loop, &child->input, 0);
        child->input_opened = true;
        child->open_handles++;
        stdio[0].flags = (uv_stdio_flags)(UV_CREATE_PIPE | UV_READABLE_PIPE);
        stdio[0].data.stream = (uv_stream_t *)&child->input;
    }
    for (int i = 0; i < STREAMS; i++) {
        child_stream *s = &child->streams[i];
        stdio[i + 1].flags = UV_INHERIT_FD;
        stdio[i + 1].data.fd = i + 1;
        if (s->line == NULL) continue;
        (void)uv_pipe_init(loop, &s->pipe, 0);
        s->opened = true;
        s->at_end = false;
        child->open_handles++;
        stdio[i + 1].flags = (uv_stdio_flags)(UV_CREATE_PIPE | UV_WRITABLE_PIPE);
        stdio[i + 1].data.stream = (uv_stream_t *)&s->pipe;
    }
}

static opd_err start_process(opd_child *child, uv_loop_t *loop) {
    const opd_child_options *o = &child->options;
    uv_stdio_container_t stdio[1 + STREAMS];
    char **env = NULL;
    if (o->env_add != NULL) OPD_TRY(build_env(child->alloc, o->env_add, &env));
    open_streams(child, loop, stdio);
    uv_process_options_t options = {.exit_cb = on_exit_uv,
                                    .file = o->argv[0],
                                    .args = (char **)(uintptr_t)o->argv,
                                    .env = env,
                                    .cwd = o->cwd,
                                    .stdio_count = 1 + STREAMS,
                                    .stdio = stdio};
    child->process.data = child;
    struct sigaction old; /* a write to a child that is gone must not kill us */
    if (child->input_opened && sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    int status = uv_spawn(loop, &child->process, &options);
    child->open_handles++; /* the handle is initialised even when uv_spawn fails */
    opd_mem_free(child->alloc, env);
    if (status == 0) return OPD_OK;
    return opd_fail(status == UV_ENOENT ? OPD_ERR_NOT_FOUND : OPD_ERR_IO, "cannot start %s: %s",
                    o->argv[0], uv_strerror(status));
}

opd_err opd_child_spawn(opd_ctx *ctx, opd_env *env, const opd_child_options *options,
                        opd_child **out_child) {
    opd_child *child = NULL;
    if (opd_env_is_simulated(env))
        return opd_fail(OPD_ERR_UNSUPPORTED, "%s: a simulated world has no child processes",
                        options->argv[0]);
    OPD_TRY(child_create(ctx, options, &child));
    opd_err err = start_process(child, opd_env_uv_loop(env));
    if (err != OPD_OK) {
        child->exited = true;
        if (child->open_handles > 0 && child->process.data != NULL)
            close_handle(child, (uv_handle_t *)&child->process);
        on_actor_end(&child->cleanup); /* closes the pipes, frees when they are closed */
        return err;
    }
    opd_cleanup_start(ctx, &child->cleanup, on_actor_end);
    for (int i = 0; i < STREAMS; i++) {
        child_stream *s = &child->streams[i];
        if (s->opened) (void)uv_read_start((uv_stream_t *)&s->pipe, on_alloc, on_read);
    }
    *out_child = child;
    return OPD_OK;
}

/* ---- input ----------------------------------------------------------------------------- */

typedef struct child_write {
    uv_write_t request;
    opd_child *child;
    size_t size;
    char bytes[];
} child_write;

/* A write that failed says that the child has ended, which its exit says as well. */
static void on_written(uv_write_t *request, int status) {
    child_write *write = OPD_CONTAINER_OF(request, child_write, request);
    (void)status;
    write->child->input_bytes -= write->size;
    opd_mem_free(write->child->alloc, write);
}

opd_err opd_child_write(opd_child *child, const void *bytes, size_t size_bytes) {
    if (!child->input_opened || uv_is_closing((uv_handle_t *)&child->input))
        return opd_fail(OPD_ERR_CLOSED, "process %d reads no stdin", child->process.pid);
    if (size_bytes > child->options.stdin_max - child->input_bytes)
        return opd_fail(OPD_ERR_AGAIN, "process %d has %zu bytes to read", child->process.pid,
                        child->input_bytes);
    child_write *write = opd_mem_get(child->alloc, sizeof *write + size_bytes);
    if (write == NULL) return opd_fail(OPD_ERR_NOMEM, "input of process %d", child->process.pid);
    write->child = child;
    write->size = size_bytes;
    memcpy(write->bytes, bytes, size_bytes);
    uv_buf_t buf = uv_buf_init(write->bytes, (unsigned)size_bytes);
    int status = uv_write(&write->request, (uv_stream_t *)&child->input, &buf, 1, on_written);
    if (status == 0) {
        child->input_bytes += size_bytes;
        return OPD_OK;
    }
    opd_mem_free(child->alloc, write);
    return opd_fail(OPD_ERR_CLOSED, "input of process %d: %s", child->process.pid, uv_strerror(status));
}

void opd_child_kill(opd_child *child, int signal_number) {
    if (!child->exited) (void)uv_process_kill(&child->process, signal_number);
}

int opd_child_pid(const opd_child *child) { return child->process.pid; }

void *opd_child_arg(const opd_child *child) { return child->options.arg; }
