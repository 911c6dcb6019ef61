/* access.c - keys of servers (access.h). Thread: any. Memory: the caller's. */
#include "actors/teacher/access.h"

#include <string.h>

#include "core/base/check.h"
#include "core/base/secret.h"

static bool is_given(const char *text) { return text != NULL && text[0] != '\0'; }

opd_err opd_access_key(const opd_config_teacher *t, const opd_alloc *alloc, char **out_key) {
    *out_key = NULL;
    if (is_given(t->api_key_env))
        return opd_err_prefix(opd_secret_from_env(alloc, t->api_key_env, out_key),
                              "teachers.%s.api_key_env", t->name);
    if (is_given(t->api_key_file))
        return opd_err_prefix(opd_secret_from_file(alloc, t->api_key_file, out_key),
                              "teachers.%s.api_key_file", t->name);
    return OPD_OK;
}

bool opd_access_exposed(const char *url) {
    static const char *const loopback[] = {"127.", "localhost", "[::1]"};
    static const char plain[] = "http://";
    if (strncmp(url, plain, sizeof plain - 1) != 0) return false;
    for (size_t i = 0; i < OPD_COUNTOF(loopback); i++)
        if (strncmp(url + sizeof plain - 1, loopback[i], strlen(loopback[i])) == 0) return false;
    return true;
}

bool opd_access_denied(int status) { return status == 401 || status == 403; }
