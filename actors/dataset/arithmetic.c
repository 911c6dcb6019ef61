/* actors/dataset/arithmetic.c - draws, formats and writes problems (arithmetic.h).
 *
 * A problem that was drawn before is known by its pair of numbers, so "different" is exact.
 * Thread: any. The generator owns its table of seen problems.
 */
#include "actors/dataset/arithmetic.h"

#include <stdio.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/map.h"
#include "core/base/rng.h"
#include "core/codec/json.h"

enum { DRAWS_MAX = 10000, ROW_BYTES_MAX = 256 };
#define PROBLEMS_MAX ((size_t)100000000)

struct opd_arithmetic {
    opd_rng rng;
    uint32_t least, count; /* numbers are least .. least + count - 1 */
    opd_map seen;          /* pair of numbers -> the generator (any non-NULL pointer) */
    const opd_alloc *alloc;
};

opd_err opd_arithmetic_create(const opd_alloc *alloc, uint64_t seed, uint32_t digits,
                              opd_arithmetic **out_generator) {
    if (digits < 1 || digits > OPD_PROBLEM_DIGITS_MAX)
        return opd_fail(OPD_ERR_INVALID, "problems of %u digits: 1 to %d can be written", digits,
                        OPD_PROBLEM_DIGITS_MAX);
    opd_arithmetic *g = opd_mem_get(alloc, sizeof *g);
    if (g == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a problem generator");
    g->alloc = alloc;
    g->least = 1;
    for (uint32_t i = 1; i < digits; i++) g->least *= 10;
    g->count = 9 * g->least; /* no leading zero */
    opd_rng_init(&g->rng, seed);
    opd_map_init(&g->seen, alloc, PROBLEMS_MAX);
    *out_generator = g;
    return OPD_OK;
}

void opd_arithmetic_destroy(opd_arithmetic *generator) {
    if (generator == NULL) return;
    opd_map_fini(&generator->seen);
    opd_mem_free(generator->alloc, generator);
}

/* The largest sum of two digits in one column. */
static uint32_t column_sum(const opd_problem *problem) {
    uint32_t largest = 0;
    for (uint32_t a = problem->a, b = problem->b; a > 0 || b > 0; a /= 10, b /= 10)
        if (a % 10 + b % 10 > largest) largest = a % 10 + b % 10;
    return largest;
}

opd_err opd_arithmetic_next(opd_arithmetic *g, uint32_t column_sum_max,
                            opd_problem *out_problem) {
    for (int draw = 0; draw < DRAWS_MAX; draw++) {
        out_problem->a = g->least + (uint32_t)opd_rng_below(&g->rng, g->count);
        out_problem->b = g->least + (uint32_t)opd_rng_below(&g->rng, g->count);
        uint64_t key = (uint64_t)out_problem->a << 32 | out_problem->b;
        if (column_sum(out_problem) > column_sum_max || opd_map_get(&g->seen, key) != NULL)
            continue;
        return opd_map_put(&g->seen, key, g);
    }
    return opd_fail(OPD_ERR_LIMIT, "%zu different problems were drawn and %d draws brought no new "
                    "one; ask for fewer problems or more digits", g->seen.count, DRAWS_MAX);
}

void opd_problem_format(const opd_problem *problem, opd_problem_text *out) {
    (void)snprintf(out->prompt, sizeof out->prompt, "%u+%u=", problem->a, problem->b);
    (void)snprintf(out->label, sizeof out->label, "%u", problem->a + problem->b);
    size_t size = 0;
    uint32_t carry = 0;
    for (uint32_t a = problem->a, b = problem->b; a > 0 || b > 0; a /= 10, b /= 10) {
        uint32_t sum = a % 10 + b % 10 + carry;
        size += (size_t)snprintf(out->response + size, sizeof out->response - size,
                                 "%u+%u+%u=%02u\n", a % 10, b % 10, carry, sum);
        carry = sum / 10;
    }
    size += (size_t)snprintf(out->response + size, sizeof out->response - size, "#### %s",
                             out->label);
    OPD_ASSERT(size < sizeof out->response);
}

static void write_row(opd_str *file, const opd_problem *problem) {
    opd_problem_text text;
    opd_json_writer writer;
    opd_problem_format(problem, &text);
    opd_json_writer_init(&writer, file, 0);
    opd_json_write_object_begin(&writer);
    opd_json_write_key(&writer, "prompt");
    opd_json_write_text(&writer, text.prompt);
    opd_json_write_key(&writer, "response");
    opd_json_write_text(&writer, text.response);
    opd_json_write_key(&writer, "label");
    opd_json_write_text(&writer, text.label);
    opd_json_write_object_end(&writer);
    opd_str_text(file, "\n");
}

static opd_err write_split(const opd_alloc *alloc, opd_arithmetic *generator,
                           const opd_arithmetic_split *split) {
    if (split->count > PROBLEMS_MAX)
        return opd_fail(OPD_ERR_LIMIT, "%s: more than %zu problems", split->path, PROBLEMS_MAX);
    opd_str file;
    opd_str_init(&file, alloc, split->count * ROW_BYTES_MAX + 1);
    opd_err err = OPD_OK;
    for (size_t i = 0; i < split->count && err == OPD_OK; i++) {
        opd_problem problem;
        uint32_t most = i < split->easy_first ? split->easy_column_sum
                                              : OPD_PROBLEM_COLUMN_SUM_MAX;
        err = opd_arithmetic_next(generator, most, &problem);
        if (err == OPD_OK) write_row(&file, &problem);
    }
    if (err == OPD_OK) err = opd_str_status(&file);
    if (err == OPD_OK) err = opd_file_write_atomic(split->path, file.data, file.size);
    opd_str_fini(&file);
    return opd_err_prefix(err, "%s", split->path);
}

opd_err opd_arithmetic_write(const opd_alloc *alloc, uint64_t seed, uint32_t digits,
                             const opd_arithmetic_split *splits, size_t split_count) {
    opd_arithmetic *generator;
    OPD_TRY(opd_arithmetic_create(alloc, seed, digits, &generator));
    opd_err err = OPD_OK;
    for (size_t i = 0; i < split_count && err == OPD_OK; i++)
        err = write_split(alloc, generator, &splits[i]);
    opd_arithmetic_destroy(generator);
    return err;
}
