/* yaml_tree.c - libyaml's events into a bounded tree. See yaml_tree.h.
 * The only file that includes yaml.h; libyaml's own memory is freed before returning. */
#include "core/config/yaml_tree.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "core/base/check.h"
#include "core/base/str.h"

/* A mapping or list whose end has not come yet. */
typedef struct open_node {
    opd__node *node;
    opd__node *last; /* child */
    opd__node *key;  /* of a mapping: read, its value comes next */
} open_node;

typedef struct builder {
    opd__arena *arena;
    const char *file;
    opd__node *root;
    open_node stack[OPD__YAML_DEPTH_MAX];
    size_t depth;
    size_t nodes;
    size_t documents;
} builder;

const char *opd__node_place(const opd__node *node, char out[OPD__PLACE_SIZE]) {
    if (node->line == 0) {
        snprintf(out, OPD__PLACE_SIZE, "%s", node->file);
    } else {
        snprintf(out, OPD__PLACE_SIZE, "%.400s:%u:%u", node->file, node->line, node->column);
    }
    return out;
}

static opd_err place_fail(const builder *b, yaml_mark_t mark, const char *what) {
    return opd_fail(OPD_ERR_CONFIG, "%s:%zu:%zu: %s", b->file, mark.line + 1, mark.column + 1,
                    what);
}

/* Appends `node` to the open mapping or list, or makes it the root. */
static opd_err node_attach(builder *b, opd__node *node) {
    if (b->depth == 0) {
        b->root = node;
        return OPD_OK;
    }
    open_node *open = &b->stack[b->depth - 1];
    char place[OPD__PLACE_SIZE];
    if (open->node->kind == OPD__NODE_KIND_MAP && open->key == NULL) {
        if (node->kind != OPD__NODE_KIND_SCALAR)
            return opd_fail(OPD_ERR_CONFIG, "%s: a key must be a word, this is %s",
                            opd__node_place(node, place), opd__node_what(node));
        if (node->plain && strcmp(node->text, "<<") == 0)
            return opd_fail(OPD_ERR_CONFIG, "%s: merge keys (<<) are not supported; "
                            "stages inherit the top-level sections by themselves",
                            opd__node_place(node, place));
        const opd__node *twin = opd__node_child(open->node, node->text);
        if (twin != NULL)
            return opd_fail(OPD_ERR_CONFIG, "%s: %.80s: duplicate key; the first is on line %u",
                            opd__node_place(node, place), node->text, twin->key->line);
        open->key = node;
        return OPD_OK;
    }
    node->key = open->key;
    open->key = NULL;
    if (open->last == NULL) open->node->first = node;
    else open->last->next = node;
    open->last = node;
    return OPD_OK;
}

static opd_err node_open(builder *b, opd__node *node, yaml_mark_t mark) {
    if (b->depth == OPD__YAML_DEPTH_MAX) return place_fail(b, mark, "nested too deeply");
    b->stack[b->depth++] = (open_node){.node = node};
    return OPD_OK;
}

/* Makes the node of a scalar, mapping or list event and hangs it into the tree. */
static opd_err node_add(builder *b, const yaml_event_t *event) {
    const yaml_char_t *anchor = NULL, *tag = NULL;
    opd__node *node = opd__arena_get(b->arena, sizeof *node);
    if (node == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: out of memory", b->file);
    if (++b->nodes > OPD__YAML_NODES_MAX)
        return place_fail(b, event->start_mark, "the file has too many values");
    node->file = b->file;
    node->line = (uint32_t)event->start_mark.line + 1;
    node->column = (uint32_t)event->start_mark.column + 1;
    if (event->type == YAML_SCALAR_EVENT) {
        const char *value = (const char *)event->data.scalar.value;
        size_t length = event->data.scalar.length;
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        if (memchr(value, 0, length) != NULL)
            return place_fail(b, event->start_mark, "a text may not hold a NUL character");
        node->text = opd__arena_text(b->arena, value, length);
        if (node->text == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: out of memory", b->file);
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        node->kind = OPD__NODE_KIND_MAP;
    } else {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        node->kind = OPD__NODE_KIND_LIST;
    }
    if (anchor != NULL)
        return place_fail(b, event->start_mark,
                          "anchors (&name) are not supported; stages inherit the top-level "
                          "sections by themselves");
    if (tag != NULL)
        return place_fail(b, event->start_mark,
                          "tags (!name) are not supported; write the plain value");
    OPD_TRY(node_attach(b, node));
    return node->kind == OPD__NODE_KIND_SCALAR ? OPD_OK : node_open(b, node, event->start_mark);
}

static opd_err event_take(builder *b, const yaml_event_t *event) {
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++b->documents > 1)
            return place_fail(b, event->start_mark, "a second document; a configuration is one");
        return OPD_OK;
    case YAML_ALIAS_EVENT:
        return place_fail(b, event->start_mark,
                          "aliases (*name) are not supported; write the value out");
    case YAML_SCALAR_EVENT:
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        return node_add(b, event);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return OPD_OK;
    default:
        return OPD_OK;
    }
}

