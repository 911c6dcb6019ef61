/* tap.c - the list of taps, and records made of messages (opd/tap.h).
 *
 * Points that can be told are marked by OPD__TAP (internal.h); what costs anything happens here,
 * when there is a tap. Thread: the loop's. Taps are their owners'.
 */
#include <stdio.h>

#include "core/actor/internal.h"

static void sum_kinds(opd_system *system) {
    system->tap_kinds = 0;
    for (const opd_tap *tap = system->taps; tap != NULL; tap = tap->next)
        system->tap_kinds |= tap->kinds == 0 ? UINT32_MAX : tap->kinds;
}

void opd_tap_add(opd_system *system, opd_tap *tap) {
    opd_tap **place = &system->taps;
    while (*place != NULL) place = &(*place)->next;
    tap->next = NULL;
    *place = tap;
    sum_kinds(system);
}

void opd_tap_remove(opd_system *system, opd_tap *tap) {
    for (opd_tap **place = &system->taps; *place != NULL; place = &(*place)->next) {
        if (*place != tap) continue;
        *place = tap->next;
        tap->next = NULL;
        sum_kinds(system);
        return;
    }
}

void opd__tap(opd_system *system, opd_tap_record *record) {
    opd__clock_refresh(system);
    if (record->time_ns == 0) record->time_ns = system->clock_ns;
    for (const opd_tap *tap = system->taps; tap != NULL; tap = tap->next)
        if (tap->kinds == 0 || (tap->kinds & OPD_TAP_BIT(record->kind)) != 0)
            tap->record(tap->arg, record);
}

void opd__tap_msg(const opd_msg *msg, opd_tap_kind kind, opd_pid from, opd_pid to, opd_err err) {
    opd_tap_record record = {.kind = kind, .err = err, .from = from, .to = to,
                             .serial = msg->serial, .correlation = msg->correlation,
                             .trace = msg->trace, .bytes = msg->payload_bytes,
                             .link = msg->link, .body_bytes = msg->body_size,
                             .message_kind = msg->kind};
    opd__tap(msg->system, &record);
}

void opd__send_refused(opd_ctx *from, const opd_msg *msg, opd_pid to, opd_err err) {
    if (from != NULL && err == OPD_ERR_AGAIN) from->stats.sends_refused++;
    OPD__TAP_MSG(msg, OPD_TAP_REFUSED, from == NULL ? OPD_PID_NOBODY : from->pid, to, err);
}

const char *opd_tap_kind_name(opd_tap_kind kind) {
    static const char *const names[OPD_TAP_KIND_COUNT] = {
        [OPD_TAP_SPAWNED] = "spawned",     [OPD_TAP_ENDED] = "ended",
        [OPD_TAP_SENT] = "sent",           [OPD_TAP_REFUSED] = "refused",
        [OPD_TAP_HANDLED] = "handled",     [OPD_TAP_EVENT] = "event",
        [OPD_TAP_RETURNED] = "returned",   [OPD_TAP_RELEASED] = "released",
        [OPD_TAP_DEAD] = "dead",           [OPD_TAP_REQUESTED] = "requested",
        [OPD_TAP_REPLIED] = "replied",     [OPD_TAP_COMPLETED] = "completed",
        [OPD_TAP_CREDIT] = "credit",       [OPD_TAP_DOWN] = "down",
        [OPD_TAP_JOB_BEGIN] = "job begin", [OPD_TAP_JOB_END] = "job end",
        [OPD_TAP_FREED] = "freed",         [OPD_TAP_MONITORED] = "monitored",
        [OPD_TAP_UNMONITORED] = "unmonitored",
    };
    return (unsigned)kind < OPD_TAP_KIND_COUNT ? names[kind] : "unknown";
}

const char *opd_kind_name(const opd_system *system, uint16_t kind, char *room, size_t room_size) {
    if (system->options.kind_name != NULL) return system->options.kind_name(kind);
    (void)snprintf(room, room_size, "%u", kind);
    return room;
}
