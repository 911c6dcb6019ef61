/* test_msgpack.c - the bounded codec: round trips, agreement with msgpack-c, hostile bytes. */
#include <msgpack.h>

#include "core/base/rng.h"
#include "core/codec/msgpack.h"
#include "tests/support/test.h"

static const int64_t edges[] = {0, 1, 127, 128, 255, 256, 65535, 65536, INT32_MAX, UINT32_MAX,
                                (int64_t)UINT32_MAX + 1, INT64_MAX, -1, -32, -33, -128, -129,
                                -32768, -32769, INT32_MIN, (int64_t)INT32_MIN - 1, INT64_MIN};
enum { EDGES = sizeof edges / sizeof edges[0] };

TEST(integers_at_every_edge_agree_with_msgpack_c) {
    for (int i = 0; i < EDGES; i++) {
        uint8_t ours[16];
        opd_mp_writer w;
        opd_mp_writer_init(&w, ours, sizeof ours);
        opd_mp_write_i64(&w, edges[i]);
        CHECK_OK(opd_mp_writer_status(&w));
        msgpack_sbuffer theirs;
        msgpack_sbuffer_init(&theirs);
        msgpack_packer packer;
        msgpack_packer_init(&packer, &theirs, msgpack_sbuffer_write);
        msgpack_pack_int64(&packer, edges[i]);
        CHECK_INT(w.size, theirs.size);
        CHECK(memcmp(ours, theirs.data, w.size) == 0);
        msgpack_sbuffer_destroy(&theirs);
        opd_mp_reader r;
        opd_mp_reader_init(&r, ours, w.size);
        CHECK_INT(opd_mp_read_i64(&r), edges[i]);
        CHECK_OK(opd_mp_reader_status(&r));
        CHECK_INT(opd_mp_peek(&r), OPD_MP_END);
    }
}

TEST(strings_bytes_ext_and_counts_agree_with_msgpack_c) {
    static const size_t sizes[] = {0, 1, 2, 4, 8, 15, 16, 31, 32, 255, 256, 4000, 65535, 65536};
    static uint8_t payload[65536], ours[300000];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i];
        opd_mp_writer w;
        opd_mp_writer_init(&w, ours, sizeof ours);
        opd_mp_write_str(&w, (char *)payload, n);
        opd_mp_write_bin(&w, payload, n);
        opd_mp_write_ext(&w, -7, payload, n);
        opd_mp_write_array(&w, (uint32_t)n);
        opd_mp_write_map(&w, (uint32_t)n);
        opd_mp_write_f32(&w, 1.5f);
        opd_mp_write_f64(&w, -2.25);
        opd_mp_write_bool(&w, true);
        opd_mp_write_nil(&w);
        CHECK_OK(opd_mp_writer_status(&w));
        msgpack_sbuffer theirs;
        msgpack_sbuffer_init(&theirs);
        msgpack_packer p;
        msgpack_packer_init(&p, &theirs, msgpack_sbuffer_write);
        msgpack_pack_str_with_body(&p, payload, n);
        msgpack_pack_bin_with_body(&p, payload, n);
        msgpack_pack_ext_with_body(&p, payload, n, -7);
        msgpack_pack_array(&p, n);
        msgpack_pack_map(&p, n);
        msgpack_pack_float(&p, 1.5f);
        msgpack_pack_double(&p, -2.25);
        msgpack_pack_true(&p);
        msgpack_pack_nil(&p);
        CHECK_INT(w.size, theirs.size);
        CHECK(memcmp(ours, theirs.data, w.size) == 0);
        msgpack_sbuffer_destroy(&theirs);
        opd_mp_reader r;
        opd_mp_reader_init(&r, ours, w.size);
        size_t size = 1;
        int8_t type = 0;
        CHECK(opd_mp_read_str(&r, &size) != NULL && size == n);
        CHECK(opd_mp_read_bin(&r, &size) != NULL && size == n);
        CHECK(opd_mp_read_ext(&r, &type, &size) != NULL && size == n && type == -7);
        CHECK_OK(opd_mp_reader_status(&r));
    }
}

TEST(writer_never_passes_its_end) {
    uint8_t guard[8];
    for (size_t capacity = 0; capacity < 7; capacity++) {
        memset(guard, 0xee, sizeof guard);
        opd_mp_writer w;
        opd_mp_writer_init(&w, guard, capacity);
        opd_mp_write_cstr(&w, "abcdef"); /* needs 7 */
        opd_mp_write_nil(&w);
        CHECK_ERR(opd_mp_writer_status(&w), OPD_ERR_LIMIT);
        for (size_t i = capacity; i < sizeof guard; i++) CHECK_INT(guard[i], 0xee);
    }
}

