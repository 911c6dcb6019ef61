/* test_config.c - the configuration's parser: values, layers, stages, and every error with
 * its place. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

TEST(defaults_and_values) {
    opd_config *config = config_get(RL_TEXT, NULL);
    const opd_config_stage *s = &config->stages[0];
    CHECK_INT(config->stage_count, 1);
    CHECK(!config->has_stages);
    CHECK_STR(s->name, "main");
    CHECK_INT(s->kind, OPD_CONFIG_KIND_RL);
    CHECK_STR(s->run.name, "t");
    CHECK_STR(s->run.dir, "runs");
    CHECK_INT(s->run.log_level, OPD_LOG_LEVEL_INFO);
    CHECK_STR(s->model.path, "m");
    CHECK_STR(s->data.record.prompt_key, "prompt");
    CHECK_INT(s->rollout.samples_per_prompt, 4);
    CHECK_NEAR(s->opd.kl_coef, 1.0, 0);
    CHECK_NEAR(s->train.adam_beta2, 0.999, 0);
    CHECK_INT(s->train.steps, 100);
    CHECK_INT(s->train.epochs, 0);
    CHECK_INT(s->teacher_count, 1);
    CHECK_STR(s->teachers[0].name, "big");
    CHECK_STR(s->teachers[0].url, "http://127.0.0.1:30000");
    CHECK_NEAR(s->teachers[0].timeout_s, 30, 0);
    CHECK(opd_config_teacher_find(s, "big") == &s->teachers[0]);
    CHECK(opd_config_teacher_find(s, "small") == NULL);
    CHECK(opd_config_stage_find(config, "main") == s);
    opd_config_destroy(config);
}

TEST(addresses_of_replicas) {
    static const char *const forms[] = {"urls: [http://a:1, \"http://b:2/x\"]",
                                        "urls: \"http://a:1, http://b:2/x\"",
                                        "urls: http://a:1,http://b:2/x", "url: http://a:1"};
    for (size_t i = 0; i < 4; i++) {
        char text[512], url[OPD_CONFIG_URL_SIZE];
        (void)snprintf(text, sizeof text, "model: {path: m}\ndata: {path: d.jsonl}\nteachers:\n"
                       "  big:\n    %s\nopd: {enabled: true, type: sglang}\ntrain: {steps: 1}\n",
                       forms[i]);
        opd_config *config = config_get(text, NULL);
        const opd_config_teacher *t = &config->stages[0].teachers[0];
        CHECK(opd_config_url_at(t, 0, url, sizeof url));
        CHECK_STR(url, "http://a:1");
        CHECK_INT(opd_config_url_at(t, 1, url, sizeof url), i < 3);
        if (i < 3) CHECK_STR(url, "http://b:2/x");
        CHECK(!opd_config_url_at(t, 2, url, sizeof url));
        CHECK(!opd_config_url_at(t, 0, url, 5));
        if (i == 0) CHECK_STR(t->urls, "http://a:1, http://b:2/x");
        opd_config_destroy(config);
    }
}

TEST(addresses_that_are_none) {
    FAILS("teachers: {t: {urls: [http://a:1, a:2]}}\n",
          "t.yaml:1:22: teachers.t.urls: a URL is http[s]://HOST:PORT[/PATH]");
    FAILS("teachers: {t: {url: \"http://me:secret@a:1\"}}\n",
          "t.yaml:1:21: teachers.t.url: a name and a password in a URL would be shown; give api_key_env or "
          "api_key_file instead");
    FAILS("teachers: {t: {urls: \"http://a:1,,http://b:1\"}}\n",
          "t.yaml:1:22: teachers.t.urls: a URL is http[s]://HOST:PORT[/PATH]");
    FAILS("teachers: {t: {urls: [http://a:1, [x]]}}\n",
          "t.yaml:1:35: teachers.t.urls: expected one text for each entry of the list, without "
          "commas");
    FAILS("teachers: {t: {urls: [http://a:1], url: http://b:1}}\n",
          "t.yaml:1:41: teachers.t.url: contradicts teachers.t.urls (t.yaml:1:22); give only one "
          "of the two");
}

TEST(derived_defaults) {
    opd_config *config = config_get(RL_TEXT, ARGS("--set", "run.seed=9", "--set",
        "train.eps_clip=0.3", "--set", "rollout.max_response_len=77", "--set",
        "teachers.big.timeout_s=4", "--set", "train.steps=0"));
    const opd_config_stage *s = &config->stages[0];
    CHECK_INT(s->data.seed, 9);
    CHECK_INT(s->rollout.seed, 9);
    CHECK_NEAR(s->train.eps_clip_high, 0.3, 0);
    CHECK_INT(s->eval.max_response_len, 77);
    CHECK_NEAR(s->teachers[0].deadline_s, 40, 0);
    CHECK_STR(s->opd.teacher, "big");
    CHECK_INT(s->train.epochs, 1); /* neither steps nor epochs is given */
    opd_config_destroy(config);
}

