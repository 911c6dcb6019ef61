/* core/codec/json_write.c - the JSON writer of json.h.
 *
 * Invariant: `comma` says that a value stands before the place at this level, `keyed`
 * that a key does; every value passes through begin_value and end_value.
 * Thread: the writer's owner. Memory: grows the caller's opd_str only.
 */
#include "core/codec/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/codec/decimal.h"

void opd_json_writer_init(opd_json_writer *writer, opd_str *out, int indent) {
    *writer = (opd_json_writer){.out = out, .indent = indent};
}

static void new_line(opd_json_writer *writer) {
    if (writer->indent > 0)
        opd_str_printf(writer->out, "\n%*s", writer->indent * writer->depth, "");
}

static void begin_value(opd_json_writer *writer) {
    if (writer->keyed) {
        writer->keyed = false;
        return;
    }
    if (writer->comma) opd_str_append(writer->out, ",", 1);
    if (writer->depth > 0) new_line(writer);
}

static void open_bracket(opd_json_writer *writer, const char *bracket) {
    OPD_ASSERT(writer->depth < OPD_JSON_DEPTH_MAX);
    begin_value(writer);
    opd_str_append(writer->out, bracket, 1);
    writer->depth++;
    writer->comma = false;
}

static void close_bracket(opd_json_writer *writer, const char *bracket) {
    OPD_ASSERT(writer->depth > 0 && !writer->keyed);
    writer->depth--;
    if (writer->comma) new_line(writer);
    opd_str_append(writer->out, bracket, 1);
    writer->comma = true;
}

void opd_json_write_object_begin(opd_json_writer *writer) { open_bracket(writer, "{"); }
void opd_json_write_object_end(opd_json_writer *writer) { close_bracket(writer, "}"); }
void opd_json_write_array_begin(opd_json_writer *writer) { open_bracket(writer, "["); }
void opd_json_write_array_end(opd_json_writer *writer) { close_bracket(writer, "]"); }

void opd_json_write_raw(opd_json_writer *writer, const char *data, size_t size_bytes) {
    begin_value(writer);
    opd_str_append(writer->out, data, size_bytes);
    writer->comma = true;
}

void opd_json_write_null(opd_json_writer *writer) { opd_json_write_raw(writer, "null", 4); }

void opd_json_write_bool(opd_json_writer *writer, bool value) {
    opd_json_write_raw(writer, value ? "true" : "false", value ? 4 : 5);
}

void opd_json_write_int64(opd_json_writer *writer, int64_t value) {
    char text[OPD_DECIMAL_ROOM];
    opd_json_write_raw(writer, text, opd_decimal_int64(value, text));
}

/* Writes a number printed by printf, whose decimal point a locale may have changed. */
static void write_printed(opd_json_writer *writer, char *text) {
    char *comma = strchr(text, ',');
    if (comma != NULL) *comma = '.';
    opd_json_write_raw(writer, text, strlen(text));
}

void opd_json_write_float(opd_json_writer *writer, float value) {
    char text[OPD_DECIMAL_ROOM];
    if (isfinite(value)) opd_json_write_raw(writer, text, opd_decimal_float(value, text));
    else opd_json_write_null(writer);
}

void opd_json_write_double(opd_json_writer *writer, double value) {
    char text[32];
    if (!isfinite(value)) {
        opd_json_write_null(writer);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) { /* 17 always read back the same */
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    write_printed(writer, text);
}

/* Bytes at `at` that may stand in a string as they are: 0 for what must be replaced. */
static size_t plain_size(const unsigned char *at, size_t left) {
    if (at[0] >= 0x80) return opd__utf8_size(at, left);
    return at[0] >= 0x20 && at[0] != '"' && at[0] != '\\' ? 1 : 0;
}

static void write_replaced(opd_str *out, unsigned char c) {
    switch (c) {
        case '"': opd_str_append(out, "\\\"", 2); break;
        case '\\': opd_str_append(out, "\\\\", 2); break;
        case '\n': opd_str_append(out, "\\n", 2); break;
        case '\r': opd_str_append(out, "\\r", 2); break;
        case '\t': opd_str_append(out, "\\t", 2); break;
        default:
            if (c >= 0x80) opd_str_append(out, "\xEF\xBF\xBD", 3); /* U+FFFD */
            else opd_str_printf(out, "\\u%04x", c);
    }
}

static void write_quoted(opd_str *out, const char *text, size_t size_bytes) {
    const unsigned char *at = (const unsigned char *)text, *end = at + size_bytes;
    opd_str_append(out, "\"", 1);
    while (at < end) {
        const unsigned char *begin = at;
        size_t size = 0;
        while (at < end && (size = plain_size(at, (size_t)(end - at))) > 0) at += size;
        opd_str_append(out, begin, (size_t)(at - begin));
        if (at < end) write_replaced(out, *at++);
    }
    opd_str_append(out, "\"", 1);
}

void opd_json_write_string(opd_json_writer *writer, const char *text, size_t size_bytes) {
    begin_value(writer);
    write_quoted(writer->out, text, size_bytes);
    writer->comma = true;
}

void opd_json_write_text(opd_json_writer *writer, const char *text) {
    opd_json_write_string(writer, text, strlen(text));
}

void opd_json_write_key(opd_json_writer *writer, const char *key) {
    OPD_ASSERT(writer->depth > 0 && !writer->keyed);
    begin_value(writer);
    write_quoted(writer->out, key, strlen(key));
    opd_str_append(writer->out, writer->indent > 0 ? ": " : ":", writer->indent > 0 ? 2 : 1);
    writer->keyed = true;
}