TEST(reader_errors_are_sticky_and_say_where) {
    const uint8_t bytes[] = {0x93, 0x01, 0xa1, 'x', 0x02};
    opd_mp_reader r;
    opd_mp_reader_init(&r, bytes, sizeof bytes);
    CHECK_INT(opd_mp_read_array(&r), 3);
    CHECK_INT(opd_mp_read_u64(&r), 1);
    CHECK_INT(opd_mp_read_u64(&r), 0);
    CHECK_INT(opd_mp_read_u64(&r), 0);
    CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "byte 2");
    opd_mp_reader_init(&r, NULL, 0);
    CHECK_INT(opd_mp_peek(&r), OPD_MP_END);
    opd_mp_skip(&r);
    CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_PARSE);
    const uint8_t wide[] = {0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    opd_mp_reader_init(&r, wide, sizeof wide);
    CHECK_INT(opd_mp_read_i64(&r), 0);
    CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_MISMATCH);
    opd_mp_reader_init(&r, wide, sizeof wide);
    CHECK_INT(opd_mp_read_u32(&r), 0);
    CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_MISMATCH);
}

TEST(five_hostile_bytes_promise_nothing) {
    static const uint8_t heads[][5] = {{0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff},
                                       {0xdb, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0xff, 0xff, 0xff, 0xff},
                                       {0xc9, 0xff, 0xff, 0xff, 0xff}, {0xdc, 0x00, 0x03, 0x01, 0x02}};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        opd_mp_reader r;
        opd_mp_reader_init(&r, heads[i], 5);
        opd_mp_skip(&r);
        CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_PARSE);
    }
    opd_mp_reader r;
    opd_mp_reader_init(&r, heads[0], 5);
    CHECK_INT(opd_mp_read_array(&r), 0);
}

TEST(depth_and_items_are_bounded) {
    uint8_t nest[32];
    memset(nest, 0x91, sizeof nest);
    nest[OPD_MP_DEPTH_MAX] = 0xc0;
    opd_mp_reader r;
    opd_mp_reader_init(&r, nest, OPD_MP_DEPTH_MAX + 1);
    opd_mp_skip(&r);
    CHECK_OK(opd_mp_reader_status(&r));
    nest[OPD_MP_DEPTH_MAX] = 0x91;
    nest[OPD_MP_DEPTH_MAX + 1] = 0xc0;
    opd_mp_reader_init(&r, nest, OPD_MP_DEPTH_MAX + 2);
    opd_mp_skip(&r);
    CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_LIMIT);
    static uint8_t many[OPD_MP_ITEMS_MAX + 10];
    opd_mp_writer w;
    opd_mp_writer_init(&w, many, sizeof many);
    opd_mp_write_array(&w, OPD_MP_ITEMS_MAX + 1);
    opd_mp_reader_init(&r, many, sizeof many);
    CHECK_INT(opd_mp_read_array(&r), 0);
    CHECK_ERR(opd_mp_reader_status(&r), OPD_ERR_LIMIT);
}

/* A random value of bounded depth, written by msgpack-c. */
static void pack_random(msgpack_packer *p, opd_rng *rng, int depth) {
    static const char text[300] = "random";
    size_t n = (size_t)opd_rng_below(rng, depth > 0 ? 10 : 8);
    size_t size = (size_t)opd_rng_below(rng, 300);
    uint64_t bits = opd_rng_next(rng) >> opd_rng_below(rng, 64);
    switch (n) {
    case 0: msgpack_pack_nil(p); return;
    case 1: msgpack_pack_true(p); return;
    case 2: msgpack_pack_uint64(p, bits); return;
    case 3: msgpack_pack_int64(p, -(int64_t)(bits >> 1)); return;
    case 4: msgpack_pack_double(p, (double)bits); return;
    case 5: msgpack_pack_str_with_body(p, text, size); return;
    case 6: msgpack_pack_bin_with_body(p, text, size); return;
    case 7: msgpack_pack_ext_with_body(p, text, size, 5); return;
    default: break;
    }
    size_t items = (size_t)opd_rng_below(rng, 6);
    if (n == 8)
        msgpack_pack_array(p, items);
    else
        msgpack_pack_map(p, items);
    for (size_t i = 0; i < (n == 8 ? items : 2 * items); i++) pack_random(p, rng, depth - 1);
}

