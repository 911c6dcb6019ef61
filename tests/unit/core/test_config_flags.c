/* test_config_flags.c - the command line: --set, the seed page's flags, its validation rules,
 * and precedence. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

/* An rl stage that learns from rewards alone. */
#define PLAIN_TEXT           \
    "model: {path: m}\n"     \
    "data: {path: d}\n"      \
    "rollout: {samples_per_prompt: 4}\n"

TEST(set_scalars) {
    opd_config *config = config_get(RL_TEXT, ARGS("--set", "train.lr=1e-3", "--set=run.name=7",
        "--set", "data.prompt_key=\"a\\x3a b\"", "--set", "data.label_key=it's \"x\" \\",
        "--set", "teachers.other.url=http://h:1/v1", "--set", "opd.teacher=other", "--set",
        "train.grpo_std_normalization=false", "--set", "opd.on_missing=fail"));
    const opd_config_stage *s = &config->stages[0];
    CHECK_NEAR(s->train.lr, 1e-3, 0);
    CHECK_STR(s->run.name, "7"); /* no quotes are needed */
    CHECK_STR(s->data.record.prompt_key, "a: b"); /* but understood */
    CHECK_STR(s->data.record.label_key, "it's \"x\" \\");
    CHECK_INT(s->teacher_count, 2);
    CHECK_STR(s->teachers[1].url, "http://h:1/v1");
    CHECK_STR(s->opd.teacher, "other");
    CHECK(!s->train.grpo_std_normalization);
    CHECK_INT(s->opd.on_missing, OPD_CONFIG_ON_MISSING_FAIL);
    opd_config_destroy(config);
    FAILS_WITH(RL_TEXT, ARGS("--set", "model.path=\xff"), "--set model.path:1:2: not valid YAML: "
               "invalid leading UTF-8 octet");
    FAILS_WITH(RL_TEXT, ARGS("--set", "model.path='a'\nb: c"), "--set model.path:2:1: not "
               "valid YAML: did not find expected <document start>");
}

TEST(rest_of_arguments) {
    char *argv[] = {"run", "--use-opd", "x.yaml", "--set", "a=b", "--resume", "--opd-type=sglang",
                    "--", "--use-opd"};
    opd_config_overrides *overrides;
    int rest = 0;
    CHECK_OK(opd_config_overrides_create(NULL, &overrides));
    CHECK_OK(opd_config_flags_parse(overrides, 9, argv, &rest));
    CHECK_INT(rest, 5);
    CHECK_STR(argv[0], "run");
    CHECK_STR(argv[1], "x.yaml");
    CHECK_STR(argv[2], "--resume");
    CHECK_STR(argv[3], "--");
    CHECK_STR(argv[4], "--use-opd");
    CHECK_CONTAINS(opd_config_flags_help(), "--opd-log-prob-top-k");
    opd_config_overrides_destroy(overrides);
    opd_config_overrides_destroy(NULL);
}

