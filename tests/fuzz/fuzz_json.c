/* fuzz_json.c - the JSON cursor on hostile bytes: no crash, no read outside, and what it
 * accepts has the same value again when its strings are written and read back. */
#include <stdlib.h>
#include <string.h>

#include "core/codec/json.h"
#include "tests/fuzz/fuzz.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("{\"a\":[1,-2.5e10,true,false,null,\"x\\u00e9\\ud83d\\ude00\\n\"],\"b\":{\"c\":{}}}"),
    OPD_FUZZ_SEED("[[null,1,null],[-0.12345678901234567,22,null],[-1e-30,3,\"t\"]]"),
    OPD_FUZZ_SEED("[123456789012345678901234567890.5e-7,0.00000000000000000000000001,-0]"),
    OPD_FUZZ_SEED("\"plain text long enough for the fast path \xc3\xa9\xe2\x82\xac\\\\\\\"\""),
    {NULL, 0}};

/* A string that was read must survive writing and reading. */
static void check_text(opd_json_text text) {
    char *plain = malloc(text.size_bytes + 1);
    if (plain == NULL) abort();
    size_t size = opd_json_text_unescape(text, plain);
    if (size > text.size_bytes) abort();
    opd_str out;
    opd_json_writer writer;
    opd_json_text again;
    opd_json json;
    opd_str_init(&out, NULL, 1 << 20);
    opd_json_writer_init(&writer, &out, 0);
    opd_json_write_string(&writer, plain, size);
    opd_json_init(&json, out.data, out.size);
    if (!opd_json_read_text(&json, &again)) abort();
    char *copy = malloc(again.size_bytes + 1);
    if (copy == NULL) abort();
    if (opd_json_text_unescape(again, copy) != size || memcmp(copy, plain, size) != 0) abort();
    free(copy);
    free(plain);
    opd_str_fini(&out);
}

static void walk(opd_json *json) {
    opd_json_text text;
    double wide;
    float narrow;
    bool flag;
    opd_json mark;
    switch (opd_json_peek(json)) {
        case OPD_JSON_OBJECT:
            if (!opd_json_object_begin(json)) return;
            while (opd_json_object_next(json, &text)) {
                check_text(text);
                (void)opd_json_text_is(text, "a");
                walk(json);
            }
            return;
        case OPD_JSON_ARRAY:
            if (!opd_json_array_begin(json)) return;
            while (opd_json_array_next(json)) walk(json);
            return;
        case OPD_JSON_STRING:
            if (opd_json_read_text(json, &text)) check_text(text);
            return;
        case OPD_JSON_NUMBER:
            mark = *json;
            (void)opd_json_read_float(&mark, &narrow);
            (void)opd_json_read_double(json, &wide);
            return;
        case OPD_JSON_BOOL: (void)opd_json_read_bool(json, &flag); return;
        default: (void)opd_json_read_null(json); return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes) {
    opd_json json;
    opd_json_init(&json, (const char *)data, size_bytes);
    walk(&json);
    opd_err walked = opd_json_finish(&json);
    opd_json_init(&json, (const char *)data, size_bytes);
    (void)opd_json_skip(&json);
    /* Skipping checks the same grammar; only values too large to read may differ. */
    if (walked == OPD_OK && opd_json_finish(&json) != OPD_OK) abort();
    return 0;
}
