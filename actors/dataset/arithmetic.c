/* actors/dataset/arithmetic.c - see arithmetic.h. A problem that was drawn before is known by
 * the 64-bit hash of its prompt; a new problem that happens to share a hash is passed over,
 * so "different" is exact whatever the hash does. */
#include "actors/dataset/arithmetic.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/map.h"
#include "core/base/rng.h"
#include "core/codec/json.h"

#define DRAWS_MAX 1000
#define PROBLEMS_MAX ((size_t)100000000)
#define ROW_SIZE_MAX 640 /* one JSON line */

struct opd_arithmetic {
    opd_arithmetic_config config;
    opd_rng rng;
    opd_map seen; /* hash of the prompt -> the generator (any non-NULL pointer) */
    const opd_alloc *alloc;
};

opd_arithmetic_config opd_arithmetic_quickstart(uint64_t seed) {
    return (opd_arithmetic_config){.seed = seed,
                                   .style = OPD_PROBLEM_CHAIN,
                                   .terms_min = 3,
                                   .terms_max = 5,
                                   .first_min = 1,
                                   .first_max = 99,
                                   .other_min = 1,
                                   .other_max = 9,
                                   .minus = true};
}

static opd_err check_config(const opd_arithmetic_config *config) {
    if (config->terms_min < 2 || config->terms_min > config->terms_max ||
        config->terms_max > OPD_PROBLEM_TERMS_MAX)
        return opd_fail(OPD_ERR_INVALID, "terms %u..%u: a problem has 2 to %d terms",
                        config->terms_min, config->terms_max, OPD_PROBLEM_TERMS_MAX);
    if (config->first_min > config->first_max || config->first_max > OPD_PROBLEM_TERM_MAX ||
        config->other_min > config->other_max || config->other_max > OPD_PROBLEM_TERM_MAX)
        return opd_fail(OPD_ERR_INVALID, "terms of %u..%u and %u..%u: a term is 0 to %u",
                        config->first_min, config->first_max, config->other_min,
                        config->other_max, OPD_PROBLEM_TERM_MAX);
    if (config->style == OPD_PROBLEM_COLUMNS && (config->terms_max > 2 || config->minus))
        return opd_fail(OPD_ERR_INVALID, "columns are written for sums of two terms only");
    return OPD_OK;
}

