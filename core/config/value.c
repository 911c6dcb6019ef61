/* value.c - one scalar: from YAML text to a typed field, and back to text. See schema.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/config/schema.h"

static const char *const type_words[] = {
    [OPD__TYPE_BOOL] = "true or false",   [OPD__TYPE_INT] = "a whole number",
    [OPD__TYPE_FLOAT] = "a number",       [OPD__TYPE_ENUM] = "a word",
    [OPD__TYPE_STRING] = "a string",      [OPD__TYPE_NAME] = "a name",
    [OPD__TYPE_URL] = "a URL",            [OPD__TYPE_PATH] = "a path",
    [OPD__TYPE_URLS] = "a list of URLs",  [OPD__TYPE_WORDS] = "a list of words",
};

/* "place: key: expected a number, got a quoted string". */
static opd_err type_fail(const opd__key *key, const char *display, const opd__node *node) {
    char place[OPD__PLACE_SIZE];
    const char *remedy = "";
    bool scalar = node->kind == OPD__NODE_KIND_SCALAR;
    bool text = key->type >= OPD__TYPE_STRING;
    if (scalar && text && node->text[0] != 0) remedy = "; put it in quotes";
    if (scalar && !text && !node->plain) remedy = "; leave the quotes out";
    if (scalar && node->text[0] == 0 && node->plain) remedy = "; give it a value or remove it";
    return opd_fail(OPD_ERR_CONFIG, "%s: %s: expected %s, got %s%s", opd__node_place(node, place),
                    display, type_words[key->type], opd__node_what(node), remedy);
}

static opd_err value_fail(const char *display, const opd__node *node, const char *what) {
    char place[OPD__PLACE_SIZE];
    return opd_fail(OPD_ERR_CONFIG, "%s: %s: %s", opd__node_place(node, place), display, what);
}

/* Checks a number, given as `value`, against the key's range. */
static opd_err range_check(const opd__key *key, const char *display, const opd__node *node,
                           double value) {
    char what[256];
    const char *space = key->unit[0] != 0 ? " " : "";
    bool above = (key->flags & OPD__KEY_ABOVE_MIN) != 0;
    bool below = (key->flags & OPD__KEY_BELOW_MAX) != 0;
    if (value < key->min || (above && value <= key->min)) {
        snprintf(what, sizeof what, "%.40s is too small; it must be %s %.16g%s%s", node->text,
                 above ? "above" : "at least", key->min, space, key->unit);
        return value_fail(display, node, what);
    }
    if (value > key->max || (below && value >= key->max)) {
        snprintf(what, sizeof what, "%.40s is too large; it must be %s %.16g%s%s", node->text,
                 below ? "below" : "at most", key->max, space, key->unit);
        return value_fail(display, node, what);
    }
    return OPD_OK;
}

static opd_err store_int(const opd__key *key, const char *display, const opd__node *node,
                         int64_t *field) {
    if (!node->plain || !opd__text_is_int(node->text)) return type_fail(key, display, node);
    errno = 0;
    long long value = strtoll(node->text, NULL, 10);
    if (errno != 0) return value_fail(display, node, "the number does not fit into 64 bits");
    OPD_TRY(range_check(key, display, node, (double)value));
    *field = value;
    return OPD_OK;
}

static opd_err store_float(const opd__key *key, const char *display, const opd__node *node,
                           double *field) {
    if (!node->plain || !opd__text_is_float(node->text)) return type_fail(key, display, node);
    const char *digits = node->text + (node->text[0] == '-' || node->text[0] == '+');
    bool named = digits[0] == '.' && strpbrk(digits, "nNiI") != NULL; /* .inf, .nan */
    double value = named ? HUGE_VAL : strtod(node->text, NULL);
    if (!isfinite(value)) return value_fail(display, node, "the number must be finite");
    OPD_TRY(range_check(key, display, node, value));
    *field = value;
    return OPD_OK;
}

static opd_err store_enum(const opd__key *key, const char *display, const opd__node *node,
                          int *field) {
    char what[384];
    size_t best = 0, best_distance = SIZE_MAX;
    int at = 0;
    if (node->plain && opd__text_is_null(node->text))
        return type_fail(key, display, node);
    for (size_t i = 0; key->names[i] != NULL; i++) {
        if (strcmp(key->names[i], node->text) == 0) {
            *field = (int)i;
            return OPD_OK;
        }
        size_t distance = opd__edit_distance(key->names[i], node->text);
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    at = snprintf(what, sizeof what, "'%.64s' is not one of", node->text);
    for (size_t i = 0; key->names[i] != NULL && at < (int)sizeof what; i++)
        at += snprintf(what + at, sizeof what - (size_t)at, "%s %s", i > 0 ? "," : "",
                       key->names[i]);
    if (at < (int)sizeof what)
        snprintf(what + at, sizeof what - (size_t)at, "; the nearest is %s", key->names[best]);
    return value_fail(display, node, what);
}

/* Whether UTF-8 text (already checked by libyaml) has a control or line-break character. */
static bool text_has_control(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at != 0; at++) {
        if (at[0] < 0x20 || at[0] == 0x7f) return true;
        if (at[0] == 0xc2 && at[1] < 0xa0) return true;                           /* C1 */
        if (at[0] == 0xe2 && at[1] == 0x80 && (at[2] == 0xa8 || at[2] == 0xa9)) return true;
        if (at[0] == 0xef && at[1] == 0xbb && at[2] == 0xbf) return true;         /* BOM */
        if (at[0] == 0xef && at[1] == 0xbf && at[2] >= 0xbe) return true;         /* FFFE, FFFF */
    }
    return false;
}

