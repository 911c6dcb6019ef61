/* yaml_tree.h - a YAML document as a tree whose every node knows its place.
 *
 * The accepted language is deliberately small: one document of mappings, lists and scalars.
 * Anchors, aliases, merge keys and tags are refused with an explanation, duplicate keys are
 * errors. Bounds: OPD__YAML_DEPTH_MAX levels, OPD__YAML_NODES_MAX nodes.
 *
 * Thread: any one. All nodes and texts belong to the arena.
 */
#ifndef OPD_CORE_CONFIG_YAML_TREE_H
#define OPD_CORE_CONFIG_YAML_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config/arena.h"
#include "opd/err.h"

enum { OPD__YAML_DEPTH_MAX = 12, OPD__YAML_NODES_MAX = 16384, OPD__PLACE_SIZE = 512 };

typedef enum opd__node_kind {
    OPD__NODE_KIND_SCALAR,
    OPD__NODE_KIND_MAP,
    OPD__NODE_KIND_LIST
} opd__node_kind;

typedef struct opd__node {
    opd__node_kind kind;
    const char *file; /* the file, or the flag ("--set train.lr") when line is 0 */
    uint32_t line;    /* from 1 */
    uint32_t column;  /* from 1 */
    const char *text; /* of a scalar, without NUL inside */
    bool plain;       /* a scalar without quotes */
    bool loose;       /* from the command line: a string key takes any text */
    struct opd__node *key;   /* in a mapping: the scalar before the colon */
    struct opd__node *first; /* of a mapping or list */
    struct opd__node *next;  /* sibling */
} opd__node;

/* Parses `size` bytes. An empty document is an empty mapping. Errors: CONFIG with place,
 * NOMEM. */
opd_err opd__yaml_parse(opd__arena *arena, const char *file, const char *text, size_t size,
                        opd__node **out_root) OPD_MUST_CHECK;

/* The scalar that a command line value stands for: quoted YAML when it starts with a quote,
 * else the bytes as they are. `place` is the flag that errors name. */
opd_err opd__yaml_scalar(opd__arena *arena, const char *place, const char *value,
                         opd__node **out_node) OPD_MUST_CHECK;

/* Writes "file:line:column" or the flag to `out`. */
const char *opd__node_place(const opd__node *node, char out[OPD__PLACE_SIZE]);

/* The child of mapping `map` called `name`, or NULL. */
const opd__node *opd__node_child(const opd__node *map, const char *name);

/* "a mapping", "a list", "a quoted string", "a number" ... for messages. */
const char *opd__node_what(const opd__node *node);

/* Whether a plain scalar reads as YAML null, bool or number (core schema). */
bool opd__text_is_null(const char *text);
bool opd__text_is_bool(const char *text);
bool opd__text_is_int(const char *text);
bool opd__text_is_float(const char *text);

#endif
