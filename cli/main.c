/* main.c - the opd command: reads the command line, calls include/opd, reports errors.
 *
 * Invariants: the only place that exits; every error leaves as one paragraph on stderr and an
 * exit code from the table in the help text. Thread: main. Nothing to free.
 */
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "opd/config.h"
#include "opd/log.h"
#include "opd/run.h"

static const char HELP[] =
    "opd - on-policy distillation: a student model learns on its own samples from a teacher.\n"
    "\n"
    "usage:\n"
    "  opd run CONFIG [--resume | --force] [--set KEY=VALUE]... [seed-page flags]\n"
    "  opd serve --model DIR [--host H] [--port N] [--threads N] [--max-sequences N]\n"
    "            [--tls-cert FILE [--tls-key FILE] [--tls-client-ca FILE]]\n"
    "            [--api-key-file FILE | --api-key-env VARIABLE] [--max-queue N] [--drain-s S]\n"
    "            [--prefix-cache-mb N] [--faults FILE]\n"
    "  opd eval --model DIR CONFIG [--set KEY=VALUE]...\n"
    "  opd generate --model DIR --prompt TEXT [--max-tokens N] [--count N]\n"
    "               [--temperature T] [--top-p P] [--top-k K] [--seed N]\n"
    "  opd config CONFIG [--set KEY=VALUE]...      print the effective configuration\n"
    "  opd teacher probe URL [--protocol sglang|vllm] [--api-key-env NAME | --api-key-file FILE]\n"
    "            [--tokens N] [--top-k K] [--concurrency N] [--seconds S] [--timeout-s S]\n"
    "            [--ca-file FILE] [--cert-file FILE] [--key-file FILE] [--no-verify] [--json]\n"
    "\n"
    "options:\n"
    "  --log-level error|warn|info|debug      what goes to stderr (default: warn); opd run has\n"
    "                                         run.log_level in its configuration instead\n"
    "  -h, --help        -V, --version\n"
    "\n"
    "seed-page flags (opd run, opd config), as the on-policy distillation page has them:\n"
    "  --use-opd  --opd-type sglang|megatron  --opd-kl-coef X  --opd-only-reward\n"
    "  --opd-teacher-load DIR  --opd-teacher-ckpt-step N  --opd-teacher-timeout-s S\n"
    "  --opd-log-prob-top-k K  --rm-url URL\n"
    "\n"
    "environment: NO_COLOR turns colours off; OPD_CPU_ISA=plain|avx2|avx512 chooses the kernels.\n"
    "\n"
    "exit codes:\n"
    "  0  done                              4  disk, memory or another resource ran out\n"
    "  1  internal error                    5  a peer failed: teacher unreachable or invalid\n"
    "  2  command line or configuration     6  the run stopped itself: no teacher, bad numbers\n"
    "  3  malformed data or model file    130  stopped by a signal, state saved\n"
    "\n"
    "start with:  opd run configs/quickstart.yaml\n";

static int exit_code(opd_err err) {
    if (err == OPD_ERR_INTERRUPTED) return 130;
    if (err == OPD_ERR_INTERNAL) return 1;
    switch (opd_err_category_of(err)) {
    case OPD_ERR_CATEGORY_OK: return 0;
    case OPD_ERR_CATEGORY_USAGE: return 2;
    case OPD_ERR_CATEGORY_PROTO: return 3;
    case OPD_ERR_CATEGORY_RESOURCE: return 4;
    case OPD_ERR_CATEGORY_PEER:
    case OPD_ERR_CATEGORY_TIMEOUT:
    case OPD_ERR_CATEGORY_CLOSED:
    case OPD_ERR_CATEGORY_AGAIN: return 5;
    case OPD_ERR_CATEGORY_FATAL: return 6;
    }
    return 1;
}

static opd_err unknown(const args *a, const char *command) {
    if (a->name != NULL)
        return opd_fail(OPD_ERR_INVALID, "there is no option --%s of opd %s; see opd --help",
                        a->name, command);
    return opd_fail(OPD_ERR_INVALID, "unexpected argument \"%s\"; see opd --help", a->value);
}

