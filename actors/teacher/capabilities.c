/* capabilities.c - the questions and what their answers mean (capabilities.h).
 * Thread: any one at a time. Memory: what an answer is read into is freed here. */
#include "actors/teacher/capabilities.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "actors/teacher/access.h"
#include "actors/teacher/policy.h"
#include "core/base/check.h"

enum {
    IDS_SPREAD = 28,      /* ids used in questions, from FIRST_ID on: every vocabulary has them   */
    FIRST_ID = 3,         /* behind the usual special tokens                                      */
    PREFIX_LEAST = 48,    /* a shorter sequence would not show whether a page of it was kept      */
    PREFIX_TAIL = 4,      /* of it is scored                                                      */
    TEMPERATURE_OTHER = 2
};

static const float GAP_LEAST = 0.05f, RATIO_SLACK = 0.1f;

/* The first release whose answers have flat and base64 forms (SGLang #32078, #31960). */
static const int FORMS_SINCE[3] = {0, 5, 16};

static uint32_t bit(opd_question q) { return 1u << q; }

static bool has_answer(const opd_inquiry *in, opd_question q) { return (in->answered & bit(q)) != 0; }

const char *opd_question_name(opd_question q) {
    static const char *const names[OPD_QUESTION_COUNT] = {"model", "server", "score", "base64", "flat",
                                                          "nested", "temperature", "prefix", "again"};
    return names[q];
}

/* ---- the questions ---- */

void opd_inquiry_init(opd_inquiry *in, const opd_inquiry_options *options) {
    *in = (opd_inquiry){.o = *options};
    in->found.model = (opd_sglang_model_info){.vocab_size = -1, .bos_id = -1, .eos_id = -1, .pad_id = -1,
                                              .context_size = -1};
    in->found.server = (opd_sglang_server_info){.max_input = -1, .context_size = -1, .max_running = -1,
                                                .http2 = -1};
}

/* The smaller of two sizes of which either may be unknown (<= 0). */
static int64_t smaller(int64_t a, int64_t b) {
    if (a <= 0) return b;
    return b <= 0 || a < b ? a : b;
}

/* Once the model is known: the tokens to be scored, and how many. */
static void choose_ids(opd_inquiry *in) {
    const opd_sglang_model_info *model = &in->found.model;
    int64_t vocab = smaller(in->o.vocab_size, model->vocab_size);
    int64_t bos = in->o.bos_id >= 0 ? in->o.bos_id : model->bos_id;
    int64_t longest = smaller(smaller(opd_capabilities_longest(&in->found), in->o.max_len),
                              OPD_INQUIRY_PREFIX_IDS);
    bool small = vocab > 0 && vocab <= FIRST_ID + IDS_SPREAD; /* the last id may come back as 0 */
    for (int32_t i = 0; i < OPD_INQUIRY_PREFIX_IDS; i++)
        in->ids[i] = small ? i % (vocab > 1 ? (int32_t)vocab - 1 : 1) : FIRST_ID + i * 5 % IDS_SPREAD;
    if (bos >= 0 && (vocab <= 0 || bos < vocab)) in->ids[0] = (int32_t)bos;
    in->score_ids = (uint32_t)smaller(longest, OPD_INQUIRY_SCORE_IDS);
    if (in->score_ids < 2) in->score_ids = 2;
    in->prefix_ids = in->o.protocol->forms && longest >= PREFIX_LEAST ? (uint32_t)longest : 0;
    in->top_k = in->o.top_k;
    if (in->o.protocol->forms && in->top_k < 2) in->top_k = 2; /* to see the gap between two */
    if (!in->o.protocol->capped && vocab > 0 && in->top_k > vocab) in->top_k = (uint32_t)vocab;
    if (in->top_k > OPD_SGLANG_TOP_MAX) in->top_k = OPD_SGLANG_TOP_MAX;
}

