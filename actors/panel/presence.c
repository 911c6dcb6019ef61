/* presence.c - who of the panel can be reached, and what follows for admission and for the
 * start of a run (panel_inside.h). Thread: the loop. */
#include <stdio.h>

#include "actors/panel/panel_inside.h"
#include "core/base/check.h"
#include "opd/log.h"

static bool cannot(opd_presence state) {
    return state == OPD_PRESENCE_DOWN || state == OPD_PRESENCE_LATE;
}

static bool never_came(opd_presence state) { return state == OPD_PRESENCE_LATE; }

bool opd__panel_hold_tell(opd__panel *self) {
    opd_hold_fields fields = {.hold = self->hold};
    if (self->hold == self->hold_told || self->c.roles->dataset == OPD_PID_NOBODY) return true;
    opd_err err = opd_message_send(self->ctx, self->c.roles->dataset, OPD_MESSAGE_HOLD, &fields);
    if (err == OPD_ERR_AGAIN || err == OPD_ERR_LIMIT) return false;
    self->hold_told = self->hold;
    return true;
}

static const char *last_of(const opd__panel *self, uint32_t place) {
    const char *why = self->teachers[place].why;
    return why[0] != '\0' ? why : "nothing has answered";
}

/* Admission was held for so long that nothing is under way any more that could find the teacher lost. */
static opd_err on_lost(opd_ctx *ctx, void *state, opd_timer *timer) {
    opd__panel *self = state;
    (void)ctx, (void)timer;
    if (self->failed) return OPD_OK;
    self->failed = true;
    opd_system_stop(opd_self_system(self->ctx),
        opd_fail(OPD_ERR_TEACHER_LOST, "teacher %s could not be reached for %g s (opd.teacher_lost_s), nor "
                 "anybody who is asked instead of it; its last: %s. Start the server again and continue with "
                 "--resume", self->c.stage->teachers[self->held_by].name, self->c.stage->opd.teacher_lost_s,
                 last_of(self, self->held_by)));
    return OPD_OK;
}

/* A teacher in this process is there, and so are those who are not asked at all. */
void opd__panel_presence_init(opd__panel *self) {
    const opd_config_stage *stage = self->c.stage;
    bool in_process = stage->opd.type == OPD_CONFIG_OPD_TYPE_MEGATRON;
    uint8_t places[OPD_CONFIG_TEACHERS_MAX];
    opd_timer_init(&self->lost, self->ctx, on_lost);
    for (uint32_t i = 0; i < self->chains.count; i++)
        self->presence[i] = in_process || !self->chains.used[i] ? OPD_PRESENCE_UP
                                                                : OPD_PRESENCE_STARTING;
    for (uint32_t i = 0; in_process && i < self->chains.count; i++)
        self->teachers[i].reuses_prefix = stage->device.teacher_cache_mb > 0;
    size_t count = opd_config_route(stage, "", places, NULL);
    for (size_t i = 0; i < count; i++) self->teachers[places[i]].wanted = true;
}

/* The clock of a loss runs while admission is held. */
static opd_err clock_set(opd__panel *self, bool was_held) {
    if (self->hold == was_held) return OPD_OK;
    opd_timer_stop(&self->lost);
    if (!self->hold) return OPD_OK;
    return opd_timer_start_after(&self->lost, (uint64_t)(self->c.stage->opd.teacher_lost_s * 1e9));
}

/* Whether samples that are to be scored by somebody cannot be, by anybody. */
static opd_err look(opd__panel *self) {
    bool was_held = self->hold;
    self->hold = false;
    for (uint32_t i = 0; i < self->chains.count; i++) {
        if (!self->teachers[i].wanted) continue;
        if (opd_chain_all(&self->chains, (int)i, self->presence, cannot)) {
            self->hold = true;
            self->held_by = i;
        }
        if (self->failed || !opd_chain_all(&self->chains, (int)i, self->presence, never_came)) continue;
        self->failed = true;
        opd_system_stop(opd_self_system(self->ctx),
            opd_fail(OPD_ERR_TIMEOUT, "teacher %s was not ready in time, and neither was anybody who is "
                     "asked instead of it (teachers.*.fallback); its last: %s. Check that a server runs "
                     "there, and that host and port are right", self->c.stage->teachers[i].name,
                     last_of(self, i)));
    }
    return clock_set(self, was_held);
}

opd_err opd__panel_presence_take(opd__panel *self, const opd_msg *msg) {
    opd_presence_fields f;
    OPD_TRY(opd_message_read(msg, OPD_MESSAGE_PRESENCE, &f));
    if (f.teacher >= self->chains.count || f.state > OPD_PRESENCE_LATE)
        return opd_fail(OPD_ERR_PARSE, "presence %u of teacher %u", f.state, f.teacher);
    opd__panel_teacher *t = &self->teachers[f.teacher];
    self->presence[f.teacher] = (opd_presence)f.state;
    t->reuses_prefix = f.reuses_prefix;
    (void)snprintf(t->model, sizeof t->model, "%s", f.model);
    (void)snprintf(t->why, sizeof t->why, "%s", f.why);
    return look(self);
}

opd_err opd__panel_want(opd__panel *self, uint32_t place) {
    if (self->teachers[place].wanted) return OPD_OK;
    self->teachers[place].wanted = true;
    return look(self);
}

const char *opd__panel_model(void *arg, int place) {
    const opd__panel *self = arg;
    return self->c.model != NULL ? self->c.model : self->teachers[place].model;
}
