/* replica.c - breakers, outliers and the choice of a replica (replica.h). Thread: any; allocates
 * nothing. */
#include "actors/teacher/replica.h"

#include "core/base/rng.h"

enum { FLEET_SORTED_MAX = 64 };

static const double LATENCY_WEIGHT = 0.1; /* of a new answer in the moving mean */

void opd_replica_init(opd_replica *replica, uint32_t in_flight_max, bool adapts) {
    *replica = (opd_replica){.up = false};
    opd_pace_init(&replica->pace, in_flight_max, adapts);
}

static bool is_there(const opd_replica *r) { return r->up && !r->quarantined; }

static bool in_use(const opd_replica *r) { return is_there(r) && r->state == OPD_REPLICA_IN; }

size_t opd_fleet_up(const opd_fleet *fleet) {
    size_t count = 0;
    for (size_t i = 0; i < fleet->count; i++) count += is_there(&fleet->replicas[i]);
    return count;
}

size_t opd_fleet_in(const opd_fleet *fleet) {
    size_t count = 0;
    for (size_t i = 0; i < fleet->count; i++) count += in_use(&fleet->replicas[i]);
    return count;
}

/* ---- choice ---- */

static bool has_room(const opd_replica *r) {
    return is_there(r) && r->in_flight < opd_pace_limit(&r->pace);
}

/* Whether the rules let replica r have a request now. */
static bool may_have(const opd_replica *r, uint64_t now_ns) {
    bool trial = r->state == OPD_REPLICA_OUT && now_ns >= r->out_until_ns;
    return has_room(r) && (r->state == OPD_REPLICA_IN || trial) && now_ns >= r->not_before_ns;
}

static bool may_help(const opd_replica *r, uint64_t now_ns) {
    return may_have(r, now_ns) && r->state == OPD_REPLICA_IN;
}

/* A replica whose trial is due comes first: else an idle fleet would never learn that it is well. */
static bool lighter(const opd_replica *a, const opd_replica *b) {
    bool a_out = a->state == OPD_REPLICA_OUT, b_out = b->state == OPD_REPLICA_OUT;
    if (a_out != b_out) return a_out;
    if (a->tokens != b->tokens) return a->tokens < b->tokens;
    return a->latency_ms < b->latency_ms;
}

typedef bool (*eligible_fn)(const opd_replica *, uint64_t);

static bool has_room_now(const opd_replica *r, uint64_t now_ns) {
    (void)now_ns;
    return has_room(r);
}

/* The n-th eligible one but `avoid`; n past the last: NONE. */
static int nth(const opd_fleet *fleet, eligible_fn eligible, int avoid, uint64_t now_ns, uint64_t n) {
    for (size_t i = 0; i < fleet->count; i++)
        if ((int)i != avoid && eligible(&fleet->replicas[i], now_ns) && n-- == 0) return (int)i;
    return OPD_REPLICA_NONE;
}

/* The lighter of two different ones at random. */
static int of_two(const opd_fleet *fleet, eligible_fn eligible, int avoid, uint64_t now_ns,
                  uint64_t bits) {
    uint64_t count = 0;
    while (nth(fleet, eligible, avoid, now_ns, count) != OPD_REPLICA_NONE) count++;
    if (count == 0) return OPD_REPLICA_NONE;
    uint64_t first = (bits >> 32) % count;
    int one = nth(fleet, eligible, avoid, now_ns, first);
    if (count == 1) return one;
    uint64_t second = (first + 1 + (bits & 0xffffffff) % (count - 1)) % count;
    int other = nth(fleet, eligible, avoid, now_ns, second);
    return lighter(&fleet->replicas[other], &fleet->replicas[one]) ? other : one;
}

/* Whether the rules leave anyone: a replica that is in use and has not asked for time. */
static bool rules_hold(const opd_fleet *fleet, uint64_t now_ns) {
    for (size_t i = 0; i < fleet->count; i++)
        if (in_use(&fleet->replicas[i]) && now_ns >= fleet->replicas[i].not_before_ns) return true;
    return false;
}

