/* test_decimal.c - floats and whole numbers as text, and bytes as base64: what is written reads back to the
 * same bits, and no shorter text of a float would. */
#include "core/codec/decimal.h"

#include <inttypes.h>
#include <math.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/codec/base64.h"
#include "core/codec/json.h"
#include "tests/support/test.h"

enum { SIZE_MAX_OF_ANY = 20 };

static float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

/* Significant digits of a number's text. */
static int digits_in(const char *text) {
    int count = 0, zeros = 0;
    for (; *text != '\0' && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (count == 0 && *text == '0')) continue;
        count++;
        zeros = *text == '0' ? zeros + 1 : 0;
    }
    return count - zeros;
}

static void check_float(float value) {
    char text[OPD_DECIMAL_ROOM + 1], shorter[64];
    size_t size = opd_decimal_float(value, text);
    CHECK(size <= SIZE_MAX_OF_ANY);
    text[size] = '\0';
    /* as C reads it, as a reader of doubles would, and as we do */
    bool good = same_bits(strtof(text, NULL), value) && same_bits((float)strtod(text, NULL), value);
    double number = 0;
    opd_json json;
    opd_json_init(&json, text, size);
    good = good && opd_json_read_double(&json, &number) && opd_json_finish(&json) == OPD_OK;
    if (!good || !same_bits((float)number, value))
        opd_test_fail(__FILE__, __LINE__, "%a is written as %s", (double)value, text);
    int digits = digits_in(text);
    if (digits <= 1) return;
    (void)snprintf(shorter, sizeof shorter, "%.*e", digits - 2, (double)value);
    if (same_bits(strtof(shorter, NULL), value))
        opd_test_fail(__FILE__, __LINE__, "%s is longer than %s", text, shorter);
}

TEST(floats_have_the_text_of_json) {
    static const struct {
        float value;
        const char *text;
    } cases[] = {{0, "0"}, {-0.0f, "-0"}, {1, "1"}, {-0.25f, "-0.25"}, {0.1f, "0.1"}, {-0.69314718f, "-0.6931472"},
                 {16777216, "16777216"}, {123456.7f, "123456.7"}, {3e8f, "300000000"}, {1e9f, "1e+09"},
                 {0.0001f, "0.0001"}, {0.00012345678f, "0.00012345678"}, {1e-5f, "1e-05"}, {-1.5e-7f, "-1.5e-07"},
                 {1e-45f, "1e-45"}, {3.4028235e38f, "3.4028235e+38"}, {1.17549435e-38f, "1.1754944e-38"}};
    for (size_t i = 0; i < OPD_COUNTOF(cases); i++) {
        char text[OPD_DECIMAL_ROOM + 1];
        text[opd_decimal_float(cases[i].value, text)] = '\0';
        CHECK_STR(text, cases[i].text);
    }
}

/* Found by trying all floats: its shortest text is 7.038531e-26, which as a double lies on the border. */
TEST(the_float_that_would_be_rounded_twice) {
    char text[OPD_DECIMAL_ROOM + 1];
    float value = of_bits(0x15AE43FD);
    text[opd_decimal_float(value, text)] = '\0';
    CHECK_STR(text, "7.0385307e-26");
    CHECK(same_bits((float)strtod(text, NULL), value) && same_bits(strtof(text, NULL), value));
    CHECK(!same_bits((float)strtod("7.038531e-26", NULL), value));
}

/* Every exponent, with the fractions where rules change. */
TEST(floats_of_all_exponents_come_back) {
    static const uint32_t fractions[] = {0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF, 0x2AAAAA, 0x555555};
    for (uint32_t exponent = 0; exponent < 255; exponent++)
        for (size_t i = 0; i < OPD_COUNTOF(fractions); i++)
            for (uint32_t sign = 0; sign < 2; sign++) check_float(of_bits(sign << 31 | exponent << 23 | fractions[i]));
}

TEST(floats_of_random_bits_come_back) {
    opd_rng rng;
    opd_rng_init(&rng, 11);
    for (int i = 0; i < 60000; i++) {
        uint32_t bits = (uint32_t)opd_rng_next(&rng);
        if (isfinite(of_bits(bits))) check_float(of_bits(bits));
        check_float((float)(log(opd_rng_uniform(opd_rng_next(&rng)) + 1e-9) * 2)); /* a log-prob */
    }
}

/* Half-way cases of powers of ten: products with few digits. */
TEST(short_decimals_stay_short) {
    for (int exponent = -30; exponent <= 30; exponent++)
        for (int digits = 1; digits < 1000; digits++) {
            char text[32], again[OPD_DECIMAL_ROOM + 1];
            (void)snprintf(text, sizeof text, "%de%d", digits, exponent);
            float value = strtof(text, NULL);
            again[opd_decimal_float(value, again)] = '\0';
            CHECK(digits_in(again) <= 3 && same_bits(strtof(again, NULL), value));
        }
}

TEST(whole_numbers_are_those_of_printf) {
    static const int64_t edges[] = {0, 9, 10, 99, 100, 999999999, 1000000000, 1000000001, 9999999999, INT32_MAX,
                                    999999999999999999, 1000000000000000000, INT64_MAX, INT64_MIN};
    opd_rng rng;
    opd_rng_init(&rng, 3);
    for (size_t i = 0; i < 20000; i++) {
        char text[OPD_DECIMAL_ROOM + 1], wanted[32];
        int64_t value = i < OPD_COUNTOF(edges) ? edges[i] : (int64_t)(opd_rng_next(&rng) >> (i % 64));
        for (int sign = 0; sign < 2; sign++) {
            if (sign == 1 && value != INT64_MIN) value = -value;
            (void)snprintf(wanted, sizeof wanted, "%" PRId64, value);
            size_t size = opd_decimal_int64(value, text);
            text[size] = '\0';
            CHECK_STR(text, wanted);
        }
    }
}

TEST(base64_of_rfc_4648) {
    static const char *const cases[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
                                           {"\xfb\xff\xbf", "+/+/"}};
    for (size_t i = 0; i < OPD_COUNTOF(cases); i++) {
        char text[16] = "";
        size_t size = strlen(cases[i][0]);
        CHECK_INT(opd_base64_size(size), strlen(cases[i][1]));
        opd_base64_write(cases[i][0], size, text);
        CHECK_STR(text, cases[i][1]);
    }
}
