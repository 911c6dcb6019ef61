/* actors/metric_names.h - the one list of metric names a run writes to metrics.jsonl.
 *
 * Where the seed system has a metric, the name is the seed's. The prefix says whose it is:
 * rollout/ describes the samples of a batch before the update, train/ one optimizer step,
 * eval/ held-out data, teacher/ the teacher's answers. Means over tokens are taken per
 * sample over its usable tokens, then over the samples that have any.
 *
 * Thread: any (constants only).
 */
#ifndef OPD_ACTORS_METRIC_NAMES_H
#define OPD_ACTORS_METRIC_NAMES_H

/* Samples of a batch. */
#define OPD_METRIC_RAW_REWARD "rollout/raw_reward"             /* mean reward as given            */
#define OPD_METRIC_REWARDS "rollout/rewards"                   /* mean after group normalisation  */
#define OPD_METRIC_ADVANTAGES "rollout/advantages"             /* after OPD term and whitening    */
#define OPD_METRIC_LOG_PROBS "rollout/log_probs"               /* student, recomputed by trainer  */
#define OPD_METRIC_ROLLOUT_LOG_PROBS "rollout/rollout_log_probs"
#define OPD_METRIC_TEACHER_LOG_PROBS "rollout/teacher_log_probs" /* valid tokens only             */
#define OPD_METRIC_OPD_REVERSE_KL "rollout/opd_reverse_kl"     /* student - teacher, valid tokens */
#define OPD_METRIC_OPD_OVERLAP "rollout/opd_overlap_ratio"     /* |top-k ∩ top-k| / k             */
#define OPD_METRIC_OPD_OVERLAP_COVERAGE "rollout/opd_overlap_coverage" /* share of tokens in it   */
#define OPD_METRIC_RESPONSE_LEN_MEAN "rollout/response_len/mean"
#define OPD_METRIC_TRUNCATED_RATIO "rollout/truncated_ratio"
#define OPD_METRIC_LAG_MAX "rollout/lag_max"                   /* trainer version - oldest token's */

/* Validity of teacher scores in a batch. */
#define OPD_METRIC_VALID_SHARE "teacher/valid_share"           /* valid / response tokens, 0..1   */
#define OPD_METRIC_INVALID_TOKENS "teacher/invalid_tokens"
#define OPD_METRIC_FALLBACK_TOKENS "teacher/fallback_tokens"   /* policy rollout_log_probs only   */
#define OPD_METRIC_TEACHER_LATENCY_MS "teacher/latency_ms"
#define OPD_METRIC_TEACHER_RETRIES "teacher/retries"

/* One optimizer step. */
#define OPD_METRIC_LOSS "train/loss"
#define OPD_METRIC_PG_LOSS "train/pg_loss"
#define OPD_METRIC_PG_CLIPFRAC "train/pg_clipfrac"
#define OPD_METRIC_PPO_KL "train/ppo_kl"                       /* old - current log-prob          */
#define OPD_METRIC_ENTROPY_LOSS "train/entropy_loss"
#define OPD_METRIC_TRAIN_OPD_REVERSE_KL "train/opd_reverse_kl"
#define OPD_METRIC_LOGPROB_ABS_DIFF "train/train_rollout_logprob_abs_diff"
#define OPD_METRIC_GRAD_NORM "train/grad_norm"
#define OPD_METRIC_LR "train/lr"
#define OPD_METRIC_STEP "train/step"
#define OPD_METRIC_STEPS_SKIPPED "train/steps_skipped"         /* so far, non-finite numbers      */
#define OPD_METRIC_BATCHES_WITHOUT_SCORE "train/batches_without_score" /* so far, no step made    */

/* Held-out data: "eval/" and the dataset's name. */
#define OPD_METRIC_EVAL_PREFIX "eval/"

#endif
