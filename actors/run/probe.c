/* probe.c - opd_teacher_probe of opd/run.h: one actor asks and measures, then the report is printed
 * (probe_report.h).
 * Thread: the caller's becomes the loop's. Everything is freed before opd_teacher_probe returns.
 */
#include <string.h>

#include "actors/messages.h"
#include "actors/run/probe_report.h"
#include "core/base/check.h"
#include "core/base/secret.h"
#include "core/env/env.h"
#include "opd/run.h"
#include "transports/tls.h"

enum {
    TOKENS_DEFAULT = 512,
    CONCURRENCY_DEFAULT = 16,
    CONNECT_TIMEOUT_S = 5,
    CONTEXT_SIZE = 1024
};

static const double SECONDS_DEFAULT = 3, TIMEOUT_S_DEFAULT = 30;

typedef struct probing {
    const opd_teacher_probe_options *o;
    opd_config_teacher teacher; /* the protocol's name is looked up by it */
    opd_env *env;
    opd_system *system;
    opd_signals *signals;
    char *api_key;
    opd_prober_report report;
    opd_prober_config config;
} probing;

static void on_stop_signal(void *arg, int signal_number, bool forced) {
    probing *p = arg;
    opd_err reason = opd_fail(OPD_ERR_INTERRUPTED, "stopped by signal %d", signal_number);
    if (forced) opd_system_kill(p->system, reason);
    else opd_system_stop(p->system, reason);
}

static opd_err read_key(probing *p) {
    const opd_teacher_probe_options *o = p->o;
    if (o->api_key_env != NULL && o->api_key_file != NULL)
        return opd_fail(OPD_ERR_INVALID, "--api-key-env and --api-key-file: give one of them");
    if (o->api_key_env != NULL)
        return opd_err_prefix(opd_secret_from_env(NULL, o->api_key_env, &p->api_key), "--api-key-env");
    if (o->api_key_file != NULL)
        return opd_err_prefix(opd_secret_from_file(NULL, o->api_key_file, &p->api_key), "--api-key-file");
    return OPD_OK;
}

static opd_err read_protocol(probing *p) {
    const char *name = p->o->protocol != NULL ? p->o->protocol : "sglang";
    if (strcmp(name, "sglang") == 0) p->teacher.protocol = OPD_CONFIG_PROTOCOL_SGLANG;
    else if (strcmp(name, "vllm") == 0) p->teacher.protocol = OPD_CONFIG_PROTOCOL_VLLM;
    else return opd_fail(OPD_ERR_INVALID, "--protocol is sglang or vllm, not \"%s\"", name);
    return OPD_OK;
}

static opd_err start(probing *p, const opd_tls_options *tls) {
    const opd_teacher_probe_options *o = p->o;
    p->config = (opd_prober_config){
        .env = p->env, .protocol = opd_teacher_protocol_of(&p->teacher), .url = o->url, .tls = tls,
        .api_key = p->api_key, .tokens = (uint32_t)(o->tokens > 0 ? o->tokens : TOKENS_DEFAULT),
        .top_k = (uint32_t)o->top_k,
        .concurrency = (uint32_t)(o->concurrency > 0 ? o->concurrency : CONCURRENCY_DEFAULT),
        .seconds = o->seconds > 0 ? o->seconds : SECONDS_DEFAULT,
        .timeout_s = o->timeout_s > 0 ? o->timeout_s : TIMEOUT_S_DEFAULT,
        .connect_timeout_s = CONNECT_TIMEOUT_S, .report = &p->report};
    opd_pid pid;
    return opd_err_prefix(opd_spawn(p->system, &opd_prober_class, NULL, &p->config, &pid), "%s", o->url);
}

static opd_err run(probing *p) {
    opd_tls_options tls = {.ca_file = p->o->ca_file, .cert_file = p->o->cert_file,
                           .key_file = p->o->key_file, .unverified = p->o->unverified};
    OPD_TRY(read_protocol(p));
    OPD_TRY(read_key(p));
    OPD_TRY(opd_env_uv_create(NULL, &p->env));
    opd_system_options system = {.handler_warn_ms = 1000, .kind_name = opd_message_kind_name};
    OPD_TRY(opd_system_create(&system, p->env, &p->system));
    if (p->o->handle_signals) OPD_TRY(opd_signals_open(p->env, NULL, on_stop_signal, p, &p->signals));
    OPD_TRY(start(p, &tls));
    return opd_system_run(p->system);
}

/* Takes everything down; `err` and its context are kept. */
static opd_err tear_down(probing *p, opd_err err) {
    char context[CONTEXT_SIZE];
    (void)snprintf(context, sizeof context, "%s", err != OPD_OK ? opd_err_context() : "");
    opd_signals_close(p->signals);
    opd_system_destroy(p->system);
    opd_err closed = opd_env_destroy(p->env);
    opd_secret_free(NULL, p->api_key);
    return err == OPD_OK ? closed : opd_fail(err, "%s", context);
}

opd_err opd_teacher_probe(const opd_teacher_probe_options *options) {
    probing *p = opd_mem_get(NULL, sizeof *p);
    if (p == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a probe");
    p->o = options;
    opd_err err = tear_down(p, run(p));
    if (err == OPD_OK) err = opd_probe_report_print(options, &p->config, &p->report);
    if (err == OPD_OK && !p->report.usable)
        err = opd_fail(OPD_ERR_REMOTE, "%s cannot be used as a teacher%s: %s", options->url,
                       p->report.inquiry.denied ? ", it wants another key (--api-key-env or --api-key-file)"
                                                : "", p->report.reason);
    opd_mem_free(NULL, p);
    return err;
}
