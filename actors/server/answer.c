/* answer.c - what a visit to /generate is answered with (server_inside.h): log-probs and tokens of its parts as
 * JSON.
 *
 * Megabytes are written by a job on the write lane, so that they keep nothing else waiting; meanwhile the loop
 * leaves the visit's parts alone. Thread: opd__answer_* on the loop, write_answer wherever it runs. The text is
 * the visit's until it is sent.
 */
#include <string.h>

#include "actors/rollout/engine.h"
#include "actors/server/server_inside.h"
#include "core/base/check.h"
#include "core/base/list.h"

enum {
    ANSWER_BYTES_MAX = OPD_SERVER_ANSWERS_BYTES_MAX,
    TRIPLE_BYTES = 32,                /* of [log-prob, id, null], about              */
    INLINE_BYTES_MAX = 128 * 1024,    /* written on the loop, in about 0.3 ms        */
    FREE_BYTES_MAX = 1 << 20          /* freed there, in about 0.1 ms                */
};

/* ---- parts ---- */

/* input_token_logprobs of a part: entry 0 is null, so the scores start at entry 1; one that was
 * aborted has none. Arrays are allocated here, as one block in *out_block. */
static opd_err input_logprobs(const opd__part *part, opd_sglang_logprobs *out, void **out_block) {
    const opd__visit *visit = part->visit;
    size_t start = opd__input_start(part), count = part->aborted ? 0 : part->count - start;
    size_t k = (size_t)part->ask->top_logprobs, scored = count > 0 ? count - 1 : 0;
    *out = (opd_sglang_logprobs){.ids = part->ids + start, .count = count, .top_k = (int32_t)k};
    *out_block = NULL;
    if (count == 0) return OPD_OK;
    float *logp = opd_mem_get(visit->alloc, count * (1 + 2 * k) * sizeof(float));
    if (logp == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for an answer");
    float *topk_logps = logp + count;
    int32_t *topk_ids = (int32_t *)(void *)(topk_logps + count * k);
    if (scored > 0) {
        memcpy(logp + 1, opd_slice_data(part->score.logp), scored * sizeof(float));
        if (k > 0) {
            memcpy(topk_logps + k, opd_slice_data(part->score.topk_logp),
                   scored * k * sizeof(float));
            memcpy(topk_ids + k, opd_slice_data(part->score.topk_ids),
                   scored * k * sizeof(int32_t));
        }
    }
    out->logp = logp;
    out->topk_logps = topk_logps;
    out->topk_ids = topk_ids;
    *out_block = logp;
    return OPD_OK;
}

/* Where the output ends: after the first of the request's stop ids, else where it does. */
static size_t output_end(const opd__part *part, opd_sglang_answer *answer) {
    const opd_sglang_ask *q = part->ask;
    const int32_t *ids = opd_slice_data(part->generation.tokens);
    size_t count = part->generation.tokens.size_bytes / sizeof(int32_t);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < q->stop_id_count; j++)
            if (ids[i] == q->stop_ids[j]) {
                answer->finish = OPD_SGLANG_FINISH_STOP;
                answer->matched_id = ids[i];
                return i + 1;
            }
    answer->finish = OPD_SGLANG_FINISH_LENGTH;
    if (count > 0 && part->generation.finish == OPD_FINISH_STOP) {
        answer->finish = OPD_SGLANG_FINISH_STOP;
        answer->matched_id = ids[count - 1];
    }
    return count;
}

