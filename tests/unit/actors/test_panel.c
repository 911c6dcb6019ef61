/* test_panel.c - the panel among teachers that play a part: who is asked for what, who instead of one
 * that fails, and exactly one SCORES for each ROLLOUT, right at every token that is valid. */
#include "core/base/check.h"
#include "tests/unit/actors/panel_rig.h"

/* Row `slot` of a sample has the scores of the teacher at `place` everywhere. */
static void check_slot(const world *w, int group, uint32_t slot, uint32_t place) {
    uint32_t rows = w->length - PROMPT;
    const got *g = &w->got[group];
    CHECK(g->rows >= (slot + 1) * rows);
    for (uint32_t i = 0; i < rows; i++) {
        CHECK_INT(g->valid[slot * rows + i], 1);
        CHECK(g->logp[slot * rows + i] == panel_score(place, panel_token((uint64_t)group, PROMPT + i)));
    }
}

static int asks_of(const world *w, uint32_t teacher) {
    int count = 0;
    for (int i = 0; i < w->ask_count; i++) count += w->asks[i].teacher == teacher;
    return count;
}

TEST(one_teacher_scores_all) {
    static world w;
    panel_up(&w, SAMPLES, ", teacher: b", "", "", "");
    panel_run(&w);
    CHECK_INT(w.ask_count, SAMPLES);
    for (int g = 0; g < SAMPLES; g++) check_slot(&w, g, 0, 1);
    for (int i = 0; i < w.ask_count; i++) {
        CHECK(w.asks[i].wait && w.asks[i].affinity != 0);
        CHECK(w.asks[i].from == PROMPT && w.asks[i].to == w.length);
    }
    CHECK_INT(w.holds, 0);
    CHECK_INT(w.got[0].degraded, 0);
    panel_down(&w);
}

TEST(samples_go_where_their_source_says) {
    static world w;
    panel_up(&w, 7, ", teacher: c, teacher_key: k", ", serves: [math, logic]", ", serves: code", "");
    w.sources[0] = "math";
    w.sources[1] = "code";
    w.sources[2] = "logic";
    w.sources[3] = "poems";
    w.sources[4] = "c";
    w.sources[6] = "songs";
    panel_run(&w);
    static const uint32_t places[] = {0, 1, 0, 2, 2, 2, 2};
    CHECK(w.unserved == 2);
    for (int g = 0; g < 7; g++) {
        check_slot(&w, g, 0, places[g]);
        CHECK_INT(w.got[g].places[0], places[g]);
    }
    CHECK_CONTAINS(w.notes, "no teacher serves 'poems'");
    CHECK_INT(w.got[3].degraded, 0);
    panel_down(&w);
}

TEST(several_teachers_score_one_sample) {
    static world w;
    panel_up(&w, 5, ", teacher: [c, a]", ", weight: 0.25", "", ", weight: 3");
    panel_run(&w);
    for (int g = 0; g < 5; g++) {
        check_slot(&w, g, 0, 2);
        check_slot(&w, g, 1, 0);
        CHECK_INT(w.got[g].teachers, 2);
        CHECK(w.got[g].places[0] == 2 && w.got[g].places[1] == 0);
        CHECK(w.got[g].weights[0] == 3 && w.got[g].weights[1] == 0.25);
        CHECK_STR(w.got[g].teacher, "c, a");
    }
    panel_down(&w);
}

TEST(the_fallback_is_asked_at_once) {
    static world w;
    panel_up(&w, 8, ", teacher: a", ", fallback: b", ", fallback: c", "");
    w.parts[0] = AWAY;
    w.parts[1] = REFUSE;
    panel_run(&w);
    for (int g = 0; g < 8; g++) {
        check_slot(&w, g, 0, 2);
        CHECK_INT(w.got[g].degraded, w.length - PROMPT);
        CHECK_INT(w.got[g].places[0], 2);
        CHECK_STR(w.got[g].teacher, "c");
    }
    for (int i = 0; i < w.ask_count; i++) CHECK(!w.asks[i].wait);
    CHECK_INT(w.holds, 0); /* b answers, though it says nothing useful */
    panel_down(&w);
}

TEST(nobody_scores_it_and_it_is_masked) {
    static world w;
    panel_up(&w, 4, ", teacher: a", ", fallback: b", "", "");
    w.parts[0] = REFUSE;
    w.parts[1] = SHORT;
    panel_run(&w);
    for (int g = 0; g < 4; g++) {
        CHECK_INT(w.got[g].rows, 0);
        CHECK_CONTAINS(w.got[g].reason, "scores for 20 tokens");
        CHECK_INT(w.got[g].attempts, 3);
    }
    CHECK_INT(asks_of(&w, 0), 4); /* who answered is not asked again */
    panel_down(&w);
}

