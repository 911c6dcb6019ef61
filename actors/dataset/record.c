/* actors/dataset/record.c - see record.h. Each line is checked whole as JSON, then every wanted key
 * is looked up in it. A decoded text is never longer than its source, which bounds all blocks.
 * Thread: the loader's. */
#include "actors/dataset/record.h"

#include <string.h>

#include "core/base/check.h"
#include "core/codec/json.h"
#include "opd/config.h" /* opd_config_word_at */

enum {
    KEY_PART_SIZE = 128,    /* longest part of a dotted key, or key of a template, with its NUL */
    ROLE_SIZE = 32,         /* longest role, with its NUL                                       */
    MESSAGE_BYTES_MIN = 24, /* {"role":"","content":""}                                         */
    ROW_TEXT_EXTRA = 32     /* NULs of a row, and what opens the answer of a conversation       */
};

static const char ANSWERS[] = "assistant";

/* ---- values ---- */

/* Moves the cursor, which stands before an object, to the value of the (dotted) key. A key
 * that has dots itself wins over a path. False when it is not there. */
static bool find_value(opd_json *json, const char *key) {
    opd_json start = *json;
    opd_json_text name;
    if (opd_json_peek(json) != OPD_JSON_OBJECT || !opd_json_object_begin(json)) return false;
    while (opd_json_object_next(json, &name)) {
        if (opd_json_text_is(name, key)) return true;
        opd_json_skip(json);
    }
    const char *dot = strchr(key, '.');
    char part[KEY_PART_SIZE];
    if (dot == NULL || (size_t)(dot - key) >= sizeof part) return false;
    memcpy(part, key, (size_t)(dot - key));
    part[dot - key] = '\0';
    *json = start;
    (void)opd_json_object_begin(json);
    while (opd_json_object_next(json, &name)) {
        if (opd_json_text_is(name, part)) return find_value(json, dot + 1);
        opd_json_skip(json);
    }
    return false;
}

/* Copies the value at the cursor to the block of texts, without a NUL behind it. */
static opd_err copy_value(opd__loader *loader, opd_json *json, const char *key) {
    char *text = loader->text;
    size_t size = 0;
    opd_json_kind kind = opd_json_peek(json);
    if (kind == OPD_JSON_STRING) {
        opd_json_text value;
        (void)opd_json_read_text(json, &value); /* the line was checked: cannot fail */
        size = opd_json_text_unescape(value, text);
    } else if (kind == OPD_JSON_NUMBER || kind == OPD_JSON_BOOL) {
        const char *raw;
        (void)opd_json_raw(json, &raw, &size);
        memcpy(text, raw, size);
    } else {
        return opd_fail(OPD_ERR_INVALID,
                        "%s:%zu: the value of key \"%s\" is neither a string nor a number",
                        loader->name, loader->line, key);
    }
    if (memchr(text, '\0', size) != NULL)
        return opd_fail(OPD_ERR_INVALID, "%s:%zu: the value of key \"%s\" holds a NUL character",
                        loader->name, loader->line, key);
    loader->text += size;
    return OPD_OK;
}

static void put(opd__loader *loader, const char *text, size_t size_bytes) {
    memcpy(loader->text, text, size_bytes);
    loader->text += size_bytes;
}

static void end_text(opd__loader *loader) { *loader->text++ = '\0'; }

/* Copies the value of a key of the line. */
static opd_err copy_key(opd__loader *loader, const opd_json *line, const char *key) {
    opd_json json = *line;
    if (!find_value(&json, key))
        return opd_fail(OPD_ERR_INVALID,
                        "%s:%zu: there is no key \"%s\"; give the data set's own key names in the "
                        "configuration",
                        loader->name, loader->line, key);
    return copy_value(loader, &json, key);
}

static opd_err read_key(opd__loader *loader, const opd_json *line, const char *key,
                        const char **out_text) {
    *out_text = NULL;
    if (key == NULL) return OPD_OK;
    *out_text = loader->text;
    OPD_TRY(copy_key(loader, line, key));
    end_text(loader);
    return OPD_OK;
}

