/* stub_server.h - an actor that is a stub of a scoring server: real HTTP, scripted time, scores that
 * can be checked.
 *
 * It does `slots` requests at once, each for a log-normal time of the given mean, the rest wait
 * in order; an aborted or cancelled one gives its slot back, as a real server does. So it has a
 * capacity, slots / mean, and a load. The draws depend on the seed alone. It may be down now and
 * then: every connection is lost, and nobody listens until it is back on the same port.
 *
 * Thread: the loop's. Memory: all its own; freed when the system stops it.
 */
#ifndef OPD_TESTS_SUPPORT_STUB_SERVER_H
#define OPD_TESTS_SUPPORT_STUB_SERVER_H

#include <stdint.h>

#include "opd/actor.h"

enum { STUB_SERVER_VOCAB = 1000, STUB_SERVER_LEN_MAX = 1024 };

typedef struct stub_server_config {
    opd_env *env;
    const opd_alloc *alloc;
    uint16_t port;     /* 0: any free one        */
    uint16_t *out_port; /* told here; may be NULL */
    uint32_t slots;
    double mean_ms, sigma; /* of the service time; sigma of its logarithm */
    uint64_t seed;
    uint64_t down_first_ms, down_every_ms, down_for_ms; /* first 0: never */
} stub_server_config;

/* Starting it fails where its port is in use. */
extern const opd_actor_class stub_server_class;

/* The score of token `id` at place `at` of a sequence: exact in a float and in decimal. */
static inline float stub_server_score(int32_t id, uint64_t at) {
    return -(float)(1 + ((uint64_t)id * 31 + at * 17) % 997) / 64;
}

#endif
