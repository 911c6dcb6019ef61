/* fleet_load.c - a source of samples, a sink for their scores, and the teacher between them
 * (fleet_load.h). Thread: the loop. */
#include "tests/support/fleet_load.h"

#include <math.h>
#include <stdlib.h>

#include "actors/messages.h"
#include "actors/panel/panel_actor.h"
#include "actors/teacher/teacher_http.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "tests/support/stub_server.h"

enum {
    PROMPT = 16,
    RESPONSE = 48,
    WINDOW = 4096, /* samples that the teacher may hold */
    OFFER_EVERY_MS = 1
};

/* ---- samples come back ---- */

static int32_t token_of(uint64_t group, uint64_t at) {
    return (int32_t)(3 + (group * 7919 + at * 104729) % (STUB_SERVER_VOCAB - 3));
}

static double since_ms(const fleet_load *load, opd_ctx *ctx) {
    return (double)(opd_now_ns(ctx) - load->began_ns) / 1e6;
}

static opd_err check_scores(fleet_load *load, const opd_scores_fields *f) {
    const float *logp = f->logp.buf != NULL ? opd_slice_data(f->logp) : NULL;
    const uint8_t *valid = f->valid.buf != NULL ? opd_slice_data(f->valid) : NULL;
    load->tokens += RESPONSE;
    load->masked += logp == NULL;
    for (uint64_t i = 0; i < RESPONSE && logp != NULL; i++) {
        if (valid != NULL && !valid[i]) continue;
        load->valid_tokens++;
        if (logp[i] != stub_server_score(token_of(f->group, PROMPT + i), PROMPT + i))
            return opd_fail(OPD_ERR_MISMATCH, "sample %llu has a score that nobody gave",
                            (unsigned long long)f->group);
    }
    return OPD_OK;
}

static void tell_sample(const fleet_load *load, opd_ctx *ctx, const opd_scores_fields *f) {
    double took_ms = load->latency_ms[f->group];
    if (load->tell_ms <= 0 || took_ms < load->tell_ms) return;
    (void)fprintf(stderr, "  %8.0f ms: sample %llu took %.0f ms: waited %.0f, attempts %u, hedges %u, "
                  "moves %u, %s %s\n", since_ms(load, ctx), (unsigned long long)f->group, took_ms,
                  f->wait_ms, f->attempts, f->hedges, f->moves, f->endpoint, f->reason);
}

static opd_err take_scores(fleet_load *load, opd_ctx *ctx, opd_msg *msg) {
    opd_scores_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_SCORES, &f));
    if (f.group >= load->offered || load->times[f.group]++ != 0)
        return opd_fail(OPD_ERR_MISMATCH, "a sample was delivered twice");
    load->latency_ms[f.group] = since_ms(load, ctx) - load->due_ms[f.group];
    load->attempts += f.attempts;
    load->hedges += f.hedges;
    load->moves += f.moves;
    tell_sample(load, ctx, &f);
    return check_scores(load, &f);
}

static opd_err remember(opd_ctx *ctx, void *state, const void *config) {
    (void)ctx;
    *(fleet_load **)state = *(fleet_load *const *)config;
    return OPD_OK;
}

static opd_err on_scores(opd_ctx *ctx, void *state, opd_msg *msg) {
    fleet_load *load = *(fleet_load **)state;
    opd_err err = take_scores(load, ctx, msg);
    if (err != OPD_OK || ++load->delivered == load->count)
        opd_system_stop(opd_self_system(ctx), err);
    return OPD_OK;
}

static opd_err on_note(opd_ctx *ctx, void *state, opd_msg *msg) {
    const fleet_load *load = *(fleet_load **)state;
    opd_note_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_NOTE, &f));
    if (load->tell_ms > 0) (void)fprintf(stderr, "  %8.0f ms: %s\n", since_ms(load, ctx), f.text);
    return OPD_OK;
}

static const opd_actor_class sink_class = {.name = "sink", .state_size = sizeof(fleet_load *),
                                           .on_start = remember, .on_message = on_scores};
static const opd_actor_class monitor_class = {.name = "monitor", .state_size = sizeof(fleet_load *),
                                              .on_start = remember, .on_message = on_note};

/* ---- samples go out ---- */

typedef struct source {
    fleet_load *load;
    opd_link *link;
    opd_timer timer;
} source;

static opd_err offer(opd_ctx *ctx, source *s, uint64_t group) {
    int32_t ids[PROMPT + RESPONSE];
    opd_rollout_fields f = {.group = group, .prompt_len = PROMPT};
    for (uint64_t i = 0; i < PROMPT + RESPONSE; i++) ids[i] = token_of(group, i);
    OPD_TRY(opd_slice_copy(s->load->alloc, ids, sizeof ids, &f.tokens));
    opd_err err = opd_message_link_send(ctx, s->link, OPD_MESSAGE_ROLLOUT, &f);
    opd_buf_release(f.tokens.buf);
    return err;
}

