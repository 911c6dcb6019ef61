/* test_checkpoint.c - a state comes back bit for bit, the newest are kept, and a write that fails
 * leaves the old one and nothing else. */
#include "actors/checkpoint/checkpoint.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/checkpoint/checkpoint_actor.h"
#include "actors/messages.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "models/safetensors.h"
#include "tests/support/folder.h"
#include "tests/support/sys_test.h"
#include "tests/unit/actors/tiny.h"

typedef struct rig {
    char dir[64], path[OPD_PATH_SIZE];
    opd_model *model;
    opd_tokenizer *tokenizer;
    float *state; /* [3, param_count] */
} rig;

static void rig_up(rig *r) {
    memcpy(r->dir, "/tmp/opd-checkpoint-XXXXXX", 27);
    CHECK(mkdtemp(r->dir) != NULL);
    r->model = tiny_model(259, 2, 3);
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &r->tokenizer));
    size_t n = r->model->param_count;
    r->state = malloc(3 * n * sizeof(float));
    for (size_t i = 0; i < 3 * n; i++) r->state[i] = (float)(i % 1009) * 0.01f - (float)(i / n);
}

static void rig_down(rig *r) {
    folder_remove(r->dir);
    free(r->state);
    opd_tokenizer_destroy(r->tokenizer);
    opd_model_destroy(r->model);
}

static opd_err write_step(rig *r, uint64_t step, uint32_t keep) {
    opd_checkpoint_state info = {.step = step, .group = step * 8, .optimizer_step = step * 2,
                                 .seed = UINT32_MAX, .samples = 5, .before_correct = 3, .before_total = 9};
    opd_checkpoint_path(r->dir, step, r->path);
    return opd_checkpoint_write(r->dir, r->model, NULL, r->tokenizer, &info, r->state, keep, NULL);
}

/* Names in the folder, counted; a ".part" is one. */
static int entries(const rig *r) {
    DIR *folder = opendir(r->dir);
    int count = 0;
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder))
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(folder);
    return count;
}

static void check_content(const rig *r, uint64_t step) {
    char path[OPD_PATH_SIZE];
    opd_model *model;
    opd_optimizer *optimizer;
    opd_checkpoint_state info;
    opd_optimizer_config config = opd_optimizer_config_default();
    size_t n = r->model->param_count;
    opd_checkpoint_path(r->dir, step, path);
    CHECK_OK(opd_checkpoint_read(path, NULL, &info));
    CHECK_INT(info.step, step);
    CHECK_INT(info.group, step * 8);
    CHECK_INT(info.optimizer_step, step * 2);
    CHECK_INT(info.seed, UINT32_MAX);
    CHECK_INT(info.samples, 5);
    CHECK_INT(info.before_correct, 3);
    CHECK_INT(info.before_total, 9);
    CHECK_OK(opd_model_open(path, NULL, &model));
    CHECK(memcmp(model->params, r->state, n * sizeof(float)) == 0);
    CHECK_OK(opd_optimizer_create(&config, n, NULL, &optimizer));
    CHECK_OK(opd_checkpoint_read_moments(path, model, optimizer, NULL));
    CHECK(memcmp(optimizer->m, r->state + n, n * sizeof(float)) == 0);
    CHECK(memcmp(optimizer->v, r->state + 2 * n, n * sizeof(float)) == 0);
    opd_optimizer_destroy(optimizer);
    opd_model_destroy(model);
}

TEST(a_state_comes_back_bit_for_bit) {
    rig r;
    rig_up(&r);
    CHECK_OK(write_step(&r, 12, 0));
    CHECK_STR(strrchr(r.path, '/'), "/step-000012");
    check_content(&r, 12);
    opd_tokenizer *tokenizer;
    CHECK_OK(opd_tokenizer_open(r.path, NULL, &tokenizer));
    CHECK(opd_tokenizer_hash(tokenizer) == opd_tokenizer_hash(r.tokenizer));
    opd_tokenizer_destroy(tokenizer);
    CHECK_INT(entries(&r), 1);
    rig_down(&r);
}

TEST(a_step_written_again_replaces_the_old_one) {
    rig r;
    rig_up(&r);
    CHECK_OK(write_step(&r, 3, 2));
    r.state[0] = 42;
    CHECK_OK(write_step(&r, 3, 2));
    check_content(&r, 3);
    CHECK_INT(entries(&r), 1);
    rig_down(&r);
}

