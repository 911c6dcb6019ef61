/* test_config_emit.c - the texts made from the table of keys: the effective YAML loads back to
 * the same structs, and the committed schema and reference page are current. */
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/codec/json.h"
#include "core/config/schema.h"
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

static void stages_equal(const opd_config_stage *one, const opd_config_stage *other) {
    opd_config_stage a = *one, b = *other;
    char a_text[OPD__VALUE_SIZE], b_text[OPD__VALUE_SIZE];
    CHECK_STR(a.name, b.name);
    CHECK_INT(a.kind, b.kind);
    for (size_t i = 0; i < opd__map_count; i++) {
        const opd__map *map = &opd__maps[i];
        CHECK_INT(*opd__map_size(map, &a), *opd__map_size(map, &b));
        for (size_t item = 0; item < *opd__map_size(map, &a); item++)
            CHECK_STR(*(const char **)opd__map_item(map, &a, item),
                      *(const char **)opd__map_item(map, &b, item));
    }
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        const opd__map *map = opd__key_map(key);
        size_t items = map != NULL ? *opd__map_size(map, &a) : 1;
        for (size_t item = 0; item < items; item++)
            CHECK_STR(opd__value_text(key, opd__key_field(key, &a, item), a_text),
                      opd__value_text(key, opd__key_field(key, &b, item), b_text));
    }
}

/* Loads, prints, loads again, compares, prints again, compares the texts. */
static void round_trip(const char *text, const char *const *args, bool comments) {
    opd_config *config = config_get(text, args), *again;
    char *yaml = NULL, *yaml_again = NULL;
    CHECK_OK(opd_config_yaml(NULL, config, comments, &yaml));
    again = config_get(yaml, NULL);
    CHECK_INT(config->has_stages, again->has_stages);
    CHECK_INT(config->stage_count, again->stage_count);
    stages_equal(&config->base, &again->base);
    for (size_t i = 0; i < config->stage_count; i++)
        stages_equal(&config->stages[i], &again->stages[i]);
    CHECK_OK(opd_config_yaml(NULL, again, comments, &yaml_again));
    CHECK_STR(yaml, yaml_again);
    opd_mem_free(NULL, yaml);
    opd_mem_free(NULL, yaml_again);
    opd_config_destroy(config);
    opd_config_destroy(again);
}

TEST(round_trip_one_stage) {
    round_trip(RL_TEXT, NULL, false);
    round_trip(RL_TEXT, NULL, true);
    round_trip(RL_TEXT, ARGS("--opd-kl-coef", "0.1", "--set", "train.lr=1.2345678901234567e-5",
                             "--set", "data.prompt_key=a\"b\\c: #d", "--set", "run.name=true",
                             "--set", "run.seed=9007199254740991"), true);
}

/* Every key with its value: also of what is switched off, which no rule may take for a wish. */
TEST(round_trip_of_what_is_off) {
    static const char *const sets[] = {"train.correction=none", "train.correction=decoupled",
                                       "train.tis_clip=0", "train.use_rollout_log_probs=true",
                                       "opd.enabled=false", "rollout.samples_per_prompt=2"};
    for (size_t i = 0; i < OPD_COUNTOF(sets); i++)
        round_trip(RL_TEXT, ARGS("--set", sets[i]), false);
    round_trip(RL_TEXT, ARGS("--set", "opd.loss_coef=1", "--set", "opd.divergence=low_var"), false);
    round_trip(RL_TEXT, ARGS("--set", "opd.type=constant", "--set", "opd.constant_prob=0.2"), false);
    round_trip(RL_TEXT, ARGS("--set", "opd.signal=topk", "--set", "opd.log_prob_top_k=4"), false);
}

TEST(round_trip_stages) {
    round_trip(STAGES_TEXT, NULL, false);
    round_trip(STAGES_TEXT, NULL, true);
    round_trip(STAGES_TEXT, ARGS("--set", "stages.distill.teachers.more.url=http://h:1", "--set",
                                 "stages.distill.opd.teacher=big", "--set", "run.name=x"), true);
    round_trip(STAGES_TEXT, ARGS("--rm-url", "http://h:1", "--opd-teacher-timeout-s", "3"), true);
}

TEST(round_trip_exclusive_keys) { /* each half of a pair over the other */
    round_trip("model: {path: m}\ndata: {path: d}\ntrain: {steps: 5}\nstages:\n"
               "  - {name: a, kind: sft, train: {epochs: 3}}\n"
               "  - {name: b, kind: sft, model: {init: {hidden_size: 8, intermediate_size: 8, "
               "layers: 1, heads: 1, tie_embeddings: false}}}\n"
               "  - {name: c, kind: sft, train: {steps: 0}}\n", NULL, false);
}

