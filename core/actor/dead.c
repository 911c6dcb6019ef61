/* dead.c - dead letters: counted by (reason, kind, target), the last headers kept (opd/dead.h).
 *
 * Invariants: the sum of the rows' counts is stats.dead_letters; the last row takes what finds
 * no row of its own; `written` counts all letters, ring[written % KEPT] is the next place.
 * Thread: the loop's. Nothing is allocated: the tables are part of the system.
 */
#include <string.h>

#include "core/actor/internal.h"
#include "opd/log.h"

const char *opd_dead_reason_name(opd_dead_reason reason) {
    static const char *const names[OPD_DEAD_REASONS] = {"unread", "expired", "dropped",
                                                        "replaced", "late"};
    return (unsigned)reason < OPD_DEAD_REASONS ? names[reason] : "?";
}

static opd_dead_count *row_of(opd__dead *dead, opd_dead_reason reason, uint16_t kind,
                              const char *target) {
    for (uint32_t i = 0; i < dead->row_count; i++) {
        opd_dead_count *row = &dead->rows[i];
        if (row->reason == reason && row->kind == kind && strcmp(row->target, target) == 0)
            return row;
    }
    if (dead->row_count == OPD_DEAD_ROWS) return &dead->rows[OPD_DEAD_ROWS - 1];
    opd_dead_count *row = &dead->rows[dead->row_count++];
    bool others = dead->row_count == OPD_DEAD_ROWS;
    row->reason = reason;
    row->kind = others ? 0 : kind;
    opd__text_copy(row->target, sizeof row->target, others ? "(others)" : target);
    return row;
}

/* A plain message that nobody read is a warning: its sender believes it arrived. The others
 * were answered, or are lost by declaration. */
static opd_log_level level_of(opd_dead_reason reason, const opd_msg *msg) {
    if (msg->flags & (OPD__MSG_REQUEST | OPD__MSG_REPLY)) return OPD_LOG_LEVEL_DEBUG;
    return reason == OPD_DEAD_UNREAD ? OPD_LOG_LEVEL_WARN : OPD_LOG_LEVEL_INFO;
}

/* The tap's word for it; an expired one is told by its HANDLED and its REPLIED. */
static void tell(opd_dead_reason reason, const opd_msg *msg, opd_pid target) {
    if (reason == OPD_DEAD_EXPIRED) return;
    opd_err err = reason == OPD_DEAD_UNREAD ? OPD_ERR_CLOSED
                  : reason == OPD_DEAD_LATE ? OPD_ERR_TIMEOUT
                                            : OPD_ERR_AGAIN;
    OPD__TAP_MSG(msg, OPD_TAP_DEAD, msg->from, target, err);
}

void opd__dead_letter(opd_dead_reason reason, const opd_msg *msg, const opd_ctx *target) {
    opd_system *system = msg->system;
    opd__dead *dead = &system->dead;
    const char *name = target == NULL ? "(nobody)" : target->name;
    opd_dead_count *row = row_of(dead, reason, msg->kind, name);
    opd_pid pid = target == NULL ? OPD_PID_NOBODY : target->pid;
    tell(reason, msg, pid);
    system->stats.dead_letters++;
    row->count++;
    dead->ring[dead->written++ % OPD_DEAD_LETTERS_KEPT] = (opd_dead_letter){
        .time_ns = opd__clock_ns(system), .reason = reason, .kind = msg->kind, .from = msg->from,
        .to = pid, .correlation = msg->correlation,
        .bytes = msg->payload_bytes};
    if ((row->count & (row->count - 1)) != 0) return;
    char room[8];
    opd_log_write(level_of(reason, msg), "dead letter of kind %s to %s: %s (%llu so far)",
                  opd_kind_name(system, msg->kind, room, sizeof room), name,
                  opd_dead_reason_name(reason), (unsigned long long)row->count);
}

size_t opd_dead_counts(const opd_system *system, opd_dead_count *out, size_t rows_max) {
    size_t count = system->dead.row_count < rows_max ? system->dead.row_count : rows_max;
    if (count > 0) memcpy(out, system->dead.rows, count * sizeof *out);
    return system->dead.row_count;
}

size_t opd_dead_letters(const opd_system *system, opd_dead_letter *out, size_t letters_max) {
    const opd__dead *dead = &system->dead;
    size_t count = dead->written < OPD_DEAD_LETTERS_KEPT ? (size_t)dead->written
                                                         : OPD_DEAD_LETTERS_KEPT;
    if (count > letters_max) count = letters_max;
    for (size_t i = 0; i < count; i++)
        out[i] = dead->ring[(dead->written - 1 - i) % OPD_DEAD_LETTERS_KEPT];
    return count;
}
