/* url.c - see url.h. */
#include "transports/url.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/base/check.h"

/* Reads the scheme at *at and moves *at behind it. */
static opd_err parse_scheme(const char *text, const char **at, opd_url *url) {
    url->secure = strncasecmp(text, "https://", 8) == 0;
    if (!url->secure && strncasecmp(text, "http://", 7) != 0)
        return opd_fail(OPD_ERR_INVALID, "URL \"%s\": it must start with http:// or https://, as in "
                        "http://127.0.0.1:30000", text);
    *at = text + (url->secure ? 8 : 7);
    return OPD_OK;
}

static bool host_char_ok(char c, bool bracketed) {
    if (bracketed) return isxdigit((unsigned char)c) || c == ':' || c == '.';
    return isalnum((unsigned char)c) || c == '.' || c == '-' || c == '_';
}

/* Reads host or [host] at *at into url->host and moves *at behind it. */
static opd_err parse_host(const char *text, const char **at, opd_url *url) {
    bool bracketed = **at == '[';
    const char *start = *at + (bracketed ? 1 : 0);
    size_t size = 0;
    while (start[size] != '\0' && host_char_ok(start[size], bracketed)) size++;
    if (size == 0 || size >= OPD_URL_HOST_MAX)
        return opd_fail(OPD_ERR_INVALID, "URL \"%s\": no valid host name or address", text);
    if (bracketed && start[size] != ']')
        return opd_fail(OPD_ERR_INVALID, "URL \"%s\": the IPv6 address is not closed by ]", text);
    memcpy(url->host, start, size);
    url->host[size] = '\0';
    *at = start + size + (bracketed ? 1 : 0);
    snprintf(url->authority, sizeof url->authority, bracketed ? "[%s]" : "%s", url->host);
    return OPD_OK;
}

static opd_err parse_port(const char *text, const char **at, opd_url *url) {
    url->port = url->secure ? 443 : 80;
    if (**at != ':') return OPD_OK;
    unsigned long port = 0;
    const char *digit = *at + 1;
    for (; isdigit((unsigned char)*digit) && port <= 65535; digit++)
        port = port * 10 + (unsigned long)(*digit - '0');
    if (digit == *at + 1 || port < 1 || port > 65535)
        return opd_fail(OPD_ERR_INVALID, "URL \"%s\": the port must be 1 to 65535", text);
    url->port = (uint16_t)port;
    *at = digit;
    return OPD_OK;
}

static opd_err parse_path(const char *text, const char *at, opd_url *url) {
    size_t size = strlen(at);
    if (size > 0 && *at != '/')
        return opd_fail(OPD_ERR_INVALID, "URL \"%s\": unexpected \"%s\" after the host; write "
                        "http://host:port[/path]", text, at);
    for (size_t i = 0; i < size; i++)
        if (at[i] <= ' ' || at[i] >= 127 || at[i] == '?' || at[i] == '#')
            return opd_fail(OPD_ERR_INVALID, "URL \"%s\": the path holds a character that an "
                            "endpoint cannot have (space, ?, # or not ASCII)", text);
    while (size > 0 && at[size - 1] == '/') size--;
    if (size >= OPD_URL_PATH_MAX)
        return opd_fail(OPD_ERR_INVALID, "URL \"%.64s...\": the path is too long", text);
    memcpy(url->path, at, size);
    url->path[size] = '\0';
    return OPD_OK;
}

opd_err opd_url_parse(const char *text, opd_url *out_url) {
    opd_url url = {.port = 0};
    const char *at = text;
    OPD_TRY(parse_scheme(text, &at, &url));
    if (memchr(at, '@', strcspn(at, "/?#")) != NULL)
        return opd_fail(OPD_ERR_INVALID, "a URL with a name or password before its host is not possible");
    OPD_TRY(parse_host(text, &at, &url));
    OPD_TRY(parse_port(text, &at, &url));
    OPD_TRY(parse_path(text, at, &url));
    size_t used = strlen(url.authority);
    snprintf(url.authority + used, sizeof url.authority - used, ":%u", (unsigned)url.port);
    *out_url = url;
    return OPD_OK;
}

const char *opd_url_scheme(const opd_url *url) { return url->secure ? "https" : "http"; }