TEST(the_newest_are_kept) {
    rig r;
    uint64_t newest;
    rig_up(&r);
    CHECK_ERR(opd_checkpoint_newest(r.dir, &newest), OPD_ERR_NOT_FOUND);
    static const uint64_t steps[] = {7, 100, 20, 1000000, 1000001};
    for (size_t i = 0; i < 5; i++) CHECK_OK(write_step(&r, steps[i], 3));
    CHECK_INT(entries(&r), 3);
    CHECK_OK(opd_checkpoint_newest(r.dir, &newest));
    CHECK_INT(newest, 1000001);
    check_content(&r, 100); /* by number, not by name or time */
    check_content(&r, 1000000);
    rig_down(&r);
}

TEST(other_names_are_nobodys_checkpoint) {
    static const char *const names[] = {"step-5", "step--00009", "step-000009x", "step-", ".part-000099",
                                        "step- 99999", "step-+99999", "steps-000099", "step-0000099"};
    rig r;
    uint64_t newest;
    rig_up(&r);
    CHECK_OK(write_step(&r, 2, 1));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", r.dir, names[i]);
        CHECK_INT(mkdir(path, 0777), 0);
    }
    CHECK_OK(opd_checkpoint_newest(r.dir, &newest));
    CHECK_INT(newest, 2);
    CHECK_OK(write_step(&r, 3, 1)); /* and they are not pruned */
    CHECK_INT(entries(&r), 1 + (int)(sizeof names / sizeof names[0]));
    rig_down(&r);
}

TEST(what_a_crash_left_is_replaced) {
    rig r;
    char path[128];
    rig_up(&r);
    (void)snprintf(path, sizeof path, "%s/.part-000004", r.dir);
    CHECK_INT(mkdir(path, 0777), 0);
    (void)snprintf(path, sizeof path, "%s/.part-000004/model.safetensors", r.dir);
    CHECK_OK(opd_file_write_atomic(path, "half", 4));
    CHECK_OK(write_step(&r, 4, 2));
    check_content(&r, 4);
    CHECK_INT(entries(&r), 1);
    rig_down(&r);
}

/* Memory fails at each point in turn; then a file is in the way of the folder. */
TEST(a_write_that_fails_leaves_the_old_and_no_part) {
    rig r;
    rig_up(&r);
    CHECK_OK(write_step(&r, 1, 0));
    opd_test_alloc memory;
    opd_checkpoint_state info = {.step = 1};
    int failed = 0;
    for (long n = 1; n < 50; n++) {
        opd_test_alloc_failing(&memory, n, true);
        opd_err err = opd_checkpoint_write(r.dir, r.model, NULL, r.tokenizer, &info, r.state, 0, &memory.alloc);
        CHECK_INT(memory.live, 0);
        CHECK_INT(entries(&r), 1);
        if (err == OPD_OK) break;
        CHECK_INT(err, OPD_ERR_NOMEM);
        CHECK_CONTAINS(opd_err_context(), "step-000001");
        check_content(&r, 1);
        failed++;
    }
    CHECK(failed > 0);
    char blocked[128];
    (void)snprintf(blocked, sizeof blocked, "%s/file", r.dir);
    CHECK_OK(opd_file_write_atomic(blocked, "x", 1));
    CHECK(opd_checkpoint_write(blocked, r.model, NULL, r.tokenizer, &info, r.state, 0, NULL) != OPD_OK);
    rig_down(&r);
}

/* Rewrites a file of the checkpoint; NULL removes it. */
static void spoil(const rig *r, const char *name, const char *text) {
    char file[OPD_PATH_SIZE + 64];
    (void)snprintf(file, sizeof file, "%s/%s", r->path, name);
    if (text == NULL) CHECK_INT(unlink(file), 0);
    else CHECK_OK(opd_file_write_atomic(file, text, strlen(text)));
}

TEST(a_broken_state_file_is_named) {
    static const char *const broken[] = {
        "", "{", "[]", "{\"step\": 1}", "{\"step\": -1, \"group\": 1, \"optimizer_step\": 1, \"seed\": 1}",
        "{\"step\": 1.5, \"group\": 1, \"optimizer_step\": 1, \"seed\": 1}", "{} trailing"};
    rig r;
    opd_checkpoint_state info;
    rig_up(&r);
    CHECK_OK(write_step(&r, 1, 0));
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        spoil(&r, "trainer_state.json", broken[i]);
        CHECK_ERR(opd_checkpoint_read(r.path, NULL, &info), OPD_ERR_PARSE);
        CHECK_CONTAINS(opd_err_context(), "trainer_state.json");
    }
    spoil(&r, "trainer_state.json", NULL);
    CHECK_ERR(opd_checkpoint_read(r.path, NULL, &info), OPD_ERR_NOT_FOUND);
    rig_down(&r);
}