int opd_fleet_choose(const opd_fleet *fleet, int avoid, bool other_only, uint64_t now_ns,
                     uint64_t bits) {
    eligible_fn eligible = !rules_hold(fleet, now_ns) ? has_room_now
                           : other_only               ? may_help
                                                      : may_have;
    int chosen = of_two(fleet, eligible, avoid, now_ns, bits);
    if (chosen != OPD_REPLICA_NONE || other_only || avoid == OPD_REPLICA_NONE) return chosen;
    return eligible(&fleet->replicas[avoid], now_ns) ? avoid : OPD_REPLICA_NONE;
}

int opd_fleet_home(const opd_fleet *fleet, uint64_t affinity) {
    int home = OPD_REPLICA_NONE;
    uint64_t best = 0;
    for (size_t i = 0; affinity != 0 && i < fleet->count; i++) {
        uint64_t mark = opd_rng_at(affinity, i, 0, 0);
        if (!in_use(&fleet->replicas[i]) || (home != OPD_REPLICA_NONE && mark <= best)) continue;
        home = (int)i;
        best = mark;
    }
    return home;
}

int opd_fleet_prefer(const opd_fleet *fleet, int chosen, uint64_t affinity, uint64_t saved_tokens,
                     uint64_t now_ns) {
    int home = opd_fleet_home(fleet, affinity);
    if (chosen == OPD_REPLICA_NONE || home == OPD_REPLICA_NONE || home == chosen) return chosen;
    const opd_replica *h = &fleet->replicas[home], *other = &fleet->replicas[chosen];
    if (other->state == OPD_REPLICA_OUT || !may_have(h, now_ns)) return chosen;
    return h->tokens > other->tokens + saved_tokens ? chosen : home;
}

/* ---- breakers ---- */

bool opd_fleet_begin(opd_fleet *fleet, int i, uint64_t tokens) {
    opd_replica *r = &fleet->replicas[i];
    bool trial = r->state == OPD_REPLICA_OUT;
    r->in_flight++;
    r->tokens += tokens;
    if (trial) r->state = OPD_REPLICA_TRIAL;
    return trial;
}

static void end(opd_replica *r, uint64_t tokens) {
    r->in_flight--;
    r->tokens -= tokens;
}

static bool another_in(const opd_fleet *fleet, int i) {
    for (size_t j = 0; j < fleet->count; j++)
        if ((int)j != i && in_use(&fleet->replicas[j])) return true;
    return false;
}

static void put_out(opd_fleet *fleet, int i, uint64_t now_ns) {
    opd_replica *r = &fleet->replicas[i];
    if (r->ejections < OPD_REPLICA_GROWTH) r->ejections++;
    r->state = OPD_REPLICA_OUT;
    r->out_until_ns = now_ns + fleet->rules.eject_ns * r->ejections;
    r->failures = r->overtaken = r->answers = 0;
}

static void let_in(opd_replica *r, uint64_t now_ns) {
    r->state = OPD_REPLICA_IN;
    r->slow = false;
    r->in_since_ns = now_ns;
    r->failures = r->overtaken = r->answers = 0;
}

/* The median latency of the replicas in use but i; 0: not known. */
static double median_of_others(const opd_fleet *fleet, int i) {
    double sorted[FLEET_SORTED_MAX];
    size_t count = 0;
    for (size_t j = 0; j < fleet->count && count < FLEET_SORTED_MAX; j++) {
        const opd_replica *r = &fleet->replicas[j];
        if ((int)j == i || !in_use(r) || r->answers < OPD_REPLICA_OUTLIER_LEAST) continue;
        size_t at = count++;
        for (; at > 0 && sorted[at - 1] > r->latency_ms; at--) sorted[at] = sorted[at - 1];
        sorted[at] = r->latency_ms;
    }
    return count == 0 ? 0 : sorted[count / 2];
}

