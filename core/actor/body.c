/* body.c - message bodies (body.h). Thread: the loop's. */
#include "core/actor/body.h"

#include "core/base/check.h"

opd_err opd_body_begin(opd_msg *msg, uint32_t version, uint32_t fields, size_t size_max,
                       opd_mp_writer *out_w) {
    void *room = NULL;
    OPD_TRY(opd_msg_body_reserve(msg, size_max, &room));
    opd_mp_writer_init(out_w, room, size_max);
    opd_mp_write_array(out_w, fields + 1);
    opd_mp_write_u64(out_w, version);
    return OPD_OK;
}

static void put_u32(uint8_t *out, uint32_t value) {
    for (unsigned i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *in) {
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

opd_err opd_body_attach(opd_msg *msg, opd_mp_writer *w, opd_slice slice, opd_dtype dtype,
                        uint8_t ndim, const uint32_t *dims) {
    uint8_t name[12];
    OPD_TRY(opd_msg_attach(msg, slice, dtype, ndim, dims, &name[0]));
    name[1] = (uint8_t)dtype;
    name[2] = ndim;
    name[3] = 0;
    put_u32(name + 4, dims[0]);
    put_u32(name + 8, ndim == 2 ? dims[1] : 1); /* written out only if ndim is 2 */
    opd_mp_write_ext(w, OPD_BODY_EXT_ATTACHMENT, name, 4 + 4 * (size_t)ndim);
    return OPD_OK;
}

opd_err opd_body_end(opd_msg *msg, const opd_mp_writer *w) {
    OPD_TRY(opd_mp_writer_status(w));
    opd_msg_body_commit(msg, w->size);
    return OPD_OK;
}

opd_err opd_body_read(const opd_msg *msg, uint32_t version, uint32_t fields,
                      opd_mp_reader *out_r) {
    size_t size = 0;
    const void *bytes = opd_msg_body(msg, &size);
    opd_mp_reader_init(out_r, bytes, size);
    uint32_t count = opd_mp_read_array(out_r);
    uint64_t found = opd_mp_read_u64(out_r);
    OPD_TRY(opd_mp_reader_status(out_r));
    if (found != version)
        return opd_fail(OPD_ERR_MISMATCH, "message kind %u: body version %llu, expected %u",
                        opd_msg_kind(msg), (unsigned long long)found, version);
    if (count < fields + 1)
        return opd_fail(OPD_ERR_MISMATCH, "message kind %u: %u fields, expected %u",
                        opd_msg_kind(msg), count - 1, fields);
    return OPD_OK;
}

opd_err opd_body_read_attachment(const opd_msg *msg, opd_mp_reader *r, opd_dtype dtype,
                                 const opd_attachment **out_attachment) {
    int8_t type = 0;
    size_t size = 0;
    const uint8_t *name = opd_mp_read_ext(r, &type, &size);
    OPD_TRY(opd_mp_reader_status(r));
    if (type != OPD_BODY_EXT_ATTACHMENT || size < 4 || size != 4 + 4 * (size_t)name[2])
        return opd_fail(OPD_ERR_PARSE, "message kind %u: not an attachment", opd_msg_kind(msg));
    const opd_attachment *a = opd_msg_attachment(msg, name[0]);
    bool agrees = a != NULL && name[1] == (uint8_t)a->dtype && name[2] == a->ndim;
    for (unsigned i = 0; agrees && i < a->ndim; i++)
        agrees = get_u32(name + 4 + 4 * i) == a->dims[i];
    if (!agrees || a->dtype != dtype)
        return opd_fail(OPD_ERR_MISMATCH, "message kind %u: attachment %u is not as described",
                        opd_msg_kind(msg), name[0]);
    *out_attachment = a;
    return OPD_OK;
}
