/* actors/dataset/mix.c - see mix.h. No state, any thread. */
#include "actors/dataset/mix.h"

#include <math.h>
#include <stdbool.h>

#include "core/base/check.h"

/* Places by the largest remainder, at least one each; their sum may be above the maximum until the
 * largest give some back. */
static void share_out(opd_mix *mix, const double *weights, size_t count) {
    double total = 0, remainder[OPD_MIX_SOURCES_MAX];
    uint32_t given = 0;
    for (size_t i = 0; i < count; i++) total += weights[i];
    for (size_t i = 0; i < count; i++) {
        double wanted = weights[i] / total * OPD_MIX_LENGTH_MAX;
        mix->places[i] = wanted < 1 ? 1 : (uint32_t)wanted;
        remainder[i] = wanted - floor(wanted);
        given += mix->places[i];
    }
    while (given != OPD_MIX_LENGTH_MAX) {
        size_t best = 0;
        for (size_t i = 1; i < count; i++)
            if (given < OPD_MIX_LENGTH_MAX ? remainder[i] > remainder[best]
                                           : mix->places[i] > mix->places[best])
                best = i;
        bool more = given < OPD_MIX_LENGTH_MAX;
        mix->places[best] = more ? mix->places[best] + 1 : mix->places[best] - 1;
        given = more ? given + 1 : given - 1;
        remainder[best] = -1;
    }
}

static uint32_t divisor(uint32_t a, uint32_t b) {
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

opd_mix opd_mix_of(const double *weights, size_t count) {
    OPD_ASSERT(count > 0 && count <= OPD_MIX_SOURCES_MAX);
    opd_mix mix = {.length = OPD_MIX_LENGTH_MAX};
    uint32_t common = OPD_MIX_LENGTH_MAX, given[OPD_MIX_SOURCES_MAX] = {0};
    share_out(&mix, weights, count);
    for (size_t i = 0; i < count; i++) common = divisor(common, mix.places[i]);
    mix.length /= common;
    for (size_t i = 0; i < count; i++) mix.places[i] /= common;
    for (uint32_t p = 0; p < mix.length; p++) { /* who is furthest behind its share is next */
        size_t next = 0;
        int64_t most = INT64_MIN;
        for (size_t i = 0; i < count; i++) {
            int64_t behind = (int64_t)mix.places[i] * (p + 1) - (int64_t)given[i] * mix.length;
            if (given[i] < mix.places[i] && behind > most) next = i, most = behind;
        }
        mix.source[p] = (uint8_t)next;
        mix.rank[p] = (uint16_t)given[next]++;
    }
    return mix;
}

size_t opd_mix_at(const opd_mix *mix, uint64_t group, uint64_t *out_index) {
    uint64_t round = group / mix->length, place = group % mix->length;
    size_t source = mix->source[place];
    *out_index = round * mix->places[source] + mix->rank[place];
    return source;
}