/* Line and column of byte `offset`: libyaml does not say them for bytes that are no text. */
static yaml_mark_t offset_mark(const char *text, size_t size, size_t offset) {
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < size; i++) {
        mark.column = text[i] == '\n' ? 0 : mark.column + 1;
        mark.line += text[i] == '\n';
    }
    return mark;
}

/* libyaml's own complaint, in our form. */
static opd_err parser_fail(const builder *b, const yaml_parser_t *parser, const char *text,
                           size_t size) {
    const char *problem = parser->problem != NULL ? parser->problem : "not YAML";
    if (parser->error == YAML_MEMORY_ERROR)
        return opd_fail(OPD_ERR_NOMEM, "%s: out of memory", b->file);
    yaml_mark_t mark = parser->error == YAML_READER_ERROR
                           ? offset_mark(text, size, parser->problem_offset)
                           : parser->problem_mark;
    const char *remedy = "";
    if (strstr(problem, "cannot start any token") != NULL)
        remedy = "; indent with spaces, and quote a value that starts with @, ` or %";
    return opd_fail(OPD_ERR_CONFIG, "%s:%zu:%zu: not valid YAML: %s%s", b->file, mark.line + 1,
                    mark.column + 1, problem, remedy);
}

opd_err opd__yaml_parse(opd__arena *arena, const char *file, const char *text, size_t size,
                        opd__node **out_root) {
    builder b = {.arena = arena, .file = file};
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return opd_fail(OPD_ERR_NOMEM, "%s: out of memory", file);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    opd_err err = OPD_OK;
    for (bool more = true; more && err == OPD_OK;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            err = parser_fail(&b, &parser, text, size);
            break;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        err = event_take(&b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (err != OPD_OK) return err;
    if (b.root == NULL || (b.root->kind == OPD__NODE_KIND_SCALAR && b.root->text[0] == 0)) {
        b.root = opd__arena_get(arena, sizeof *b.root);
        if (b.root == NULL) return opd_fail(OPD_ERR_NOMEM, "%s: out of memory", file);
        *b.root = (opd__node){.kind = OPD__NODE_KIND_MAP, .file = file, .line = 1, .column = 1};
    }
    *out_root = b.root;
    return OPD_OK;
}

opd_err opd__yaml_scalar(opd__arena *arena, const char *place, const char *value,
                         opd__node **out_node) {
    bool quoted = value[0] == '"' || value[0] == '\'';
    opd_str yaml;
    opd_str_init(&yaml, NULL, 1 << 16);
    /* A bare value goes through libyaml as a double-quoted one: that checks its UTF-8. */
    if (!quoted) opd_str_text(&yaml, "\"");
    for (const char *at = value; *at != 0; at++) {
        if (!quoted && (*at == '"' || *at == '\\')) opd_str_append(&yaml, "\\", 1);
        if (!quoted && *at == '\n') opd_str_text(&yaml, "\\n");
        else opd_str_append(&yaml, at, 1);
    }
    if (!quoted) opd_str_text(&yaml, "\"");
    opd_err err = opd_str_status(&yaml);
    if (err == OPD_OK) err = opd__yaml_parse(arena, place, yaml.data, yaml.size, out_node);
    opd_str_fini(&yaml);
    OPD_TRY(err);
    if ((*out_node)->kind != OPD__NODE_KIND_SCALAR)
        return opd_fail(OPD_ERR_CONFIG, "%s: expected one value", place);
    (*out_node)->line = 0;
    (*out_node)->plain = !quoted;
    (*out_node)->loose = true;
    return OPD_OK;
}

const opd__node *opd__node_child(const opd__node *map, const char *name) {
    for (const opd__node *child = map->first; child != NULL; child = child->next)
        if (strcmp(child->key->text, name) == 0) return child;
    return NULL;
}

bool opd__text_is_null(const char *text) {
    return text[0] == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
           strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

bool opd__text_is_bool(const char *text) {
    static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    for (size_t i = 0; i < OPD_COUNTOF(words); i++)
        if (strcmp(text, words[i]) == 0) return true;
    return false;
}

bool opd__text_is_int(const char *text) {
    if (*text == '-' || *text == '+') text++;
    if (*text == 0) return false;
    for (; *text != 0; text++)
        if (!isdigit((unsigned char)*text)) return false;
    return true;
}

bool opd__text_is_float(const char *text) {
    size_t digits = 0;
    if (*text == '-' || *text == '+') text++;
    if (strcasecmp(text, ".inf") == 0 || strcasecmp(text, ".nan") == 0) return true;
    for (; isdigit((unsigned char)*text); text++) digits++;
    if (*text == '.')
        for (text++; isdigit((unsigned char)*text); text++) digits++;
    if (digits == 0) return false;
    if (*text == 'e' || *text == 'E') {
        text++;
        return opd__text_is_int(text);
    }
    return *text == 0;
}

const char *opd__node_what(const opd__node *node) {
    if (node->kind == OPD__NODE_KIND_MAP) return "a mapping";
    if (node->kind == OPD__NODE_KIND_LIST) return "a list";
    if (!node->plain) return "a quoted string";
    if (opd__text_is_null(node->text)) return "empty";
    if (opd__text_is_bool(node->text)) return "true or false";
    if (opd__text_is_int(node->text)) return "a whole number";
    if (opd__text_is_float(node->text)) return "a number";
    return "a word";
}
