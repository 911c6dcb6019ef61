/* test_teacher_peers.c - the real teacher against servers that nobody here wrote: uvicorn and hypercorn,
 * also behind nginx, haproxy and nghttpx (asgi.h). Every token of thousands of samples is checked against
 * its hash. What is not installed is a counted skip. No real SGLang or vLLM is run: the app has
 * SGLang's shapes only.
 */
#include "actors/teacher/teacher_http.h"
#include "tests/support/certs.h"
#include "tests/unit/actors/teacher_rig.h"
#include "tests/unit/transports/asgi.h"

enum { PROMPT = 10, RESPONSE = 40, MANY = 3000 };

/* uvicorn behind a proxy; it keeps idle connections for as long as the proxy does, as it should. */
#define BEHIND(name) ((asgi_options){.server = "uvicorn", .args = "--timeout-keep-alive 60", .proxy = (name)})

static asgi_stack stack;
static rig r;
static opd_config_teacher teacher;
static opd_teacher_http_config config;

/* `count` samples and a patient teacher of what `options` start. */
static void up(int count, const asgi_options *options) {
    asgi_up(&stack, options);
    rig_up(&r, count, PROMPT, RESPONSE, ASGI_VOCAB);
    teacher = (opd_config_teacher){
        .name = "tutor", .url = stack.url, .path = "", .urls = "", .timeout_s = 60, .deadline_s = 100,
        .connect_timeout_s = 30, .max_inflight = 200, .retries = 3, .backoff_ms = 10, .backoff_max_ms = 50,
        .start_timeout_s = 60, .retry_budget = 0.2, .retry_min_per_s = 10, .adapt_inflight = true,
        .verify = true, .ca_file = "", .cert_file = "", .key_file = ""};
    config = (opd_teacher_http_config){
        .roles = &r.roles, .env = r.t.env, .alloc = &r.t.memory.alloc, .teacher = &teacher,
        .teacher_lost_s = 90, .temperature = 1, .vocab_size = ASGI_VOCAB, .bos_id = -1, .eos_id = -1,
        .tokenizer_hash = ""};
}

static void run(void) {
    rig_teacher(&r, &config);
    rig_feed(&r);
    CHECK_OK(rig_run(&r));
    CHECK_INT(r.got, r.count);
}

static void down(void) {
    rig_down(&r);
    asgi_down(&stack);
}

static void check_token(const rig_sample *s, uint32_t t, uint32_t digest) {
    CHECK_INT(s->valid[t], 1);
    CHECK(s->logp[t] == asgi_logp(digest));
    for (uint32_t rank = 0; rank < config.top_k; rank++)
        CHECK_INT(s->topk[t * config.top_k + rank], asgi_topk_id(digest, (int)rank));
}

/* Every token of every sample; how many requests that took beyond the first of each. */
static uint32_t check_scored(void) {
    uint32_t again = 0;
    for (int g = 0; g < r.count; g++) {
        const rig_sample *s = &r.scores[g];
        uint32_t digest = ASGI_START;
        CHECK_STR(s->reason, "");
        CHECK_INT(s->times, 1);
        CHECK(s->scored);
        for (uint32_t i = 0; i < PROMPT + RESPONSE; i++) {
            digest = asgi_digest(digest, rig_token(&r, g, i));
            if (i >= PROMPT) check_token(s, i - PROMPT, digest);
        }
        again += s->attempts - 1;
    }
    CHECK_INT(r.holds, r.releases);
    return again;
}

/* All is scored at the first attempt, and nothing was ever held against the server. */
static void all_scored(int count, const asgi_options *options) {
    up(count, options);
    run();
    CHECK_INT(check_scored(), 0);
    CHECK_INT(r.holds, 0);
    down();
}

/* ---- thousands ---- */

TEST(uvicorn) { all_scored(MANY, &(asgi_options){.server = "uvicorn"}); }
TEST(hypercorn) { all_scored(2000, &(asgi_options){.server = "hypercorn"}); }
TEST(haproxy) { all_scored(MANY, &BEHIND("haproxy")); }
TEST(nghttpx) { all_scored(MANY, &BEHIND("nghttpx")); }

/* It ends each connection after 1000 requests (GOAWAY): nobody notices. */
TEST(nginx) { all_scored(MANY, &BEHIND("nginx")); }

TEST(nginx_over_tls) {
    char extra[256];
    certs c;
    certs_init(&c);
    (void)snprintf(extra, sizeof extra, "ssl_certificate %s; ssl_certificate_key %s;",
                   certs_path(&c, "server.pem"), certs_path(&c, "server.key"));
    up(1500, &(asgi_options){.server = "uvicorn", .proxy = "nginx", .extra = extra, .secure = true});
    teacher.ca_file = certs_path(&c, "ca.pem");
    run();
    CHECK_INT(check_scored(), 0);
    down();
    certs_fini(&c);
}

/* ---- the alternatives, as a stranger writes them ---- */

static void with_alternatives(const char *knobs) {
    up(500, &(asgi_options){.server = "uvicorn", .proxy = "nginx", .knobs = knobs});
    config.top_k = RIG_TOPK_MAX;
    run();
    CHECK_INT(check_scored(), 0);
    down();
}

TEST(alternatives_nested) { with_alternatives("SCORING_FORM=nested"); }
TEST(alternatives_flat) { with_alternatives("SCORING_FORM=flat"); }
TEST(alternatives_base64) { with_alternatives("SCORING_FORM=b64"); }

/* ---- a proxy that does not wait as long as a score takes ---- */

/* The first 30 scorings take 2 s, the proxy waits 0.3 s: 504 in the middle of the request, which is tried
 * again as the budget allows. */
