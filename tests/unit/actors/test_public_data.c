/* test_public_data.c - public data sets of several shapes load with a few lines of YAML each, where
 * OPD_TEST_DATA says they are. */
#include <stdlib.h>

#include "actors/dataset/dataset.h"
#include "core/base/file.h"
#include "tests/support/test.h"

typedef struct set {
    const char *file, *yaml;
    size_t rows;
    const char *begins, *label; /* of the first row */
} set;

static const set SETS[] = {
    {"gsm8k-train.jsonl", "prompt_key: question\n  label_key: answer\n", 7473,
     "Natalia sold clips to 48 of her friends", "Natalia sold 48/2"},
    {"gsm8k-test.jsonl", "prompt_template: 'Question: {question}\\nAnswer: '\n  label_key: answer\n", 1319,
     "Question: Janet\xe2\x80\x99s ducks lay 16 eggs", "Janet sells"},
    {"gsm8k-model-solutions.jsonl",
     "prompt_key: question\n  label_key: ground_truth\n  response_key: 175b_verification.solution\n", 1319,
     "Janet\xe2\x80\x99s ducks", "Janet sells"},
    {"mawps.jsonl", "prompt_key: input\n  label_key: target\n", 2065, "Joan found 70 seashells", "43.0"},
    {"svamp.jsonl", "prompt_template: '{Body}. {Question}'\n  label_key: Answer\n", 1000,
     "There are 87 oranges and 290 bananas", "145.0"},
    {"amc23.jsonl", "prompt_key: problem\n  label_key: answer\n", 40, "Cities $A$ and $B$ are $45$ miles", "27.0"},
    {"minerva-math.jsonl", "prompt_key: problem\n  label_key: solution\n", 272,
     "Each of the two Magellan telescopes has a diameter of $6.5 \\mathrm{~m}$", "The equation"}};

static void check_set(const char *folder, const set *s) {
    char path[OPD_PATH_SIZE], yaml[OPD_PATH_SIZE + 512];
    opd_config *config;
    opd_tokenizer *tokenizer;
    opd_dataset *dataset;
    uint64_t epoch;
    CHECK_OK(opd_path_join(path, sizeof path, folder, s->file));
    int size = snprintf(yaml, sizeof yaml, "run: {kind: sft}\nmodel: {path: m}\ndata:\n  path: %s\n  %s", path,
                        s->yaml);
    CHECK_OK(opd_config_load_text(NULL, "t.yaml", yaml, (size_t)size, NULL, &config));
    const opd_config_data *d = &config->stages[0].data;
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &tokenizer));
    opd_dataset_options options = {.path = d->path, .keys = opd_dataset_keys(&d->record),
                                   .max_len = 1 << 20, .tokenizer = tokenizer};
    options.keys.label = d->record.label_key;
    if (strstr(s->yaml, "response_key") != NULL) options.keys.response = d->record.response_key;
    CHECK_OK(opd_dataset_open(&options, &dataset));
    CHECK_INT(dataset->count, s->rows);
    const opd_row *row = opd_dataset_row(dataset, 0, &epoch);
    CHECK(strncmp(row->prompt, s->begins, strlen(s->begins)) == 0);
    CHECK(strncmp(row->label, s->label, strlen(s->label)) == 0 || strlen(s->label) > 8);
    opd_dataset_close(dataset);
    opd_tokenizer_destroy(tokenizer);
    opd_config_destroy(config);
}

TEST(every_file_loads_from_a_few_lines) {
    const char *folder = getenv("OPD_TEST_DATA");
    if (folder == NULL) SKIP("OPD_TEST_DATA is not set");
    for (size_t i = 0; i < sizeof SETS / sizeof SETS[0]; i++) check_set(folder, &SETS[i]);
}
