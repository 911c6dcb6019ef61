/* schema_table.c - every key of a configuration: path, place in the structs, default, range,
 * unit, meaning. Order: by section, as printed. Constant data; nothing is freed. */
#include "core/base/check.h"
#include "core/config/schema.h"

#define STAGE(member) offsetof(opd_config_stage, member)
#define SOURCE(member) offsetof(opd_config_source, member)
#define SET(member) offsetof(opd_config_eval_set, member)
#define REWARD(member) offsetof(opd_config_stage, reward.one.member)
#define PART(member) offsetof(opd_config_reward_part, member)
#define TEACHER(member) offsetof(opd_config_teacher, member)

#define BOOL(key_path, at, value, text) \
    {.path = key_path, .type = OPD__TYPE_BOOL, .offset = at, .initial = value, .unit = "", .doc = text}
#define INT(key_path, at, value, low, high, of, text)                                           \
    {.path = key_path, .type = OPD__TYPE_INT, .offset = at, .initial = value, .min = low,        \
     .max = high, .unit = of, .doc = text}
#define INT_FROM(key_path, at, source, low, high, of, text)                                     \
    {.path = key_path, .type = OPD__TYPE_INT, .offset = at, .initial = "0", .derived = source,   \
     .min = low, .max = high, .unit = of, .doc = text}
#define FLOAT(key_path, at, value, low, high, bounds, of, text)                                 \
    {.path = key_path, .type = OPD__TYPE_FLOAT, .flags = bounds, .offset = at, .initial = value, \
     .min = low, .max = high, .unit = of, .doc = text}
#define FLOAT_FROM(key_path, at, source, low, high, bounds, of, text)                           \
    {.path = key_path, .type = OPD__TYPE_FLOAT, .flags = bounds, .offset = at, .initial = "0",   \
     .derived = source, .min = low, .max = high, .unit = of, .doc = text}
#define ENUM(key_path, at, value, list, text)                                                   \
    {.path = key_path, .type = OPD__TYPE_ENUM, .offset = at, .initial = value, .names = list,    \
     .unit = "", .doc = text}
#define ENUM_FROM(key_path, at, source, value, list, text)                                      \
    {.path = key_path, .type = OPD__TYPE_ENUM, .offset = at, .initial = value, .derived = source, \
     .names = list, .unit = "", .doc = text}
#define TEXT(key_path, kind, at, value, bits, text)                                             \
    {.path = key_path, .type = kind, .flags = bits, .offset = at, .initial = value, .unit = "",  \
     .doc = text}
#define TEXT_FROM(key_path, kind, at, source, text)                                             \
    {.path = key_path, .type = kind, .offset = at, .initial = "", .derived = source, .unit = "",  \
     .doc = text}

#define ABOVE OPD__KEY_ABOVE_MIN
#define BELOW OPD__KEY_BELOW_MAX
#define BIG 1e9                    /* upper bound of counts */
#define SEED_MAX 9007199254740991. /* 2^53 - 1: exact in JSON and double */

_Static_assert(sizeof(opd_config_kind) == sizeof(int), "enum values are stored as int");

static const char *const kind_names[] = {"arithmetic", "sft", "rl", "eval", NULL};
static const char *const log_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const device_names[] = {"cpu", NULL};
static const char *const filter_names[] = {"none", "zero_std", NULL};
static const char *const encoding_names[] = {"json", "msgpack", NULL};
static const char *const reward_names[] = {"none", "math", "dapo", "f1", "multiple_choice", "gpqa",
                                           "command", "library", "remote_rm", "parts", NULL};
static const char *const opd_type_names[] = {"none", "sglang", "megatron", "constant", NULL};
static const char *const signal_names[] = {"sampled", "topk", NULL};
static const char *const student_names[] = {"none", "start", "current", NULL};
static const char *const support_names[] = {"teacher_topk", "student_topk", "intersection", "union", "full", NULL};
static const char *const divergence_names[] = {"reverse_kl", "forward_kl", "jsd", "low_var", NULL};
static const char *const tail_names[] = {"bucket", "renormalise", "truncate", NULL};
static const char *const selection_names[] = {"all", "entropy", "divergence", "entropy_or_divergence",
                                              "entropy_and_divergence", NULL};
static const char *const protocol_names[] = {"sglang", "vllm", NULL};
static const char *const missing_names[] = {"mask", "rollout_log_probs", "fail", NULL};
static const char *const schedule_names[] = {"constant", "linear", "cosine", NULL};
static const char *const estimator_names[] = {
    "grpo", "gspo", "sapo", "cispo", "rloo", "reinforce++", "reinforce++-baseline", "ppo", NULL};
static const char *const kl_type_names[] = {"k1", "k2", "k3", "low_var_kl", NULL};
static const char *const correction_names[] = {"none",          "tis",       "icepop",
                                               "sequence_mask", "decoupled", NULL};
static const char *const reduction_names[] = {"sample_mean", "token_mean", "constant", NULL};

