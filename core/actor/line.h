/* line.h - one line of a report, built in place without memory, and the words of reports.
 * Thread: any. */
#ifndef OPD_CORE_ACTOR_LINE_H
#define OPD_CORE_ACTOR_LINE_H

#include "core/actor/internal.h"

enum { OPD__LINE_SIZE = 768 };

/* What does not fit is cut. Zeroed: the empty line. */
typedef struct opd__line {
    char text[OPD__LINE_SIZE];
    size_t used;
} opd__line;

void opd__line_add(opd__line *line, const char *fmt, ...) OPD_PRINTF(2, 3);

/* "1.2 s", "34.5 ms", "6.7 us". */
void opd__line_time(opd__line *line, uint64_t ns);

/* "trainer<3.1>" while it lives, "<3.1>" after that (slot and generation), "nobody". */
void opd__line_pid(opd__line *line, const opd_system *system, opd_pid pid);

/* Name of a message kind. */
void opd__line_kind(opd__line *line, const opd_system *system, uint16_t kind);

/* Messages of which `match` says yes, as "3 sample, 1 note, the oldest for 1.2 s"; returns how
 * many. Counts at most 8 kinds one by one. */
uint32_t opd__line_messages(opd__line *line, const opd_system *system,
                            bool (*match)(const opd_msg *msg, const void *arg), const void *arg);

/* What was sent on a link and not let go: "2 data, the oldest for 1.2 s (1 unread, 1 in hand)",
 * and how many attachments of it are referenced. Empty where nothing is. */
void opd__line_link(opd__line *line, const opd_link *link);

/* Gives the line away and empties it. */
void opd__line_end(opd__line *line, opd_line_fn out, void *arg);

#endif
