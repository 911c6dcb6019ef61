/* actors/dataset/arithmetic.c - see arithmetic.h. A problem that was drawn before is known by
 * the 64-bit hash of its prompt; a new problem that happens to share a hash is passed over,
 * so "different" is exact whatever the hash does. */
#include "actors/dataset/arithmetic.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/map.h"
#include "core/base/rng.h"
#include "core/codec/json.h"

#define DIGITS_MAX 6
#define DRAWS_MAX 1000
#define PROBLEMS_MAX ((size_t)100000000)
#define ROW_SIZE_MAX 512 /* one JSON line */

struct opd_arithmetic {
    opd_arithmetic_config config;
    opd_rng rng;
    opd_map seen; /* hash of the prompt -> the generator (any non-NULL pointer) */
    const opd_alloc *alloc;
};

opd_err opd_arithmetic_create(const opd_alloc *alloc, const opd_arithmetic_config *config,
                              opd_arithmetic **out_generator) {
    if (config->terms_min < 2 || config->terms_min > config->terms_max ||
        config->terms_max > OPD_PROBLEM_TERMS_MAX)
        return opd_fail(OPD_ERR_INVALID, "terms %u..%u: a problem has 2 to %d terms",
                        config->terms_min, config->terms_max, OPD_PROBLEM_TERMS_MAX);
    if (config->digits_min < 1 || config->digits_min > config->digits_max ||
        config->digits_max > DIGITS_MAX)
        return opd_fail(OPD_ERR_INVALID, "digits %u..%u: a term has 1 to %d digits",
                        config->digits_min, config->digits_max, DIGITS_MAX);
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

/* A number without leading zero; one digit may be 0. */
static uint32_t draw_term(opd_arithmetic *generator) {
    uint32_t digits = draw_between(&generator->rng, generator->config.digits_min,
                                   generator->config.digits_max);
    uint32_t most = 9;
    for (uint32_t i = 1; i < digits; i++) most = most * 10 + 9;
    return draw_between(&generator->rng, digits == 1 ? 0 : (most + 1) / 10, most);
}

static void draw_problem(opd_arithmetic *generator, opd_problem *out_problem) {
    memset(out_problem, 0, sizeof *out_problem);
    out_problem->term_count = draw_between(&generator->rng, generator->config.terms_min,
                                           generator->config.terms_max);
    uint32_t value = 0;
    for (uint32_t i = 0; i < out_problem->term_count; i++) {
        uint32_t term = draw_term(generator);
        bool minus = opd_rng_below(&generator->rng, 2) == 1 && i > 0 && term <= value;
        value = minus ? value - term : value + term;
        out_problem->terms[i] = term;
        out_problem->signs[i] = minus ? '-' : '+';
    }
}

static uint64_t hash_problem(const opd_problem *problem) {
    uint64_t hash = problem->term_count;
    for (uint32_t i = 0; i < problem->term_count; i++)
        hash = opd_rng_at(hash, problem->terms[i], (uint8_t)problem->signs[i], i);
    return hash;
}

opd_err opd_arithmetic_next(opd_arithmetic *generator, opd_problem *out_problem) {
    for (int draw = 0; draw < DRAWS_MAX; draw++) {
        draw_problem(generator, out_problem);
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

static void line_number(text_line *line, const char *before, uint32_t number) {
    int size = snprintf(line->data + line->size, line->size_max - line->size, "%s%u", before,
                        number);
    OPD_ASSERT(size > 0 && (size_t)size < line->size_max - line->size);
    line->size += (size_t)size;
}

void opd_problem_format(const opd_problem *problem, opd_problem_text *out_text) {
    text_line prompt = {out_text->prompt, sizeof out_text->prompt - 1, 0}; /* room for '=' */
    text_line response = {out_text->response, sizeof out_text->response, 0};
    uint32_t value = problem->terms[0];
    line_number(&prompt, "", value);
    for (uint32_t i = 1; i < problem->term_count; i++) {
        char sign[2] = {problem->signs[i], '\0'};
        uint32_t term = problem->terms[i];
        line_number(&prompt, sign, term);
        line_number(&response, i > 1 ? ";" : "", value);
        line_number(&response, sign, term);
        value = sign[0] == '-' ? value - term : value + term;
        line_number(&response, "=", value);
    }
    line_number(&response, "\n#### ", value);
    prompt.data[prompt.size] = '=';
    prompt.data[prompt.size + 1] = '\0';
    text_line label = {out_text->label, sizeof out_text->label, 0};
    line_number(&label, "", value);
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
    opd_str_init(&file, alloc, split->count * ROW_SIZE_MAX + 1);
    opd_err err = OPD_OK;
    for (size_t i = 0; i < split->count && err == OPD_OK; i++) {
        opd_problem problem;
        err = opd_err_prefix(opd_arithmetic_next(generator, &problem), "%s", split->path);
        if (err == OPD_OK) write_row(&file, &problem);
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
