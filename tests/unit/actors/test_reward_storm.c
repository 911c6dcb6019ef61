/* test_reward_storm.c - judges in child processes that crash, hang, answer late, babble and end as they start, in
 * a simulated world: 200 seeds of what happens when, for JSON and msgpack, single answers and groups.
 *
 * The children are this file's: it defines the functions of core/env/env.h that start and stop one, and is linked
 * before the library. A child reads a question when the seed says so and does what the seed says. Proven for every
 * sample: it has a reward exactly if its judge gave that one in time, and otherwise the reason; all leave in order.
 * Thread: one. A child is freed after its exit was delivered, or with the actor.
 */
#include <signal.h>

#include "core/base/check.h"
#include "core/base/rng.h"
#include "core/codec/msgpack.h"
#include "core/env/env.h"
#include "core/env/sim.h"
#include "tests/support/reward_rig.h"

enum { SEEDS = 200, SAMPLES = 24, TIMEOUT_MS = 1000, INPUT_MAX = 1 << 16 };

static const uint64_t MS = 1000000;

/* ---- what happens ---- */

typedef enum fate { NONE, GIVEN, LATE, LOST } fate; /* LATE: about when the time is up; LOST: no answer, or a wrong one */

static struct world {
    opd_rng dice;
    bool msgpack, group, storm;
    fate fates[SAMPLES];
    bool has_answered;
    unsigned started, crashed, hung, babbled;
} now;

static bool one_in(uint64_t n) { return opd_rng_below(&now.dice, n) == 0; }

/* ---- children ---- */

struct opd_child {
    opd_system *system;
    const opd_alloc *alloc;
    opd_child_options options;
    int pid;
    opd_cleanup cleanup;
    opd_sim_event act;      /* the next thing that it does */
    opd_event delivery;     /* its output and its end, to the actor */
    bool posted;
    opd_str input, output;  /* not yet read, not yet delivered */
    bool hangs, exited, exits_next;
    int term_signal;
    int64_t status;
};

static void post(opd_child *child) {
    if (!child->posted) opd_event_post(child->system, &child->delivery);
    child->posted = true;
}

static void act_soon(opd_child *child, uint64_t within_ns) {
    opd_sim_event_at(&child->act, opd_sim_now_ns(opd_sim_of(child->act.env)) + opd_rng_below(&now.dice, within_ns));
}

static void free_child(opd_child *child) {
    opd_sim_event_cancel(&child->act);
    opd_event_cancel(&child->delivery); /* it may have been killed while it was delivered */
    opd_str_fini(&child->input);
    opd_str_fini(&child->output);
    opd_mem_free(child->alloc, child);
}

/* The members of the question that stand in it as "#index#"; 0 without a whole one. */
static size_t take_question(opd_child *child, uint64_t *out_id, size_t samples[SAMPLES]) {
    size_t count = 0, size = 0;
    opd_err err;
    opd_mp_scan scan = {0};
    const char *newline = memchr(child->input.data, '\n', child->input.size);
    if (now.msgpack && opd_mp_scan_value(&scan, child->input.data, child->input.size, INPUT_MAX, &err))
        size = (size_t)scan.size_bytes;
    if (!now.msgpack && newline != NULL) size = (size_t)(newline - child->input.data) + 1;
    for (size_t i = 0; i + 1 < size; i++) {
        if (child->input.data[i] != '#') continue;
        samples[count++] = strtoul(child->input.data + i + 1, NULL, 10);
        while (child->input.data[++i] != '#') continue;
    }
    if (size == 0) return 0;
    if (now.msgpack) {
        opd_mp_reader r;
        size_t key_size;
        opd_mp_reader_init(&r, child->input.data, size);
        CHECK_INT(opd_mp_read_map(&r), 5);
        (void)opd_mp_read_str(&r, &key_size);
        *out_id = opd_mp_read_u64(&r);
    } else {
        *out_id = strtoull(strstr(child->input.data, "\"id\":") + 5, NULL, 10);
    }
    opd_str_drop(&child->input, size);
    return count;
}

static double reward_of(size_t sample) { return (double)sample + 0.5; }

static void say(opd_child *child, uint64_t id, const size_t *samples, size_t count) {
    uint8_t bytes[512];
    opd_mp_writer w;
    opd_mp_writer_init(&w, bytes, sizeof bytes);
    opd_mp_write_map(&w, 2);
    opd_mp_write_cstr(&w, "id");
    opd_mp_write_u64(&w, id);
    opd_mp_write_cstr(&w, now.group ? "rewards" : "reward");
    if (now.group) opd_mp_write_array(&w, (uint32_t)count);
    for (size_t i = 0; i < count; i++) opd_mp_write_f64(&w, reward_of(samples[i]));
    if (now.msgpack) {
        opd_str_append(&child->output, bytes, w.size);
        return;
    }
    opd_str_printf(&child->output, "{\"id\":%llu,\"%s\":%s", (unsigned long long)id, now.group ? "rewards" : "reward",
                   now.group ? "[" : "");
    for (size_t i = 0; i < count; i++)
        opd_str_printf(&child->output, "%s%.1f", i > 0 ? "," : "", reward_of(samples[i]));
    opd_str_text(&child->output, now.group ? "]}\n" : "}\n");
}

