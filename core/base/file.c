/* file.c - whole files and paths (file.h). Thread: any; every call blocks. */
#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/check.h"

/* Maps errno of an operation on path; the context names both. */
static opd_err fail_errno(const char *path, const char *what) {
    int code = errno;
    opd_err err = OPD_ERR_IO;
    if (code == ENOENT || code == ENOTDIR) err = OPD_ERR_NOT_FOUND;
    if (code == ENOSPC || code == EDQUOT) err = OPD_ERR_DISK;
    char text[128];
    const char *remedy = "";
    if (err == OPD_ERR_NOT_FOUND) remedy = "; correct the path";
    if (err == OPD_ERR_DISK) remedy = "; free some space, then try again";
    return opd_fail(err, "%s: %s: %s%s", path, what, strerror_r(code, text, sizeof text), remedy);
}

static opd_err read_all(int fd, const char *path, char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, data + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(path, "read");
        if (got == 0) return opd_fail(OPD_ERR_IO, "%s: shorter than when opened", path);
        done += (size_t)got;
    }
    return OPD_OK;
}

static opd_err read_open(const opd_alloc *alloc, int fd, const char *path, size_t max_bytes,
                         char **out_data, size_t *out_size) {
    struct stat info;
    if (fstat(fd, &info) != 0) return fail_errno(path, "stat");
    if (!S_ISREG(info.st_mode)) return opd_fail(OPD_ERR_IO, "%s: not a regular file", path);
    size_t size = (size_t)info.st_size;
    if (size > max_bytes)
        return opd_fail(OPD_ERR_LIMIT, "%s: %zu bytes, at most %zu are read", path, size,
                        max_bytes);
    char *data = opd_mem_resize(alloc, NULL, size + 1);
    if (data == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: %zu bytes", path, size);
    opd_err err = read_all(fd, path, data, size);
    if (err != OPD_OK) {
        opd_mem_free(alloc, data);
        return err;
    }
    data[size] = '\0';
    *out_data = data;
    *out_size = size;
    return OPD_OK;
}

opd_err opd_file_read(const opd_alloc *alloc, const char *path, size_t max_bytes,
                      char **out_data, size_t *out_size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_errno(path, "open");
    opd_err err = read_open(alloc, fd, path, max_bytes, out_data, out_size);
    (void)close(fd);
    return err;
}

static opd_err write_all(int fd, const char *path, const char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t put = write(fd, data + done, size - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno(path, "write");
        done += (size_t)put;
    }
    return fsync(fd) == 0 ? OPD_OK : fail_errno(path, "fsync");
}

opd_err opd_file_write_atomic(const char *path, const void *data, size_t size_bytes) {
    char temporary[OPD_PATH_SIZE];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof temporary)
        return opd_fail(OPD_ERR_LIMIT, "%s: path too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail_errno(temporary, "create");
    opd_err err = write_all(fd, temporary, data, size_bytes);
    if (close(fd) != 0 && err == OPD_OK) err = fail_errno(temporary, "close");
    if (err == OPD_OK && rename(temporary, path) != 0) err = fail_errno(path, "rename");
    if (err != OPD_OK) (void)unlink(temporary);
    return err;
}

static opd_err make_one(const char *path) {
    struct stat info;
    if (mkdir(path, 0777) == 0) return OPD_OK;
    if (errno != EEXIST) return fail_errno(path, "mkdir");
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return OPD_OK;
    return opd_fail(OPD_ERR_EXISTS, "%s: exists and is not a folder", path);
}

opd_err opd_dir_make(const char *path) {
    char part[OPD_PATH_SIZE];
    size_t length = strlen(path);
    if (length >= sizeof part) return opd_fail(OPD_ERR_LIMIT, "%s: path too long", path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i < length; i++) {
        if (part[i] != '/') continue;
        part[i] = '\0';
        OPD_TRY(make_one(part));
        part[i] = '/';
    }
    return make_one(part);
}

bool opd_file_exists(const char *path) { return access(path, F_OK) == 0; }

opd_err opd_path_join(char *out, size_t out_size, const char *a, const char *b) {
    size_t a_length = strlen(a);
    bool alone = a_length == 0 || b[0] == '/';
    bool has_slash = a_length > 0 && a[a_length - 1] == '/';
    int length = alone ? snprintf(out, out_size, "%s", b)
                       : snprintf(out, out_size, "%s%s%s", a, has_slash ? "" : "/", b);
    if (length < 0 || (size_t)length >= out_size)
        return opd_fail(OPD_ERR_LIMIT, "%s/%s: path too long", a, b);
    return OPD_OK;
}
