/* refuse.c - a real env whose runtime is refused something at a chosen point (torture.h).
 * Thread: the loop's, but jobs ask on their lane (the counters are atomic). */
#include <stdatomic.h>

#include "tests/support/test.h"
#include "tests/torture/torture.h"

static struct {
    opd_env_ops ops; /* the env's, with `fault` */
    const opd_env_ops *plain;
    opd_fault site;
    long at, every;
    atomic_long asked;
} refuse;

static bool fault(opd_env *env, opd_fault site, const char *name) {
    (void)env;
    if (site != refuse.site || refuse.at == 0) return false;
    long asked = atomic_fetch_add(&refuse.asked, 1) + 1;
    bool strikes = asked == refuse.at || (refuse.every > 0 && asked > refuse.at &&
                                          (asked - refuse.at) % refuse.every == 0);
    if (strikes) (void)opd_fail(OPD_ERR_AGAIN, "%s was refused on purpose", name);
    return strikes;
}

long torture_refuse(opd_env *env, opd_fault site, long n, long every) {
    long asked = atomic_exchange(&refuse.asked, 0);
    if (n == 0) {
        env->ops = refuse.plain;
        return asked;
    }
    refuse.plain = env->ops;
    refuse.ops = *env->ops;
    refuse.ops.fault = fault;
    refuse.site = site;
    refuse.at = n;
    refuse.every = every;
    env->ops = &refuse.ops;
    return asked;
}
