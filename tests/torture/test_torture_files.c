/* test_torture_files.c - a checkpoint, with every call that writes failing in turn: at any
 * point the old state or the new one is there and whole, and the next attempt succeeds. */
#include <dirent.h>
#include <unistd.h>

#include "actors/checkpoint/checkpoint.h"
#include "core/base/file.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"
#include "tests/torture/torture.h"
#include "tests/unit/actors/tiny.h"

static const uint64_t DISK = TORTURE_ERR(OPD_ERR_IO) | TORTURE_ERR(OPD_ERR_DISK);

typedef struct rig {
    char dir[32];
    opd_model *model;
    opd_tokenizer *tokenizer;
    float *state;
    uint64_t written; /* the latest whole checkpoint's mark, see mark() */
    uint64_t trying;
    uint64_t step;
} rig;

static void rig_up(rig *r) {
    *r = (rig){.dir = "/tmp/opd-torture-XXXXXX"};
    CHECK(mkdtemp(r->dir) != NULL);
    r->model = tiny_model(259, 2, 3);
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &r->tokenizer));
    r->state = calloc(3 * r->model->param_count, sizeof *r->state);
    CHECK(r->state != NULL);
}

static void rig_down(rig *r) {
    folder_remove(r->dir);
    free(r->state);
    opd_tokenizer_destroy(r->tokenizer);
    opd_model_destroy(r->model);
}

/* The mark of an attempt stands in the counts, the weights and both moments. */
static opd_err write_marked(rig *r, uint64_t step) {
    opd_checkpoint_state info = {.step = step, .samples = r->trying};
    size_t n = r->model->param_count;
    r->state[0] = r->state[n] = r->state[2 * n] = (float)r->trying;
    return opd_checkpoint_write(r->dir, r->model, NULL, r->tokenizer, &info, r->state, 2, NULL);
}

/* Opens the newest checkpoint as a resumed run would; returns its mark. */
static uint64_t read_mark(const rig *r) {
    char path[OPD_PATH_SIZE];
    uint64_t step = 0;
    opd_checkpoint_state info;
    opd_model *model = NULL;
    opd_tokenizer *tokenizer = NULL;
    opd_optimizer *optimizer = NULL;
    opd_optimizer_config config = opd_optimizer_config_default();
    CHECK_OK(opd_checkpoint_newest(r->dir, &step));
    opd_checkpoint_path(r->dir, step, path);
    CHECK_OK(opd_checkpoint_read(path, NULL, &info));
    CHECK_INT(info.step, step);
    CHECK_OK(opd_model_open(path, NULL, &model));
    CHECK_OK(opd_tokenizer_open(path, NULL, &tokenizer));
    CHECK_OK(opd_optimizer_create(&config, model->param_count, NULL, &optimizer));
    CHECK_OK(opd_checkpoint_read_moments(path, model, optimizer, NULL));
    CHECK_INT(model->params[0], info.samples);
    CHECK_INT(optimizer->m[0], info.samples);
    CHECK_INT(optimizer->v[0], info.samples);
    opd_optimizer_destroy(optimizer);
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    return info.samples;
}

/* Names in the folder; what is half-written begins with a dot. */
static int half_written(const rig *r) {
    DIR *folder = opendir(r->dir);
    int count = 0;
    CHECK(folder != NULL);
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder))
        count += e->d_name[0] == '.' && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    CHECK_INT(closedir(folder), 0);
    return count;
}

/* The same step again and again, or a new one each time. */
static opd_err write_same_step(const opd_alloc *alloc, void *arg) {
    rig *r = arg;
    (void)alloc;
    r->trying++;
    return write_marked(r, 5);
}

static opd_err write_next_step(const opd_alloc *alloc, void *arg) {
    rig *r = arg;
    (void)alloc;
    r->trying++;
    return write_marked(r, ++r->step);
}

static void check_disk(void *arg, opd_err err) {
    rig *r = arg;
    uint64_t mark = read_mark(r);
    if (err == OPD_OK) CHECK_INT(mark, r->trying);
    else CHECK(mark == r->written || mark == r->trying);
    CHECK_INT(half_written(r), 0);
    r->written = mark;
}

TEST(a_checkpoint_of_the_same_step_replaces_the_old_one_or_leaves_it) {
    rig r;
    rig_up(&r);
    CHECK_OK(write_same_step(NULL, &r));
    r.written = r.trying;
    torture_files(write_same_step, check_disk, &r, DISK);
    rig_down(&r);
}

TEST(a_checkpoint_is_replaced_where_names_cannot_be_exchanged) {
    rig r;
    rig_up(&r);
    torture_files_exchange(false);
    CHECK_OK(write_same_step(NULL, &r));
    r.written = r.trying;
    torture_files(write_same_step, check_disk, &r, DISK);
    rig_down(&r);
}

TEST(a_checkpoint_of_a_new_step_appears_whole_or_not_at_all) {
    rig r;
    rig_up(&r);
    CHECK_OK(write_next_step(NULL, &r));
    r.written = r.trying;
    torture_files(write_next_step, check_disk, &r, DISK);
    rig_down(&r);
}

/* ---- one file -------------------------------------------------------------------------- */

static opd_err write_file(const opd_alloc *alloc, void *arg) {
    rig *r = arg;
    char path[64], text[128];
    (void)alloc;
    r->trying++;
    (void)snprintf(path, sizeof path, "%s/file", r->dir);
    memset(text, 'a' + (int)(r->trying % 26), sizeof text);
    return opd_file_write_atomic(path, text, sizeof text);
}

static void check_file(void *arg, opd_err err) {
    rig *r = arg;
    char path[64], *text = NULL;
    size_t size = 0;
    (void)snprintf(path, sizeof path, "%s/file", r->dir);
    CHECK_OK(opd_file_read(NULL, path, 1000, &text, &size));
    CHECK_INT(size, 128);
    for (size_t i = 1; i < size; i++) CHECK_INT(text[i], text[0]);
    if (err == OPD_OK) CHECK_INT(text[0], 'a' + (int)(r->trying % 26));
    opd_mem_free(NULL, text);
    DIR *folder = opendir(r->dir);
    int count = 0;
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) count++;
    CHECK_INT(closedir(folder), 0);
    CHECK_INT(count, 3); /* ".", "..", the file: nothing temporary */
}

TEST(a_file_is_replaced_as_a_whole_or_not_at_all) {
    rig r;
    rig_up(&r);
    CHECK_OK(write_file(NULL, &r));
    torture_files(write_file, check_file, &r, DISK);
    rig_down(&r);
}
