/* test.h - opd's own small test harness.
 *
 * A test file holds TEST(name) { ... } functions. CMake registers each as one CTest case;
 * the program runs the one named on its command line (or all, one after another), so every
 * case has its own process and time limit, and LeakSanitizer fails it on a leak.
 * SKIP("reason") ends a case as a counted skip.
 */
#ifndef OPD_TESTS_SUPPORT_TEST_H
#define OPD_TESTS_SUPPORT_TEST_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opd/err.h"

typedef struct opd_test_case {
    const char *name;
    void (*run)(void);
    struct opd_test_case *next;
} opd_test_case;

void opd_test_register(opd_test_case *test_case);
_Noreturn void opd_test_fail(const char *file, int line, const char *fmt, ...) OPD_PRINTF(3, 4);
_Noreturn void opd_test_skip(const char *reason);

#define TEST(test_name)                                                          \
    static void test_name(void);                                                 \
    static opd_test_case case_##test_name = {#test_name, test_name, NULL};       \
    __attribute__((constructor)) static void register_##test_name(void) {        \
        opd_test_register(&case_##test_name);                                    \
    }                                                                            \
    static void test_name(void)

#define SKIP(reason) opd_test_skip(reason)
#define CHECK(expr) \
    ((expr) ? (void)0 : opd_test_fail(__FILE__, __LINE__, "CHECK(%s)", #expr))
#define CHECK_OK(expr)                                                                     \
    do {                                                                                   \
        opd_err check_err_ = (expr);                                                       \
        if (check_err_ != OPD_OK)                                                          \
            opd_test_fail(__FILE__, __LINE__, "%s: %s (%s)", #expr,                        \
                          opd_err_name(check_err_), opd_err_context());                    \
    } while (0)
#define CHECK_ERR(expr, expected)                                                          \
    do {                                                                                   \
        opd_err check_err_ = (expr);                                                       \
        if (check_err_ != (expected))                                                      \
            opd_test_fail(__FILE__, __LINE__, "%s: got %s (%s), expected %s", #expr,       \
                          opd_err_name(check_err_), opd_err_context(), #expected);         \
    } while (0)
#define CHECK_INT(actual, expected)                                                        \
    do {                                                                                   \
        long long a_ = (long long)(actual), e_ = (long long)(expected);                    \
        if (a_ != e_)                                                                      \
            opd_test_fail(__FILE__, __LINE__, "%s: got %lld, expected %lld", #actual, a_,  \
                          e_);                                                             \
    } while (0)
#define CHECK_STR(actual, expected)                                                        \
    do {                                                                                   \
        const char *a_ = (actual), *e_ = (expected);                                       \
        if (strcmp(a_, e_) != 0)                                                           \
            opd_test_fail(__FILE__, __LINE__, "%s: got \"%s\", expected \"%s\"", #actual,  \
                          a_, e_);                                                         \
    } while (0)
#define CHECK_CONTAINS(text, part)                                                         \
    do {                                                                                   \
        const char *t_ = (text), *p_ = (part);                                             \
        if (strstr(t_, p_) == NULL)                                                        \
            opd_test_fail(__FILE__, __LINE__, "%s: \"%s\" does not contain \"%s\"", #text, \
                          t_, p_);                                                         \
    } while (0)
#define CHECK_NEAR(actual, expected, tolerance)                                            \
    do {                                                                                   \
        double a_ = (double)(actual), e_ = (double)(expected);                             \
        if (!(fabs(a_ - e_) <= (double)(tolerance)))                                       \
            opd_test_fail(__FILE__, __LINE__, "%s: got %.9g, expected %.9g", #actual, a_,  \
                          e_);                                                             \
    } while (0)

#endif
