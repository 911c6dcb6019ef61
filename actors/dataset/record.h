/* actors/dataset/record.h - from one line of a JSONL file to a row (jsonl.h says what a row is).
 *
 * Thread: the loader's. Memory: texts and segments go to the loader's blocks, which are at least as
 * large as opd__record_needs says; nothing else is kept.
 */
#ifndef OPD_ACTORS_DATASET_RECORD_H
#define OPD_ACTORS_DATASET_RECORD_H

#include "actors/dataset/jsonl.h"

/* What loading carries along. */
typedef struct opd__loader {
    const char *name;      /* of the file, for errors                */
    size_t line;           /* being read, from 1                     */
    char *text;            /* next free byte of the block of texts   */
    opd_segment *segments; /* next free segment                      */
    opd_row *rows;
    size_t count;
} opd__loader;

/* Whether the keys say where the prompt is, and the template is one. Errors: INVALID. */
OPD_MUST_CHECK opd_err opd__record_keys_check(const opd_jsonl_keys *keys);

/* Most bytes of text and most segments that a file of so many bytes and lines can need. */
void opd__record_needs(const opd_jsonl_keys *keys, size_t size_bytes, size_t lines,
                       size_t *out_text_bytes, size_t *out_segments);

/* Reads one line to loader->rows[loader->count++]. Errors: PARSE, INVALID, with file and line. */
OPD_MUST_CHECK opd_err opd__record_read(opd__loader *loader, const char *line, size_t size_bytes,
                                        const opd_jsonl_keys *keys);

#endif
