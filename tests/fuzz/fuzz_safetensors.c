/* fuzz_safetensors.c - the safetensors reader on hostile bytes: what it accepts can be read
 * whole, tensor by tensor, without leaving the bytes. */
#include <stdlib.h>

#include "models/safetensors.h"
#include "tests/fuzz/fuzz.h"

#define HEADER "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}"

_Static_assert(sizeof HEADER - 1 == 111, "the size byte of the first seed");
const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("\x6f\0\0\0\0\0\0\0" HEADER "0123456789ab"),
    OPD_FUZZ_SEED("\x02\0\0\0\0\0\0\0{}"),
    {NULL, 0}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    opd_safetensors *file;
    if (opd_safetensors_parse(data, size_bytes, NULL, &file) != OPD_OK) return 0;
    for (size_t i = 0; i < opd_safetensors_count(file); i++) {
        const opd_safetensor *t = opd_safetensors_at(file, i);
        if (t->count > size_bytes || opd_safetensors_find(file, t->name) != t) abort();
        float *values = malloc((t->count + 1) * sizeof *values);
        if (values == NULL) abort();
        opd_safetensors_read(file, t, values);
        free(values);
    }
    opd_safetensors_close(file);
    return 0;
}
