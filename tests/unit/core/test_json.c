/* test_json.c - the JSON cursor and writer: the grammar, numbers, escapes, sticky errors. */
#include "core/base/rng.h"
#include "core/codec/json.h"
#include "tests/support/test.h"

static opd_err check_text(const char *text, size_t size) {
    opd_json json;
    opd_json_init(&json, text, size);
    opd_json_skip(&json);
    return opd_json_finish(&json);
}

#define ACCEPT(text) CHECK_OK(check_text(text, sizeof(text) - 1))
#define REJECT(text, why)                                                   \
    do {                                                                    \
        CHECK_ERR(check_text(text, sizeof(text) - 1), OPD_ERR_PARSE);       \
        CHECK_CONTAINS(opd_err_context(), why);                             \
    } while (0)

TEST(json_accepts_the_grammar) {
    ACCEPT("null");
    ACCEPT(" \t\r\n[ ] ");
    ACCEPT("{}");
    ACCEPT("[[],{},[{}],\"\",0,-0,1.5,1e9,1E+9,1e-9,true,false,null]");
    ACCEPT("{\"a\":{\"b\":[1,2,{\"c\":null}]},\"a\":2}");
    ACCEPT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD834\\uDD1E\\ud800\"");
    ACCEPT("\"\x7f\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\"");
    ACCEPT("[1e400,123456789012345678901234567890]"); /* grammar only: nobody reads them */
}

TEST(json_rejects_all_else) {
    REJECT("", "byte 0: expected a value");
    REJECT(" ", "byte 1: expected a value");
    REJECT("[1,]", "byte 3: expected a value after ','");
    REJECT("[,1]", "byte 1: expected a value");
    REJECT("[1 2]", "byte 3: expected ',' or ']'");
    REJECT("[1", "byte 2: expected ',' or ']'");
    REJECT("[1}", "byte 2: expected ',' or ']'");
    REJECT("{\"a\":1]", "byte 6: expected ',' or '}'");
    REJECT("{\"a\" 1}", "byte 5: expected ':' after a key");
    REJECT("{a:1}", "byte 1: expected a key in quotes");
    REJECT("{\"a\":1,}", "expected a value after ','");
    REJECT("{\"a\":}", "byte 5: expected a value");
    REJECT("1 2", "byte 2: expected nothing after the value");
    REJECT("nul", "expected null");
    REJECT("True", "expected a value");
    REJECT("truE", "expected true or false");
    REJECT("NaN", "expected a value");
    REJECT("-Infinity", "byte 1: expected a digit");
    REJECT("01", "leading 0");
    REJECT("-", "byte 1: expected a digit");
    REJECT("1.", "byte 2: expected a digit");
    REJECT(".5", "expected a value");
    REJECT("+1", "expected a value");
    REJECT("1e", "expected a digit");
    REJECT("1e+", "expected a digit");
    REJECT("0x10", "expected nothing after the value");
    REJECT("\"abc", "byte 4: the string does not end");
    REJECT("\"a\nb\"", "byte 2: a control character in a string");
    REJECT("\"a\0b\"", "byte 2: a control character in a string");
    REJECT("\"\\x\"", "byte 1: no such escape");
    REJECT("\"\\u12g4\"", "byte 1: no such escape");
    REJECT("\"\\u12\"", "byte 1: no such escape");
    REJECT("\"\\", "byte 1: no such escape");
    REJECT("\"\xff\"", "byte 1: bytes that are not UTF-8");
    REJECT("\"\xc0\xaf\"", "not UTF-8");
    REJECT("\"\xed\xa0\x80\"", "not UTF-8");
    REJECT("\"\xf4\x90\x80\x80\"", "not UTF-8");
    REJECT("\"\xe2\x82\"", "not UTF-8");
    REJECT("/**/1", "expected a value");
    REJECT("\xef\xbb\xbf[]", "byte 0: expected a value");
}

TEST(json_depth_is_bounded) {
    char text[4 * OPD_JSON_DEPTH_MAX];
    size_t n = OPD_JSON_DEPTH_MAX;
    memset(text, '[', n);
    memset(text + n, ']', n);
    CHECK_OK(check_text(text, 2 * n));
    memset(text, '[', n + 1);
    memset(text + n + 1, ']', n + 1);
    CHECK_ERR(check_text(text, 2 * n + 2), OPD_ERR_PARSE);
    CHECK_CONTAINS(opd_err_context(), "byte 64: nested too deep");
}

