/* actors/dataset/jsonl.h - prompts, labels and responses from a JSON-lines file.
 *
 * A row is one line holding one JSON object; keys are chosen by the caller ("question", or
 * "meta.answer" for a member of a member). A value is a string, or a number, which is kept as
 * it is written ("43.0"), or true/false; only the source may be missing (or null). Blank lines are
 * skipped. Anything else is an error that names file, line and key. The file's name may end in
 * "@[a:b]": only rows a .. b-1 (counted from 0, blank lines not counted; either side may be left
 * out).
 *
 * The prompt is the value of one key; or a template, in which {KEY} stands for the value of a key,
 * {{ and }} for a brace, \n, \t and \\ for a line feed, a tab and a backslash; or a conversation:
 * an array of {"role": ..., "content": ...}, rendered as
 *   ROLE: CONTENT
 * with a line feed between messages and the tokenizer's EOS after what the assistant says. A last
 * message of the assistant is the answer, not part of the prompt.
 *
 * Invariants: rows keep the order of the file; texts are NUL-terminated UTF-8 without NUL inside.
 * Thread: any; an opd_jsonl is read-only after loading.
 * Memory: a block each of texts, segments and rows, freed by opd_jsonl_destroy.
 */
#ifndef OPD_ACTORS_DATASET_JSONL_H
#define OPD_ACTORS_DATASET_JSONL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opd/alloc.h"
#include "opd/err.h"

/* Longest source, without its NUL: it travels in messages. */
enum { OPD_JSONL_SOURCE_MAX = 191 };

/* Largest file that is loaded. */
#define OPD_JSONL_SIZE_MAX ((size_t)4 << 30)

/* Of prompt, template and messages exactly one is given; of their privileged counterparts at most one. */
typedef struct opd_jsonl_keys {
    const char *prompt;
    const char *label;    /* NULL = rows have no label                        */
    const char *response; /* NULL = rows have no response (needed for SFT)    */
    const char *source;   /* NULL = rows are not told apart by where they are from */
    const char *template_text;
    const char *messages;
    const char *roles;    /* with messages: whose contents SFT learns, a list as of
                             opd_config_word_at; NULL = none                  */
    const char *privileged, *privileged_template, *privileged_messages; /* where a second prompt is, which
                             a teacher sees in place of the student's         */
} opd_jsonl_keys;

/* A piece of a conversation as the model reads it. */
typedef struct opd_segment {
    const char *text;
    bool learn; /* SFT learns to write it                         */
    bool ends;  /* EOS follows, learnt if the text is             */
} opd_segment;

typedef struct opd_row {
    const char *prompt;   /* of a conversation: the contents of its prompt, a line each */
    const char *label;    /* NULL when no label key was given    */
    const char *response; /* NULL when no response key was given */
    const char *source;   /* "" when no source key was given, or the row has none */
    size_t line;          /* in the file, from 1                 */
    const opd_segment *segments; /* of a conversation, else NULL: the first prompt_segments are  */
    uint32_t segment_count, prompt_segments; /* the prompt, with the opening of the answer       */
    const char *privileged; /* the second prompt, as prompt; NULL when no key was given for it   */
    const opd_segment *privileged_segments; /* of a conversation, else NULL: all are the prompt  */
    uint32_t privileged_segment_count;
} opd_row;

typedef struct opd_jsonl {
    size_t count;
    const opd_row *rows;
    const char *path; /* without the slice */
    size_t memory_bytes; /* at most, the file while it is read included */
    /* private */
    const opd_alloc *alloc;
    opd_row *rows_block;
    char *text_block;
    opd_segment *segments_block;
    char *path_block;
} opd_jsonl;

/* Loads a file. OPD_ERR_NOT_FOUND, OPD_ERR_PARSE (a broken line, a slice that is none),
 * OPD_ERR_INVALID (missing key, value of another kind, empty prompt, long source, nothing to learn in a
 * conversation, a template that is none, no row at all),
 * OPD_ERR_LIMIT, OPD_ERR_IO, OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_jsonl_load(const opd_alloc *alloc, const char *path,
                                      const opd_jsonl_keys *keys, opd_jsonl **out_jsonl);

/* The same from memory; `name` stands for the path in errors. No slice. */
OPD_MUST_CHECK opd_err opd_jsonl_parse(const opd_alloc *alloc, const char *name, const char *data,
                                       size_t size_bytes, const opd_jsonl_keys *keys,
                                       opd_jsonl **out_jsonl);

/* Frees all. NULL is legal. */
void opd_jsonl_destroy(opd_jsonl *jsonl);

/* Checks that no prompt of `b` is a prompt of `a`. OPD_ERR_MISMATCH names both places of the
 * first offender in the order of b; OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_jsonl_check_disjoint(const opd_alloc *alloc, const opd_jsonl *a,
                                                const opd_jsonl *b);

/* Checks that no prompt stands twice. OPD_ERR_MISMATCH names both lines; OPD_ERR_NOMEM. */
OPD_MUST_CHECK opd_err opd_jsonl_check_distinct(const opd_alloc *alloc, const opd_jsonl *a);

#endif
