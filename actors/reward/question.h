/* question.h - what a judge outside of opd is asked, and how its answer is read.
 *
 * A question is one JSON object:
 *     {"id": N, "prompt": "...", "response": "...", "label": "...", "source": "..."}
 * and of a judge that sees whole groups "responses": [...] in place of "response". Its answer is a
 * number, or an object with "reward" or "score" (of a group "rewards" or "scores", a list in the
 * order of the responses); an "id", where it is given, must be that of the question. A null is no
 * reward. Other members are ignored.
 *
 * In msgpack both are maps of the same members, with strings as UTF-8, and numbers as floats or integers.
 *
 * Invariant: what is not a finite number never becomes a reward. Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_QUESTION_H
#define OPD_ACTORS_REWARD_QUESTION_H

#include "core/base/list.h"
#include "core/base/str.h"

typedef enum opd_reward_failure {
    OPD_REWARD_JUDGED,  /* there is a reward                                */
    OPD_REWARD_FAILED,  /* the judge died, could not be reached or said no number */
    OPD_REWARD_TIMEOUT  /* it said nothing in time                          */
} opd_reward_failure;

/* One question to one judge; a part of the asker's memory, untouched by it until it is answered. */
typedef struct opd_reward_question {
    uint64_t id;
    opd_str request;  /* the JSON object, without newline, or the msgpack map */
    uint32_t count;   /* rewards wanted: 1, or the members of the group */
    bool group;
    bool msgpack;     /* not JSON */
    double *rewards;  /* [count], the asker's memory; NaN: none */
    opd_reward_failure failure;
    uint32_t entry, part; /* whose: the reward actor's */

    /* the judge's */
    opd_list node;
} opd_reward_question;

/* Writes the request of a question whose id, count, group and msgpack are set. The texts are JSON strings
 * already; responses: count of them. Errors stick to question->request. */
void opd_reward_question_write(opd_reward_question *question, const opd_str *prompt,
                               const opd_str *const *responses, const opd_str *label,
                               const char *source);

/* Reads an answer, all of size_bytes, into question->rewards. Errors: PARSE and LIMIT (of msgpack), MISMATCH (the id of another question, then nothing
 * is written), INVALID (no number, too few of them). */
OPD_MUST_CHECK opd_err opd_reward_question_read(opd_reward_question *question, const char *text,
                                                size_t size_bytes);

#endif
