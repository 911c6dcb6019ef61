/* args.c - reads argv option by option (args.h). Thread: main. Nothing to free. */
#include "cli/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void args_init(args *a, int argc, char **argv) {
    *a = (args){.argc = argc, .argv = argv};
}

bool args_next(args *a) {
    if (a->next >= a->argc) return false;
    const char *word = a->argv[a->next++];
    a->name = NULL;
    a->value = NULL;
    if (word[0] != '-' || word[1] == '\0') {
        a->value = word;
        return true;
    }
    word += word[1] == '-' ? 2 : 1;
    const char *equals = strchr(word, '=');
    size_t size = equals != NULL ? (size_t)(equals - word) : strlen(word);
    if (size >= sizeof a->name_buffer) size = sizeof a->name_buffer - 1;
    memcpy(a->name_buffer, word, size);
    a->name_buffer[size] = '\0';
    a->name = a->name_buffer;
    a->value = equals != NULL ? equals + 1 : NULL;
    return true;
}

bool args_is(const args *a, const char *name, char letter) {
    if (a->name == NULL) return false;
    if (strcmp(a->name, name) == 0) return true;
    return letter != 0 && a->name[0] == letter && a->name[1] == '\0';
}

opd_err args_text(args *a, const char **out) {
    if (a->value == NULL) {
        if (a->next >= a->argc)
            return opd_fail(OPD_ERR_INVALID, "--%s needs a value", a->name);
        a->value = a->argv[a->next++];
    }
    *out = a->value;
    return OPD_OK;
}

opd_err args_int(args *a, long min, long max, int *out) {
    const char *text = NULL;
    opd_err err = args_text(a, &text);
    if (err != OPD_OK) return err;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max)
        return opd_fail(OPD_ERR_INVALID, "--%s: \"%s\" is not a whole number from %ld to %ld",
                        a->name, text, min, max);
    *out = (int)value;
    return OPD_OK;
}

opd_err args_u64(args *a, uint64_t *out) {
    const char *text = NULL;
    opd_err err = args_text(a, &text);
    if (err != OPD_OK) return err;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-')
        return opd_fail(OPD_ERR_INVALID, "--%s: \"%s\" is not a whole number", a->name, text);
    *out = value;
    return OPD_OK;
}

opd_err args_double(args *a, double min, double max, double *out) {
    const char *text = NULL;
    opd_err err = args_text(a, &text);
    if (err != OPD_OK) return err;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= min && value <= max))
        return opd_fail(OPD_ERR_INVALID, "--%s: \"%s\" is not a number from %g to %g", a->name,
                        text, min, max);
    *out = value;
    return OPD_OK;
}
