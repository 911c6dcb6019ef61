/* sample_metrics.h - what the samples of a batch show before anything is learnt from them: lengths,
 * repetition, lag, and how their teacher answered; added up in the batch's own metrics (actors/metrics.h).
 * Thread: any; no state. Memory: the caller's. */
#ifndef OPD_ACTORS_TRAINER_SAMPLE_METRICS_H
#define OPD_ACTORS_TRAINER_SAMPLE_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "actors/messages.h"
#include "actors/metrics.h"

enum {
    OPD_REPETITION_TAIL = 1024, /* tokens at the end of an answer that are looked at        */
    OPD_REPETITION_LEAST = 64   /* a shorter answer is not said to be caught in a loop       */
};

/* Share of the 4-grams among the last OPD_REPETITION_TAIL of an answer's `count` tokens that stood there
 * before: 1 - distinct / all (seq-rep-4, Welleck et al. 2020, arXiv 1908.04319); 0 below 4 tokens. From
 * 0.9 on the tail says hardly anything new, as text that can be compressed to a tenth, which is what the
 * seed system calls repetition. */
double opd_repetition(const int32_t *tokens, size_t count);

/* Adds one of batch_samples samples to `values`, which opd_metrics_clear began. version: of the
 * trainer's weights; teacher: whether scores are expected. */
void opd_sample_metrics_add(double values[OPD_METRIC_COUNT], const opd_sample_fields *sample,
                            uint64_t version, size_t batch_samples, bool teacher);

#endif
