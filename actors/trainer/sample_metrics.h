/* sample_metrics.h - what the samples of a batch show before anything is learnt from them: lengths,
 * lag, and how their teacher answered; added up in the batch's own metrics (actors/metrics.h).
 * Thread: any; no state. Memory: the caller's. */
#ifndef OPD_ACTORS_TRAINER_SAMPLE_METRICS_H
#define OPD_ACTORS_TRAINER_SAMPLE_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "actors/messages.h"
#include "actors/metrics.h"

/* Adds one of batch_samples samples to `values`, which opd_metrics_clear began. version: of the
 * trainer's weights; teacher: whether scores are expected. */
void opd_sample_metrics_add(double values[OPD_METRIC_COUNT], const opd_sample_fields *sample,
                            uint64_t version, size_t batch_samples, bool teacher);

#endif
