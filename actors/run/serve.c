/* serve.c - opd_serve of opd/run.h: a model behind HTTP until a signal.
 *
 * Two lanes with kernels of their own, "scorer" and "rollout"; "write" for large answers. One supervisor starts scorer,
 * rollout and server, restarts the one that fails (requests that it held are answered 503
 * by the server; a new server takes the old one's port), and stops them in reverse: the server
 * first, so that requests under way are answered while the others still live.
 * Thread: the caller's becomes the loop's. Everything is freed before opd_serve returns.
 */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "actors/messages.h"
#include "actors/rollout/rollout_actor.h"
#include "actors/run/memory.h"
#include "actors/run/watch.h"
#include "actors/scorer/scorer_actor.h"
#include "actors/server/server_actor.h"
#include "actors/weights.h"
#include "core/base/check.h"
#include "core/base/secret.h"
#include "core/env/env.h"
#include "models/safetensors.h"
#include "opd/run.h"
#include "opd/supervisor.h"
#include "transports/tls.h"

enum {
    SEQUENCES_DEFAULT = 64,
    PREFIX_CACHE_MB = 256,
    LANE_QUEUE = 4,
    DRAIN_S_DEFAULT = 30,
    STOP_MORE_MS = 5000, /* beyond the drain, then the server is ended by force */
    WATCHDOG_MS = 1000,
    STALL_REPORT_MS = 60000,
    CONTEXT_SIZE = 1024
};

typedef struct serving {
    const opd_serve_options *o;
    opd_model *model;
    opd_tokenizer *tokenizer;
    opd_server_faults *faults;
    char *api_key; /* NULL: none */
    opd_env *env;
    opd_system *system;
    opd_signals *signals;
    opd_watch watching;
    opd_slot *weights;
    opd_kernels *scorer_kernels, *rollout_kernels;
    opd_lane *scorer_lane, *rollout_lane, *write_lane;
    opd_roles roles;
    opd_tls_options tls;
    opd_child_spec children[3];
    uint16_t port;
    int killed_by; /* the signal; 0: none */
} serving;

static void on_stop_signal(void *arg, int signal_number, bool forced) {
    serving *s = arg;
    if (!forced) {
        opd_system_stop(s->system, OPD_OK); /* the ordinary end of a server */
        return;
    }
    s->killed_by = signal_number;
    opd_system_kill(s->system, OPD_ERR_INTERRUPTED);
}

/* The kernel sends SIGTERM when the starting thread ends; it may have ended before we asked. */
static opd_err follow_parent(void) {
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "--exit-with-parent: the kernel refuses");
    if (getppid() == 1) return opd_fail(OPD_ERR_CLOSED, "the starting process is gone already");
    return OPD_OK;
}

static opd_err load_key(serving *s) {
    if (s->o->api_key_file != NULL && s->o->api_key_env != NULL)
        return opd_fail(OPD_ERR_INVALID, "--api-key-file or --api-key-env, not both");
    if (s->o->api_key_file != NULL) return opd_secret_from_file(NULL, s->o->api_key_file, &s->api_key);
    if (s->o->api_key_env != NULL) return opd_secret_from_env(NULL, s->o->api_key_env, &s->api_key);
    return OPD_OK;
}

static uint64_t drain_ms(const serving *s) {
    return (uint64_t)(s->o->drain_s > 0 ? s->o->drain_s : DRAIN_S_DEFAULT) * 1000;
}

static opd_err load(serving *s) {
    OPD_TRY(load_key(s));
    OPD_TRY(opd_model_open(s->o->model, NULL, &s->model));
    OPD_TRY(opd_tokenizer_open(s->o->model, NULL, &s->tokenizer));
    if (s->o->faults != NULL) OPD_TRY(opd_server_faults_open(NULL, s->o->faults, &s->faults));
    int32_t known = opd_tokenizer_vocab_size(s->tokenizer);
    if (known > s->model->config.vocab_size)
        return opd_fail(OPD_ERR_MISMATCH, "%s: the tokenizer has %d ids, the model %d", s->o->model,
                        known, s->model->config.vocab_size);
    return OPD_OK;
}

