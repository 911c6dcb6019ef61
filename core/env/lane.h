/* lane.h - the compute thread behind the lane entries of opd_env_ops (opd/env.h): same
 * contracts. Thread: the loop's. */
#ifndef OPD_CORE_ENV_LANE_H
#define OPD_CORE_ENV_LANE_H

#include "opd/env.h"

opd_err opd__lane_open(const opd_alloc *alloc, const char *name, opd_env_lane **out_lane);
void opd__lane_submit(opd_env_lane *lane, opd_env_task *task);
void opd__lane_close(opd_env_lane *lane);

#endif
