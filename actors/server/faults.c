/* faults.c - scripts of misbehaviour: reading them, and choosing the rule of a request
 * (faults.h). Thread: one at a time. */
#include "actors/server/faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/codec/json.h"

enum { PATH_SIZE = 64, WORD_SIZE = 64, MS_MAX = 86400000, BYTES_MAX = 1 << 30 };
static const double s_max = 1e9;

typedef struct rule {
    opd_server_fault fault;
    char path[PATH_SIZE]; /* "*": any */
    int64_t from, every, count; /* the from-th, and every every-th after it, `count` times */
    double probability, after_s, until_s;
    int64_t seed;
    uint64_t seen, fired;
} rule;

struct opd_server_faults {
    const opd_alloc *alloc;
    rule *rules; /* [rule_count] */
    size_t rule_count;
};

/* ---- words ---- */

typedef struct word {
    const char *name;
    uint32_t value;
} word;

static const word ACTIONS[] = {
    {"delay", OPD_SERVER_FAULT_DELAY},         {"hang", OPD_SERVER_FAULT_HANG},
    {"stall", OPD_SERVER_FAULT_STALL},         {"truncate", OPD_SERVER_FAULT_TRUNCATE},
    {"reset", OPD_SERVER_FAULT_RESET},         {"goaway", OPD_SERVER_FAULT_GOAWAY},
    {"settings", OPD_SERVER_FAULT_SETTINGS},   {"close", OPD_SERVER_FAULT_CLOSE},
    {"status", OPD_SERVER_FAULT_STATUS},       {"early", OPD_SERVER_FAULT_EARLY},
    {"abort", OPD_SERVER_FAULT_ABORT},         {"nan_happened", OPD_SERVER_FAULT_NAN_HAPPENED},
    {"value", OPD_SERVER_FAULT_VALUE},         {"short", OPD_SERVER_FAULT_SHORT},
    {"long", OPD_SERVER_FAULT_LONG},           {"ids", OPD_SERVER_FAULT_IDS},
    {"ragged", OPD_SERVER_FAULT_RAGGED},       {"prompt_tokens", OPD_SERVER_FAULT_PROMPT_TOKENS},
    {"uniform", OPD_SERVER_FAULT_UNIFORM},     {"weight_version", OPD_SERVER_FAULT_WEIGHT_VERSION},
    {"pad", OPD_SERVER_FAULT_PAD},             {"idle_close", OPD_SERVER_FAULT_IDLE_CLOSE},
    {"http1_only", OPD_SERVER_FAULT_HTTP1_ONLY},
};

static const word CODES[] = { /* RFC 9113 section 7 */
    {"NO_ERROR", 0},       {"PROTOCOL_ERROR", 1},     {"INTERNAL_ERROR", 2},
    {"FLOW_CONTROL_ERROR", 3}, {"STREAM_CLOSED", 5},  {"REFUSED_STREAM", 7},
    {"CANCEL", 8},         {"ENHANCE_YOUR_CALM", 11}, {"HTTP_1_1_REQUIRED", 13},
};

static const word GOAWAYS[] = {
    {"graceful", OPD_SERVER_FAULT_GOAWAY_GRACEFUL}, {"drop", OPD_SERVER_FAULT_GOAWAY_DROP},
    {"two_step", OPD_SERVER_FAULT_GOAWAY_TWO_STEP}, {"calm", OPD_SERVER_FAULT_GOAWAY_CALM},
};

static const word FORMS[] = {{"error", false}, {"object", true}};

static opd_err word_find(const word *words, size_t count, const char *key, const char *text,
                         uint32_t *out_value) {
    char names[512] = "";
    for (size_t i = 0, used = 0; i < count; i++) {
        if (strcmp(words[i].name, text) == 0) {
            *out_value = words[i].value;
            return OPD_OK;
        }
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                                 words[i].name);
    }
    return opd_fail(OPD_ERR_CONFIG, "%s: there is no \"%s\"; one of %s", key, text, names);
}

/* ---- the keys of a rule ---- */