TEST(bad_arguments) {
    FAILS_WITH("", ARGS("--set", "train.lr"), "--set train.lr: write it as KEY=VALUE");
    FAILS_WITH("", ARGS("--set", "=1"), "--set =1: write it as KEY=VALUE");
    FAILS_WITH("", ARGS("--set"), "--set: its value is missing");
    FAILS_WITH("", ARGS("--opd-type"), "--opd-type: its value is missing");
    FAILS_WITH("", ARGS("--use-opd=true"), "--use-opd: takes no value");
    FAILS_WITH("", ARGS("--opd-kl-coef", "1", "--opd-kl-coef", "2"),
               "--opd-kl-coef: given twice; give it once");
    FAILS_WITH(RL_TEXT, ARGS("--set", "train.lrr=1"),
               "--set train.lrr: train.lrr: unknown key; nearest valid key is train.lr");
    FAILS_WITH(RL_TEXT, ARGS("--set", "lr=1"),
               "--set lr: lr: unknown key; nearest valid key is train.lr");
    FAILS_WITH(RL_TEXT, ARGS("--set", "teachers.big.ulr=1"), "--set teachers.big.ulr: "
               "teachers.big.ulr: unknown key; nearest valid key is teachers.*.url");
    FAILS_WITH(RL_TEXT, ARGS("--set", "train.steps=many"),
               "--set train.steps: train.steps: expected a whole number, got a word");
    FAILS_WITH(RL_TEXT, ARGS("--set", "train.lr=-1"),
               "--set train.lr: train.lr: -1 is too small; it must be at least 0");
    FAILS_WITH(RL_TEXT, ARGS("--set", "stages.x.train.lr=1"), "--set stages.x.train.lr: no key of "
               "a stage; t.yaml has no stages: leave \"stages.x.\" out");
    FAILS_WITH(STAGES_TEXT, ARGS("--set", "stages.x.train.lr=1"), "--set stages.x.train.lr: no key "
               "of a stage; the stages are problems, teacher, distill");
    FAILS_WITH(STAGES_TEXT, ARGS("--set", "stages=1"), "--set stages: write --set "
               "stages.NAME.KEY=VALUE");
    FAILS_WITH(STAGES_TEXT, ARGS("--set", "run.kind=rl"), "--set run.kind: run.kind: contradicts "
               "stages, each of which has its own kind");
    FAILS_WITH(STAGES_TEXT, ARGS("--set", "stages.teacher.run.name=x"), "--set "
               "stages.teacher.run.name: run.name: belongs to the whole run; move it to the top "
               "level");
}

TEST(set_layers) {
    opd_config *config = config_get(STAGES_TEXT, ARGS("--set", "stages.teacher.train.lr=4",
        "--set", "train.lr=3", "--set", "run.name=again", "--set", "run.seed=5", "--set",
        "stages.problems.arithmetic.splits.test=3", "--set", "train.lr=2"));
    CHECK_NEAR(config->stages[1].train.lr, 4, 0); /* the more specific one wins */
    CHECK_NEAR(config->stages[2].train.lr, 2, 0); /* the last of equals wins    */
    CHECK_NEAR(config->base.train.lr, 2, 0);
    CHECK_STR(config->stages[2].run.name, "again");
    CHECK_INT(config->stages[2].rollout.seed, 5);
    CHECK_INT(config->stages[0].arithmetic.splits[1].count, 3);
    opd_config_destroy(config);
}

TEST(every_flag) {
    opd_config *config = config_get(PLAIN_TEXT, ARGS("--use-opd", "--opd-type", "sglang",
        "--rm-url", "http://h:1/generate", "--opd-kl-coef", "0.25", "--opd-only-reward",
        "--opd-teacher-ckpt-step", "200", "--opd-teacher-timeout-s", "2.5",
        "--opd-log-prob-top-k", "16"));
    const opd_config_stage *s = &config->stages[0];
    CHECK(s->opd.enabled && s->opd.only_reward);
    CHECK_INT(s->opd.type, OPD_CONFIG_OPD_TYPE_SGLANG);
    CHECK_NEAR(s->opd.kl_coef, 0.25, 0);
    CHECK_INT(s->opd.log_prob_top_k, 16);
    CHECK_STR(s->opd.teacher, "teacher"); /* made by --rm-url */
    CHECK_STR(s->teachers[0].url, "http://h:1/generate");
    CHECK_INT(s->teachers[0].ckpt_step, 200);
    CHECK_NEAR(s->teachers[0].timeout_s, 2.5, 0);
    CHECK_NEAR(s->teachers[0].deadline_s, 25, 0);
    opd_config_destroy(config);
    config = config_get(PLAIN_TEXT, ARGS("--use-opd", "--opd-type", "megatron",
        "--opd-teacher-load", "/tmp"));
    CHECK_STR(config->stages[0].teachers[0].path, "/tmp");
    opd_config_destroy(config);
}

TEST(flags_win_over_yaml) {
    opd_config *config = config_get(STAGES_TEXT, ARGS("--opd-kl-coef", "0.5", "--rm-url",
        "http://h:1", "--opd-teacher-timeout-s", "1"));
    const opd_config_stage *s = opd_config_stage_find(config, "distill");
    CHECK_NEAR(s->opd.kl_coef, 0.5, 0);
    CHECK_STR(s->teachers[0].url, "http://h:1"); /* resets the file's path */
    CHECK_STR(s->teachers[0].path, "");
    CHECK_NEAR(s->teachers[0].timeout_s, 1, 0);
    CHECK_NEAR(config->stages[1].opd.kl_coef, 1, 0); /* an sft stage does not distil */
    opd_config_destroy(config);
}