static void end(opd_child *child, int term_signal) {
    if (child->exited) return;
    child->exited = true;
    child->term_signal = term_signal;
    child->status = term_signal == 0 ? (int64_t)opd_rng_below(&now.dice, 3) : 0;
    opd_sim_event_cancel(&child->act);
    post(child);
}

static void mark(const size_t *samples, size_t count, fate what) {
    for (size_t i = 0; i < count; i++) now.fates[samples[i]] = what;
}

/* What a judge does with a question. */
static void judge(opd_child *child, uint64_t id, const size_t *samples, size_t count) {
    mark(samples, count, LOST);
    switch (opd_rng_below(&now.dice, 12)) {
    case 0: /* crashes with it in its hands */
        now.crashed++;
        end(child, SIGSEGV);
        return;
    case 1: /* says half of it */
        say(child, id, samples, count);
        child->output.size -= 3;
        post(child);
        end(child, SIGKILL);
        return;
    case 2:
        now.hung++;
        child->hangs = true;
        return;
    case 3: /* bytes that are nothing */
        now.babbled++;
        opd_str_append(&child->output, now.msgpack ? "\xc1\xc1" : "{\"reward\": what}\n", now.msgpack ? 2 : 17);
        post(child);
        return;
    case 4: /* an answer of another one first */
        say(child, id + 1, samples, count);
        opd_str_text(&child->output, now.msgpack ? "words" : "words\n");
        break;
    case 5: /* late */
        mark(samples, count, LATE);
        say(child, id, samples, count);
        opd_sim_event_at(&child->act, opd_sim_now_ns(opd_sim_of(child->act.env)) + TIMEOUT_MS * MS / 2 +
                                          opd_rng_below(&now.dice, TIMEOUT_MS) * MS);
        return;
    case 6: child->exits_next = true; break; /* answers, then ends */
    default: break;
    }
    say(child, id, samples, count);
    mark(samples, count, GIVEN);
    now.has_answered = true;
    post(child);
    if (child->exits_next) act_soon(child, MS);
}

static void on_act(opd_sim_event *event) {
    opd_child *child = event->arg;
    uint64_t id = 0;
    size_t samples[SAMPLES];
    if (child->exited || child->hangs) return;
    if (child->output.size > 0 && !child->posted) { /* the late answer */
        now.has_answered = true;
        post(child);
        return;
    }
    if (child->exits_next || (now.storm && now.has_answered && child->input.size == 0 && one_in(2))) {
        now.crashed++;
        end(child, 0);
        return;
    }
    size_t count = take_question(child, &id, samples);
    if (count > 0) judge(child, id, samples, count);
}

/* Its output in pieces, then its end. */
static opd_err deliver(opd_ctx *ctx, void *state, opd_event *event) {
    opd_child *child = OPD_CONTAINER_OF(event, opd_child, delivery);
    child->posted = false;
    while (child->output.size > 0) {
        if (now.msgpack) {
            size_t size = 1 + opd_rng_below(&now.dice, child->output.size);
            char piece[512];
            memcpy(piece, child->output.data, size);
            opd_str_drop(&child->output, size);
            OPD_TRY(child->options.on_bytes(ctx, state, child, piece, size));
            continue;
        }
        char line[512];
        char *newline = memchr(child->output.data, '\n', child->output.size);
        size_t size = newline != NULL ? (size_t)(newline - child->output.data) : child->output.size;
        memcpy(line, child->output.data, size);
        line[size] = '\0';
        opd_str_drop(&child->output, size + (newline != NULL));
        OPD_TRY(child->options.on_line(ctx, state, child, false, line));
    }
    if (!child->exited) return OPD_OK;
    opd_cleanup_stop(&child->cleanup);
    opd_err err = child->options.on_exit(ctx, state, child, child->status, child->term_signal);
    free_child(child);
    return err;
}

static void on_actor_end(opd_cleanup *cleanup) {
    free_child(OPD_CONTAINER_OF(cleanup, opd_child, cleanup));
}

opd_err opd_child_spawn(opd_ctx *ctx, opd_env *env, const opd_child_options *options, opd_child **out_child) {
    opd_child *child = opd_mem_get(options->alloc, sizeof *child);
    if (child == NULL) return opd_fail(OPD_ERR_NOMEM, "child");
    *child = (opd_child){.system = opd_self_system(ctx), .alloc = options->alloc, .options = *options,
                         .pid = (int)++now.started, .act = {.env = env, .fire = on_act, .arg = child},
                         .delivery = {.to = opd_self(ctx), .deliver = deliver}};
    opd_str_init(&child->input, options->alloc, INPUT_MAX);
    opd_str_init(&child->output, options->alloc, INPUT_MAX);
    opd_cleanup_start(ctx, &child->cleanup, on_actor_end);
    *out_child = child;
    act_soon(child, 50 * MS); /* a storm may end it at once */
    return OPD_OK;
}