/* Sets of kinds. */
#define OF(kind) (1u << OPD_SERVER_FAULT_##kind)
#define ANSWERS                                                                               \
    (OF(DELAY) | OF(HANG) | OF(STALL) | OF(TRUNCATE) | OF(RESET) | OF(GOAWAY) | OF(SETTINGS) | \
     OF(CLOSE) | OF(STATUS) | OF(ABORT) | OF(NAN_HAPPENED) | OF(VALUE) | OF(SHORT) |           \
     OF(LONG) | OF(IDS) | OF(RAGGED) | OF(PROMPT_TOKENS) | OF(WEIGHT_VERSION) | OF(UNIFORM) |  \
     OF(PAD))
#define MATCHED (ANSWERS | OF(EARLY))
#define ALWAYS (OF(IDLE_CLOSE) | OF(HTTP1_ONLY)) /* of the server */

/* A line being read. */
typedef struct reading {
    opd_json json;
    rule *rule;
    uint32_t given; /* bit i: KEYS[i] */
    char action[WORD_SIZE];
} reading;

typedef struct key {
    const char *name;
    uint32_t kinds;  /* that take it  */
    uint32_t needed; /* that need it  */
    opd_err (*read)(reading *r, const char *name);
} key;

static opd_err read_whole(reading *r, const char *name, int64_t min, int64_t max, int64_t *out) {
    if (!opd_json_read_int64(&r->json, out)) return opd_json_status(&r->json);
    if (*out < min || *out > max)
        return opd_fail(OPD_ERR_CONFIG, "%s must be from %" PRId64 " to %" PRId64 ", not %" PRId64,
                        name, min, max, *out);
    return OPD_OK;
}

static opd_err read_real(reading *r, const char *name, double max, double *out) {
    if (!opd_json_read_double(&r->json, out)) return opd_json_status(&r->json);
    if (*out < 0 || *out > max)
        return opd_fail(OPD_ERR_CONFIG, "%s must be from 0 to %g, not %g", name, max, *out);
    return OPD_OK;
}

static opd_err read_text(reading *r, char *out, size_t out_size) {
    return opd_json_read_string(&r->json, out, out_size) ? OPD_OK : opd_json_status(&r->json);
}

static opd_err read_word(reading *r, const char *name, const word *words, size_t count,
                         uint32_t *out) {
    char text[WORD_SIZE];
    OPD_TRY(read_text(r, text, sizeof text));
    return word_find(words, count, name, text, out);
}

static opd_err read_uint32(reading *r, const char *name, int64_t min, int64_t max, uint32_t *out) {
    int64_t value = 0;
    OPD_TRY(read_whole(r, name, min, max, &value));
    *out = (uint32_t)value;
    return OPD_OK;
}

static opd_err read_path(reading *r, const char *name) {
    (void)name;
    OPD_TRY(read_text(r, r->rule->path, sizeof r->rule->path));
    if (r->rule->path[0] == '/' || strcmp(r->rule->path, "*") == 0) return OPD_OK;
    return opd_fail(OPD_ERR_CONFIG, "path must begin with / or be *, not \"%s\"", r->rule->path);
}

static opd_err read_nth(reading *r, const char *name) {
    r->rule->count = 1;
    return read_whole(r, name, 1, INT64_MAX, &r->rule->from);
}

static opd_err read_from(reading *r, const char *name) {
    return read_whole(r, name, 1, INT64_MAX, &r->rule->from);
}

static opd_err read_every(reading *r, const char *name) {
    return read_whole(r, name, 1, INT64_MAX, &r->rule->every);
}

static opd_err read_count(reading *r, const char *name) {
    return read_whole(r, name, 1, INT64_MAX, &r->rule->count);
}

static opd_err read_probability(reading *r, const char *name) {
    return read_real(r, name, 1, &r->rule->probability);
}

static opd_err read_seed(reading *r, const char *name) {
    return read_whole(r, name, 0, INT64_MAX, &r->rule->seed);
}

static opd_err read_after(reading *r, const char *name) {
    return read_real(r, name, s_max, &r->rule->after_s);
}

static opd_err read_until(reading *r, const char *name) {
    return read_real(r, name, s_max, &r->rule->until_s);
}

static opd_err read_delay(reading *r, const char *name) {
    return read_uint32(r, name, 1, MS_MAX, &r->rule->fault.delay_ms);
}

static opd_err read_bytes(reading *r, const char *name) {
    return read_uint32(r, name, 1, BYTES_MAX, &r->rule->fault.bytes);
}

