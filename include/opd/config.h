/* opd/config.h - the configuration of a run: YAML and flags in, typed structs out.
 *
 * One table (core/config/schema_table.c) describes every key: type, default, range, unit and
 * meaning. The parser, the defaults, the effective YAML, the JSON Schema for editors and
 * the reference page docs/configuration.md all come from it; the structs below are what
 * it fills.
 *
 * A configuration is a list of stages. Each opd_config_stage holds *every* section, with
 * all layers merged, from weakest to strongest:
 *   1. defaults  2. the file's top-level sections  3. the stage's own sections
 *   4. seed-page flags (--use-opd ...)  5. --set KEY=VALUE, then --set stages.NAME.KEY=VALUE
 * so a --set of a section key wins over the stages' own values. A file without `stages` is
 * one stage named "main" of the kind `run.kind`. A flag and a --set that give one key
 * different values contradict each other: an error. Two keys of which only one may be given
 * (train.steps|epochs, model.path|init, a teacher's url|path) clash only within one layer;
 * the stronger layer's key resets the other.
 *
 * Invariants of a loaded configuration:
 * 1. Every number is within the range of its key, every float is finite.
 * 2. Strings are never NULL ("" = not given), valid UTF-8, without control characters.
 * 3. Derived defaults (those marked "derived" below) are filled in.
 * 4. Stages other than `rl` have opd.enabled == false.
 *
 * Errors: OPD_ERR_CONFIG with the context "file:line:column: key: what is wrong; remedy"
 * (for flags the place is the flag), OPD_ERR_NOT_FOUND for a missing file, OPD_ERR_NOMEM.
 * Thread: any one at a time. Ownership: a loaded opd_config owns all its strings; they and
 * the structs live until opd_config_destroy(). Implemented by core/config.
 */
#ifndef OPD_CONFIG_H
#define OPD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"
#include "opd/log.h"