TEST(json_reads_members_by_key) {
    const char *text = "{\"n\":-42,\"\\u0078\":1.25,\"b\":true,\"s\":\"h\\u00e9\\n\",\"l\":[1,2,3],\"z\":null}";
    opd_json json;
    opd_json_text key;
    int64_t n = 0, sum = 0;
    double x = 0;
    bool b = false, z = false;
    char s[16] = "";
    opd_json_init(&json, text, strlen(text));
    CHECK(opd_json_object_begin(&json));
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "n")) opd_json_read_int64(&json, &n);
        else if (opd_json_text_is(key, "x")) opd_json_read_double(&json, &x);
        else if (opd_json_text_is(key, "b")) opd_json_read_bool(&json, &b);
        else if (opd_json_text_is(key, "s")) opd_json_read_string(&json, s, sizeof s);
        else if (opd_json_text_is(key, "z")) z = opd_json_read_null(&json);
        else if (opd_json_text_is(key, "l")) {
            int64_t v = 0;
            opd_json_array_begin(&json);
            while (opd_json_array_next(&json)) sum += opd_json_read_int64(&json, &v) ? v : 0;
        }
    }
    CHECK_OK(opd_json_finish(&json));
    CHECK_INT(n, -42);
    CHECK_INT(sum, 6);
    CHECK(x == 1.25 && b && z);
    CHECK_STR(s, "h\xc3\xa9\n");
}

TEST(json_text_is_undoes_escapes) {
    const char *text = "[\"a\\u0062\\ud83d\\ude00\",\"ab\"]";
    opd_json json;
    opd_json_text first, second;
    opd_json_init(&json, text, strlen(text));
    CHECK(opd_json_array_begin(&json) && opd_json_array_next(&json));
    CHECK(opd_json_read_text(&json, &first) && opd_json_array_next(&json));
    CHECK(opd_json_read_text(&json, &second) && !opd_json_array_next(&json));
    CHECK_OK(opd_json_finish(&json));
    CHECK(opd_json_text_is(first, "ab\xf0\x9f\x98\x80"));
    CHECK(!opd_json_text_is(first, "ab") && !opd_json_text_is(first, "ab\xf0\x9f\x98\x80x"));
    CHECK(opd_json_text_is(second, "ab") && !opd_json_text_is(second, "a"));
    CHECK(!opd_json_text_is(second, "abc"));
}

TEST(json_errors_stick) {
    opd_json json;
    int64_t n = 7;
    bool flag = true;
    opd_json_init(&json, "[1,x,2]", 7);
    CHECK(opd_json_array_begin(&json) && opd_json_array_next(&json));
    CHECK(opd_json_read_int64(&json, &n) && opd_json_array_next(&json));
    CHECK(!opd_json_read_int64(&json, &n));
    CHECK_INT(n, 1); /* untouched by the failure */
    CHECK(!opd_json_array_next(&json) && !opd_json_read_bool(&json, &flag));
    CHECK(!opd_json_skip(&json) && !opd_json_array_begin(&json));
    CHECK_INT(opd_json_peek(&json), OPD_JSON_NONE);
    CHECK_ERR(opd_json_finish(&json), OPD_ERR_PARSE);
    CHECK_CONTAINS(opd_err_context(), "byte 3: expected a number");
}

static double read_double(const char *text) {
    opd_json json;
    double value = -12345;
    opd_json_init(&json, text, strlen(text));
    CHECK(opd_json_read_double(&json, &value));
    CHECK_OK(opd_json_finish(&json));
    return value;
}

static float read_float(const char *text) {
    opd_json json;
    float value = -12345;
    opd_json_init(&json, text, strlen(text));
    CHECK(opd_json_read_float(&json, &value));
    CHECK_OK(opd_json_finish(&json));
    return value;
}

TEST(json_doubles_are_the_nearest) {
    static const char *const texts[] = {
        "0", "-0.0", "1", "-1.5", "0.1", "123456789.123456789", "-0.12345679104328156",
        "9007199254740993", "1e22", "1e23", "8.5e-22", "1e-300", "2.2250738585072011e-308",
        "4.9e-324", "1.7976931348623157e308", "1e-400", "0e99999999999", "123456789012345678901234567890",
        "0.000000000000000000000000000000000000000000000000000000000000000000000012345678901234567890",
        "1000000000000000000000000000000000000000000000000000000000000000000000000000000001",
        "9007199254740993.00000000000000000000000000000000000000000000000000000000000000001"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double got = read_double(texts[i]), want = strtod(texts[i], NULL);
        if (memcmp(&got, &want, sizeof got) != 0)
            opd_test_fail(__FILE__, __LINE__, "%s: %.17g, expected %.17g", texts[i], got, want);
    }
    opd_json json;
    double value;
    opd_json_init(&json, "1e309", 5);
    CHECK(!opd_json_read_double(&json, &value));
    CHECK_STR(json.error, "the number is too large");
}

TEST(json_random_numbers_agree_with_strtod) {
    opd_rng rng;
    opd_rng_init(&rng, 2);
    for (int i = 0; i < 20000; i++) {
        char text[64];
        uint64_t bits = opd_rng_next(&rng);
        double want;
        memcpy(&want, &bits, sizeof want);
        if (!isfinite(want)) continue;
        (void)snprintf(text, sizeof text, i % 2 ? "%.17g" : "%.12g", want);
        CHECK(read_double(text) == strtod(text, NULL));
        float small = -(float)(opd_rng_uniform(opd_rng_next(&rng)) * 30);
        (void)snprintf(text, sizeof text, i % 2 ? "%.9g" : "%.17g", (double)small);
        CHECK(read_float(text) == small);
    }
}

