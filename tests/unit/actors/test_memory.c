/* test_memory.c - whole stages under an allocator that counts bytes: never more than the ceiling
 * that the log states, and the parts follow from what they should. */
#include "actors/run/memory.h"

#include <stdatomic.h>
#include <unistd.h>

#include "actors/pipeline.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/str.h"
#include "tests/support/folder.h"
#include "tests/support/test.h"

enum { HEADER = 16, ROWS = 12, PATH = 256 };

/* ---- an allocator that knows its bytes ------------------------------------------------- */

typedef struct meter {
    opd_alloc alloc;
    atomic_long bytes, bytes_max;
} meter;

static void *meter_resize(void *context, void *ptr, size_t size_bytes) {
    meter *m = context;
    char *block = ptr == NULL ? NULL : (char *)ptr - HEADER;
    long old = block == NULL ? 0 : *(long *)(void *)block;
    if (size_bytes == 0) {
        atomic_fetch_sub(&m->bytes, old);
        free(block);
        return NULL;
    }
    block = realloc(block, size_bytes + HEADER);
    CHECK(block != NULL);
    *(long *)(void *)block = (long)size_bytes;
    long now = atomic_fetch_add(&m->bytes, (long)size_bytes - old) + (long)size_bytes - old;
    long most = atomic_load(&m->bytes_max);
    while (now > most && !atomic_compare_exchange_weak(&m->bytes_max, &most, now)) continue;
    return block + HEADER;
}

/* ---- a stage in a folder of its own ---------------------------------------------------- */

typedef struct files {
    char dir[64], data[PATH], teacher[PATH], checkpoints[PATH];
} files;

static void write_data(const files *f) {
    opd_str text;
    opd_str_init(&text, NULL, 1 << 16);
    for (int i = 0; i < ROWS; i++)
        opd_str_printf(&text, "{\"prompt\": \"%d+%d=\", \"label\": \"%d\"}\n", i, i, 2 * i);
    CHECK_OK(opd_str_status(&text));
    CHECK_OK(opd_file_write_atomic(f->data, text.data, text.size));
    opd_str_fini(&text);
}

static void write_teacher(const char *dir) {
    opd_model_config config = {.vocab_size = 259, .hidden_size = 32, .intermediate_size = 48,
                               .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 8,
                               .max_position = 128, .rope_theta = 1e4, .rms_eps = 1e-5,
                               .tie_embeddings = true, .bos_id = 1, .eos_id = 2, .pad_id = 0};
    CHECK_OK(folder_write_model(dir, &config));
}

static void files_open(files *f) {
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/opd-memory-XXXXXX");
    CHECK(mkdtemp(f->dir) != NULL);
    CHECK_OK(opd_path_join(f->data, PATH, f->dir, "data.jsonl"));
    CHECK_OK(opd_path_join(f->teacher, PATH, f->dir, "teacher"));
    CHECK_OK(opd_path_join(f->checkpoints, PATH, f->dir, "checkpoints"));
    write_data(f);
    write_teacher(f->teacher);
}

static opd_config *load_with(const files *f, int slots, int max_response_len, int width,
                             const char *train) {
    char yaml[2048];
    opd_config *config;
    int size = snprintf(yaml, sizeof yaml,
        "run: {seed: 3, metrics_interval: 1, samples_interval: 1}\n"
        "model: {init: {hidden_size: %d, intermediate_size: %d, layers: 2, heads: 4, kv_heads: 2, "
        "max_position: 128}}\n"
        "data: {path: %s}\n"
        "rollout: {batch_prompts: 3, samples_per_prompt: 4, max_response_len: %d, "
        "max_staleness: 1, slots: %d}\n"
        "reward: {type: math}\n"
        "opd: {enabled: true, type: megatron, log_prob_top_k: 2}\n"
        "teachers: {t: {path: %s}}\n"
        "train: {steps: 3, lr: 0.001, save_interval: 2, keep: 1%s}\n",
        width, 2 * width, f->data, max_response_len, slots, f->teacher, train);
    CHECK(size > 0 && (size_t)size < sizeof yaml);
    CHECK_OK(opd_config_load_text(NULL, "memory.yaml", yaml, (size_t)size, NULL, &config));
    return config;
}

static opd_config *load(const files *f, int slots, int max_response_len, int width) {
    return load_with(f, slots, max_response_len, width, "");
}

/* Runs the stage and returns the ceiling; *out_most: what was allocated at once; *out_pool: what
 * of the runtime's part is allocated however little goes on. */
static opd_memory run_stage(const files *f, opd_config *config, uint64_t *out_most,
                            uint64_t *out_pool) {
    meter m = {.alloc = {.resize = meter_resize, .context = &m}};
    opd_assets assets;
    opd_trainer_outcome outcome = {.steps = 0};
    CHECK_OK(opd_assets_open(&assets, &config->stages[0], f->checkpoints, false, NULL, &m.alloc));
    opd_memory ceiling = opd_memory_of(&assets);
    opd_pipeline_options options = {.assets = &assets, .checkpoint_dir = f->checkpoints,
                                    .program = "opd", .metrics_fd = -1, .samples_fd = -1,
                                    .screen_fd = -1};
    CHECK_OK(opd_pipeline_execute(&options, &outcome));
    CHECK_INT(outcome.steps, 3);
    *out_pool = (uint64_t)assets.sizes.messages_max * 640 + (1 << 20);
    opd_assets_close(&assets);
    CHECK_INT(atomic_load(&m.bytes), 0);
    *out_most = (uint64_t)atomic_load(&m.bytes_max);
    return ceiling;
}

