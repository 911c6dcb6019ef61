/* test_scorer_actor.c - the scorer by its messages: a cancelled request is given up between two
 * jobs and what it read stays useful, one whose deadline passed is not computed, bad ones are
 * refused by name, and all that are left are let go at the end. */
#include "actors/messages.h"
#include "actors/scorer/scorer_actor.h"
#include "core/base/check.h"
#include "tests/support/script_actor.h"

enum { VOCAB = 40, LONG = 4000, SHORT = 12 };

typedef struct asker {
    opd_test_sys t;
    opd_model *model;
    opd_kernels *kernels;
    opd_pid scorer;
    opd_slice text; /* LONG tokens */
    uint64_t long_id;
    int replies;
    uint32_t cached;
} asker;

static void ask(opd_ctx *ctx, asker *a, uint32_t count, uint32_t start, uint32_t top_k,
                uint64_t deadline_ns, opd_reply_fn reply_fn, uint64_t *out_id) {
    opd_slice tokens = a->text;
    tokens.size_bytes = count * sizeof(int32_t);
    opd_score_fields fields = {.tokens = tokens, .start = start, .top_k = top_k, .temperature = 1};
    CHECK_OK(opd_message_request(ctx, a->scorer, OPD_MESSAGE_SCORE, &fields, deadline_ns, reply_fn,
                                 NULL, out_id));
}

static asker *asker_of(void *state) { return ((opd_script *)state)->arg; }

static opd_err on_last(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    asker *a = asker_of(state);
    opd_scored_fields scored;
    (void)arg;
    CHECK_OK(err);
    CHECK_OK(opd_message_read(reply, OPD_MESSAGE_SCORED, &scored));
    CHECK_INT(scored.logp.size_bytes, 9 * sizeof(float));
    a->cached = scored.cached;
    a->replies++;
    ask(ctx, a, LONG, 0, 0, OPD_NO_DEADLINE, on_last, NULL); /* is never answered */
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err on_cancelled(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    asker *a = asker_of(state);
    (void)arg, (void)reply;
    CHECK_INT(err, OPD_ERR_CANCELLED);
    a->replies++;
    ask(ctx, a, 210, 200, 0, OPD_NO_DEADLINE, on_last, NULL);
    return OPD_OK;
}

static opd_err on_short(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    asker *a = asker_of(state);
    opd_scored_fields scored;
    (void)arg;
    CHECK_OK(err);
    CHECK_OK(opd_message_read(reply, OPD_MESSAGE_SCORED, &scored));
    CHECK_INT(scored.logp.size_bytes, (SHORT - 1) * sizeof(float));
    CHECK_INT(scored.topk_ids.size_bytes, (SHORT - 1) * 2 * sizeof(int32_t));
    a->replies++;
    opd_request_cancel(ctx, a->long_id); /* it passed the long one, which is under way */
    return OPD_OK;
}

static opd_err on_refused(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx, (void)arg, (void)reply;
    CHECK_INT(err, OPD_ERR_INVALID);
    asker_of(state)->replies++;
    return OPD_OK;
}

static opd_err on_late(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    (void)ctx, (void)arg, (void)reply;
    CHECK_INT(err, OPD_ERR_TIMEOUT);
    asker_of(state)->replies++;
    return OPD_OK;
}

static opd_err start(opd_ctx *ctx, void *arg) {
    asker *a = arg;
    ask(ctx, a, LONG, 0, 0, OPD_NO_DEADLINE, on_cancelled, &a->long_id);
    ask(ctx, a, SHORT, 0, 2, OPD_NO_DEADLINE, on_short, NULL);
    ask(ctx, a, SHORT, 0, VOCAB + 1, OPD_NO_DEADLINE, on_refused, NULL);
    ask(ctx, a, SHORT, SHORT - 1, 0, OPD_NO_DEADLINE, on_refused, NULL);
    ask(ctx, a, LONG - 1, 0, 0, opd_now_ns(ctx) + 1, on_late, NULL);
    return OPD_OK;
}

TEST(cancelled_late_and_bad_requests) {
    static asker a;
    opd_lane *lane;
    opd_model_config config = {.vocab_size = VOCAB, .hidden_size = 16, .intermediate_size = 24,
                               .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 4,
                               .max_position = LONG, .rope_theta = 1e4, .rms_eps = 1e-6,
                               .tie_embeddings = true, .bos_id = 1, .eos_id = 2, .pad_id = 0};
    sys_up(&a.t, NULL);
    CHECK_OK(opd_model_create(&config, 7, NULL, &a.model));
    CHECK_OK(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &a.kernels));
    CHECK_OK(opd_lane_open(a.t.system, "scorer", 2, &lane));
    static int32_t tokens[LONG];
    for (int i = 0; i < LONG; i++) tokens[i] = i * 7 % VOCAB;
    CHECK_OK(opd_slice_copy(&a.t.memory.alloc, tokens, sizeof tokens, &a.text));
    opd_scorer_config scorer = {.model = a.model, .lane = lane, .kernels = a.kernels,
                                .cache_bytes = 4 << 20, .alloc = &a.t.memory.alloc};
    CHECK_OK(opd_spawn(a.t.system, &opd_scorer_class, NULL, &scorer, &a.scorer));
    script_spawn(&a.t, "asker", (opd_script){.start = start, .arg = &a});
    CHECK_OK(opd_system_run(a.t.system));
    CHECK_INT(a.replies, 6);
    CHECK_INT(a.cached, 200); /* of what the cancelled one had read */
    opd_buf_release(a.text.buf);
    sys_down(&a.t);
    opd_kernels_destroy(a.kernels);
    opd_model_destroy(a.model);
}
