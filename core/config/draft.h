/* draft.h - a stage while it is being put together: its values, and where each came from.
 *
 * Layers are applied in any order; opd__draft_set keeps the stronger one where two exclusive
 * keys meet (schema.h). Thread: one owner. Nodes and strings belong to the loader's arena.
 */
#ifndef OPD_CORE_CONFIG_DRAFT_H
#define OPD_CORE_CONFIG_DRAFT_H

#include "core/config/schema.h"

typedef enum opd__layer {
    OPD__LAYER_DEFAULT,
    OPD__LAYER_BASE,     /* the file's top level */
    OPD__LAYER_STAGE,    /* the stage's own sections */
    OPD__LAYER_FLAG,     /* seed-page flags */
    OPD__LAYER_SET,      /* --set KEY=VALUE */
    OPD__LAYER_SET_STAGE /* --set stages.NAME.KEY=VALUE */
} opd__layer;

typedef struct opd__origin {
    const opd__node *node; /* NULL: a default */
    opd__layer layer;
} opd__origin;

typedef struct opd__draft {
    opd_config_stage stage;
    opd__arena *arena;     /* of names */
    const opd__node *node; /* the stage in the file, or its root: place of errors */
    bool listed;           /* an entry of `stages`: keys are shown as stages.NAME.KEY */
    /* [0] of ordinary keys, [1 + item] of a map's item */
    opd__origin origins[1 + OPD__ITEMS_MAX][OPD__KEYS_MAX];
} opd__draft;

/* All defaults; `node` is the file's root. */
void opd__draft_init(opd__draft *draft, opd__arena *arena, const opd__node *node);

/* Applies a mapping of sections. Error at the first key that is unknown, unfit or clashes. */
opd_err opd__draft_apply(opd__draft *draft, const opd__node *map, opd__layer layer)
    OPD_MUST_CHECK;

/* Applies one value to a dotted path without stage ("teachers.big.url"). */
opd_err opd__draft_apply_path(opd__draft *draft, const char *path, const opd__node *value,
                              opd__layer layer) OPD_MUST_CHECK;

/* Stores one value. `item` is the index in the key's map. */
opd_err opd__draft_set(opd__draft *draft, const opd__key *key, size_t item,
                       const opd__node *value, opd__layer layer) OPD_MUST_CHECK;

/* Index of the map's item called `name`, made when missing. `node` is its place. */
opd_err opd__draft_item(opd__draft *draft, const opd__map *map, const char *name,
                        const opd__node *node, size_t *out_item) OPD_MUST_CHECK;

/* Where the key got its value. */
opd__origin *opd__draft_origin(opd__draft *draft, const opd__key *key, size_t item);

/* Whether any layer gave the key (not for keys in maps). */
bool opd__draft_given(opd__draft *draft, const char *path);

/* Whether a layer gave the key another value than its default: what a rule about a key without effect
 * asks, since the effective configuration gives every key (not for keys in maps, nor derived ones). */
bool opd__draft_changed(opd__draft *draft, const char *path);

/* An error of OPD_ERR_CONFIG about `path` (a table path), at the place of its value, or of
 * the stage where no layer gave it. */
opd_err opd__draft_fail(opd__draft *draft, const char *path, size_t item, const char *fmt, ...)
    OPD_PRINTF(4, 5) OPD_MUST_CHECK;

/* The key's full path with stage and item names. */
const char *opd__draft_display(opd__draft *draft, const opd__key *key, size_t item,
                               char out[OPD__PATH_SIZE]);

#endif