/* clang-format off */
const opd__key opd__keys[] = {
    {.path = "run.name", .type = OPD__TYPE_NAME, .flags = OPD__KEY_RUN_ONLY, .offset = STAGE(run.name),
     .initial = "", .derived = "the file's name without its suffix", .unit = "",
     .doc = "The run's folder is run.dir/run.name."},
    TEXT("run.dir", OPD__TYPE_PATH, STAGE(run.dir), "runs", OPD__KEY_RUN_ONLY, "Folder that holds the folders of runs."),
    INT("run.seed", STAGE(run.seed), "1234", 0, SEED_MAX, "", "Source of all randomness: weights, shuffles, sampling."),
    {.path = "run.kind", .type = OPD__TYPE_ENUM, .flags = OPD__KEY_RUN_ONLY, .offset = STAGE(run.kind),
     .initial = "rl", .names = kind_names, .unit = "", .doc = "What the run does, in a file without `stages`."},
    {.path = "run.log_level", .type = OPD__TYPE_ENUM, .flags = OPD__KEY_RUN_ONLY, .offset = STAGE(run.log_level),
     .initial = "info", .names = log_names, .unit = "", .doc = "The least important lines that are logged."},
    INT("run.metrics_interval", STAGE(run.metrics_interval), "1", 1, BIG, "steps", "Steps between two lines of metrics.jsonl."),
    INT("run.samples_interval", STAGE(run.samples_interval), "16", 0, BIG, "samples", "Every k-th sample goes to samples.jsonl; 0 = none."),
    INT("run.stall_report_s", STAGE(run.stall_report_s), "60", 0, BIG, "seconds", "Time without progress after which the log names the cause; 0 = never."),
    INT("run.watchdog_ms", STAGE(run.watchdog_ms), "1000", 0, BIG, "ms", "A handler that holds the loop longer is named in the log; 0 = no watchdog."),
    BOOL("run.trace", STAGE(run.trace), "false", "Write trace.json, a Chrome trace of each sample's way, into the run's folder."),

    ENUM("device.kind", STAGE(device.kind), "cpu", device_names, "Where the arithmetic is done."),
    INT("device.rollout_threads", STAGE(device.rollout_threads), "1", 1, 1024, "threads", "Threads that generate; results do not depend on them."),
    INT("device.trainer_threads", STAGE(device.trainer_threads), "1", 1, 1024, "threads", "Threads that train."),
    INT("device.teacher_threads", STAGE(device.teacher_threads), "1", 1, 1024, "threads", "Threads of a teacher that opd runs itself."),
    INT("device.teacher_cache_mb", STAGE(device.teacher_cache_mb), "256", 0, 1048576, "MiB", "Keys and values that a teacher which opd runs itself keeps of the texts it scored, so that a common beginning is computed once; 0 keeps none. Results do not depend on it."),

    TEXT("model.path", OPD__TYPE_PATH, STAGE(model.path), "", OPD__KEY_REFERENCE, "Hugging Face directory of the model to train or measure; empty = random weights of the shape model.init."),
    INT("model.init.hidden_size", STAGE(model.init.hidden_size), "0", 0, 65536, "", "Width of the residual stream; 0 = not given."),
    INT("model.init.intermediate_size", STAGE(model.init.intermediate_size), "0", 0, 1048576, "", "Width of the feed-forward layer."),
    INT("model.init.layers", STAGE(model.init.layers), "0", 0, 1024, "", "Number of blocks."),
    INT("model.init.heads", STAGE(model.init.heads), "0", 0, 1024, "", "Attention heads."),
    INT_FROM("model.init.kv_heads", STAGE(model.init.kv_heads), "model.init.heads", 0, 1024, "", "Key/value heads; must divide heads."),
    INT_FROM("model.init.head_dim", STAGE(model.init.head_dim), "hidden_size / heads", 0, 4096, "", "Width of one head; even."),
    INT("model.init.max_position", STAGE(model.init.max_position), "2048", 1, 16777216, "tokens", "Longest sequence."),
    FLOAT("model.init.rope_theta", STAGE(model.init.rope_theta), "10000", 0, 1e12, ABOVE, "", "Base of the rotary embedding."),
    FLOAT("model.init.rms_eps", STAGE(model.init.rms_eps), "1e-5", 0, 1, ABOVE, "", "Added to the mean square in RMSNorm."),
    BOOL("model.init.tie_embeddings", STAGE(model.init.tie_embeddings), "true", "The output head is the embedding matrix."),
    TEXT("model.ref_path", OPD__TYPE_PATH, STAGE(model.ref_path), "", OPD__KEY_REFERENCE, "Hugging Face directory of the reference model of the KL terms, of the student's shape; empty = the weights that the stage begins with."),

    TEXT("data.path", OPD__TYPE_PATH, STAGE(data.path), "", OPD__KEY_REFERENCE, "JSONL file of training problems."),
    TEXT("data.validation_path", OPD__TYPE_PATH, STAGE(data.validation_path), "", OPD__KEY_REFERENCE, "JSONL file of held-out examples whose loss is measured in sft stages (train/validation_loss); keys as in data. Empty = none."),
    TEXT("data.prompt_key", OPD__TYPE_STRING, STAGE(data.record.prompt_key), "prompt", 0, "Key of the prompt in each line."),
    TEXT("data.prompt_template", OPD__TYPE_STRING, STAGE(data.record.prompt_template), "", 0, "The prompt with {KEY} for the value of each key, instead of prompt_key; \\n is a line feed, {{ and }} are braces."),
    TEXT("data.messages_key", OPD__TYPE_STRING, STAGE(data.record.messages_key), "", 0, "Key of a conversation, an array of {role, content}, instead of prompt_key; a last message of the assistant is what SFT learns."),
    TEXT("data.label_key", OPD__TYPE_STRING, STAGE(data.record.label_key), "label", 0, "Key of the right answer in each line."),
    TEXT("data.response_key", OPD__TYPE_STRING, STAGE(data.record.response_key), "response", 0, "Key of the text that SFT learns to write."),
    TEXT("data.privileged_key", OPD__TYPE_STRING, STAGE(data.record.privileged_key), "", 0, "Key of a second prompt that teachers see in place of the student's (self-distillation); empty = they see the prompt."),
    TEXT("data.privileged_template", OPD__TYPE_STRING, STAGE(data.record.privileged_template), "", 0, "The same made of several keys, as prompt_template: the question with its answer, a hint, a demonstration."),
    TEXT("data.privileged_messages_key", OPD__TYPE_STRING, STAGE(data.record.privileged_messages_key), "", 0, "The same from a conversation, as messages_key."),
    TEXT("data.loss_roles", OPD__TYPE_WORDS, STAGE(data.loss_roles), "assistant", 0, "Roles of a conversation whose messages SFT learns to write."),
    BOOL("data.shuffle", STAGE(data.shuffle), "true", "A new seeded order in every epoch."),
    INT_FROM("data.seed", STAGE(data.seed), "run.seed", 0, SEED_MAX, "", "Seed of the shuffle."),
    INT("data.skip", STAGE(data.skip), "0", 0, BIG, "lines", "Lines left out at the start of the file."),
    INT("data.limit", STAGE(data.limit), "0", 0, BIG, "lines", "Lines used after data.skip; 0 = all."),
    INT("data.max_prompt_len", STAGE(data.max_prompt_len), "0", 0, BIG, "tokens", "Longer prompts are left out; 0 = no limit."),
    INT("data.max_privileged_len", STAGE(data.max_privileged_len), "0", 0, BIG, "tokens", "Rows whose privileged prompt is longer are left out; 0 = no limit."),
    TEXT("data.sources.*.path", OPD__TYPE_PATH, SOURCE(path), "", OPD__KEY_REFERENCE, "JSONL file of its problems."),
    FLOAT("data.sources.*.weight", SOURCE(weight), "1", 0, 1e9, ABOVE, "", "Its share of the prompts, relative to the other sources."),
    INT("data.sources.*.skip", SOURCE(skip), "0", 0, BIG, "lines", "Lines left out at the start of the file."),
    INT("data.sources.*.limit", SOURCE(limit), "0", 0, BIG, "lines", "Lines used after that; 0 = all."),
    TEXT_FROM("data.sources.*.prompt_key", OPD__TYPE_STRING, SOURCE(record.prompt_key), "as in data", "Key of the prompt in each line."),
    TEXT_FROM("data.sources.*.prompt_template", OPD__TYPE_STRING, SOURCE(record.prompt_template), "as in data", "The prompt made of several keys."),
    TEXT_FROM("data.sources.*.messages_key", OPD__TYPE_STRING, SOURCE(record.messages_key), "as in data", "Key of a conversation."),
    TEXT_FROM("data.sources.*.label_key", OPD__TYPE_STRING, SOURCE(record.label_key), "as in data", "Key of the right answer."),
    TEXT_FROM("data.sources.*.response_key", OPD__TYPE_STRING, SOURCE(record.response_key), "as in data", "Key of the text that SFT learns to write."),
    TEXT_FROM("data.sources.*.privileged_key", OPD__TYPE_STRING, SOURCE(record.privileged_key), "as in data", "Key of the prompt that teachers see."),
    TEXT_FROM("data.sources.*.privileged_template", OPD__TYPE_STRING, SOURCE(record.privileged_template), "as in data", "That prompt made of several keys."),
    TEXT_FROM("data.sources.*.privileged_messages_key", OPD__TYPE_STRING, SOURCE(record.privileged_messages_key), "as in data", "That prompt from a conversation."),

    INT("rollout.batch_prompts", STAGE(rollout.batch_prompts), "32", 1, 1048576, "prompts", "Prompts per training batch (the seed's rollout-batch-size)."),
    INT("rollout.samples_per_prompt", STAGE(rollout.samples_per_prompt), "1", 1, 4096, "samples", "Answers generated for each prompt: the group of GRPO."),
    FLOAT("rollout.temperature", STAGE(rollout.temperature), "1", 0, 100, ABOVE, "", "Sampling temperature; other than 1 needs a teacher that scores at it."),
    FLOAT("rollout.top_p", STAGE(rollout.top_p), "1", 0, 1, ABOVE, "", "Nucleus sampling; 1 = off."),
    INT("rollout.top_k", STAGE(rollout.top_k), "-1", -1, BIG, "", "Sample from the k likeliest tokens; -1 or 0 = off."),
    INT("rollout.max_response_len", STAGE(rollout.max_response_len), "256", 1, 16777216, "tokens", "Longest answer."),
    INT("rollout.max_staleness", STAGE(rollout.max_staleness), "0", 0, 1024, "versions", "How many weight versions a sample may lag behind; 0 = strictly on-policy."),
    INT("rollout.slots", STAGE(rollout.slots), "32", 1, 65536, "sequences", "Sequences decoded at the same time."),
    ENUM("rollout.filter", STAGE(rollout.filter), "none", filter_names, "zero_std: a group whose rewards are all the same teaches GRPO nothing; the next prompts take its place in the batch."),
    INT_FROM("rollout.filter_max_dropped", STAGE(rollout.filter_max_dropped), "4 * batch_prompts", 1, BIG, "groups", "Replaced in one batch at most; then it takes what comes."),
    INT_FROM("rollout.over_sampling_prompts", STAGE(rollout.over_sampling_prompts), "batch_prompts", 1, 1048576, "prompts", "In work for a batch at once (the seed's over-sampling-batch-size): those beyond `batch_prompts` stand in for what `filter` drops; prompts left over come first in the next batch."),
    INT_FROM("rollout.seed", STAGE(rollout.seed), "run.seed", 0, SEED_MAX, "", "Seed of sampling."),

    ENUM("reward.type", REWARD(type), "math", reward_names, "Who judges, see docs/rewards.md. math: 1 if the final answer equals the label, or 0. none: always 0. command, library, remote_rm: a judge of your own. parts: the weighted sum of `reward.parts`."),
    BOOL("reward.boxed", REWARD(boxed), "false", "Judge only the content of the last \\boxed{} (the seed's boxed_ types)."),
    TEXT("reward.command", OPD__TYPE_STRING, REWARD(command), "", 0, "Of type command: a program and its arguments, with blanks between them. It reads questions and writes answers."),
    ENUM("reward.encoding", REWARD(encoding), "json", encoding_names, "How a command reads and writes them: json, an object on a line; msgpack, a map after the other."),
    TEXT("reward.library", OPD__TYPE_PATH, REWARD(library), "", 0, "Of type library: a shared object with the functions of opd/reward.h, loaded in a child process."),
    TEXT("reward.url", OPD__TYPE_URL, REWARD(url), "", 0, "Of type remote_rm: where questions are POSTed as JSON."),
    BOOL("reward.group", REWARD(group), "false", "Ask command, library or remote_rm about all answers to a prompt at once."),
    FLOAT("reward.timeout_s", REWARD(timeout_s), "10", 0, 1e6, ABOVE, "s", "Until one question is answered (remote_rm: one attempt); then the sample has no reward."),
    INT("reward.workers", REWARD(workers), "1", 1, 1024, "", "Processes of command or library, each with one question at a time; requests of remote_rm at the same time."),
    INT("reward.retries", REWARD(retries), "3", 0, 1000, "", "Attempts of remote_rm after the first."),
    ENUM("reward.parts.*.type", PART(type), "math", reward_names, "As reward.type; and so are the other keys of a part."),
    FLOAT("reward.parts.*.weight", PART(weight), "1", -1e6, 1e6, 0, "", "Factor of this part in the sum."),
    BOOL("reward.parts.*.boxed", PART(boxed), "false", "As reward.boxed."),
    TEXT("reward.parts.*.command", OPD__TYPE_STRING, PART(command), "", 0, "As reward.command."),
    ENUM("reward.parts.*.encoding", PART(encoding), "json", encoding_names, "As reward.encoding."),
    TEXT("reward.parts.*.library", OPD__TYPE_PATH, PART(library), "", 0, "As reward.library."),
    TEXT("reward.parts.*.url", OPD__TYPE_URL, PART(url), "", 0, "As reward.url."),
    BOOL("reward.parts.*.group", PART(group), "false", "As reward.group."),
    FLOAT("reward.parts.*.timeout_s", PART(timeout_s), "10", 0, 1e6, ABOVE, "s", "As reward.timeout_s."),
    INT("reward.parts.*.workers", PART(workers), "1", 1, 1024, "", "As reward.workers."),
    INT("reward.parts.*.retries", PART(retries), "3", 0, 1000, "", "As reward.retries."),

    TEXT("teachers.*.url", OPD__TYPE_URL, TEACHER(url), "", 0, "Address of a running SGLang-compatible server; http:// (HTTP/2 in clear text) or https://."),
    TEXT("teachers.*.urls", OPD__TYPE_URLS, TEACHER(urls), "", 0, "Addresses of its replicas: a list, or one text with commas. Each must serve the same model."),
    TEXT("teachers.*.path", OPD__TYPE_PATH, TEACHER(path), "", OPD__KEY_REFERENCE, "Hugging Face directory: loaded in-process (megatron), or served by an `opd serve` child (sglang)."),
    ENUM("teachers.*.student", TEACHER(student), "none", student_names, "In place of path and url: the teacher is the student. start: a frozen copy of `model.path`; current: the weights that are trained (megatron only)."),
    BOOL("teachers.*.privileged", TEACHER(privileged), "true", "It sees the privileged prompt (`data.privileged_template` and its like) where the data has one; false = the student's prompt."),
    ENUM("teachers.*.protocol", TEACHER(protocol), "sglang", protocol_names, "What the server at `url` speaks: SGLang's /generate (also opd serve), or vLLM's /v1/completions."),
    INT("teachers.*.ckpt_step", TEACHER(ckpt_step), "-1", -1, BIG, "", "Selects path/step-NNNNNN; -1 = path itself."),
    FLOAT("teachers.*.timeout_s", TEACHER(timeout_s), "30", 0, 1e7, ABOVE, "s", "One attempt, from its first byte."),
    FLOAT_FROM("teachers.*.deadline_s", TEACHER(deadline_s), "10 * timeout_s", 0, 1e8, ABOVE, "s", "One sample with all its attempts."),
    FLOAT("teachers.*.connect_timeout_s", TEACHER(connect_timeout_s), "5", 0, 1e7, ABOVE, "s", "Opening a connection."),
    INT("teachers.*.max_inflight", TEACHER(max_inflight), "64", 1, OPD_CONFIG_TEACHER_INFLIGHT_MAX, "requests", "Requests at the same time, over all replicas."),
    INT("teachers.*.connections", TEACHER(connections), "2", 1, 8, "connections", "To each server at the same time, over HTTP/2: a large answer on one does not hold up the others, and a lost one loses only its own."),
    BOOL("teachers.*.adapt_inflight", TEACHER(adapt_inflight), "true", "Learn from its latency how many of them a replica gets at once."),
    INT("teachers.*.retries", TEACHER(retries), "3", 0, 1000, "", "Attempts after the first."),
    INT("teachers.*.backoff_ms", TEACHER(backoff_ms), "100", 0, 3600000, "ms", "Pause before the first retry; doubles with each."),
    INT("teachers.*.backoff_max_ms", TEACHER(backoff_max_ms), "5000", 0, 3600000, "ms", "Longest pause."),
    FLOAT("teachers.*.retry_budget", TEACHER(retry_budget), "0.2", 0, 100, 0, "", "Retries and hedged requests of ten seconds as a share of the requests; who is beyond it waits ..."),
    INT("teachers.*.retry_min_per_s", TEACHER(retry_min_per_s), "10", 1, BIG, "1/s", "... and how many are possible besides."),
    FLOAT("teachers.*.hedge_quantile", TEACHER(hedge_quantile), "0.95", 0, 1, BELOW, "", "A sample that is not answered within this quantile of the recent latencies is asked at another replica, too, if there is room; 0 = never."),
    INT("teachers.*.eject_failures", TEACHER(eject_failures), "5", 0, BIG, "", "A replica that fails so often in a row is left out for a while; 0 = never."),
    FLOAT("teachers.*.eject_slow_factor", TEACHER(eject_slow_factor), "5", 0, 1e6, 0, "", "So is one whose latency is more than this times the median of the others; 0 = never."),
    FLOAT("teachers.*.eject_s", TEACHER(eject_s), "5", 0, 3600, ABOVE, "s", "The first time for so long, then twice, three times ... up to twelve times that."),
    FLOAT("teachers.*.start_timeout_s", TEACHER(start_timeout_s), "60", 0, 1e7, ABOVE, "s", "Until the server answers for the first time."),
    TEXT("teachers.*.ca_file", OPD__TYPE_PATH, TEACHER(ca_file), "", 0, "Of an https server: authorities (PEM) trusted instead of the system's."),
    TEXT("teachers.*.cert_file", OPD__TYPE_PATH, TEACHER(cert_file), "", 0, "Of an https server that wants to know its clients: our certificate and its chain (PEM)."),
    TEXT("teachers.*.key_file", OPD__TYPE_PATH, TEACHER(key_file), "", 0, "Its private key (PEM, no passphrase); empty = in cert_file."),
    TEXT("teachers.*.serves", OPD__TYPE_WORDS, TEACHER(serves), "", 0, "Values of `opd.teacher_key` whose samples it scores; empty = its own name. Teachers that serve the same value score a sample together."),
    FLOAT("teachers.*.weight", TEACHER(weight), "1", 0, 1e6, ABOVE, "", "How much its score counts where several score a sample."),
    TEXT("teachers.*.fallback", OPD__TYPE_NAME, TEACHER(fallback), "", 0, "The teacher that is asked where this one cannot be reached or gives no score."),
    INT("teachers.*.chunk_tokens", TEACHER(chunk_tokens), "-1", -1, BIG, "tokens", "Score a sample while it is being written, so many tokens at a time; 0 = when it is finished; -1 = 256 where the server is known to keep what it computed of a prefix, else 0."),
    BOOL("teachers.*.verify", TEACHER(verify), "true", "Whether an https server must prove who it is; false lets anyone on the way read and change scores."),
    BOOL("teachers.*.probe", TEACHER(probe), "true", "Ask each server at start what it can do, by a few small requests; false = only what it serves."),
    FLOAT("teachers.*.canary_s", TEACHER(canary_s), "60", 0, 1e7, 0, "s", "Time between two scorings of the same fixed texts at each replica, which show whether its scores can be believed; 0 = never."),
    FLOAT("teachers.*.canary_tolerance", TEACHER(canary_tolerance), "0.02", 0, 100, ABOVE, "nats", "Mean difference of their scores above which a replica is in quarantine; five times that, from the median of its siblings."),
    TEXT("teachers.*.api_key_env", OPD__TYPE_STRING, TEACHER(api_key_env), "", 0, "Environment variable that holds the server's API key, sent as `Authorization: Bearer`; the key itself is written nowhere."),
    TEXT("teachers.*.api_key_file", OPD__TYPE_PATH, TEACHER(api_key_file), "", 0, "File whose first line is the key, in place of a variable."),

    BOOL("opd.enabled", STAGE(opd.enabled), "false", "On-policy distillation on or off (--use-opd)."),
    ENUM("opd.type", STAGE(opd.type), "none", opd_type_names, "sglang: the teacher is a server. megatron: the teacher is in this process. constant: there is none; tokens below `opd.constant_prob` get the advantage -`opd.kl_coef` (a baseline)."),
    {.path = "opd.teacher", .type = OPD__TYPE_WORDS, .offset = STAGE(opd.teacher), .initial = "",
     .derived = "the only teacher", .unit = "", .doc = "Which of `teachers` distils; of several each scores every sample."},
    TEXT("opd.teacher_key", OPD__TYPE_STRING, STAGE(opd.teacher_key), "", 0, "Key of the data record whose value says which teachers score its samples (`teachers.NAME.serves`), dotted (`meta.source`); records without, and values that nobody serves, go to `opd.teacher`."),
    INT("opd.teacher_inflight_max", STAGE(opd.teacher_inflight_max), "0", 0, OPD_CONFIG_TEACHER_INFLIGHT_MAX, "questions", "Under way at the same time, over all teachers; one teacher gets at most about twice its share. 0 = each teacher's `max_inflight` is enough."),
    FLOAT("opd.kl_coef", STAGE(opd.kl_coef), "1", 0, 1e6, 0, "", "Weight of the term -(l_student - l_teacher) in the advantage; 0 unless given where `opd.signal` is topk."),
    BOOL("opd.only_reward", STAGE(opd.only_reward), "false", "Drop the reward's advantage: learn from the teacher alone."),
    INT("opd.log_prob_top_k", STAGE(opd.log_prob_top_k), "0", 0, 1048576, "", "k of the overlap metric and of `opd.support`; 0 = off."),
    ENUM("opd.signal", STAGE(opd.signal), "sampled", signal_names, "What is compared with the teacher: the drawn token (in the advantage), or the ids of `opd.support` (as a loss)."),
    ENUM("opd.support", STAGE(opd.support), "teacher_topk", support_names, "Ids at which the distributions are compared. student_topk, union and full need a teacher that scores given ids or lists all, so `opd.type: megatron`."),
    ENUM("opd.divergence", STAGE(opd.divergence), "forward_kl", divergence_names, "How far apart the distributions are: reverse_kl is KL(student || teacher), forward_kl KL(teacher || student), jsd a mixture of both, low_var the k3 estimate."),
    ENUM("opd.tail", STAGE(opd.tail), "bucket", tail_names, "What lies outside of the support: one more element, nothing after dividing by the support's mass, or nothing."),
    FLOAT("opd.jsd_alpha", STAGE(opd.jsd_alpha), "0.5", 0, 1, ABOVE | BELOW, "", "Share of the teacher in jsd's mixture."),
    FLOAT("opd.loss_coef", STAGE(opd.loss_coef), "0", 0, 1e6, 0, "", "Weight of the divergence in the loss; 1 unless given where `opd.signal` is topk. With sampled only low_var has a gradient that knows the teacher."),
    FLOAT("opd.token_clip", STAGE(opd.token_clip), "0", 0, 1e6, 0, "nats", "A token whose divergence is above this is left out of the gradient; 0 = none is."),
    FLOAT("opd.logp_floor", STAGE(opd.logp_floor), "0", -1e6, 0, 0, "nats", "Log-probs below this count as this in the divergence; 0 = no floor."),
    ENUM("opd.token_selection", STAGE(opd.token_selection), "all", selection_names, "Tokens of a sample that the divergence looks at: all, or `opd.token_share` of them with the highest entropy of the student, difference from the teacher, or one of the two, or both."),
    FLOAT("opd.token_share", STAGE(opd.token_share), "0.5", 0, 1, ABOVE, "", "Share of a sample's tokens that are selected, at least one token."),
    FLOAT("opd.constant_prob", STAGE(opd.constant_prob), "0.1", 0, 1, ABOVE | BELOW, "", "`opd.type: constant`: tokens of a lower probability get the constant advantage."),
    ENUM("opd.on_missing", STAGE(opd.on_missing), "mask", missing_names, "A token without a teacher score: leaves the OPD term, takes the rollout's own score (the seed's way), or stops the run."),
    FLOAT("opd.teacher_lost_s", STAGE(opd.teacher_lost_s), "300", 0, 1e7, ABOVE, "s", "The run stops after this time without any answer of a teacher that samples wait for, or that admission pauses for."),
    FLOAT("opd.invalid_share_max", STAGE(opd.invalid_share_max), "0.5", 0, 1, 0, "", "The run stops when more of the tokens than this have no score ..."),
    INT("opd.invalid_batches_max", STAGE(opd.invalid_batches_max), "20", 1, 1000, "batches", "... over this many batches."),

    INT("train.steps", STAGE(train.steps), "0", 0, BIG, "batches", "Batches to train on; 0 = train.epochs decides."),
    {.path = "train.epochs", .type = OPD__TYPE_INT, .offset = STAGE(train.epochs), .initial = "0",
     .derived = "1 unless train.steps is given", .max = BIG, .unit = "", .doc = "Passes over the data; 0 = train.steps decides."},
    INT("train.batch_size", STAGE(train.batch_size), "32", 1, 1048576, "sequences", "Sequences per SFT batch."),
    INT("train.micro_batch_tokens", STAGE(train.micro_batch_tokens), "4096", 1, 16777216, "tokens", "Most tokens in one forward and backward pass."),
    FLOAT("train.lr", STAGE(train.lr), "1e-6", 0, 1000, 0, "", "Learning rate after the warm-up."),
    ENUM("train.lr_schedule", STAGE(train.lr_schedule), "constant", schedule_names, "How the learning rate falls."),
    INT("train.warmup_steps", STAGE(train.warmup_steps), "0", 0, BIG, "steps", "Optimizer steps of linear growth from 0."),
    FLOAT("train.min_lr_ratio", STAGE(train.min_lr_ratio), "0", 0, 1, 0, "", "Last learning rate as a share of train.lr, of linear and cosine."),
    FLOAT("train.weight_decay", STAGE(train.weight_decay), "0.01", 0, 1000, 0, "", "AdamW's decoupled weight decay."),
    FLOAT("train.adam_beta1", STAGE(train.adam_beta1), "0.9", 0, 1, BELOW, "", "Decay of the gradient's mean."),
    FLOAT("train.adam_beta2", STAGE(train.adam_beta2), "0.999", 0, 1, BELOW, "", "Decay of the gradient's mean square."),
    FLOAT("train.adam_eps", STAGE(train.adam_eps), "1e-8", 0, 1, ABOVE, "", "Added to the root of the mean square."),
    FLOAT("train.clip_grad", STAGE(train.clip_grad), "1", 0, 1e9, 0, "", "Largest global gradient norm; 0 = off."),
    ENUM("train.estimator", STAGE(train.estimator), "grpo", estimator_names, "How rewards become advantages, and the loss they meet (docs/learning.md)."),
    FLOAT("train.gamma", STAGE(train.gamma), "1", 0, 1, 0, "", "Discount of later tokens' rewards; reinforce++ and ppo only."),
    FLOAT("train.gae_lambda", STAGE(train.gae_lambda), "1", 0, 1, 0, "", "Of ppo's generalised advantages: 1 = returns minus values, 0 = one step ahead."),
    FLOAT("train.value_clip", STAGE(train.value_clip), "0.2", 0, 1e6, 0, "", "A value of ppo's critic is clipped this far from that before the batch; 0 = off."),
    FLOAT("train.value_coef", STAGE(train.value_coef), "0.5", 0, 1e6, ABOVE, "", "Weight of the critic's loss in the whole loss."),
    FLOAT_FROM("train.critic_lr", STAGE(train.critic_lr), "train.lr", 0, 1000, 0, "", "Learning rate of the critic's head; the schedule is that of train.lr."),
    FLOAT("train.kl_coef", STAGE(train.kl_coef), "0", 0, 1e6, 0, "", "KL shaping: weight of the KL to the reference model in the reward of each token; ppo and both reinforce++ only."),
    FLOAT("train.kl_loss_coef", STAGE(train.kl_loss_coef), "0", 0, 1e6, 0, "", "KL loss: weight of the KL to the reference model in the loss."),
    ENUM_FROM("train.kl_loss_type", STAGE(train.kl_loss_type), "k1 in the reward, k3 in the loss", "k3", kl_type_names, "How it is estimated from one token, d = l - l_ref: d, d^2 / 2, exp(-d) - 1 + d, or that within [-10, 10]."),
    BOOL("train.unbiased_kl", STAGE(train.unbiased_kl), "false", "Multiply the KL loss by the ratio of the current to the old probability."),
    FLOAT("train.sapo_tau_pos", STAGE(train.sapo_tau_pos), "1", 0, 1e6, ABOVE, "", "Temperature of sapo's gate where the advantage is above 0 ..."),
    FLOAT("train.sapo_tau_neg", STAGE(train.sapo_tau_neg), "1.05", 0, 1e6, ABOVE, "", "... and where it is not."),
    FLOAT("train.eps_clip", STAGE(train.eps_clip), "0.2", 0, 1, 0, "", "The probability ratio is clipped at 1 - this ..."),
    FLOAT_FROM("train.eps_clip_high", STAGE(train.eps_clip_high), "train.eps_clip", 0, 1e6, 0, "", "... and at 1 + this."),
    ENUM_FROM("train.correction", STAGE(train.correction), "tis; none where tis_clip is 0 or with use_rollout_log_probs", "tis", correction_names, "What a token sampled by older weights counts, from r = learner's / rollout's probability: r held within bounds, r or 0, the whole sample or not, or r (docs/learning.md)."),
    FLOAT("train.tis_clip", STAGE(train.tis_clip), "2", 0, 1e6, 0, "", "Upper bound of the correction, at least 1; 0 = no correction."),
    FLOAT_FROM("train.tis_clip_low", STAGE(train.tis_clip_low), "0; 0.5 for icepop and sequence_mask", 0, 1, 0, "", "Lower bound of the correction."),
    BOOL("train.use_rollout_log_probs", STAGE(train.use_rollout_log_probs), "false", "The loss' ratio is to the rollout's log-probs, not to the learner's before the first step."),
    FLOAT("train.opsm_delta", STAGE(train.opsm_delta), "0", 0, 1e6, 0, "nats", "Off-policy sequence mask: bad tokens leave the loss where the rollout's log-prob is above the current one by more than this, in the sample's mean; 0 = off."),
    FLOAT("train.eps_clip_c", STAGE(train.eps_clip_c), "0", 0, 1e6, 0, "", "Bound of dual clipping, above 1; 0 = off."),
    BOOL("train.grpo_std_normalization", STAGE(train.grpo_std_normalization), "true", "grpo, gspo, sapo and cispo: divide a group's rewards by their standard deviation."),
    BOOL("train.normalize_advantages", STAGE(train.normalize_advantages), "false", "Whiten the advantages of a batch."),
    BOOL("train.rewards_normalization", STAGE(train.rewards_normalization), "true", "The same four: subtract the group's mean reward; false = rewards as they are, not divided either."),
    FLOAT("train.entropy_coef", STAGE(train.entropy_coef), "0", 0, 1000, 0, "", "Weight of the entropy bonus."),
    ENUM("train.loss_reduction", STAGE(train.loss_reduction), "sample_mean", reduction_names, "Mean over samples of their token means, over all tokens, or over samples of their token sums / `rollout.max_response_len`."),
    INT("train.optimizer_steps_per_batch", STAGE(train.optimizer_steps_per_batch), "1", 1, 1024, "steps", "Parts of a batch of an rl stage, each with its own step."),
    INT("train.nonfinite_steps_max", STAGE(train.nonfinite_steps_max), "10", 1, BIG, "steps", "The run stops after this many skipped steps in a row."),
    INT("train.save_interval", STAGE(train.save_interval), "0", 0, BIG, "steps", "Steps between checkpoints; 0 = only at the end."),
    INT("train.keep", STAGE(train.keep), "2", 0, BIG, "checkpoints", "Newest checkpoints kept; 0 = all."),
    INT("train.validation_interval", STAGE(train.validation_interval), "0", 0, BIG, "steps", "Steps between two measurements of the loss on data.validation_path, besides the one after the last; 0 = that one alone."),
    TEXT("train.keep_best", OPD__TYPE_STRING, STAGE(train.keep_best), "", 0, "Name of an evaluation's number (eval/accuracy, eval/NAME, eval/NAME-pass@8): each version that it is measured of is saved, and the best stays, as @stages.NAME.best too; empty = none."),

    TEXT("eval.path", OPD__TYPE_PATH, STAGE(eval.path), "", OPD__KEY_REFERENCE, "JSONL file of held-out problems; empty = no evaluation."),
    BOOL("eval.at_start", STAGE(eval.at_start), "true", "Measure before the first step."),
    BOOL("eval.at_end", STAGE(eval.at_end), "true", "Measure after the last step."),
    BOOL("eval.concurrent", STAGE(eval.concurrent), "true", "With an interval, the training goes on while a version of the weights is evaluated; it takes memory for a second engine. Results do not depend on it."),
    INT("eval.interval", STAGE(eval.interval), "0", 0, BIG, "steps", "Steps between measurements; 0 = off."),
    INT("eval.limit", STAGE(eval.limit), "0", 0, BIG, "problems", "Problems used; 0 = all."),
    INT("eval.samples", STAGE(eval.samples), "1", 1, 4096, "samples", "Answers per problem."),
    FLOAT("eval.temperature", STAGE(eval.temperature), "0", 0, 100, 0, "", "Sampling temperature; 0 = greedy."),
    FLOAT("eval.top_p", STAGE(eval.top_p), "1", 0, 1, ABOVE, "", "Nucleus sampling; 1 = off."),
    INT("eval.top_k", STAGE(eval.top_k), "-1", -1, BIG, "", "Sample from the k likeliest tokens; -1 or 0 = off."),
    INT_FROM("eval.max_response_len", STAGE(eval.max_response_len), "rollout.max_response_len", 1, 16777216, "tokens", "Longest answer."),
    BOOL("eval.require_disjoint", STAGE(eval.require_disjoint), "true", "Refuse a held-out problem that is also a training problem."),
    TEXT("eval.sets.*.path", OPD__TYPE_PATH, SET(path), "", OPD__KEY_REFERENCE, "JSONL file of its problems."),
    INT_FROM("eval.sets.*.interval", SET(interval), "eval.interval", 0, BIG, "steps", "Steps between measurements; 0 = only at the start and the end."),
    INT("eval.sets.*.limit", SET(limit), "0", 0, BIG, "problems", "Problems used; 0 = all."),
    INT_FROM("eval.sets.*.samples", SET(samples), "eval.samples", 1, 4096, "samples", "Answers per problem; above 1 pass@k is measured."),
    FLOAT_FROM("eval.sets.*.temperature", SET(temperature), "eval.temperature", 0, 100, 0, "", "Sampling temperature; 0 = greedy."),
    FLOAT_FROM("eval.sets.*.top_p", SET(top_p), "eval.top_p", 0, 1, ABOVE, "", "Nucleus sampling; 1 = off."),
    INT_FROM("eval.sets.*.top_k", SET(top_k), "eval.top_k", -1, BIG, "", "Sample from the k likeliest tokens; -1 or 0 = off."),
    INT_FROM("eval.sets.*.max_response_len", SET(max_response_len), "eval.max_response_len", 1, 16777216, "tokens", "Longest answer."),
    TEXT_FROM("eval.sets.*.prompt_key", OPD__TYPE_STRING, SET(record.prompt_key), "as in data", "Key of the prompt in each line."),
    TEXT_FROM("eval.sets.*.prompt_template", OPD__TYPE_STRING, SET(record.prompt_template), "as in data", "The prompt made of several keys."),
    TEXT_FROM("eval.sets.*.messages_key", OPD__TYPE_STRING, SET(record.messages_key), "as in data", "Key of a conversation."),
    TEXT_FROM("eval.sets.*.label_key", OPD__TYPE_STRING, SET(record.label_key), "as in data", "Key of the right answer."),

    INT_FROM("arithmetic.seed", STAGE(arithmetic.seed), "run.seed", 0, SEED_MAX, "", "Seed of the generated problems."),
    INT("arithmetic.digits", STAGE(arithmetic.digits), "4", 1, 8, "digits", "Of each of the two numbers that are added."),
    INT("arithmetic.easy_first", STAGE(arithmetic.easy_first), "0", 0, 100000000, "problems", "Rows at the start of the first file that hold easy problems only."),
    INT("arithmetic.easy_column_sum", STAGE(arithmetic.easy_column_sum), "14", 2, 18, "", "Largest sum of the two digits of a column in an easy problem."),
    INT("arithmetic.splits.*", offsetof(opd_config_split, count), "0", 1, 100000000, "problems", "A file of this many problems; all files are disjoint."),
};
const size_t opd__key_count = OPD_COUNTOF(opd__keys);
_Static_assert(OPD_COUNTOF(opd__keys) <= OPD__KEYS_MAX, "raise OPD__KEYS_MAX");

