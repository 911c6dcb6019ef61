/* err.c - the error table and the per-thread context text (opd/err.h).
 *
 * Invariants: the context is always NUL-terminated; opd_fail never allocates, so it
 * works when memory is short. Thread: any (the context is thread-local). Nothing to free.
 */
#include "opd/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CONTEXT_SIZE = 1024 };

static _Thread_local char context[CONTEXT_SIZE];

const char *opd_err_name(opd_err err) {
    switch (err) {
#define X(name, value, category, text) \
    case OPD_ERR_##name: return "OPD_ERR_" #name;
        OPD_ERR_TABLE(X)
#undef X
    }
    return "OPD_ERR_UNKNOWN";
}

const char *opd_err_text(opd_err err) {
    switch (err) {
#define X(name, value, category, text) \
    case OPD_ERR_##name: return text;
        OPD_ERR_TABLE(X)
#undef X
    }
    return "unknown error";
}

opd_err_category opd_err_category_of(opd_err err) {
    switch (err) {
#define X(name, value, category, text) \
    case OPD_ERR_##name: return OPD_ERR_CATEGORY_##category;
        OPD_ERR_TABLE(X)
#undef X
    }
    return OPD_ERR_CATEGORY_FATAL;
}

opd_err opd_fail(opd_err err, const char *fmt, ...) {
    char text[CONTEXT_SIZE]; /* an argument may point into `context` itself */
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(context, text, sizeof text);
    return err;
}

opd_err opd_err_prefix(opd_err err, const char *fmt, ...) {
    if (err == OPD_OK) return OPD_OK;
    char text[CONTEXT_SIZE];
    va_list args;
    va_start(args, fmt);
    int written = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t used = written < 0 ? 0 : (size_t)written;
    if (used > sizeof text - 3) used = sizeof text - 3;
    const char *rest = context[0] ? context : opd_err_text(err);
    size_t room = sizeof text - used - 3, length = strnlen(rest, room);
    memcpy(text + used, ": ", 2);
    memcpy(text + used + 2, rest, length);
    text[used + 2 + length] = '\0';
    memcpy(context, text, sizeof text);
    return err;
}

const char *opd_err_context(void) { return context; }

void opd_err_clear(void) { context[0] = '\0'; }
