/* env.c - calls through the env table that need no loop of their own (opd/env.h). */
#include "core/env/env.h"

uint64_t opd_env_now_ns(opd_env *env) { return env->ops->now_ns(env); }

opd_err opd_env_run(opd_env *env) { return env->ops->run(env); }

void opd_env_stop(opd_env *env) { env->ops->stop(env); }

opd_err opd_env_destroy(opd_env *env) { return env == NULL ? OPD_OK : env->ops->destroy(env); }

bool opd_env_is_simulated(const opd_env *env) { return env->ops->choose != NULL; }
