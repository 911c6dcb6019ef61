/* fuzz_msgpack.c - arbitrary bytes through the msgpack cursor: skipping and typed reads must
 * stay inside the data, and a value that skips must read by type to the same place. */
#include "core/base/check.h"
#include "core/codec/msgpack.h"
#include "tests/fuzz/fuzz.h"

const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("\x93\x01\xa3"
                  "abc\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
    OPD_FUZZ_SEED("\x82\xa1k\xc4\x02zz\xd0\x80\xd6\x01\x00\x06\x01\x00"),
    OPD_FUZZ_SEED("\xdc\x00\x02\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x91\x91\xc0"),
    {NULL, 0},
};

/* Reads one value by its type; depth bounds our own recursion like the reader's. */
static void walk(opd_mp_reader *r, unsigned depth) {
    size_t size = 0;
    int8_t type = 0;
    uint32_t count = 0;
    switch (opd_mp_peek(r)) {
    case OPD_MP_END: opd_mp_skip(r); return;
    case OPD_MP_NIL: opd_mp_read_nil(r); return;
    case OPD_MP_BOOL: (void)opd_mp_read_bool(r); return;
    case OPD_MP_UINT: (void)opd_mp_read_u64(r); return;
    case OPD_MP_INT: (void)opd_mp_read_i64(r); return;
    case OPD_MP_FLOAT: (void)opd_mp_read_f64(r); return;
    case OPD_MP_STR: (void)opd_mp_read_str(r, &size); return;
    case OPD_MP_BIN: (void)opd_mp_read_bin(r, &size); return;
    case OPD_MP_EXT: (void)opd_mp_read_ext(r, &type, &size); return;
    case OPD_MP_ARRAY: count = opd_mp_read_array(r); break;
    case OPD_MP_MAP: count = 2 * opd_mp_read_map(r); break;
    }
    for (uint32_t i = 0; i < count && r->err == OPD_OK; i++) {
        if (depth == 0)
            opd_mp_skip(r);
        else
            walk(r, depth - 1);
    }
}

/* The same bytes in two pieces: where the value ends does not depend on them, and what skips has its end there. */
static void scan(const uint8_t *data, size_t size, const opd_mp_reader *skipped) {
    opd_err err, err_cut = OPD_OK;
    opd_mp_scan whole = {0}, cut = {0};
    bool found = opd_mp_scan_value(&whole, data, size, 4096, &err);
    size_t first = size > 0 ? data[size - 1] % size : 0;
    bool found_cut = opd_mp_scan_value(&cut, data, first, 4096, &err_cut);
    if (!found_cut && err_cut == OPD_OK) found_cut = opd_mp_scan_value(&cut, data, size, 4096, &err_cut);
    OPD_ASSERT(found == found_cut && err == err_cut);
    OPD_ASSERT(!found || (err == OPD_OK && whole.size_bytes == cut.size_bytes && whole.size_bytes <= size));
    if (skipped->err == OPD_OK && size <= 4096)
        OPD_ASSERT(found && whole.size_bytes == (size_t)(skipped->at - skipped->begin));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    opd_mp_reader skipped, walked;
    opd_mp_reader_init(&skipped, data, size);
    opd_mp_skip(&skipped);
    OPD_ASSERT(skipped.at >= skipped.begin && skipped.at <= skipped.end);
    scan(data, size, &skipped);
    opd_mp_reader_init(&walked, data, size);
    walk(&walked, OPD_MP_DEPTH_MAX);
    OPD_ASSERT(walked.at >= walked.begin && walked.at <= walked.end);
    if (skipped.err == OPD_OK) OPD_ASSERT(walked.err == OPD_OK && walked.at == skipped.at);
    return 0;
}
