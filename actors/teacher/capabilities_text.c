/* capabilities_text.c - capabilities for people and for files (capabilities.h). Thread: any. Nothing to
 * free. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "actors/teacher/capabilities.h"
#include "core/base/check.h"

enum { CHUNK_TOKENS = 256 };

static const char *const form_names[] = {"nested", "flat", "base64"};

int64_t opd_capabilities_longest(const opd_capabilities *c) {
    int64_t context = c->model.context_size > 0 ? c->model.context_size : c->server.context_size;
    int64_t longest = context > 0 ? context - 1 : -1;
    if (c->server.max_input > 0 && (longest < 0 || c->server.max_input < longest)) longest = c->server.max_input;
    return longest;
}

uint32_t opd_capabilities_chunk_tokens(const opd_capabilities *c) {
    return c->keeps_prefix == OPD_TRI_YES ? CHUNK_TOKENS : 0;
}

/* Appends, cutting what does not fit. */
OPD_PRINTF(3, 4) static void add(char *out, size_t out_size, const char *fmt, ...) {
    size_t used = strlen(out);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(out + used, out_size - used, fmt, args);
    va_end(args);
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

void opd_capabilities_line(const opd_capabilities *c, const opd_teacher_protocol *protocol, char *out,
                           size_t out_size) {
    bool forms = protocol->forms, ours = strcmp(c->server.server, "opd") == 0;
    out[0] = '\0';
    add(out, out_size, "%s %.24s", ours ? "opd" : forms ? "SGLang" : "vLLM",
        c->server.version[0] != '\0' ? c->server.version : "(version not told)");
    if (c->model.model_path[0] != '\0') add(out, out_size, ", %.32s", last_part(c->model.model_path));
    if (c->http[0] != '\0') add(out, out_size, ", %s", c->http);
    if (opd_capabilities_longest(c) > 0)
        add(out, out_size, ", up to %" PRId64 " tokens", opd_capabilities_longest(c));
    if (c->forms != 0) add(out, out_size, ", %s", form_names[c->form]);
    add(out, out_size, ", %s prefixes", c->keeps_prefix == OPD_TRI_YES ? "keeps" : "keeps no");
    add(out, out_size, ", scores at %s", c->at_temperature == OPD_TRI_YES ? "any temperature" : "T = 1");
    if (c->strips_forms || c->strips_rid)
        add(out, out_size, "; fields are dropped on the way%s", c->strips_rid ? " (rid)" : " (forms)");
}

static void write_tri(opd_json_writer *w, const char *key, opd_tri value) {
    opd_json_write_key(w, key);
    if (value == OPD_TRI_UNKNOWN) opd_json_write_null(w);
    else opd_json_write_bool(w, value == OPD_TRI_YES);
}

static void write_text(opd_json_writer *w, const char *key, const char *value) {
    opd_json_write_key(w, key);
    if (value[0] == '\0') opd_json_write_null(w);
    else opd_json_write_text(w, value);
}

static void write_number(opd_json_writer *w, const char *key, int64_t value) {
    opd_json_write_key(w, key);
    if (value < 0) opd_json_write_null(w);
    else opd_json_write_int64(w, value);
}

static void write_bool(opd_json_writer *w, const char *key, bool value) {
    opd_json_write_key(w, key);
    opd_json_write_bool(w, value);
}

static void write_forms(opd_json_writer *w, uint32_t forms) {
    opd_json_write_key(w, "forms");
    opd_json_write_array_begin(w);
    for (size_t i = 0; i < OPD_COUNTOF(form_names); i++)
        if (forms & (1u << i)) opd_json_write_text(w, form_names[i]);
    opd_json_write_array_end(w);
}

void opd_capabilities_write(const opd_capabilities *c, const opd_teacher_protocol *protocol,
                            opd_json_writer *w) {
    opd_json_write_object_begin(w);
    write_text(w, "protocol", protocol->name);
    write_text(w, "server", c->server.server);
    write_text(w, "version", c->server.version);
    write_text(w, "model", c->model.model_path);
    write_text(w, "weight_version", c->weight_version);
    write_text(w, "http", c->http);
    write_number(w, "vocab_size", c->model.vocab_size);
    write_number(w, "longest", opd_capabilities_longest(c));
    write_number(w, "max_running", c->server.max_running);
    write_bool(w, "scores", c->scores);
    write_forms(w, c->forms);
    write_number(w, "top_k", c->top_k);
    write_tri(w, "top_k_given", c->top_k_given);
    write_bool(w, "echoes_ids", c->echoes_ids);
    write_bool(w, "tells_count", c->told_count);
    write_bool(w, "tells_rid", c->told_rid);
    write_tri(w, "keeps_prefix", c->keeps_prefix);
    write_tri(w, "scores_at_temperature", c->at_temperature);
    write_bool(w, "strips_fields", c->strips_forms || c->strips_rid);
    write_bool(w, "speculative", c->server.speculative);
    write_text(w, "refusal", c->refusal);
    opd_json_write_object_end(w);
}
