/* message_patterns.h - fills the struct of any message kind with numbered patterns and compares
 * two of them, field by field, for test_messages.c and fuzz_messages.c.
 *
 * The description of the fields comes from the table of actors/messages.h. Slices that
 * pattern_fill makes are freed by pattern_release.
 */
#ifndef OPD_TESTS_UNIT_ACTORS_MESSAGE_PATTERNS_H
#define OPD_TESTS_UNIT_ACTORS_MESSAGE_PATTERNS_H

#include <stddef.h>
#include <string.h>

#include "actors/messages.h"
#include "core/base/check.h"

typedef enum pattern_kind {
    PATTERN_U64, PATTERN_U32, PATTERN_F64, PATTERN_BOOL, PATTERN_TEXT,
    PATTERN_I32S, PATTERN_F32S, PATTERN_U8S, PATTERN_U64S, PATTERN_F64S
} pattern_kind;

typedef struct pattern_field {
    pattern_kind kind;
    size_t offset;
} pattern_field;

#define PATTERN_FIELD(owner, field_kind, member) \
    {PATTERN_##field_kind, offsetof(opd_##owner##_fields, member)},
#define M(NAME, name) \
    static const pattern_field pattern_##name[] = {OPD_##NAME##_FIELDS(PATTERN_FIELD, name)};
OPD_MESSAGE_TABLE(M)
#undef M

static const struct {
    const pattern_field *fields;
    size_t count;
} PATTERNS[OPD_MESSAGE_COUNT] = {
#define M(NAME, name) [OPD_MESSAGE_##NAME] = {pattern_##name, OPD_COUNTOF(pattern_##name)},
    OPD_MESSAGE_TABLE(M)
#undef M
};

/* Room for the struct of any kind. */
typedef union pattern_any {
    max_align_t align;
    unsigned char bytes[4096];
} pattern_any;

static inline size_t pattern_element(pattern_kind kind) {
    switch (kind) {
    case PATTERN_U8S: return 1;
    case PATTERN_U64S:
    case PATTERN_F64S: return 8;
    default: return 4;
    }
}

/* Variant 0: zeros and absent slices; 1: the largest values; 2: slices without an element;
 * above: pseudo-random ones. */
static inline opd_err pattern_fill_field(const pattern_field *f, unsigned i, unsigned variant,
                                  void *at) {
    uint64_t bits = variant == 1 ? UINT64_MAX : (i + 1) * UINT64_C(0x9e3779b97f4a7c15) * variant;
    switch (f->kind) {
    case PATTERN_U64: *(uint64_t *)at = bits; return OPD_OK;
    case PATTERN_U32: *(uint32_t *)at = (uint32_t)bits; return OPD_OK;
    case PATTERN_F64: *(double *)at = variant == 1 ? -1.7e308 : (double)(bits >> 20) * 1e-3; return OPD_OK;
    case PATTERN_BOOL: *(bool *)at = bits >> 63; return OPD_OK;
    case PATTERN_TEXT:
        memset(at, variant == 1 ? 'x' : 0, OPD_MESSAGE_TEXT_SIZE - 1);
        if (variant > 1) memcpy(at, "reason \xc3\xa9", 9 - i % 2);
        return OPD_OK;
    default: break;
    }
    unsigned char data[17 * 8];
    for (size_t b = 0; b < sizeof data; b++) data[b] = (unsigned char)(bits >> (b % 8) ^ b * 31);
    size_t count = variant == 2 ? 0 : 1 + (i + variant) % 17;
    return opd_slice_copy(NULL, data, count * pattern_element(f->kind), at);
}

static inline opd_err pattern_fill(opd_message_kind kind, unsigned variant, pattern_any *out) {
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; variant > 0 && i < PATTERNS[kind].count; i++) {
        const pattern_field *f = &PATTERNS[kind].fields[i];
        OPD_TRY(pattern_fill_field(f, i, variant, out->bytes + f->offset));
    }
    return OPD_OK;
}

static inline void pattern_release(opd_message_kind kind, pattern_any *any) {
    for (size_t i = 0; i < PATTERNS[kind].count; i++) {
        const pattern_field *f = &PATTERNS[kind].fields[i];
        if (f->kind >= PATTERN_I32S) opd_buf_release(((opd_slice *)(void *)(any->bytes + f->offset))->buf);
    }
}

static inline bool pattern_field_same(const pattern_field *f, const void *a, const void *b) {
    switch (f->kind) {
    case PATTERN_U64:
    case PATTERN_F64: return memcmp(a, b, 8) == 0;
    case PATTERN_U32: return memcmp(a, b, 4) == 0;
    case PATTERN_BOOL: return *(const bool *)a == *(const bool *)b;
    case PATTERN_TEXT: return strcmp(a, b) == 0;
    default: break;
    }
    const opd_slice *x = a, *y = b;
    return x->buf == y->buf && x->offset_bytes == y->offset_bytes && x->size_bytes == y->size_bytes;
}

/* The first field that differs, or -1. Slices must be the same window of the same buffer. */
static inline int pattern_difference(opd_message_kind kind, const pattern_any *a, const pattern_any *b) {
    for (size_t i = 0; i < PATTERNS[kind].count; i++) {
        const pattern_field *f = &PATTERNS[kind].fields[i];
        if (!pattern_field_same(f, a->bytes + f->offset, b->bytes + f->offset)) return (int)i;
    }
    return -1;
}

#endif
