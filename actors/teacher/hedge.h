/* hedge.h - when an answer is late: the rolling quantile after which another replica is asked, too.
 *
 * The last OPD_HEDGE_WINDOW latencies are kept in order; the delay is their quantile, nearest
 * rank. A sample that was hedged counts with its whole time, from its first request to the first
 * answer: otherwise hedging would shorten its own delay until everything were asked twice.
 *
 * Pure. Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_HEDGE_H
#define OPD_ACTORS_TEACHER_HEDGE_H

#include <stdint.h>

enum {
    OPD_HEDGE_WINDOW = 256,
    OPD_HEDGE_LEAST = 20 /* answers before the quantile means anything */
};

typedef struct opd_hedge {
    double quantile; /* 0: never hedge */
    double recent[OPD_HEDGE_WINDOW]; /* ms, a ring      */
    double sorted[OPD_HEDGE_WINDOW]; /* the same, rising */
    uint32_t count, next;
} opd_hedge;

/* quantile in [0, 1). */
void opd_hedge_init(opd_hedge *hedge, double quantile);

/* A sample was answered latency_ms after its first request of this round. */
void opd_hedge_answer(opd_hedge *hedge, double latency_ms);

/* Time without an answer after which a second request is worth it; 0: do not hedge. */
double opd_hedge_delay_ms(const opd_hedge *hedge);

#endif