static void set_output(const opd__part *part, opd_sglang_answer *answer, opd_str *text) {
    const opd__visit *visit = part->visit;
    const opd_tokenizer *tokenizer = visit->server->c.tokenizer;
    answer->finish = OPD_SGLANG_FINISH_LENGTH;
    if (part->generated != NULL) {
        answer->output_ids = opd_slice_data(part->generation.tokens);
        answer->output_count = output_end(part, answer);
        answer->output = (opd_sglang_logprobs){.ids = answer->output_ids,
                                               .logp = opd_slice_data(part->generation.logp),
                                               .count = answer->output_count};
    }
    if (part->aborted || part->generation.finish == OPD_FINISH_ABORT) {
        answer->finish = OPD_SGLANG_FINISH_ABORT;
        answer->message = "the request was aborted";
    }
    if (tokenizer == NULL) return;
    opd_tokenizer_decode(tokenizer, answer->output_ids, answer->output_count,
                         part->ask->skip_special_tokens, text);
    answer->text = text->data;
    answer->text_size_bytes = text->size;
}

/* Does to the answer what the visit's fault says. */
static void bend(const opd__part *part, opd_sglang_answer *answer, float *block) {
    size_t rows = part->count - opd__input_start(part), k = (size_t)part->ask->top_logprobs;
    if (block == NULL || answer->input.count == 0) rows = k = 0;
    opd_server_fault_numbers numbers = {.ids = part->ids + opd__input_start(part),
                                 .logp = block,
                                 .topk_logps = rows > 0 ? block + rows : NULL,
                                 .vocab_size = part->visit->server->c.model->vocab_size};
    if (rows > 0) numbers.topk_ids = (int32_t *)(void *)(block + rows + rows * k);
    opd_server_fault_answer(&part->visit->fault, &numbers, answer);
}

static opd_err write_part(const opd__part *part, size_t index, opd_json_writer *writer) {
    const opd__visit *visit = part->visit;
    const opd_sglang_generate *q = &visit->request;
    opd_str text;
    void *block;
    opd_sglang_answer answer = {.rid = q->items[index].rid,
                                .prompt_count = part->count,
                                .cached_count = part->score.cached,
                                .weight_version = "default",
                                .return_logprob = part->ask->return_logprob};
    answer.e2e_latency_s = (double)(visit->answered_ns - visit->began_ns) / 1e9;
    if (q->flat) answer.form = q->flat_base64 ? OPD_SGLANG_FORM_BASE64 : OPD_SGLANG_FORM_FLAT;
    OPD_TRY(input_logprobs(part, &answer.input, &block));
    opd_str_init(&text, visit->alloc, ANSWER_BYTES_MAX);
    set_output(part, &answer, &text);
    bend(part, &answer, block);
    opd_err err = opd_str_status(&text);
    if (err == OPD_OK) opd_sglang_answer_write(&answer, writer);
    opd_str_fini(&text);
    opd_mem_free(visit->alloc, block);
    return err;
}

/* ---- what was sent ---- */

/* The text of an answer until its last byte has left or was given up. */
typedef struct spent {
    opd_list node; /* in server->spent while the lane has it */
    opd__front *front;
    const opd_alloc *alloc;
    opd_event event;
    opd_job job;
    void *data;
} spent;

static void spent_free(spent *self) {
    opd_list_remove(&self->node);
    opd_mem_free(self->alloc, self->data);
    opd_mem_free(self->alloc, self);
}

static opd_err run_free(opd_job *job) {
    spent *self = OPD_CONTAINER_OF(job, spent, job);
    opd_mem_free(self->alloc, self->data);
    self->data = NULL;
    return OPD_OK;
}

static opd_err free_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)ctx;
    (void)state;
    spent_free(OPD_CONTAINER_OF(job, spent, job));
    return OPD_OK;
}

static opd_err deliver_spent(opd_ctx *ctx, void *state, opd_event *event) {
    spent *self = OPD_CONTAINER_OF(event, spent, event);
    opd__server *server = state;
    self->job = (opd_job){.run = run_free, .done = free_done};
    if (opd_job_submit(ctx, server->c.write_lane, &self->job) == OPD_OK)
        opd_list_push_back(&server->spent, &self->node);
    else
        spent_free(self);
    return OPD_OK;
}

static void drop_spent(opd_event *event) { spent_free(OPD_CONTAINER_OF(event, spent, event)); }