#ifdef __cplusplus
extern "C" {
#endif

#define OPD_CONFIG_STAGES_MAX 64   /* stages in one file               */
#define OPD_CONFIG_TEACHERS_MAX 16 /* teachers of one stage            */
#define OPD_CONFIG_TEACHER_INFLIGHT_MAX 4096 /* questions to all of them at the same time */
#define OPD_CONFIG_REPLICAS_MAX 64 /* urls of one teacher              */
#define OPD_CONFIG_URL_SIZE 1024   /* one of them, with its NUL        */
#define OPD_CONFIG_REWARD_PARTS_MAX 16 /* judges of one reward           */
#define OPD_CONFIG_SPLITS_MAX 16   /* files of one arithmetic stage    */
#define OPD_CONFIG_SOURCES_MAX 16  /* data sources of one stage        */
#define OPD_CONFIG_EVAL_SETS_MAX 16 /* named sets of problems of one stage */
#define OPD_CONFIG_WORD_SIZE 192   /* of a list of words, with its NUL */
#define OPD_CONFIG_NAME_MAX 64     /* bytes of a run, stage, teacher or split name */
#define OPD_CONFIG_FILE_MAX (1u << 20) /* bytes of a configuration file */

typedef enum opd_config_kind {
    OPD_CONFIG_KIND_ARITHMETIC, /* writes generated problems as JSONL files */
    OPD_CONFIG_KIND_SFT,        /* supervised fine-tuning on data.path      */
    OPD_CONFIG_KIND_RL,         /* rollouts, GRPO and/or distillation       */
    OPD_CONFIG_KIND_EVAL        /* measures model on eval.path              */
} opd_config_kind;

typedef enum opd_config_device_kind { OPD_CONFIG_DEVICE_KIND_CPU } opd_config_device_kind;

typedef enum opd_config_reward_type {
    OPD_CONFIG_REWARD_TYPE_NONE,            /* every reward is 0                          */
    OPD_CONFIG_REWARD_TYPE_MATH,            /* 1 if the answer is right, or 0             */
    OPD_CONFIG_REWARD_TYPE_DAPO,            /* 1 or -1, by text after "Answer:"           */
    OPD_CONFIG_REWARD_TYPE_F1,              /* of the words                               */
    OPD_CONFIG_REWARD_TYPE_MULTIPLE_CHOICE, /* 1 if the option's letter is right, or 0    */
    OPD_CONFIG_REWARD_TYPE_GPQA,            /* the same                                   */
    OPD_CONFIG_REWARD_TYPE_COMMAND,         /* child processes that speak JSON lines      */
    OPD_CONFIG_REWARD_TYPE_LIBRARY,         /* a shared object (opd/reward.h) in a child  */
    OPD_CONFIG_REWARD_TYPE_REMOTE_RM,       /* POSTed to a URL                            */
    OPD_CONFIG_REWARD_TYPE_PARTS            /* the weighted sum of reward.parts           */
} opd_config_reward_type;

typedef enum opd_config_opd_type {
    OPD_CONFIG_OPD_TYPE_NONE,    /* not given: legal only while OPD is off  */
    OPD_CONFIG_OPD_TYPE_SGLANG,  /* a server scores over HTTP               */
    OPD_CONFIG_OPD_TYPE_MEGATRON, /* the teacher is loaded into this process */
    OPD_CONFIG_OPD_TYPE_CONSTANT  /* no teacher: unlikely tokens are worth less, always the same */
} opd_config_opd_type;

/* What of the distributions of teacher and student is compared. */
typedef enum opd_config_signal {
    OPD_CONFIG_SIGNAL_SAMPLED, /* the log-probs of the drawn token  */
    OPD_CONFIG_SIGNAL_TOPK     /* those of the ids of a support     */
} opd_config_signal;

typedef enum opd_config_support {
    OPD_CONFIG_SUPPORT_TEACHER_TOPK,
    OPD_CONFIG_SUPPORT_STUDENT_TOPK,
    OPD_CONFIG_SUPPORT_INTERSECTION,
    OPD_CONFIG_SUPPORT_UNION,
    OPD_CONFIG_SUPPORT_FULL
} opd_config_support;

typedef enum opd_config_divergence {
    OPD_CONFIG_DIVERGENCE_REVERSE_KL, /* KL(student || teacher) */
    OPD_CONFIG_DIVERGENCE_FORWARD_KL, /* KL(teacher || student) */
    OPD_CONFIG_DIVERGENCE_JSD,
    OPD_CONFIG_DIVERGENCE_LOW_VAR     /* the k3 estimate        */
} opd_config_divergence;

/* What becomes of the mass outside of the support. */
typedef enum opd_config_tail {
    OPD_CONFIG_TAIL_BUCKET,
    OPD_CONFIG_TAIL_RENORMALISE,
    OPD_CONFIG_TAIL_TRUNCATE
} opd_config_tail;

typedef enum opd_config_token_selection {
    OPD_CONFIG_TOKEN_SELECTION_ALL,
    OPD_CONFIG_TOKEN_SELECTION_ENTROPY,
    OPD_CONFIG_TOKEN_SELECTION_DIVERGENCE,
    OPD_CONFIG_TOKEN_SELECTION_ENTROPY_OR_DIVERGENCE,
    OPD_CONFIG_TOKEN_SELECTION_ENTROPY_AND_DIVERGENCE
} opd_config_token_selection;

typedef enum opd_config_on_missing {
    OPD_CONFIG_ON_MISSING_MASK,              /* the OPD term leaves the token           */
    OPD_CONFIG_ON_MISSING_ROLLOUT_LOG_PROBS, /* the seed's fallback, flagged            */
    OPD_CONFIG_ON_MISSING_FAIL               /* the run stops                           */
} opd_config_on_missing;

typedef enum opd_config_lr_schedule {
    OPD_CONFIG_LR_SCHEDULE_CONSTANT,
    OPD_CONFIG_LR_SCHEDULE_LINEAR,
    OPD_CONFIG_LR_SCHEDULE_COSINE
} opd_config_lr_schedule;

typedef enum opd_config_estimator {
    OPD_CONFIG_ESTIMATOR_GRPO,
    OPD_CONFIG_ESTIMATOR_GSPO,
    OPD_CONFIG_ESTIMATOR_SAPO,
    OPD_CONFIG_ESTIMATOR_CISPO,
    OPD_CONFIG_ESTIMATOR_RLOO,
    OPD_CONFIG_ESTIMATOR_REINFORCE,         /* reinforce++                        */
    OPD_CONFIG_ESTIMATOR_REINFORCE_BASELINE, /* reinforce++-baseline              */
    OPD_CONFIG_ESTIMATOR_PPO
} opd_config_estimator;

/* Estimates of KL(student || reference) on a sampled token. */
typedef enum opd_config_kl_type {
    OPD_CONFIG_KL_TYPE_K1,
    OPD_CONFIG_KL_TYPE_K2,
    OPD_CONFIG_KL_TYPE_K3,
    OPD_CONFIG_KL_TYPE_LOW_VAR /* k3 within [-10, 10] */
} opd_config_kl_type;

/* What a token counts that older weights sampled. */
typedef enum opd_config_correction {
    OPD_CONFIG_CORRECTION_NONE,
    OPD_CONFIG_CORRECTION_TIS,
    OPD_CONFIG_CORRECTION_ICEPOP,
    OPD_CONFIG_CORRECTION_SEQUENCE_MASK,
    OPD_CONFIG_CORRECTION_DECOUPLED
} opd_config_correction;

typedef enum opd_config_loss_reduction {
    OPD_CONFIG_LOSS_REDUCTION_SAMPLE_MEAN, /* mean over samples of token means */
    OPD_CONFIG_LOSS_REDUCTION_TOKEN_MEAN,  /* mean over all response tokens    */
    OPD_CONFIG_LOSS_REDUCTION_CONSTANT /* sum / rollout.max_response_len, then over samples */
} opd_config_loss_reduction;

typedef struct opd_config_run {
    const char *name; /* folder below dir; default: the file's name without its suffix */
    const char *dir;
    int64_t seed;
    opd_config_kind kind; /* of the only stage, where the file has no `stages` */
    opd_log_level log_level;
    int64_t metrics_interval; /* steps between lines of metrics.jsonl            */
    int64_t samples_interval; /* every k-th sample to samples.jsonl; 0 = none    */
    int64_t stall_report_s;   /* silence that is reported with its cause; 0 = none */
    int64_t watchdog_ms;      /* a handler that takes longer is named; 0 = none  */
    bool trace;               /* write trace.json                                */
} opd_config_run;

typedef struct opd_config_device {
    opd_config_device_kind kind;
    int64_t rollout_threads; /* per lane; the result does not depend on them */
    int64_t trainer_threads;
    int64_t teacher_threads;
    int64_t teacher_cache_mb; /* MiB of keys and values that a teacher keeps; 0 = none */
} opd_config_device;

/* A model with random weights (LlamaForCausalLM); used where model.path is "". */
typedef struct opd_config_init {
    int64_t hidden_size; /* 0 = not given */
    int64_t intermediate_size;
    int64_t layers;
    int64_t heads;
    int64_t kv_heads; /* derived: heads               */
    int64_t head_dim; /* derived: hidden_size / heads */
    int64_t max_position;
    double rope_theta;
    double rms_eps;
    bool tie_embeddings;
} opd_config_init;

typedef struct opd_config_model {
    const char *path; /* Hugging Face directory or reference; "" = use init */
    opd_config_init init;
    const char *ref_path; /* of the reference model; "" = the weights that the stage begins with */
} opd_config_model;

/* Where in a record its parts are. A messages_key or prompt_template that is not "" says where the
 * prompt is, else prompt_key. */
typedef struct opd_config_record {
    const char *prompt_key;
    const char *prompt_template; /* with {KEY} for the value of a key                */
    const char *messages_key;    /* of a conversation: an array of {role, content}   */
    const char *label_key;
    const char *response_key;    /* what SFT learns to write */
    const char *privileged_key;  /* of the prompt that teachers see instead; at most one of these */
    const char *privileged_template, *privileged_messages_key;
} opd_config_record;

/* One of several files, mixed by weight. */
typedef struct opd_config_source {
    const char *name; /* what opd.teacher_key would say, where the record does not */
    const char *path; /* JSONL file or reference */
    double weight;    /* of its share of the prompts, of any scale */
    int64_t skip, limit;
    opd_config_record record; /* derived: that of data */
} opd_config_source;

typedef struct opd_config_data {
    const char *path; /* JSONL file or reference; "" with sources */
    opd_config_record record;
    const char *validation_path; /* JSONL file of held-out examples for SFT, or reference; "" = none */
    const char *loss_roles; /* of a conversation, separated by ", ": whose messages SFT learns */
    size_t source_count;
    opd_config_source sources[OPD_CONFIG_SOURCES_MAX];
    bool shuffle;
    int64_t seed;  /* of the shuffle; derived: run.seed                       */
    int64_t skip;  /* records left out at the start of the file               */
    int64_t limit; /* records used after skip; 0 = all                        */
    int64_t max_prompt_len; /* tokens; longer prompts are dropped; 0 = no limit */
    int64_t max_privileged_len; /* the same of privileged prompts               */
} opd_config_data;

typedef enum opd_config_filter {
    OPD_CONFIG_FILTER_NONE,
    OPD_CONFIG_FILTER_ZERO_STD /* groups whose rewards are all the same are replaced */
} opd_config_filter;

typedef struct opd_config_rollout {
    int64_t batch_prompts;     /* prompts per training batch (seed: rollout-batch-size) */
    int64_t samples_per_prompt;
    double temperature;
    double top_p;
    int64_t top_k; /* -1 or 0 = off */
    int64_t max_response_len; /* tokens */
    int64_t max_staleness;    /* weight versions; 0 = strictly on-policy */
    int64_t slots;            /* sequences decoded at the same time */
    opd_config_filter filter;
    int64_t filter_max_dropped; /* groups of a batch; derived: 4 * batch_prompts */
    int64_t over_sampling_prompts; /* in work for a batch at once (seed: over-sampling-batch-size);
                                      derived: batch_prompts */
    int64_t seed;             /* derived: run.seed */
} opd_config_rollout;

typedef enum opd_config_encoding {
    OPD_CONFIG_ENCODING_JSON,
    OPD_CONFIG_ENCODING_MSGPACK
} opd_config_encoding;

typedef struct opd_config_reward_part {
    const char *name; /* below reward.parts; NULL for the reward itself */
    opd_config_reward_type type;
    double weight;
    bool boxed; /* judge only the content of the last \boxed{} */
    bool group; /* judge all answers to a prompt at once        */
    const char *command; /* a program and its arguments, blanks between them */
    opd_config_encoding encoding; /* of questions and answers of a command   */
    const char *library; /* path of the shared object                        */
    const char *url;
    double timeout_s; /* of one question (of a URL: one attempt) */
    int64_t workers;  /* processes, or requests at the same time */
    int64_t retries;  /* of a URL                                */
} opd_config_reward_part;

typedef struct opd_config_reward {
    opd_config_reward_part one; /* reward.type ... */
    size_t part_count;
    opd_config_reward_part parts[OPD_CONFIG_REWARD_PARTS_MAX];
} opd_config_reward;

typedef enum opd_config_protocol {
    OPD_CONFIG_PROTOCOL_SGLANG, /* /generate, which opd serve speaks, too */
    OPD_CONFIG_PROTOCOL_VLLM    /* /v1/completions with prompt_logprobs   */
} opd_config_protocol;

/* Weights of a teacher that is the student itself. */
typedef enum opd_config_student {
    OPD_CONFIG_STUDENT_NONE,   /* it is another model                            */
    OPD_CONFIG_STUDENT_START,  /* those that the stage begins with               */
    OPD_CONFIG_STUDENT_CURRENT /* those that are trained, as they are published  */
} opd_config_student;

typedef struct opd_config_teacher {
    const char *name;
    opd_config_protocol protocol;
    const char *url;  /* of a running server, http[s]://...; "" = none         */
    const char *urls; /* of its replicas, separated by ", "; "" = none; opd_config_url_at */
    const char *path; /* Hugging Face directory or reference; with opd.type sglang and no
                         url, opd launches `opd serve` on it; with megatron it is loaded */
    int64_t ckpt_step; /* selects path/step-NNNNNN; -1 = path itself */
    double timeout_s;  /* one attempt, from its first byte */
    double deadline_s; /* one sample with all attempts; derived: 10 * timeout_s */
    double connect_timeout_s;
    int64_t max_inflight;    /* requests at the same time            */
    int64_t retries;         /* attempts after the first             */
    int64_t backoff_ms;      /* before the first retry, then doubled */
    int64_t backoff_max_ms;
    double start_timeout_s; /* until a launched or given server is ready */
    const char *ca_file;    /* of an https url: trusted authorities; "" = the system's */
    const char *cert_file;  /* own certificate, shown to the server; "" = none */
    const char *key_file;   /* its key; "" = in cert_file */
    bool verify;            /* whether the server must prove who it is */
    bool probe;               /* ask each server at start what it can do                        */
    double canary_s;          /* between two scorings of fixed sequences at a replica; 0 = never */
    double canary_tolerance;  /* nats by which their scores may differ, on average               */
    const char *api_key_env;  /* environment variable with the key of its server; "" = none */
    const char *api_key_file; /* the same in the first line of a file; "" = none            */
    bool adapt_inflight;      /* learn each replica's share of max_inflight from its latency */
    double retry_budget;      /* retries and hedges per request ...                          */
    int64_t retry_min_per_s;  /* ... and those that are always possible                      */
    double hedge_quantile;    /* of latency, after which another replica is asked, too; 0 = never */
    int64_t eject_failures;   /* in a row, then a replica is left out for a while; 0 = never */
    double eject_slow_factor; /* its latency over the median of the others; 0 = never        */
    double eject_s;           /* for so long, times the ejections in a row                   */
    const char *serves;       /* values of opd.teacher_key, separated by ", "; "" = its name */
    double weight;            /* among those who score a sample together                     */
    const char *fallback;     /* a teacher that is asked instead; "" = none                  */
    int64_t chunk_tokens;     /* scored at a time while the sample is written; 0 = off; -1 = as the
                                 server allows                                               */
    int64_t connections;      /* to each server at the same time, over HTTP/2                */
    bool privileged;          /* sees the privileged prompt, where the data has one          */
    opd_config_student student; /* whether it is the student itself, in place of a path      */
} opd_config_teacher;

typedef struct opd_config_opd {
    bool enabled;
    opd_config_opd_type type;
    const char *teacher; /* names below teachers, separated by ", "; derived: the only one */
    const char *teacher_key; /* of the data record: its value says who scores it; "" = teacher does */
    int64_t teacher_inflight_max; /* questions under way, over all teachers; 0 = no bound of its own */
    double kl_coef;      /* lambda; derived: 0 where the signal is topk */
    bool only_reward;    /* drop the base advantage, keep the OPD term */
    int64_t log_prob_top_k; /* k of the overlap metric and of the support; 0 = off */
    opd_config_signal signal;
    opd_config_support support;
    opd_config_divergence divergence;
    opd_config_tail tail;
    double jsd_alpha;    /* in (0, 1) */
    double loss_coef;    /* of the divergence in the loss; derived: 1 where the signal is topk */
    double token_clip;   /* of a token's divergence; 0 = none */
    double logp_floor;   /* log-probs below it count as it; 0 = none */
    opd_config_token_selection token_selection;
    double token_share;  /* of a sample's tokens, that are selected */
    double constant_prob; /* type constant: tokens less likely than this are worth less */
    opd_config_on_missing on_missing;
    double teacher_lost_s;       /* without any answer, then the run stops       */
    double invalid_share_max;    /* of tokens, over invalid_batches_max batches, */
    int64_t invalid_batches_max; /* then the run stops                           */
} opd_config_opd;

typedef struct opd_config_train {
    int64_t steps;  /* optimizer batches; 0 = epochs decides */
    int64_t epochs; /* over the data; 0 = steps decides; 1 where neither is given */
    int64_t batch_size;         /* sequences per SFT batch                        */
    int64_t micro_batch_tokens; /* upper bound of tokens in one forward/backward  */
    double lr;
    opd_config_lr_schedule lr_schedule;
    int64_t warmup_steps;
    double min_lr_ratio; /* last lr / lr of linear and cosine */
    double weight_decay;
    double adam_beta1;
    double adam_beta2;
    double adam_eps;
    double clip_grad; /* global norm; 0 = off */
    opd_config_estimator estimator;
    double eps_clip;
    double eps_clip_high; /* derived: eps_clip */
    double eps_clip_c;    /* dual clip, > 1; 0 = off */
    opd_config_correction correction; /* of tokens sampled by older weights; derived: none
                                         where tis_clip is 0 or use_rollout_log_probs      */
    double tis_clip;            /* upper bound of its ratio, >= 1                     */
    double tis_clip_low;        /* lower bound, <= 1; derived                         */
    bool use_rollout_log_probs; /* the loss' ratio is to the rollout's log-probs      */
    double opsm_delta;          /* off-policy sequence mask; 0 = off                  */
    double gamma;               /* discount of reinforce++ and ppo                    */
    double gae_lambda;          /* of ppo's advantages                                */
    double value_clip;          /* of the critic's loss; 0 = off                      */
    double value_coef;          /* of the critic's loss in the whole loss             */
    double critic_lr;           /* of the critic's head; derived: lr                  */
    double kl_coef;             /* KL to the reference, in the reward                 */
    double kl_loss_coef;        /* the same in the loss                               */
    opd_config_kl_type kl_loss_type; /* derived: k1 in the reward, k3 in the loss     */
    bool unbiased_kl;           /* KL loss times current / old probability            */
    double sapo_tau_pos, sapo_tau_neg;
    bool grpo_std_normalization;
    bool normalize_advantages; /* whitening */
    bool rewards_normalization;
    double entropy_coef;
    opd_config_loss_reduction loss_reduction;
    int64_t optimizer_steps_per_batch;
    int64_t nonfinite_steps_max; /* skipped in a row, then the run stops */
    int64_t save_interval;       /* steps; 0 = only at the end           */
    int64_t keep;                /* newest checkpoints kept; 0 = all     */
    int64_t validation_interval; /* steps; 0 = after the last alone      */
    const char *keep_best;       /* number of an evaluation whose best checkpoint is kept besides; "" = none */
} opd_config_train;

/* A named set of held-out problems; derived: what is not given is as in eval and data. */
typedef struct opd_config_eval_set {
    const char *name;
    const char *path; /* JSONL file or reference */
    int64_t interval, limit, samples;
    double temperature, top_p;
    int64_t top_k;
    int64_t max_response_len;
    opd_config_record record; /* all but response_key */
} opd_config_eval_set;

typedef struct opd_config_eval {
    const char *path; /* JSONL file or reference; "" = no evaluation */
    bool at_start;
    bool at_end;
    bool concurrent;  /* the training does not wait for evaluations at intervals */
    int64_t interval; /* steps; 0 = off */
    int64_t limit;    /* problems; 0 = all */
    int64_t samples;  /* answers per problem */
    double temperature; /* 0 = greedy */
    double top_p;
    int64_t top_k;            /* -1 or 0 = off */
    int64_t max_response_len; /* tokens; derived: rollout.max_response_len */
    bool require_disjoint;    /* refuse problems that are also in data.path */
    size_t set_count;         /* besides path */
    opd_config_eval_set sets[OPD_CONFIG_EVAL_SETS_MAX];
} opd_config_eval;

/* One generated file: its name and how many problems it gets. */
typedef struct opd_config_split {
    const char *name;
    int64_t count;
} opd_config_split;

typedef struct opd_config_arithmetic {
    int64_t seed; /* derived: run.seed */
    int64_t digits;          /* of each of the two numbers                       */
    int64_t easy_first;      /* rows of the first split that are easy problems   */
    int64_t easy_column_sum; /* largest sum of a column's two digits in those    */
    size_t split_count;
    opd_config_split splits[OPD_CONFIG_SPLITS_MAX]; /* disjoint, in this order */
} opd_config_arithmetic;

/* One stage with every section merged. A plain value: copying it is an assignment. */
typedef struct opd_config_stage {
    const char *name;
    opd_config_kind kind;
    opd_config_run run;
    opd_config_device device;
    opd_config_model model;
    opd_config_data data;
    opd_config_rollout rollout;
    opd_config_reward reward;
    size_t teacher_count;
    opd_config_teacher teachers[OPD_CONFIG_TEACHERS_MAX];
    opd_config_opd opd;
    opd_config_train train;
    opd_config_eval eval;
    opd_config_arithmetic arithmetic;
} opd_config_stage;

typedef struct opd_config {
    const char *file;      /* as given to opd_config_load */
    opd_config_stage base; /* the top-level sections alone, not cross-checked */
    bool has_stages;       /* false: stages[0] is "main", equal to base */
    size_t stage_count;    /* >= 1 */
    opd_config_stage *stages;
    void *arena; /* private: owns the strings and the stages */
} opd_config;

/* ---- Overrides from the command line -------------------------------------------- */

/* The --set settings and seed-page flags of one command line. */
typedef struct opd_config_overrides opd_config_overrides;

/* Creates an empty list; the caller destroys it (NULL is legal). It copies what it is
 * given and may be reused for several loads. `alloc` NULL = default. */
opd_err opd_config_overrides_create(const opd_alloc *alloc, opd_config_overrides **out)
    OPD_MUST_CHECK;
void opd_config_overrides_destroy(opd_config_overrides *overrides);

/* Adds one setting "KEY=VALUE": KEY is dotted (train.lr, teachers.NAME.url,
 * stages.NAME.train.lr), VALUE a YAML scalar; a string needs no quotes. Whether the key
 * exists and the value fits is checked by opd_config_load(). */
opd_err opd_config_overrides_set(opd_config_overrides *overrides, const char *setting)
    OPD_MUST_CHECK;

/* Takes every `--set KEY=VALUE` and every seed-page flag (also as --flag=value) out of
 * argv[0..argc) and adds it to `overrides`; the other arguments keep their order, move to
 * the front, and are counted in *out_argc. Nothing after a "--" is taken. Errors: a flag
 * without its value, a value given to --use-opd or --opd-only-reward, a --set without '=',
 * one flag twice. */
opd_err opd_config_flags_parse(opd_config_overrides *overrides, int argc, char **argv,
                               int *out_argc) OPD_MUST_CHECK;

/* Help text of the flags that opd_config_flags_parse takes, one line each, static. */
const char *opd_config_flags_help(void);

/* ---- Loading --------------------------------------------------------------------- */

/* Reads `path`, applies `overrides` (NULL = none), fills derived defaults and checks every
 * stage. On OPD_OK the caller destroys *out. */
opd_err opd_config_load(const opd_alloc *alloc, const char *path,
                        const opd_config_overrides *overrides, opd_config **out) OPD_MUST_CHECK;

/* As opd_config_load, from `size` bytes of `text`; `file` is its name in errors. */
opd_err opd_config_load_text(const opd_alloc *alloc, const char *file, const char *text,
                             size_t size, const opd_config_overrides *overrides,
                             opd_config **out) OPD_MUST_CHECK;

/* Frees the configuration and everything it owns. NULL is legal. */
void opd_config_destroy(opd_config *config);

/* The stage called `name`, or NULL. */
const opd_config_stage *opd_config_stage_find(const opd_config *config, const char *name);

/* The teacher called `name` in `stage`, or NULL; its place in stage->teachers, or -1. */
const opd_config_teacher *opd_config_teacher_find(const opd_config_stage *stage,
                                                  const char *name);
int opd_config_teacher_place(const opd_config_stage *stage, const char *name);

/* Copies the index-th word of a list (opd.teacher, serves: commas between, blanks around) to out;
 * false where there is none, or none that fits. */
bool opd_config_word_at(const char *words, size_t index, char *out, size_t out_size);

/* The same for the addresses of a teacher: its url, or one of its urls. */
bool opd_config_url_at(const opd_config_teacher *teacher, size_t index, char *out,
                       size_t out_size);

/* Who scores the samples of a record whose opd.teacher_key is `source` ("": it has none): places in
 * stage->teachers, in their order there or, where nobody serves that value, in that of opd.teacher.
 * out_known (may be NULL): false in the latter case. Returns how many; 0 without OPD. */
size_t opd_config_route(const opd_config_stage *stage, const char *source,
                        uint8_t out[OPD_CONFIG_TEACHERS_MAX], bool *out_known);

/* Whether some sample may be scored by the teacher at `place`, as a fallback or otherwise. */
bool opd_config_teacher_used(const opd_config_stage *stage, size_t place);

/* Name of an enum value as it is written in YAML ("rl", "info"). */
const char *opd_config_kind_name(opd_config_kind kind);
const char *opd_config_opd_type_name(opd_config_opd_type type);

/* ---- References between stages --------------------------------------------------- */

/* Gives the value of "@stages.STAGE.RESULT" in *out_value, which must stay valid until the
 * callback is called again. RESULT is "checkpoint" or, with train.keep_best, "best" (sft, rl), or a split name
 * (arithmetic). */
typedef opd_err (*opd_config_resolve_fn)(void *context, const char *stage, const char *result,
                                         const char **out_value);

/* Copies stage `index` of `config` to *out_stage with every reference of the sections that
 * its kind uses replaced by what `resolve` gives. The new strings belong to `config`, which
 * is otherwise unchanged, so the effective YAML keeps its references. */
opd_err opd_config_stage_resolve(opd_config *config, size_t index,
                                 opd_config_resolve_fn resolve, void *context,
                                 opd_config_stage *out_stage) OPD_MUST_CHECK;

/* ---- Texts ------------------------------------------------------------------------ */

/* The effective configuration as YAML that loads back to the same structs; a stage lists
 * what differs from the top level. `comments` adds each key's meaning. The caller frees
 * *out_text with opd_mem_free(alloc, ...). */
opd_err opd_config_yaml(const opd_alloc *alloc, const opd_config *config, bool comments,
                        char **out_text) OPD_MUST_CHECK;

/* The JSON Schema (2020-12) of a configuration file: configs/opd.schema.json. */
opd_err opd_config_schema_json(const opd_alloc *alloc, char **out_text) OPD_MUST_CHECK;

/* The reference page in Markdown: docs/configuration.md. */
opd_err opd_config_reference_md(const opd_alloc *alloc, char **out_text) OPD_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
