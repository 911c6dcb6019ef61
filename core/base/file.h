/* file.h - whole files, atomically written, and paths.
 *
 * Blocking calls: for start-up, checkpoints and compute threads, not for actor handlers.
 * Thread: any.
 */
#ifndef OPD_CORE_BASE_FILE_H
#define OPD_CORE_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "opd/alloc.h"
#include "opd/err.h"

enum { OPD_PATH_SIZE = 4096 }; /* longest path we build, with its NUL */

/* Reads the whole regular file of at most max_bytes; *out_data has a NUL after its *out_size
 * bytes and is freed by the caller with opd_mem_free. Errors: NOT_FOUND, LIMIT, IO, NOMEM. */
opd_err opd_file_read(const opd_alloc *alloc, const char *path, size_t max_bytes,
                      char **out_data, size_t *out_size) OPD_MUST_CHECK;

/* Replaces path by the given bytes so that a crash leaves the old or the new file, never a
 * part: temporary file beside it, fsync, rename. Errors: IO, DISK, NOT_FOUND, LIMIT (path). */
opd_err opd_file_write_atomic(const char *path, const void *data,
                              size_t size_bytes) OPD_MUST_CHECK;

/* Makes the folder and its parents; existing folders are fine. Errors: IO, EXISTS (a file
 * is in the way), LIMIT. */
opd_err opd_dir_make(const char *path) OPD_MUST_CHECK;

/* Whether anything is at path. */
bool opd_file_exists(const char *path);

/* Writes "a/b" (b alone when it is absolute or a is empty) to out. Errors: LIMIT. */
opd_err opd_path_join(char *out, size_t out_size, const char *a, const char *b) OPD_MUST_CHECK;

#endif
