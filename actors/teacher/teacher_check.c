/* teacher_check.c - whether a server's model is the student's teacher, and what it can do
 * (teacher_inside.h).
 *
 * Thread: the loop. Nothing to free.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/teacher/teacher_inside.h"
#include "core/base/check.h"
#include "opd/log.h"

enum { CAPABILITIES_BYTES_MAX = 8192 };

static opd_err mismatch(const opd__teacher *self, int server, const char *what, const char *teacher,
                        const char *student) {
    return opd_fail(OPD_ERR_MISMATCH,
                    "teacher %s at %s and the student differ in %s: %s against %s; scores would be "
                    "about other tokens. Serve a teacher that was trained with the student's "
                    "tokenizer, or start from a student with the teacher's",
                    self->c.teacher->name, opd__teacher_where(self, server), what, teacher, student);
}

static opd_err check_number(const opd__teacher *self, int server, const char *what, int64_t teacher,
                            int64_t student) {
    char ours[24], theirs[24];
    if (teacher < 0 || student < 0 || teacher == student) return OPD_OK;
    (void)snprintf(theirs, sizeof theirs, "%lld", (long long)teacher);
    (void)snprintf(ours, sizeof ours, "%lld", (long long)student);
    return mismatch(self, server, what, theirs, ours);
}

/* Errors: MISMATCH. What the server does not tell is not an error. */
static opd_err check_agreement(const opd__teacher *self, int server, const opd_sglang_model_info *info) {
    const opd_teacher_http_config *c = &self->c;
    const char *hash = c->tokenizer_hash == NULL ? "" : c->tokenizer_hash;
    OPD_TRY(check_number(self, server, "vocab_size", info->vocab_size, c->vocab_size));
    OPD_TRY(check_number(self, server, "the end-of-text id", info->eos_id, c->eos_id));
    OPD_TRY(check_number(self, server, "the begin-of-text id", info->bos_id, c->bos_id));
    if (info->tokenizer_hash[0] != '\0' && hash[0] != '\0' &&
        strcmp(info->tokenizer_hash, hash) != 0)
        return mismatch(self, server, "the meaning of token ids (tokenizer_hash)", info->tokenizer_hash,
                        hash);
    return OPD_OK;
}

/* Whether scores are at the temperature of the rollouts. */
static opd_err check_temperature(const opd__teacher *self, int server, bool scores_at_temperature) {
    const opd_teacher_http_config *c = &self->c;
    if (c->temperature != 1 && !scores_at_temperature)
        return opd_fail(OPD_ERR_UNSUPPORTED,
                        "rollout.temperature is %g, but teacher %s at %s scores at temperature 1: "
                        "the two distributions cannot be compared. Set rollout.temperature to 1, or "
                        "use a teacher that scores at a temperature (opd serve, or opd.type megatron)",
                        c->temperature, c->teacher->name, opd__teacher_where(self, server));
    return OPD_OK;
}

void opd__teacher_warn_unchecked(opd__teacher *self, const opd_sglang_model_info *info) {
    const char *silent[3];
    size_t count = 0;
    if (info->vocab_size < 0) silent[count++] = "vocabulary size";
    if (info->eos_id < 0) silent[count++] = "end-of-text id";
    if (info->tokenizer_hash[0] == '\0') silent[count++] = "tokenizer";
    if (count == 0 || self->unchecked_told) return;
    self->unchecked_told = true;
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_WARN,
             "teacher %s does not tell its %s%s%s%s%s: not compared with the student's",
             self->c.teacher->name, silent[0], count > 1 ? ", " : "", count > 1 ? silent[1] : "",
             count > 2 ? ", " : "", count > 2 ? silent[2] : "");
}

/* Whether the longest sample fits. */
static opd_err check_length(const opd__teacher *self, int server, const opd_capabilities *found) {
    int64_t longest = opd_capabilities_longest(found);
    if (longest < 0 || self->c.max_len == 0 || (int64_t)self->c.max_len <= longest) return OPD_OK;
    return opd_fail(OPD_ERR_MISMATCH,
                    "teacher %s at %s scores sequences of at most %" PRId64 " tokens, but prompt and "
                    "response may have %u: what is longer would have no score. Serve it with a longer "
                    "context, or lower data.max_prompt_len or rollout.max_response_len",
                    self->c.teacher->name, opd__teacher_where(self, server), longest, self->c.max_len);
}

opd_err opd__teacher_check_info(const opd__teacher *self, int server, const opd_sglang_model_info *info) {
    const opd__server *s = &self->servers[server];
    OPD_TRY(check_agreement(self, server, info));
    bool shown = s->known && s->found.at_temperature == OPD_TRI_YES;
    return check_temperature(self, server, info->scores_at_temperature || shown);
}

/* One line for the person; all of it for the log. */
static void tell_capabilities(opd__teacher *self, int server, const opd_capabilities *found) {
    char line[OPD_MESSAGE_TEXT_SIZE];
    opd_json_writer w;
    opd_str all;
    opd_capabilities_line(found, self->protocol, line, sizeof line);
    opd_note(self->ctx, self->c.roles->monitor, OPD_LOG_LEVEL_INFO, "teacher %s: %s", self->c.teacher->name,
             line);
    opd_str_init(&all, self->c.alloc, CAPABILITIES_BYTES_MAX);
    opd_json_writer_init(&w, &all, 0);
    opd_capabilities_write(found, self->protocol, &w);
    if (opd_str_status(&all) == OPD_OK) {
        OPD_LOG_INFO("teacher %s at %s can do: %s", self->c.teacher->name, opd__teacher_where(self, server),
                     all.data);
        opd_teacher_account *account = self->c.account;
        if (account != NULL && account->capabilities[0] == '\0' && all.size < sizeof account->capabilities)
            memcpy(account->capabilities, all.data, all.size + 1);
    }
    opd_str_fini(&all);
}

opd_err opd__teacher_take_capabilities(opd__teacher *self, int server, const opd_capabilities *found) {
    opd__server *s = &self->servers[server];
    s->found = *found;
    s->known = true;
    opd_err err = opd__teacher_check_info(self, server, &found->model);
    if (err == OPD_OK) err = check_length(self, server, found);
    if (err != OPD_OK) {
        s->known = false;
        return err;
    }
    opd__teacher_warn_unchecked(self, &found->model);
    if (found->model.pad_id >= 0 && self->c.pad_id >= 0 && found->model.pad_id != self->c.pad_id)
        OPD_LOG_INFO("teacher %s pads with id %" PRId64 ", the student with %d: no matter, for nothing is "
                     "padded", self->c.teacher->name, found->model.pad_id, (int)self->c.pad_id);
    tell_capabilities(self, server, found);
    return OPD_OK;
}

bool opd__teacher_reuses_prefix(const opd__teacher *self) {
    if (self->c.teacher->chunk_tokens > 0) return true; /* the person says so */
    for (size_t i = 0; i < self->fleet.count; i++)
        if (self->servers[i].known && self->servers[i].found.keeps_prefix == OPD_TRI_YES) return true;
    return false;
}

opd_sglang_form opd__teacher_form(const opd__teacher *self, int server) {
    const opd__server *s = &self->servers[server];
    return s->known ? s->found.form : OPD_SGLANG_FORM_BASE64;
}