const opd__section opd__sections[] = {
    {"run", "The run as a whole."},
    {"device", "Where and with how many threads it computes."},
    {"model", "The model that is trained or measured: `path`, or `init` for random weights."},
    {"model.init", "Shape of a LlamaForCausalLM with random weights and a byte-level tokenizer."},
    {"data", "Training problems: one JSON object per line."},
    {"data.sources", "Several files instead of `data.path`, by name, mixed by weight."},
    {"rollout", "How the student generates."},
    {"reward", "How answers are judged."},
    {"reward.parts", "With `type: parts`: judges by name, whose rewards are summed by weight."},
    {"teachers", "Teachers by name: `url` of a running server, or `path` of a model."},
    {"opd", "On-policy distillation: A_t - kl_coef * (l_student - l_teacher)."},
    {"train", "Optimizer, loss and checkpoints."},
    {"eval", "Accuracy on held-out problems."},
    {"eval.sets", "More sets of held-out problems, by name, each with its own sampling."},
    {"arithmetic", "Generated arithmetic problems with written-out steps."},
    {"arithmetic.splits", "Files by name, each with its number of problems."},
};
const size_t opd__section_count = OPD_COUNTOF(opd__sections);
/* clang-format on */

const opd__map opd__maps[] = {
    {"data.sources", STAGE(data.sources), STAGE(data.source_count), sizeof(opd_config_source), false},
    {"reward.parts", STAGE(reward.parts), STAGE(reward.part_count), sizeof(opd_config_reward_part),
     false},
    {"teachers", STAGE(teachers), STAGE(teacher_count), sizeof(opd_config_teacher), false},
    {"eval.sets", STAGE(eval.sets), STAGE(eval.set_count), sizeof(opd_config_eval_set), false},
    {"arithmetic.splits", STAGE(arithmetic.splits), STAGE(arithmetic.split_count),
     sizeof(opd_config_split), true},
};
const size_t opd__map_count = OPD_COUNTOF(opd__maps);
_Static_assert(OPD_CONFIG_TEACHERS_MAX == OPD__ITEMS_MAX &&
                   OPD_CONFIG_SOURCES_MAX == OPD__ITEMS_MAX &&
                   OPD_CONFIG_EVAL_SETS_MAX == OPD__ITEMS_MAX &&
                   OPD_CONFIG_REWARD_PARTS_MAX == OPD__ITEMS_MAX &&
                   OPD_CONFIG_SPLITS_MAX == OPD__ITEMS_MAX, "every map holds ITEMS_MAX");