/* What is wrong with a URL of `size` bytes, or NULL. */
static const char *url_problem(const char *text, size_t size) {
    size_t scheme = strncmp(text, "https://", 8) == 0 ? 8 : strncmp(text, "http://", 7) == 0 ? 7 : 0;
    if (scheme == 0 || size <= scheme || text[scheme] == '/' || memchr(text, ' ', size) != NULL)
        return "a URL is http[s]://HOST:PORT[/PATH]";
    if (memchr(text + scheme, '@', strcspn(text + scheme, "/,")) != NULL)
        return "a name and a password in a URL would be shown; give api_key_env or api_key_file instead";
    return NULL;
}

/* The same of several: commas between them, blanks around. */
static const char *urls_problem(const char *text) {
    size_t count = 0;
    for (const char *at = text;; at++) {
        at += strspn(at, " ");
        size_t size = strcspn(at, ",");
        const char *end = at + size;
        while (size > 0 && at[size - 1] == ' ') size--;
        const char *problem = url_problem(at, size);
        if (problem != NULL) return problem;
        if (++count > OPD_CONFIG_REPLICAS_MAX) return "there are more than 64 URLs";
        if (*end == 0) return NULL;
        at = end;
    }
}

static opd_err store_text(const opd__key *key, const char *display, const opd__node *node,
                          const char **field) {
    const char *text = node->text, *result;
    char stage[OPD_CONFIG_NAME_MAX + 1];
    if (node->plain && !node->loose &&
        (opd__text_is_null(text) || opd__text_is_bool(text) || opd__text_is_float(text)))
        return type_fail(key, display, node);
    if (text_has_control(text))
        return value_fail(display, node, "control characters are not allowed");
    if (text[0] == 0 && strcmp(key->initial, "") != 0 && key->derived == NULL)
        return value_fail(display, node, "may not be empty");
    if (key->type == OPD__TYPE_NAME && text[0] != 0 && !opd__name_legal(text))
        return value_fail(display, node, "a name is 1 to 64 letters, digits, '-' and '_'");
    const char *problem = NULL;
    if (key->type == OPD__TYPE_URL && text[0] != 0) problem = url_problem(text, strlen(text));
    if (key->type == OPD__TYPE_URLS && text[0] != 0) problem = urls_problem(text);
    if (problem != NULL) return value_fail(display, node, problem);
    if (key->type == OPD__TYPE_PATH && text[0] == '@') {
        if ((key->flags & OPD__KEY_REFERENCE) == 0)
            return value_fail(display, node, "a reference is not possible here; a path that "
                                             "starts with @ is written ./@...");
        if (!opd__reference_split(text, stage, &result))
            return value_fail(display, node, "a reference is written \"@stages.NAME.checkpoint\" "
                                             "or \"@stages.NAME.SPLIT\"");
    }
    *field = text;
    return OPD_OK;
}

opd_err opd__value_store(const opd__key *key, const char *display, const opd__node *node,
                         void *field) {
    if (node->kind != OPD__NODE_KIND_SCALAR) return type_fail(key, display, node);
    switch (key->type) {
    case OPD__TYPE_BOOL:
        if (!node->plain || (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0))
            return type_fail(key, display, node);
        *(bool *)field = node->text[0] == 't';
        return OPD_OK;
    case OPD__TYPE_INT:
        return store_int(key, display, node, field);
    case OPD__TYPE_FLOAT:
        return store_float(key, display, node, field);
    case OPD__TYPE_ENUM:
        return store_enum(key, display, node, field);
    default:
        return store_text(key, display, node, field);
    }
}

void opd__value_initial(const opd__key *key, void *field) {
    switch (key->type) {
    case OPD__TYPE_BOOL:
        *(bool *)field = strcmp(key->initial, "true") == 0;
        return;
    case OPD__TYPE_INT:
        *(int64_t *)field = strtoll(key->initial, NULL, 10);
        return;
    case OPD__TYPE_FLOAT:
        *(double *)field = strtod(key->initial, NULL);
        return;
    case OPD__TYPE_ENUM:
        for (int i = 0; key->names[i] != NULL; i++)
            if (strcmp(key->names[i], key->initial) == 0) *(int *)field = i;
        return;
    default:
        *(const char **)field = key->initial;
    }
}

/* The shortest text of at least six digits that reads back as the same double: 30, not 3e+01. */
static void float_text(double value, char out[OPD__VALUE_SIZE]) {
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, OPD__VALUE_SIZE, "%.*g", digits, value);
        if (strtod(out, NULL) == value) return;
    }
}

const char *opd__value_text(const opd__key *key, const void *field, char out[OPD__VALUE_SIZE]) {
    switch (key->type) {
    case OPD__TYPE_BOOL:
        return *(const bool *)field ? "true" : "false";
    case OPD__TYPE_INT:
        snprintf(out, OPD__VALUE_SIZE, "%lld", (long long)*(const int64_t *)field);
        return out;
    case OPD__TYPE_FLOAT:
        float_text(*(const double *)field, out);
        return out;
    case OPD__TYPE_ENUM:
        return key->names[*(const int *)field];
    default:
        return *(const char *const *)field;
    }
}

bool opd__value_empty(const opd__key *key, const void *field) {
    if (key->type == OPD__TYPE_INT) return *(const int64_t *)field == 0;
    if (key->type >= OPD__TYPE_STRING) return (*(const char *const *)field)[0] == 0;
    return false;
}