/* A row need not say where it is from. */
static opd_err read_source(opd__loader *loader, const opd_json *line, const char *key,
                           const char **out_text) {
    opd_json json = *line;
    *out_text = "";
    if (key == NULL || !find_value(&json, key) || opd_json_peek(&json) == OPD_JSON_NULL)
        return OPD_OK;
    *out_text = loader->text;
    OPD_TRY(copy_value(loader, &json, key));
    end_text(loader);
    if (strlen(*out_text) <= OPD_JSONL_SOURCE_MAX) return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "%s:%zu: the value of key \"%s\" has %zu bytes, the most is %d; "
                    "it should name a kind of data, not be the data", loader->name, loader->line, key,
                    strlen(*out_text), OPD_JSONL_SOURCE_MAX);
}

/* ---- templates ---- */

typedef enum template_part { PART_END, PART_LITERAL, PART_KEY, PART_BROKEN } template_part;

/* Takes the next part: a literal of out_size bytes at *out_text, or a key in out_key. */
static template_part template_next(const char **at, const char **out_text, size_t *out_size,
                                   char out_key[KEY_PART_SIZE]) {
    const char *from = *at;
    *out_text = from;
    if (*from == '\0') return PART_END;
    if (*from == '\\') {
        static const char escapes[] = "n\nt\t\\\\";
        const char *pair = escapes;
        while (*pair != '\0' && *pair != from[1]) pair += 2;
        if (from[1] == '\0' || *pair == '\0') return PART_BROKEN;
        *out_text = pair + 1, *out_size = 1, *at = from + 2;
        return PART_LITERAL;
    }
    if ((*from == '{' || *from == '}') && from[1] == *from) {
        *out_size = 1, *at = from + 2;
        return PART_LITERAL;
    }
    if (*from == '{') {
        size_t size = strcspn(from + 1, "{}");
        if (from[1 + size] != '}' || size == 0 || size >= KEY_PART_SIZE) return PART_BROKEN;
        memcpy(out_key, from + 1, size);
        out_key[size] = '\0';
        *at = from + size + 2;
        return PART_KEY;
    }
    *out_size = strcspn(from, "{}\\");
    *at = from + *out_size;
    return *out_size > 0 ? PART_LITERAL : PART_BROKEN;
}

/* Keys of a template. Errors: INVALID. */
static opd_err template_keys(const char *text, size_t *out_keys) {
    const char *at = text, *literal;
    char key[KEY_PART_SIZE];
    size_t size = 0, keys = 0;
    for (;;) {
        template_part part = template_next(&at, &literal, &size, key);
        if (part == PART_BROKEN)
            return opd_fail(OPD_ERR_INVALID, "the template \"%.80s\" cannot be read at byte %zu: "
                            "{KEY} names a key, {{ and }} are braces, \\n, \\t and \\\\ a line feed, a tab "
                            "and a backslash", text, (size_t)(at - text));
        if (part == PART_END) break;
        keys += part == PART_KEY;
    }
    *out_keys = keys;
    return keys > 0 ? OPD_OK
                    : opd_fail(OPD_ERR_INVALID, "the template \"%.80s\" names no key: every prompt "
                               "would be the same; write {KEY}", text);
}

static opd_err read_template(opd__loader *loader, const opd_json *line, const char *text,
                             const char **out_text) {
    const char *at = text, *literal;
    char key[KEY_PART_SIZE];
    size_t size = 0;
    template_part part;
    *out_text = loader->text;
    while ((part = template_next(&at, &literal, &size, key)) != PART_END) {
        if (part == PART_KEY) OPD_TRY(copy_key(loader, line, key));
        else put(loader, literal, size);
    }
    end_text(loader);
    return OPD_OK;
}

/* ---- conversations ---- */

static opd_err chat_fail(const opd__loader *loader, const char *key, const char *what) {
    return opd_fail(OPD_ERR_INVALID, "%s:%zu: the value of key \"%s\" %s", loader->name,
                    loader->line, key, what);
}

