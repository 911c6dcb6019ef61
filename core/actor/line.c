/* line.c - the words of reports (line.h). Thread: any; nothing is allocated. */
#include "core/actor/line.h"

#include <stdarg.h>
#include <stdio.h>

void opd__line_add(opd__line *line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int wrote = vsnprintf(line->text + line->used, sizeof line->text - line->used, fmt, args);
    va_end(args);
    if (wrote > 0) line->used += (size_t)wrote;
    if (line->used >= sizeof line->text) line->used = sizeof line->text - 1;
}

void opd__line_time(opd__line *line, uint64_t ns) {
    double value = (double)ns;
    if (ns >= 1000000000)
        opd__line_add(line, "%.1f s", value / 1e9);
    else if (ns >= 1000000)
        opd__line_add(line, "%.1f ms", value / 1e6);
    else
        opd__line_add(line, "%.1f us", value / 1e3);
}

void opd__line_pid(opd__line *line, const opd_system *system, opd_pid pid) {
    if (pid == OPD_PID_NOBODY) {
        opd__line_add(line, "nobody");
        return;
    }
    uint32_t slot = (uint32_t)(pid >> 32) & UINT16_MAX, generation = (uint32_t)pid;
    const opd_ctx *ctx = slot < system->options.actors_max ? system->slots[slot] : NULL;
    const char *name = ctx != NULL && ctx->pid == pid ? ctx->name : "";
    opd__line_add(line, "%s<%u.%u>", name, slot, generation);
}

void opd__line_kind(opd__line *line, const opd_system *system, uint16_t kind) {
    char room[8];
    opd__line_add(line, "%s", opd_kind_name(system, kind, room, sizeof room));
}

uint32_t opd__line_messages(opd__line *line, const opd_system *system,
                            bool (*match)(const opd_msg *msg, const void *arg), const void *arg) {
    enum { KINDS = 8 };
    uint16_t kinds[KINDS];
    uint32_t counts[KINDS], used = 0, all = 0, others = 0;
    uint64_t oldest_ns = UINT64_MAX;
    for (uint32_t i = 0; i < system->pool_fresh; i++) {
        const opd_msg *msg = &system->pool[i];
        if (msg->system == NULL || !match(msg, arg)) continue;
        all++;
        if (msg->since_ns < oldest_ns) oldest_ns = msg->since_ns;
        uint32_t k = 0;
        while (k < used && kinds[k] != msg->kind) k++;
        if (k == KINDS) {
            others++;
            continue;
        }
        if (k == used) {
            kinds[used] = msg->kind;
            counts[used++] = 0;
        }
        counts[k]++;
    }
    for (uint32_t k = 0; k < used; k++) {
        opd__line_add(line, "%s%u ", k == 0 ? "" : ", ", counts[k]);
        opd__line_kind(line, system, kinds[k]);
    }
    if (others > 0) opd__line_add(line, ", %u others", others);
    if (all == 0) return 0;
    opd__line_add(line, ", the oldest for ");
    uint64_t now = opd__clock_ns(system);
    opd__line_time(line, now > oldest_ns ? now - oldest_ns : 0);
    return all;
}

static bool is_on_link(const opd_msg *msg, const void *link) { return msg->link == link; }

void opd__line_link(opd__line *line, const opd_link *link) {
    const opd_system *system = link->system;
    uint32_t unread = 0, all = opd__line_messages(line, system, is_on_link, link);
    for (uint32_t i = 0; i < system->pool_fresh; i++) {
        const opd_msg *msg = &system->pool[i];
        unread += msg->system != NULL && msg->link == link && msg->holder == NULL;
    }
    if (all > 0) opd__line_add(line, " (%u unread, %u in hand)", unread, all - unread);
    if (link->views > 0)
        opd__line_add(line, "%s%u attachments referenced", all > 0 ? ", " : "", link->views);
}

void opd__line_end(opd__line *line, opd_line_fn out, void *arg) {
    out(arg, line->text);
    line->used = 0;
    line->text[0] = '\0';
}
