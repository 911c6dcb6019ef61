/* probe_report.h - what `opd teacher probe` found, for people, machines and configurations.
 * Thread: any. Nothing to free. */
#ifndef OPD_ACTORS_RUN_PROBE_REPORT_H
#define OPD_ACTORS_RUN_PROBE_REPORT_H

#include "actors/teacher/prober_actor.h"
#include "core/base/str.h"
#include "opd/run.h"

/* What to put into a configuration. */
typedef struct opd_probe_advice {
    uint32_t max_inflight;
    double timeout_s;
} opd_probe_advice;

/* From the load. max_inflight: where the server gave more when more was asked, twice what was tried; else
 * twice the requests that keep it busy, its rate times the time of one alone (Little's law); at most
 * what it runs at once, where it says so. timeout_s: ten times the 99th percentile, grown with
 * max_inflight, and at least ten seconds. */
opd_probe_advice opd_probe_advise(const opd_prober_report *report);

/* Appends the block `teachers: ...` of a configuration. Errors stick in out. */
void opd_probe_yaml(const opd_teacher_probe_options *options, const opd_prober_report *report,
                    opd_str *out);

/* Prints all of it to options->out. Errors: IO, NOMEM. */
OPD_MUST_CHECK opd_err opd_probe_report_print(const opd_teacher_probe_options *options,
                                              const opd_prober_config *config,
                                              const opd_prober_report *report);

#endif