static void check_stage_with(int slots, int max_response_len, int width, const char *train) {
    files f;
    files_open(&f);
    opd_config *config = load_with(&f, slots, max_response_len, width, train);
    uint64_t most = 0, pool = 0;
    opd_memory ceiling = run_stage(&f, config, &most, &pool);
    opd_memory_log("test", &ceiling);
    (void)fprintf(stderr, "allocated at most: %.2f MiB\n", (double)most / (1 << 20));
    CHECK(most <= opd_memory_total(&ceiling));
    /* It must hold, too, without what so small a run does not come near to. */
    CHECK(pool < ceiling.runtime);
    CHECK(most <= pool + ceiling.windows + ceiling.batch + ceiling.models + ceiling.compute +
                      ceiling.data);
    CHECK(ceiling.models + ceiling.compute <= 4 * most); /* and is no wild guess */
    opd_config_destroy(config);
    folder_remove(f.dir);
}

static void check_stage(int slots, int max_response_len, int width) {
    check_stage_with(slots, max_response_len, width, "");
}

TEST(a_small_stage_stays_below_its_ceiling) { check_stage(2, 8, 16); }

/* A second engine and the weights of the version that is evaluated. */
TEST(evaluations_beside_the_training_stay_below_the_ceiling) {
    files f;
    char more[512];
    files_open(&f);
    (void)snprintf(more, sizeof more, "}\neval: {require_disjoint: false, interval: 1, samples: 3, path: %s", f.data);
    opd_config *config = load_with(&f, 24, 60, 32, more);
    uint64_t most = 0, pool = 0;
    opd_memory ceiling = run_stage(&f, config, &most, &pool);
    CHECK(most <= pool + ceiling.windows + ceiling.batch + ceiling.models + ceiling.compute +
                      ceiling.data);
    CHECK(ceiling.models + ceiling.compute <= 4 * most);
    opd_config_destroy(config);
    folder_remove(f.dir);
}

TEST(a_stage_of_many_slots_stays_below_its_ceiling) { check_stage(24, 60, 32); }

TEST(a_stage_of_a_wider_model_stays_below_its_ceiling) { check_stage(4, 20, 160); }

/* A reference is one more model, a critic has states of its own. */
TEST(a_stage_with_reference_and_critic_stays_below_its_ceiling) {
    check_stage_with(4, 20, 160, ", estimator: ppo, kl_loss_coef: 0.1");
}

/* The student as its own teacher: its newest weights, questions with another prompt, lists of both. */
TEST(a_stage_that_teaches_itself_stays_below_its_ceiling) {
    files f;
    char yaml[2048];
    opd_config *config;
    uint64_t most = 0, pool = 0;
    files_open(&f);
    int size = snprintf(yaml, sizeof yaml,
        "run: {seed: 3, metrics_interval: 1, samples_interval: 1}\n"
        "model: {path: %s}\n"
        "data: {path: %s, privileged_template: '{label} is the sum that is asked for here: {prompt}'}\n"
        "rollout: {batch_prompts: 3, samples_per_prompt: 4, max_response_len: 60, max_staleness: 1, slots: 24}\n"
        "reward: {type: math}\n"
        "opd: {enabled: true, type: megatron, signal: topk, support: union, log_prob_top_k: 100}\n"
        "teachers: {t: {student: current, chunk_tokens: 8}}\n"
        "train: {steps: 3, lr: 0.001, save_interval: 2, keep: 1}\n", f.teacher, f.data);
    CHECK(size > 0 && (size_t)size < sizeof yaml);
    CHECK_OK(opd_config_load_text(NULL, "memory.yaml", yaml, (size_t)size, NULL, &config));
    config->stages[0].teachers[0].path = f.teacher; /* as opd_config_stage_resolve does */
    opd_memory ceiling = run_stage(&f, config, &most, &pool);
    opd_memory_log("test", &ceiling);
    (void)fprintf(stderr, "allocated at most: %.2f MiB\n", (double)most / (1 << 20));
    CHECK(most <= pool + ceiling.windows + ceiling.batch + ceiling.models + ceiling.compute + ceiling.data);
    opd_config_destroy(config);
    folder_remove(f.dir);
}

/* ---- what each part follows from ------------------------------------------------------- */

static opd_memory ceiling_of(const files *f, int slots, int max_response_len, int width) {
    opd_config *config = load(f, slots, max_response_len, width);
    opd_assets assets;
    CHECK_OK(opd_assets_open(&assets, &config->stages[0], f->checkpoints, false, NULL, NULL));
    opd_memory ceiling = opd_memory_of(&assets);
    opd_assets_close(&assets);
    opd_config_destroy(config);
    return ceiling;
}

TEST(the_parts_follow_the_configuration) {
    files f;
    files_open(&f);
    opd_memory base = ceiling_of(&f, 4, 20, 32), slots = ceiling_of(&f, 40, 20, 32),
               longer = ceiling_of(&f, 4, 60, 32), wider = ceiling_of(&f, 4, 20, 64);
    CHECK(slots.compute > base.compute && slots.models == base.models);
    CHECK(longer.windows > base.windows && longer.batch > base.batch);
    CHECK(longer.models == base.models);
    CHECK(wider.models > base.models && wider.compute > base.compute);
    CHECK(wider.windows == base.windows && wider.runtime == base.runtime);
    CHECK(base.http == 0); /* the teacher is in this process */
    CHECK(opd_memory_total(&base) > base.runtime + base.monitor);
    folder_remove(f.dir);
}
