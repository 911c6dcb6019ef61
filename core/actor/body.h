/* body.h - message bodies: msgpack [version, field...] with attachments by reference.
 *
 * Versioning rule: a reader accepts bodies with more fields than it knows and ignores them;
 * a change of meaning is a new version. An attachment is named by ext type 1:
 * {index u8, dtype u8, ndim u8, flags u8 = 0, dims u32 little-endian each}.
 *
 *   opd_mp_writer w;
 *   OPD_TRY(opd_body_begin(msg, 1, 3, 64, &w));      // version 1, three fields
 *   opd_mp_write_u64(&w, id);
 *   ...
 *   OPD_TRY(opd_body_end(msg, &w));
 *
 * Thread: the loop's. Nothing to free.
 */
#ifndef OPD_CORE_ACTOR_BODY_H
#define OPD_CORE_ACTOR_BODY_H

#include "core/codec/msgpack.h"
#include "opd/actor.h"

enum { OPD_BODY_EXT_ATTACHMENT = 1 };

/* Starts msg's body with its array header and version; `fields` counts what follows. The body
 * will have at most size_max bytes (<= OPD_MSG_BODY_INLINE needs no memory). Errors: LIMIT,
 * NOMEM. */
opd_err opd_body_begin(opd_msg *msg, uint32_t version, uint32_t fields, size_t size_max,
                       opd_mp_writer *out_w) OPD_MUST_CHECK;

/* Attaches slice (opd_msg_attach) and writes its name as one field. */
opd_err opd_body_attach(opd_msg *msg, opd_mp_writer *w, opd_slice slice, opd_dtype dtype,
                        uint8_t ndim, const uint32_t *dims) OPD_MUST_CHECK;

/* Completes the body. Errors: LIMIT (more was written than size_max). */
opd_err opd_body_end(opd_msg *msg, const opd_mp_writer *w) OPD_MUST_CHECK;

/* Opens msg's body: checks that it is an array of this version with at least `fields` fields
 * and places the reader at the first. Errors: PARSE, MISMATCH. */
opd_err opd_body_read(const opd_msg *msg, uint32_t version, uint32_t fields,
                      opd_mp_reader *out_r) OPD_MUST_CHECK;

/* Reads one attachment name and returns the attachment it names, checked to have this dtype
 * and to agree with what the body says. Valid as long as msg. Errors: PARSE, MISMATCH. */
opd_err opd_body_read_attachment(const opd_msg *msg, opd_mp_reader *r, opd_dtype dtype,
                                 const opd_attachment **out_attachment) OPD_MUST_CHECK;

#endif
