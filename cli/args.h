/* args.h - a small reader of command lines: options with or without a value.
 *
 * An option is "--name value", "--name=value" or a bare "--flag". Thread: main. Nothing is
 * allocated; values point into argv.
 */
#ifndef OPD_CLI_ARGS_H
#define OPD_CLI_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "opd/err.h"

typedef struct args {
    int argc;
    char **argv;
    int next;          /* index of the argument read next                        */
    const char *name;  /* current option without "--", or NULL at a plain word   */
    const char *value; /* the text after "=", or NULL; the word at a plain word  */
    char name_buffer[64];
} args;

void args_init(args *a, int argc, char **argv);

/* Steps to the next argument; false at the end. */
bool args_next(args *a);

/* Whether the current argument is the option `name` (or its one-letter form, 0 for none). */
bool args_is(const args *a, const char *name, char letter);

/* The option's value: after "=" or the next argument. Errors: INVALID, naming the option. */
OPD_MUST_CHECK opd_err args_text(args *a, const char **out);
OPD_MUST_CHECK opd_err args_int(args *a, long min, long max, int *out);
OPD_MUST_CHECK opd_err args_u64(args *a, uint64_t *out);
OPD_MUST_CHECK opd_err args_double(args *a, double min, double max, double *out);

#endif
