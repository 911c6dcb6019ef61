/* models/model_config.h - config.json and generation_config.json of a model directory.
 *
 * Format: Hugging Face transformers. Only architectures that the graph computes are
 * accepted (LlamaForCausalLM without biases and without RoPE scaling); anything else is
 * refused by name rather than computed wrongly. Unknown keys are ignored, as they are
 * elsewhere.
 * Thread: any; blocking file calls. Memory: results are plain data, nothing to free.
 */
#ifndef OPD_MODELS_MODEL_CONFIG_H
#define OPD_MODELS_MODEL_CONFIG_H

#include "models/model.h"

enum { OPD_EOS_IDS_MAX = 8 };

/* Defaults for generation, and every id that ends it. */
typedef struct opd_generation_config {
    double temperature; /* 1                                                  */
    double top_p;       /* 1 = off                                            */
    int32_t top_k;      /* 0 = off                                            */
    int32_t bos_id, pad_id;           /* -1 = none                            */
    int32_t eos_ids[OPD_EOS_IDS_MAX]; /* the first is the model's eos_id      */
    int32_t eos_count;
} opd_generation_config;

/* Reads dir/config.json and checks it (opd_model_config_check).
 * Errors: NOT_FOUND, PARSE (with the byte), UNSUPPORTED (architecture or feature, named),
 * INVALID (a value, named). */
OPD_MUST_CHECK opd_err opd_model_config_read(const char *dir, opd_model_config *out_config);

/* Writes dir/config.json for LlamaForCausalLM, float32, atomically. Errors: IO, DISK. */
OPD_MUST_CHECK opd_err opd_model_config_write(const opd_model_config *config, const char *dir);

/* Reads dir/generation_config.json; where the file or a key is missing, the values of
 * `config` and the defaults above stand. Errors: PARSE, INVALID. */
OPD_MUST_CHECK opd_err opd_generation_config_read(const char *dir, const opd_model_config *config,
                                                  opd_generation_config *out_config);

/* Writes dir/generation_config.json, atomically. Errors: IO, DISK. */
OPD_MUST_CHECK opd_err opd_generation_config_write(const opd_generation_config *config,
                                                   const char *dir);

#endif
