/* secret.c - secrets read, copied, wiped (secret.h). Thread: any. Memory: the caller's. */
#include "core/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"

enum { LINE_BYTES = OPD_SECRET_MAX_BYTES + 2 }; /* and what tells that it is too long */

void opd_secret_free(const opd_alloc *alloc, char *secret) {
    if (secret == NULL) return;
    explicit_bzero(secret, strlen(secret));
    opd_mem_free(alloc, secret);
}

opd_err opd_secret_copy(const opd_alloc *alloc, const char *prefix, const char *secret,
                        char **out_secret) {
    size_t head = strlen(prefix), tail = strlen(secret);
    char *copy = opd_mem_get(alloc, head + tail + 1);
    if (copy == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a key");
    memcpy(copy, prefix, head);
    memcpy(copy + head, secret, tail + 1);
    *out_secret = copy;
    return OPD_OK;
}

/* One word that can stand in a header. */
static opd_err check(const char *secret, const char *kind, const char *where) {
    size_t size = strlen(secret);
    if (size == 0) return opd_fail(OPD_ERR_CONFIG, "%s %s is empty; put the key there", kind, where);
    if (size > OPD_SECRET_MAX_BYTES)
        return opd_fail(OPD_ERR_CONFIG, "%s %s: a key of more than %d bytes", kind, where,
                        OPD_SECRET_MAX_BYTES);
    for (size_t i = 0; i < size; i++)
        if (secret[i] <= ' ' || secret[i] >= 0x7F)
            return opd_fail(OPD_ERR_CONFIG, "%s %s: byte %zu of the key is no printable ASCII "
                            "character; a key is one word", kind, where, i + 1);
    return OPD_OK;
}

opd_err opd_secret_from_env(const opd_alloc *alloc, const char *variable, char **out_secret) {
    const char *value = getenv(variable);
    if (value == NULL)
        return opd_fail(OPD_ERR_CONFIG, "the environment variable %s is not set; it should hold the "
                        "API key", variable);
    OPD_TRY(check(value, "the environment variable", variable));
    return opd_secret_copy(alloc, "", value, out_secret);
}

static opd_err read_line(const char *path, char line[LINE_BYTES]) {
    size_t size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return opd_fail(OPD_ERR_CONFIG, "the API key file %s cannot be opened: %s", path,
                        strerror(errno));
    for (ssize_t got = 1; got > 0 && size < LINE_BYTES - 1; size += got > 0 ? (size_t)got : 0) {
        got = read(fd, line + size, LINE_BYTES - 1 - size);
        if (got < 0) {
            opd_err err = opd_fail(OPD_ERR_CONFIG, "the API key file %s cannot be read: %s", path,
                                   strerror(errno));
            (void)close(fd);
            return err;
        }
    }
    (void)close(fd);
    line[size] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    return OPD_OK;
}

opd_err opd_secret_from_file(const opd_alloc *alloc, const char *path, char **out_secret) {
    char line[LINE_BYTES];
    opd_err err = read_line(path, line);
    if (err == OPD_OK) err = check(line, "the API key file", path);
    if (err == OPD_OK) err = opd_secret_copy(alloc, "", line, out_secret);
    explicit_bzero(line, sizeof line);
    return err;
}

bool opd_secret_equal(const char *secret, const char *given) {
    size_t size = strlen(secret), n = strlen(given);
    unsigned char differ = size != n;
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned char)(given[i] ^ secret[size == 0 ? 0 : i % size]);
    return differ == 0;
}
