/* fuzz_messages.c - arbitrary bytes as the body of every message kind: reading must stay inside
 * the data and name only what is attached; what is read must survive being written again. */
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/actors/message_patterns.h"

/* The first byte chooses the kind (one less than its number), the rest is the body; each is read
 * whole. Attached are an I32 (index 0), an F32 (1), a U8 (2), a U64 (3) and an F64 (4). */
#define I32S_0 "\xd7\x01\x00\x01\x01\x00\x06\x00\x00\x00"
#define F32S_1 "\xd7\x01\x01\x06\x01\x00\x06\x00\x00\x00"
#define U8S_2 "\xd7\x01\x02\x00\x01\x00\x18\x00\x00\x00"
#define U64S_3 "\xd7\x01\x03\x04\x01\x00\x03\x00\x00\x00"
#define F64S_4 "\xd7\x01\x04\x07\x01\x00\x03\x00\x00\x00"
#define ZERO "\xca\x00\x00\x00\x00"
const opd_fuzz_seed opd_fuzz_seeds[] = {
    OPD_FUZZ_SEED("\x00\x97\x01\x07\x02\x00" I32S_0 "\xc0\xa4math"), /* prompt */
    OPD_FUZZ_SEED("\x04\x95\x01\x05\x02\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\xc3"), /* reward */
    OPD_FUZZ_SEED("\x03\xdc\x00\x12\x01\x07\x02" F32S_1 U8S_2 "\xc0\x02" ZERO "\xa1t\xa2no\xa0\x01\x00" ZERO
                  U8S_2 F64S_4 U8S_2 "\x03"), /* scores */
    OPD_FUZZ_SEED("\x11\x93\x01\x02\xa5hello"), /* note */
    OPD_FUZZ_SEED("\x05\xdc\x00\x1c\x01\x01\x01\x01\x01\x01" ZERO "\xc2\x01" ZERO "\xa1t\xa0" I32S_0 F32S_1
                  F32S_1 U8S_2 "\xc0" U64S_3 "\xa0\x00\x00" ZERO U8S_2 F64S_4 U8S_2 "\x00\xa0\x05"), /* sample */
    OPD_FUZZ_SEED("\x14\x98\x01\x07\x00\x01\x03\x00\xa4math" I32S_0), /* chunk */
    OPD_FUZZ_SEED("\x0b\x9c\x01" F32S_1 "\xc0\xc0" U8S_2 "\x01\x00\x00" ZERO "\xa1h\xa1v\x09"), /* scored */
    {NULL, 0},
};

typedef struct world {
    opd_env *env;
    opd_system *system;
    opd_buf *buf;
} world;

static world *world_get(void) {
    static world w;
    if (w.system != NULL) return &w;
    opd_err err = opd_env_uv_create(NULL, &w.env);
    if (err == OPD_OK) err = opd_system_create(&(opd_system_options){0}, w.env, &w.system);
    if (err == OPD_OK) err = opd_buf_create(NULL, 24, &w.buf);
    OPD_ASSERT(err == OPD_OK);
    return &w;
}

/* One attachment of each type. */
static void attach_all(opd_msg *msg, const world *w) {
    static const opd_dtype types[] = {OPD_DTYPE_I32, OPD_DTYPE_F32, OPD_DTYPE_U8, OPD_DTYPE_U64,
                                      OPD_DTYPE_F64};
    for (size_t i = 0; i < OPD_COUNTOF(types); i++) {
        uint32_t n = (uint32_t)(24 / opd_dtype_size(types[i]));
        OPD_ASSERT(opd_msg_attach(msg, opd_slice_whole(w->buf), types[i], 1, &n, NULL) == OPD_OK);
    }
}

static void read_and_write_again(const world *w, const opd_msg *msg, opd_message_kind kind) {
    pattern_any first, second;
    opd_msg *again;
    memset(&first, 0, sizeof first);
    if (opd_message_read(msg, kind, &first) != OPD_OK) return;
    opd_err err = opd_message_create(w->system, kind, &first, &again);
    OPD_ASSERT(err == OPD_OK);
    OPD_ASSERT(opd_message_read(again, kind, &second) == OPD_OK);
    OPD_ASSERT(pattern_difference(kind, &first, &second) == -1);
    opd_msg_release(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const world *w = world_get();
    if (size < 1 || size > OPD_MSG_BODY_MAX) return 0;
    opd_message_kind kind = 1 + data[0] % (OPD_MESSAGE_COUNT - 1);
    opd_msg *msg;
    if (opd_msg_create(w->system, (uint16_t)kind, &msg) != OPD_OK) abort();
    OPD_ASSERT(opd_msg_body_set(msg, data + 1, size - 1) == OPD_OK);
    attach_all(msg, w);
    read_and_write_again(w, msg, kind);
    opd_msg_release(msg);
    return 0;
}