/* Walks both readers side by side. */
static void compare(opd_mp_reader *r, const msgpack_object *o) {
    size_t size = 0;
    int8_t type = 0;
    switch (o->type) {
    case MSGPACK_OBJECT_NIL: opd_mp_read_nil(r); break;
    case MSGPACK_OBJECT_BOOLEAN: CHECK(opd_mp_read_bool(r) == o->via.boolean); break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER: CHECK(opd_mp_read_u64(r) == o->via.u64); break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: CHECK(opd_mp_read_i64(r) == o->via.i64); break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64: CHECK(opd_mp_read_f64(r) == o->via.f64); break;
    case MSGPACK_OBJECT_STR:
        CHECK(opd_mp_read_str(r, &size) != NULL && size == o->via.str.size);
        break;
    case MSGPACK_OBJECT_BIN:
        CHECK(opd_mp_read_bin(r, &size) != NULL && size == o->via.bin.size);
        break;
    case MSGPACK_OBJECT_EXT:
        CHECK(opd_mp_read_ext(r, &type, &size) != NULL && size == o->via.ext.size);
        CHECK_INT(type, o->via.ext.type);
        break;
    case MSGPACK_OBJECT_ARRAY:
        CHECK_INT(opd_mp_read_array(r), o->via.array.size);
        for (uint32_t i = 0; i < o->via.array.size; i++) compare(r, &o->via.array.ptr[i]);
        break;
    case MSGPACK_OBJECT_MAP:
        CHECK_INT(opd_mp_read_map(r), o->via.map.size);
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            compare(r, &o->via.map.ptr[i].key);
            compare(r, &o->via.map.ptr[i].val);
        }
        break;
    }
    CHECK_OK(opd_mp_reader_status(r));
}

TEST(random_values_read_as_msgpack_c_reads_them) {
    opd_rng rng;
    opd_rng_init(&rng, 2024);
    for (int round = 0; round < 2000; round++) {
        msgpack_sbuffer bytes;
        msgpack_sbuffer_init(&bytes);
        msgpack_packer p;
        msgpack_packer_init(&p, &bytes, msgpack_sbuffer_write);
        pack_random(&p, &rng, 6);
        msgpack_unpacked unpacked;
        msgpack_unpacked_init(&unpacked);
        size_t offset = 0;
        CHECK_INT(msgpack_unpack_next(&unpacked, bytes.data, bytes.size, &offset),
                  MSGPACK_UNPACK_SUCCESS);
        opd_mp_reader r;
        opd_mp_reader_init(&r, bytes.data, bytes.size);
        compare(&r, &unpacked.data);
        CHECK(r.at == r.end);
        opd_mp_reader_init(&r, bytes.data, bytes.size);
        opd_mp_skip(&r);
        CHECK(r.at == r.end && r.err == OPD_OK);
        for (size_t cut = 0; cut < bytes.size; cut += 1 + bytes.size / 16) { /* every prefix fails */
            opd_mp_reader_init(&r, bytes.data, cut);
            opd_mp_skip(&r);
            CHECK(r.err == OPD_ERR_PARSE);
        }
        opd_mp_scan scan = {0}; /* byte by byte: whole at the last one, and not before */
        opd_err err;
        for (size_t there = 0; there <= bytes.size; there++)
            CHECK(opd_mp_scan_value(&scan, bytes.data, there, bytes.size, &err) == (there == bytes.size) &&
                  err == OPD_OK);
        CHECK_INT(scan.size_bytes, bytes.size);
        scan = (opd_mp_scan){0};
        CHECK(!opd_mp_scan_value(&scan, bytes.data, bytes.size, bytes.size - 1, &err) && err == OPD_ERR_LIMIT);
        msgpack_unpacked_destroy(&unpacked);
        msgpack_sbuffer_destroy(&bytes);
    }
}

/* Random bytes: never out of bounds (the sanitizer watches), and a skip that succeeds consumed
 * what msgpack-c would have consumed. */
TEST(random_bytes_are_survived_and_agree_with_msgpack_c) {
    opd_rng rng;
    opd_rng_init(&rng, 77);
    int valid = 0;
    for (int round = 0; round < 20000; round++) {
        size_t size = 1 + (size_t)opd_rng_below(&rng, 24);
        uint8_t *bytes = malloc(size); /* exact size: an overrun is seen */
        for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)opd_rng_next(&rng);
        opd_mp_reader r;
        opd_mp_reader_init(&r, bytes, size);
        opd_mp_skip(&r);
        CHECK(r.at >= r.begin && r.at <= r.end);
        if (r.err == OPD_OK) {
            msgpack_unpacked unpacked;
            msgpack_unpacked_init(&unpacked);
            size_t offset = 0;
            CHECK_INT(msgpack_unpack_next(&unpacked, (char *)bytes, size, &offset) > 0, 1);
            CHECK_INT(offset, r.at - r.begin);
            msgpack_unpacked_destroy(&unpacked);
            valid++;
        }
        free(bytes);
    }
    CHECK(valid > 5000);
}
