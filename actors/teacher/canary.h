/* canary.h - whether a replica can still be believed: the same fixed sequences, scored again and again.
 *
 * A replica is quarantined when its scores of them
 *   - are uniform (-ln V each, or all the same), or one of them is no log-prob at all;
 *   - changed by more than `tolerance` on average, under the weight version under which they were first
 *     seen (another version makes a new baseline);
 *   - are further than OPD_CANARY_APART times the tolerance from the median of the replicas in use with the
 *     same weight version, three or more with itself. Of two that disagree neither is believed over the
 *     other.
 * It comes back after OPD_CANARY_GOOD rounds in a row in which none of that is so.
 *
 * Invariants: (1) what was never seen before is believed, unless it is impossible or apart; (2) a
 * baseline is of one weight version; (3) a replica that was apart has no baseline, for it was wrong from
 * the beginning; (4) quarantined replicas have no say in the median.
 * Pure: no I/O, no clock. Thread: any one at a time. Memory: plain data; nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_CANARY_H
#define OPD_ACTORS_TEACHER_CANARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/config.h"
#include "transports/sglang.h"

enum {
    OPD_CANARY_SEQUENCES = 3,
    OPD_CANARY_IDS_MAX = 40,  /* tokens of a sequence; all but the first are scored */
    OPD_CANARY_SCORES_MAX = OPD_CANARY_SEQUENCES * (OPD_CANARY_IDS_MAX - 1),
    OPD_CANARY_GOOD = 2,      /* rounds in a row                                    */
    OPD_CANARY_APART = 5,     /* times the tolerance                                */
    OPD_CANARY_NOBODY = -1
};

typedef struct opd_canary_sequence {
    int32_t ids[OPD_CANARY_IDS_MAX];
    uint32_t count; /* >= 2 */
} opd_canary_sequence;

/* A round: all sequences, one after the other. */
typedef struct opd_canary_scores {
    float logp[OPD_CANARY_SCORES_MAX];
    uint8_t valid[OPD_CANARY_SCORES_MAX];
    char weight_version[OPD_SGLANG_NAME_SIZE];
} opd_canary_scores;

typedef struct opd_canary_replica {
    bool quarantined, seen, based;          /* seen: `latest` is there; based: `baseline` is */
    uint32_t good;                          /* rounds in a row, in quarantine                */
    char weight_version[OPD_SGLANG_NAME_SIZE]; /* of both                                    */
    float baseline[OPD_CANARY_SCORES_MAX], latest[OPD_CANARY_SCORES_MAX];
} opd_canary_replica;

typedef struct opd_canary {
    opd_canary_sequence sequences[OPD_CANARY_SEQUENCES];
    int32_t vocab_size; /* 0: not known */
    double tolerance;   /* nats         */
    size_t scores;      /* of a round   */
    size_t count;
    opd_canary_replica replicas[OPD_CONFIG_REPLICAS_MAX];
} opd_canary;

typedef enum opd_canary_verdict {
    OPD_CANARY_OK,
    OPD_CANARY_INVALID,
    OPD_CANARY_UNIFORM,
    OPD_CANARY_CHANGED,   /* against its own past  */
    OPD_CANARY_IS_APART   /* from its siblings     */
} opd_canary_verdict;

/* What a round says. */
typedef struct opd_canary_finding {
    opd_canary_verdict verdict;
    double distance;  /* nats, mean: of CHANGED and IS_APART; else from its own past       */
    bool renewed;     /* another weight version: a new baseline                            */
    bool went, came;  /* into quarantine, out of it                                        */
    int disputed;     /* the one other replica, which says something else; or NOBODY       */
    double dispute;   /* by so much                                                        */
} opd_canary_finding;

/* Random-looking sequences, of ids that depend on the vocabulary's size alone (0: not known), with
 * bos_id (-1: none) in front, of at most max_len tokens (0: no matter). */
void opd_canary_init(opd_canary *canary, size_t replicas, int32_t vocab_size, int32_t bos_id,
                     uint32_t max_len, double tolerance);

/* Other sequences than those of init, before the first round; count >= 2 is cut to what there was. */
void opd_canary_set(opd_canary *canary, size_t sequence, const int32_t *ids, size_t count);

/* Where the scores of a sequence begin in a round. */
size_t opd_canary_at(const opd_canary *canary, size_t sequence);

/* A round of replica i. scores NULL: an answer was not about what was sent. */
opd_canary_finding opd_canary_take(opd_canary *canary, size_t i, const opd_canary_scores *scores);

/* Puts the replica in use that is furthest from the median into quarantine, if that is too far; to be
 * called after a round until it returns NOBODY, for a round shows as much of the others. */
int opd_canary_outlier(opd_canary *canary, double *out_distance);

#endif
