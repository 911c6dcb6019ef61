/* spin.h - a short busy wait for another thread, which stops trying where it does not pay.
 *
 * Why: on a virtual machine an idle processor is given back to the host, and waking it costs 20
 * to 50 us; a thread that looks around for that long before it sleeps is there at once when
 * the next job or answer comes soon. When it comes late the time is lost, and another process
 * may have wanted it. So a wait lasts at most OPD__SPIN_NS, and after n fruitless waits in a row
 * the next 2^n - 1 (at most 255) are left out. On a single processor nobody spins.
 *
 * Thread: the one that waits; the flag is written by others. Nothing to free.
 */
#ifndef OPD_CORE_ENV_SPIN_H
#define OPD_CORE_ENV_SPIN_H

#include <stdbool.h>
#include <stdint.h>

enum { OPD__SPIN_NS = 30 * 1000, OPD__SPIN_SKIPS_MAX = 255 };

typedef struct opd__spin {
    bool useful; /* there is a second processor */
    uint32_t skips_left, skips_next;
} opd__spin;

void opd__spin_init(opd__spin *spin);

/* Waits a little until the atomic *flag is not 0; returns whether that happened. Says nothing about
 * the order of other memory: the caller synchronises when it takes what the flag announced. */
bool opd__spin_wait(opd__spin *spin, const uint32_t *flag);

#endif