static void on_spent(void *arg, void *data) {
    spent *self = arg;
    (void)data;
    if (!opd__front_post(self->front, &self->event)) spent_free(self);
}

static void free_text(void *arg, void *data) { opd_mem_free(arg, data); }

opd_err opd__answer_wrap(opd__visit *visit, opd_str *text, opd_buf **out_buf) {
    if (text->size <= FREE_BYTES_MAX || visit->server->c.write_lane == NULL)
        return opd_buf_wrap(visit->alloc, text->data, text->size, free_text,
                            (void *)(uintptr_t)visit->alloc, out_buf);
    spent *self = opd_mem_get(visit->alloc, sizeof *self);
    if (self == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for an answer");
    *self = (spent){.front = visit->front, .alloc = visit->alloc, .data = text->data,
                    .event = {.deliver = deliver_spent, .drop = drop_spent}};
    opd_list_init(&self->node);
    opd_err err = opd_buf_wrap(visit->alloc, text->data, text->size, on_spent, self, out_buf);
    if (err != OPD_OK) opd_mem_free(visit->alloc, self);
    return err;
}

void opd__answer_spent_free(opd__server *server) {
    for (opd_list *node; (node = opd_list_first(&server->spent)) != NULL;)
        spent_free(OPD_CONTAINER_OF(node, spent, node));
}

/* ---- the whole ---- */

/* Any thread. */
static opd_err write_answer(opd__visit *visit) {
    opd_json_writer writer;
    opd_json_writer_init(&writer, &visit->answer, 0);
    if (visit->request.batch) opd_json_write_array_begin(&writer);
    for (size_t i = 0; i < visit->part_count; i++) OPD_TRY(write_part(&visit->parts[i], i, &writer));
    if (visit->request.batch) opd_json_write_array_end(&writer);
    opd_server_fault_text(&visit->fault, &visit->answer);
    return opd_str_status(&visit->answer);
}

static void send_answer(opd__visit *visit, opd_err err, const char *why) {
    opd_str text = visit->answer;
    opd_str_init(&visit->answer, visit->alloc, ANSWER_BYTES_MAX);
    if (err == OPD_OK) {
        opd__visit_respond(visit, 200, &text);
        return;
    }
    opd_str_fini(&text);
    opd__visit_refuse(visit, err == OPD_ERR_CANCELLED ? 503 : 500, why);
}

static opd_err run_write(opd_job *job) {
    return write_answer(OPD_CONTAINER_OF(job, opd__visit, writing));
}

static opd_err write_done(opd_ctx *ctx, void *state, opd_job *job) {
    (void)ctx;
    (void)state;
    send_answer(OPD_CONTAINER_OF(job, opd__visit, writing), job->err, job->text);
    return OPD_OK;
}

/* About how much there is to write. */
static size_t size_of(const opd__visit *visit) {
    size_t triples = 0;
    for (size_t i = 0; i < visit->part_count; i++) {
        const opd__part *part = &visit->parts[i];
        triples += (part->count - opd__input_start(part)) * (1 + (size_t)part->ask->top_logprobs);
        triples += part->generation.tokens.size_bytes / sizeof(int32_t);
    }
    return triples * TRIPLE_BYTES + visit->fault.bytes;
}

void opd__answer_begin(opd__visit *visit) {
    opd__server *server = visit->server;
    visit->answered_ns = opd_now_ns(server->ctx);
    opd_str_init(&visit->answer, visit->alloc, ANSWER_BYTES_MAX);
    visit->writing = (opd_job){.run = run_write, .done = write_done};
    if (server->c.write_lane != NULL && size_of(visit) > INLINE_BYTES_MAX &&
        opd_job_submit(server->ctx, server->c.write_lane, &visit->writing) == OPD_OK)
        return;
    opd_err err = write_answer(visit);
    send_answer(visit, err, opd_err_context());
}