_Static_assert(offsetof(opd_config_teacher, name) == 0 && offsetof(opd_config_split, name) == 0 &&
                   offsetof(opd_config_source, name) == 0 && offsetof(opd_config_eval_set, name) == 0 &&
                   offsetof(opd_config_reward_part, name) == 0,
               "an item begins with its name");

const opd__exclusive opd__exclusives[] = {
    {"model.path", "model.init"},
    {"train.steps", "train.epochs"},
    {"data.path", "data.sources"},
    {"data.prompt_key", "data.prompt_template"},
    {"data.prompt_key", "data.messages_key"},
    {"data.prompt_template", "data.messages_key"},
    {"data.sources.*.prompt_key", "data.sources.*.prompt_template"},
    {"data.sources.*.prompt_key", "data.sources.*.messages_key"},
    {"data.sources.*.prompt_template", "data.sources.*.messages_key"},
    {"data.privileged_key", "data.privileged_template"},
    {"data.privileged_key", "data.privileged_messages_key"},
    {"data.privileged_template", "data.privileged_messages_key"},
    {"data.sources.*.privileged_key", "data.sources.*.privileged_template"},
    {"data.sources.*.privileged_key", "data.sources.*.privileged_messages_key"},
    {"data.sources.*.privileged_template", "data.sources.*.privileged_messages_key"},
    {"eval.sets.*.prompt_key", "eval.sets.*.prompt_template"},
    {"eval.sets.*.prompt_key", "eval.sets.*.messages_key"},
    {"eval.sets.*.prompt_template", "eval.sets.*.messages_key"},
    {"teachers.*.url", "teachers.*.path"},
    {"teachers.*.urls", "teachers.*.path"},
    {"teachers.*.url", "teachers.*.urls"},
    {"teachers.*.api_key_env", "teachers.*.api_key_file"},
};
const size_t opd__exclusive_count = OPD_COUNTOF(opd__exclusives);
