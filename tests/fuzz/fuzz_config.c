/* fuzz_config.c - any bytes as a configuration file: an error or a configuration, and then its
 * effective YAML loads again to the same text. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "core/base/check.h"
#include "opd/config.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("model: {path: m}\ndata: {path: d}\nteachers:\n  big: {url: 'http://h:1'}\n"
                  "opd: {enabled: true, type: sglang, kl_coef: 0.5}\ntrain: {steps: 3}\n"),
    OPD_FUZZ_SEED("run: {seed: 7}\nmodel: {init: {hidden_size: 8, intermediate_size: 8, layers: 1, "
                  "heads: 2}}\ndata: {path: \"@stages.a.x\"}\nstages:\n- {name: a, kind: "
                  "arithmetic, arithmetic: {splits: {x: 1}}}\n- {name: b, kind: sft}\n"),
    {NULL, 0},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    opd_config *config = NULL, *again = NULL;
    char *yaml = NULL, *yaml_again = NULL;
    if (opd_config_load_text(NULL, "f.yaml", (const char *)data, size_bytes, NULL, &config) !=
        OPD_OK) {
        OPD_ASSERT(opd_err_context()[0] != 0);
        return 0;
    }
    OPD_ASSERT(opd_config_yaml(NULL, config, (size_bytes & 1) != 0, &yaml) == OPD_OK);
    OPD_ASSERT(opd_config_load_text(NULL, "f.yaml", yaml, strlen(yaml), NULL, &again) == OPD_OK);
    OPD_ASSERT(opd_config_yaml(NULL, again, (size_bytes & 1) != 0, &yaml_again) == OPD_OK);
    OPD_ASSERT(strcmp(yaml, yaml_again) == 0);
    opd_mem_free(NULL, yaml);
    opd_mem_free(NULL, yaml_again);
    opd_config_destroy(config);
    opd_config_destroy(again);
    return 0;
}
