/* panel_actor.c - samples, questions and answers of the panel (panel_actor.h, panel_inside.h).
 *
 * Thread: the loop. The actor frees what is left in on_stop.
 */
#include "actors/panel/panel_actor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/metrics.h"
#include "actors/rollout/engine.h"
#include "actors/panel/panel_inside.h"
#include "core/base/check.h"
#include "core/base/list.h"
#include "core/base/rng.h"
#include "opd/log.h"

static const uint64_t RETRY_NS = 10 * 1000 * 1000; /* until who had no room is asked again */

enum { MEMBER_BITS = 12 }; /* rollout.samples_per_prompt is at most 4096 */

static uint64_t key_of(const opd_panel_sample *s) { return s->group << MEMBER_BITS | s->member; }

/* The same for all members of a group, whose sequences begin alike; never 0. */
static uint64_t affinity_of(uint64_t group) { return opd_rng_at(group, 0, 0, 0) | 1; }

static bool in_process(const opd__panel *self) {
    return self->c.stage->opd.type == OPD_CONFIG_OPD_TYPE_MEGATRON;
}

static opd_pid pid_of(const opd__panel *self, int place) {
    return in_process(self) ? self->c.roles->scorer : self->c.roles->teachers[place];
}

uint32_t opd_teacher_chunk_tokens(const opd_config_teacher *teacher, bool reuses_prefix) {
    if (teacher->chunk_tokens >= 0) return (uint32_t)teacher->chunk_tokens;
    return reuses_prefix && teacher->protocol != OPD_CONFIG_PROTOCOL_VLLM ? OPD_PANEL_CHUNK_TOKENS : 0;
}

/* Whether a teacher may keep prefixes, as far as that is known before it answers. */
static bool may_keep(const opd_config_stage *stage) {
    return stage->opd.type != OPD_CONFIG_OPD_TYPE_MEGATRON || stage->device.teacher_cache_mb > 0;
}

uint32_t opd_stage_chunk_tokens(const opd_config_stage *stage) {
    uint32_t fewest = 0;
    for (size_t i = 0; i < stage->teacher_count; i++) {
        const opd_config_teacher *t = &stage->teachers[i];
        uint32_t tokens = opd_teacher_chunk_tokens(t, may_keep(stage));
        if (!opd_config_teacher_used(stage, i) || tokens == 0) continue;
        if (fewest == 0 || tokens < fewest) fewest = tokens;
    }
    return fewest;
}

static uint32_t chunk_tokens(const opd__panel *self, int place) {
    return opd_teacher_chunk_tokens(&self->c.stage->teachers[place],
                                    self->teachers[place].reuses_prefix);
}

/* ---- scores out ---- */

static opd_err flush(opd__panel *self) {
    for (opd_list *node; (node = opd_list_first(&self->done)) != NULL;) {
        opd_panel_sample *s = OPD_CONTAINER_OF(node, opd_panel_sample, node);
        opd_err err = opd_link_send(self->ctx, self->link, s->message);
        if (err == OPD_ERR_AGAIN) return OPD_OK; /* CREDIT calls again */
        OPD_TRY(opd_err_prefix(err, "the batcher does not take scores"));
        s->message = NULL;
        opd_panel_sample_destroy(s, self->c.alloc);
    }
    return OPD_OK;
}

/* The SCORES of a settled sample. */
static opd_err deliver(opd__panel *self, opd_panel_sample *s) {
    opd_panel_names names = {.stage = self->c.stage, .model = opd__panel_model, .arg = self};
    opd_scores_fields scores;
    OPD_TRY(opd_panel_join(s, &names, self->c.top_k, self->c.asked_k, self->c.alloc, &scores));
    scores.latency_ms = (double)(opd_now_ns(self->ctx) - s->began_ns) / 1e6;
    opd_err err = opd_message_create(opd_self_system(self->ctx), OPD_MESSAGE_SCORES, &scores,
                                     &s->message);
    opd_panel_scores_drop(&scores);
    OPD_TRY(err);
    (void)opd_map_remove(&self->map, key_of(s));
    opd_list_remove(&s->node);
    opd_list_push_back(&self->done, &s->node);
    return flush(self);
}

/* ---- questions ---- */

static void queue_up(opd__panel *self, opd_panel_part *part, bool first) {
    opd_list *waiting = &self->teachers[part->rungs.at].waiting;
    part->state = OPD_PART_WAITING;
    if (first) opd_list_push_front(waiting, &part->queue);
    else opd_list_push_back(waiting, &part->queue);
}

static opd_err retry_later(opd__panel *self) { return opd_timer_start_after(&self->retry, RETRY_NS); }