static bool listed(const char *roles, const char *role) {
    char word[OPD_CONFIG_WORD_SIZE];
    for (size_t i = 0; roles != NULL && opd_config_word_at(roles, i, word, sizeof word); i++)
        if (strcmp(word, role) == 0) return true;
    return false;
}

/* The next segment, whose text begins at the next free byte. */
static opd_segment *segment_begin(opd__loader *loader, opd_row *row) {
    row->segment_count++;
    *loader->segments = (opd_segment){.text = loader->text};
    return loader->segments++;
}

/* "ROLE: ", on a line of its own. */
static void open_turn(opd__loader *loader, opd_row *row, const char *role) {
    (void)segment_begin(loader, row);
    if (row->segment_count > 1) put(loader, "\n", 1);
    put(loader, role, strlen(role));
    put(loader, ": ", 2);
    end_text(loader);
}

/* One message: its opening and its content. */
static opd_err read_message(opd__loader *loader, const opd_json *at, const opd_jsonl_keys *keys,
                            opd_row *row) {
    char role[ROLE_SIZE];
    opd_json json = *at;
    if (!find_value(&json, "role") || opd_json_peek(&json) != OPD_JSON_STRING ||
        !opd_json_read_string(&json, role, sizeof role) || role[0] == '\0')
        return chat_fail(loader, keys->messages, "has a message without a role of 1 to 31 bytes");
    open_turn(loader, row, role);
    json = *at;
    if (!find_value(&json, "content") || opd_json_peek(&json) != OPD_JSON_STRING)
        return chat_fail(loader, keys->messages, "has a message whose content is not one text");
    opd_segment *content = segment_begin(loader, row);
    content->learn = listed(keys->roles, role);
    content->ends = strcmp(role, ANSWERS) == 0;
    OPD_TRY(copy_value(loader, &json, keys->messages));
    end_text(loader);
    return OPD_OK;
}

/* What the conversation asks, as one text: data sets are compared by it. */
static void join_contents(opd__loader *loader, opd_row *row, uint32_t segments) {
    row->prompt = loader->text;
    for (uint32_t i = 1; i < segments; i += 2) {
        if (i > 1) put(loader, "\n", 1);
        put(loader, row->segments[i].text, strlen(row->segments[i].text));
    }
    end_text(loader);
}

static opd_err read_messages(opd__loader *loader, const opd_json *line,
                             const opd_jsonl_keys *keys, opd_row *row) {
    opd_json json = *line;
    bool learns = false;
    if (!find_value(&json, keys->messages) || opd_json_peek(&json) != OPD_JSON_ARRAY)
        return chat_fail(loader, keys->messages, "is not an array of messages, or missing");
    row->segments = loader->segments;
    (void)opd_json_array_begin(&json);
    while (opd_json_array_next(&json)) {
        opd_json message = json;
        OPD_TRY(read_message(loader, &message, keys, row));
        learns = learns || row->segments[row->segment_count - 1].learn;
        opd_json_skip(&json);
    }
    uint32_t count = row->segment_count;
    if (count == 0) return chat_fail(loader, keys->messages, "has no message");
    if (keys->roles != NULL && !learns)
        return chat_fail(loader, keys->messages, "has no message of a role that SFT learns (data.loss_roles)");
    bool answered = row->segments[count - 1].ends;
    if (!answered) open_turn(loader, row, ANSWERS);
    row->prompt_segments = answered ? count - 1 : count + 1;
    join_contents(loader, row, answered ? count - 2 : count);
    return OPD_OK;
}

/* ---- the line ---- */

/* Where the second prompt is, as if it were the only one. */
static opd_jsonl_keys privileged_keys(const opd_jsonl_keys *keys) {
    return (opd_jsonl_keys){.prompt = keys->privileged, .template_text = keys->privileged_template,
                            .messages = keys->privileged_messages};
}

static int prompts_in(const opd_jsonl_keys *keys) {
    return (keys->prompt != NULL) + (keys->template_text != NULL) + (keys->messages != NULL);
}

