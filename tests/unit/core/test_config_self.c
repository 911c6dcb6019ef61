/* test_config_self.c - teachers that are the student, and prompts that only teachers see: what is derived,
 * and what cannot be, with its reason and remedy. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

#define SELF_WITH(data)                                                                   \
    "model: {path: .}\n"                                                                  \
    "data: {path: d.jsonl" data "}\n"                                                     \
    "teachers: {me: {student: start}}\n"                                                  \
    "opd: {enabled: true, type: megatron}\n"                                              \
    "rollout: {samples_per_prompt: 4}\n"                                                  \
    "train: {steps: 100}\n"

#define SELF_TEXT SELF_WITH(", privileged_template: 'The answer is {label}. {prompt}'")
#define BLIND_TEXT SELF_WITH("")
#define CURRENT "--set", "teachers.me.student=current"
#define SERVED "--set", "opd.type=sglang"

static void refused(const char *text, const char *key, const char *reason, const char *const *args) {
    opd_config *config;
    CHECK_ERR(config_load(text, args, &config), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), key);
    CHECK_CONTAINS(opd_err_context(), reason);
}

static void accepted(const char *text, const char *const *args) { opd_config_destroy(config_get(text, args)); }

static opd_err resolve(void *context, const char *stage, const char *result, const char **out_value) {
    (void)context;
    CHECK_STR(stage, "before");
    CHECK_STR(result, "checkpoint");
    *out_value = "there";
    return OPD_OK;
}

TEST(the_student_is_a_teacher_in_one_line) {
    opd_config *config = config_get(SELF_TEXT, NULL);
    opd_config_stage stage;
    CHECK_STR(config->stages[0].opd.teacher, "me");
    CHECK_STR(config->stages[0].teachers[0].path, ""); /* as it is written, so that it loads again */
    CHECK(config->stages[0].teachers[0].privileged);
    CHECK_OK(opd_config_stage_resolve(config, 0, resolve, NULL, &stage));
    CHECK_STR(stage.teachers[0].path, ".");
    opd_config_destroy(config);
    accepted(SELF_TEXT, ARGS(SERVED));
    accepted(SELF_TEXT, ARGS(CURRENT));
    accepted(SELF_TEXT, ARGS("--set", "opd.only_reward=true"));
    accepted(BLIND_TEXT, NULL); /* beside a reward it holds the student back */
}

TEST(its_weights_are_where_the_student_begins) {
    opd_config *config = config_get("stages:\n"
                                    "  - {name: before, kind: sft, data: {path: d}, model: {path: m}}\n"
                                    "  - name: self\n"
                                    "    kind: rl\n"
                                    "    model: {path: '@stages.before.checkpoint'}\n"
                                    "    data: {path: d.jsonl, privileged_key: hint}\n"
                                    "    teachers: {me: {student: start}}\n"
                                    "    opd: {enabled: true, type: sglang}\n", NULL);
    opd_config_stage stage;
    CHECK_OK(opd_config_stage_resolve(config, 1, resolve, NULL, &stage));
    CHECK_STR(stage.model.path, "there");
    CHECK_STR(stage.teachers[0].path, "there");
    opd_config_destroy(config);
}

TEST(a_student_that_cannot_teach_itself) {
    refused(BLIND_TEXT, "teachers.me.student", "cannot learn", ARGS(CURRENT));
    refused(BLIND_TEXT, "teachers.me.student", "cannot learn", ARGS("--set", "opd.only_reward=true"));
    refused(SELF_TEXT, "teachers.me.student", "does not have; set opd.type: megatron", ARGS(CURRENT, SERVED));
    refused(SELF_TEXT, "teachers.me.student", "leave path, url", ARGS("--set", "teachers.me.path=."));
    refused(SELF_TEXT, "teachers.me.student", "leave path, url", ARGS("--set", "teachers.me.ckpt_step=3"));
    refused("model: {init: {hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4}}\n"
            "data: {path: d, privileged_key: hint}\nteachers: {me: {student: start}}\n"
            "opd: {enabled: true, type: megatron}\nrollout: {samples_per_prompt: 4}\n",
            "teachers.me.student", "random weights", NULL);
}

TEST(a_privileged_prompt_is_for_a_teacher) {
    accepted(RL_TEXT, ARGS("--set", "data.privileged_key=hint"));
    refused(SELF_TEXT, "data.privileged_template", "none is asked", ARGS("--set", "opd.enabled=false"));
    refused(SELF_TEXT, "data.privileged_template", "none is asked", ARGS("--set", "opd.type=constant"));
    refused(SELF_TEXT, "data.privileged_template", "seen by no teacher", ARGS("--set", "teachers.me.privileged=false"));
    refused("model: {path: .}\ndata: {path: d.jsonl, privileged_key: a, privileged_template: '{b}'}\n"
            "teachers: {me: {student: start}}\nopd: {enabled: true, type: megatron}\n", "data.privileged", "", NULL);
    FAILS_WITH("model: {path: .}\ndata: {sources: {a: {path: d}, b: {path: d, privileged_key: hint}}}\n", NULL,
               "t.yaml:2:61: data.sources.b.privileged_key: is for a teacher, and none is asked; leave it out, or "
               "set opd.enabled and a teacher");
}

TEST(a_source_has_the_privileged_prompt_of_data_or_its_own) {
    opd_config *config = config_get("model: {path: .}\ndata: {privileged_template: '{label}{prompt}', sources: "
                                    "{a: {path: d}, b: {path: d, privileged_key: hint}}}\n"
                                    "teachers: {me: {student: start}}\nopd: {enabled: true, type: megatron}\n", NULL);
    const opd_config_data *d = &config->stages[0].data;
    CHECK_STR(d->sources[0].record.privileged_template, "{label}{prompt}");
    CHECK_STR(d->sources[0].record.privileged_key, "");
    CHECK_STR(d->sources[1].record.privileged_template, "");
    CHECK_STR(d->sources[1].record.privileged_key, "hint");
    opd_config_destroy(config);
}