/* Of two that score together one fails: the other one's scores stand. */
TEST(a_slot_that_fails_leaves_the_other) {
    static world w;
    panel_up(&w, 4, ", teacher: [a, b]", "", "", "");
    w.parts[1] = REFUSE;
    panel_run(&w);
    for (int g = 0; g < 4; g++) {
        check_slot(&w, g, 0, 0);
        for (uint32_t i = 0; i < 20; i++) CHECK_INT(w.got[g].valid[20 + i], 0);
        CHECK_INT(w.got[g].degraded, 20);
    }
    panel_down(&w);
}

/* A teacher that hangs has half of the time that is left; the last one has all of it. */
TEST(who_hangs_leaves_time_for_the_next) {
    static world w;
    panel_up(&w, 4, ", teacher: a", ", timeout_s: 4, deadline_s: 4, fallback: b", ", fallback: c", "");
    w.parts[0] = w.parts[1] = HANG;
    panel_run(&w);
    CHECK_INT(w.ask_count, 12);
    for (int g = 0; g < 4; g++) check_slot(&w, g, 0, 2);
    for (int i = 0; i < w.ask_count; i++) {
        static const uint64_t shares_ms[] = {2000, 1000, 1000};
        CHECK(w.asks[i].for_ns <= shares_ms[w.asks[i].teacher] * MS);
    }
    panel_down(&w);
}

/* A chunk that hangs takes no more of its sample's time than an attempt may. */
TEST(a_chunk_that_hangs_is_asked_again_with_all_the_time) {
    static world w;
    panel_up(&w, 3, ", teacher: a", ", chunk_tokens: 4, timeout_s: 0.1, deadline_s: 0.4", "", "");
    w.chunk = 5;
    w.parts[0] = HANG;
    panel_run(&w);
    int again = 0;
    for (int i = 0; i < w.ask_count; i++) {
        again += w.asks[i].wait && w.asks[i].from == PROMPT && w.asks[i].for_ns > 100 * MS;
        CHECK(w.asks[i].for_ns <= (w.asks[i].wait ? 400 : 100) * MS);
    }
    CHECK_INT(again, 3);
    for (int g = 0; g < 3; g++) CHECK_INT(w.got[g].rows, 0);
    panel_down(&w);
}

/* ---- away, and back ---- */

typedef struct herald {
    world *w;
    uint32_t place;
    opd_timer timer;
} herald;

static opd_err herald_fires(opd_ctx *ctx, void *state, opd_timer *timer) {
    herald *h = state;
    opd_note_fields f = {.level = 0};
    (void)timer;
    CHECK_INT(h->w->done, 0);
    return opd_message_send(ctx, h->w->roles.teachers[h->place], OPD_MESSAGE_NOTE, &f);
}

static opd_err herald_start(opd_ctx *ctx, void *state, const void *config) {
    herald *h = state;
    *h = *(const herald *)config;
    opd_timer_init(&h->timer, ctx, herald_fires);
    return opd_timer_start_after(&h->timer, 300 * MS); /* all else is long done, on a busy machine too */
}

static const opd_actor_class herald_class = {.name = "herald", .state_size = sizeof(herald),
                                             .on_start = herald_start};

TEST(while_all_are_away_the_first_is_waited_for) {
    static world w;
    opd_pid pid;
    panel_up(&w, 4, ", teacher: a", ", fallback: b", ", fallback: a", "");
    w.parts[0] = w.parts[1] = AWAY;
    CHECK_OK(opd_spawn(w.t.system, &herald_class, NULL, &(herald){.w = &w, .place = 0}, &pid));
    panel_run(&w);
    for (int g = 0; g < 4; g++) check_slot(&w, g, 0, 0);
    CHECK_INT(w.ask_count, 12);
    for (int i = 0; i < w.ask_count; i++) CHECK(w.asks[i].wait == (i >= 8));
    CHECK(w.holds == 1 && w.releases == 1);
    CHECK_INT(w.got[0].degraded, 0);
    panel_down(&w);
}

/* It is not wanted before the first sample that is its own: the dataset hears of it then. */
TEST(who_is_wanted_later_pauses_admission_then) {
    static world w;
    opd_pid pid;
    panel_up(&w, 1, ", teacher: a, teacher_key: k", "", "", "");
    w.parts[1] = AWAY;
    w.sources[0] = "b";
    CHECK_OK(opd_spawn(w.t.system, &herald_class, NULL, &(herald){.w = &w, .place = 1}, &pid));
    panel_run(&w);
    check_slot(&w, 0, 0, 1);
    CHECK(w.holds == 1 && w.releases == 1);
    panel_down(&w);
}

