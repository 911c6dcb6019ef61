/* test_torture_load.c - what is loaded at a start, with every allocation failing in turn:
 * configuration, tokenizer, weights, a checkpoint's moments. */
#include <unistd.h>

#include "actors/checkpoint/checkpoint.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"
#include "opd/config.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"
#include "tests/torture/torture.h"
#include "tests/unit/actors/tiny.h"

static const uint64_t NO_MEMORY = TORTURE_ERR(OPD_ERR_NOMEM);

/* ---- configuration ------------------------------------------------------------------- */

static opd_err load_config(const opd_alloc *alloc, void *arg) {
    const char *text = arg;
    opd_config_overrides *overrides = NULL;
    opd_config *config = NULL;
    char *argv[] = {"--set", "run.seed=7", "--set", "rollout.samples_per_prompt=4"};
    int rest = 0;
    OPD_TRY(opd_config_overrides_create(alloc, &overrides));
    opd_err err = opd_config_flags_parse(overrides, (int)OPD_COUNTOF(argv), argv, &rest);
    if (err == OPD_OK)
        err = opd_config_load_text(alloc, "t.yaml", text, strlen(text), overrides, &config);
    opd_config_overrides_destroy(overrides);
    opd_config_destroy(config);
    return err;
}

static const char two_stages[] =
    "run: {name: t, seed: 1}\n"
    "model: {path: /m}\n"
    "data: {path: /d.jsonl}\n"
    "stages:\n"
    "  - name: a\n"
    "    kind: sft\n"
    "    train: {steps: 5}\n"
    "  - name: b\n"
    "    kind: rl\n"
    "    model: {path: \"@stages.a.checkpoint\"}\n"
    "    reward: {type: math}\n";

TEST(configuration) { torture_alloc(load_config, (void *)(uintptr_t)two_stages, NO_MEMORY); }

/* The shipped file, the largest there is. */
TEST(configuration_of_the_quickstart) {
    char *text = NULL;
    size_t size = 0;
    CHECK_OK(opd_file_read(NULL, OPD_SOURCE_DIR "/configs/quickstart.yaml", 1 << 20, &text, &size));
    torture_alloc(load_config, text, NO_MEMORY);
    opd_mem_free(NULL, text);
}

/* ---- tokenizer ------------------------------------------------------------------------- */

static opd_err open_tokenizer(const opd_alloc *alloc, void *arg) {
    opd_tokenizer *tokenizer = NULL;
    OPD_TRY(opd_tokenizer_open(arg, alloc, &tokenizer));
    opd_tokenizer_destroy(tokenizer);
    return OPD_OK;
}

static opd_err make_tokenizer(const opd_alloc *alloc, void *arg) {
    opd_tokenizer *tokenizer = NULL;
    (void)arg;
    OPD_TRY(opd_tokenizer_create_bytes(alloc, &tokenizer));
    opd_tokenizer_destroy(tokenizer);
    return OPD_OK;
}

static void folder_up(char *dir) {
    memcpy(dir, "/tmp/opd-torture-XXXXXX", 24);
    CHECK(mkdtemp(dir) != NULL);
}

TEST(tokenizer) {
    char dir[32];
    opd_tokenizer *tokenizer = NULL;
    folder_up(dir);
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &tokenizer));
    CHECK_OK(opd_tokenizer_save(tokenizer, dir));
    opd_tokenizer_destroy(tokenizer);
    torture_alloc(open_tokenizer, dir, NO_MEMORY);
    torture_alloc(make_tokenizer, NULL, NO_MEMORY);
    folder_remove(dir);
}

/* ---- weights --------------------------------------------------------------------------- */

static opd_err open_model(const opd_alloc *alloc, void *arg) {
    opd_model *model = NULL;
    OPD_TRY(opd_model_open(arg, alloc, &model));
    opd_model_destroy(model);
    return OPD_OK;
}

static opd_err open_weights(const opd_alloc *alloc, void *arg) {
    opd_safetensors *file = NULL;
    char path[64];
    OPD_TRY(opd_path_join(path, sizeof path, arg, "model.safetensors"));
    OPD_TRY(opd_safetensors_open(path, alloc, &file));
    CHECK(opd_safetensors_count(file) > 4);
    opd_safetensors_close(file);
    return OPD_OK;
}

TEST(weights) {
    char dir[32];
    folder_up(dir);
    opd_model *model = tiny_model(259, 2, 3);
    CHECK_OK(opd_model_save(model, dir));
    opd_model_destroy(model);
    torture_alloc(open_weights, dir, NO_MEMORY);
    torture_alloc(open_model, dir, NO_MEMORY);
    folder_remove(dir);
}

/* ---- resuming from a checkpoint ---------------------------------------------------------- */

static opd_err resume(const opd_alloc *alloc, void *arg) {
    const char *path = arg;
    opd_checkpoint_state info;
    opd_model *model = NULL;
    opd_optimizer *optimizer = NULL;
    opd_optimizer_config config = opd_optimizer_config_default();
    opd_err err = opd_checkpoint_read(path, alloc, &info);
    if (err == OPD_OK) err = opd_model_open(path, alloc, &model);
    if (err == OPD_OK) err = opd_optimizer_create(&config, model->param_count, alloc, &optimizer);
    if (err == OPD_OK) err = opd_checkpoint_read_moments(path, model, optimizer, alloc);
    opd_optimizer_destroy(optimizer);
    opd_model_destroy(model);
    return err;
}

TEST(resume_from_a_checkpoint) {
    char dir[32], path[OPD_PATH_SIZE];
    folder_up(dir);
    opd_model *model = tiny_model(259, 2, 3);
    opd_tokenizer *tokenizer = NULL;
    opd_checkpoint_state info = {.step = 4};
    float *state = calloc(3 * model->param_count, sizeof *state);
    CHECK(state != NULL);
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &tokenizer));
    CHECK_OK(opd_checkpoint_write(dir, model, NULL, tokenizer, &info, state, 0, NULL));
    opd_checkpoint_path(dir, 4, path);
    torture_alloc(resume, path, NO_MEMORY);
    free(state);
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    folder_remove(dir);
}
