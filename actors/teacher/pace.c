/* pace.c - the limit's ups and downs (pace.h). Thread: any; allocates nothing. */
#include "actors/teacher/pace.h"

#include <math.h>

static const double SLOW = 2;          /* a window's mean over the unloaded one            */
static const double DECREASE = 0.9;    /* for a slow window                                */
static const double CUT = 0.7;         /* for an overload                                  */
static const double FOLLOW = 0.1;      /* how fast an idle server's latency is believed    */
static const double CUT_PAUSE_MS = 10; /* between two cuts at least                        */

static double clamp(const opd_pace *pace, double limit) {
    if (limit < 1) return 1;
    return limit > pace->limit_max ? (double)pace->limit_max : limit;
}

void opd_pace_init(opd_pace *pace, uint32_t limit_max, bool adapts) {
    *pace = (opd_pace){.limit_max = limit_max, .adapts = adapts, .slow_start = true};
    pace->limit = adapts ? clamp(pace, OPD_PACE_START) : (double)limit_max;
}

uint32_t opd_pace_limit(const opd_pace *pace) {
    double limit = pace->probing > 0 ? clamp(pace, pace->limit / 4) : pace->limit;
    return (uint32_t)limit;
}

/* The baseline is what a server that is not pressed takes. */
static void learn(opd_pace *pace, double mean_ms, bool pressed) {
    bool judged = pace->probing == 1; /* the first window of a probe has answers from before */
    if (pace->baseline_ms <= 0 || judged || mean_ms < pace->baseline_ms)
        pace->baseline_ms = mean_ms;
    else if (!pressed)
        pace->baseline_ms += FOLLOW * (mean_ms - pace->baseline_ms);
}

static void move(opd_pace *pace, double mean_ms) {
    bool full = pace->peak + 1 >= (uint32_t)pace->limit;
    if (mean_ms > SLOW * pace->baseline_ms) {
        pace->limit = clamp(pace, pace->limit * DECREASE);
        pace->slow_start = false;
    } else if (full) {
        double step = pace->slow_start ? pace->limit : sqrt(pace->limit);
        pace->limit = clamp(pace, pace->limit + step);
    }
}

static void close_window(opd_pace *pace) {
    double mean_ms = pace->sum_ms / pace->count;
    bool pressed = pace->peak * 2 > (uint32_t)pace->limit;
    learn(pace, mean_ms, pressed);
    if (pace->probing > 0)
        pace->probing--;
    else if (pressed)
        move(pace, mean_ms);
    if (++pace->windows >= OPD_PACE_PROBE) {
        pace->windows = 0;
        if (pressed) pace->probing = 2;
    }
    pace->sum_ms = 0;
    pace->count = pace->peak = 0;
}

void opd_pace_answer(opd_pace *pace, double latency_ms, uint32_t in_flight) {
    if (!pace->adapts) return;
    pace->sum_ms += latency_ms;
    pace->count++;
    if (in_flight > pace->peak) pace->peak = in_flight;
    if (pace->count >= OPD_PACE_WINDOW) close_window(pace);
}

void opd_pace_overload(opd_pace *pace, uint64_t now_ns) {
    double pause_ms = pace->baseline_ms > CUT_PAUSE_MS ? pace->baseline_ms : CUT_PAUSE_MS;
    if (!pace->adapts) return;
    if (pace->cut_ns != 0 && (double)(now_ns - pace->cut_ns) < pause_ms * 1e6) return;
    pace->cut_ns = now_ns;
    pace->slow_start = false;
    pace->limit = clamp(pace, pace->limit * CUT);
}