TEST(stages_merge) {
    opd_config *config = config_get(STAGES_TEXT, NULL);
    CHECK_INT(config->stage_count, 3);
    const opd_config_stage *problems = &config->stages[0], *teacher = &config->stages[1],
                           *distill = &config->stages[2];
    CHECK_INT(problems->kind, OPD_CONFIG_KIND_ARITHMETIC);
    CHECK_INT(problems->arithmetic.split_count, 2);
    CHECK_STR(problems->arithmetic.splits[1].name, "test");
    CHECK_INT(problems->arithmetic.splits[1].count, 20);
    CHECK_INT(problems->arithmetic.seed, 7);
    CHECK_INT(teacher->model.init.kv_heads, 4);
    CHECK_INT(teacher->model.init.head_dim, 16);
    CHECK_NEAR(teacher->train.lr, 2e-3, 0);
    CHECK_INT(teacher->train.epochs, 2);
    CHECK_NEAR(distill->train.lr, 1e-3, 0);
    CHECK_INT(distill->train.steps, 50); /* resets the base's epochs */
    CHECK_INT(distill->train.epochs, 0);
    CHECK_STR(distill->model.path, "@stages.teacher.checkpoint"); /* resets the base's init */
    CHECK_INT(distill->model.init.hidden_size, 0);
    CHECK_STR(distill->opd.teacher, "big");
    CHECK(distill->opd.only_reward);
    CHECK(opd_config_stage_find(config, "nothing") == NULL);
    opd_config_destroy(config);
}

/* An answer to a reference: "<stage>/<result>". */
static opd_err resolve_joined(void *context, const char *stage, const char *result,
                              const char **out_value) {
    char *buffer = context;
    if (strcmp(stage, "teacher") != 0 && strcmp(stage, "problems") != 0)
        return opd_fail(OPD_ERR_NOT_FOUND, "no such stage");
    snprintf(buffer, 64, "%s/%s", stage, result);
    *out_value = buffer;
    return OPD_OK;
}

static opd_err resolve_refused(void *context, const char *stage, const char *result,
                               const char **out_value) {
    (void)context, (void)stage, (void)result, (void)out_value;
    return opd_fail(OPD_ERR_NOT_FOUND, "it left no checkpoint");
}

TEST(references_resolve) {
    opd_config *config = config_get(STAGES_TEXT, NULL);
    opd_config_stage stage;
    char buffer[64];
    CHECK_OK(opd_config_stage_resolve(config, 2, resolve_joined, buffer, &stage));
    CHECK_STR(stage.model.path, "teacher/checkpoint");
    CHECK_STR(stage.data.path, "problems/train");
    CHECK_STR(stage.teachers[0].path, "teacher/checkpoint");
    CHECK_STR(config->stages[2].model.path, "@stages.teacher.checkpoint");
    CHECK_OK(opd_config_stage_resolve(config, 0, resolve_refused, NULL, &stage)); /* uses none */
    CHECK_ERR(opd_config_stage_resolve(config, 1, resolve_refused, NULL, &stage),
              OPD_ERR_NOT_FOUND);
    CHECK_STR(opd_err_context(), "@stages.problems.train: it left no checkpoint");
    opd_config_destroy(config);
}

