/* reading.c - answers into arrays, on the loop or on a lane (reading.h).
 *
 * Thread: attach, take and drop on the loop; read_answer wherever the endpoint runs it. A reading is
 * freed with its call, with the arrays that no sample took.
 */
#include "actors/teacher/reading.h"

#include <string.h>

#include "actors/teacher/policy.h"
#include "core/base/check.h"

typedef struct reading {
    const opd_alloc *alloc;
    const opd_teacher_protocol *protocol;
    opd_slice tokens;          /* a copy: a call may outlive the message and its system */
    opd_sglang_score question; /* ids: of tokens */
    opd_slice logp, valid, topk, topk_logp;
    char weight_version[OPD_SGLANG_NAME_SIZE];
} reading;

static opd_err room(const opd_alloc *alloc, opd_slice *slice, size_t size_bytes) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    *slice = opd_slice_whole(buf);
    return OPD_OK;
}

/* Any thread. The body is freed here, too: megabytes cost the loop time even to give back. */
static opd_err read_answer(opd_endpoint_call *call) {
    reading *r = call->reading;
    size_t rows = r->question.count - r->question.prompt_count, k = (size_t)r->question.top_k;
    OPD_TRY(room(r->alloc, &r->logp, rows * sizeof(float)));
    OPD_TRY(room(r->alloc, &r->valid, rows));
    if (k > 0) {
        OPD_TRY(room(r->alloc, &r->topk, rows * k * sizeof(int32_t)));
        OPD_TRY(room(r->alloc, &r->topk_logp, rows * k * sizeof(float)));
    }
    opd_sglang_scores scores = {.logp = opd_slice_data(r->logp),
                                .valid = opd_slice_data(r->valid),
                                .topk_ids = opd_slice_data(r->topk),
                                .topk_logps = opd_slice_data(r->topk_logp)};
    opd_err err = r->protocol->read(call->http.answer.data, call->http.answer.size, &r->question,
                                    &scores);
    opd_str_fini(&call->http.answer);
    if (err == OPD_OK)
        scores.valid_count -= opd_teacher_uniform_drop(scores.logp, scores.valid, rows, scores.topk_ids,
                                                       scores.topk_logps, k, r->question.vocab_size);
    memcpy(r->weight_version, scores.weight_version, sizeof r->weight_version);
    if (err == OPD_OK && scores.valid_count == 0)
        err = opd_fail(OPD_ERR_REMOTE, "the teacher gave no finite score for any of %zu tokens",
                       rows);
    return err;
}

static void drop(opd_endpoint_call *call) {
    reading *r = call->reading;
    opd_buf_release(r->tokens.buf);
    opd_buf_release(r->logp.buf);
    opd_buf_release(r->valid.buf);
    opd_buf_release(r->topk.buf);
    opd_buf_release(r->topk_logp.buf);
    opd_mem_free(r->alloc, r);
}

opd_err opd_reading_attach(opd_endpoint_call *call, const opd_teacher_protocol *protocol,
                           const opd_sglang_score *question, const opd_alloc *alloc) {
    reading *r = opd_mem_get(alloc, sizeof *r);
    if (r == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory to read an answer");
    r->alloc = alloc;
    r->protocol = protocol;
    opd_err err = opd_slice_copy(alloc, question->ids, question->count * sizeof *question->ids,
                                 &r->tokens);
    if (err != OPD_OK) {
        opd_mem_free(alloc, r);
        return err;
    }
    r->question = *question;
    r->question.ids = opd_slice_data(r->tokens);
    r->question.rid = NULL;
    call->reading = r;
    call->read = read_answer;
    call->read_drop = drop;
    return OPD_OK;
}

opd_err opd_reading_take(opd_endpoint_call *call, opd_scored_fields *scored) {
    reading *r = call->reading;
    if (call->read_err != OPD_OK) return opd_fail(call->read_err, "%s", call->read_text);
    scored->logp = r->logp;
    scored->valid = r->valid;
    scored->topk_ids = r->topk;
    scored->topk_logp = r->topk_logp;
    r->logp = r->valid = r->topk = r->topk_logp = (opd_slice){.buf = NULL};
    return OPD_OK;
}

const char *opd_reading_version(const opd_endpoint_call *call) {
    return ((const reading *)call->reading)->weight_version;
}
