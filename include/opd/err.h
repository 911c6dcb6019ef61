/* opd/err.h - the one error type of opd.
 *
 * Every fallible call returns an opd_err. The code says what kind of thing went
 * wrong (one table, below); the *context* - file, line, key, endpoint, remedy - is
 * a text kept per thread by opd_fail() and read with opd_err_context() by the
 * caller that finally reports it. Foreign codes (errno, libuv, nghttp2, CUDA) are
 * mapped at the boundary where they appear and seen nowhere else.
 *
 * Thread: any. The context belongs to the calling thread and stays valid until
 * that thread's next opd_fail() or opd_err_prefix(). Implemented by core/base/err.c.
 */
#ifndef OPD_ERR_H
#define OPD_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define OPD_MUST_CHECK __attribute__((warn_unused_result))
#define OPD_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#else
#define OPD_MUST_CHECK
#define OPD_PRINTF(fmt_index, first_arg)
#endif

/* What a caller can do about an error; switch on this rather than on codes. */
typedef enum opd_err_category {
    OPD_ERR_CATEGORY_OK,
    OPD_ERR_CATEGORY_AGAIN,    /* not now: try later, nothing was taken      */
    OPD_ERR_CATEGORY_TIMEOUT,  /* a deadline passed                          */
    OPD_ERR_CATEGORY_CLOSED,   /* the other side is gone or stopping         */
    OPD_ERR_CATEGORY_PEER,     /* the other side answered with a failure     */
    OPD_ERR_CATEGORY_RESOURCE, /* memory, disk, descriptors, declared maxima */
    OPD_ERR_CATEGORY_PROTO,    /* bytes that break their format              */
    OPD_ERR_CATEGORY_USAGE,    /* the user's input: config, data, flags      */
    OPD_ERR_CATEGORY_FATAL     /* cannot go on                               */
} opd_err_category;

/* The table: code, value, category, text. Values are stable; append only. */
#define OPD_ERR_TABLE(X)                                                  \
    X(OK, 0, OK, "no error")                                              \
    X(AGAIN, 1, AGAIN, "not ready, try again")                            \
    X(TIMEOUT, 2, TIMEOUT, "deadline passed")                             \
    X(CLOSED, 3, CLOSED, "closed")                                        \
    X(CANCELLED, 4, CLOSED, "cancelled")                                  \
    X(REFUSED, 5, PEER, "connection refused")                             \
    X(RESET, 6, PEER, "connection lost")                                  \
    X(REMOTE, 7, PEER, "the peer reported a failure")                     \
    X(NOMEM, 8, RESOURCE, "out of memory")                                \
    X(LIMIT, 9, RESOURCE, "a declared maximum was reached")               \
    X(DISK, 10, RESOURCE, "disk full or write failed")                    \
    X(IO, 11, RESOURCE, "input/output error")                             \
    X(PROTO, 12, PROTO, "protocol violation")                             \
    X(PARSE, 13, PROTO, "malformed data")                                 \
    X(INVALID, 14, USAGE, "invalid value")                                \
    X(CONFIG, 15, USAGE, "invalid configuration")                         \
    X(NOT_FOUND, 16, USAGE, "not found")                                  \
    X(EXISTS, 17, USAGE, "already exists")                                \
    X(MISMATCH, 18, USAGE, "two things that must agree differ")           \
    X(UNSUPPORTED, 19, USAGE, "not supported")                            \
    X(INTERRUPTED, 20, CLOSED, "stopped by a signal")                     \
    X(TEACHER_LOST, 21, FATAL, "no teacher answers")                      \
    X(NUMERIC, 22, FATAL, "non-finite numbers")                           \
    X(INTERNAL, 23, FATAL, "internal error")                              \
    X(UNTRUSTED, 24, PEER, "the peer did not prove who it is")

typedef enum opd_err {
#define X(name, value, category, text) OPD_ERR_##name = value,
    OPD_ERR_TABLE(X)
#undef X
    OPD_OK = OPD_ERR_OK
} opd_err;

/* Name of a code ("OPD_ERR_TIMEOUT"), never NULL. */
const char *opd_err_name(opd_err err);

/* One-line English text of a code, never NULL. */
const char *opd_err_text(opd_err err);

/* Category of a code; unknown values are FATAL. */
opd_err_category opd_err_category_of(opd_err err);

/* Sets this thread's context to the formatted text (cut at 1,023 bytes) and returns
 * `err`, so that a failure reads `return opd_fail(OPD_ERR_PARSE, "%s:%d: ...", ...)`.
 * The text names the place and the remedy; it has no trailing newline or period. */
opd_err opd_fail(opd_err err, const char *fmt, ...) OPD_PRINTF(2, 3);

/* Puts the formatted text and ": " in front of this thread's context and returns
 * `err`: how a caller adds what only it knows (the file, the stage). OPD_OK passes
 * through untouched. */
opd_err opd_err_prefix(opd_err err, const char *fmt, ...) OPD_PRINTF(2, 3);

/* This thread's context: the text of its last opd_fail(), or "" if none. */
const char *opd_err_context(void);

/* Empties this thread's context. */
void opd_err_clear(void);

#ifdef __cplusplus
}
#endif
#endif
