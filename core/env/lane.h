/* lane.h - the compute thread behind the lane entries of opd_env_ops (opd/env.h): same
 * contracts. Thread: the loop's. */
#ifndef OPD_CORE_ENV_LANE_H
#define OPD_CORE_ENV_LANE_H

#include "opd/env.h"

/* *jobs (atomic, the env's, alive until lane_close) counts the tasks submitted and not yet done, of
 * all lanes that share it: while it is not 0 the loop may expect news. */
opd_err opd__lane_open(const opd_alloc *alloc, const char *name, uint32_t *jobs,
                       opd_env_lane **out_lane);
void opd__lane_submit(opd_env_lane *lane, opd_env_task *task);
void opd__lane_close(opd_env_lane *lane);

#endif
