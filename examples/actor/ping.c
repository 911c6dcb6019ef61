/* ping.c - two actors of one's own: one asks, the other answers, then the system stops.
 *
 * Messages have a kind (the receiver's business) and a body, msgpack by convention:
 * [version, n]. Here it is three bytes written by hand; any msgpack library does.
 *
 * Usage: ping [SEED]. With a seed the same two actors run in a simulated world, where a third of
 * the requests is refused at first: ask has to cope, and the same seed does the same again.
 *
 * Thread: main becomes the loop's in opd_system_run. The runtime owns actors and messages.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "opd/actor.h"
#include "opd/env.h"
#include "opd/sim.h"

enum { KIND_PING = 1, KIND_PONG = 2, PINGS = 3, ANSWER_WITHIN_MS = 1000 };

/* A message with the body [1, n]; n <= 127 is one byte of msgpack. */
static opd_err make(opd_system *system, uint16_t kind, uint8_t n, opd_msg **out_msg) {
    const uint8_t body[] = {0x92, 1, n}; /* array of two: version 1, n */
    opd_err err = opd_msg_create(system, kind, out_msg);
    if (err != OPD_OK) return err;
    err = opd_msg_body_set(*out_msg, body, sizeof body);
    if (err != OPD_OK) opd_msg_release(*out_msg);
    return err;
}

/* Reads the body that make writes. Errors: PARSE. A receiver trusts no byte. */
static opd_err read_number(const opd_msg *msg, uint8_t *out_n) {
    size_t size;
    const uint8_t *body = opd_msg_body(msg, &size);
    if (size != 3 || body[0] != 0x92 || body[1] != 1 || body[2] > 127)
        return opd_fail(OPD_ERR_PARSE, "%zu bytes that are no [1, n]", size);
    *out_n = body[2];
    return OPD_OK;
}

/* ---- the actor that answers: no state at all ---- */

static opd_err on_ping(opd_ctx *ctx, void *state, opd_msg *msg) {
    uint8_t n = 0;
    opd_msg *reply;
    (void)state;
    opd_err err = read_number(msg, &n);
    if (err == OPD_OK) err = make(opd_self_system(ctx), KIND_PONG, (uint8_t)(n + 1), &reply);
    if (err == OPD_OK) opd_reply(ctx, msg, reply);
    else opd_reply_error(ctx, msg, err);
    return OPD_OK;
}

static const opd_actor_class answerer_class = {.name = "answerer", .on_message = on_ping};

/* ---- the actor that asks ---- */

typedef struct asker {
    opd_pid answerer;
    uint8_t sent, answered;
    opd_timer again; /* after a refusal */
} asker;

static opd_err ask(opd_ctx *ctx, asker *self);

/* Called exactly once for each request: with the reply, or with the reason there is none. */
static opd_err on_answer(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    asker *self = state;
    uint8_t n = 0;
    (void)arg;
    if (err == OPD_OK) err = read_number(reply, &n);
    if (err != OPD_OK) return err; /* ends this actor, with the reason */
    self->answered++;
    (void)printf("%u -> %u\n", self->sent, n);
    if (self->sent < PINGS) return ask(ctx, self);
    (void)printf("%u pings, %u answers\n", self->sent, self->answered);
    opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err ask(opd_ctx *ctx, asker *self) {
    opd_msg *msg;
    opd_err err = make(opd_self_system(ctx), KIND_PING, (uint8_t)(self->sent + 1), &msg);
    if (err != OPD_OK) return err;
    err = opd_request(ctx, self->answerer, msg, opd_deadline_in(ctx, ANSWER_WITHIN_MS), on_answer,
                      NULL, NULL);
    if (err != OPD_OK) opd_msg_release(msg); /* a call owns what it takes only when it is OK */
    else self->sent++;
    return err == OPD_ERR_AGAIN ? opd_timer_start_after(&self->again, 1000000) : err;
}

static opd_err ask_again(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    return ask(ctx, state);
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    asker *self = state;
    self->answerer = *(const opd_pid *)config;
    opd_timer_init(&self->again, ctx, ask_again);
    return ask(ctx, self);
}

static const opd_actor_class asker_class = {
    .name = "asker", .state_size = sizeof(asker), .on_start = on_start};

static opd_err run(opd_env *env) {
    opd_system *system;
    opd_pid answerer, asker_pid;
    opd_err err = opd_system_create(NULL, env, &system);
    if (err != OPD_OK) return err;
    err = opd_spawn(system, &answerer_class, NULL, NULL, &answerer);
    if (err == OPD_OK) err = opd_spawn(system, &asker_class, NULL, &answerer, &asker_pid);
    if (err == OPD_OK) err = opd_system_run(system);
    opd_system_destroy(system);
    return err;
}

static opd_err run_simulated(uint64_t seed) {
    opd_sim_options options = {.faults = 1u << OPD_FAULT_REQUEST_AGAIN, .faults_all_armed = true,
                               .fault_one_in = 3};
    opd_sim *sim;
    opd_env *env;
    opd_err err = opd_sim_create(seed, &options, &sim);
    if (err != OPD_OK) return err;
    err = opd_sim_env(sim, "node", &env);
    if (err == OPD_OK) err = run(env);
    opd_sim_stats stats = opd_sim_stats_get(sim);
    (void)printf("%llu steps, %llu refused\n", (unsigned long long)stats.steps,
                 (unsigned long long)stats.faults[OPD_FAULT_REQUEST_AGAIN]);
    opd_sim_destroy(sim); /* and its node */
    return err;
}

static opd_err run_real(void) {
    opd_env *env;
    opd_err err = opd_env_uv_create(NULL, &env);
    if (err != OPD_OK) return err;
    err = run(env);
    opd_err closed = opd_env_destroy(env);
    return err == OPD_OK ? closed : err;
}

int main(int argc, char **argv) {
    opd_err err = argc > 1 ? run_simulated(strtoull(argv[1], NULL, 10)) : run_real();
    if (err == OPD_OK) return 0;
    (void)fprintf(stderr, "%s: %s\n", opd_err_name(err), opd_err_context());
    return 1;
}