opd_err opd_arithmetic_create(const opd_alloc *alloc, const opd_arithmetic_config *config,
                              opd_arithmetic **out_generator) {
    OPD_TRY(check_config(config));
    opd_arithmetic *generator = opd_mem_get(alloc, sizeof *generator);
    if (generator == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a problem generator");
    generator->config = *config;
    generator->alloc = alloc;
    opd_rng_init(&generator->rng, config->seed);
    opd_map_init(&generator->seen, alloc, PROBLEMS_MAX);
    *out_generator = generator;
    return OPD_OK;
}

void opd_arithmetic_destroy(opd_arithmetic *generator) {
    if (generator == NULL) return;
    opd_map_fini(&generator->seen);
    opd_mem_free(generator->alloc, generator);
}

static uint32_t draw_between(opd_rng *rng, uint32_t least, uint32_t most) {
    return least + (uint32_t)opd_rng_below(rng, most - least + 1);
}

/* Draws terms and signs. False when an intermediate result would be negative: the whole
 * problem is then drawn anew, so that no term depends on the sign before it. */
static bool draw_problem(opd_arithmetic *generator, opd_problem *out_problem) {
    const opd_arithmetic_config *config = &generator->config;
    opd_rng *rng = &generator->rng;
    memset(out_problem, 0, sizeof *out_problem);
    out_problem->term_count = draw_between(rng, config->terms_min, config->terms_max);
    uint32_t value = draw_between(rng, config->first_min, config->first_max);
    out_problem->terms[0] = value;
    out_problem->signs[0] = '+';
    for (uint32_t i = 1; i < out_problem->term_count; i++) {
        uint32_t term = draw_between(rng, config->other_min, config->other_max);
        bool minus = config->minus && opd_rng_below(rng, 2) == 1;
        if (minus && term > value) return false;
        value = minus ? value - term : value + term;
        out_problem->terms[i] = term;
        out_problem->signs[i] = minus ? '-' : '+';
    }
    return true;
}

static uint64_t hash_problem(const opd_problem *problem) {
    uint64_t hash = problem->term_count;
    for (uint32_t i = 0; i < problem->term_count; i++)
        hash = opd_rng_at(hash, problem->terms[i], (uint8_t)problem->signs[i], i);
    return hash;
}

opd_err opd_arithmetic_next(opd_arithmetic *generator, opd_problem *out_problem) {
    for (int draw = 0; draw < DRAWS_MAX; draw++) {
        if (!draw_problem(generator, out_problem)) continue;
        uint64_t hash = hash_problem(out_problem);
        if (opd_map_get(&generator->seen, hash) == NULL)
            return opd_map_put(&generator->seen, hash, generator);
    }
    return opd_fail(OPD_ERR_LIMIT,
                    "%zu different problems were drawn and %d draws brought no new one; allow more "
                    "terms or digits, or ask for fewer problems",
                    generator->seen.count, DRAWS_MAX);
}

/* A line of text in a fixed array. */
typedef struct text_line {
    char *data;
    size_t size_max, size;
} text_line;

OPD_PRINTF(2, 3) static void line_add(text_line *line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int size = vsnprintf(line->data + line->size, line->size_max - line->size, fmt, args);
    va_end(args);
    OPD_ASSERT(size >= 0 && (size_t)size < line->size_max - line->size);
    line->size += (size_t)size;
}

/* "+23-4": the terms from `first` on. */
static void add_terms(text_line *line, const opd_problem *problem, uint32_t first) {
    for (uint32_t i = first; i < problem->term_count; i++)
        line_add(line, "%c%u", problem->signs[i], problem->terms[i]);
}

static uint32_t apply(const opd_problem *problem, uint32_t i, uint32_t value) {
    return problem->signs[i] == '-' ? value - problem->terms[i] : value + problem->terms[i];
}

static void add_chain(text_line *line, const opd_problem *problem) {
    uint32_t value = problem->terms[0];
    for (uint32_t i = 1; i < problem->term_count; i++) {
        uint32_t next = apply(problem, i, value);
        line_add(line, "%u%c%u=%u\n", value, problem->signs[i], problem->terms[i], next);
        value = next;
    }
}

static void add_rewrite(text_line *line, const opd_problem *problem) {
    uint32_t value = problem->terms[0];
    for (uint32_t i = 1; i < problem->term_count; i++) {
        value = apply(problem, i, value);
        line_add(line, i > 1 ? "=%u" : "%u", value);
        add_terms(line, problem, i + 1);
        line_add(line, "\n");
    }
}

static void add_columns(text_line *line, const opd_problem *problem) {
    uint32_t a = problem->terms[0], b = problem->terms[1], carry = 0;
    do {
        uint32_t sum = a % 10 + b % 10 + carry;
        line_add(line, "%u+%u+%u=%02u\n", a % 10, b % 10, carry, sum);
        carry = sum / 10;
        a /= 10;
        b /= 10;
    } while (a > 0 || b > 0);
}

void opd_problem_format(const opd_problem *problem, opd_problem_style style,
                        opd_problem_text *out_text) {
    text_line prompt = {out_text->prompt, sizeof out_text->prompt, 0};
    text_line response = {out_text->response, sizeof out_text->response, 0};
    text_line label = {out_text->label, sizeof out_text->label, 0};
    uint32_t value = problem->terms[0];
    for (uint32_t i = 1; i < problem->term_count; i++) value = apply(problem, i, value);
    line_add(&prompt, "%u", problem->terms[0]);
    add_terms(&prompt, problem, 1);
    line_add(&prompt, "=");
    switch (style) {
    case OPD_PROBLEM_CHAIN: add_chain(&response, problem); break;
    case OPD_PROBLEM_REWRITE: add_rewrite(&response, problem); break;
    case OPD_PROBLEM_COLUMNS: add_columns(&response, problem); break;
    }
    line_add(&response, "#### %u", value);
    line_add(&label, "%u", value);
}

static void write_row(opd_str *file, const opd_problem *problem, opd_problem_style style) {
    opd_problem_text text;
    opd_json_writer writer;
    opd_problem_format(problem, style, &text);
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
    opd_str_init(&file, alloc, split->count * ROW_SIZE_MAX + 1);
    opd_err err = OPD_OK;
    for (size_t i = 0; i < split->count && err == OPD_OK; i++) {
        opd_problem problem;
        err = opd_err_prefix(opd_arithmetic_next(generator, &problem), "%s", split->path);
        if (err == OPD_OK) write_row(&file, &problem, generator->config.style);
    }
    if (err == OPD_OK) err = opd_str_status(&file);
    if (err == OPD_OK) err = opd_file_write_atomic(split->path, file.data, file.size);
    opd_str_fini(&file);
    return err;
}

opd_err opd_arithmetic_write(const opd_alloc *alloc, const opd_arithmetic_config *config,
                             const opd_arithmetic_split *splits, size_t split_count) {
    opd_arithmetic *generator;
    OPD_TRY(opd_arithmetic_create(alloc, config, &generator));
    opd_err err = OPD_OK;
    for (size_t i = 0; i < split_count && err == OPD_OK; i++)
        err = write_split(alloc, generator, &splits[i]);
    opd_arithmetic_destroy(generator);
    return err;
}