static opd_err put_weights(serving *s) {
    opd_buf *buf;
    OPD_TRY(opd_slot_create(s->system, &s->weights));
    OPD_TRY(opd_weights_buf(s->model, NULL, &buf));
    opd_slot_put(s->weights, buf, 1);
    opd_buf_release(buf);
    return OPD_OK;
}

static opd_err open_lanes(serving *s) {
    size_t threads = s->o->threads > 0 ? (size_t)s->o->threads : 1;
    OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, threads, NULL, &s->scorer_kernels));
    OPD_TRY(opd_kernels_create_cpu(OPD_CPU_ISA_AUTO, threads, NULL, &s->rollout_kernels));
    OPD_TRY(opd_lane_open(s->system, "scorer", LANE_QUEUE, &s->scorer_lane));
    OPD_TRY(opd_lane_open(s->system, "rollout", LANE_QUEUE, &s->rollout_lane));
    return opd_lane_open(s->system, "write", OPD_SERVER_QUEUE_MAX, &s->write_lane);
}

static opd_scorer_config scorer_config(const serving *s) {
    int mb = s->o->prefix_cache_mb == 0 ? PREFIX_CACHE_MB : s->o->prefix_cache_mb;
    return (opd_scorer_config){.model = s->model, .lane = s->scorer_lane,
                               .kernels = s->scorer_kernels,
                               .cache_bytes = mb > 0 ? (uint64_t)mb << 20 : 0};
}

static uint32_t slots(const serving *s) {
    return s->o->max_sequences > 0 ? (uint32_t)s->o->max_sequences : SEQUENCES_DEFAULT;
}

/* ---- the actors ---- */

static opd_err start_scorer(opd_system *system, void *arg, opd_pid *out_pid) {
    serving *s = arg;
    opd_scorer_config scorer = scorer_config(s);
    OPD_TRY(opd_spawn(system, &opd_scorer_class, NULL, &scorer, out_pid));
    s->roles.scorer = *out_pid;
    return OPD_OK;
}

static opd_err start_rollout(opd_system *system, void *arg, opd_pid *out_pid) {
    serving *s = arg;
    opd_rollout_config rollout = {.model = &s->model->config, .kernels = s->rollout_kernels,
                                  .lane = s->rollout_lane, .weights = s->weights,
                                  .roles = &s->roles, .slots = slots(s),
                                  .max_len = (uint32_t)s->model->config.max_position,
                                  .requests_max = slots(s)};
    OPD_TRY(opd_spawn(system, &opd_rollout_class, NULL, &rollout, out_pid));
    s->roles.rollout = *out_pid;
    return OPD_OK;
}

static opd_err start_server(opd_system *system, void *arg, opd_pid *out_pid) {
    serving *s = arg;
    uint16_t port = s->port != 0 ? s->port : (uint16_t)s->o->port; /* 0: any, then the same */
    opd_server_config server = {.roles = &s->roles, .env = s->env, .model = &s->model->config,
                                .tokenizer = s->tokenizer, .model_path = s->o->model,
                                .host = s->o->host, .port = port, .out_port = &s->port,
                                .tls = s->o->tls_cert != NULL ? &s->tls : NULL,
                                .max_queue = (uint32_t)s->o->max_queue,
                                .drain_ms = drain_ms(s), .api_key = s->api_key,
                                .write_lane = s->write_lane, .faults = s->faults};
    OPD_TRY(opd_spawn(system, &opd_server_class, NULL, &server, out_pid));
    s->roles.server = *out_pid;
    return OPD_OK;
}

static opd_err start_actors(serving *s) {
    opd_pid pid;
    s->children[0] = (opd_child_spec){.id = "scorer", .start = start_scorer, .arg = s};
    s->children[1] = (opd_child_spec){.id = "rollout", .start = start_rollout, .arg = s};
    s->children[2] = (opd_child_spec){.id = "server", .start = start_server, .arg = s,
                                        .stop_timeout_ms = drain_ms(s) + STOP_MORE_MS};
    opd_supervisor_options serve = {.name = "serve", .children = s->children,
                                    .child_count = OPD_COUNTOF(s->children)};
    return opd_supervisor_start(s->system, &serve, &pid);
}

