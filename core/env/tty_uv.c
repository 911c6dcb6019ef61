/* tty_uv.c - what a file descriptor's terminal is like (env.h). Thread: any. */
#include <sys/ioctl.h>
#include <uv.h>

#include "core/env/env.h"

enum { WIDTH_DEFAULT = 80 };

bool opd_tty_is(int fd) { return uv_guess_handle(fd) == UV_TTY; }

int opd_tty_width(int fd) {
    struct winsize size = {0};
    if (!opd_tty_is(fd) || ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return WIDTH_DEFAULT;
    return size.ws_col;
}
