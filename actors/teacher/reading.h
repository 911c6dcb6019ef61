/* reading.h - the answer to one scoring request, on its way from bytes to arrays.
 *
 * A reading is attached to a call of an endpoint and owns all it touches (a copy of the
 * tokens, the arrays), because it may run on a lane while the sample is finished by another
 * request, or its actor ends. The sample takes the arrays over when the call is answered.
 *
 * Thread: the loop; the reading itself on whatever thread the endpoint runs it.
 */
#ifndef OPD_ACTORS_TEACHER_READING_H
#define OPD_ACTORS_TEACHER_READING_H

#include "actors/messages.h"
#include "actors/teacher/endpoint.h"
#include "actors/teacher/protocol.h"

/* Answers of more bytes are read on the lane: at 600 MB/s this many take 0.2 ms of the loop. */
enum { OPD_READING_INLINE_MAX_BYTES = 128 * 1024 };

/* Makes the call read its 200 answer as the scores that `question` asks for before it is
 * answered; its ids are copied, its rid is not needed. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_reading_attach(opd_endpoint_call *call,
                                          const opd_teacher_protocol *protocol,
                                          const opd_sglang_score *question, const opd_alloc *alloc);

/* In `answered`, for a 200 answer: moves what was read into logp, valid, topk_ids and topk_logp of `scored`,
 * which must have none. Errors: those of the protocol's read, with its words; REMOTE without any
 * usable score. */
OPD_MUST_CHECK opd_err opd_reading_take(opd_endpoint_call *call, opd_scored_fields *scored);

/* After that: the weight version that the server told; "" for none. As long as the call. */
const char *opd_reading_version(const opd_endpoint_call *call);

#endif
