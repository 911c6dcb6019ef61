/* messages.c - writes and reads messages by their table of fields (messages.h).
 *
 * Invariants: a struct's members and its table come from one macro; the order of fields on
 * the wire is the order of the table. Thread: the loop. Messages own what is attached.
 */
#include "actors/messages.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/actor/body.h"
#include "core/base/check.h"
#include "core/codec/msgpack.h"
#include "opd/log.h"

typedef enum field_kind {
    FIELD_U64, FIELD_U32, FIELD_F64, FIELD_BOOL, FIELD_TEXT, /* in the body */
    FIELD_I32S, FIELD_F32S, FIELD_U8S, FIELD_U64S, FIELD_F64S /* attached */
} field_kind;

typedef struct field {
    field_kind kind;
    size_t offset;
} field;

typedef struct message_type {
    const char *name;
    const field *fields;
    uint32_t field_count;
    size_t size; /* of the struct */
} message_type;

#define DESCRIBE(owner, field_type, member) \
    {FIELD_##field_type, offsetof(opd_##owner##_fields, member)},
#define M(NAME, name) static const field name##_table[] = {OPD_##NAME##_FIELDS(DESCRIBE, name)};
OPD_MESSAGE_TABLE(M)
#undef M

static const message_type TYPES[OPD_MESSAGE_COUNT] = {
#define M(NAME, name) \
    [OPD_MESSAGE_##NAME] = {#name, name##_table, OPD_COUNTOF(name##_table), \
                            sizeof(opd_##name##_fields)},
    OPD_MESSAGE_TABLE(M)
#undef M
};

static const message_type *type_of(opd_message_kind kind) {
    OPD_ASSERT(kind > OPD_MESSAGE_NONE && kind < OPD_MESSAGE_COUNT);
    return &TYPES[kind];
}

const char *opd_message_name(opd_message_kind kind) {
    bool known = kind > OPD_MESSAGE_NONE && kind < OPD_MESSAGE_COUNT;
    return known ? TYPES[kind].name : "none";
}

const char *opd_message_kind_name(uint16_t kind) {
    return opd_message_name((opd_message_kind)kind);
}

static opd_dtype dtype_of(field_kind kind) {
    switch (kind) {
    case FIELD_I32S: return OPD_DTYPE_I32;
    case FIELD_F32S: return OPD_DTYPE_F32;
    case FIELD_U64S: return OPD_DTYPE_U64;
    case FIELD_F64S: return OPD_DTYPE_F64;
    default: return OPD_DTYPE_U8;
    }
}

/* ---- writing ---- */

static opd_err write_slice(opd_mp_writer *w, opd_msg *msg, field_kind kind,
                           const opd_slice *slice) {
    if (slice->buf == NULL) {
        opd_mp_write_nil(w);
        return OPD_OK;
    }
    uint32_t n = (uint32_t)(slice->size_bytes / opd_dtype_size(dtype_of(kind)));
    return opd_body_attach(msg, w, *slice, dtype_of(kind), 1, &n);
}

static opd_err write_field(opd_mp_writer *w, opd_msg *msg, const field *f, const void *fields) {
    const void *at = (const char *)fields + f->offset;
    switch (f->kind) {
    case FIELD_U64: opd_mp_write_u64(w, *(const uint64_t *)at); return OPD_OK;
    case FIELD_U32: opd_mp_write_u64(w, *(const uint32_t *)at); return OPD_OK;
    case FIELD_F64: opd_mp_write_f64(w, *(const double *)at); return OPD_OK;
    case FIELD_BOOL: opd_mp_write_bool(w, *(const bool *)at); return OPD_OK;
    case FIELD_TEXT: opd_mp_write_cstr(w, at); return OPD_OK;
    default: return write_slice(w, msg, f->kind, at);
    }
}

/* The largest body a type can have: integers and floats of 9 bytes, names of attachments of
 * 18, texts of their maximum. */
static size_t body_size_max(const message_type *type) {
    size_t size = 8;
    for (uint32_t i = 0; i < type->field_count; i++)
        size += type->fields[i].kind == FIELD_TEXT ? OPD_MESSAGE_TEXT_SIZE + 3 : 18;
    return size;
}

static opd_err message_fill(opd_msg *msg, const message_type *type, const void *fields) {
    opd_mp_writer w;
    OPD_TRY(opd_body_begin(msg, OPD_MESSAGE_VERSION, type->field_count, body_size_max(type), &w));
    for (uint32_t i = 0; i < type->field_count; i++)
        OPD_TRY(write_field(&w, msg, &type->fields[i], fields));
    return opd_body_end(msg, &w);
}

void opd_sample_trace_text(uint64_t trace, char *out, size_t out_size) {
    unsigned long long group = (trace >> 16) - 1;
    unsigned member = (unsigned)(trace & UINT16_MAX);
    if (member == OPD_TRACE_GROUP)
        (void)snprintf(out, out_size, "%llu", group);
    else
        (void)snprintf(out, out_size, "%llu.%u", group, member);
}

/* What is about one sample says so, whoever makes it; the rest belongs to its maker's work. */
static void trace_set(opd_msg *msg, opd_message_kind kind, const void *fields) {
    const opd_prompt_fields *prompt = fields;
    const opd_rollout_fields *rollout = fields;
    const opd_chunk_fields *chunk = fields;
    const opd_scores_fields *scores = fields;
    const opd_reward_fields *reward = fields;
    const opd_sample_fields *sample = fields;
    switch (kind) {
    case OPD_MESSAGE_PROMPT:
        opd_msg_trace_set(msg, opd_sample_trace(prompt->group, OPD_TRACE_GROUP));
        break;
    case OPD_MESSAGE_ROLLOUT:
        opd_msg_trace_set(msg, opd_sample_trace(rollout->group, rollout->member));
        break;
    case OPD_MESSAGE_CHUNK:
        opd_msg_trace_set(msg, opd_sample_trace(chunk->group, chunk->member));
        break;
    case OPD_MESSAGE_SCORES:
        opd_msg_trace_set(msg, opd_sample_trace(scores->group, scores->member));
        break;
    case OPD_MESSAGE_REWARD:
        opd_msg_trace_set(msg, opd_sample_trace(reward->group, reward->member));
        break;
    case OPD_MESSAGE_SAMPLE:
        opd_msg_trace_set(msg, opd_sample_trace(sample->group, sample->member));
        break;
    default: break;
    }
}

opd_err opd_message_create(opd_system *system, opd_message_kind kind, const void *fields,
                           opd_msg **out_msg) {
    opd_msg *msg;
    OPD_TRY(opd_msg_create(system, (uint16_t)kind, &msg));
    trace_set(msg, kind, fields);
    opd_err err = message_fill(msg, type_of(kind), fields);
    if (err != OPD_OK) {
        opd_msg_release(msg);
        return opd_err_prefix(err, "message %s", type_of(kind)->name);
    }
    *out_msg = msg;
    return OPD_OK;
}

/* ---- reading ---- */

static opd_err read_slice(opd_mp_reader *r, const opd_msg *msg, field_kind kind,
                          opd_slice *out) {
    *out = (opd_slice){.buf = NULL};
    if (opd_mp_peek(r) == OPD_MP_NIL) {
        opd_mp_read_nil(r);
        return OPD_OK;
    }
    const opd_attachment *attachment;
    OPD_TRY(opd_body_read_attachment(msg, r, dtype_of(kind), &attachment));
    *out = attachment->slice;
    return OPD_OK;
}

static void read_text(opd_mp_reader *r, char out[OPD_MESSAGE_TEXT_SIZE]) {
    size_t size;
    const char *text = opd_mp_read_str(r, &size);
    if (size >= OPD_MESSAGE_TEXT_SIZE) size = OPD_MESSAGE_TEXT_SIZE - 1;
    if (text != NULL) memcpy(out, text, size);
    out[text != NULL ? size : 0] = '\0';
}

static opd_err read_field(opd_mp_reader *r, const opd_msg *msg, const field *f, void *fields) {
    void *at = (char *)fields + f->offset;
    switch (f->kind) {
    case FIELD_U64: *(uint64_t *)at = opd_mp_read_u64(r); return OPD_OK;
    case FIELD_U32: *(uint32_t *)at = opd_mp_read_u32(r); return OPD_OK;
    case FIELD_F64: *(double *)at = opd_mp_read_f64(r); return OPD_OK;
    case FIELD_BOOL: *(bool *)at = opd_mp_read_bool(r); return OPD_OK;
    case FIELD_TEXT: read_text(r, at); return OPD_OK;
    default: return read_slice(r, msg, f->kind, at);
    }
}

opd_err opd_message_read(const opd_msg *msg, opd_message_kind kind, void *out_fields) {
    const message_type *type = type_of(kind);
    if (opd_msg_kind(msg) != kind)
        return opd_fail(OPD_ERR_MISMATCH, "expected message %s, got kind %u", type->name,
                        opd_msg_kind(msg));
    opd_mp_reader r;
    OPD_TRY(opd_err_prefix(opd_body_read(msg, OPD_MESSAGE_VERSION, type->field_count, &r),
                           "message %s", type->name));
    for (uint32_t i = 0; i < type->field_count; i++)
        OPD_TRY(opd_err_prefix(read_field(&r, msg, &type->fields[i], out_fields), "message %s",
                               type->name));
    return opd_err_prefix(opd_mp_reader_status(&r), "message %s", type->name);
}

/* ---- sending ---- */

opd_err opd_message_send(opd_ctx *ctx, opd_pid to, opd_message_kind kind, const void *fields) {
    opd_msg *msg;
    OPD_TRY(opd_message_create(opd_self_system(ctx), kind, fields, &msg));
    opd_err err = opd_send(ctx, to, msg);
    if (err != OPD_OK) opd_msg_release(msg);
    return err;
}

opd_err opd_message_link_send(opd_ctx *ctx, opd_link *link, opd_message_kind kind,
                              const void *fields) {
    opd_msg *msg;
    OPD_TRY(opd_message_create(opd_self_system(ctx), kind, fields, &msg));
    opd_err err = opd_link_send(ctx, link, msg);
    if (err != OPD_OK) opd_msg_release(msg);
    return err;
}

opd_err opd_message_request(opd_ctx *ctx, opd_pid to, opd_message_kind kind, const void *fields,
                            uint64_t deadline_ns, opd_reply_fn reply_fn, void *arg,
                            uint64_t *out_id) {
    opd_msg *msg;
    OPD_TRY(opd_message_create(opd_self_system(ctx), kind, fields, &msg));
    opd_err err = opd_request(ctx, to, msg, deadline_ns, reply_fn, arg, out_id);
    if (err != OPD_OK) opd_msg_release(msg);
    return err;
}

void opd_message_reply(opd_ctx *ctx, opd_msg *request, opd_message_kind kind,
                       const void *fields) {
    opd_msg *msg;
    opd_err err = opd_message_create(opd_self_system(ctx), kind, fields, &msg);
    if (err == OPD_OK) opd_reply(ctx, request, msg);
    else opd_reply_error(ctx, request, err);
}

opd_err opd_slice_copy(const opd_alloc *alloc, const void *data, size_t size_bytes,
                       opd_slice *out_slice) {
    opd_buf *buf;
    OPD_TRY(opd_buf_create(alloc, size_bytes, &buf));
    if (size_bytes > 0) memcpy(opd_buf_data(buf), data, size_bytes);
    *out_slice = opd_slice_whole(buf);
    return OPD_OK;
}

void opd_note(opd_ctx *ctx, opd_pid monitor, int level, const char *fmt, ...) {
    opd_note_fields note = {.level = (uint32_t)level};
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(note.text, sizeof note.text, fmt, args);
    va_end(args);
    opd_log_write((opd_log_level)level, "%s: %s", opd_self_name(ctx), note.text);
    opd_err err = opd_message_send(ctx, monitor, OPD_MESSAGE_NOTE, &note);
    if (err != OPD_OK) OPD_LOG_DEBUG("the monitor did not take a note: %s", opd_err_text(err));
}
