/* replica.h - one server of a teacher's fleet: its load, its circuit breaker, and the choice.
 *
 *      IN --failures_max in a row, an outlier's latency, or overtaken again and again--> OUT
 *      OUT --its time is over, and it is chosen--> TRIAL (one request)
 *      TRIAL --good and not slow--> IN      TRIAL --else--> OUT, for longer
 *
 * A trial is slow above slow_factor times the median of the others, of a replica that was put out as
 * an outlier above half of that. Time out is eject_ns times the ejections in a row, at most
 * OPD_REPLICA_GROWTH of them; they are forgotten when a replica stayed in for longer than it was
 * last out (Envoy's outlier detection, with gRPC's half-open trial). `up` is another matter: whether the server can be reached at all,
 * which its probes tell.
 *
 * Choice: power of two choices by tokens in flight; then the replica that has computed the request's
 * beginning for another one (its home), unless that is busier by more than it would save. Where no replica is up and IN, every one
 * that is up may be chosen: breakers protect a fleet, they must not switch it off.
 *
 * Invariants: (1) a breaker opens only while another replica is up and IN; (2) a replica in TRIAL
 * has one request for it; (3) nothing is chosen that is down, full, or asked for time while
 * others may be chosen.
 * Pure: time and random bits are given. Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_REPLICA_H
#define OPD_ACTORS_TEACHER_REPLICA_H

#include <stddef.h>

#include "actors/teacher/pace.h"

enum {
    OPD_REPLICA_NONE = -1,
    OPD_REPLICA_GROWTH = 12,       /* the longest time out, in eject_ns              */
    OPD_REPLICA_OUTLIER_LEAST = 8  /* answers before a latency is held against it; requests
                                      overtaken in a row that are as much evidence         */
};

typedef enum opd_replica_state { OPD_REPLICA_IN, OPD_REPLICA_OUT, OPD_REPLICA_TRIAL } opd_replica_state;

/* 0 switches a rule off. */
typedef struct opd_replica_rules {
    uint32_t failures_max; /* in a row                                   */
    double slow_factor;    /* latency over the median of the others      */
    uint64_t eject_ns;
} opd_replica_rules;

typedef struct opd_replica {
    bool up;
    bool quarantined;       /* its scores cannot be believed (canary.h): it counts as down */
    opd_replica_state state;
    uint32_t failures;      /* in a row                          */
    uint32_t overtaken;     /* requests in a row that a later one to another replica beat */
    uint32_t ejections;     /* in a row                          */
    bool slow;              /* which is why it was put out       */
    uint64_t out_until_ns, in_since_ns;
    uint64_t not_before_ns; /* it asked for time (Retry-After)   */
    uint32_t in_flight;
    uint64_t tokens;        /* in flight                         */
    double latency_ms;      /* moving mean                       */
    uint32_t answers;       /* in it, since it came in           */
    opd_pace pace;
} opd_replica;

/* Several replicas: what the functions below decide about. */
typedef struct opd_fleet {
    opd_replica *replicas; /* [count] */
    size_t count;
    opd_replica_rules rules;
} opd_fleet;

/* Down, IN, idle. */
void opd_replica_init(opd_replica *replica, uint32_t in_flight_max, bool adapts);

/* The replica for a request, or OPD_REPLICA_NONE. avoid: one that has just failed or is at work on
 * this very sample, or NONE; it is taken only if `other_only` is false and there is no other.
 * other_only: another one that is known to be well, so this request will not be a trial. */
int opd_fleet_choose(const opd_fleet *fleet, int avoid, bool other_only, uint64_t now_ns,
                     uint64_t bits);

/* The replica in use at which requests of this affinity meet (rendezvous hashing: when one goes or
 * comes only its own move), or NONE; affinity 0: none. */
int opd_fleet_home(const opd_fleet *fleet, uint64_t affinity);

/* Where a request with an affinity goes, of which its home need not compute saved_tokens again: to
 * its home, unless that has so many tokens more in flight than `chosen` (of opd_fleet_choose), or
 * may not have it. */
int opd_fleet_prefer(const opd_fleet *fleet, int chosen, uint64_t affinity, uint64_t saved_tokens,
                     uint64_t now_ns);

/* A request of so many tokens goes to replica i. Returns whether it is a trial: to be given back
 * to one of the three ends below, of which each request has exactly one. */
bool opd_fleet_begin(opd_fleet *fleet, int i, uint64_t tokens);

/* It was answered. Returns whether it was a trial that let the replica in again. */
bool opd_fleet_good(opd_fleet *fleet, int i, uint64_t tokens, bool trial, double latency_ms,
                    uint64_t now_ns);

/* It failed, in a way that is the server's doing; overload: it said so, or did not answer in
 * time. Returns whether that put the replica out. */
bool opd_fleet_bad(opd_fleet *fleet, int i, uint64_t tokens, bool trial, bool overload,
                   uint64_t now_ns);

/* A later request for the same sample was answered first, after this one had waited for after_ms: it
 * would have taken longer than that, so a trial has failed, and what is overtaken again and again is slow. */
void opd_fleet_overtaken(opd_fleet *fleet, int i, uint64_t tokens, bool trial, double after_ms,
                         uint64_t now_ns);

/* It ended without a word about the server (cancelled, the sample's fault). */
void opd_fleet_neither(opd_fleet *fleet, int i, uint64_t tokens, bool trial, uint64_t now_ns);

/* Puts replica i out if it is in use and an outlier; returns whether. To be called after each
 * good or overtaken request: a slow replica costs every sample that it gets until then. */
bool opd_fleet_outlier(opd_fleet *fleet, int i, uint64_t now_ns);

/* How many are up, and how many of these are IN. */
size_t opd_fleet_up(const opd_fleet *fleet);
size_t opd_fleet_in(const opd_fleet *fleet);

#endif
