/* policy.c - retries, pauses and the teacher's health (policy.h). Thread: any; allocates
 * nothing. */
#include "actors/teacher/policy.h"

#include <math.h>

opd_teacher_verdict opd_teacher_judge(opd_err err, int status) {
    switch (err) {
    case OPD_OK: break;
    case OPD_ERR_REFUSED:
    case OPD_ERR_RESET:
    case OPD_ERR_CLOSED:
    case OPD_ERR_UNTRUSTED: /* a renewed certificate brings it back */
    case OPD_ERR_NOT_FOUND: return OPD_TEACHER_WAIT;
    case OPD_ERR_LIMIT:
    case OPD_ERR_UNSUPPORTED:
    case OPD_ERR_INVALID: return OPD_TEACHER_GIVE_UP;
    default: return OPD_TEACHER_RETRY; /* TIMEOUT, REMOTE, PROTO, NOMEM, ... */
    }
    if (status == 200) return OPD_TEACHER_READ;
    if (status == 502) return OPD_TEACHER_WAIT; /* a proxy is there, its server is not */
    bool busy = status == 408 || status == 429 || status >= 500;
    return busy ? OPD_TEACHER_RETRY : OPD_TEACHER_GIVE_UP;
}

opd_teacher_verdict opd_teacher_limit(opd_teacher_verdict verdict,
                                      const opd_teacher_history *history, uint32_t retries_max) {
    if (verdict == OPD_TEACHER_RETRY &&
        (history->retries > retries_max || history->invalid >= OPD_TEACHER_INVALID_MAX))
        return OPD_TEACHER_GIVE_UP;
    if (verdict == OPD_TEACHER_WAIT && history->breaks >= OPD_TEACHER_BREAKS_MAX)
        return OPD_TEACHER_GIVE_UP;
    return verdict;
}

uint64_t opd_teacher_backoff_ms(uint32_t retry, uint64_t base_ms, uint64_t max_ms,
                                uint64_t retry_after_ms, uint64_t bits) {
    uint64_t pause_ms = base_ms;
    for (uint32_t i = 1; i < retry && pause_ms < max_ms; i++) pause_ms *= 2;
    if (pause_ms > max_ms) pause_ms = max_ms;
    uint64_t half_ms = pause_ms / 2;
    pause_ms = half_ms + bits % (pause_ms - half_ms + 1);
    return pause_ms > retry_after_ms ? pause_ms : retry_after_ms;
}

uint64_t opd_teacher_retry_after_ms(const char *value) {
    uint64_t seconds = 0;
    if (value == NULL || *value == '\0') return 0;
    for (const char *c = value; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') return 0;
        seconds = seconds * 10 + (uint64_t)(*c - '0');
        if (seconds > 3600) seconds = 3600;
    }
    return seconds * 1000;
}

/* Whether one of k alternatives is likelier than uniform. */
static bool is_peaked(const int32_t *ids, const float *logp, size_t k, float above) {
    for (size_t i = 0; i < k; i++)
        if (ids[i] >= 0 && logp[i] > above) return true;
    return false;
}

size_t opd_teacher_uniform_drop(float *logp, uint8_t *valid, size_t count, const int32_t *topk_ids,
                                const float *topk_logp, size_t k, int32_t vocab_size) {
    size_t dropped = 0;
    if (vocab_size < 2) return 0;
    float uniform = -logf((float)vocab_size), near = -uniform * 4e-7f; /* some float32 steps */
    for (size_t i = 0; i < count; i++) {
        if (!valid[i] || fabsf(logp[i] - uniform) > near) continue;
        if (k > 0 && is_peaked(topk_ids + i * k, topk_logp + i * k, k, uniform + near)) continue;
        valid[i] = 0;
        logp[i] = 0;
        dropped++;
    }
    return dropped;
}

void opd_teacher_health_work(opd_teacher_health *health, bool waiting, uint64_t now_ns) {
    if (waiting && !health->working) health->since_ns = now_ns;
    health->working = waiting;
}

void opd_teacher_health_answer(opd_teacher_health *health, uint64_t now_ns) { health->since_ns = now_ns; }

bool opd_teacher_health_back(opd_teacher_health *health) {
    bool was_down = health->down;
    health->down = false;
    return was_down;
}

bool opd_teacher_health_gone(opd_teacher_health *health) {
    bool was_up = !health->down;
    health->down = true;
    return was_up;
}

bool opd_teacher_health_lost(const opd_teacher_health *health, uint64_t lost_ns, uint64_t now_ns) {
    return health->working && now_ns - health->since_ns >= lost_ns;
}
