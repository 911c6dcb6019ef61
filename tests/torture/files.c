/* files.c - system calls that fail on purpose (torture.h).
 *
 * The linker sends the library's calls here (--wrap=write and so on), so the library itself knows
 * nothing of it. Only the thread that armed a fault is disturbed. Thread: any.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/torture/torture.h"

static _Thread_local struct {
    torture_file_fault fault;
    long at, calls; /* at 0: not armed */
} armed;
static bool no_exchange;

void torture_files_exchange(bool can) { no_exchange = !can; }

long torture_files_arm(torture_file_fault fault, long n) {
    long calls = armed.calls;
    armed.fault = fault;
    armed.at = n;
    armed.calls = 0;
    return calls;
}

typedef enum call { CALL_WRITE, CALL_MAKE, CALL_RENAME } call; /* MAKE: open, mkdir, fsync */

/* Which calls a fault counts: a full disk renames, a short write is a write. */
static bool counts(torture_file_fault fault, call c) {
    if (fault == TORTURE_FILE_EIO) return true;
    return c == CALL_WRITE || (c == CALL_MAKE && fault == TORTURE_FILE_FULL);
}

/* Counts one call; true if it is to be disturbed. */
static bool strikes(call c) {
    if (armed.at == 0 || !counts(armed.fault, c)) return false;
    armed.calls++;
    return armed.calls == armed.at || (armed.fault == TORTURE_FILE_FULL && armed.calls > armed.at);
}

static int broken(void) {
    errno = armed.fault == TORTURE_FILE_FULL ? ENOSPC : EIO;
    return -1;
}

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t size);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __real_mkdir(const char *path, mode_t mode);

int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t size);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_mkdir(const char *path, mode_t mode);

int __wrap_open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = (mode_t)va_arg(args, unsigned);
        va_end(args);
    }
    bool writes = (flags & (O_WRONLY | O_RDWR)) != 0;
    return writes && strikes(CALL_MAKE) ? broken() : __real_open(path, flags, mode);
}

ssize_t __wrap_write(int fd, const void *data, size_t size) {
    if (!strikes(CALL_WRITE)) return __real_write(fd, data, size);
    if (armed.fault == TORTURE_FILE_SHORT) return __real_write(fd, data, size > 1 ? size / 2 : size);
    if (armed.fault != TORTURE_FILE_INTERRUPT) return broken();
    errno = EINTR;
    return -1;
}

/* No crash is played here, so nothing need really reach the disk. */
int __wrap_fsync(int fd) {
    (void)fd;
    return strikes(CALL_MAKE) ? broken() : 0;
}

int __wrap_rename(const char *from, const char *to) {
    return strikes(CALL_RENAME) ? broken() : __real_rename(from, to);
}

int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    if (no_exchange) {
        errno = EINVAL;
        return -1;
    }
    return strikes(CALL_RENAME) ? broken() : __real_renameat2(from_dir, from, to_dir, to, flags);
}

int __wrap_mkdir(const char *path, mode_t mode) {
    return strikes(CALL_MAKE) ? broken() : __real_mkdir(path, mode);
}

static void each_call(torture_scenario scenario, void (*check)(void *arg, opd_err err), void *arg,
                      uint64_t allowed, torture_file_fault fault) {
    bool must_succeed = fault >= TORTURE_FILE_SHORT;
    for (long n = 1;; n++) {
        CHECK(n < TORTURE_POINTS_MAX);
        (void)torture_files_arm(fault, n);
        opd_err_clear();
        opd_err err = scenario(NULL, arg);
        char text[1024];
        (void)snprintf(text, sizeof text, "%s", opd_err_context());
        long calls = torture_files_arm(fault, 0);
        if (err != OPD_OK && (must_succeed || (TORTURE_ERR(err) & allowed) == 0 || text[0] == '\0'))
            opd_test_fail(__FILE__, __LINE__, "call %ld, fault %d: ended with %s (%s)", n, fault,
                          opd_err_name(err), text);
        if (check != NULL) check(arg, err);
        if (calls >= n) continue;
        CHECK_INT(err, OPD_OK);
        CHECK(n > 1); /* a scenario that writes nothing shows nothing */
        return;
    }
}

void torture_files(torture_scenario scenario, void (*check)(void *arg, opd_err err), void *arg,
                   uint64_t allowed) {
    opd_log_sink_set(torture_no_line, NULL);
    for (int fault = 0; fault < TORTURE_FILE_FAULTS; fault++)
        each_call(scenario, check, arg, allowed, (torture_file_fault)fault);
}
