/* canary.c - what rounds of fixed sequences say (canary.h). Thread: any. Nothing to free. */
#include "actors/teacher/canary.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/rng.h"

enum { FIRST_ID = 3, IDS_UNKNOWN = 28, SEED = 4, EQUAL_LEAST = 8 };

static const float UNIFORM_SLACK = 1e-3f, EQUAL_SLACK = 1e-6f;

/* ---- the sequences ---- */

static void count_scores(opd_canary *c) {
    c->scores = 0;
    for (size_t s = 0; s < OPD_CANARY_SEQUENCES; s++) c->scores += c->sequences[s].count - 1;
}

void opd_canary_init(opd_canary *c, size_t replicas, int32_t vocab_size, int32_t bos_id, uint32_t max_len,
                     double tolerance) {
    /* neither the usual special tokens, nor the last id, which servers may echo as 0 */
    uint64_t ids = vocab_size > FIRST_ID + 1 ? (uint64_t)(vocab_size - FIRST_ID - 1) : IDS_UNKNOWN;
    uint32_t count = max_len >= 2 && max_len < OPD_CANARY_IDS_MAX ? max_len : OPD_CANARY_IDS_MAX;
    OPD_ASSERT(replicas <= OPD_CONFIG_REPLICAS_MAX);
    memset(c, 0, sizeof *c);
    c->vocab_size = vocab_size > 0 ? vocab_size : 0;
    c->tolerance = tolerance;
    c->count = replicas;
    for (uint64_t s = 0; s < OPD_CANARY_SEQUENCES; s++) {
        opd_canary_sequence *sequence = &c->sequences[s];
        sequence->count = count;
        for (uint64_t i = 0; i < count; i++)
            sequence->ids[i] = FIRST_ID + (int32_t)(opd_rng_at(SEED, s, i, 0) % ids);
        if (bos_id >= 0) sequence->ids[0] = bos_id;
    }
    count_scores(c);
}

void opd_canary_set(opd_canary *c, size_t s, const int32_t *ids, size_t count) {
    opd_canary_sequence *sequence = &c->sequences[s];
    OPD_ASSERT(s < OPD_CANARY_SEQUENCES && count >= 2);
    if (count < sequence->count) sequence->count = (uint32_t)count;
    memcpy(sequence->ids, ids, sequence->count * sizeof *ids);
    count_scores(c);
}

size_t opd_canary_at(const opd_canary *c, size_t sequence) {
    size_t at = 0;
    for (size_t s = 0; s < sequence; s++) at += c->sequences[s].count - 1;
    return at;
}

/* ---- judging ---- */

static double distance_of(const float *a, const float *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += fabs((double)a[i] - (double)b[i]);
    return sum / (double)count;
}

static bool all_valid(const opd_canary *c, const opd_canary_scores *s) {
    for (size_t i = 0; i < c->scores; i++)
        if (!s->valid[i]) return false;
    return true;
}

static bool is_uniform(const opd_canary *c, const float *logp) {
    float low = logp[0], high = logp[0];
    float uniform = c->vocab_size > 1 ? -logf((float)c->vocab_size) : 1;
    for (size_t i = 1; i < c->scores; i++) {
        if (logp[i] < low) low = logp[i];
        if (logp[i] > high) high = logp[i];
    }
    if (c->scores >= EQUAL_LEAST && high - low < EQUAL_SLACK) return true;
    return fabsf(low - uniform) < UNIFORM_SLACK && fabsf(high - uniform) < UNIFORM_SLACK;
}

/* Whether j's latest round can be held against another one of this version. */
static bool has_say(const opd_canary *c, size_t j, const char *weight_version) {
    const opd_canary_replica *r = &c->replicas[j];
    return r->seen && !r->quarantined && strcmp(r->weight_version, weight_version) == 0;
}

/* The distance of replica i from the median of those that have a say and itself; *out_others: how many
 * they are. */