/* Whether a teacher may be asked one more question now. */
static bool may_ask(const opd__panel *self, int place) {
    opd_pid pid = pid_of(self, place);
    return self->presence[place] != OPD_PRESENCE_STARTING && pid != OPD_PID_NOBODY &&
           opd_alive(opd_self_system(self->ctx), pid) && self->asked_all < self->asked_max &&
           self->teachers[place].asked < self->teachers[place].share;
}

static void count(opd__panel *self, int place, int change) {
    self->teachers[place].asked += (uint32_t)change;
    self->asked_all += (uint32_t)change;
}

/* When a question that a teacher gets now is too late; 0: never. */
static uint64_t deadline_of(const opd__panel *self, double seconds) {
    return in_process(self) ? 0 : opd_now_ns(self->ctx) + (uint64_t)(seconds * 1e9);
}

/* The same of a part: its own deadline, which begins now if it has not, or, where somebody else could be
 * asked in time, half of what is left. An early part has no longer than one attempt: what it is about is
 * asked again in the end. */
static uint64_t part_deadline(const opd__panel *self, opd_panel_part *part) {
    const opd_config_teacher *t = &self->c.stage->teachers[part->rungs.at];
    if (part->early) return deadline_of(self, t->timeout_s);
    if (part->deadline_ns == 0) part->deadline_ns = deadline_of(self, t->deadline_s);
    uint64_t now = opd_now_ns(self->ctx);
    if (part->deadline_ns <= now || !opd_rungs_more(&part->rungs, &self->chains)) return part->deadline_ns;
    return now + (part->deadline_ns - now) / 2;
}

static opd_err on_scored(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply);

/* Asks a part's question. Errors: AGAIN (the teacher, or we, have no room), LIMIT, NOMEM. */
static opd_err ask(opd__panel *self, opd_panel_part *part) {
    const opd_config_stage *stage = self->c.stage;
    const opd_panel_sample *s = part->sample;
    int place = part->rungs.at;
    opd_score_fields f = {.top_k = part->slot == 0 ? self->c.top_k : 0,
                          .temperature = stage->rollout.temperature > 0 ? stage->rollout.temperature : 1,
                          .affinity = affinity_of(s->group), .wait = part->rungs.waits,
                          .deadline_ns = part_deadline(self, part)};
    OPD_TRY(opd_panel_question(part, opd_panel_privileged(s, stage, place), self->c.alloc, &f.tokens,
                               &f.start));
    if (part->slot == 0) f.ids = opd_panel_ids(part, self->c.asked_k);
    opd_trace_set(self->ctx, opd_sample_trace(s->group, s->member));
    opd_err err = opd_message_request(self->ctx, pid_of(self, place), OPD_MESSAGE_SCORE, &f,
                                      OPD_NO_DEADLINE, on_scored, part, NULL);
    opd_buf_release(f.tokens.buf);
    OPD_TRY(err);
    part->state = OPD_PART_ASKED;
    count(self, place, 1);
    return OPD_OK;
}

/* The questions of one teacher, as far as it goes; false: it has no room now. */
static opd_err pump_teacher(opd__panel *self, int place) {
    opd_list *waiting = &self->teachers[place].waiting;
    for (opd_list *node; may_ask(self, place) && (node = opd_list_first(waiting)) != NULL;) {
        opd_panel_part *part = OPD_CONTAINER_OF(node, opd_panel_part, queue);
        opd_err err = ask(self, part);
        if (err == OPD_ERR_AGAIN) return retry_later(self);
        OPD_TRY(err);
        opd_list_remove(node);
    }
    return OPD_OK;
}

static opd_err pump(opd__panel *self) {
    uint32_t n = self->chains.count;
    self->turn = (self->turn + 1) % n;
    for (uint32_t i = 0; i < n; i++) OPD_TRY(pump_teacher(self, (int)((self->turn + i) % n)));
    return OPD_OK;
}

/* ---- answers ---- */

/* Adds what an answer cost to the books of its sample. */
static void note_cost(opd_panel_part *part, const opd_scored_fields *f) {
    opd_panel_sample *s = part->sample;
    s->attempts += f->attempts > 0 ? f->attempts : 1;
    s->moves += f->moves;
    s->hedges += f->hedges;
    if (!part->early && f->wait_ms > s->wait_ms) s->wait_ms = f->wait_ms;
}

