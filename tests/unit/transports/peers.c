/* peers.c - see peers.h. */
#include "tests/unit/transports/peers.h"

#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/unit/transports/loop.h"

extern char **environ;

bool installed(const char *name) {
    static const char *const folders[] = {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", folders[i], name);
        if (access(path, X_OK) == 0) return true;
    }
    return false;
}

pid_t start(const char *command, const char *out_path) {
    char line[2048];
    pid_t pid;
    snprintf(line, sizeof line, "export PATH=$PATH:/usr/sbin; exec setpriv --pdeathsig KILL %s >%s 2>&1", command, out_path);
    char *argv[] = {(char *)(uintptr_t)"/bin/sh", (char *)(uintptr_t)"-c", line, NULL};
    CHECK_INT(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
    return pid;
}

int finish(pid_t pid) {
    int status = 0;
    for (int i = 0; i < 2000; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) return WEXITSTATUS(status);
        loop_for_ms(10);
    }
    kill(pid, SIGKILL);
    opd_test_fail(__FILE__, __LINE__, "the peer did not end");
}

static struct sockaddr_in loopback(unsigned port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

unsigned free_port(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, size), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

bool connects(unsigned port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool up = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return up;
}