TEST(moments_of_another_model_are_refused) {
    rig r;
    opd_optimizer *optimizer;
    opd_optimizer_config config = opd_optimizer_config_default();
    rig_up(&r);
    CHECK_OK(write_step(&r, 1, 0));
    opd_model *other = tiny_model(300, 2, 3);
    CHECK_OK(opd_optimizer_create(&config, other->param_count, NULL, &optimizer));
    CHECK_ERR(opd_checkpoint_read_moments(r.path, other, optimizer, NULL), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "m.model.embed_tokens.weight");
    spoil(&r, "optimizer.safetensors", "short");
    CHECK_ERR(opd_checkpoint_read_moments(r.path, r.model, optimizer, NULL), OPD_ERR_PARSE);
    spoil(&r, "optimizer.safetensors", NULL);
    CHECK_ERR(opd_checkpoint_read_moments(r.path, r.model, optimizer, NULL), OPD_ERR_NOT_FOUND);
    opd_optimizer_destroy(optimizer);
    opd_model_destroy(other);
    rig_down(&r);
}

/* ---- the actor ---- */

typedef struct asker {
    opd_checkpoint_config config;
    opd_pid checkpoint;
    const rig *r;
    opd_err results[2];
    int answers;
} asker;

static asker *ask; /* of the running case */

static opd_err answer(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)state;
    opd_saved_fields f;
    if (err == OPD_OK) CHECK_OK(opd_message_read(reply, OPD_MESSAGE_SAVED, &f));
    if (err == OPD_OK) CHECK_INT(f.step, 6);
    ask->results[(uintptr_t)arg] = err;
    if (++ask->answers == 2) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err asker_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    (void)config;
    opd_save_fields f = {.step = 6, .group = 48, .optimizer_step = 12, .samples = 5,
                         .before_correct = 3, .before_total = 9};
    size_t size = 3 * ask->r->model->param_count * sizeof(float);
    OPD_TRY(opd_slice_copy(NULL, ask->r->state, size, &f.state));
    for (uintptr_t i = 0; i < 2; i++) /* the second comes while the first is written */
        CHECK_OK(opd_message_request(ctx, ask->checkpoint, OPD_MESSAGE_SAVE, &f, OPD_NO_DEADLINE,
                                     answer, (void *)i, NULL));
    opd_buf_release(f.state.buf);
    return OPD_OK;
}

static void run_actor(const rig *r, const char *dir, opd_err want) {
    static const opd_actor_class asker_class = {.name = "trainer", .on_start = asker_start};
    opd_test_sys t;
    opd_lane *disk;
    opd_pid pid;
    sys_up(&t, NULL);
    CHECK_OK(opd_lane_open(t.system, "disk", 2, &disk));
    asker a = {.config = {.dir = dir, .model = r->model, .tokenizer = r->tokenizer,
                          .seed = UINT32_MAX, .keep = 1, .disk = disk, .alloc = &t.memory.alloc},
               .r = r};
    ask = &a;
    CHECK_OK(opd_spawn(t.system, &opd_checkpoint_class, NULL, &a.config, &a.checkpoint));
    CHECK_OK(opd_spawn(t.system, &asker_class, NULL, NULL, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(a.answers, 2);
    CHECK_INT(a.results[0], want);
    CHECK_INT(a.results[1], OPD_ERR_AGAIN);
    sys_down(&t);
}

TEST(the_actor_answers_when_the_checkpoint_is_in_place) {
    rig r;
    rig_up(&r);
    run_actor(&r, r.dir, OPD_OK);
    check_content(&r, 6);
    run_actor(&r, "/proc/opd-cannot-be-made", OPD_ERR_NOT_FOUND); /* an answer, not the actor's end */
    rig_down(&r);
}

/* The best one and the one that is being measured stay besides the newest. */
TEST(the_best_and_the_judged_are_kept) {
    rig r;
    rig_up(&r);
    for (uint64_t step = 1; step <= 9; step++) {
        opd_checkpoint_state info = {.step = step, .best_step = step >= 3 ? 2 : 0, .best_1e9 = 7,
                                     .judged_step = step >= 6 && step < 9 ? 5 : 0};
        CHECK_OK(opd_checkpoint_write(r.dir, r.model, NULL, r.tokenizer, &info, r.state, 2, NULL));
        char path[OPD_PATH_SIZE];
        opd_checkpoint_path(r.dir, 5, path);
        if (step >= 5) CHECK(opd_file_exists(path) == (step < 9));
    }
    CHECK_INT(entries(&r), 3); /* 2, 8 and 9 */
    opd_checkpoint_path(r.dir, 2, r.path);
    CHECK(opd_file_exists(r.path));
    opd_checkpoint_state info;
    opd_checkpoint_path(r.dir, 9, r.path);
    CHECK_OK(opd_checkpoint_read(r.path, NULL, &info));
    CHECK(info.best_step == 2 && info.best_1e9 == 7 && info.judged_step == 0);
    rig_down(&r);
}