/* What came back for a part is no score of its tokens. Whoever comes next is asked. */
static opd_err next_rung(opd__panel *self, opd_panel_part *part, opd_err err, const char *why) {
    bool late = part->deadline_ns != 0 && opd_now_ns(self->ctx) >= part->deadline_ns;
    if (part->early) {
        if (opd_panel_early_back(part, &self->chains, self->c.alloc)) queue_up(self, part, false);
        return OPD_OK;
    }
    int next = opd_rungs_next(&part->rungs, &self->chains, err == OPD_ERR_CLOSED);
    if (next != OPD_ROUTE_NOBODY && !late) {
        queue_up(self, part, false);
        return OPD_OK;
    }
    opd_panel_part_fail(part, why);
    return opd_panel_settled(part->sample) ? deliver(self, part->sample) : OPD_OK;
}

/* Its mailbox or queue is full: the part is the next to be asked. */
static opd_err ask_again(opd__panel *self, opd_panel_part *part) {
    if (!part->early) queue_up(self, part, true);
    else if (opd_panel_early_back(part, &self->chains, self->c.alloc)) queue_up(self, part, true);
    return retry_later(self);
}

static opd_err on_scored(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    opd__panel *self = state;
    opd_panel_part *part = arg;
    opd_scored_fields f = {.attempts = 0};
    char why[OPD_MESSAGE_TEXT_SIZE];
    int place = part->rungs.at;
    (void)ctx;
    count(self, place, -1);
    (void)snprintf(why, sizeof why, "%s", err == OPD_OK ? "" : opd_err_context());
    if (err == OPD_ERR_AGAIN) return ask_again(self, part);
    if (err == OPD_ERR_CLOSED && !opd_alive(opd_self_system(self->ctx), pid_of(self, place))) {
        queue_up(self, part, true); /* its actor is gone, and soon all of us */
        return OPD_OK;
    }
    if (err == OPD_OK) err = opd_message_read(reply, OPD_MESSAGE_SCORED, &f);
    if (err == OPD_OK) note_cost(part, &f);
    else part->sample->attempts += err != OPD_ERR_CLOSED;
    if (err == OPD_OK && f.logp.buf == NULL) err = opd_fail(OPD_ERR_REMOTE, "%s", f.reason);
    if (err == OPD_OK)
        err = opd_panel_answered(part, &f, part->slot == 0 ? self->c.top_k : 0,
                                 part->slot == 0 ? self->c.asked_k : 0);
    if (err != OPD_OK) {
        if (why[0] == '\0') (void)snprintf(why, sizeof why, "%s", opd_err_context());
        OPD_TRY(next_rung(self, part, err, why));
    } else if (opd_panel_settled(part->sample)) {
        OPD_TRY(deliver(self, part->sample));
    }
    return pump(self);
}

/* ---- samples ---- */

/* A monitor without room for it hears of it with the next one. */
static void count_unserved(opd__panel *self) {
    opd_counted_fields f = {.metric = OPD_METRIC_TEACHER_UNSERVED,
                            .value = (double)(++self->unserved - self->unserved_told)};
    if (opd_message_send(self->ctx, self->c.roles->monitor, OPD_MESSAGE_COUNTED, &f) == OPD_OK)
        self->unserved_told = self->unserved;
}

/* A value that no teacher serves: the person may have made a mistake. Told at the 1st, 2nd, 4th ... */
static void note_unserved(opd__panel *self, const char *source) {
    bool known = true;
    uint8_t places[OPD_CONFIG_TEACHERS_MAX];
    (void)opd_config_route(self->c.stage, source, places, &known);
    if (known) return;
    count_unserved(self);
    if ((self->unserved & (self->unserved - 1)) != 0) return;
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
             "no teacher serves '%.60s' (opd.teacher_key): opd.teacher scores it (samples so far: "
             "%" PRIu64 ")", source, self->unserved);
}