/* Offers all that is due. */
static opd_err on_due(opd_ctx *ctx, void *state, opd_timer *timer) {
    source *s = state;
    fleet_load *load = s->load;
    while (load->offered < load->count && load->due_ms[load->offered] <= since_ms(load, ctx)) {
        opd_err err = offer(ctx, s, load->offered);
        if (err == OPD_ERR_AGAIN) break; /* it has come, and waits */
        OPD_TRY(err);
        load->offered++;
    }
    if (load->offered == load->count) return OPD_OK;
    return opd_timer_start_after(timer, (uint64_t)OFFER_EVERY_MS * 1000000);
}

static opd_err source_start(opd_ctx *ctx, void *state, const void *config) {
    source *s = state;
    s->load = *(fleet_load *const *)config;
    s->load->began_ns = opd_now_ns(ctx);
    opd_timer_init(&s->timer, ctx, on_due);
    OPD_TRY(opd_link_open(ctx, s->load->roles.teacher, WINDOW, (uint64_t)WINDOW << 12, &s->link));
    return opd_timer_start_after(&s->timer, (uint64_t)OFFER_EVERY_MS * 1000000);
}

static const opd_actor_class source_class = {.name = "source", .state_size = sizeof(source),
                                             .on_start = source_start};

/* ---- start ---- */

/* The moments at which samples are due. */
static opd_err draw(fleet_load *load) {
    opd_rng rng;
    double at_ms = 0;
    load->count = (uint64_t)(load->seconds * load->rate);
    load->due_ms = opd_mem_get(load->alloc, load->count * sizeof(double));
    load->latency_ms = opd_mem_get(load->alloc, load->count * sizeof(double));
    load->times = opd_mem_get(load->alloc, load->count);
    if (load->due_ms == NULL || load->latency_ms == NULL || load->times == NULL)
        return opd_fail(OPD_ERR_NOMEM, "no memory for the samples");
    opd_rng_init(&rng, load->seed);
    for (uint64_t i = 0; i < load->count; i++) {
        at_ms -= log(1 - opd_rng_uniform(opd_rng_next(&rng))) * 1000 / load->rate;
        load->due_ms[i] = at_ms;
    }
    return OPD_OK;
}

static opd_err configure(fleet_load *load) {
    char text[512];
    int size = snprintf(text, sizeof text,
                        "model: {path: student}\ndata: {path: data}\ntrain: {steps: 1}\n"
                        "opd: {enabled: true, type: sglang}\nteachers:\n  tutor:\n    urls: ["
                        "http://127.0.0.1:%u, http://127.0.0.1:%u, http://127.0.0.1:%u]\n",
                        load->ports[0], load->ports[1], load->ports[2]);
    return opd_config_load_text(load->alloc, "fleet", text, (size_t)size, NULL, &load->config);
}

static opd_err spawn_teacher(fleet_load *load, opd_system *system) {
    const opd_config_stage *stage = &load->config->stages[0];
    opd_teacher_http_config teacher = {
        .roles = &load->roles, .env = load->env, .alloc = load->alloc,
        .teacher = opd_config_teacher_find(stage, "tutor"),
        .teacher_lost_s = stage->opd.teacher_lost_s, .max_len = PROMPT + RESPONSE, .temperature = 1,
        .vocab_size = STUB_SERVER_VOCAB, .bos_id = 1, .eos_id = 2, .tokenizer_hash = "stub"};
    opd_panel_config panel = {.roles = &load->roles, .stage = stage, .max_len = PROMPT + RESPONSE,
                              .samples_max = WINDOW, .window_msgs = WINDOW,
                              .window_bytes = (uint64_t)WINDOW << 12, .alloc = load->alloc};
    OPD_TRY(opd_spawn(system, &opd_panel_class, NULL, &panel, &load->roles.teacher));
    return opd_spawn(system, &opd_teacher_http_class, NULL, &teacher, &load->roles.teachers[0]);
}

opd_err fleet_load_start(fleet_load *load, opd_system *system) {
    opd_pid pid;
    OPD_TRY(draw(load));
    OPD_TRY(configure(load));
    OPD_TRY(opd_spawn(system, &monitor_class, NULL, &load, &load->roles.monitor));
    OPD_TRY(opd_spawn(system, &sink_class, NULL, &load, &load->roles.batcher));
    OPD_TRY(spawn_teacher(load, system));
    return opd_spawn(system, &source_class, NULL, &load, &pid);
}

/* ---- results ---- */

double fleet_load_accounted(const fleet_load *load) {
    uint64_t once = 0;
    for (uint64_t i = 0; i < load->count; i++) once += load->times[i] == 1;
    return (double)once / (double)load->count;
}

double fleet_load_valid_share(const fleet_load *load) {
    return load->tokens == 0 ? 0 : (double)load->valid_tokens / (double)load->tokens;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double fleet_load_quantile_ms(fleet_load *load, double q) {
    uint64_t rank = (uint64_t)ceil(q * (double)load->count);
    qsort(load->latency_ms, load->count, sizeof *load->latency_ms, by_value);
    return load->latency_ms[rank == 0 ? 0 : rank - 1];
}

void fleet_load_free(fleet_load *load) {
    opd_mem_free(load->alloc, load->due_ms);
    opd_mem_free(load->alloc, load->latency_ms);
    opd_mem_free(load->alloc, load->times);
    opd_config_destroy(load->config);
}
