/* spin.c - the short busy wait (spin.h). Thread: the one that waits. */
#include "core/env/spin.h"

#include <sched.h>
#include <time.h>

enum { LOOKS_PER_CLOCK = 32 };

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void opd__spin_init(opd__spin *spin) {
    cpu_set_t mine;
    *spin = (opd__spin){0};
    spin->useful = sched_getaffinity(0, sizeof mine, &mine) != 0 || CPU_COUNT(&mine) > 1;
}

static bool is_set(const uint32_t *flag) { return __atomic_load_n(flag, __ATOMIC_RELAXED) != 0; }

static bool look_around(const uint32_t *flag) {
    uint64_t end_ns = now_ns() + OPD__SPIN_NS;
    do {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (is_set(flag)) return true;
            relax();
        }
    } while (now_ns() < end_ns);
    return false;
}

bool opd__spin_wait(opd__spin *spin, const uint32_t *flag) {
    if (is_set(flag)) return true;
    if (!spin->useful) return false;
    if (spin->skips_left > 0) {
        spin->skips_left--;
        return false;
    }
    if (look_around(flag)) {
        spin->skips_next = 0;
        return true;
    }
    spin->skips_next = 2 * spin->skips_next + 1;
    if (spin->skips_next > OPD__SPIN_SKIPS_MAX) spin->skips_next = OPD__SPIN_SKIPS_MAX;
    spin->skips_left = spin->skips_next;
    return false;
}