static opd_err sample_create(opd__panel *self, uint64_t group, uint32_t member, uint32_t prompt_len,
                             const char *source, opd_slice privileged, opd_panel_sample **out_sample) {
    opd_panel_sample *s = opd_mem_get(self->c.alloc, sizeof *s);
    if (s == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a sample");
    opd_panel_sample_init(s, self->c.stage, group, member, prompt_len, source, privileged);
    opd_err err = opd_map_put(&self->map, key_of(s), s);
    if (err != OPD_OK) {
        opd_panel_sample_destroy(s, self->c.alloc);
        return err;
    }
    opd_list_push_back(&self->samples, &s->node);
    for (uint32_t i = 0; i < s->slot_count; i++) OPD_TRY(opd__panel_want(self, s->slots[i].teacher));
    if (!opd__panel_hold_tell(self)) OPD_TRY(retry_later(self));
    note_unserved(self, source);
    *out_sample = s;
    return OPD_OK;
}

static opd_panel_sample *sample_find(const opd__panel *self, uint64_t group, uint32_t member) {
    return opd_map_get(&self->map, group << MEMBER_BITS | member);
}

/* All that nobody was asked for yet. */
static opd_err ask_for_rest(opd__panel *self, opd_panel_sample *s) {
    for (uint32_t slot = 0; slot < s->slot_count; slot++) {
        opd_panel_part *part;
        if (s->slots[slot].asked_to == s->have) continue;
        OPD_TRY(opd_panel_part_add(s, slot, s->have, false, &self->chains, self->c.alloc, &part));
        queue_up(self, part, false);
    }
    return opd_panel_settled(s) ? deliver(self, s) : pump(self);
}

static opd_err take_rollout(opd__panel *self, opd_msg *msg) {
    opd_rollout_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_ROLLOUT, &f));
    opd_panel_sample *s = sample_find(self, f.group, f.member);
    if (s == NULL) OPD_TRY(sample_create(self, f.group, f.member, f.prompt_len, f.source, f.privileged, &s));
    else if (s->rollout == NULL) self->early_count--;
    else return opd_fail(OPD_ERR_INTERNAL, "sample %" PRIu64 "/%u comes twice", f.group, f.member);
    OPD_TRY(opd_panel_complete(s, &f, self->c.asked_k));
    opd_msg_take(self->ctx, msg);
    s->rollout = msg;
    s->began_ns = opd_now_ns(self->ctx);
    if (f.finish != OPD_FINISH_ABORT && s->have > s->prompt_len) return ask_for_rest(self, s);
    (void)snprintf(s->reason, sizeof s->reason, "there is no response to score");
    return opd_panel_settled(s) ? deliver(self, s) : OPD_OK;
}

/* ---- while the student writes ---- */

static opd_err ask_early(opd__panel *self, opd_panel_sample *s, uint32_t slot) {
    int place = s->slots[slot].teacher;
    uint32_t to = opd_panel_early_to(s, slot, chunk_tokens(self, place));
    opd_panel_part *part;
    bool others_first = !opd_list_empty(&self->teachers[place].waiting);
    if (to == 0 || others_first || self->presence[place] != OPD_PRESENCE_UP || !may_ask(self, place))
        return OPD_OK;
    OPD_TRY(opd_panel_part_add(s, slot, to, true, &self->chains, self->c.alloc, &part));
    opd_err err = ask(self, part);
    if (err != OPD_ERR_AGAIN) return err;
    (void)opd_panel_early_back(part, &self->chains, self->c.alloc);
    s->slots[slot].early_failed = false; /* it was not even asked: the next chunk tries again */
    return OPD_OK;
}

static opd_err on_warmed(opd_ctx *ctx, void *state, void *arg, opd_err err, opd_msg *reply) {
    opd__panel *self = state;
    const opd__panel_teacher *teacher = arg;
    (void)ctx, (void)err, (void)reply; /* whoever has the prompt now: no matter */
    count(self, (int)(teacher - self->teachers), -1);
    return pump(self);
}

/* Has a teacher compute the prompt, so that the members of its group find it there. A prompt that is
 * shorter than a chunk is not worth a question of its own. */
static opd_err warm(opd__panel *self, const opd_panel_sample *s, int place) {
    opd_slice prompt = opd_panel_privileged(s, self->c.stage, place);
    if (prompt.buf == NULL) {
        prompt = s->tokens;
        prompt.size_bytes = s->prompt_len * sizeof(int32_t);
    }
    uint32_t length = (uint32_t)(prompt.size_bytes / sizeof(int32_t)), tokens = chunk_tokens(self, place);
    const opd_config_teacher *t = &self->c.stage->teachers[place];
    opd_score_fields f = {.tokens = prompt, .start = length - 2, .temperature = 1,
                          .affinity = affinity_of(s->group),
                          .deadline_ns = deadline_of(self, t->timeout_s)};
    if (length < 2 || tokens == 0 || length < tokens || self->presence[place] != OPD_PRESENCE_UP ||
        !may_ask(self, place))
        return OPD_OK;
    opd_err err = opd_message_request(self->ctx, pid_of(self, place), OPD_MESSAGE_SCORE, &f,
                                      OPD_NO_DEADLINE, on_warmed, &self->teachers[place], NULL);
    if (err == OPD_OK) count(self, place, 1);
    return err == OPD_ERR_AGAIN ? OPD_OK : err;
}

