/* fuzz_tokenizer.c - tokenizer.json on hostile bytes: what it accepts encodes and decodes. */
#include <stdlib.h>
#include <string.h>

#include "models/tokenizer.h"
#include "tests/fuzz/fuzz.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("{\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"lstrip\":false}],\"normalizer\":null,"
                  "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                  "\"model\":{\"type\":\"BPE\",\"vocab\":{\"A\":3,\"\\u0120\":4},\"merges\":[]}}"),
    {NULL, 0}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    opd_tokenizer *t;
    const char *text = (const char *)data;
    if (opd_tokenizer_parse(text, size_bytes, text, size_bytes, NULL, &t) == OPD_OK) {
        int32_t *ids = malloc((size_bytes + 1) * sizeof *ids);
        size_t count;
        opd_str out;
        if (ids == NULL) abort();
        opd_str_init(&out, NULL, size_bytes + 1);
        if (opd_tokenizer_encode(t, text, size_bytes, true, ids, size_bytes, &count) != OPD_OK) abort();
        opd_tokenizer_decode(t, ids, count, false, &out);
        if (out.size != size_bytes || memcmp(out.data, text, size_bytes) != 0) abort();
        opd_str_fini(&out);
        free(ids);
        opd_tokenizer_destroy(t);
    }
    return 0;
}
