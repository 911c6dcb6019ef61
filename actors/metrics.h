/* metrics.h - every number a run reports, in one table.
 *
 * A report is an array of doubles indexed by opd_metric; NaN means "not measured". Names are
 * the seed system's where it has one. Means over tokens are taken per sample over its usable
 * tokens, then over the samples that have any. Thread: any (constants).
 */
#ifndef OPD_ACTORS_METRICS_H
#define OPD_ACTORS_METRICS_H

/* rollout/: the samples of a batch before the update. teacher/: its scores. reward/: judges. train/: the
 * optimizer step. perf/: time. run/: what became of the actors. */
#define OPD_METRIC_TABLE(X)                                                                    \
    X(RAW_REWARD, "rollout/raw_reward")                 /* mean reward as given            */  \
    X(REWARDS, "rollout/rewards")                       /* after group normalisation       */  \
    X(ADVANTAGES, "rollout/advantages")                 /* after OPD term and whitening    */  \
    X(LOG_PROBS, "rollout/log_probs")                   /* student before the update       */  \
    X(TEACHER_LOG_PROBS, "rollout/teacher_log_probs")   /* valid tokens only               */  \
    X(OPD_REVERSE_KL, "rollout/opd_reverse_kl")         /* student - teacher, valid tokens */  \
    X(OPD_ABS_DIFF_MAX, "rollout/opd_abs_diff_max")     /* its largest |value| of a token   */  \
    X(OPD_OVERLAP, "rollout/opd_overlap_ratio")         /* |top-k and top-k| / k           */  \
    X(OPD_OVERLAP_COVERAGE, "rollout/opd_overlap_coverage")                                    \
    X(VALUES, "rollout/values")                         /* the critic's, before the update */  \
    X(RETURNS, "rollout/returns")                       /* what it should have said        */  \
    X(OPD_OVERLAP_ADVANTAGE, "rollout/opd_overlap_token_advantage") /* teacher - student there */ \
    X(OPD_OVERLAP_STUDENT_MASS, "rollout/opd_overlap_student_mass") /* on the common ids   */  \
    X(OPD_OVERLAP_TEACHER_MASS, "rollout/opd_overlap_teacher_mass")                            \
    X(OPD_ENTROPY_GAP, "rollout/opd_entropy_gap")       /* student - teacher, from top-k   */  \
    X(RESPONSE_LEN, "rollout/response_len/mean")                                               \
    X(TRUNCATED, "rollout/truncated_ratio")                                                    \
    X(REPETITION, "rollout/repetition_frac")            /* answers that end in a loop      */  \
    X(REPEATED_4GRAMS, "rollout/repeated_4grams")       /* share of repeats, near the end  */  \
    X(FILTER_ZERO_STD, "rollout/dynamic_filter/drop_zero_std") /* groups replaced by others */ \
    X(LEFT_OVER, "rollout/over_sampling/left_over")     /* answers for nothing             */  \
    X(LAG_MAX, "rollout/lag_max")                       /* version - oldest token's        */  \
    X(LAG_0, "rollout/lag_0")                           /* samples with that lag: 0,       */  \
    X(LAG_1, "rollout/lag_1")                           /* 1,                              */  \
    X(LAG_2, "rollout/lag_2")                           /* 2 and 3,                        */  \
    X(LAG_4, "rollout/lag_4")                           /* 4 to 7,                         */  \
    X(LAG_8, "rollout/lag_8")                           /* 8 and more                      */  \
    X(VALID_SHARE, "teacher/valid_share")               /* valid / response tokens, 0..1   */  \
    X(INVALID_TOKENS, "teacher/invalid_tokens")                                                \
    X(FALLBACK_TOKENS, "teacher/fallback_tokens")       /* seed's fallback policy only     */  \
    X(DEGRADED_TOKENS, "teacher/degraded_tokens")       /* fewer teachers, or a fallback   */  \
    X(TEACHER_LATENCY_MS, "teacher/latency_ms")         /* mean, request to last answer    */  \
    X(TEACHER_ATTEMPTS, "teacher/attempts")             /* requests per sample             */  \
    X(TEACHER_WAIT_MS, "teacher/wait_ms")               /* of the latency, before sending  */  \
    X(TEACHER_MOVES, "teacher/moves")                   /* to another replica, per sample  */  \
    X(TEACHER_HEDGES, "teacher/hedges")                 /* second requests, per sample     */  \
    X(TEACHER_GIVEN_UP, "teacher/given_up")             /* samples without any score       */  \
    X(TEACHER_QUARANTINES, "teacher/quarantines")       /* so far: replicas not believed   */  \
    X(TEACHER_UNSERVED, "teacher/unserved_samples")     /* so far: of a value nobody serves */  \
    X(REWARD_FAILED, "reward/failed")                   /* samples whose judge failed      */  \
    X(REWARD_TIMEOUTS, "reward/timeouts")               /* samples whose judge was silent  */  \
    X(LOSS, "train/loss")                                                                      \
    X(OPD_LOSS, "train/opd_loss")                       /* the divergence, without its coef */ \
    X(OPD_GRAD_NORM, "train/opd_logit_grad_norm")       /* of the distillation, by the logits */ \
    X(RL_GRAD_NORM, "train/rl_logit_grad_norm")         /* of the policy loss without it   */  \
    X(OPD_CLIPFRAC, "train/opd_per_token_clip_frac")    /* tokens above opd.token_clip     */  \
    X(OPD_STUDENT_MASS, "train/opd_student_mass")       /* on opd.support                  */  \
    X(OPD_TEACHER_MASS, "train/opd_teacher_mass")                                              \
    X(VALIDATION_LOSS, "train/validation_loss")         /* held-out examples, per token    */  \
    X(PG_LOSS, "train/pg_loss")                                                                \
    X(PG_CLIPFRAC, "train/pg_clipfrac")                                                        \
    X(PPO_KL, "train/ppo_kl")                           /* old - current log-prob          */  \
    X(KL_LOSS, "train/kl_loss")                         /* student - reference, estimated  */  \
    X(VALUE_LOSS, "train/value_loss")                   /* of the critic, without its coef */  \
    X(VALUE_CLIPFRAC, "train/value_clipfrac")                                                  \
    X(OIS, "train/ois")                                 /* current / old probability       */  \
    X(TIS, "train/tis")                                 /* mean factor of the correction   */  \
    X(TIS_CLIPFRAC, "train/tis_clipfrac")               /* share of ratios out of bounds   */  \
    X(TIS_ABS, "train/tis_abs")                         /* |old / rollout probability - 1| */  \
    X(MISMATCH_KL, "train/mismatch_kl")                 /* rollout - old log-prob          */  \
    X(MISMATCH_K3_KL, "train/mismatch_k3_kl")           /* the same by k3                  */  \
    X(OPSM_CLIPFRAC, "train/opsm_clipfrac")             /* tokens that OPSM left out       */  \
    X(ENTROPY, "train/entropy_loss")                                                           \
    X(LOGPROB_ABS_DIFF, "train/train_rollout_logprob_abs_diff")                                \
    X(GRAD_NORM, "train/grad_norm")                                                            \
    X(LR, "train/lr")                                                                          \
    X(SKIPPED, "train/steps_skipped")                   /* so far: non-finite numbers      */  \
    X(UNSCORED, "train/batches_without_score")          /* so far: no step was made        */  \
    X(TOKENS, "train/tokens")                           /* tokens in the batch             */  \
    X(SAMPLES, "train/samples")                                                                \
    X(STEP_TIME, "perf/step_time")                      /* s, batch to batch               */  \
    X(TRAIN_TIME, "perf/train_time")                    /* s, computing                    */  \
    X(WAIT_TIME, "perf/train_wait_time")                /* s, waiting for the batch        */  \
    X(SCORE_WAIT_TIME, "perf/score_wait_time")          /* s of it, only scores missing    */  \
    X(RESTARTS, "run/restarts")                         /* so far: parts started again     */

typedef enum opd_metric {
#define X(name, text) OPD_METRIC_##name,
    OPD_METRIC_TABLE(X)
#undef X
    OPD_METRIC_COUNT
} opd_metric;

/* Name of a metric as in metrics.jsonl, never NULL for metric < OPD_METRIC_COUNT. */
const char *opd_metric_name(opd_metric metric);

/* Sets all values to NaN. */
void opd_metrics_clear(double values[OPD_METRIC_COUNT]);

#endif