TEST(json_integers_are_exact) {
    opd_json json;
    int64_t n = 0;
    opd_json_init(&json, "[-9223372036854775808,9223372036854775807,-0]", 45);
    CHECK(opd_json_array_begin(&json) && opd_json_array_next(&json));
    CHECK(opd_json_read_int64(&json, &n) && n == INT64_MIN && opd_json_array_next(&json));
    CHECK(opd_json_read_int64(&json, &n) && n == INT64_MAX && opd_json_array_next(&json));
    CHECK(opd_json_read_int64(&json, &n) && n == 0);
    static const char *const bad[] = {"9223372036854775808", "-9223372036854775809", "1.0",
                                      "1e2", "99999999999999999999999", "\"1\""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        opd_json_init(&json, bad[i], strlen(bad[i]));
        CHECK(!opd_json_read_int64(&json, &n) && json.error != NULL && n == 0);
    }
}

TEST(json_strings_respect_the_buffer) {
    opd_json json;
    char four[4] = "zzz";
    opd_json_init(&json, "\"abc\"", 5);
    CHECK(opd_json_read_string(&json, four, sizeof four));
    CHECK_STR(four, "abc");
    opd_json_init(&json, "\"abcd\"", 6);
    CHECK(!opd_json_read_string(&json, four, sizeof four));
    CHECK_STR(json.error, "the string is too long");
    opd_json_init(&json, "\"a\\u0000\"", 9);
    char eight[8 + 1];
    CHECK(!opd_json_read_string(&json, eight, sizeof eight));
    CHECK_STR(json.error, "a NUL inside the string");
    char *copy = NULL;
    size_t size = 0;
    opd_json_init(&json, "\"a\\u0000\\ud800b\"", 16);
    CHECK(opd_json_read_dup(&json, NULL, &copy, &size));
    CHECK_INT(size, 6);
    CHECK(memcmp(copy, "a\0\xef\xbf\xbd" "b", 7) == 0);
    opd_mem_free(NULL, copy);
}

TEST(json_raw_is_the_value_alone) {
    opd_json json;
    const char *data;
    size_t size;
    opd_json_init(&json, "[ {\"a\" : [1]} , 2 ]", 19);
    CHECK(opd_json_array_begin(&json) && opd_json_array_next(&json));
    CHECK(opd_json_raw(&json, &data, &size));
    CHECK_INT(size, 11);
    CHECK(memcmp(data, "{\"a\" : [1]}", size) == 0);
}

static void write_sample(opd_str *out, int indent) {
    opd_json_writer w;
    opd_json_writer_init(&w, out, indent);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "a\"b");
    opd_json_write_array_begin(&w);
    opd_json_write_int64(&w, INT64_MIN);
    opd_json_write_float(&w, -0.1f);
    opd_json_write_float(&w, NAN);
    opd_json_write_double(&w, 0.1);
    opd_json_write_bool(&w, true);
    opd_json_write_null(&w);
    opd_json_write_array_begin(&w);
    opd_json_write_array_end(&w);
    opd_json_write_array_end(&w);
    opd_json_write_key(&w, "s");
    opd_json_write_text(&w, "\x01\"\\\n\t\xc3\xa9\xff/");
    opd_json_write_object_end(&w);
    CHECK_OK(opd_str_status(out));
}

TEST(json_writer_places_commas_and_escapes) {
    opd_str out;
    opd_str_init(&out, NULL, 1 << 16);
    write_sample(&out, 0);
    CHECK_STR(out.data, "{\"a\\\"b\":[-9223372036854775808,-0.1,null,0.1,true,null,[]],"
                        "\"s\":\"\\u0001\\\"\\\\\\n\\t\xc3\xa9\xef\xbf\xbd/\"}");
    CHECK_OK(check_text(out.data, out.size));
    opd_str_clear(&out);
    write_sample(&out, 2);
    CHECK_CONTAINS(out.data, "{\n  \"a\\\"b\": [\n    -9223372036854775808,\n");
    CHECK_OK(check_text(out.data, out.size));
    opd_str_fini(&out);
}

TEST(json_written_floats_read_back) {
    opd_rng rng;
    opd_str out;
    opd_rng_init(&rng, 3);
    opd_str_init(&out, NULL, 64);
    for (int i = 0; i < 20000; i++) {
        opd_json_writer w;
        uint32_t bits = (uint32_t)opd_rng_next(&rng);
        float value;
        memcpy(&value, &bits, sizeof value);
        opd_str_clear(&out);
        opd_json_writer_init(&w, &out, 0);
        opd_json_write_float(&w, value);
        if (isfinite(value)) CHECK(read_float(out.data) == value);
        else CHECK_STR(out.data, "null");
    }
    opd_str_fini(&out);
}