static opd_err read_row(reading *r, const char *name) {
    return read_uint32(r, name, 1, INT32_MAX, &r->rule->fault.row);
}

static opd_err read_streams(reading *r, const char *name) {
    return read_uint32(r, name, 1, INT32_MAX, &r->rule->fault.streams);
}

static opd_err read_code(reading *r, const char *name) {
    return read_word(r, name, CODES, OPD_COUNTOF(CODES), &r->rule->fault.code);
}

static opd_err read_goaway(reading *r, const char *name) {
    uint32_t value = 0;
    OPD_TRY(read_word(r, name, GOAWAYS, OPD_COUNTOF(GOAWAYS), &value));
    r->rule->fault.goaway = (opd_server_fault_goaway)value;
    return OPD_OK;
}

static opd_err read_form(reading *r, const char *name) {
    uint32_t value = 0;
    OPD_TRY(read_word(r, name, FORMS, OPD_COUNTOF(FORMS), &value));
    r->rule->fault.object_form = value != 0;
    return OPD_OK;
}

static opd_err read_chunked(reading *r, const char *name) {
    (void)name;
    return opd_json_read_bool(&r->json, &r->rule->fault.chunked) ? OPD_OK : opd_json_status(&r->json);
}

static opd_err read_status(reading *r, const char *name) {
    int64_t value = 0;
    OPD_TRY(read_whole(r, name, 200, 599, &value));
    r->rule->fault.status = (int)value;
    return OPD_OK;
}

static opd_err read_retry_after(reading *r, const char *name) {
    int64_t value = 0;
    OPD_TRY(read_whole(r, name, 1, 3600, &value));
    r->rule->fault.retry_after_s = (int)value;
    return OPD_OK;
}

static opd_err read_fault_text(reading *r, const char *name) {
    (void)name;
    return read_text(r, r->rule->fault.text, sizeof r->rule->fault.text);
}

static opd_err read_action(reading *r, const char *name) {
    uint32_t value = 0;
    OPD_TRY(read_text(r, r->action, sizeof r->action));
    OPD_TRY(word_find(ACTIONS, OPD_COUNTOF(ACTIONS), name, r->action, &value));
    r->rule->fault.kind = (opd_server_fault_kind)value;
    return OPD_OK;
}

static const key KEYS[] = {
    {"do", MATCHED | ALWAYS, MATCHED | ALWAYS, read_action},
    {"path", MATCHED, 0, read_path},
    {"nth", MATCHED, 0, read_nth},
    {"from", MATCHED, 0, read_from},
    {"every", MATCHED, 0, read_every},
    {"count", MATCHED, 0, read_count},
    {"probability", MATCHED, 0, read_probability},
    {"seed", MATCHED, 0, read_seed},
    {"after_s", MATCHED, 0, read_after},
    {"until_s", MATCHED, 0, read_until},
    {"delay_ms", ANSWERS | OF(IDLE_CLOSE), OF(DELAY) | OF(IDLE_CLOSE), read_delay},
    {"bytes", OF(STALL) | OF(TRUNCATE) | OF(PAD), OF(PAD), read_bytes},
    {"chunked", OF(STALL) | OF(TRUNCATE), 0, read_chunked},
    {"code", OF(RESET), OF(RESET), read_code},
    {"kind", OF(GOAWAY), OF(GOAWAY), read_goaway},
    {"streams", OF(SETTINGS), OF(SETTINGS), read_streams},
    {"status", OF(STATUS) | OF(EARLY), OF(STATUS), read_status},
    {"retry_after_s", OF(STATUS) | OF(EARLY), 0, read_retry_after},
    {"form", OF(STATUS) | OF(EARLY), 0, read_form},
    {"row", OF(VALUE) | OF(IDS) | OF(RAGGED), 0, read_row},
    {"text", OF(STATUS) | OF(EARLY) | OF(ABORT) | OF(VALUE) | OF(WEIGHT_VERSION),
     OF(VALUE) | OF(WEIGHT_VERSION), read_fault_text},
};

/* ---- reading ---- */

static size_t key_find(opd_json_text text) {
    size_t i = 0;
    while (i < OPD_COUNTOF(KEYS) && !opd_json_text_is(text, KEYS[i].name)) i++;
    return i;
}