TEST(unknown_keys) {
    FAILS("train:\n  lrr: 1\n",
          "t.yaml:2:3: train.lrr: unknown key; nearest valid key is train.lr");
    FAILS("trian: {lr: 1}\n", "t.yaml:1:1: trian: unknown key; nearest valid key is train");
    FAILS("stage: []\n", "t.yaml:1:1: stage: unknown key; nearest valid key is stages");
    FAILS("train: {log_prob_top_k: 1}\n",
          "t.yaml:1:9: train.log_prob_top_k: unknown key; nearest valid key is opd.log_prob_top_k");
    FAILS("reward: {zzzzzzzz: 1}\n",
          "t.yaml:1:10: reward.zzzzzzzz: unknown key; valid keys here are type, boxed, command, encoding, "
          "library, url, group, timeout_s, workers, retries, parts");
    FAILS("model: {init: {haeds: 1}}\n",
          "t.yaml:1:16: model.init.haeds: unknown key; nearest valid key is model.init.heads");
    FAILS("teachers: {a: {ulr: x}}\n",
          "t.yaml:1:16: teachers.a.ulr: unknown key; nearest valid key is teachers.*.url");
    FAILS("zzzzzzz: 1\n", "t.yaml:1:1: zzzzzzz: unknown key; valid keys here are run, device, "
          "model, data, rollout, reward, teachers, opd, train, eval, arithmetic, stages");
    FAILS("train.lr: 1\n", "t.yaml:1:1: train.lr: dotted keys are for --set; in a file write "
          "nested mappings");
    FAILS("stages:\n  - name: a\n    kind: sft\n    trian: {}\n",
          "t.yaml:4:5: stages.a.trian: unknown key; nearest valid key is train");
}

TEST(wrong_types) {
    FAILS("train: {lr: fast}\n", "t.yaml:1:13: train.lr: expected a number, got a word");
    FAILS("train: {lr: '1'}\n", "t.yaml:1:13: train.lr: expected a number, got a quoted string; "
          "leave the quotes out");
    FAILS("train: {steps: 1.5}\n", "t.yaml:1:16: train.steps: expected a whole number, got a "
          "number");
    FAILS("train: {steps: }\n", "t.yaml:1:16: train.steps: expected a whole number, got empty; "
          "give it a value or remove it");
    FAILS("train: {steps: [1]}\n", "t.yaml:1:16: train.steps: expected a whole number, got a "
          "list");
    FAILS("opd: {enabled: yes}\n", "t.yaml:1:16: opd.enabled: expected true or false, got a word");
    FAILS("model: {path: 12}\n", "t.yaml:1:15: model.path: expected a path, got a whole number; "
          "put it in quotes");
    FAILS("data: {prompt_key: {a: b}}\n", "t.yaml:1:20: data.prompt_key: expected a string, got a "
          "mapping");
    FAILS("data: {prompt_key: ''}\n", "t.yaml:1:20: data.prompt_key: may not be empty");
    FAILS("model: {path: m}\ndata: {path: d, prompt_key: q, prompt_template: '{q}'}\n",
          "t.yaml:2:49: data.prompt_template: contradicts data.prompt_key (t.yaml:2:29); give only one of the two");
    FAILS("run: {kind: sft}\nmodel: {path: m}\ndata: {sources: {a: {weight: 2}}}\n",
          "t.yaml:1:1: data.sources.a.path: a source is a JSONL file; name it");
    FAILS("run: {kind: sft}\nmodel: {path: m}\ndata: {skip: 3, sources: {a: {path: x}}}\n",
          "t.yaml:3:14: data.skip: is about data.path; each of data.sources has its own");
    FAILS("data: {sources: {a: {wight: 2}}}\n",
          "t.yaml:1:22: data.sources.a.wight: unknown key; nearest valid key is data.sources.*.weight");
    FAILS("data: 3\n", "t.yaml:1:7: data: expected a mapping of keys, this is a whole number");
    FAILS("eval:\n", "t.yaml:1:6: eval: expected a mapping of keys, this is empty; give it keys "
          "or remove it");
    FAILS("teachers: {a: x}\n", "t.yaml:1:15: teachers.a: expected a mapping of keys, this is a "
          "word");
    FAILS("opd: {type: sglagn}\n", "t.yaml:1:13: opd.type: 'sglagn' is not one of none, sglang, "
          "megatron, constant; the nearest is sglang");
    FAILS("- a\n", "t.yaml:1:1: expected a mapping of sections, e.g. \"model:\"");
    FAILS("word\n", "t.yaml:1:1: expected a mapping of sections, e.g. \"model:\"");
}

