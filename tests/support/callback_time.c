/* callback_time.c - see callback_time.h. */
#include "tests/support/callback_time.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/test.h"

static double looked_us, slice_max_us;
static pthread_t loop_thread;
static bool looking;

void callback_look(void) {
    struct timespec t;
    if (!looking || !pthread_equal(pthread_self(), loop_thread)) return;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    double now_us = 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
    if (looked_us > 0 && now_us - looked_us > slice_max_us) slice_max_us = now_us - looked_us;
    looked_us = now_us;
}

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
bool callback_measured(void) { return true; }

ssize_t read(int fd, void *buf, size_t size) {
    callback_look();
    return syscall(SYS_read, fd, buf, size);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    callback_look();
    return (int)syscall(SYS_epoll_wait, epoll, events, count, timeout_ms);
}
#else
bool callback_measured(void) { return false; }
#endif

void callback_watch(void) {
    loop_thread = pthread_self();
    looking = true;
}

void callback_tell(void) {
    (void)printf("at most %.0f us of CPU in one callback\n", slice_max_us);
}
