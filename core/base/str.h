/* str.h - growable bytes with a mandatory maximum and a sticky error.
 *
 * Invariants: data is NUL-terminated and never NULL; size <= max_bytes; after the first
 * error (NOMEM, LIMIT) appends do nothing, so a writer checks opd_str_status once, at the
 * end. An append that fails leaves the text before it as it was.
 * Thread: one owner. opd_str_fini frees.
 */
#ifndef OPD_CORE_BASE_STR_H
#define OPD_CORE_BASE_STR_H

#include <stddef.h>

#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/err.h"

typedef struct opd_str {
    char *data;  /* read only for users */
    size_t size; /* bytes without the NUL */
    size_t capacity;
    size_t max_bytes;
    const opd_alloc *alloc;
    opd_err err;
} opd_str;

/* An empty text that will hold at most max_bytes. Allocates nothing. */
void opd_str_init(opd_str *str, const opd_alloc *alloc, size_t max_bytes);

/* Frees the bytes; the text is empty and usable again afterwards. */
void opd_str_fini(opd_str *str);

/* Empties the text and its error, keeping the memory. */
void opd_str_clear(opd_str *str);

/* Makes room for `more` bytes at once, so that appends of up to so many do not move the text. A hint:
 * without the memory, or beyond the maximum, nothing happens. */
void opd_str_reserve(opd_str *str, size_t more);

/* Appends size bytes, a C string, or formatted text. */
void opd_str_append(opd_str *str, const void *bytes, size_t size);
void opd_str_text(opd_str *str, const char *text);
void opd_str_printf(opd_str *str, const char *fmt, ...) OPD_PRINTF(2, 3);

/* Room to write up to size bytes at the text's end, as one who fills megabytes does, or NULL (the sticky error);
 * extend then says how many were written, no more than that, and ends the text behind them. */
char *opd_str_room(opd_str *str, size_t size);
void opd_str_extend(opd_str *str, size_t size);

/* Takes the first size bytes away, no more than there are. */
void opd_str_drop(opd_str *str, size_t size);

/* Gives the bytes, without a copy, to a buffer of one reference, the caller's; the text is empty and
 * usable again afterwards. Errors: that of the text, NOMEM; the text is then as it was. */
opd_err opd_str_to_buf(opd_str *str, opd_buf **out_buf) OPD_MUST_CHECK;

/* The first error since init or clear (with context set), or OPD_OK. */
opd_err opd_str_status(const opd_str *str) OPD_MUST_CHECK;

#endif
