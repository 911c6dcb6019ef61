/* decimal.c - decimal.h. The digits of a float by the method of R. Giulietti, "The Schubfach way to render
 * doubles" (2020), for 32 bits: the interval of all decimals that read as this float is scaled by a power of
 * ten with one 64-bit multiplication each for its ends and its middle, and holds at most a few candidates of
 * the length sought. Thread: any. Memory: none.
 */
#include "core/codec/decimal.h"

#include <stdbool.h>
#include <string.h>

#include "core/base/check.h"

enum { POWER_MIN = -31, FRACTION_BITS = 23, EXPONENT_BIAS = 150 };

/* power10[i] = ceil(10^k 2^(63 - floor(log2 10^k))) for k = POWER_MIN + i. */
static const uint64_t power10[] = {
    0x81CEB32C4B43FCF5u, 0xA2425FF75E14FC32u, 0xCAD2F7F5359A3B3Fu, 0xFD87B5F28300CA0Eu,
    0x9E74D1B791E07E49u, 0xC612062576589DDBu, 0xF79687AED3EEC552u, 0x9ABE14CD44753B53u,
    0xC16D9A0095928A28u, 0xF1C90080BAF72CB2u, 0x971DA05074DA7BEFu, 0xBCE5086492111AEBu,
    0xEC1E4A7DB69561A6u, 0x9392EE8E921D5D08u, 0xB877AA3236A4B44Au, 0xE69594BEC44DE15Cu,
    0x901D7CF73AB0ACDAu, 0xB424DC35095CD810u, 0xE12E13424BB40E14u, 0x8CBCCC096F5088CCu,
    0xAFEBFF0BCB24AAFFu, 0xDBE6FECEBDEDD5BFu, 0x89705F4136B4A598u, 0xABCC77118461CEFDu,
    0xD6BF94D5E57A42BDu, 0x8637BD05AF6C69B6u, 0xA7C5AC471B478424u, 0xD1B71758E219652Cu,
    0x83126E978D4FDF3Cu, 0xA3D70A3D70A3D70Bu, 0xCCCCCCCCCCCCCCCDu, 0x8000000000000000u,
    0xA000000000000000u, 0xC800000000000000u, 0xFA00000000000000u, 0x9C40000000000000u,
    0xC350000000000000u, 0xF424000000000000u, 0x9896800000000000u, 0xBEBC200000000000u,
    0xEE6B280000000000u, 0x9502F90000000000u, 0xBA43B74000000000u, 0xE8D4A51000000000u,
    0x9184E72A00000000u, 0xB5E620F480000000u, 0xE35FA931A0000000u, 0x8E1BC9BF04000000u,
    0xB1A2BC2EC5000000u, 0xDE0B6B3A76400000u, 0x8AC7230489E80000u, 0xAD78EBC5AC620000u,
    0xD8D726B7177A8000u, 0x878678326EAC9000u, 0xA968163F0A57B400u, 0xD3C21BCECCEDA100u,
    0x84595161401484A0u, 0xA56FA5B99019A5C8u, 0xCECB8F27F4200F3Au, 0x813F3978F8940985u,
    0xA18F07D736B90BE6u, 0xC9F2C9CD04674EDFu, 0xFC6F7C4045812297u, 0x9DC5ADA82B70B59Eu,
    0xC5371912364CE306u, 0xF684DF56C3E01BC7u, 0x9A130B963A6C115Du, 0xC097CE7BC90715B4u,
    0xF0BDC21ABB48DB21u, 0x96769950B50D88F5u, 0xBC143FA4E250EB32u, 0xEB194F8E1AE525FEu,
    0x92EFD1B8D0CF37BFu, 0xB7ABC627050305AEu, 0xE596B7B0C643C71Au, 0x8F7E32CE7BEA5C70u,
    0xB35DBF821AE4F38Cu,
};