opd_err opd_child_write(opd_child *child, const void *bytes, size_t size_bytes) {
    if (child->exited) return opd_fail(OPD_ERR_CLOSED, "child %d has ended", child->pid);
    opd_str_append(&child->input, bytes, size_bytes);
    act_soon(child, 20 * MS);
    return opd_str_status(&child->input);
}

void opd_child_kill(opd_child *child, int signal_number) {
    if (child->exited) return;
    opd_str_clear(&child->output); /* a late answer that was not said */
    end(child, signal_number);
}

int opd_child_pid(const opd_child *child) { return child->pid; }

void *opd_child_arg(const opd_child *child) { return child->options.arg; }

/* ---- the seeds ---- */

static void no_log(void *arg, opd_log_level level, const char *text) { (void)arg, (void)level, (void)text; }

static void check_sample(const reward_rig *rig, size_t i) {
    const opd_reward_fields *f = &rig->rewards[i];
    fate what = now.fates[i];
    if (f->valid) {
        CHECK(what == GIVEN || what == LATE);
        CHECK_NEAR(f->reward, reward_of(i), 0);
        CHECK_INT(f->failure, OPD_REWARD_JUDGED);
        return;
    }
    CHECK(what != GIVEN);
    CHECK(f->failure == OPD_REWARD_FAILED || f->failure == OPD_REWARD_TIMEOUT);
    if (what == LATE) CHECK_INT(f->failure, OPD_REWARD_TIMEOUT);
}

static uint64_t run_seed(uint64_t seed, size_t *out_lost) {
    static char texts[SAMPLES][8];
    static const char *responses[SAMPLES + 1];
    static reward_rig rig;
    char text[24];
    memset(&now, 0, sizeof now);
    opd_rng_init(&now.dice, seed);
    now.msgpack = one_in(2);
    now.group = one_in(3);
    now.storm = one_in(3);
    for (size_t i = 0; i < SAMPLES; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "#%zu#", i);
        responses[i] = texts[i];
    }
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    CHECK_INT(setenv("OPD_TEST_SIM_SEED", text, 1), 0);
    reward_rig_up(&rig, responses, now.group ? 2 : 1);
    const char *const argv[] = {"judge", NULL};
    opd_reward_part part = {.kind = OPD_REWARD_BY_COMMAND, .name = "judge", .weight = 1, .argv = argv,
                            .workers = 1 + (uint32_t)opd_rng_below(&now.dice, 3), .timeout_ms = TIMEOUT_MS,
                            .msgpack = now.msgpack, .group = now.group};
    opd_err err = reward_rig_run(&rig, &part, 1);
    if (err == OPD_ERR_REMOTE) CHECK(!now.has_answered); /* five ends before the first answer: the program is wrong */
    else CHECK_OK(err);
    for (size_t i = 0; i < rig.got; i++) {
        check_sample(&rig, i);
        *out_lost += !rig.rewards[i].valid;
    }
    if (err == OPD_OK) CHECK_INT(rig.got, SAMPLES);
    uint64_t hash = opd_sim_stats_get(rig.t.sim).hash;
    reward_rig_down(&rig);
    return hash;
}

TEST(a_failing_judge_costs_the_samples_in_its_hands) {
    size_t lost = 0;
    struct world all = {.started = 0};
    opd_log_sink_set(no_log, NULL);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        (void)printf("seed %llu\n", (unsigned long long)seed); /* the last one is the one that failed */
        (void)fflush(stdout);
        (void)run_seed(seed, &lost);
        all.started += now.started;
        all.crashed += now.crashed;
        all.hung += now.hung;
        all.babbled += now.babbled;
    }
    (void)printf("%zu of %d samples lost, %u children, %u crashes, %u hangs, %u times nonsense\n", lost,
                 SEEDS * SAMPLES, all.started, all.crashed, all.hung, all.babbled);
    CHECK(all.crashed > SEEDS && all.hung > SEEDS / 2 && all.babbled > SEEDS / 2);
    CHECK(lost > SEEDS && lost < SEEDS * SAMPLES / 2); /* both happen */
}

TEST(the_same_seed_is_the_same_run) {
    size_t lost = 0, again = 0;
    opd_log_sink_set(no_log, NULL);
    for (uint64_t seed = 1; seed <= 20; seed++) CHECK(run_seed(seed, &lost) == run_seed(seed, &again));
    CHECK_INT(lost, again);
}
