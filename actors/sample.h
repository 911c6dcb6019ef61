/* actors/sample.h - a joined sample as the learner sees it.
 *
 * A sample is one answer to one prompt. Its parts (tokens, reward, teacher scores) come
 * from different actors in any order and are joined by identity, never by position.
 * This struct is the joined result; how the parts travel is the messages' business.
 *
 * Invariants
 *  1. Arrays over the response have response_len rows; tokens has prompt_len + response_len.
 *  2. teacher_logp[t] and row t of teacher_topk mean something only where
 *     teacher_valid[t] is 1; nobody reads them elsewhere. An invalid score is never a number.
 *  3. reward means something only where reward_valid is true.
 *  4. spans cover the response from 0 without gaps, versions in order of generation.
 *
 * Thread: none of its own; one owner at a time.
 * Memory: one block from the allocator given at creation; the owner destroys it.
 */
#ifndef OPD_ACTORS_SAMPLE_H
#define OPD_ACTORS_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

/* Most changes of weights within one response that a sample records. */
#define OPD_SAMPLE_SPANS_MAX 16

/* Who a sample is. All members of a group answer the same prompt. */
typedef struct opd_sample_id {
    uint64_t group;  /* place of the prompt in the order of the dataset, counted over epochs */
    uint32_t run;    /* which run of the process it belongs to (a restart counts up)         */
    uint32_t epoch;  /* pass over the dataset, from 0                                        */
    uint32_t member; /* which of the prompt's n samples, from 0                              */
} opd_sample_id;

/* How the generation ended. Only COMPLETED and TRUNCATED samples have a response to learn from. */
typedef enum opd_sample_status {
    OPD_SAMPLE_COMPLETED, /* a stop token                      */
    OPD_SAMPLE_TRUNCATED, /* the maximum length                */
    OPD_SAMPLE_ABORTED,   /* stopped by us before it was ready */
    OPD_SAMPLE_FAILED     /* an error; see `reason`            */
} opd_sample_status;

/* Response tokens begin..end-1 were sampled under weights `version`. */
typedef struct opd_sample_span {
    uint32_t begin, end;
    uint64_t version;
} opd_sample_span;

typedef struct opd_sample {
    opd_sample_id id;
    opd_sample_status status;
    uint32_t prompt_len;   /* P */
    uint32_t response_len; /* R */
    uint32_t topk;         /* k, 0 = no top-k ids asked for */

    int32_t *tokens;        /* [P + R] prompt, then response                            */
    float *rollout_logp;    /* [R] log-softmax at the sampling temperature, before top-k/p */
    float *teacher_logp;    /* [R] teacher's log-prob of the sampled token              */
    uint8_t *teacher_valid; /* [R] 1 where the teacher's row may be used, else 0        */
    int32_t *teacher_topk;  /* [R, k] teacher's most likely ids, -1 = none; NULL if k = 0 */

    bool reward_valid;
    double reward; /* as the reward function gave it, not normalised */

    opd_sample_span spans[OPD_SAMPLE_SPANS_MAX];
    uint32_t span_count;

    uint32_t attempts;    /* teacher requests made for it                   */
    double latency_ms;    /* from the first teacher request to the last answer */
    char teacher[64];     /* name of the teacher that scored it, "" = none  */
    char reason[192];     /* why it failed or has no valid scores, "" = fine */

    const opd_alloc *alloc; /* private */
} opd_sample;

/* Name of a status ("completed"), never NULL. */
const char *opd_sample_status_name(opd_sample_status status);

/* Orders identities by run, epoch, group, member: negative, 0, positive as in memcmp. */
int opd_sample_id_compare(const opd_sample_id *a, const opd_sample_id *b);

/* A well-mixed hash of an identity, for tables keyed by it. */
uint64_t opd_sample_id_hash(const opd_sample_id *id);

/* Makes a sample with zeroed arrays (so without one valid teacher score), teacher_topk
 * filled with -1, status FAILED until somebody says otherwise. alloc may be NULL.
 * OPD_ERR_NOMEM; OPD_ERR_LIMIT if the sizes overflow. */
OPD_MUST_CHECK opd_err opd_sample_create(const opd_alloc *alloc, opd_sample_id id,
                                         uint32_t prompt_len, uint32_t response_len, uint32_t topk,
                                         opd_sample **out_sample);

/* Frees the sample. NULL is legal. */
void opd_sample_destroy(opd_sample *sample);

/* Says that the response tokens up to `end` (exclusive) that no span covers yet were sampled
 * under `version`; adjacent spans of one version are one. end must not exceed R nor lie before
 * the covered part: OPD_ERR_INVALID. More than OPD_SAMPLE_SPANS_MAX spans: OPD_ERR_LIMIT. */
OPD_MUST_CHECK opd_err opd_sample_cover(opd_sample *sample, uint32_t end, uint64_t version);

/* Version of the oldest weights any token was sampled under: the trainer's version minus
 * this is the sample's lag. UINT64_MAX for an empty response. */
uint64_t opd_sample_version_min(const opd_sample *sample);

/* Number of response tokens with a valid teacher score. */
uint32_t opd_sample_valid_count(const opd_sample *sample);

#endif
