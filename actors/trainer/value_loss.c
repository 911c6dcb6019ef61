/* actors/trainer/value_loss.c - see value_loss.h for the formula. No state, any thread. */
#include "actors/trainer/value_loss.h"

#include <math.h>

void opd_value_loss(double clip, size_t count, const float *values, const float *old_values,
                    const float *returns, const float *weights, float *out_dvalues,
                    opd_value_stats *stats) {
    double loss = 0, clipped = 0;
    for (size_t t = 0; t < count; t++) {
        double weight = (double)weights[t];
        out_dvalues[t] = 0;
        if (weight == 0) continue;
        double off = (double)values[t] - (double)returns[t], slope = 2 * off, x = off * off;
        if (clip > 0) {
            double old = (double)old_values[t];
            double held = fmin(fmax((double)values[t], old - clip), old + clip);
            double held_off = held - (double)returns[t];
            if (held_off * held_off > x) { /* V has gone too far towards R: no more slope */
                x = held_off * held_off;
                slope = 0;
                clipped += weight;
            }
        }
        loss += weight * x;
        out_dvalues[t] = (float)(weight * slope);
    }
    stats->loss += loss;
    stats->clip_frac += clipped;
}