TEST(flags_against_set) {
    FAILS_WITH(RL_TEXT, ARGS("--opd-kl-coef", "0.5", "--set", "opd.kl_coef=0.6"),
               "--opd-kl-coef: contradicts --set opd.kl_coef; give only one of the two");
    FAILS_WITH(STAGES_TEXT, ARGS("--use-opd", "--set", "stages.distill.opd.enabled=false"),
               "--use-opd: contradicts --set stages.distill.opd.enabled; give only one of the two");
    FAILS_WITH(RL_TEXT, ARGS("--rm-url", "http://h:1", "--set", "teachers.big.path=x"),
               "--rm-url: teachers.big.url: contradicts teachers.big.path (--set "
               "teachers.big.path); give only one of the two");
    opd_config_destroy(config_get(RL_TEXT, ARGS("--opd-kl-coef", "0.5", "--set",
                                                "opd.kl_coef=0.50")));
}

TEST(rule_1_timeout) { /* even while OPD is off */
    FAILS_WITH(PLAIN_TEXT, ARGS("--opd-teacher-timeout-s", "0"), "--opd-teacher-timeout-s: "
               "teachers.NAME.timeout_s: 0 is too small; it must be above 0 s");
    FAILS_WITH(PLAIN_TEXT, ARGS("--opd-teacher-timeout-s", "-3"), "--opd-teacher-timeout-s: "
               "teachers.NAME.timeout_s: -3 is too small; it must be above 0 s");
    opd_config_destroy(config_get(PLAIN_TEXT, ARGS("--opd-teacher-timeout-s", "1")));
}

TEST(rule_2_top_k) {
    FAILS_WITH(PLAIN_TEXT, ARGS("--opd-log-prob-top-k", "-1"), "--opd-log-prob-top-k: "
               "opd.log_prob_top_k: -1 is too small; it must be at least 0");
}

TEST(rule_3_sft) { /* OPD is forced off, and the other rules skipped */
    opd_config *config = config_get("run: {kind: sft}\nmodel: {path: m}\ndata: {path: d}\n"
                                    "opd: {enabled: true}\n",
                                    ARGS("--use-opd", "--opd-teacher-load", "/x"));
    CHECK(!config->stages[0].opd.enabled);
    opd_config_destroy(config);
}

TEST(rule_4_type) {
    FAILS_WITH(PLAIN_TEXT, ARGS("--use-opd"), "t.yaml:1:1: opd.type: distillation is on; say where "
               "the teacher runs: sglang (a server) or megatron (in this process)");
    FAILS_WITH(PLAIN_TEXT, ARGS("--use-opd", "--opd-type", "sgl"), "--opd-type: opd.type: 'sgl' is "
               "not one of none, sglang, megatron, constant; the nearest is sglang");
}

TEST(rule_5_megatron) {
    FAILS_WITH(PLAIN_TEXT, ARGS("--use-opd", "--opd-type", "megatron"), "--opd-type: opd.type: "
               "there is no teacher; give teachers.NAME.path or --opd-teacher-load");
    FAILS_WITH(RL_TEXT, ARGS("--set", "opd.type=megatron"), "t.yaml:1:1: teachers.big.path: "
               "opd.type megatron loads the teacher from here; give teachers.NAME.path or "
               "--opd-teacher-load");
}

TEST(rule_6_sglang) {
    FAILS_WITH(RL_TEXT, ARGS("--opd-teacher-load", "/tmp"), "--opd-teacher-load: an sglang teacher "
               "is a server; give its address with --rm-url, or use --opd-type megatron");
    FAILS_WITH(PLAIN_TEXT, ARGS("--use-opd", "--opd-type", "sglang"), "--opd-type: opd.type: there "
               "is no teacher; give teachers.NAME.url, teachers.NAME.path or --rm-url");
    FAILS_WITH(PLAIN_TEXT "teachers: {a: {retries: 1}}\n",
               ARGS("--use-opd", "--opd-type", "sglang"), "t.yaml:1:1: teachers.a.url: opd.type "
               "sglang needs a server; give teachers.NAME.url, teachers.NAME.path or --rm-url");
    opd_config_destroy(config_get(RL_TEXT, NULL)); /* a URL in the file is enough */
}

