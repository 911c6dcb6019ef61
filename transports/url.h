/* url.h - the http and https URLs opd talks to, and the check that a bind address is what it says.
 *
 * Grammar: "http://" or "https://", host [":" port] [path]; host is a name, an IPv4 address or an IPv6
 * address in brackets. No user information, query or fragment: an endpoint is a place.
 * Thread: any. A parsed URL is a plain value; nothing to free.
 */
#ifndef OPD_TRANSPORTS_URL_H
#define OPD_TRANSPORTS_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "opd/err.h"

enum { OPD_URL_HOST_MAX = 256, OPD_URL_PATH_MAX = 1024, OPD_URL_AUTHORITY_MAX = 272 };

typedef struct opd_url {
    char host[OPD_URL_HOST_MAX];           /* without brackets */
    uint16_t port;                         /* 80, or 443 for https, when the text names none */
    bool secure;                           /* https */
    char path[OPD_URL_PATH_MAX];           /* "" or "/..." without trailing slash */
    char authority[OPD_URL_AUTHORITY_MAX]; /* "host:port", IPv6 in brackets: as sent and shown */
} opd_url;

/* Parses text. Errors: INVALID (what is wrong, with the text). */
opd_err opd_url_parse(const char *text, opd_url *out_url) OPD_MUST_CHECK;

/* "http" or "https". */
const char *opd_url_scheme(const opd_url *url);

#endif
