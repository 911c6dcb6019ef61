/* rules_self.c - teachers that are the student itself, and prompts that only teachers see. See load.h.
 *
 * Such a teacher knows more than the student only by its prompt; without one there is nothing to learn. */
#include <string.h>

#include "core/base/check.h"
#include "core/config/load.h"

/* The key that says where the privileged prompt is; NULL: there is none. */
static const char *privileged_key(const opd_config_record *record) {
    if (record->privileged_messages_key[0] != 0) return "privileged_messages_key";
    if (record->privileged_template[0] != 0) return "privileged_template";
    return record->privileged_key[0] != 0 ? "privileged_key" : NULL;
}

/* The same of all of a stage's data, as a path of the configuration. */
static const char *privileged_path(const opd_config_data *data, size_t *out_item) {
    static const struct { const char *key, *path, *of_source; } paths[] = {
        {"privileged_key", "data.privileged_key", "data.sources.*.privileged_key"},
        {"privileged_template", "data.privileged_template", "data.sources.*.privileged_template"},
        {"privileged_messages_key", "data.privileged_messages_key", "data.sources.*.privileged_messages_key"}};
    const char *key = privileged_key(&data->record);
    bool of_source = false;
    *out_item = 0;
    for (size_t i = 0; key == NULL && i < data->source_count; i++) {
        key = privileged_key(&data->sources[i].record);
        of_source = key != NULL;
        *out_item = i;
    }
    for (size_t i = 0; key != NULL && i < OPD_COUNTOF(paths); i++)
        if (strcmp(key, paths[i].key) == 0) return of_source ? paths[i].of_source : paths[i].path;
    return NULL;
}

/* A teacher that is the student: where its weights are from, and that it knows more. */
static opd_err student_check(opd__draft *draft, size_t i, bool privileged, bool alone) {
    const opd_config_stage *s = &draft->stage;
    const opd_config_teacher *t = &s->teachers[i];
    const char *key = "teachers.*.student";
    bool current = t->student == OPD_CONFIG_STUDENT_CURRENT;
    if (t->path[0] != 0 || t->url[0] != 0 || t->urls[0] != 0 || t->ckpt_step >= 0)
        return opd__draft_fail(draft, key, i, "is the student's own model; leave path, url, urls and ckpt_step "
                               "out, or student");
    if (s->model.path[0] == 0)
        return opd__draft_fail(draft, key, i, "is a student with random weights, which knows nothing; give "
                               "model.path");
    if (current && s->opd.type != OPD_CONFIG_OPD_TYPE_MEGATRON)
        return opd__draft_fail(draft, key, i, "current needs the trainer's weights, which a server does not "
                               "have; set opd.type: megatron, or student: start");
    if (privileged && t->privileged) return OPD_OK;
    if (current || (alone && s->opd.only_reward))
        return opd__draft_fail(draft, key, i, "cannot learn: the teacher has the student's weights and sees the "
                               "student's prompt, so they agree; give data.privileged_template (or "
                               "privileged_key), which holds what the student does not see");
    return OPD_OK;
}

opd_err opd__self_check(opd__draft *draft) {
    const opd_config_stage *s = &draft->stage;
    bool asked = s->opd.enabled && s->opd.type != OPD_CONFIG_OPD_TYPE_CONSTANT;
    size_t item, used = 0, seeing = 0;
    const char *path = privileged_path(&s->data, &item);
    for (size_t i = 0; asked && i < s->teacher_count; i++) {
        if (!opd_config_teacher_used(s, i)) continue;
        used++;
        seeing += s->teachers[i].privileged;
    }
    if (path != NULL && !asked)
        return opd__draft_fail(draft, path, item, "is for a teacher, and none is asked; leave it out, or set "
                               "opd.enabled and a teacher");
    if (path != NULL && seeing == 0)
        return opd__draft_fail(draft, path, item, "is seen by no teacher: each has privileged: false");
    for (size_t i = 0; asked && i < s->teacher_count; i++)
        if (opd_config_teacher_used(s, i) && s->teachers[i].student != OPD_CONFIG_STUDENT_NONE)
            OPD_TRY(student_check(draft, i, path != NULL, used == 1));
    return OPD_OK;
}