TEST(rule_7_off) {
    FAILS_WITH(PLAIN_TEXT, ARGS("--opd-teacher-load", "/tmp"), "--opd-teacher-load: on-policy "
               "distillation is off; turn it on with --use-opd or remove the flag");
    FAILS_WITH(PLAIN_TEXT, ARGS("--opd-only-reward"), "--opd-only-reward: on-policy distillation "
               "is off; turn it on with --use-opd or remove the flag");
    FAILS(PLAIN_TEXT "opd: {only_reward: true}\n", "t.yaml:4:20: opd.only_reward: distillation is "
          "off; set opd.enabled: true (--use-opd) or remove it");
    opd_config_destroy(config_get(PLAIN_TEXT, ARGS("--opd-type", "sglang", "--opd-kl-coef", "2",
                                                   "--opd-log-prob-top-k", "4")));
}

TEST(missing_teacher_folder) {
    config_fails(PLAIN_TEXT, ARGS("--use-opd", "--opd-type", "megatron", "--opd-teacher-load",
                                  "/nonexistent/teacher"), OPD_ERR_NOT_FOUND,
                 "--opd-teacher-load: teachers.teacher.path: /nonexistent/teacher does not exist; "
                 "give the teacher's Hugging Face directory");
}

TEST(several_teachers) {
    const char *text = PLAIN_TEXT "teachers: {aa: {url: 'http://h:1'}, bb: {url: 'http://h:2'}}\n"
                                  "opd: {enabled: true, type: sglang}\n";
    FAILS(text, "t.yaml:1:1: opd.teacher: there are 2 teachers; name the one that distils, or several");
    FAILS_WITH(text, ARGS("--set", "opd.teacher=bc"), "--set opd.teacher: opd.teacher: there is no "
               "teacher 'bc'; the nearest is bb");
    FAILS_WITH(text, ARGS("--rm-url", "http://h:3"), "--rm-url: there are several teachers; say "
               "which one with --set opd.teacher=NAME");
    opd_config *config = config_get(text, ARGS("--set", "opd.teacher=bb", "--rm-url",
                                               "http://h:3"));
    CHECK_STR(config->stages[0].teachers[0].url, "http://h:1");
    CHECK_STR(config->stages[0].teachers[1].url, "http://h:3");
    opd_config_destroy(config);
}