TEST(round_trip_records) { /* where the prompt is counts as one thing, and sources inherit it */
    round_trip("model: {path: m}\ndata:\n  prompt_template: '{a} {b}\\n'\n  sources:\n"
               "    one: {path: x, weight: 0.3, label_key: l}\n    two: {path: y, messages_key: chat}\n"
               "    three: {path: z, prompt_key: q, limit: 5}\ntrain: {steps: 5}\nstages:\n"
               "  - {name: a, kind: sft, data: {path: d, messages_key: m, loss_roles: [user, assistant]}}\n"
               "  - {name: b, kind: sft, data: {prompt_key: other}}\n"
               "  - {name: c, kind: sft, data: {prompt_key: prompt}}\n", NULL, true);
}

TEST(yaml_text) {
    opd_config *config = config_get(STAGES_TEXT, NULL);
    char *yaml = NULL;
    CHECK_OK(opd_config_yaml(NULL, config, true, &yaml));
    CHECK_CONTAINS(yaml, "\nopd:\n  enabled: false  # On-policy distillation on or off");
    CHECK_CONTAINS(yaml, "  - name: \"distill\"\n    kind: rl\n");
    CHECK_CONTAINS(yaml, "      path: \"@stages.teacher.checkpoint\"");
    CHECK(strstr(yaml, "kind: rl  #") == NULL); /* run.kind has no place beside stages */
    opd_mem_free(NULL, yaml);
    opd_config_destroy(config);
}

/* Compares a generated text with a committed file. */
static void file_current(const char *path, char *text) {
    char *committed = NULL;
    size_t size = 0;
    CHECK_OK(opd_file_read(NULL, path, 1 << 22, &committed, &size));
    if (strcmp(committed, text) != 0)
        opd_test_fail(__FILE__, __LINE__, "%s is old; run: ninja config_docs", path);
    opd_mem_free(NULL, committed);
    opd_mem_free(NULL, text);
}

TEST(schema_is_current) {
    char *text = NULL;
    CHECK_OK(opd_config_schema_json(NULL, &text));
    opd_json json;
    opd_json_init(&json, text, strlen(text));
    CHECK(opd_json_skip(&json)); /* it is JSON */
    CHECK_CONTAINS(text, "\"kl_coef\"");
    file_current(OPD_SOURCE_DIR "/configs/opd.schema.json", text);
}

TEST(reference_is_current) {
    char *text = NULL;
    CHECK_OK(opd_config_reference_md(NULL, &text));
    CHECK_CONTAINS(text, "| `teachers.NAME.timeout_s` | float > 0 [s] | `30` |");
    file_current(OPD_SOURCE_DIR "/docs/configuration.md", text);
}

/* Every row of the table can be stored, printed, found and explained. */
TEST(table_is_sound) {
    opd_config_stage stage = {0};
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        char display[OPD__PATH_SIZE], advice[400], value[OPD__VALUE_SIZE];
        CHECK(opd__key_find(key->path) == key);
        CHECK(key->doc != NULL && key->unit != NULL && key->initial != NULL);
        CHECK(strlen(key->doc) < 200 && key->min <= key->max);
        void *field = opd__key_field(key, &stage, 0);
        opd__value_initial(key, field);
        opd__node node = {.file = "--set x", .plain = true, .loose = true};
        node.text = opd__value_text(key, field, value);
        bool needed = key->derived != NULL || strchr(key->path, '*') != NULL;
        if (!needed) /* the default is itself a legal value */
            CHECK_OK(opd__value_store(key, key->path, &node, field));
        opd__key_display(key, "n", display);
        CHECK(strchr(display, '*') == NULL);
        CHECK(strlen(opd__key_advice("train", key->path, advice, sizeof advice)) > 0);
    }
    CHECK_INT(opd__edit_distance("abcd", "acbd"), 1);
    CHECK_INT(opd__edit_distance("", "abc"), 3);
    CHECK_INT(opd__edit_distance("kitten", "sitting"), 3);
}

/* Allocation n fails, for every n: an error, never a leak or a crash. */
typedef struct failing {
    size_t left; /* allocations until failure */
} failing;

static void *failing_resize(void *context, void *ptr, size_t size) {
    failing *fail = context;
    if (size == 0) {
        free(ptr);
        return NULL;
    }
    if (fail->left == 0) return NULL;
    fail->left--;
    return realloc(ptr, size);
}

TEST(out_of_memory) {
    const char *text = STAGES_TEXT;
    for (size_t n = 0;; n++) {
        failing fail = {n};
        opd_alloc alloc = {failing_resize, &fail};
        opd_config *config = NULL;
        char *yaml = NULL;
        opd_err err = opd_config_load_text(&alloc, "t.yaml", text, strlen(text), NULL, &config);
        if (err == OPD_OK) err = opd_config_yaml(&alloc, config, true, &yaml);
        opd_mem_free(&alloc, yaml);
        opd_config_destroy(config);
        if (err == OPD_OK) break;
        CHECK_INT(err, OPD_ERR_NOMEM);
        CHECK(n < 10000);
    }
}
