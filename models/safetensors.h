/* models/safetensors.h - weights in *.safetensors files and whole model directories.
 *
 * Format (github.com/huggingface/safetensors): 8 bytes little-endian header size, a JSON
 * header {name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {...}}, then the
 * data; offsets count from the end of the header. Nothing in the header is believed: sizes,
 * shapes, dtypes, overlaps and offsets are checked against each other and the file's size
 * before the first weight is touched.
 *
 * Thread: any; blocking file calls. Memory: what open returns is closed by its caller.
 */
#ifndef OPD_MODELS_SAFETENSORS_H
#define OPD_MODELS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "models/model.h"
#include "opd/alloc.h"
#include "opd/err.h"

typedef enum opd_dtype_file { OPD_DTYPE_FILE_F32, OPD_DTYPE_FILE_BF16, OPD_DTYPE_FILE_F16 } opd_dtype_file;

enum { OPD_SAFETENSORS_RANK_MAX = 4 };

/* One tensor inside an open file. */
typedef struct opd_safetensor {
    char *name;
    opd_dtype_file dtype;
    int32_t rank;
    size_t shape[OPD_SAFETENSORS_RANK_MAX]; /* unused entries are 1 */
    size_t count;                           /* elements             */
    size_t offset_bytes;                    /* in the file          */
    size_t size_bytes;
} opd_safetensor;

typedef struct opd_safetensors opd_safetensors;

/* Opens and checks a file; its data are mapped, not read.
 * Errors: NOT_FOUND, IO, NOMEM, PARSE (a lying or broken header: file and tensor named),
 * UNSUPPORTED (a dtype, named). */
OPD_MUST_CHECK opd_err opd_safetensors_open(const char *path, const opd_alloc *alloc,
                                            opd_safetensors **out_file);

/* As open, over bytes in memory, which must outlive it (for tests and fuzzing). */
OPD_MUST_CHECK opd_err opd_safetensors_parse(const void *bytes, size_t size_bytes,
                                             const opd_alloc *alloc, opd_safetensors **out_file);

/* Closes; NULL is legal. */
void opd_safetensors_close(opd_safetensors *file);

size_t opd_safetensors_count(const opd_safetensors *file);

/* Tensor i < count, in the order of the header. */
const opd_safetensor *opd_safetensors_at(const opd_safetensors *file, size_t i);

/* The tensor of that name, or NULL. */
const opd_safetensor *opd_safetensors_find(const opd_safetensors *file, const char *name);

/* Converts the tensor to out[tensor->count]. BF16 and F16 convert exactly. */
void opd_safetensors_read(const opd_safetensors *file, const opd_safetensor *tensor, float *out);

/* Writes `count` float32 tensors (tensors[i] describes params + tensors[i].offset) as one
 * file with metadata {"format": "pt"}: temporary file beside it, fsync, rename. A crash or a
 * full disk leaves the old file. Errors: IO, DISK (full disk, path and remedy named), NOMEM. */
OPD_MUST_CHECK opd_err opd_safetensors_write(const char *path, const opd_tensor *tensors,
                                             size_t count, const float *params);

/* Loads a Hugging Face directory: config.json and model.safetensors (or the files of
 * model.safetensors.index.json). Every tensor of the model must be there in its shape and no
 * other (a tied model may carry lm_head.weight; rotary_emb.inv_freq is ignored).
 * alloc: kept by the model, may be NULL. *out_model: caller destroys.
 * Errors: those of opd_model_config_read and opd_safetensors_open; MISMATCH (tensor named). */
OPD_MUST_CHECK opd_err opd_model_open(const char *dir, const opd_alloc *alloc,
                                      opd_model **out_model);

/* Writes config.json, generation_config.json and model.safetensors into dir, making it.
 * The tokenizer's files are opd_tokenizer_save's. Errors: IO, DISK, NOMEM. */
OPD_MUST_CHECK opd_err opd_model_save(const opd_model *model, const char *dir);

#endif
