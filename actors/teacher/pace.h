/* pace.h - how many requests a server gets at once, learnt from how fast it answers.
 *
 * Additive increase, multiplicative decrease on the latency: answers come in windows of
 * OPD_PACE_WINDOW; a window whose mean is more than twice that of an unloaded server, or a server
 * that says it is overloaded, lowers the limit; a window at the limit raises it, at first by
 * doubling (slow start). What an unloaded server takes is measured, not configured: while the
 * limit is not reached, and every OPD_PACE_PROBE windows by two windows at a quarter of the limit, the
 * second of which is judged (the idea of BBR's min-RTT probe). Without that the mean of an
 * overloaded server would in time pass for normal.
 *
 * Invariant: 1 <= limit <= limit_max. Pure: no time of its own. Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_PACE_H
#define OPD_ACTORS_TEACHER_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { OPD_PACE_WINDOW = 16, OPD_PACE_START = 16, OPD_PACE_PROBE = 64 };

typedef struct opd_pace {
    double limit;
    uint32_t limit_max;
    bool adapts;           /* false: always limit_max      */
    bool slow_start;       /* until the first decrease     */
    double baseline_ms;    /* of an unloaded server; 0: not known yet */
    double sum_ms;         /* of the present window        */
    uint32_t count, peak;  /* its answers, and most requests at once */
    uint32_t windows;      /* since the last probe         */
    uint32_t probing;      /* windows at a quarter that are left      */
    uint64_t cut_ns;       /* when an overload was last heeded */
} opd_pace;

/* limit_max >= 1. */
void opd_pace_init(opd_pace *pace, uint32_t limit_max, bool adapts);

/* Requests that may be under way now. */
uint32_t opd_pace_limit(const opd_pace *pace);

/* A usable answer came after latency_ms; in_flight: requests under way, this one included. */
void opd_pace_answer(opd_pace *pace, double latency_ms, uint32_t in_flight);

/* The server refused for overload (408, 429, 503) or did not answer in time. A burst of these
 * within an unloaded round trip counts once. */
void opd_pace_overload(opd_pace *pace, uint64_t now_ns);

#endif