TEST(what_cannot_learn) {
    FAILS_WITH(RL_TEXT, ARGS("--opd-only-reward", "--set", "train.normalize_advantages=true"),
               "--set train.normalize_advantages: train.normalize_advantages: contradicts "
               "opd.only_reward: whitening divides opd.kl_coef out again; set one of the two to false");
    FAILS_WITH(RL_TEXT, ARGS("--opd-only-reward", "--opd-kl-coef", "0"), "--opd-kl-coef: "
               "opd.kl_coef: cannot learn: opd.only_reward drops the reward's advantage, and a "
               "weight of 0 drops the teacher's; set it above 0, or opd.only_reward: false");
    FAILS_WITH(PLAIN_TEXT, ARGS("--set", "rollout.samples_per_prompt=1", "--set", "rollout.filter=zero_std",
                                "--set", "train.rewards_normalization=false"), "--set rollout.filter: "
               "rollout.filter: cannot learn: one answer has no spread, so every group would be dropped; "
               "set rollout.samples_per_prompt to 2 or more");
    FAILS_WITH(RL_TEXT, ARGS("--set", "rollout.filter=zero_std", "--set", "reward.type=none"), "--set "
               "rollout.filter: rollout.filter: cannot learn: without a reward all are the same, so every "
               "group would be dropped; set reward.type, or no filter");
    FAILS_WITH(RL_TEXT, ARGS("--set", "rollout.filter=zero_std", "--opd-only-reward"), "--set "
               "rollout.filter: rollout.filter: contradicts opd.only_reward: it drops what only the teacher "
               "can teach by a reward that is not learnt from");
    FAILS_WITH(RL_TEXT, ARGS("--set", "rollout.over_sampling_prompts=64"), "--set "
               "rollout.over_sampling_prompts: rollout.over_sampling_prompts: is for what a filter drops, and "
               "there is none; set rollout.filter, or leave it out");
    FAILS_WITH(RL_TEXT, ARGS("--set", "rollout.over_sampling_prompts=1"), "--set "
               "rollout.over_sampling_prompts: rollout.over_sampling_prompts: is below rollout.batch_prompts, "
               "which a batch needs");
    FAILS_WITH(RL_TEXT, ARGS("--set", "rollout.over_sampling_prompts=64", "--set", "rollout.filter=zero_std",
                             "--set", "rollout.max_staleness=2"), "--set "
               "rollout.over_sampling_prompts: rollout.over_sampling_prompts: is for max_staleness 0: with 2, the "
               "prompts of later batches are in work already and stand in; leave it out");
    FAILS_WITH(PLAIN_TEXT, ARGS("--set", "rollout.samples_per_prompt=1"), "--set "
               "rollout.samples_per_prompt: rollout.samples_per_prompt: cannot learn: a group of 1 "
               "has its own mean, so its GRPO advantage is always 0; use 2 or more, or turn opd "
               "on");
    FAILS_WITH(PLAIN_TEXT, ARGS("--set", "reward.type=none"), "--set reward.type: reward.type: "
               "cannot learn: there is neither a reward nor a teacher; set reward.type: math, or "
               "turn opd on");
    opd_config_destroy(config_get(RL_TEXT, ARGS("--set", "rollout.samples_per_prompt=1")));
    opd_config_destroy(config_get(RL_TEXT, ARGS("--opd-kl-coef", "0"))); /* GRPO, a control */
    opd_config_destroy(config_get(PLAIN_TEXT, ARGS("--set", "rollout.samples_per_prompt=1",
        "--set", "train.rewards_normalization=false")));
}

TEST(values_that_bound_each_other) {
    FAILS_WITH(RL_TEXT, ARGS("--set", "teachers.big.deadline_s=3"), "--set teachers.big.deadline_s: "
               "teachers.big.deadline_s: 3 s for a sample is less than timeout_s, 30 s for one "
               "attempt");
    FAILS_WITH(RL_TEXT, ARGS("--set", "teachers.big.backoff_max_ms=3"), "--set "
               "teachers.big.backoff_max_ms: teachers.big.backoff_max_ms: is less than backoff_ms");
    FAILS_WITH(RL_TEXT, ARGS("--set", "teachers.big.ca_file=ca.pem"), "--set teachers.big.ca_file: "
               "teachers.big.ca_file: is about an https server; give teachers.big.url with https://, "
               "or leave it out");
    FAILS_WITH(RL_TEXT, ARGS("--set", "teachers.big.verify=false"), "--set teachers.big.verify: "
               "teachers.big.verify: is about an https server; give teachers.big.url with https://, "
               "or leave it out");
    FAILS_WITH(RL_TEXT, ARGS("--rm-url", "https://h:1", "--set", "teachers.big.key_file=k"), "--set "
               "teachers.big.key_file: teachers.big.key_file: is a key without a certificate; give "
               "cert_file");
    FAILS_WITH(RL_TEXT, ARGS("--set", "teachers.big.api_key_env=sk-secret"), "--set "
               "teachers.big.api_key_env: teachers.big.api_key_env: is the name of an environment "
               "variable (letters, digits, '_'); a key itself does not belong into a configuration");
    opd_config_destroy(config_get(RL_TEXT, ARGS("--set", "teachers.big.api_key_env=OPD_KEY_1")));
    opd_config_destroy(config_get(RL_TEXT, ARGS("--set", "teachers.big.api_key_file=key")));
    FAILS_WITH(RL_TEXT, ARGS("--set", "train.eps_clip_c=0.5"), "--set train.eps_clip_c: "
               "train.eps_clip_c: must be above 1, or 0 for off");
}
