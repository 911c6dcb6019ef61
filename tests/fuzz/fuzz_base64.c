/* fuzz_base64.c - base64 written and read back, and read in pieces against a decoder that looks each character up, on hostile texts. */
#include <stdlib.h>
#include <string.h>

#include "core/codec/base64.h"
#include "tests/fuzz/fuzz.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {OPD_FUZZ_SEED("AACAvwAAAMAAAMC/AAAgwAAAgMDNzIzA"), OPD_FUZZ_SEED("Zm9vYmE="),
                                        OPD_FUZZ_SEED("Zm9vYg=="), OPD_FUZZ_SEED("+/+/"), OPD_FUZZ_SEED(""), {NULL, 0}};

/* The bytes, or -1 where the whole text is no canonical base64. */
static long plain(const char *text, size_t size, uint8_t *out) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    size_t have = 0, pads = 0, out_size = 0;
    if (size % 4 != 0) return -1;
    while (pads < 2 && pads < size && text[size - 1 - pads] == '=') pads++;
    for (size_t i = 0; i < size - pads; i++) {
        const char *at = text[i] == '\0' ? NULL : memchr(alphabet, text[i], 64);
        if (at == NULL) return -1;
        bits = bits << 6 | (uint32_t)(at - alphabet);
        have += 6;
        if (have >= 8) out[out_size++] = (uint8_t)(bits >> (have -= 8));
    }
    return (bits & ((1u << have) - 1)) == 0 ? (long)out_size : -1;
}

static long in_pieces(const char *text, size_t size, size_t piece, size_t room, uint8_t *out) {
    opd_base64 b = {.out = out, .room_bytes = room};
    for (size_t at = 0; at < size; at += piece) {
        const char *from = text + at, *to = from + (size - at < piece ? size - at : piece);
        opd_base64_status status = opd_base64_feed(&b, &from, to);
        if (status == OPD_BASE64_FULL) return -2;
        if (status != OPD_BASE64_OK || from != to) return -1;
    }
    return opd_base64_whole(&b) ? (long)(b.out - out) : -1;
}

/* What is written reads back, whatever it is, and is exactly as long as was said. */
static void round_trip(const uint8_t *bytes, size_t size) {
    size_t text_size = opd_base64_size(size);
    char *text = malloc(text_size + 1);
    uint8_t *again = malloc(size + 1), *want = malloc(text_size + 1);
    if (text == NULL || again == NULL || want == NULL) abort();
    text[text_size] = '!';
    opd_base64_write(bytes, size, text);
    if (text[text_size] != '!') abort();
    if (plain(text, text_size, want) != (long)size || memcmp(want, bytes, size) != 0) abort();
    if (in_pieces(text, text_size, 7, size, again) != (long)size || memcmp(again, bytes, size) != 0) abort();
    free(text);
    free(again);
    free(want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    const char *text = (const char *)data;
    size_t room = size_bytes / 4 * 3 + 3;
    uint8_t *want = calloc(1, room), *got = calloc(1, room);
    if (want == NULL || got == NULL) abort();
    round_trip(data, size_bytes);
    long size = plain(text, size_bytes, want);
    for (size_t piece = 1; piece <= 9; piece++)
        if (in_pieces(text, size_bytes, piece, room, got) != size ||
            (size > 0 && memcmp(want, got, (size_t)size) != 0)) abort();
    if (size > 0) { /* exact room is enough, one byte less is not */
        uint8_t *exact = malloc((size_t)size);
        if (exact == NULL || in_pieces(text, size_bytes, 5, (size_t)size, exact) != size) abort();
        if (in_pieces(text, size_bytes, 5, (size_t)size - 1, exact) != -2) abort();
        free(exact);
    }
    free(want);
    free(got);
    return 0;
}
