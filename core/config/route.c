/* route.c - which of a stage's teachers score what (opd/config.h). Thread: any; allocates nothing. */
#include <string.h>

#include "core/config/load.h"

bool opd_config_word_at(const char *words, size_t index, char *out, size_t out_size) {
    for (const char *at = words; at != NULL; index--) {
        at += strspn(at, ", ");
        size_t size = strcspn(at, ",");
        const char *next = at + size;
        while (size > 0 && at[size - 1] == ' ') size--;
        if (size == 0 || size >= out_size) return false;
        if (index == 0) {
            memcpy(out, at, size);
            out[size] = 0;
            return true;
        }
        at = next;
    }
    return false;
}

bool opd_config_url_at(const opd_config_teacher *teacher, size_t index, char *out,
                       size_t out_size) {
    bool several = teacher->urls != NULL && teacher->urls[0] != 0;
    return opd_config_word_at(several ? teacher->urls : teacher->url, index, out, out_size);
}

const opd_config_teacher *opd_config_teacher_find(const opd_config_stage *stage,
                                                  const char *name) {
    int place = opd_config_teacher_place(stage, name);
    return place < 0 ? NULL : &stage->teachers[place];
}

int opd_config_teacher_place(const opd_config_stage *stage, const char *name) {
    for (size_t i = 0; i < stage->teacher_count; i++)
        if (strcmp(stage->teachers[i].name, name) == 0) return (int)i;
    return -1;
}

static bool serves(const opd_config_teacher *teacher, const char *source) {
    char word[OPD_CONFIG_WORD_SIZE];
    const char *words = teacher->serves[0] != 0 ? teacher->serves : teacher->name;
    for (size_t i = 0; opd_config_word_at(words, i, word, sizeof word); i++)
        if (strcmp(word, source) == 0) return true;
    return false;
}

/* The teachers of opd.teacher. */
static size_t default_route(const opd_config_stage *stage, uint8_t *out) {
    char name[OPD_CONFIG_WORD_SIZE];
    size_t count = 0;
    for (size_t i = 0; opd_config_word_at(stage->opd.teacher, i, name, sizeof name); i++) {
        int place = opd_config_teacher_place(stage, name);
        if (place >= 0 && count < OPD_CONFIG_TEACHERS_MAX) out[count++] = (uint8_t)place;
    }
    return count;
}

size_t opd_config_route(const opd_config_stage *stage, const char *source,
                        uint8_t out[OPD_CONFIG_TEACHERS_MAX], bool *out_known) {
    size_t count = 0;
    bool keyed = stage->opd.teacher_key[0] != 0; /* else a source that nobody serves is no surprise */
    bool asked = (keyed || stage->data.source_count > 0) && source[0] != 0;
    for (size_t i = 0; asked && i < stage->teacher_count; i++)
        if (serves(&stage->teachers[i], source)) out[count++] = (uint8_t)i;
    if (out_known != NULL) *out_known = count > 0 || !asked || !keyed;
    return count > 0 ? count : default_route(stage, out);
}

/* Whether a question to one of `from` may come to the teacher at `place`, over fallbacks. */
static bool reaches(const opd_config_stage *stage, const uint8_t *from, size_t count, size_t place) {
    for (size_t i = 0; i < count; i++) {
        int at = from[i];
        for (size_t hops = 0; at >= 0 && hops <= stage->teacher_count; hops++) {
            if ((size_t)at == place) return true;
            at = opd_config_teacher_place(stage, stage->teachers[at].fallback);
        }
    }
    return false;
}

bool opd_config_teacher_used(const opd_config_stage *stage, size_t place) {
    uint8_t from[OPD_CONFIG_TEACHERS_MAX];
    if (!stage->opd.enabled || stage->opd.type == OPD_CONFIG_OPD_TYPE_CONSTANT) return false;
    if (stage->opd.teacher_key[0] != 0) return true; /* each serves some value */
    if (reaches(stage, from, default_route(stage, from), place)) return true;
    for (size_t i = 0; i < stage->data.source_count; i++) {
        size_t count = opd_config_route(stage, stage->data.sources[i].name, from, NULL);
        if (reaches(stage, from, count, place)) return true;
    }
    return false;
}