static double from_median(const opd_canary *c, size_t i, size_t *out_others) {
    const opd_canary_replica *own = &c->replicas[i];
    float sorted[OPD_CONFIG_REPLICAS_MAX];
    double sum = 0;
    for (size_t t = 0; t < c->scores; t++) {
        size_t n = 0;
        for (size_t j = 0; j < c->count; j++) {
            if (j != i && !has_say(c, j, own->weight_version)) continue;
            float value = c->replicas[j].latest[t];
            size_t at = n++;
            for (; at > 0 && sorted[at - 1] > value; at--) sorted[at] = sorted[at - 1];
            sorted[at] = value;
        }
        *out_others = n - 1;
        double median = n % 2 == 1 ? (double)sorted[n / 2]
                                   : ((double)sorted[n / 2 - 1] + (double)sorted[n / 2]) / 2;
        sum += fabs((double)own->latest[t] - median);
    }
    return sum / (double)c->scores;
}

static double bound(const opd_canary *c) { return OPD_CANARY_APART * c->tolerance; }

/* Its siblings: two or more can overrule it, one can only disagree. */
static void hear_siblings(const opd_canary *c, size_t i, opd_canary_finding *f) {
    size_t others;
    double distance = from_median(c, i, &others);
    if (others >= 2 && distance > bound(c)) {
        f->verdict = OPD_CANARY_IS_APART;
        f->distance = distance;
    }
    for (size_t j = 0; others == 1 && j < c->count; j++) {
        if (j == i || !has_say(c, j, c->replicas[i].weight_version)) continue;
        f->dispute = distance_of(c->replicas[i].latest, c->replicas[j].latest, c->scores);
        if (f->dispute > bound(c)) f->disputed = (int)j;
    }
}

/* Into quarantine, if it is not there. Returns whether it went. */
static bool lock_up(opd_canary_replica *r, opd_canary_verdict why) {
    bool went = !r->quarantined;
    r->quarantined = true;
    r->good = 0;
    if (why == OPD_CANARY_IS_APART) r->based = false;
    return went;
}

static void compare(opd_canary *c, size_t i, const opd_canary_scores *s, opd_canary_finding *f) {
    opd_canary_replica *r = &c->replicas[i];
    if (r->seen && strcmp(r->weight_version, s->weight_version) != 0) {
        f->renewed = r->based;
        r->based = false;
    }
    (void)snprintf(r->weight_version, sizeof r->weight_version, "%s", s->weight_version);
    memcpy(r->latest, s->logp, sizeof r->latest);
    r->seen = true;
    if (r->based) f->distance = distance_of(r->baseline, r->latest, c->scores);
    if (f->distance > c->tolerance) {
        f->verdict = OPD_CANARY_CHANGED;
        return;
    }
    hear_siblings(c, i, f);
    if (f->verdict != OPD_CANARY_OK || r->based) return;
    memcpy(r->baseline, r->latest, sizeof r->baseline);
    r->based = true;
}

opd_canary_finding opd_canary_take(opd_canary *c, size_t i, const opd_canary_scores *s) {
    opd_canary_finding f = {.verdict = OPD_CANARY_OK, .disputed = OPD_CANARY_NOBODY};
    opd_canary_replica *r = &c->replicas[i];
    if (s == NULL || !all_valid(c, s)) f.verdict = OPD_CANARY_INVALID;
    else if (is_uniform(c, s->logp)) f.verdict = OPD_CANARY_UNIFORM;
    else compare(c, i, s, &f);
    if (f.verdict != OPD_CANARY_OK) {
        f.went = lock_up(r, f.verdict);
    } else if (r->quarantined && ++r->good >= OPD_CANARY_GOOD) {
        r->quarantined = false;
        f.came = true;
    }
    return f;
}

int opd_canary_outlier(opd_canary *c, double *out_distance) {
    int worst = OPD_CANARY_NOBODY;
    *out_distance = bound(c);
    for (size_t i = 0; i < c->count; i++) {
        size_t others = 0;
        if (!has_say(c, i, c->replicas[i].weight_version)) continue;
        double distance = from_median(c, i, &others);
        if (others < 2 || distance <= *out_distance) continue;
        worst = (int)i;
        *out_distance = distance;
    }
    if (worst != OPD_CANARY_NOBODY) (void)lock_up(&c->replicas[worst], OPD_CANARY_IS_APART);
    return worst;
}