/* What was put out for being slow must be clearly better to come back: of answers that scatter, one
 * in some will always pass for normal. */
static bool is_slow(const opd_fleet *fleet, int i, double latency_ms) {
    double median_ms = median_of_others(fleet, i), factor = fleet->rules.slow_factor;
    if (fleet->replicas[i].slow) factor /= 2;
    return factor > 0 && median_ms > 0 && latency_ms > factor * median_ms;
}

static void note_latency(opd_replica *r, double latency_ms) {
    double weight = 1.0 / (double)(r->answers + 1);
    if (weight < LATENCY_WEIGHT) weight = LATENCY_WEIGHT;
    r->latency_ms += weight * (latency_ms - r->latency_ms);
    r->answers++;
}

bool opd_fleet_good(opd_fleet *fleet, int i, uint64_t tokens, bool trial, double latency_ms,
                    uint64_t now_ns) {
    opd_replica *r = &fleet->replicas[i];
    opd_pace_answer(&r->pace, latency_ms, r->in_flight);
    end(r, tokens);
    if (trial && r->state == OPD_REPLICA_TRIAL) {
        if (is_slow(fleet, i, latency_ms)) {
            put_out(fleet, i, now_ns);
            return false; /* it was out before */
        }
        let_in(r, now_ns);
    }
    r->failures = r->overtaken = 0;
    note_latency(r, latency_ms);
    uint64_t was_out_ns = fleet->rules.eject_ns * r->ejections;
    if (r->state == OPD_REPLICA_IN && now_ns - r->in_since_ns > was_out_ns) r->ejections = 0;
    return trial;
}

bool opd_fleet_bad(opd_fleet *fleet, int i, uint64_t tokens, bool trial, bool overload,
                   uint64_t now_ns) {
    opd_replica *r = &fleet->replicas[i];
    end(r, tokens);
    if (overload) opd_pace_overload(&r->pace, now_ns);
    if (trial && r->state == OPD_REPLICA_TRIAL) {
        put_out(fleet, i, now_ns);
        return false;
    }
    if (r->state != OPD_REPLICA_IN) return false; /* sent before it went out */
    r->failures++;
    if (fleet->rules.failures_max == 0 || r->failures < fleet->rules.failures_max ||
        !another_in(fleet, i))
        return false;
    put_out(fleet, i, now_ns);
    return true;
}

void opd_fleet_overtaken(opd_fleet *fleet, int i, uint64_t tokens, bool trial, double after_ms,
                         uint64_t now_ns) {
    opd_replica *r = &fleet->replicas[i];
    end(r, tokens);
    if (r->state != OPD_REPLICA_IN) {
        if (trial && r->state == OPD_REPLICA_TRIAL) put_out(fleet, i, now_ns);
        return;
    }
    if (after_ms > r->latency_ms) note_latency(r, after_ms);
    r->overtaken++;
}

void opd_fleet_neither(opd_fleet *fleet, int i, uint64_t tokens, bool trial, uint64_t now_ns) {
    opd_replica *r = &fleet->replicas[i];
    end(r, tokens);
    if (!trial || r->state != OPD_REPLICA_TRIAL) return;
    r->state = OPD_REPLICA_OUT; /* nothing was learnt: another trial, now */
    r->out_until_ns = now_ns;
}

bool opd_fleet_outlier(opd_fleet *fleet, int i, uint64_t now_ns) {
    opd_replica *r = &fleet->replicas[i];
    bool beaten = r->overtaken >= OPD_REPLICA_OUTLIER_LEAST && fleet->rules.slow_factor > 0 &&
                  another_in(fleet, i);
    bool slow = r->answers >= OPD_REPLICA_OUTLIER_LEAST && is_slow(fleet, i, r->latency_ms);
    if (!in_use(r) || (!beaten && !slow)) return false;
    put_out(fleet, i, now_ns);
    r->slow = true;
    return true;
}