TEST(out_of_range) {
    FAILS("opd: {kl_coef: -0.5}\n", "t.yaml:1:16: opd.kl_coef: -0.5 is too small; it must be at "
          "least 0");
    FAILS("opd: {kl_coef: .nan}\n", "t.yaml:1:16: opd.kl_coef: the number must be finite");
    FAILS("opd: {kl_coef: -.inf}\n", "t.yaml:1:16: opd.kl_coef: the number must be finite");
    FAILS("opd: {kl_coef: 1e999}\n", "t.yaml:1:16: opd.kl_coef: the number must be finite");
    FAILS("opd: {log_prob_top_k: -1}\n", "t.yaml:1:23: opd.log_prob_top_k: -1 is too small; it "
          "must be at least 0");
    FAILS("teachers: {a: {timeout_s: 0}}\n", "t.yaml:1:27: teachers.a.timeout_s: 0 is too small; "
          "it must be above 0 s");
    FAILS("train: {adam_beta1: 1.0}\n", "t.yaml:1:21: train.adam_beta1: 1.0 is too large; it must "
          "be below 1");
    FAILS("rollout: {top_p: 1.5}\n", "t.yaml:1:18: rollout.top_p: 1.5 is too large; it must be at "
          "most 1");
    FAILS("run: {seed: 99999999999999999999}\n", "t.yaml:1:13: run.seed: the number does not fit "
          "into 64 bits");
    FAILS("run: {name: a/b}\n", "t.yaml:1:13: run.name: a name is 1 to 64 letters, digits, '-' "
          "and '_'");
    FAILS("teachers: {a: {url: host}}\n", "t.yaml:1:21: teachers.a.url: a URL is "
          "http[s]://HOST:PORT[/PATH]");
    FAILS("teachers: {'a b': {}}\n", "t.yaml:1:12: teachers: 'a b' is no name; use 1 to 64 "
          "letters, digits, '-' and '_'");
    FAILS("model: {path: \"a\\tb\"}\n", "t.yaml:1:15: model.path: control characters are not "
          "allowed");
}

TEST(yaml_that_is_refused) {
    FAILS("train: {lr: 1, lr: 2}\n",
          "t.yaml:1:16: lr: duplicate key; the first is on line 1");
    FAILS("a: &x 1\n", "t.yaml:1:4: anchors (&name) are not supported; stages inherit the "
          "top-level sections by themselves");
    FAILS("a: *x\n", "t.yaml:1:4: aliases (*name) are not supported; write the value out");
    FAILS("<<: {}\n", "t.yaml:1:1: merge keys (<<) are not supported; stages inherit the "
          "top-level sections by themselves");
    FAILS("a: !!int 1\n", "t.yaml:1:4: tags (!name) are not supported; write the plain value");
    FAILS("a: 1\n---\nb: 2\n", "t.yaml:2:1: a second document; a configuration is one");
    FAILS("? [a]\n: 1\n", "t.yaml:1:3: a key must be a word, this is a list");
    FAILS("a: [\n", "t.yaml:2:1: not valid YAML: did not find expected node content");
    FAILS("data: {path: @stages.a.b}\n", "t.yaml:1:14: not valid YAML: found character that "
          "cannot start any token; indent with spaces, and quote a value that starts with @, ` "
          "or %");
    FAILS("a: 1\nbb: \xff\n", "t.yaml:2:5: not valid YAML: invalid leading UTF-8 octet");
    FAILS("a: \"\\0\"\n", "t.yaml:1:4: a text may not hold a NUL character");
    FAILS("a: [[[[[[[[[[[[1]]]]]]]]]]]]\n", "t.yaml:1:15: nested too deeply");
}

