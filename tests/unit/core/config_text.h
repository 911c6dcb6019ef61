/* config_text.h - loading configurations from texts inside tests. */
#ifndef OPD_TESTS_UNIT_CORE_CONFIG_TEXT_H
#define OPD_TESTS_UNIT_CORE_CONFIG_TEXT_H

#include "opd/config.h"

/* The least that an rl stage with an external teacher needs; 11 lines. */
#define RL_TEXT                                            \
    "model: {path: m}\n"                                   \
    "data: {path: d.jsonl}\n"                              \
    "teachers:\n"                                          \
    "  big:\n"                                             \
    "    url: http://127.0.0.1:30000\n"                    \
    "opd:\n"                                               \
    "  enabled: true\n"                                    \
    "  type: sglang\n"                                     \
    "rollout:\n"                                           \
    "  samples_per_prompt: 4\n"                            \
    "train: {steps: 100}\n"

/* A recipe of three stages. */
#define STAGES_TEXT                                        \
    "run: {seed: 7}\n"                                     \
    "model: {init: {hidden_size: 64, intermediate_size: 128, layers: 2, heads: 4}}\n" \
    "data: {path: \"@stages.problems.train\"}\n"           \
    "train: {lr: 1e-3, epochs: 2}\n"                       \
    "teachers: {big: {path: \"@stages.teacher.checkpoint\"}}\n" \
    "stages:\n"                                            \
    "  - name: problems\n"                                 \
    "    kind: arithmetic\n"                               \
    "    arithmetic: {splits: {train: 100, test: 20}}\n"   \
    "  - name: teacher\n"                                  \
    "    kind: sft\n"                                      \
    "    train: {lr: 2e-3}\n"                              \
    "  - name: distill\n"                                  \
    "    kind: rl\n"                                       \
    "    model: {path: \"@stages.teacher.checkpoint\"}\n"  \
    "    rollout: {samples_per_prompt: 2}\n"               \
    "    train: {steps: 50}\n"                             \
    "    opd: {enabled: true, type: sglang, only_reward: true}\n"

/* Loads `text` as "t.yaml" with the arguments in `args`, a NULL-terminated list of flags
 * (NULL: none). */
opd_err config_load(const char *text, const char *const *args, opd_config **out);

/* The same, which must succeed. The caller destroys the result. */
opd_config *config_get(const char *text, const char *const *args);

/* Loads what must fail with `expected`, and checks that the error's text is `message`. */
void config_fails(const char *text, const char *const *args, opd_err expected,
                  const char *message);

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define FAILS(text, message) config_fails(text, NULL, OPD_ERR_CONFIG, message)
#define FAILS_WITH(text, args, message) config_fails(text, args, OPD_ERR_CONFIG, message)

#endif
