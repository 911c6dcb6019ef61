/* str.c - growable bytes (str.h). Thread: one owner. */
#include "core/base/str.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"

static char empty[1]; /* data of a text without memory; never written */

void opd_str_init(opd_str *str, const opd_alloc *alloc, size_t max_bytes) {
    *str = (opd_str){.data = empty, .alloc = alloc, .max_bytes = max_bytes};
}

void opd_str_fini(opd_str *str) {
    if (str->capacity > 0) opd_mem_free(str->alloc, str->data);
    opd_str_init(str, str->alloc, str->max_bytes);
}

void opd_str_clear(opd_str *str) {
    str->size = 0;
    str->err = OPD_OK;
    if (str->capacity > 0) str->data[0] = '\0';
}

/* Gives the text a capacity of at least `need`, of which `capacity` is a generous one. */
static bool resize(opd_str *str, size_t need, size_t capacity) {
    if (need <= str->capacity) return true;
    char *data = opd_mem_resize(str->alloc, str->capacity > 0 ? str->data : NULL, capacity);
    if (data == NULL) return false;
    if (str->capacity == 0) data[0] = '\0';
    str->data = data;
    str->capacity = capacity;
    return true;
}

/* Makes room for `more` bytes and the NUL; false (and a sticky error) if there is none. */
static bool reserve(opd_str *str, size_t more) {
    if (str->err != OPD_OK) return false;
    if (more > str->max_bytes - str->size) {
        str->err = OPD_ERR_LIMIT;
        return false;
    }
    size_t need = str->size + more + 1;
    size_t capacity = str->capacity < 64 ? 64 : str->capacity;
    while (capacity < need) capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    if (resize(str, need, capacity)) return true;
    str->err = OPD_ERR_NOMEM;
    return false;
}

void opd_str_reserve(opd_str *str, size_t more) {
    if (str->err != OPD_OK || more > str->max_bytes - str->size) return;
    (void)resize(str, str->size + more + 1, str->size + more + 1);
}

char *opd_str_room(opd_str *str, size_t size) {
    return reserve(str, size) ? str->data + str->size : NULL;
}

void opd_str_extend(opd_str *str, size_t size) {
    str->size += size;
    str->data[str->size] = '\0';
}

void opd_str_drop(opd_str *str, size_t size) {
    if (size == 0) return;
    memmove(str->data, str->data + size, str->size - size + 1); /* and the NUL */
    str->size -= size;
}

void opd_str_append(opd_str *str, const void *bytes, size_t size) {
    if (size == 0 || !reserve(str, size)) return;
    memcpy(str->data + str->size, bytes, size);
    str->size += size;
    str->data[str->size] = '\0';
}

void opd_str_text(opd_str *str, const char *text) { opd_str_append(str, text, strlen(text)); }

void opd_str_printf(opd_str *str, const char *fmt, ...) {
    char local[256];
    va_list args;
    va_start(args, fmt);
    int wrote = vsnprintf(local, sizeof local, fmt, args);
    va_end(args);
    if (wrote < 0) {
        if (str->err == OPD_OK) str->err = OPD_ERR_INVALID;
        return;
    }
    size_t size = (size_t)wrote;
    if (size < sizeof local) {
        opd_str_append(str, local, size);
        return;
    }
    if (!reserve(str, size)) return;
    va_start(args, fmt);
    (void)vsnprintf(str->data + str->size, size + 1, fmt, args);
    va_end(args);
    str->size += size;
}

opd_err opd_str_status(const opd_str *str) {
    if (str->err == OPD_ERR_LIMIT)
        return opd_fail(OPD_ERR_LIMIT, "text longer than %zu bytes", str->max_bytes);
    if (str->err != OPD_OK) return opd_fail(str->err, "text of %zu bytes", str->size);
    return OPD_OK;
}

static void free_bytes(void *arg, void *data) { opd_mem_free(arg, data); }

opd_err opd_str_to_buf(opd_str *str, opd_buf **out_buf) {
    OPD_TRY(opd_str_status(str));
    if (str->capacity == 0) return opd_buf_create(str->alloc, 0, out_buf);
    /* The allocator comes back as it is; a buffer's argument lacks const only by its type. */
    OPD_TRY(opd_buf_wrap(str->alloc, str->data, str->size, free_bytes,
                         (void *)(uintptr_t)str->alloc, out_buf));
    opd_str_init(str, str->alloc, str->max_bytes);
    return OPD_OK;
}