TEST(contradictions) {
    FAILS("train: {steps: 1, epochs: 1}\n", "t.yaml:1:27: train.epochs: contradicts train.steps "
          "(t.yaml:1:16); give only one of the two");
    FAILS("model: {path: a, init: {heads: 1}}\n", "t.yaml:1:32: model.init.heads: contradicts "
          "model.path (t.yaml:1:15); give only one of the two");
    FAILS("teachers: {a: {url: 'http://h:1', path: x}}\n", "t.yaml:1:41: teachers.a.path: "
          "contradicts teachers.a.url (t.yaml:1:21); give only one of the two");
    FAILS("run: {kind: sft}\nstages: [{name: a, kind: sft}]\n", "t.yaml:1:13: run.kind: "
          "contradicts stages, each of which has its own kind; remove it");
    FAILS(RL_TEXT "train: {eps_clip_c: 0.5}\n", "t.yaml:12:1: train: duplicate key; the first is "
          "on line 11");
    FAILS(RL_TEXT "eval: {}\nreward: {type: none}\ndevice: {kind: cpu}\nrun: {seed: 1}\n"
          "arithmetic: {seed: -1}\n", "t.yaml:16:20: arithmetic.seed: -1 is too small; it must be "
          "at least 0");
}

TEST(a_stage_lacks_something) {
    FAILS("", "t.yaml:1:1: model.path: there is no model; give the path of a Hugging Face "
          "directory, or the shape of a random one in model.init");
    FAILS("model: {path: m}\n", "t.yaml:1:1: data.path: a stage of kind rl needs a JSONL file, or several in "
          "data.sources");
    FAILS("run: {kind: eval}\nmodel: {path: m}\n", "t.yaml:1:1: eval.path: a stage of kind eval "
          "needs a JSONL file");
    FAILS("run: {kind: arithmetic}\n", "t.yaml:1:1: arithmetic.seed: there is nothing to "
          "generate; give arithmetic.splits, e.g. {train: 1000, test: 200}");
    FAILS("model: {init: {hidden_size: 8, layers: 1, heads: 2}}\n", "t.yaml:1:1: "
          "model.init.intermediate_size: a random model needs it, above 0");
    FAILS("model: {init: {hidden_size: 8, intermediate_size: 8, layers: 1, heads: 4, "
          "kv_heads: 3}}\n", "t.yaml:1:85: model.init.kv_heads: 3 does not divide the 4 heads");
    FAILS("model: {init: {hidden_size: 9, intermediate_size: 8, layers: 1, heads: 4}}\n",
          "t.yaml:1:29: model.init.hidden_size: 9 is not a multiple of the 4 heads; change it or "
          "give model.init.head_dim");
    FAILS("model: {init: {hidden_size: 12, intermediate_size: 8, layers: 1, heads: 4}}\n",
          "t.yaml:1:1: model.init.head_dim: 3 is odd or 0; rotary embedding turns pairs");
}