opd_err opd__record_keys_check(const opd_jsonl_keys *keys) {
    opd_jsonl_keys second = privileged_keys(keys);
    size_t keys_in = 0;
    OPD_ASSERT(prompts_in(keys) == 1 && prompts_in(&second) <= 1);
    if (keys->template_text != NULL) OPD_TRY(template_keys(keys->template_text, &keys_in));
    return second.template_text == NULL ? OPD_OK : template_keys(second.template_text, &keys_in);
}

/* The same of one prompt alone. */
static void prompt_needs(const opd_jsonl_keys *keys, size_t size_bytes, size_t lines, size_t *io_text_bytes,
                         size_t *io_segments) {
    size_t parts = 1, literal = 0;
    if (keys->template_text != NULL) {
        literal = strlen(keys->template_text);
        if (template_keys(keys->template_text, &parts) != OPD_OK) parts = 1;
    } else if (keys->messages != NULL) { /* a role and a content take less than their message */
        parts = 2;
        *io_segments += 2 * (size_bytes / MESSAGE_BYTES_MIN) + lines;
    }
    *io_text_bytes += parts * size_bytes + lines * (literal + ROW_TEXT_EXTRA);
}

void opd__record_needs(const opd_jsonl_keys *keys, size_t size_bytes, size_t lines,
                       size_t *out_text_bytes, size_t *out_segments) {
    opd_jsonl_keys second = privileged_keys(keys);
    *out_segments = 0;
    *out_text_bytes = 3 * size_bytes;
    prompt_needs(keys, size_bytes, lines, out_text_bytes, out_segments);
    if (prompts_in(&second) > 0) prompt_needs(&second, size_bytes, lines, out_text_bytes, out_segments);
}

static opd_err read_prompt(opd__loader *loader, const opd_json *line, const opd_jsonl_keys *keys,
                           opd_row *row) {
    if (keys->messages != NULL) OPD_TRY(read_messages(loader, line, keys, row));
    else if (keys->template_text != NULL)
        OPD_TRY(read_template(loader, line, keys->template_text, &row->prompt));
    else OPD_TRY(read_key(loader, line, keys->prompt, &row->prompt));
    if (row->prompt[0] != '\0') return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "%s:%zu: the value of key \"%s\" is empty", loader->name,
                    loader->line,
                    keys->messages != NULL ? keys->messages
                    : keys->prompt != NULL ? keys->prompt : keys->template_text);
}

static opd_err read_privileged(opd__loader *loader, const opd_json *line, const opd_jsonl_keys *keys,
                               opd_row *row) {
    opd_jsonl_keys second = privileged_keys(keys);
    opd_row read = {.line = row->line};
    if (prompts_in(&second) == 0) return OPD_OK;
    OPD_TRY(read_prompt(loader, line, &second, &read));
    row->privileged = read.prompt;
    row->privileged_segments = read.segments;
    row->privileged_segment_count = read.prompt_segments;
    return OPD_OK;
}

opd_err opd__record_read(opd__loader *loader, const char *line, size_t size_bytes,
                         const opd_jsonl_keys *keys) {
    opd_json json, start;
    opd_json_init(&json, line, size_bytes);
    start = json;
    bool is_object = opd_json_peek(&json) == OPD_JSON_OBJECT;
    (void)opd_json_skip(&json);
    opd_err err = opd_json_finish(&json);
    if (err != OPD_OK)
        return opd_err_prefix(err, "%s:%zu: this line is not valid JSON", loader->name,
                              loader->line);
    if (!is_object)
        return opd_fail(OPD_ERR_PARSE, "%s:%zu: this line is not a JSON object", loader->name,
                        loader->line);
    opd_row row = {.line = loader->line};
    OPD_TRY(read_prompt(loader, &start, keys, &row));
    OPD_TRY(read_privileged(loader, &start, keys, &row));
    OPD_TRY(read_key(loader, &start, keys->label, &row.label));
    OPD_TRY(read_key(loader, &start, keys->response, &row.response));
    OPD_TRY(read_source(loader, &start, keys->source, &row.source));
    loader->rows[loader->count++] = row;
    return OPD_OK;
}