static opd_err take_chunk(opd__panel *self, const opd_msg *msg) {
    opd_chunk_fields f;
    bool taken;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_CHUNK, &f));
    opd_panel_sample *s = sample_find(self, f.group, f.member);
    if (s == NULL) {
        if (f.offset != 0 || f.prompt_len == 0 || self->early_count >= self->c.samples_max) return OPD_OK;
        OPD_TRY(sample_create(self, f.group, f.member, f.prompt_len, f.source, f.privileged, &s));
        self->early_count++;
    }
    OPD_TRY(opd_panel_chunk(s, &f, self->c.max_len, self->c.asked_k, self->c.alloc, &taken));
    for (uint32_t slot = 0; taken && slot < s->slot_count; slot++) {
        if (s->have == s->prompt_len) OPD_TRY(warm(self, s, s->slots[slot].teacher));
        else OPD_TRY(ask_early(self, s, slot));
    }
    return OPD_OK;
}

/* ---- the actor ---- */

static opd_err on_retry(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__panel *self = state;
    (void)ctx, (void)timer;
    if (!opd__panel_hold_tell(self)) OPD_TRY(retry_later(self));
    return pump(self);
}

/* What each teacher gets of the whole at most, so that one that hangs leaves room for the others: of a
 * configured bound about twice its share; else all but what the others may be asked. */
static void share_out(opd__panel *self) {
    const opd_config_stage *stage = self->c.stage;
    int64_t bound = stage->opd.teacher_inflight_max, wanted = 0;
    uint32_t used = 0;
    self->asked_max = bound > 0 ? (uint32_t)bound : OPD_PANEL_REQUESTS_MAX;
    for (uint32_t i = 0; i < self->chains.count; i++) {
        used += self->chains.used[i];
        wanted += self->chains.used[i] ? stage->teachers[i].max_inflight : 0;
    }
    for (uint32_t i = 0; i < self->chains.count; i++) {
        int64_t others = wanted - stage->teachers[i].max_inflight, left = self->asked_max - others;
        self->teachers[i].share = used <= 1   ? self->asked_max
                                  : bound > 0 ? (2 * self->asked_max + used) / (used + 1)
                                              : (uint32_t)(left > 0 ? left : 1);
    }
}

static opd_err on_start(opd_ctx *ctx, void *state, const void *config) {
    opd__panel *self = state;
    self->c = *(const opd_panel_config *)config;
    self->ctx = ctx;
    opd_chains_init(&self->chains, self->c.stage);
    for (uint32_t i = 0; i < OPD_CONFIG_TEACHERS_MAX; i++) opd_list_init(&self->teachers[i].waiting);
    share_out(self);
    opd_list_init(&self->samples);
    opd_list_init(&self->done);
    opd_map_init(&self->map, self->c.alloc, (size_t)self->c.samples_max + self->c.window_msgs);
    opd_timer_init(&self->retry, ctx, on_retry);
    opd__panel_presence_init(self);
    return opd_link_open(ctx, self->c.roles->batcher, self->c.window_msgs, self->c.window_bytes,
                         &self->link);
}

static opd_err on_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    opd__panel *self = state;
    (void)ctx;
    if (opd_msg_kind(msg) == OPD_MESSAGE_ROLLOUT) return take_rollout(self, msg);
    if (opd_msg_kind(msg) == OPD_MESSAGE_CHUNK) return take_chunk(self, msg);
    OPD_TRY(opd__panel_presence_take(self, msg));
    if (!opd__panel_hold_tell(self)) OPD_TRY(retry_later(self));
    return pump(self);
}

static opd_err on_signal(opd_ctx *ctx, void *state, const opd_signal *signal) {
    (void)ctx;
    return signal->kind == OPD_SIGNAL_CREDIT ? flush(state) : OPD_OK;
}

static void on_stop(opd_ctx *ctx, void *state) {
    opd__panel *self = state;
    (void)ctx;
    if (self->samples.next == NULL) return; /* it did not start */
    opd_list *lists[] = {&self->samples, &self->done};
    for (size_t i = 0; i < OPD_COUNTOF(lists); i++)
        for (opd_list *node; (node = opd_list_first(lists[i])) != NULL;)
            opd_panel_sample_destroy(OPD_CONTAINER_OF(node, opd_panel_sample, node), self->c.alloc);
    opd_map_fini(&self->map);
}

/* Of a teacher's news only the newest counts. */
static const opd_kind_policy policies[] = {{OPD_MESSAGE_PRESENCE, OPD_OVERFLOW_KEEP_LATEST}};

const opd_actor_class opd_panel_class = {
    .name = "panel",
    .state_size = sizeof(opd__panel),
    .requests_max = OPD_PANEL_REQUESTS_MAX,
    .policies = policies,
    .policy_count = OPD_COUNTOF(policies),
    .on_start = on_start,
    .on_message = on_message,
    .on_signal = on_signal,
    .on_stop = on_stop,
};
