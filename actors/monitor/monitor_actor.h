/* monitor_actor.h - the actor that tells: metrics.jsonl, samples.jsonl, and the screen.
 *
 * In: REPORT, SAMPLE, ACCURACY, NOTE. It formats on the loop and writes on the disk lane, in
 * order, so that a slow disk or a stopped terminal never holds the work up; what waits is
 * bounded, beyond that lines are counted and left out.
 * Thread: the loop.
 */
#ifndef OPD_ACTORS_MONITOR_ACTOR_H
#define OPD_ACTORS_MONITOR_ACTOR_H

#include "actors/evaluator/sets.h"
#include "actors/monitor/screen.h"
#include "models/tokenizer.h"
#include "opd/actor.h"

extern const opd_actor_class opd_monitor_class;

/* Lines that wait, at most: of three outputs a set that fills and one that is written, and one
 * text of a sample. */
enum { OPD_MONITOR_TEXT_MAX = 8 << 20, OPD_MONITOR_MEMORY_MAX = 7 * OPD_MONITOR_TEXT_MAX };

/* Borrowed until the actor has stopped. */
typedef struct opd_monitor_config {
    const char *stage;
    uint64_t first_step, steps;
    uint64_t invalid_tokens;    /* counted before (resume)                  */
    bool policy, teacher;
    const opd_eval_sets *evals; /* ACCURACY names them by place */
    const opd_config_teacher *teachers; /* all that there are, for their names */
    size_t teacher_count;
    uint64_t metrics_interval;  /* steps between lines of metrics.jsonl     */
    int metrics_fd, samples_fd; /* opened for appending; -1: none           */
    int screen_fd;              /* -1: none                                 */
    opd_screen screen;
    const opd_tokenizer *tokenizer;
    opd_lane *disk;
    const opd_alloc *alloc;
} opd_monitor_config;

#endif