static opd_system_options system_options(void) {
    return (opd_system_options){.handler_warn_ms = 100, .kind_name = opd_message_kind_name,
                                .recorder = true, .stall_report_ms = STALL_REPORT_MS};
}

static void log_memory(const serving *s) {
    opd_system_options system = system_options();
    opd_scorer_config scorer = scorer_config(s);
    opd_memory_serving sizes = {.model = s->model,
                                .threads = s->o->threads > 0 ? (uint32_t)s->o->threads : 1,
                                .slots = slots(s),
                                .scorer_bytes = opd_scorer_memory_max(&scorer),
                                .runtime_bytes = opd_system_memory_max(&system)};
    opd_memory memory = opd_memory_of_serving(&sizes);
    opd_memory_log_serving(&memory);
}

static opd_err build(serving *s) {
    opd_system_options system = system_options();
    if (s->o->exit_with_parent) OPD_TRY(follow_parent());
    OPD_TRY(load(s));
    log_memory(s);
    OPD_TRY(opd_env_uv_create(NULL, &s->env));
    OPD_TRY(opd_system_create(&system, s->env, &s->system));
    opd_watch_options watching = {.env = s->env, .system = s->system, .watchdog_ms = WATCHDOG_MS};
    OPD_TRY(opd_watch_open(&s->watching, &watching));
    OPD_TRY(put_weights(s));
    OPD_TRY(open_lanes(s));
    OPD_TRY(start_actors(s));
    if (!s->o->handle_signals) return OPD_OK;
    OPD_TRY(opd_signals_open(s->env, NULL, on_stop_signal, s, &s->signals));
    return opd_watch_signal(&s->watching, s->signals);
}

static void say_ready(const serving *s) {
    const char *host = s->o->host != NULL ? s->o->host : "127.0.0.1";
    bool ipv6 = strchr(host, ':') != NULL;
    if (s->o->screen == NULL) return;
    (void)fprintf(s->o->screen, "opd serve: ready on http%s://%s%s%s:%u\n",
                  s->o->tls_cert != NULL ? "s" : "", ipv6 ? "[" : "", host, ipv6 ? "]" : "", s->port);
    (void)fflush(s->o->screen);
}

/* Takes everything down; `err` and its context are kept. */
static opd_err tear_down(serving *s, opd_err err) {
    char context[CONTEXT_SIZE];
    (void)snprintf(context, sizeof context, "%s", err != OPD_OK ? opd_err_context() : "");
    opd_signals_close(s->signals);
    opd_watch_close(&s->watching);
    opd_slot_destroy(s->weights);
    opd_system_destroy(s->system);
    opd_kernels_destroy(s->scorer_kernels);
    opd_kernels_destroy(s->rollout_kernels);
    opd_err closed = opd_env_destroy(s->env);
    opd_server_faults_destroy(s->faults);
    opd_secret_free(NULL, s->api_key);
    opd_tokenizer_destroy(s->tokenizer);
    opd_model_destroy(s->model);
    return err == OPD_OK ? closed : opd_fail(err, "%s", context);
}

opd_err opd_serve(const opd_serve_options *options) {
    serving s = {.o = options,
                 .tls = {.cert_file = options->tls_cert, .key_file = options->tls_key,
                         .ca_file = options->tls_client_ca}};
    if (options->tls_cert == NULL && (options->tls_key != NULL || options->tls_client_ca != NULL))
        return opd_fail(OPD_ERR_INVALID, "--tls-key and --tls-client-ca go with --tls-cert FILE");
    opd_err err = build(&s);
    if (err == OPD_OK) {
        say_ready(&s);
        err = opd_system_run(s.system);
        if (err == OPD_OK && s.killed_by != 0) /* the reason of the first signal is kept */
            err = opd_fail(OPD_ERR_INTERRUPTED, "stopped at once by signal %d; requests under way were not answered",
                           s.killed_by);
    }
    return tear_down(&s, err);
}