static bool has(const reading *r, const char *name) {
    for (size_t i = 0; i < OPD_COUNTOF(KEYS); i++)
        if (strcmp(KEYS[i].name, name) == 0) return (r->given & (1u << i)) != 0;
    return false;
}

/* What was given must fit the action, and what it needs must be there. */
static opd_err check_keys(const reading *r) {
    uint32_t kind = 1u << r->rule->fault.kind;
    if (r->rule->fault.kind == OPD_SERVER_FAULT_NONE)
        return opd_fail(OPD_ERR_CONFIG, "the key \"do\" is missing");
    for (size_t i = 0; i < OPD_COUNTOF(KEYS); i++) {
        bool given = (r->given & (1u << i)) != 0;
        if (given && (KEYS[i].kinds & kind) == 0)
            return opd_fail(OPD_ERR_CONFIG, "\"%s\" is no key of the action %s", KEYS[i].name,
                            r->action);
        if (!given && (KEYS[i].needed & kind) != 0)
            return opd_fail(OPD_ERR_CONFIG, "the action %s needs the key \"%s\"", r->action,
                            KEYS[i].name);
    }
    if (has(r, "nth") && (has(r, "from") || has(r, "every") || has(r, "count")))
        return opd_fail(OPD_ERR_CONFIG, "\"nth\" is one request: it goes with neither \"from\", "
                                        "\"every\" nor \"count\"");
    if (r->rule->until_s <= r->rule->after_s)
        return opd_fail(OPD_ERR_CONFIG, "until_s must be later than after_s");
    return OPD_OK;
}

static opd_err read_members(reading *r) {
    opd_json_text text;
    opd_json_object_begin(&r->json);
    while (opd_json_object_next(&r->json, &text)) {
        size_t i = key_find(text);
        if (i == OPD_COUNTOF(KEYS))
            return opd_fail(OPD_ERR_CONFIG, "there is no key \"%.*s\"", (int)text.size_bytes,
                            text.data);
        if ((r->given & (1u << i)) != 0)
            return opd_fail(OPD_ERR_CONFIG, "the key \"%s\" is there twice", KEYS[i].name);
        r->given |= 1u << i;
        OPD_TRY(KEYS[i].read(r, KEYS[i].name));
    }
    OPD_TRY(opd_json_finish(&r->json));
    return check_keys(r);
}

static opd_err read_rule(const char *line, size_t size_bytes, rule *out) {
    reading r = {.rule = out};
    *out = (rule){.path = "/generate", .from = 1, .every = 1, .count = INT64_MAX,
                  .probability = 1, .until_s = s_max,
                  .fault = {.row = 1, .bytes = 1, .status = 413}};
    opd_json_init(&r.json, line, size_bytes);
    opd_err err = read_members(&r);
    return err == OPD_ERR_PARSE ? OPD_ERR_CONFIG : err;
}

/* The line from *at on without white space around it; *at goes behind it. */
static const char *next_line(const char *data, size_t size_bytes, size_t *at, size_t *out_size) {
    const char *line = data + *at;
    const char *end = memchr(line, '\n', size_bytes - *at);
    size_t size = end != NULL ? (size_t)(end - line) : size_bytes - *at;
    *at += size + 1;
    while (size > 0 && strchr(" \t\r", *line) != NULL) line++, size--;
    while (size > 0 && strchr(" \t\r", line[size - 1]) != NULL) size--;
    *out_size = size;
    return line;
}

static opd_err read_lines(opd_server_faults *faults, const char *name, const char *data,
                          size_t size_bytes) {
    size_t number = 0, size;
    for (size_t at = 0; at < size_bytes;) {
        const char *line = next_line(data, size_bytes, &at, &size);
        number++;
        if (size == 0 || line[0] == '#') continue;
        if (faults->rule_count == OPD_SERVER_FAULTS_RULES_MAX)
            return opd_fail(OPD_ERR_CONFIG, "%s:%zu: more than %d rules", name, number,
                            OPD_SERVER_FAULTS_RULES_MAX);
        OPD_TRY(opd_err_prefix(read_rule(line, size, &faults->rules[faults->rule_count]), "%s:%zu",
                               name, number));
        faults->rule_count++;
    }
    return OPD_OK;
}

