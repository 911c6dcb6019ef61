/* overrides.h - the settings of a command line, as the loader reads them.
 * Thread: one owner at a time; opd_config_overrides_destroy frees. */
#ifndef OPD_CORE_CONFIG_OVERRIDES_H
#define OPD_CORE_CONFIG_OVERRIDES_H

#include "core/config/schema.h"

/* How a seed-page flag reaches the structs. */
typedef enum opd__flag_target {
    OPD__FLAG_TARGET_KEY,         /* the key, in every rl stage */
    OPD__FLAG_TARGET_ENABLED,     /* the key, in every rl stage in which OPD is on */
    OPD__FLAG_TARGET_TEACHER,     /* the key of the teacher that distils, there */
    OPD__FLAG_TARGET_TEACHER_URL, /* the same, only with opd.type sglang */
    OPD__FLAG_TARGET_TEACHERS     /* the key of every teacher */
} opd__flag_target;

typedef struct opd__flag {
    const char *name;
    const char *key; /* table path */
    opd__flag_target target;
    bool takes_value; /* false: giving it means true */
} opd__flag;

/* One setting. */
typedef struct opd__override {
    const opd__flag *flag; /* NULL: a --set */
    const char *path;      /* of a --set: as written, before '=' */
    opd__node *value;      /* its `file` is the flag as errors show it */
    struct opd__override *next;
} opd__override;

struct opd_config_overrides {
    opd__arena *arena;
    opd__override *first, *last; /* in the order given */
};

#endif
