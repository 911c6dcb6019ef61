/* sim_server.c - a node of scorer, rollout and HTTP server (sim_server.h). Thread: the world's. */
#include "tests/sim/sim_server.h"

#include <stdio.h>
#include <stdlib.h>

#include "actors/rollout/rollout_actor.h"
#include "actors/scorer/scorer_actor.h"
#include "actors/server/server_actor.h"
#include "actors/weights.h"
#include "core/base/check.h"
#include "core/base/rng.h"
#include "models/safetensors.h"
#include "tests/sim/stub_model.h"

enum { SLOTS = 4, CACHE_BYTES = 1 /* the least that works: requests fight for pages */ };

struct sim_server {
    opd_env *env;
    opd_system *system;
    checkers *checkers;
    opd_slot *weights;
    opd_model *model;
    opd_tokenizer *tokenizer;
    opd_kernels *kernels;
    opd_roles roles;
    const char *dir, *host;
    const opd_alloc *alloc;
};

static opd_err load(sim_server *s) {
    opd_buf *buf;
    OPD_TRY(opd_model_open(s->dir, NULL, &s->model));
    OPD_TRY(opd_tokenizer_open(s->dir, NULL, &s->tokenizer));
    OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, 1, NULL, &s->kernels));
    OPD_TRY(opd_slot_create(s->system, &s->weights));
    OPD_TRY(opd_weights_buf(s->model, NULL, &buf));
    opd_slot_put(s->weights, buf, 1);
    opd_buf_release(buf);
    return OPD_OK;
}

static opd_err spawn(sim_server *s) {
    opd_lane *scorer_lane, *rollout_lane;
    OPD_TRY(opd_lane_open(s->system, "scorer", 4, &scorer_lane));
    OPD_TRY(opd_lane_open(s->system, "rollout", 4, &rollout_lane));
    opd_scorer_config scorer = {.model = s->model, .lm = &stub_lm, .lane = scorer_lane,
                                .kernels = s->kernels, .cache_bytes = CACHE_BYTES,
                                .alloc = s->alloc};
    OPD_TRY(opd_spawn(s->system, &opd_scorer_class, NULL, &scorer, &s->roles.scorer));
    opd_rollout_config rollout = {
        .model = &s->model->config, .lm = &stub_lm, .kernels = s->kernels, .lane = rollout_lane,
        .weights = s->weights, .roles = &s->roles, .slots = SLOTS,
        .max_len = (uint32_t)s->model->config.max_position, .requests_max = SLOTS,
        .alloc = s->alloc};
    OPD_TRY(opd_spawn(s->system, &opd_rollout_class, NULL, &rollout, &s->roles.rollout));
    opd_server_config server = {.roles = &s->roles, .env = s->env, .alloc = s->alloc,
                                .model = &s->model->config, .tokenizer = s->tokenizer,
                                .model_path = s->dir, .host = s->host,
                                .port = SIM_TEACHER_PORT};
    return opd_spawn(s->system, &opd_server_class, NULL, &server, &s->roles.server);
}

static opd_err start(sim_server *s, opd_sim *sim, opd_net_sim *net) {
    opd_system_options options = {.alloc = s->alloc, .messages_max = 1024,
                                  .stop_timeout_ms = 1000};
    OPD_TRY(opd_sim_env(sim, s->host, &s->env));
    OPD_TRY(opd_net_sim_join(net, s->env));
    OPD_TRY(opd_system_create(&options, s->env, &s->system));
    s->checkers = checkers_create(s->system);
    OPD_TRY(load(s));
    OPD_TRY(spawn(s));
    opd_system_begin(s->system);
    return OPD_OK;
}

sim_server *sim_server_start(opd_sim *sim, opd_net_sim *net, const sim_files *files,
                             const char *host) {
    sim_server *s = calloc(1, sizeof *s);
    if (s == NULL) abort();
    *s = (sim_server){.dir = files->teacher, .host = host, .alloc = opd_sim_alloc(sim)};
    opd_err err = start(s, sim, net);
    if (err != OPD_OK) sim_die("server", err);
    return s;
}

bool sim_server_lives(const sim_server *s) {
    return opd_alive(s->system, s->roles.scorer) && opd_alive(s->system, s->roles.rollout) &&
           opd_alive(s->system, s->roles.server);
}

void sim_server_kill(sim_server *s, char *violation, size_t room_size, uint64_t *hash) {
    if (s == NULL) return;
    opd_err err = opd_system_end(s->system); /* it did not fail as a system */
    opd_slot_destroy(s->weights);
    opd_system_destroy(s->system);
    if (err == OPD_OK) err = opd_env_destroy(s->env);
    const char *found = checkers_violation(s->checkers);
    violation[0] = '\0';
    if (found != NULL) (void)snprintf(violation, room_size, "server: %s", found);
    else if (err != OPD_OK) (void)snprintf(violation, room_size, "server: %s", opd_err_context());
    *hash = opd_rng_at(*hash, checkers_hash(s->checkers), 2, 0);
    checkers_destroy(s->checkers);
    opd_kernels_destroy(s->kernels);
    opd_tokenizer_destroy(s->tokenizer);
    opd_model_destroy(s->model);
    free(s);
}