TEST(all_too_late_at_the_start_stops_the_run) {
    static world w;
    panel_up(&w, 4, ", teacher: a", ", fallback: b", ", fallback: c", "");
    w.parts[0] = w.parts[1] = w.parts[2] = TOO_LATE;
    panel_start(&w);
    CHECK_ERR(opd_system_run(w.t.system), OPD_ERR_TIMEOUT);
    CHECK_CONTAINS(opd_err_context(), "teacher a was not ready in time, and neither was anybody who is asked "
                                      "instead of it");
    CHECK_INT(w.done, 0);
    panel_down(&w);
}

/* One of them in time is enough. */
TEST(one_too_late_at_the_start_is_replaced) {
    static world w;
    panel_up(&w, 4, ", teacher: a", ", fallback: b", ", fallback: c", "");
    w.parts[0] = w.parts[2] = TOO_LATE;
    panel_run(&w);
    for (int g = 0; g < 4; g++) check_slot(&w, g, 0, 1);
    CHECK_INT(w.holds, 0);
    panel_down(&w);
}

/* ---- room ---- */

TEST(a_full_teacher_is_asked_again) {
    static world w;
    panel_up(&w, 6, ", teacher: a", "", "", "");
    w.parts[0] = FULL_ONCE;
    panel_run(&w);
    for (int g = 0; g < 6; g++) check_slot(&w, g, 0, 0);
    CHECK_INT(w.ask_count, 6);
    CHECK_INT(w.got[0].attempts, 1);
    panel_down(&w);
}

TEST(all_together_have_a_bound) {
    static world w;
    panel_up(&w, SAMPLES, ", teacher: [a, b], teacher_inflight_max: 6", "", "", "");
    w.delay_ns[0] = w.delay_ns[1] = 2 * MS;
    panel_run(&w);
    CHECK(w.under_way_max <= 6 && w.under_way_max >= 5);
    for (int g = 0; g < SAMPLES; g++) {
        check_slot(&w, g, 0, 0);
        check_slot(&w, g, 1, 1);
    }
    panel_down(&w);
}

/* One that hangs does not take what the other needs. */
TEST(a_teacher_that_hangs_leaves_room_for_the_other) {
    static world w;
    panel_up(&w, 12, ", teacher: a, teacher_key: k, teacher_inflight_max: 3", "", "", "");
    for (int g = 0; g < 12; g++) w.sources[g] = g < 11 ? "a" : "b";
    w.delay_ns[0] = 100 * MS;
    panel_run(&w);
    int last_b = 0;
    for (int i = 0; i < w.ask_count; i++)
        if (w.asks[i].teacher == 1) last_b = i;
    CHECK(last_b < 3);
    panel_down(&w);
}

/* Nor without a bound over all: each may always be asked its own max_inflight. */
TEST(without_a_bound_of_all_each_has_its_own) {
    static world w;
    panel_up(&w, SAMPLES, ", teacher: a, teacher_key: k", ", max_inflight: 4", ", max_inflight: 4084",
       ", max_inflight: 1");
    for (int g = 0; g < SAMPLES; g++) w.sources[g] = g < SAMPLES - 1 ? "a" : "b";
    w.delay_ns[0] = 100 * MS;
    panel_run(&w);
    int first_b = 0;
    while (w.asks[first_b].teacher != 1) first_b++;
    CHECK_INT(first_b, OPD_PANEL_REQUESTS_MAX - 4084 - 1);
    panel_down(&w);
}

/* ---- while the student writes ---- */

/* Every token of a sample was asked for exactly once, of one teacher. */
static void check_cover(const world *w, int samples) {
    uint32_t asked_for = 0;
    for (int i = 0; i < w->ask_count; i++)
        if (w->asks[i].from >= PROMPT) asked_for += w->asks[i].to - w->asks[i].from;
    CHECK_INT(asked_for, (uint32_t)samples * (w->length - PROMPT));
}

TEST(chunks_are_scored_while_more_is_written) {
    static world w;
    panel_up(&w, 6, ", teacher: a", ", chunk_tokens: 4", "", "");
    w.chunk = 5;
    panel_run(&w);
    for (int g = 0; g < 6; g++) check_slot(&w, g, 0, 0);
    check_cover(&w, 6);
    int early = 0, prompts = 0, last = 0;
    for (int i = 0; i < w.ask_count; i++) {
        early += w.asks[i].from >= PROMPT && w.asks[i].to < w.length;
        prompts += w.asks[i].to == PROMPT;
        last += w.asks[i].to == w.length;
        if (w.asks[i].to < w.length) CHECK(!w.asks[i].wait);
    }
    CHECK_INT(prompts, 6); /* the source tells each sample's prompt by itself */
    CHECK_INT(early, 18);
    CHECK_INT(last, 6);
    CHECK_INT(w.got[0].attempts, 4); /* warm-ups are nobody's */
    panel_down(&w);
}

