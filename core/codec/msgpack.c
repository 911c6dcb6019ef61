/* msgpack.c - the bounded msgpack writer and reader (msgpack.h). Thread: one owner. */
#include "core/codec/msgpack.h"

#include <string.h>

#include "core/base/check.h"

/* ---- writer ---------------------------------------------------------------------------- */

void opd_mp_writer_init(opd_mp_writer *w, void *data, size_t capacity) {
    *w = (opd_mp_writer){.data = data, .capacity = capacity};
}

/* Room for size bytes, or NULL and failed. */
static uint8_t *claim(opd_mp_writer *w, size_t size) {
    if (w->failed || size > w->capacity - w->size) {
        w->failed = true;
        return NULL;
    }
    uint8_t *at = w->data + w->size;
    w->size += size;
    return at;
}

/* One tag byte and `width` bytes of value, big-endian. */
static void put(opd_mp_writer *w, uint8_t tag, uint64_t value, unsigned width) {
    uint8_t *at = claim(w, 1 + (size_t)width);
    if (at == NULL) return;
    at[0] = tag;
    for (unsigned i = 0; i < width; i++) at[1 + i] = (uint8_t)(value >> (8 * (width - 1 - i)));
}

static void put_bytes(opd_mp_writer *w, const void *bytes, size_t size) {
    uint8_t *at = claim(w, size);
    if (at != NULL && size > 0) memcpy(at, bytes, size);
}

void opd_mp_write_nil(opd_mp_writer *w) { put(w, 0xc0, 0, 0); }

void opd_mp_write_bool(opd_mp_writer *w, bool value) { put(w, value ? 0xc3 : 0xc2, 0, 0); }