TEST(stage_errors) {
    FAILS("stages: {}\n", "t.yaml:1:9: stages: expected a list, one \"- name: ...\" for each "
          "stage");
    FAILS("stages: [a]\n", "t.yaml:1:10: stages: an entry is a mapping with name, kind and "
          "sections");
    FAILS("stages: [{kind: sft}]\n", "t.yaml:1:10: stages: a stage needs a name, e.g. \"name: "
          "distill\"");
    FAILS("stages: [{name: a}]\n", "t.yaml:1:10: stages: a stage needs a kind: arithmetic, sft, "
          "rl or eval");
    FAILS("stages: [{name: a, kind: sgt}]\n", "t.yaml:1:26: stages.kind: 'sgt' is not one of "
          "arithmetic, sft, rl, eval; the nearest is sft");
    FAILS("stages:\n  - {name: a, kind: sft}\n  - {name: a, kind: sft}\n",
          "t.yaml:3:12: stages.a: a second stage of this name; the first is on line 2");
    FAILS("stages: [{name: a, kind: sft, run: {name: x}}]\n", "t.yaml:1:43: run.name: belongs to "
          "the whole run; move it to the top level");
    FAILS("stages: [{name: a, kind: sft, stages: []}]\n", "t.yaml:1:31: stages.a.stages: unknown "
          "key; nearest valid key is stages");
}

TEST(reference_errors) {
    const char *head = "model: {path: m}\nstages:\n  - {name: gen, kind: arithmetic, arithmetic: "
                       "{splits: {train: 5}}}\n  - {name: fit, kind: sft, data: {path: \"%s\"}}\n";
    const struct { const char *reference, *message; } cases[] = {
        {"@stages.gne.train", "t.yaml:4:41: stages.fit.data.path: @stages.gne.train: there is no "
                              "stage 'gne'; the nearest is gen"},
        {"@stages.gen.tset", "t.yaml:4:41: stages.fit.data.path: @stages.gen.tset: a stage of "
                             "kind arithmetic has no 'tset'; it gives its splits"},
        {"@stages.gen.checkpoint", "t.yaml:4:41: stages.fit.data.path: @stages.gen.checkpoint: a "
                                   "stage of kind arithmetic has no 'checkpoint'; it gives its "
                                   "splits"},
        {"@stages.fit.checkpoint", "t.yaml:4:41: stages.fit.data.path: @stages.fit.checkpoint: "
                                   "this stage runs before it, or is it; only earlier stages have "
                                   "results"},
        {"@gen.train", "t.yaml:4:41: stages.fit.data.path: a reference is written "
                       "\"@stages.NAME.checkpoint\" or \"@stages.NAME.SPLIT\""},
    };
    char text[512];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(text, sizeof text, head, cases[i].reference);
        FAILS(text, cases[i].message);
    }
    snprintf(text, sizeof text, head, "@stages.gen.train");
    opd_config_destroy(config_get(text, NULL));
    FAILS("model: {path: \"@stages.a.checkpoint\"}\ndata: {path: d}\nrun: {kind: sft}\n",
          "t.yaml:1:15: model.path: @stages.a.checkpoint: this file has no stages");
    FAILS("run: {dir: \"@stages.a.b\"}\n", "t.yaml:1:12: run.dir: a reference is not possible "
          "here; a path that starts with @ is written ./@...");
}

TEST(too_large) {
    size_t size = OPD_CONFIG_FILE_MAX + 1;
    opd_config *config = NULL;
    char *text = malloc(size);
    CHECK(text != NULL);
    memset(text, '#', size);
    CHECK_ERR(opd_config_load_text(NULL, "t.yaml", text, size, NULL, &config), OPD_ERR_CONFIG);
    CHECK_STR(opd_err_context(), "t.yaml: larger than 1 MiB; this is no configuration");
    size_t at = 0;
    for (int i = 0; i < 17000; i++) at += (size_t)snprintf(text + at, size - at, "- 1\n");
    CHECK_ERR(opd_config_load_text(NULL, "t.yaml", text, at, NULL, &config), OPD_ERR_CONFIG);
    CHECK_STR(opd_err_context(), "t.yaml:16384:3: the file has too many values");
    free(text);
}

TEST(missing_file) {
    opd_config *config = NULL;
    CHECK_ERR(opd_config_load(NULL, "/nonexistent/x.yaml", NULL, &config), OPD_ERR_NOT_FOUND);
    CHECK_CONTAINS(opd_err_context(), "/nonexistent/x.yaml");
}
