/* asgi.c - see asgi.h. */
#include "tests/unit/transports/asgi.h"

#include <ftw.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/str.h"
#include "tests/support/test.h"
#include "tests/unit/transports/peers.h"

enum { STARTS_MAX = 3, CONFIG_MAX = 16 << 10 };

/* ---- what is there ---- */

static void need(const asgi_options *o) {
    char path[96], reason[96];
    (void)snprintf(path, sizeof path, "/usr/lib/python3/dist-packages/%s", o->server);
    if (!installed("python3") || access(path, R_OK) != 0) {
        (void)snprintf(reason, sizeof reason, "python3-%s is not installed", o->server);
        SKIP(reason);
    }
    if (o->proxy == NULL || installed(o->proxy)) return;
    (void)snprintf(reason, sizeof reason, "%s is not installed", o->proxy);
    SKIP(reason);
}

/* ---- the proxy's configuration ---- */

static const char *value_of(const asgi_stack *a, const asgi_options *o, const char *name, size_t size) {
    static char number[16];
#define IS(text) (size == sizeof(text) - 1 && memcmp(name, text, size) == 0)
    if (IS("FOLDER")) return a->folder;
    if (IS("EXTRA")) return o->extra == NULL ? "" : o->extra;
    if (IS("LISTEN")) return o->secure ? "ssl http2" : "http2";
    if (!IS("PORT") && !IS("APP_PORT")) opd_test_fail(__FILE__, __LINE__, "@%.*s@", (int)size, name);
    (void)snprintf(number, sizeof number, "%u", IS("PORT") ? a->port : a->app_port);
#undef IS
    return number;
}

/* tests/peers/NAME with each @WORD@ replaced, as a file of the folder. */
static void configure(const asgi_stack *a, const asgi_options *o, const char *name, char *out, size_t out_size) {
    char path[256], *text;
    size_t size;
    opd_str filled;
    (void)snprintf(path, sizeof path, "%s/tests/peers/%s.in", OPD_SOURCE_DIR, name);
    CHECK_OK(opd_file_read(NULL, path, CONFIG_MAX, &text, &size));
    opd_str_init(&filled, NULL, 2 * CONFIG_MAX);
    const char *at = text;
    for (const char *word; (word = strchr(at, '@')) != NULL;) {
        const char *end = strchr(word + 1, '@');
        CHECK(end != NULL);
        opd_str_append(&filled, at, (size_t)(word - at));
        opd_str_text(&filled, value_of(a, o, word + 1, (size_t)(end - word - 1)));
        at = end + 1;
    }
    opd_str_text(&filled, at);
    CHECK_OK(opd_str_status(&filled));
    (void)snprintf(out, out_size, "%s/%s", a->folder, name);
    CHECK_OK(opd_file_write_atomic(out, filled.data, filled.size));
    opd_str_fini(&filled);
    free(text);
}

/* ---- programs ---- */

void asgi_app_start(asgi_stack *a, const asgi_options *o) {
    char command[800], out[64], where[64];
    bool uvicorn = strcmp(o->server, "uvicorn") == 0;
    (void)snprintf(where, sizeof where, uvicorn ? "--port %u --log-level error" : "--bind 127.0.0.1:%u",
                   a->app_port);
    (void)snprintf(command, sizeof command,
                   "env -C %s/tests/peers PYTHONDONTWRITEBYTECODE=1 %s /usr/bin/python3 -m %s scoring_app:app %s %s",
                   OPD_SOURCE_DIR, o->knobs == NULL ? "" : o->knobs, o->server, where,
                   o->args == NULL ? "" : o->args);
    (void)snprintf(out, sizeof out, "%s/app.out", a->folder);
    a->app = start(command, out);
}

static pid_t proxy_start(const asgi_stack *a, const asgi_options *o) {
    static const struct {
        const char *name, *file, *words;
    } PROXIES[] = {{"nginx", "nginx.conf", "nginx -c"},
                   {"haproxy", "haproxy.cfg", "haproxy -db -f"},
                   {"nghttpx", "nghttpx.conf", "nghttpx --conf"}};
    char command[256], path[96], out[64];
    size_t i = 0;
    while (strcmp(PROXIES[i].name, o->proxy) != 0) i++;
    configure(a, o, PROXIES[i].file, path, sizeof path);
    (void)snprintf(command, sizeof command, "%s %s", PROXIES[i].words, path);
    (void)snprintf(out, sizeof out, "%s/proxy.out", a->folder);
    return start(command, out);
}

static void end(pid_t *pid) {
    if (*pid == 0) return;
    (void)kill(*pid, SIGKILL);
    (void)waitpid(*pid, NULL, 0);
    *pid = 0;
}

void asgi_app_kill(asgi_stack *a) { end(&a->app); }

/* Whether it takes connections; false: it ended, as another program took its port. */
static bool is_up(pid_t *pid, unsigned port) {
    for (int i = 0; i < 6000; i++) {
        if (connects(port)) return true;
        if (waitpid(*pid, NULL, WNOHANG) == *pid) {
            *pid = 0;
            return false;
        }
        usleep(10000);
    }
    opd_test_fail(__FILE__, __LINE__, "nothing listens on port %u", port);
}

static bool try_start(asgi_stack *a, const asgi_options *o) {
    a->app_port = a->port = free_port();
    asgi_app_start(a, o);
    if (o->proxy != NULL) {
        a->port = free_port();
        a->proxy = proxy_start(a, o);
    }
    if (is_up(&a->app, a->app_port) && (o->proxy == NULL || is_up(&a->proxy, a->port))) return true;
    end(&a->app);
    end(&a->proxy);
    return false;
}

void asgi_up(asgi_stack *a, const asgi_options *o) {
    need(o);
    *a = (asgi_stack){.folder = "/tmp/opd-asgi-XXXXXX"};
    CHECK(mkdtemp(a->folder) != NULL);
    int tries = 1;
    while (!try_start(a, o)) {
        if (++tries <= STARTS_MAX) continue;
        char *app = asgi_file(a, "app.out"), *proxy = o->proxy == NULL ? NULL : asgi_file(a, "proxy.out");
        opd_test_fail(__FILE__, __LINE__, "it does not start: %s%s", app, proxy == NULL ? "" : proxy);
    }
    (void)snprintf(a->url, sizeof a->url, "%s://127.0.0.1:%u", o->secure ? "https" : "http", a->port);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

void asgi_down(asgi_stack *a) {
    end(&a->proxy);
    end(&a->app);
    CHECK_INT(nftw(a->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

char *asgi_file(const asgi_stack *a, const char *name) {
    char path[96], *text;
    size_t size;
    (void)snprintf(path, sizeof path, "%s/%s", a->folder, name);
    CHECK_OK(opd_file_read(NULL, path, 16 << 20, &text, &size));
    return text;
}

/* ---- the scores ---- */

uint32_t asgi_digest(uint32_t before, int32_t token) { return (before ^ (uint32_t)token) * 16777619u; }
float asgi_logp(uint32_t digest) { return (float)(-(double)digest / (1 << 28)); }
int32_t asgi_topk_id(uint32_t digest, int rank) {
    return (int32_t)(((uint64_t)digest + (uint64_t)rank * 7919) % 150000);
}
float asgi_topk_logp(uint32_t digest, int rank) {
    return (float)(-(double)(digest % 65536) / 4096 - (double)rank / 3);
}