static const char pairs[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* How many decimal digits. */
static int digit_count(uint32_t value) {
    static const uint32_t limits[] = {9, 99, 999, 9999, 99999, 999999, 9999999, 99999999, 999999999};
    int count = 1;
    for (size_t i = 0; i < OPD_COUNTOF(limits); i++) count += value > limits[i];
    return count;
}

/* The last count digits of value, in front of `end`. */
static void put_digits(uint32_t value, int count, char *end) {
    for (; count >= 2; count -= 2, value /= 100) memcpy(end -= 2, pairs + value % 100 * 2, 2);
    if (count > 0) *--end = (char)('0' + value);
}

size_t opd_decimal_int64(int64_t value, char *out) {
    enum { PART = 1000000000, PART_DIGITS = 9 };
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char *at = out;
    if (value < 0) *at++ = '-';
    uint64_t high = left / PART, top = high / PART;
    uint32_t first = (uint32_t)(top > 0 ? top : high > 0 ? high : left);
    int count = digit_count(first);
    put_digits(first, count, at += count);
    if (top > 0) put_digits((uint32_t)(high % PART), PART_DIGITS, at += PART_DIGITS);
    if (high > 0) put_digits((uint32_t)(left % PART), PART_DIGITS, at += PART_DIGITS);
    return (size_t)(at - out);
}

/* ---- floats ---- */

/* Shifts of negative numbers are those of every compiler we know: arithmetic. */
static int floor_log2_pow10(int k) { return (k * 1741647) >> 19; }

/* The upper bits of power * value; what was cut off stays visible in the lowest bit, so that later comparisons
 * are exact. */
static uint32_t scale(uint64_t power, uint32_t value) {
    uint64_t low = (power & 0xFFFFFFFFu) * value, high = (power >> 32) * value + (low >> 32);
    return (uint32_t)(high >> 32) | ((uint32_t)high > 1);
}

/* digits * 10^exponent */
typedef struct decimal {
    uint32_t digits;
    int exponent;
} decimal;

/* The float is c 2^q, c > 0; below a power of two its lower neighbour is nearer (closer). */
static decimal shortest(uint32_t c, int q, bool closer) {
    uint32_t odd = c & 1; /* ends of the interval belong to the float if it is even */
    int k = (q * 1262611 - (closer ? 524031 : 0)) >> 22; /* floor(log10 of the interval's width) */
    int h = q + floor_log2_pow10(-k) + 1;
    uint64_t power = power10[-k - POWER_MIN];
    uint32_t lower = scale(power, (4 * c - 2 + closer) << h) + odd;
    uint32_t middle = scale(power, (4 * c) << h);
    uint32_t upper = scale(power, (4 * c + 2) << h) - odd;
    uint32_t s = middle / 4;
    if (s >= 10) { /* one digit fewer: at most one of the two around is inside */
        uint32_t shorter = s / 10;
        bool down = lower <= 40 * shorter, up = 40 * shorter + 40 <= upper;
        if (down != up) return (decimal){shorter + up, k + 1};
    }
    bool down = lower <= 4 * s, up = 4 * s + 4 <= upper;
    if (down == up) up = middle > 4 * s + 2 || (middle == 4 * s + 2 && (s & 1)); /* the nearer one */
    return (decimal){s + up, k};
}

static decimal of_bits(uint32_t bits) {
    uint32_t fraction = bits & ((1u << FRACTION_BITS) - 1);
    int exponent = (int)(bits >> FRACTION_BITS & 0xFF);
    uint32_t c = exponent > 0 ? fraction | 1u << FRACTION_BITS : fraction;
    int q = (exponent > 0 ? exponent : 1) - EXPONENT_BIAS;
    /* Of all floats the one whose shortest text a reader of doubles would round twice, to its neighbour. */
    if (bits == 0x15AE43FDu) return (decimal){70385307u, -33};
    bool whole = q <= 0 && -q <= FRACTION_BITS && (c & ((1u << -q) - 1)) == 0;
    decimal d = whole ? (decimal){c >> -q, 0} : shortest(c, q, fraction == 0 && exponent > 1);
    while (d.digits >= 10 && d.digits % 10 == 0) {
        d.digits /= 10;
        d.exponent++;
    }
    return d;
}

enum { COPY = 12 }; /* at least nine digits, in one or two moves */

/* `before` of the count digits stand in front of the point; zeros follow them. Returns the end. */
static char *positional(char *at, const char *digits, int count, int before) {
    if (before <= 0) {
        memcpy(at, "0.0000", 6);
        at += 2 - before;
        memcpy(at, digits, COPY);
        return at + count;
    }
    memcpy(at, digits, COPY);
    if (count <= before) return at + before;
    at[before] = '.';
    memcpy(at + before + 1, digits + before, COPY);
    return at + count + 1;
}

static char *scientific(char *at, const char *digits, int count, int exponent) {
    at[0] = digits[0];
    at[1] = '.';
    memcpy(at + 2, digits + 1, COPY);
    at += count > 1 ? count + 1 : 1;
    *at++ = 'e';
    *at++ = exponent < 0 ? '-' : '+';
    memcpy(at, pairs + (exponent < 0 ? -exponent : exponent) * 2, 2);
    return at + 2;
}

size_t opd_decimal_float(float value, char *out) {
    uint32_t bits;
    char digits[2 * COPY + 1], *at = out;
    memcpy(&bits, &value, sizeof bits);
    OPD_ASSERT((bits >> FRACTION_BITS & 0xFF) != 0xFF);
    *at = '-';
    at += bits >> 31;
    bits &= 0x7FFFFFFF;
    if (bits == 0) {
        *at++ = '0';
        return (size_t)(at - out);
    }
    decimal d = of_bits(bits);
    int count = digit_count(d.digits), before = count + d.exponent;
    memset(digits, '0', sizeof digits);
    put_digits(d.digits, count, digits + count);
    bool plain = before > -4 && before <= 9;
    at = plain ? positional(at, digits, count, before) : scientific(at, digits, count, before - 1);
    return (size_t)(at - out);
}