static void slower_than(const char *proxy, const char *extra) {
    up(120, &(asgi_options){.server = "uvicorn", .knobs = "SCORING_SLOW='30 2'", .proxy = proxy, .extra = extra});
    teacher.retries = 20;
    run();
    CHECK(check_scored() >= 30);
    CHECK_INT(r.holds, 0); /* the server is not gone */
    down();
}

TEST(nginx_does_not_wait) { slower_than("nginx", "proxy_read_timeout 300ms;"); }
TEST(haproxy_does_not_wait) { slower_than("haproxy", "timeout server 300ms"); }
TEST(nghttpx_does_not_wait) { slower_than("nghttpx", "backend-read-timeout=300ms"); }

/* ---- too large ---- */

/* More than client_max_body_size: asking again cannot help, and the reason says what to do. */
TEST(nginx_takes_no_such_body) {
    up(20, &(asgi_options){.server = "uvicorn", .proxy = "nginx", .extra = "client_max_body_size 300;"});
    run();
    for (int g = 0; g < r.count; g++) {
        CHECK(!r.scores[g].scored);
        CHECK_INT(r.scores[g].attempts, 1);
        CHECK_CONTAINS(r.scores[g].reason, "HTTP 413: the server, or a proxy in front of it, takes no body of");
        CHECK_CONTAINS(r.scores[g].reason, "bytes (nginx: client_max_body_size)");
    }
    CHECK_INT(r.holds, 0);
    down();
}

/* ---- connections that end when nothing happens ---- */

enum { ROUNDS = 4, ROUND = 64 };

/* Feeds the rig round after round, with pauses of about a second between. */
typedef struct pulse {
    opd_timer timer;
    int round;
} pulse;

static opd_err on_pulse(opd_ctx *ctx, void *state, opd_timer *timer) {
    pulse *p = state;
    (void)ctx;
    if (r.got < p->round * ROUND) return opd_timer_start_after(timer, 1000000);
    if (p->round > 0) (void)check_scored();
    for (int g = 0; g < ROUND; g++) r.scores[g].times = 0;
    rig_feed(&r);
    if (++p->round == ROUNDS) return OPD_OK;
    return opd_timer_start_after(timer, (uint64_t)(1000 + p->round * 7) * 1000000);
}

static opd_err pulse_start(opd_ctx *ctx, void *state, const void *unused) {
    pulse *p = state;
    (void)unused;
    opd_timer_init(&p->timer, ctx, on_pulse);
    return opd_timer_start_after(&p->timer, 1);
}

static const opd_actor_class pulse_class = {.name = "pulse", .state_size = sizeof(pulse), .on_start = pulse_start};

/* The app closes what was idle for 1 s, which a proxy, or the teacher itself, would have kept for longer: requests
 * meet connections that are just being closed. No sample is lost. */
static void closes_first(const char *proxy) {
    opd_pid pid;
    up(ROUND, &(asgi_options){.server = "uvicorn", .args = "--timeout-keep-alive 1", .proxy = proxy});
    r.want = ROUNDS * ROUND;
    rig_teacher(&r, &config);
    CHECK_OK(opd_spawn(r.t.system, &pulse_class, NULL, NULL, &pid));
    CHECK_OK(rig_run(&r));
    CHECK_INT(r.got, ROUNDS * ROUND);
    (void)check_scored();
    down();
}

TEST(uvicorn_closes_first) { closes_first(NULL); }
TEST(uvicorn_closes_first_behind_nginx) { closes_first("nginx"); }
TEST(uvicorn_closes_first_behind_haproxy) { closes_first("haproxy"); }
TEST(uvicorn_closes_first_behind_nghttpx) { closes_first("nghttpx"); }

/* ---- a server that dies and comes back ---- */

typedef struct killer {
    opd_timer timer;
    bool killed;
} killer;

static const asgi_options *killed_options;

static opd_err on_kill(opd_ctx *ctx, void *state, opd_timer *timer) {
    killer *k = state;
    (void)ctx;
    if (!k->killed && r.got < r.count / 10) return opd_timer_start_after(timer, 1000000);
    if (k->killed) {
        asgi_app_start(&stack, killed_options);
        return OPD_OK;
    }
    asgi_app_kill(&stack);
    k->killed = true;
    return opd_timer_start_after(timer, 300000000);
}

static opd_err killer_start(opd_ctx *ctx, void *state, const void *unused) {
    killer *k = state;
    (void)unused;
    opd_timer_init(&k->timer, ctx, on_kill);
    return opd_timer_start_after(&k->timer, 1);
}

static const opd_actor_class killer_class = {.name = "killer", .state_size = sizeof(killer), .on_start = killer_start};

/* The app is killed with requests under way and is back after a second; a proxy answers 502 and 503 meanwhile. No
 * sample is lost. */
static void is_killed(const asgi_options *options) {
    opd_pid pid;
    up(1000, options);
    killed_options = options;
    CHECK_OK(opd_spawn(r.t.system, &killer_class, NULL, NULL, &pid));
    run();
    CHECK(check_scored() > 0);
    CHECK_INT(r.holds, r.releases);
    printf("%d times lost\n", r.holds);
    down();
}

TEST(uvicorn_is_killed) { is_killed(&(asgi_options){.server = "uvicorn"}); }
TEST(uvicorn_is_killed_behind_nginx) { is_killed(&BEHIND("nginx")); }
TEST(uvicorn_is_killed_behind_haproxy) { is_killed(&BEHIND("haproxy")); }
TEST(uvicorn_is_killed_behind_nghttpx) { is_killed(&BEHIND("nghttpx")); }