opd_err opd_server_faults_read(const opd_alloc *alloc, const char *name, const char *data,
                        size_t size_bytes, opd_server_faults **out_faults) {
    opd_server_faults *faults = opd_mem_get(alloc, sizeof *faults);
    if (faults == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for faults");
    faults->alloc = alloc;
    faults->rules = opd_mem_get(alloc, OPD_SERVER_FAULTS_RULES_MAX * sizeof *faults->rules);
    opd_err err = faults->rules != NULL ? read_lines(faults, name, data, size_bytes)
                                        : opd_fail(OPD_ERR_NOMEM, "no memory for faults");
    if (err != OPD_OK) {
        opd_server_faults_destroy(faults);
        return err;
    }
    *out_faults = faults;
    return OPD_OK;
}

opd_err opd_server_faults_open(const opd_alloc *alloc, const char *path, opd_server_faults **out_faults) {
    char *data;
    size_t size;
    OPD_TRY(opd_file_read(alloc, path, OPD_SERVER_FAULTS_BYTES_MAX, &data, &size));
    opd_err err = opd_server_faults_read(alloc, path, data, size, out_faults);
    opd_mem_free(alloc, data);
    return err;
}

void opd_server_faults_destroy(opd_server_faults *faults) {
    if (faults == NULL) return;
    opd_mem_free(faults->alloc, faults->rules);
    opd_mem_free(faults->alloc, faults);
}

/* ---- choosing ---- */

static bool path_fits(const rule *r, const char *path) {
    size_t size = strcspn(path, "?");
    if (strcmp(r->path, "*") == 0) return true;
    return strlen(r->path) == size && memcmp(r->path, path, size) == 0;
}

/* Counts a request of the rule's path; whether it is one that the rule is about. */
static bool rule_fires(rule *r, size_t index, uint64_t elapsed_ns) {
    double elapsed_s = (double)elapsed_ns / 1e9;
    uint64_t turn = ++r->seen, from = (uint64_t)r->from, every = (uint64_t)r->every;
    if (r->fired >= (uint64_t)r->count || turn < from || (turn - from) % every != 0) return false;
    if (elapsed_s < r->after_s || elapsed_s >= r->until_s) return false;
    if (r->probability < 1 &&
        opd_rng_uniform(opd_rng_at((uint64_t)r->seed, index, turn, 0)) >= r->probability)
        return false;
    return true;
}

bool opd_server_faults_next(opd_server_faults *faults, const char *path, bool early, uint64_t elapsed_ns,
                     opd_server_fault *out_fault) {
    *out_fault = (opd_server_fault){.kind = OPD_SERVER_FAULT_NONE};
    for (size_t i = 0; faults != NULL && i < faults->rule_count; i++) {
        rule *r = &faults->rules[i];
        bool always = (ALWAYS & (1u << r->fault.kind)) != 0;
        if (always || (r->fault.kind == OPD_SERVER_FAULT_EARLY) != early) continue;
        /* every rule counts every request of its path, also one that another rule takes */
        if (!path_fits(r, path) || !rule_fires(r, i, elapsed_ns)) continue;
        if (out_fault->kind != OPD_SERVER_FAULT_NONE) continue;
        *out_fault = r->fault;
        r->fired++;
    }
    return out_fault->kind != OPD_SERVER_FAULT_NONE;
}

/* The first rule of a kind that is always on; NULL: none. */
static const rule *find(const opd_server_faults *faults, opd_server_fault_kind kind) {
    for (size_t i = 0; faults != NULL && i < faults->rule_count; i++)
        if (faults->rules[i].fault.kind == kind) return &faults->rules[i];
    return NULL;
}

uint32_t opd_server_faults_idle_close_ms(const opd_server_faults *faults) {
    const rule *r = find(faults, OPD_SERVER_FAULT_IDLE_CLOSE);
    return r != NULL ? r->fault.delay_ms : 0;
}

bool opd_server_faults_http1_only(const opd_server_faults *faults) {
    return find(faults, OPD_SERVER_FAULT_HTTP1_ONLY) != NULL;
}

uint64_t opd_server_faults_fired(const opd_server_faults *faults) {
    uint64_t fired = 0;
    for (size_t i = 0; faults != NULL && i < faults->rule_count; i++)
        fired += faults->rules[i].fired;
    return fired;
}