/* A command that works on a configuration: its file, and the settings of the command line. */
typedef struct config_args {
    const char *path;
    opd_config_overrides *overrides;
} config_args;

/* Takes --set and the seed-page flags out of the arguments not read yet. */
static opd_err config_args_take(args *a, config_args *config) {
    opd_err err = opd_config_overrides_create(NULL, &config->overrides);
    if (err != OPD_OK) return err;
    return opd_config_flags_parse(config->overrides, a->argc, a->argv, &a->argc);
}

/* The one plain word left: the configuration file. */
static opd_err config_arg(args *a, config_args *config, const char *command) {
    if (a->name != NULL || config->path != NULL) return unknown(a, command);
    config->path = a->value;
    return OPD_OK;
}

static opd_err config_load(const config_args *args_given, opd_config **out) {
    if (args_given->path == NULL)
        return opd_fail(OPD_ERR_INVALID, "a configuration file is missing; try: opd run "
                                         "configs/quickstart.yaml");
    return opd_config_load(NULL, args_given->path, args_given->overrides, out);
}

/* --log-level, known to every command but run; *out_taken says whether it was that. */
static opd_err common_arg(args *a, bool *out_taken) {
    *out_taken = args_is(a, "log-level", 0);
    if (!*out_taken) return OPD_OK;
    const char *text;
    opd_err err = args_text(a, &text);
    if (err != OPD_OK) return err;
    for (int level = OPD_LOG_LEVEL_ERROR; level <= OPD_LOG_LEVEL_DEBUG; level++) {
        if (strcmp(text, opd_log_level_name((opd_log_level)level)) != 0) continue;
        opd_log_level_set((opd_log_level)level);
        return OPD_OK;
    }
    return opd_fail(OPD_ERR_INVALID, "--log-level is error, warn, info or debug, not \"%s\"",
                    text);
}

static opd_err run_args(args *a, config_args *given, opd_run_options *options) {
    opd_err err = config_args_take(a, given);
    while (err == OPD_OK && args_next(a)) {
        if (args_is(a, "resume", 0)) options->resume = true;
        else if (args_is(a, "force", 0)) options->force = true;
        else err = config_arg(a, given, "run");
    }
    if (err == OPD_OK && options->resume && options->force)
        err = opd_fail(OPD_ERR_INVALID, "--resume keeps the run folder and --force replaces it; "
                                        "give one of them");
    return err != OPD_OK ? err : config_load(given, &options->config);
}

static opd_err command_run(args *a) {
    opd_run_options options = {.handle_signals = true, .screen = stdout};
    config_args given = {.path = NULL};
    opd_err err = run_args(a, &given, &options);
    if (err == OPD_OK) err = opd_run(&options);
    opd_config_destroy(options.config);
    opd_config_overrides_destroy(given.overrides);
    return err;
}

/* Prints the effective configuration; the caller frees *out_config. */
static opd_err config_print(args *a, config_args *given, opd_config **out_config) {
    opd_err err = config_args_take(a, given);
    while (err == OPD_OK && args_next(a)) {
        bool taken;
        err = common_arg(a, &taken);
        if (err == OPD_OK && !taken) err = config_arg(a, given, "config");
    }
    if (err == OPD_OK) err = config_load(given, out_config);
    if (err != OPD_OK) return err;
    char *text = NULL;
    err = opd_config_yaml(NULL, *out_config, true, &text);
    if (err == OPD_OK && (fputs(text, stdout) == EOF || fflush(stdout) != 0))
        err = opd_fail(OPD_ERR_IO, "standard output could not be written");
    opd_mem_free(NULL, text);
    return err;
}

static opd_err command_config(args *a) {
    config_args given = {.path = NULL};
    opd_config *config = NULL;
    opd_err err = config_print(a, &given, &config);
    opd_config_destroy(config);
    opd_config_overrides_destroy(given.overrides);
    return err;
}