/* Whether a question belongs to this inquiry, and its turn has come. */
static bool is_due(const opd_inquiry *in, opd_question q) {
    const opd_teacher_protocol *p = in->o.protocol;
    if (q != OPD_QUESTION_MODEL && !has_answer(in, OPD_QUESTION_MODEL)) return false;
    switch (q) {
    case OPD_QUESTION_BASE64:
    case OPD_QUESTION_FLAT: return p->forms;
    case OPD_QUESTION_NESTED: return in->top_k > 0;
    case OPD_QUESTION_TEMPERATURE: return p->forms;
    case OPD_QUESTION_PREFIX: return in->prefix_ids > 0;
    case OPD_QUESTION_AGAIN: return in->prefix_ids > 0 && has_answer(in, OPD_QUESTION_PREFIX);
    default: return true;
    }
}

static bool is_over(const opd_inquiry *in) { return in->trouble != OPD_OK || in->unusable; }

bool opd_inquiry_next(opd_inquiry *in, opd_question *out_question) {
    for (opd_question q = 0; q < OPD_QUESTION_COUNT && !is_over(in); q++) {
        if ((in->asked & bit(q)) != 0 || !is_due(in, q)) continue;
        in->asked |= bit(q);
        *out_question = q;
        return true;
    }
    return false;
}

bool opd_inquiry_done(const opd_inquiry *in) {
    if (in->asked != in->answered) return false;
    for (opd_question q = 0; q < OPD_QUESTION_COUNT && !is_over(in); q++)
        if ((in->asked & bit(q)) == 0 && is_due(in, q)) return false;
    return true;
}

const char *opd_inquiry_path(const opd_inquiry *in, opd_question q) {
    if (q == OPD_QUESTION_MODEL) return in->o.protocol->info_path;
    return q == OPD_QUESTION_SERVER ? in->o.protocol->server_path : NULL;
}

opd_sglang_score opd_inquiry_score(const opd_inquiry *in, opd_question q, char rid[OPD_INQUIRY_RID_SIZE]) {
    bool prefix = q == OPD_QUESTION_PREFIX || q == OPD_QUESTION_AGAIN;
    int32_t vocab = (int32_t)smaller(in->o.vocab_size, in->found.model.vocab_size);
    OPD_ASSERT(opd_inquiry_path(in, q) == NULL);
    /* of fixed width, for servers abort by prefix */
    (void)snprintf(rid, OPD_INQUIRY_RID_SIZE, "opd-ask-%016" PRIx64 "-%02d.", in->o.nonce, (int)q);
    opd_sglang_score score = {.ids = in->ids, .count = prefix ? in->prefix_ids : in->score_ids,
                              .prompt_count = prefix ? in->prefix_ids - PREFIX_TAIL : 1,
                              .vocab_size = vocab > 0 ? vocab : 0, .rid = rid};
    if (prefix || q == OPD_QUESTION_SCORE) return score;
    score.top_k = (int32_t)in->top_k;
    score.form = q == OPD_QUESTION_BASE64 ? OPD_SGLANG_FORM_BASE64
                 : q == OPD_QUESTION_FLAT ? OPD_SGLANG_FORM_FLAT
                                          : OPD_SGLANG_FORM_NESTED;
    if (q == OPD_QUESTION_TEMPERATURE) score.temperature = TEMPERATURE_OTHER;
    return score;
}

/* ---- the answers ---- */

static void set_trouble(opd_inquiry *in, opd_err err, const char *text) {
    if (in->trouble != OPD_OK) return;
    in->trouble = err;
    (void)snprintf(in->trouble_text, sizeof in->trouble_text, "%s", text);
}

static void set_refusal(opd_inquiry *in, const char *text) {
    if (in->unusable) return; /* those words count */
    (void)snprintf(in->found.refusal, sizeof in->found.refusal, "%s", text);
}

/* Whether nothing can be done without an answer. */
static bool counts(const opd_inquiry *in, opd_question q) {
    return q == OPD_QUESTION_MODEL || q == OPD_QUESTION_SCORE ||
           (q == OPD_QUESTION_NESTED && in->o.top_k > 0);
}

