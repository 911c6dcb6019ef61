/* http_head.h - the headers of one message, flat in an opd_str: "name\0value\0name\0value\0".
 *
 * Messages carry a dozen headers, so a walk is as good as a table and frees in one piece.
 * Thread: one owner.
 */
#ifndef OPD_TRANSPORTS_HTTP_HEAD_H
#define OPD_TRANSPORTS_HTTP_HEAD_H

#include "core/base/str.h"

/* Adds one header; errors stick to the str. */
void opd__http_head_add(opd_str *head, const char *name, const char *value);

/* The value of the first header of that name, or NULL. Legal on a zeroed str. */
const char *opd__http_head_get(const opd_str *head, const char *name);

#endif
