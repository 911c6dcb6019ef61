/* test_url.c - endpoints are read exactly, or refused with a reason. */
#include "tests/support/test.h"
#include "transports/url.h"

static void check_url(const char *text, const char *host, int port, const char *path,
                      const char *authority) {
    opd_url url;
    CHECK_OK(opd_url_parse(text, &url));
    CHECK_STR(url.host, host);
    CHECK_INT(url.port, port);
    CHECK_STR(url.path, path);
    CHECK_STR(url.authority, authority);
}

TEST(secure) {
    opd_url url;
    check_url("https://localhost", "localhost", 443, "", "localhost:443");
    check_url("HTTPS://[::1]:8443/a", "::1", 8443, "/a", "[::1]:8443");
    CHECK_OK(opd_url_parse("https://h", &url));
    CHECK(url.secure);
    CHECK_STR(opd_url_scheme(&url), "https");
    CHECK_OK(opd_url_parse("http://h", &url));
    CHECK(!url.secure);
    CHECK_STR(opd_url_scheme(&url), "http");
}

TEST(valid) {
    check_url("http://127.0.0.1:30000", "127.0.0.1", 30000, "", "127.0.0.1:30000");
    check_url("http://node-7.cluster_a:1/v1/x/", "node-7.cluster_a", 1, "/v1/x",
              "node-7.cluster_a:1");
    check_url("HTTP://localhost", "localhost", 80, "", "localhost:80");
    check_url("http://localhost/", "localhost", 80, "", "localhost:80");
    check_url("http://[::1]:8080/a", "::1", 8080, "/a", "[::1]:8080");
    check_url("http://[fe80::1.2.3.4]", "fe80::1.2.3.4", 80, "", "[fe80::1.2.3.4]:80");
}

static void check_refused(const char *text, opd_err err, const char *part) {
    opd_url url;
    CHECK_ERR(opd_url_parse(text, &url), err);
    CHECK_CONTAINS(opd_err_context(), part);
}

TEST(refused) {
    check_refused("host:30000", OPD_ERR_INVALID, "must start with http:// or https://");
    check_refused("", OPD_ERR_INVALID, "must start with http:// or https://");
    check_refused("http://", OPD_ERR_INVALID, "no valid host");
    check_refused("http://:80", OPD_ERR_INVALID, "no valid host");
    check_refused("http://user@host", OPD_ERR_INVALID, "name or password");
    check_refused("http://user:secret@host:80/x", OPD_ERR_INVALID, "name or password");
    CHECK(strstr(opd_err_context(), "secret") == NULL);
    check_refused("http://host:", OPD_ERR_INVALID, "port");
    check_refused("http://host:0", OPD_ERR_INVALID, "port");
    check_refused("http://host:65536", OPD_ERR_INVALID, "port");
    check_refused("http://host:99999999999999999999", OPD_ERR_INVALID, "port");
    check_refused("http://host:80x", OPD_ERR_INVALID, "unexpected");
    check_refused("http://[::1:80", OPD_ERR_INVALID, "not closed");
    check_refused("http://host/a?b=c", OPD_ERR_INVALID, "character");
    check_refused("http://host/a b", OPD_ERR_INVALID, "character");
}

TEST(long_host) {
    char text[700] = "http://";
    memset(text + 7, 'a', 600);
    check_refused(text, OPD_ERR_INVALID, "no valid host");
}