/* An answer that is none: what is wrong, and with whom. */
static void take_failure(opd_inquiry *in, opd_question q, const opd_inquiry_answer *a) {
    char message[OPD_SGLANG_MESSAGE_SIZE], text[OPD_SGLANG_MESSAGE_SIZE + 64];
    const char *path = opd_inquiry_path(in, q);
    bool told = q == OPD_QUESTION_MODEL && (a->status == 404 || a->status == 405);
    if (a->err != OPD_OK) {
        if (counts(in, q)) set_trouble(in, a->err, a->error);
        else set_refusal(in, a->error);
        return;
    }
    opd_sglang_error_read(a->body, a->size_bytes, message);
    if (opd_access_denied(a->status)) /* its words might be about the key, and repeat it */
        (void)snprintf(message, sizeof message, "it does not let us in");
    (void)snprintf(text, sizeof text, "%s %s: HTTP %d: %.400s", path != NULL ? "GET" : "POST",
                   path != NULL ? path : in->o.protocol->score_path, a->status, message);
    if (opd_access_denied(a->status) && counts(in, q)) {
        in->denied = a->status;
        set_trouble(in, OPD_ERR_REMOTE, text);
    } else if (!counts(in, q) || told) {
        if (!told) set_refusal(in, text);
    } else if (opd_teacher_judge(OPD_OK, a->status) == OPD_TEACHER_GIVE_UP) {
        set_refusal(in, text);
        in->unusable = true;
    } else {
        set_trouble(in, OPD_ERR_REMOTE, text);
    }
}

/* The gap between the two likeliest of each row. */
static void keep_gaps(const opd_sglang_score *score, const opd_sglang_scores *scores, struct opd__gap *out) {
    size_t k = (size_t)score->top_k;
    if (k < 2) return;
    out->there = true;
    for (size_t t = 0; t < score->count - score->prompt_count; t++) {
        const int32_t *ids = scores->topk_ids + t * k;
        out->first[t] = ids[1] >= 0 ? ids[0] : -1;
        out->second[t] = ids[1];
        out->gap[t] = scores->topk_logps[t * k] - scores->topk_logps[t * k + 1];
    }
}

/* What a readable score shows. */
static void take_scores(opd_inquiry *in, opd_question q, const opd_sglang_score *score,
                        const opd_sglang_scores *s) {
    opd_capabilities *f = &in->found;
    if (q == OPD_QUESTION_SCORE) {
        f->scores = true;
        f->told_count = s->told_count;
        f->told_rid = s->told_rid;
        f->echoes_ids = s->echoed_count == score->count - score->prompt_count;
        memcpy(f->weight_version, s->weight_version, sizeof f->weight_version);
    }
    if (q == OPD_QUESTION_AGAIN) f->cached = s->cached_count;
    if (q == OPD_QUESTION_NESTED) keep_gaps(score, s, &in->at_one);
    if (q == OPD_QUESTION_TEMPERATURE) keep_gaps(score, s, &in->at_two);
    if (score->top_k > 0 && q != OPD_QUESTION_TEMPERATURE) f->forms |= s->forms;
    if (q == OPD_QUESTION_NESTED && in->o.top_k > 0)
        f->top_k_given = s->forms != 0 && s->topk_ids[score->top_k - 1] >= 0 ? OPD_TRI_YES : OPD_TRI_NO;
    /* a version that has a form, and another came: somebody in between dropped the wish */
    if (q == OPD_QUESTION_BASE64 || q == OPD_QUESTION_FLAT)
        f->strips_forms |= s->forms == 1u << OPD_SGLANG_FORM_NESTED;
}

static void take_score(opd_inquiry *in, opd_question q, const opd_inquiry_answer *a) {
    char rid[OPD_INQUIRY_RID_SIZE];
    float logp[OPD_INQUIRY_SCORE_IDS];
    uint8_t valid[OPD_INQUIRY_SCORE_IDS];
    opd_sglang_score score = opd_inquiry_score(in, q, rid);
    opd_sglang_scores scores = {.logp = logp, .valid = valid};
    size_t cells = OPD_INQUIRY_SCORE_IDS * (size_t)score.top_k;
    if (cells > 0) {
        scores.topk_ids = opd_mem_get(in->o.alloc, cells * (sizeof(int32_t) + sizeof(float)));
        if (scores.topk_ids == NULL) {
            set_trouble(in, OPD_ERR_NOMEM, "no memory for a probe");
            return;
        }
        scores.topk_logps = (float *)(void *)(scores.topk_ids + cells);
    }
    opd_err err = in->o.protocol->read(a->body, a->size_bytes, &score, &scores);
    if (err == OPD_OK && scores.valid_count == 0)
        err = opd_fail(OPD_ERR_REMOTE, "the server gave no finite score");
    if (err == OPD_OK) take_scores(in, q, &score, &scores);
    else if (counts(in, q)) set_trouble(in, err, opd_err_context());
    else set_refusal(in, opd_err_context());
    opd_mem_free(in->o.alloc, scores.topk_ids);
}

