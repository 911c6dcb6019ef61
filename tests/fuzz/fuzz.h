/* fuzz.h - what a fuzz target provides; see fuzz_main.c.
 *
 * The same file runs under libFuzzer (cmake --preset fuzz) and, in every test run, under a
 * short seeded mutation of its seeds.
 */
#ifndef OPD_TESTS_FUZZ_FUZZ_H
#define OPD_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Valid inputs to mutate, ended by an entry whose data is NULL. */
typedef struct opd_fuzz_seed {
    const char *data;
    size_t size_bytes;
} opd_fuzz_seed;
extern const opd_fuzz_seed opd_fuzz_seeds[];

#define OPD_FUZZ_SEED(text) {text, sizeof(text) - 1}

/* Feeds one input to the code under test; returns 0. Any crash is a finding. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

#endif
