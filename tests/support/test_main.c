/* test_main.c - runs the cases of one test program (test.h). */
#include "tests/support/test.h"

#include <stdarg.h>

static opd_test_case *cases;

void opd_test_register(opd_test_case *test_case) {
    test_case->next = cases;
    cases = test_case;
}

_Noreturn void opd_test_fail(const char *file, int line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    (void)fprintf(stderr, "%s:%d: ", file, line);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
    abort();
}

_Noreturn void opd_test_skip(const char *reason) {
    (void)printf("SKIP: %s\n", reason);
    (void)fflush(stdout);
    exit(77); /* CTest's SKIP_RETURN_CODE */
}

int main(int argc, char **argv) {
    int ran = 0;
    for (opd_test_case *c = cases; c != NULL; c = c->next) {
        if (argc > 1 && strcmp(argv[1], c->name) != 0) continue;
        c->run();
        ran++;
    }
    if (ran == 0) {
        (void)fprintf(stderr, "no test case named %s\n", argc > 1 ? argv[1] : "(any)");
        return 2;
    }
    return 0;
}
