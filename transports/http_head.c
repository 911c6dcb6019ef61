/* http_head.c - see http_head.h. */
#include "transports/http_head.h"

#include <string.h>

void opd__http_head_add(opd_str *head, const char *name, const char *value) {
    opd_str_append(head, name, strlen(name) + 1);
    opd_str_append(head, value, strlen(value) + 1);
}

const char *opd__http_head_get(const opd_str *head, const char *name) {
    const char *end = head->data == NULL ? NULL : head->data + head->size;
    /* A header cut short by a full str has no value: the bound check stops before it. */
    for (const char *at = head->data; at != NULL && at < end;) {
        const char *value = at + strlen(at) + 1;
        if (value >= end) return NULL;
        if (strcmp(at, name) == 0) return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}