static opd_err command_serve(args *a) {
    opd_serve_options options = {.handle_signals = true, .screen = stdout};
    opd_err err = OPD_OK;
    while (err == OPD_OK && args_next(a)) {
        bool taken;
        err = common_arg(a, &taken);
        if (err != OPD_OK || taken) continue;
        if (args_is(a, "model", 'm')) err = args_text(a, &options.model);
        else if (args_is(a, "host", 0)) err = args_text(a, &options.host);
        else if (args_is(a, "port", 'p')) err = args_int(a, 0, 65535, &options.port);
        else if (args_is(a, "threads", 't')) err = args_int(a, 1, 256, &options.threads);
        else if (args_is(a, "max-sequences", 0))
            err = args_int(a, 1, 4096, &options.max_sequences);
        else if (args_is(a, "tls-cert", 0)) err = args_text(a, &options.tls_cert);
        else if (args_is(a, "tls-key", 0)) err = args_text(a, &options.tls_key);
        else if (args_is(a, "tls-client-ca", 0)) err = args_text(a, &options.tls_client_ca);
        else if (args_is(a, "max-queue", 0)) err = args_int(a, 1, 4096, &options.max_queue);
        else if (args_is(a, "api-key-file", 0)) err = args_text(a, &options.api_key_file);
        else if (args_is(a, "api-key-env", 0)) err = args_text(a, &options.api_key_env);
        else if (args_is(a, "drain-s", 0)) err = args_int(a, 1, 86400, &options.drain_s);
        else if (args_is(a, "prefix-cache-mb", 0)) {
            err = args_int(a, 0, 1 << 20, &options.prefix_cache_mb);
            if (options.prefix_cache_mb == 0) options.prefix_cache_mb = -1; /* none */
        } else if (args_is(a, "faults", 0)) err = args_text(a, &options.faults);
        else if (args_is(a, "exit-with-parent", 0)) options.exit_with_parent = true;
        else err = unknown(a, "serve");
    }
    if (err != OPD_OK) return err;
    if (options.model == NULL) return opd_fail(OPD_ERR_INVALID, "--model DIR is missing");
    return opd_serve(&options);
}

static opd_err eval_args(args *a, config_args *given, const char **model, opd_config **out) {
    opd_err err = config_args_take(a, given);
    while (err == OPD_OK && args_next(a)) {
        bool taken;
        err = common_arg(a, &taken);
        if (err != OPD_OK || taken) continue;
        if (args_is(a, "model", 'm')) err = args_text(a, model);
        else err = config_arg(a, given, "eval");
    }
    if (err != OPD_OK) return err;
    if (*model == NULL) return opd_fail(OPD_ERR_INVALID, "--model DIR is missing");
    return config_load(given, out);
}

static opd_err command_eval(args *a) {
    opd_eval_options options = {.handle_signals = true, .screen = stdout};
    config_args given = {.path = NULL};
    opd_config *config = NULL;
    opd_accuracy accuracy;
    opd_err err = eval_args(a, &given, &options.model, &config);
    options.config = config;
    if (err == OPD_OK) err = opd_evaluate(&options, &accuracy);
    opd_config_destroy(config);
    opd_config_overrides_destroy(given.overrides);
    return err;
}

static opd_err generate_arg(args *a, opd_generate_options *options) {
    if (args_is(a, "model", 'm')) return args_text(a, &options->model);
    if (args_is(a, "prompt", 0)) return args_text(a, &options->prompt);
    if (args_is(a, "max-tokens", 0)) return args_int(a, 1, 1 << 20, &options->max_tokens);
    if (args_is(a, "count", 'n')) return args_int(a, 1, 4096, &options->count);
    if (args_is(a, "temperature", 0)) return args_double(a, 0, 100, &options->temperature);
    if (args_is(a, "top-p", 0)) return args_double(a, 0, 1, &options->top_p);
    if (args_is(a, "top-k", 0)) return args_int(a, 0, 1 << 24, &options->top_k);
    if (args_is(a, "seed", 0)) return args_u64(a, &options->seed);
    return unknown(a, "generate");
}

static opd_err command_generate(args *a) {
    opd_generate_options options = {.handle_signals = true, .out = stdout};
    opd_err err = OPD_OK;
    while (err == OPD_OK && args_next(a)) {
        bool taken;
        err = common_arg(a, &taken);
        if (err == OPD_OK && !taken) err = generate_arg(a, &options);
    }
    if (err != OPD_OK) return err;
    if (options.model == NULL) return opd_fail(OPD_ERR_INVALID, "--model DIR is missing");
    if (options.prompt == NULL) return opd_fail(OPD_ERR_INVALID, "--prompt TEXT is missing");
    return opd_generate(&options);
}