/* ---- what it all means ---- */

/* Whether version is at least `since`; a version that cannot be read is not. */
static bool is_since(const char *version, const int since[3]) {
    int got[3] = {0, 0, 0};
    if (sscanf(version, "%9d.%9d.%9d", &got[0], &got[1], &got[2]) < 2) return false;
    for (int i = 0; i < 3; i++)
        if (got[i] != since[i]) return got[i] > since[i];
    return true;
}

/* log p(a) - log p(b) = (z_a - z_b) / T: at temperature 2 every gap is half as wide, where the server
 * scores at a temperature, and the same where it does not. */
static opd_tri judge_temperature(const opd_inquiry *in) {
    const struct opd__gap *one = &in->at_one, *two = &in->at_two;
    int half = 0, same = 0, other = 0;
    if (!one->there || !two->there) return OPD_TRI_UNKNOWN;
    for (uint32_t t = 0; t + 1 < in->score_ids; t++) {
        if (one->first[t] < 0 || one->gap[t] < GAP_LEAST) continue;
        bool alike = one->first[t] == two->first[t] && one->second[t] == two->second[t];
        float ratio = alike ? two->gap[t] / one->gap[t] : -1;
        half += fabsf(ratio - 1.0f / TEMPERATURE_OTHER) < RATIO_SLACK;
        same += fabsf(ratio - 1) < RATIO_SLACK;
        other += !(fabsf(ratio - 1.0f / TEMPERATURE_OTHER) < RATIO_SLACK) && !(fabsf(ratio - 1) < RATIO_SLACK);
    }
    if (other > 0 || (half > 0) == (same > 0)) return OPD_TRI_UNKNOWN;
    return half > 0 ? OPD_TRI_YES : OPD_TRI_NO;
}

static void conclude(opd_inquiry *in) {
    opd_capabilities *f = &in->found;
    bool ours = strcmp(f->server.server, "opd") == 0;
    bool has_forms = in->o.protocol->forms && !ours && is_since(f->server.version, FORMS_SINCE);
    f->top_k = (int32_t)in->o.top_k;
    f->form = f->forms & (1u << OPD_SGLANG_FORM_BASE64) ? OPD_SGLANG_FORM_BASE64
              : f->forms & (1u << OPD_SGLANG_FORM_FLAT) ? OPD_SGLANG_FORM_FLAT
                                                        : OPD_SGLANG_FORM_NESTED;
    f->strips_forms = f->strips_forms && has_forms;
    f->strips_rid = in->o.protocol->forms && f->scores && !f->told_rid;
    f->at_temperature = in->o.protocol->forms ? judge_temperature(in) : OPD_TRI_NO;
    if (f->model.scores_at_temperature) f->at_temperature = OPD_TRI_YES;
    if (in->prefix_ids > 0) f->keeps_prefix = f->cached > 0 ? OPD_TRI_YES : OPD_TRI_NO;
    if (!in->o.protocol->forms) f->keeps_prefix = OPD_TRI_NO; /* its prompt log-probs go around the cache */
}

void opd_inquiry_take(opd_inquiry *in, opd_question q, const opd_inquiry_answer *a) {
    OPD_ASSERT((in->asked & bit(q)) != 0 && !has_answer(in, q));
    in->answered |= bit(q);
    if (a->err != OPD_OK || a->status != 200) take_failure(in, q, a);
    else if (q == OPD_QUESTION_SERVER) {
        if (opd_sglang_server_info_read(a->body, a->size_bytes, &in->found.server) != OPD_OK)
            set_refusal(in, opd_err_context());
    } else if (q == OPD_QUESTION_MODEL) {
        if (in->o.protocol->read_info(a->body, a->size_bytes, &in->found.model) != OPD_OK)
            set_refusal(in, opd_err_context());
    } else take_score(in, q, a);
    if (q == OPD_QUESTION_MODEL) choose_ids(in);
    if (opd_inquiry_done(in)) conclude(in);
}
