/* schema.h - the one table of configuration keys, and what can be asked of it.
 *
 * A key's path is dotted; "*" stands for a name the user chooses (teachers.*.url). The
 * table is ordered by section, as the effective YAML and the reference page print it.
 *
 * Thread: any; all of it is constant.
 */
#ifndef OPD_CORE_CONFIG_SCHEMA_H
#define OPD_CORE_CONFIG_SCHEMA_H

#include "core/config/yaml_tree.h"
#include "opd/config.h"

enum {
    OPD__KEYS_MAX = 256,  /* upper bound of the table, checked at compile time */
    OPD__ITEMS_MAX = 16,  /* of one map: teachers, splits */
    OPD__PATH_SIZE = 256, /* a dotted path with its NUL */
    OPD__VALUE_SIZE = 64  /* a number or enum value as text */
};

typedef enum opd__type {
    OPD__TYPE_BOOL,   /* bool        */
    OPD__TYPE_INT,    /* int64_t     */
    OPD__TYPE_FLOAT,  /* double      */
    OPD__TYPE_ENUM,   /* int         */
    OPD__TYPE_STRING, /* const char *, and so are the rest */
    OPD__TYPE_NAME,   /* letters, digits, '-', '_' */
    OPD__TYPE_URL,    /* http:// or https://      */
    OPD__TYPE_PATH,   /* file or folder           */
    OPD__TYPE_URLS,   /* a list of them, or one text with commas; kept as the latter */
    OPD__TYPE_WORDS   /* the same of names or other words */
} opd__type;

enum {
    OPD__KEY_RUN_ONLY = 1,  /* of the whole run: not allowed inside a stage */
    OPD__KEY_REFERENCE = 2, /* may be "@stages.NAME.RESULT" */
    OPD__KEY_ABOVE_MIN = 4, /* min itself is not allowed */
    OPD__KEY_BELOW_MAX = 8  /* max itself is not allowed */
};

typedef struct opd__key {
    const char *path;
    opd__type type;
    unsigned flags;
    size_t offset;       /* in opd_config_stage; with "*" in the path, in the map's item */
    const char *initial; /* default as YAML text */
    const char *derived; /* where the default comes from instead, in words; or NULL */
    double min, max;     /* of numbers */
    const char *unit;    /* "" = none */
    const char *const *names; /* of an enum, in value order, NULL-terminated */
    const char *doc;
} opd__key;

typedef struct opd__section {
    const char *path;
    const char *doc;
} opd__section;

/* A mapping whose names the user chooses: an array in opd_config_stage. Each item begins
 * with its `const char *name`. */
typedef struct opd__map {
    const char *path;     /* "teachers" */
    size_t items_offset;  /* of the array */
    size_t count_offset;  /* of its size_t */
    size_t item_size;
    bool scalar; /* an entry is one value (path.*), not a mapping (path.*.key) */
} opd__map;

/* Of these two keys (or sections) at most one may be given in one layer. */
typedef struct opd__exclusive {
    const char *one, *other;
} opd__exclusive;

extern const opd__key opd__keys[];
extern const size_t opd__key_count;
extern const opd__section opd__sections[];
extern const size_t opd__section_count;
extern const opd__map opd__maps[];
extern const size_t opd__map_count;
extern const opd__exclusive opd__exclusives[];
extern const size_t opd__exclusive_count;

/* The key with this path (with "*"), or NULL. */
const opd__key *opd__key_find(const char *path);

/* Index in opd__keys. */
size_t opd__key_index(const opd__key *key);

/* The section or map with this path, or NULL. */
const opd__section *opd__section_find(const char *path);
const opd__map *opd__map_find(const char *path);

/* The map whose items hold `key`, or NULL for an ordinary key. */
const opd__map *opd__key_map(const opd__key *key);

/* Whether `path` is `prefix` or below it ("model.init.heads" is below "model.init"). */
bool opd__path_below(const char *path, const char *prefix);

/* The map's item count and an item, in `stage`. */
size_t *opd__map_size(const opd__map *map, opd_config_stage *stage);
void *opd__map_item(const opd__map *map, opd_config_stage *stage, size_t item);

/* Where `key` lives in `stage`; `item` is the index in its map (ignored without one). */
void *opd__key_field(const opd__key *key, opd_config_stage *stage, size_t item);

/* Writes the path with "*" replaced by `item_name`. */
const char *opd__key_display(const opd__key *key, const char *item_name,
                             char out[OPD__PATH_SIZE]);

/* Stores what `node` says at `field`; `display` is the key's full path, for errors. Strings
 * are not copied: they point into the node. Errors: CONFIG. */
opd_err opd__value_store(const opd__key *key, const char *display, const opd__node *node,
                         void *field) OPD_MUST_CHECK;

/* Stores the key's default. */
void opd__value_initial(const opd__key *key, void *field);

/* The value at `field` as text: number and enum text is written to `out`, a string is
 * returned itself. Equal values give equal texts. */
const char *opd__value_text(const opd__key *key, const void *field, char out[OPD__VALUE_SIZE]);

/* Whether the value counts as not given: 0, "" or none. */
bool opd__value_empty(const opd__key *key, const void *field);

/* Whether text is a legal name: 1..OPD_CONFIG_NAME_MAX letters, digits, '-', '_'. */
bool opd__name_legal(const char *text);

/* Splits "@stages.NAME.RESULT" into *out_stage (at most OPD_CONFIG_NAME_MAX bytes) and the
 * result, or returns false. */
bool opd__reference_split(const char *text, char out_stage[OPD_CONFIG_NAME_MAX + 1],
                          const char **out_result);

/* Optimal-string-alignment distance of two words, each cut at 64 bytes. */
size_t opd__edit_distance(const char *a, const char *b);

/* Writes advice for the unknown key `name` below section `prefix` ("" = top level, "*" for
 * user names): "nearest valid key is ..." or "valid keys are ...". */
const char *opd__key_advice(const char *prefix, const char *name, char *out, size_t out_size);

#endif