static opd_err probe_arg(args *a, opd_teacher_probe_options *options) {
    if (a->name == NULL && options->url == NULL) {
        options->url = a->value;
        return OPD_OK;
    }
    if (args_is(a, "protocol", 0)) return args_text(a, &options->protocol);
    if (args_is(a, "api-key-env", 0)) return args_text(a, &options->api_key_env);
    if (args_is(a, "api-key-file", 0)) return args_text(a, &options->api_key_file);
    if (args_is(a, "ca-file", 0)) return args_text(a, &options->ca_file);
    if (args_is(a, "cert-file", 0)) return args_text(a, &options->cert_file);
    if (args_is(a, "key-file", 0)) return args_text(a, &options->key_file);
    if (args_is(a, "tokens", 0)) return args_int(a, 2, 1 << 20, &options->tokens);
    if (args_is(a, "top-k", 0)) return args_int(a, 0, 1024, &options->top_k);
    if (args_is(a, "concurrency", 'c')) return args_int(a, 1, 1024, &options->concurrency);
    if (args_is(a, "seconds", 0)) return args_double(a, 0.1, 3600, &options->seconds);
    if (args_is(a, "timeout-s", 0)) return args_double(a, 0.1, 3600, &options->timeout_s);
    if (args_is(a, "no-verify", 0)) options->unverified = true;
    else if (args_is(a, "json", 0)) options->json = true;
    else return unknown(a, "teacher probe");
    return OPD_OK;
}

static opd_err command_teacher(args *a) {
    opd_teacher_probe_options options = {.handle_signals = true, .out = stdout};
    opd_err err = OPD_OK;
    if (!args_next(a) || a->name != NULL || strcmp(a->value, "probe") != 0)
        return opd_fail(OPD_ERR_INVALID, "what about a teacher? try: opd teacher probe URL");
    while (err == OPD_OK && args_next(a)) {
        bool taken;
        err = common_arg(a, &taken);
        if (err == OPD_OK && !taken) err = probe_arg(a, &options);
    }
    if (err != OPD_OK) return err;
    if (options.url == NULL)
        return opd_fail(OPD_ERR_INVALID, "the address is missing; try: opd teacher probe "
                                         "http://127.0.0.1:30000");
    return opd_teacher_probe(&options);
}

/* Not in the help: opd starts it itself. */
static opd_err command_reward_host(args *a) {
    if (!args_next(a) || a->name != NULL)
        return opd_fail(OPD_ERR_INVALID, "usage: opd reward-host FILE");
    return opd_reward_host(a->value);
}

static const struct {
    const char *name;
    opd_err (*run)(args *a);
} COMMANDS[] = {
    {"run", command_run},           {"serve", command_serve},   {"eval", command_eval},
    {"generate", command_generate}, {"config", command_config}, {"teacher", command_teacher},
    {"reward-host", command_reward_host},
};

/* Help and version: the exit code is 0 only if the text got out. */
static int show(const char *text) {
    if (fputs(text, stdout) != EOF && fflush(stdout) == 0) return 0;
    (void)fputs("opd: standard output could not be written\n", stderr);
    return exit_code(OPD_ERR_IO);
}

int main(int argc, char **argv) {
    opd_log_level_set(OPD_LOG_LEVEL_WARN);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        return show(HELP);
    }
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        char text[64];
        (void)snprintf(text, sizeof text, "opd %s\n", opd_version());
        return show(text);
    }
    if (argc < 2) {
        (void)fputs(HELP, stderr);
        return 2;
    }
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) != 0) continue;
        args a;
        args_init(&a, argc - 2, argv + 2);
        opd_err err = COMMANDS[i].run(&a);
        if (err != OPD_OK)
            (void)fprintf(stderr, "opd %s: %s\n", COMMANDS[i].name,
                          opd_err_context()[0] ? opd_err_context() : opd_err_text(err));
        return exit_code(err);
    }
    (void)fprintf(stderr, "opd: there is no command \"%s\"; see opd --help\n", argv[1]);
    return 2;
}
