/* hedge.c - a ring and its sorted copy (hedge.h). Thread: any; allocates nothing. */
#include "actors/teacher/hedge.h"

#include <math.h>
#include <string.h>

void opd_hedge_init(opd_hedge *hedge, double quantile) {
    *hedge = (opd_hedge){.quantile = quantile};
}

/* The first place whose value is not below `value`. */
static uint32_t place_of(const opd_hedge *hedge, double value) {
    uint32_t low = 0, high = hedge->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (hedge->sorted[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void take_out(opd_hedge *hedge, double value) {
    uint32_t at = place_of(hedge, value);
    hedge->count--;
    memmove(&hedge->sorted[at], &hedge->sorted[at + 1], (hedge->count - at) * sizeof(double));
}

static void put_in(opd_hedge *hedge, double value) {
    uint32_t at = place_of(hedge, value);
    memmove(&hedge->sorted[at + 1], &hedge->sorted[at], (hedge->count - at) * sizeof(double));
    hedge->sorted[at] = value;
    hedge->count++;
}

void opd_hedge_answer(opd_hedge *hedge, double latency_ms) {
    if (hedge->count == OPD_HEDGE_WINDOW) take_out(hedge, hedge->recent[hedge->next]);
    put_in(hedge, latency_ms);
    hedge->recent[hedge->next] = latency_ms;
    hedge->next = (hedge->next + 1) % OPD_HEDGE_WINDOW;
}

double opd_hedge_delay_ms(const opd_hedge *hedge) {
    if (hedge->quantile <= 0 || hedge->count < OPD_HEDGE_LEAST) return 0;
    uint32_t rank = (uint32_t)ceil(hedge->quantile * hedge->count);
    if (rank == 0) rank = 1;
    if (rank > hedge->count) rank = hedge->count;
    return hedge->sorted[rank - 1];
}
