/* generate.c - `opd generate`: one prompt, some answers (opd/run.h).
 * Thread: the loop. Everything built here is freed here. */
#include <stdio.h>
#include <string.h>

#include "actors/messages.h"
#include "actors/run/session.h"
#include "core/base/check.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"
#include "opd/run.h"

enum { TEXT_BYTES_MAX = 64 << 20, TOKENS_DEFAULT = 256 };

/* Asks for `count` answers, prints each as it comes, and stops the system after the last. A
 * failed one fails the asker, and the session with its reason. */
typedef struct asker {
    const opd_generate_options *o;
    const opd_roles *roles;
    const opd_tokenizer *tokenizer;
    opd_slice prompt;
    int left;
    opd_str text;
} asker;

static opd_err answered(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)arg;
    asker *a = *(asker **)state;
    opd_generated_fields f;
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_GENERATED, &f);
    OPD_TRY(err);
    opd_str_clear(&a->text);
    opd_tokenizer_decode(a->tokenizer, opd_slice_data(f.tokens),
                         f.tokens.size_bytes / sizeof(int32_t), true, &a->text);
    OPD_TRY(opd_str_status(&a->text));
    (void)fwrite(a->text.data != NULL ? a->text.data : "", 1, a->text.size, a->o->out);
    if (fputc('\n', a->o->out) == EOF || fflush(a->o->out) != 0)
        return opd_fail(OPD_ERR_IO, "the output cannot be written");
    if (--a->left == 0) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    asker *a = *(asker *const *)config;
    *(asker **)state = a;
    const opd_generate_options *o = a->o;
    for (int i = 0; i < a->left; i++) {
        opd_generate_fields f = {
            .tokens = a->prompt, .max_new = (uint32_t)(o->max_tokens > 0 ? o->max_tokens
                                                                         : TOKENS_DEFAULT),
            .temperature = o->temperature, .top_p = o->top_p > 0 ? o->top_p : 1,
            .top_k = (uint32_t)o->top_k, .seed = o->seed, .group = (uint64_t)i,
            .min_version = 1};
        OPD_TRY(opd_message_request(ctx, a->roles->rollout, OPD_MESSAGE_GENERATE, &f,
                                    OPD_NO_DEADLINE, answered, NULL, NULL));
    }
    return OPD_OK;
}

static const opd_actor_class asker_class = {
    .name = "generate", .state_size = sizeof(asker *), .requests_max = 4096,
    .on_start = on_start};

static opd_err start_asker(opd_system *system, void *arg, opd_pid *out_pid) {
    asker *a = arg;
    return opd_spawn(system, &asker_class, NULL, &a, out_pid);
}

static opd_err encode(asker *a, const opd_model *model) {
    size_t size = strlen(a->o->prompt), count;
    opd_buf *buf;
    OPD_TRY(opd_buf_create(NULL, (size + 1) * sizeof(int32_t), &buf));
    int32_t *ids = opd_buf_data(buf);
    size_t n = 0;
    if (model->config.bos_id >= 0) ids[n++] = model->config.bos_id;
    opd_err err = opd_tokenizer_encode(a->tokenizer, a->o->prompt, size, true, ids + n, size,
                                       &count);
    a->prompt = (opd_slice){.buf = buf, .size_bytes = (n + count) * sizeof(int32_t)};
    return err;
}

static opd_err ask(asker *a, const opd_model *model) {
    OPD_TRY(encode(a, model));
    opd_session session;
    opd_session_options options = {
        .model = model, .threads = 1, .slots = (uint32_t)(a->left < 64 ? a->left : 64),
        .max_len = (uint32_t)model->config.max_position,
        .handle_signals = a->o->handle_signals};
    OPD_TRY(opd_session_open(&session, &options));
    a->roles = &session.roles;
    opd_session_add(&session, "asker", start_asker, a);
    return opd_session_run(&session);
}

opd_err opd_generate(const opd_generate_options *options) {
    opd_model *model = NULL;
    opd_tokenizer *tokenizer = NULL;
    opd_err err = opd_model_open(options->model, NULL, &model);
    if (err == OPD_OK) err = opd_tokenizer_open(options->model, NULL, &tokenizer);
    if (err == OPD_OK) {
        asker a = {.o = options, .tokenizer = tokenizer,
                   .left = options->count > 0 ? options->count : 1};
        opd_str_init(&a.text, NULL, TEXT_BYTES_MAX);
        err = ask(&a, model);
        opd_str_fini(&a.text);
        opd_buf_release(a.prompt.buf);
    }
    opd_tokenizer_destroy(tokenizer);
    opd_model_destroy(model);
    return err;
}
