/* golden.h - the cases of a golden fixture: a JSON object of cases, each a flat object of named arrays of
 * numbers. Thread: the test's. */
#ifndef OPD_TESTS_UNIT_ACTORS_GOLDEN_H
#define OPD_TESTS_UNIT_ACTORS_GOLDEN_H

#include "core/base/file.h"
#include "core/codec/json.h"
#include "tests/support/test.h"

enum { GOLDEN_VALUES_MAX = 512, GOLDEN_NAMES_MAX = 64, GOLDEN_NAME_SIZE = 40 };

typedef struct golden {
    char names[GOLDEN_NAMES_MAX][GOLDEN_NAME_SIZE];
    double values[GOLDEN_NAMES_MAX][GOLDEN_VALUES_MAX];
    size_t counts[GOLDEN_NAMES_MAX], name_count;
} golden;

static inline const double *get(const golden *g, const char *name, size_t *out_count) {
    for (size_t i = 0; i < g->name_count; i++) {
        if (strcmp(g->names[i], name) != 0) continue;
        if (out_count != NULL) *out_count = g->counts[i];
        return g->values[i];
    }
    opd_test_fail(__FILE__, __LINE__, "the fixture has no \"%s\"", name);
}

/* The numbers of an array as floats; returns how many, at most `max`. */
static inline size_t floats(const golden *g, const char *name, float *out, size_t max) {
    size_t count;
    const double *values = get(g, name, &count);
    CHECK(count <= max);
    for (size_t i = 0; i < count; i++) out[i] = (float)values[i];
    return count;
}

static inline double number(const golden *g, const char *name) { return get(g, name, NULL)[0]; }

static inline void golden_read(opd_json *json, golden *g) {
    opd_json_text key;
    g->name_count = 0;
    CHECK(opd_json_object_begin(json));
    while (opd_json_object_next(json, &key)) {
        size_t at = g->name_count++, count = 0;
        CHECK(at < GOLDEN_NAMES_MAX && key.size_bytes < GOLDEN_NAME_SIZE);
        memcpy(g->names[at], key.data, key.size_bytes);
        g->names[at][key.size_bytes] = '\0';
        CHECK(opd_json_array_begin(json));
        while (opd_json_array_next(json)) {
            CHECK(count < GOLDEN_VALUES_MAX);
            CHECK(opd_json_read_double(json, &g->values[at][count++]));
        }
        g->counts[at] = count;
    }
}

/* Runs `check` on every case and prints its name first, so that a failure names its case; returns how
 * many there were. file: below the source's root. */
static inline size_t golden_each(const char *file, void (*check)(const golden *g)) {
    char *data, path[512];
    size_t size, cases = 0;
    opd_json json;
    opd_json_text name;
    (void)snprintf(path, sizeof path, "%s/%s", OPD_SOURCE_DIR, file);
    CHECK_OK(opd_file_read(NULL, path, 1 << 20, &data, &size));
    golden *g = calloc(1, sizeof *g);
    opd_json_init(&json, data, size);
    CHECK(opd_json_object_begin(&json));
    while (opd_json_object_next(&json, &name)) {
        golden_read(&json, g);
        (void)fprintf(stderr, "case %.*s\n", (int)name.size_bytes, name.data);
        check(g);
        cases++;
    }
    CHECK_OK(opd_json_finish(&json));
    free(g);
    opd_mem_free(NULL, data);
    return cases;
}

#endif