/* The answer to a chunk takes longer than the student: the rest is asked for beside it. */
TEST(a_slow_chunk_does_not_keep_the_rest_waiting) {
    static world w;
    panel_up(&w, 3, ", teacher: a", ", chunk_tokens: 4", "", "");
    w.chunk = 5;
    w.delay_ns[0] = 60 * MS;
    panel_run(&w);
    for (int g = 0; g < 3; g++) check_slot(&w, g, 0, 0);
    check_cover(&w, 3);
    CHECK_INT(w.got[0].attempts, 2);
    panel_down(&w);
}

TEST(a_chunk_without_a_score_is_asked_again_in_the_end) {
    static world w;
    panel_up(&w, 3, ", teacher: a", ", chunk_tokens: 4, fallback: b", "", "");
    w.chunk = 5;
    w.parts[0] = REFUSE;
    panel_run(&w);
    for (int g = 0; g < 3; g++) {
        check_slot(&w, g, 0, 1);
        CHECK_INT(w.got[g].degraded, 20);
    }
    for (int i = 0; i < w.ask_count; i++) /* the fallback is asked for whole samples only */
        if (w.asks[i].teacher == 1) CHECK(w.asks[i].from == PROMPT && w.asks[i].to == w.length);
    panel_down(&w);
}

TEST(two_teachers_and_chunks) {
    static world w;
    panel_up(&w, 5, ", teacher: [a, b]", ", chunk_tokens: 6", ", chunk_tokens: 0", "");
    w.chunk = 3;
    w.delay_ns[0] = 7 * MS;
    panel_run(&w);
    for (int g = 0; g < 5; g++) {
        check_slot(&w, g, 0, 0);
        check_slot(&w, g, 1, 1);
    }
    CHECK_INT(asks_of(&w, 1), 5);
    panel_down(&w);
}

TEST(what_the_rollout_is_told_to_send) {
    opd_config *config;
    const char *text = PANEL_HEAD "opd: {enabled: true, type: sglang, teacher: [a, b]}\nteachers:\n"
                            "  a: {url: \"http://h:1\", chunk_tokens: 64}\n"
                            "  b: {url: \"http://h:2\", chunk_tokens: 32}\n"
                            "  c: {url: \"http://h:3\", chunk_tokens: 8}\n";
    CHECK_OK(opd_config_load_text(NULL, "test", text, strlen(text), NULL, &config));
    const opd_config_stage *s = &config->stages[0];
    CHECK_INT(opd_stage_chunk_tokens(s), 32); /* c is not asked */
    CHECK_INT(opd_teacher_chunk_tokens(&s->teachers[0], false), 64);
    opd_config_teacher t = {.chunk_tokens = -1};
    CHECK_INT(opd_teacher_chunk_tokens(&t, false), 0);
    CHECK_INT(opd_teacher_chunk_tokens(&t, true), OPD_PANEL_CHUNK_TOKENS);
    t.protocol = OPD_CONFIG_PROTOCOL_VLLM;
    CHECK_INT(opd_teacher_chunk_tokens(&t, true), 0);
    opd_config_destroy(config);
    /* a server may keep prefixes; of the teacher in this process it is known */
    const char *own = PANEL_HEAD "opd: {enabled: true, type: sglang}\nteachers: {a: {path: /tmp}}\n";
    CHECK_OK(opd_config_load_text(NULL, "test", own, strlen(own), NULL, &config));
    CHECK_INT(opd_stage_chunk_tokens(&config->stages[0]), OPD_PANEL_CHUNK_TOKENS);
    config->stages[0].opd.type = OPD_CONFIG_OPD_TYPE_MEGATRON;
    CHECK_INT(opd_stage_chunk_tokens(&config->stages[0]), OPD_PANEL_CHUNK_TOKENS);
    config->stages[0].device.teacher_cache_mb = 0;
    CHECK_INT(opd_stage_chunk_tokens(&config->stages[0]), 0);
    opd_config_destroy(config);
}

/* Short prompts are computed with the first answer. */
TEST(a_short_prompt_is_not_asked_for_by_itself) {
    static world w;
    panel_up(&w, 6, ", teacher: a", ", chunk_tokens: 5", "", "");
    w.chunk = 5;
    panel_run(&w);
    for (int i = 0; i < w.ask_count; i++) CHECK(w.asks[i].to > PROMPT);
    for (int g = 0; g < 6; g++) check_slot(&w, g, 0, 0);
    check_cover(&w, 6);
    panel_down(&w);
}