void opd_mp_write_u64(opd_mp_writer *w, uint64_t value) {
    if (value < 0x80)
        put(w, (uint8_t)value, 0, 0);
    else if (value <= UINT8_MAX)
        put(w, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        put(w, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put(w, 0xce, value, 4);
    else
        put(w, 0xcf, value, 8);
}

void opd_mp_write_i64(opd_mp_writer *w, int64_t value) {
    uint64_t bits = (uint64_t)value;
    if (value >= 0)
        opd_mp_write_u64(w, bits);
    else if (value >= -32)
        put(w, (uint8_t)bits, 0, 0);
    else if (value >= INT8_MIN)
        put(w, 0xd0, bits, 1);
    else if (value >= INT16_MIN)
        put(w, 0xd1, bits, 2);
    else if (value >= INT32_MIN)
        put(w, 0xd2, bits, 4);
    else
        put(w, 0xd3, bits, 8);
}

void opd_mp_write_f32(opd_mp_writer *w, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(w, 0xca, bits, 4);
}

void opd_mp_write_f64(opd_mp_writer *w, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(w, 0xcb, bits, 8);
}

/* A length with the 8-, 16- or 32-bit tag that follows `tag8`; longer than 4 GiB fails. */
static void put_length(opd_mp_writer *w, uint8_t tag8, size_t size) {
    if (size <= UINT8_MAX)
        put(w, tag8, size, 1);
    else if (size <= UINT16_MAX)
        put(w, (uint8_t)(tag8 + 1), size, 2);
    else if (size <= UINT32_MAX)
        put(w, (uint8_t)(tag8 + 2), size, 4);
    else
        w->failed = true;
}

void opd_mp_write_str_head(opd_mp_writer *w, size_t size) {
    if (size < 32)
        put(w, (uint8_t)(0xa0 | size), 0, 0);
    else
        put_length(w, 0xd9, size);
}

void opd_mp_write_str(opd_mp_writer *w, const char *text, size_t size) {
    opd_mp_write_str_head(w, size);
    put_bytes(w, text, size);
}

void opd_mp_write_cstr(opd_mp_writer *w, const char *text) {
    opd_mp_write_str(w, text, strlen(text));
}

void opd_mp_write_bin(opd_mp_writer *w, const void *bytes, size_t size) {
    put_length(w, 0xc4, size);
    put_bytes(w, bytes, size);
}

void opd_mp_write_ext(opd_mp_writer *w, int8_t type, const void *bytes, size_t size) {
    uint8_t type_byte = (uint8_t)type;
    switch (size) {
    case 1: put(w, 0xd4, 0, 0); break;
    case 2: put(w, 0xd5, 0, 0); break;
    case 4: put(w, 0xd6, 0, 0); break;
    case 8: put(w, 0xd7, 0, 0); break;
    case 16: put(w, 0xd8, 0, 0); break;
    default: put_length(w, 0xc7, size);
    }
    put_bytes(w, &type_byte, 1);
    put_bytes(w, bytes, size);
}

static void put_count(opd_mp_writer *w, uint8_t fix_tag, uint8_t tag16, uint32_t count) {
    if (count < 16)
        put(w, (uint8_t)(fix_tag | count), 0, 0);
    else if (count <= UINT16_MAX)
        put(w, tag16, count, 2);
    else
        put(w, (uint8_t)(tag16 + 1), count, 4);
}

void opd_mp_write_array(opd_mp_writer *w, uint32_t count) { put_count(w, 0x90, 0xdc, count); }

void opd_mp_write_map(opd_mp_writer *w, uint32_t count) { put_count(w, 0x80, 0xde, count); }

opd_err opd_mp_writer_status(const opd_mp_writer *w) {
    if (!w->failed) return OPD_OK;
    return opd_fail(OPD_ERR_LIMIT, "msgpack does not fit into %zu bytes", w->capacity);
}

/* ---- reader ---------------------------------------------------------------------------- */

/* One value's header: its type, what is in the tag and the bytes that follow. */
typedef struct head {
    opd_mp_type type;
    uint64_t value; /* integer or float bits, bool, length, or count */
    int8_t ext_type;
    uint8_t width; /* of a float: 4 or 8 */
} head;

void opd_mp_reader_init(opd_mp_reader *r, const void *data, size_t size) {
    static const uint8_t none[1];
    const uint8_t *begin = size == 0 ? none : data; /* data may be NULL then */
    *r = (opd_mp_reader){.at = begin, .begin = begin, .end = begin + size};
}

static void fail(opd_mp_reader *r, opd_err err, const char *what) {
    if (r->err != OPD_OK) return;
    r->err = err;
    r->what = what;
    r->error_offset = (size_t)(r->at - r->begin);
}

/* `width` bytes at `at`, big-endian; the caller checked that they are there. */
static uint64_t get(const uint8_t *at, unsigned width) {
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++) value = value << 8 | at[i];
    return value;
}

static int64_t sign_extend(uint64_t bits, unsigned width) {
    unsigned unused = 64 - 8 * width;
    return (int64_t)(bits << unused) >> unused;
}

/* Type and width in bytes of what follows the tags 0xc0..0xdf. */
static const struct {
    uint8_t type, width;
} tags[32] = {
    {OPD_MP_NIL, 0},   {OPD_MP_END, 0},   {OPD_MP_BOOL, 0},  {OPD_MP_BOOL, 0},  /* c0 */
    {OPD_MP_BIN, 1},   {OPD_MP_BIN, 2},   {OPD_MP_BIN, 4},   {OPD_MP_EXT, 1},   /* c4 */
    {OPD_MP_EXT, 2},   {OPD_MP_EXT, 4},   {OPD_MP_FLOAT, 4}, {OPD_MP_FLOAT, 8}, /* c8 */
    {OPD_MP_UINT, 1},  {OPD_MP_UINT, 2},  {OPD_MP_UINT, 4},  {OPD_MP_UINT, 8},  /* cc */
    {OPD_MP_INT, 1},   {OPD_MP_INT, 2},   {OPD_MP_INT, 4},   {OPD_MP_INT, 8},   /* d0 */
    {OPD_MP_EXT, 0},   {OPD_MP_EXT, 0},   {OPD_MP_EXT, 0},   {OPD_MP_EXT, 0},   /* d4 */
    {OPD_MP_EXT, 0},   {OPD_MP_STR, 1},   {OPD_MP_STR, 2},   {OPD_MP_STR, 4},   /* d8 */
    {OPD_MP_ARRAY, 2}, {OPD_MP_ARRAY, 4}, {OPD_MP_MAP, 2},   {OPD_MP_MAP, 4},   /* dc */
};

/* Tags that carry their value themselves; false for 0xc0..0xdf. */
static bool decode_fix(uint8_t tag, head *h) {
    if (tag < 0x80)
        *h = (head){.type = OPD_MP_UINT, .value = tag};
    else if (tag < 0x90)
        *h = (head){.type = OPD_MP_MAP, .value = tag & 15};
    else if (tag < 0xa0)
        *h = (head){.type = OPD_MP_ARRAY, .value = tag & 15};
    else if (tag < 0xc0)
        *h = (head){.type = OPD_MP_STR, .value = tag & 31};
    else if (tag >= 0xe0)
        *h = (head){.type = OPD_MP_INT, .value = (uint64_t)sign_extend(tag, 1)};
    else
        return false;
    return true;
}

/* Decodes the header at r->at without moving; returns its size in bytes, 0 on failure. */
static size_t decode(opd_mp_reader *r, head *h) {
    *h = (head){.type = OPD_MP_END};
    if (r->err != OPD_OK) return 0;
    size_t left = (size_t)(r->end - r->at);
    if (left == 0) {
        fail(r, OPD_ERR_PARSE, "the data ends early");
        return 0;
    }
    uint8_t tag = r->at[0];
    if (decode_fix(tag, h)) return 1;
    h->type = (opd_mp_type)tags[tag - 0xc0].type;
    h->width = tags[tag - 0xc0].width;
    bool is_ext = h->type == OPD_MP_EXT;
    size_t size = 1 + (size_t)h->width + (is_ext ? 1 : 0);
    if (h->type == OPD_MP_END || left < size) {
        fail(r, OPD_ERR_PARSE, h->type == OPD_MP_END ? "unknown tag" : "the data ends early");
        h->type = OPD_MP_END;
        return 0;
    }
    h->value = get(r->at + 1, h->width);
    if (h->type == OPD_MP_BOOL) h->value = tag & 1;
    if (h->type == OPD_MP_INT) {
        h->value = (uint64_t)sign_extend(h->value, h->width);
        if ((int64_t)h->value >= 0) h->type = OPD_MP_UINT;
    }
    if (is_ext && h->width == 0) h->value = UINT64_C(1) << (tag - 0xd4);
    if (is_ext) h->ext_type = (int8_t)r->at[size - 1];
    return size;
}

/* Whether the value's bytes or items can exist in what is left after its header. */
static bool possible(opd_mp_reader *r, const head *h, size_t header_size) {
    uint64_t left = (uint64_t)(r->end - r->at) - header_size;
    uint64_t need = 0;
    if (h->type == OPD_MP_STR || h->type == OPD_MP_BIN || h->type == OPD_MP_EXT) need = h->value;
    if (h->type == OPD_MP_ARRAY || h->type == OPD_MP_MAP) {
        need = h->type == OPD_MP_MAP ? 2 * h->value : h->value; /* an item has a byte at least */
        if (need > left) {
            fail(r, OPD_ERR_PARSE, "more items than bytes");
            return false;
        }
        if (h->value > OPD_MP_ITEMS_MAX) {
            fail(r, OPD_ERR_LIMIT, "too many items");
            return false;
        }
    }
    if (need <= left) return true;
    fail(r, OPD_ERR_PARSE, "a length exceeds the data");
    return false;
}

/* Reads a header of type `want`, checked; false (and the error) otherwise. */
static bool read_head(opd_mp_reader *r, opd_mp_type want, head *h) {
    size_t size = decode(r, h);
    if (size == 0) return false;
    if (h->type != want) {
        fail(r, OPD_ERR_MISMATCH, "a value of another type");
        return false;
    }
    if (!possible(r, h, size)) return false;
    r->at += size;
    return true;
}

opd_mp_type opd_mp_peek(const opd_mp_reader *r) {
    opd_mp_reader copy = *r;
    head h;
    return decode(&copy, &h) == 0 ? OPD_MP_END : h.type;
}

void opd_mp_read_nil(opd_mp_reader *r) {
    head h;
    (void)read_head(r, OPD_MP_NIL, &h);
}

bool opd_mp_read_bool(opd_mp_reader *r) {
    head h;
    return read_head(r, OPD_MP_BOOL, &h) && h.value != 0;
}

uint64_t opd_mp_read_u64(opd_mp_reader *r) {
    head h;
    return read_head(r, OPD_MP_UINT, &h) ? h.value : 0;
}

int64_t opd_mp_read_i64(opd_mp_reader *r) {
    head h;
    if (opd_mp_peek(r) == OPD_MP_INT) return read_head(r, OPD_MP_INT, &h) ? (int64_t)h.value : 0;
    const uint8_t *before = r->at;
    if (!read_head(r, OPD_MP_UINT, &h)) return 0;
    if (h.value <= INT64_MAX) return (int64_t)h.value;
    r->at = before;
    fail(r, OPD_ERR_MISMATCH, "an integer out of range");
    return 0;
}

uint32_t opd_mp_read_u32(opd_mp_reader *r) {
    const uint8_t *before = r->at;
    uint64_t value = opd_mp_read_u64(r);
    if (value <= UINT32_MAX) return (uint32_t)value;
    r->at = before;
    fail(r, OPD_ERR_MISMATCH, "an integer out of range");
    return 0;
}

double opd_mp_read_f64(opd_mp_reader *r) {
    head h;
    opd_mp_type type = opd_mp_peek(r);
    if (type == OPD_MP_UINT) return (double)opd_mp_read_u64(r);
    if (type == OPD_MP_INT) return (double)opd_mp_read_i64(r);
    if (!read_head(r, OPD_MP_FLOAT, &h)) return 0;
    if (h.width == 4) {
        uint32_t bits = (uint32_t)h.value;
        float value;
        memcpy(&value, &bits, sizeof value);
        return (double)value;
    }
    double value;
    memcpy(&value, &h.value, sizeof value);
    return value;
}

/* A value whose h.value bytes follow; in place. */
static const void *read_bytes(opd_mp_reader *r, opd_mp_type type, head *h, size_t *out_size) {
    *out_size = 0;
    if (!read_head(r, type, h)) return NULL;
    const void *bytes = r->at;
    r->at += h->value;
    *out_size = (size_t)h->value;
    return bytes;
}

const char *opd_mp_read_str(opd_mp_reader *r, size_t *out_size) {
    head h;
    return read_bytes(r, OPD_MP_STR, &h, out_size);
}

const void *opd_mp_read_bin(opd_mp_reader *r, size_t *out_size) {
    head h;
    return read_bytes(r, OPD_MP_BIN, &h, out_size);
}

const void *opd_mp_read_ext(opd_mp_reader *r, int8_t *out_type, size_t *out_size) {
    head h;
    const void *bytes = read_bytes(r, OPD_MP_EXT, &h, out_size);
    *out_type = bytes == NULL ? 0 : h.ext_type;
    return bytes;
}

uint32_t opd_mp_read_array(opd_mp_reader *r) {
    head h;
    return read_head(r, OPD_MP_ARRAY, &h) ? (uint32_t)h.value : 0;
}

uint32_t opd_mp_read_map(opd_mp_reader *r) {
    head h;
    return read_head(r, OPD_MP_MAP, &h) ? (uint32_t)h.value : 0;
}

void opd_mp_skip(opd_mp_reader *r) {
    uint64_t open[OPD_MP_DEPTH_MAX + 1]; /* values still to come per level */
    unsigned depth = 0;
    open[0] = 1;
    for (;;) {
        while (open[depth] == 0) {
            if (depth == 0) return;
            depth--;
        }
        open[depth]--;
        head h;
        size_t size = decode(r, &h);
        if (size == 0 || !possible(r, &h, size)) return;
        bool nests = h.type == OPD_MP_ARRAY || h.type == OPD_MP_MAP;
        if (nests && depth == OPD_MP_DEPTH_MAX) {
            fail(r, OPD_ERR_LIMIT, "nested too deep");
            return;
        }
        r->at += size;
        if (nests) open[++depth] = h.type == OPD_MP_MAP ? 2 * h.value : h.value;
        if (h.type == OPD_MP_STR || h.type == OPD_MP_BIN || h.type == OPD_MP_EXT) r->at += h.value;
    }
}

opd_err opd_mp_reader_status(const opd_mp_reader *r) {
    if (r->err == OPD_OK) return OPD_OK;
    return opd_fail(r->err, "msgpack byte %zu: %s", r->error_offset, r->what);
}

/* ---- values in a stream ---------------------------------------------------------------- */

/* Bytes of the header that a tag opens. */
static size_t header_size(uint8_t tag) {
    if (tag < 0xc0 || tag >= 0xe0) return 1;
    return 1 + (size_t)tags[tag - 0xc0].width + (tags[tag - 0xc0].type == OPD_MP_EXT);
}

bool opd_mp_scan_value(opd_mp_scan *scan, const void *data, size_t size, size_t max_bytes, opd_err *out_err) {
    *out_err = OPD_OK;
    if (scan->size_bytes == 0) scan->left = 1;
    while (scan->left > 0) {
        if (scan->size_bytes + scan->left > max_bytes) { /* an item has a byte at least */
            *out_err = opd_fail(OPD_ERR_LIMIT, "a value of more than %zu bytes", max_bytes);
            return false;
        }
        if (scan->size_bytes >= size) return false;
        const uint8_t *at = (const uint8_t *)data + scan->size_bytes;
        size_t there = size - (size_t)scan->size_bytes, head_bytes = header_size(*at);
        if (there < head_bytes) return false;
        opd_mp_reader reader;
        head h;
        opd_mp_reader_init(&reader, at, there);
        if (decode(&reader, &h) == 0) {
            *out_err = opd_mp_reader_status(&reader);
            return false;
        }
        scan->size_bytes += head_bytes;
        scan->left--;
        if (h.type == OPD_MP_STR || h.type == OPD_MP_BIN || h.type == OPD_MP_EXT) scan->size_bytes += h.value;
        if (h.type == OPD_MP_ARRAY) scan->left += h.value;
        if (h.type == OPD_MP_MAP) scan->left += 2 * h.value;
    }
    if (scan->size_bytes > max_bytes) *out_err = opd_fail(OPD_ERR_LIMIT, "a value of more than %zu bytes", max_bytes);
    return *out_err == OPD_OK && scan->size_bytes <= size;
}
