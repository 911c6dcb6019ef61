/* core/codec/base64.h - base64 (RFC 4648, section 4): reading from pieces, strict, and writing.
 *
 * Read are canonical texts only: groups of four, padding at the very end, unused bits 0, no white space.
 * Thread: none of its own. Memory: none; the bytes are the caller's.
 */
#ifndef OPD_CORE_CODEC_BASE64_H
#define OPD_CORE_CODEC_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A text under way. Zeroed (after out and room are set) it stands at its beginning. */
typedef struct opd_base64 {
    uint8_t *out;      /* where the next bytes go                  */
    size_t room_bytes; /* how many there may be                    */
    char quad[4];      /* characters of a group that is not whole  */
    uint8_t have;      /* how many                                 */
    bool ended;        /* the padding was seen                     */
} opd_base64;

typedef enum opd_base64_status {
    OPD_BASE64_OK,    /* stopped at the end, or before a character of no base64 text */
    OPD_BASE64_WRONG, /* no base64: misplaced padding, bits that must be 0           */
    OPD_BASE64_FULL   /* more bytes than there is room for                           */
} opd_base64_status;

/* Decodes [*at, end) and moves *at behind what was read. */
opd_base64_status opd_base64_feed(opd_base64 *text, const char **at, const char *end);

/* Whether the text may end here, its last group whole. */
bool opd_base64_whole(const opd_base64 *text);

/* How many characters size_bytes become, padding included. */
size_t opd_base64_size(size_t size_bytes);

/* Writes exactly opd_base64_size(size_bytes) characters at `out`; no NUL follows. */
void opd_base64_write(const void *bytes, size_t size_bytes, char *out);

#endif
