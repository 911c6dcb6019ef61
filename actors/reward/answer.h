/* answer.h - finding the final answer of a worked solution.
 *
 * The final answer of a text is, in this order of trust: the content of its last balanced
 * \boxed{...}; what follows the last "####" up to the end of the line; what follows the last
 * "answer is", "answer:" or a line's "A:" (any case) up to the end of the line, of which the first
 * formula ($...$, \(...\)) where it begins with one; a formula at the very end; its last number.
 * Only the last OPD_ANSWER_WINDOW_MAX bytes of a text are searched.
 *
 * Invariants: reads only the bytes given, in a fixed number of passes over the window, with memory
 * of fixed size; any bytes at all are legal input. Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_ANSWER_H
#define OPD_ACTORS_REWARD_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes at the end of a text in which its answer is looked for: what bounds the work. */
#define OPD_ANSWER_WINDOW_MAX ((size_t)1 << 20)

/* Longest content of \boxed{} that is found. */
#define OPD_ANSWER_SIZE_MAX 512

/* A piece [data, end) of the caller's bytes. */
typedef struct opd_piece {
    const char *data, *end;
} opd_piece;

static inline size_t opd_piece_size(opd_piece text) { return (size_t)(text.end - text.data); }

/* The end of a text, of at most OPD_ANSWER_WINDOW_MAX bytes. */
opd_piece opd_answer_window(opd_piece text);

/* Without blanks around it. */
opd_piece opd_piece_trim(opd_piece text);

/* The content of the last \boxed{...}. False when there is none. */
bool opd_answer_boxed(opd_piece text, opd_piece *out_answer);

/* What a marker (boxed, ####, answer is) points at; perhaps empty. False when there is no marker. */
bool opd_answer_marked(opd_piece text, opd_piece *out_answer);

/* The final answer, not empty. False when there is none (no marker with content and no digit). */
bool opd_answer_find(opd_piece text, opd_piece *out_answer);

/* The one number of an answer in words ("18 eggs", "x = 5", "3*6 = 18"), after its last "=".
 * None when it says more than one number, or something LaTeX, or a product such as "3x". */
bool opd_answer_only_number(opd_piece answer, opd_piece *out_number);

#endif
