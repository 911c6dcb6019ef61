/* capabilities.h - what a teacher's server can do, learnt by asking: the questions, their order, and
 * what the answers mean.
 *
 *   MODEL --> SERVER, SCORE, BASE64, FLAT, NESTED, TEMPERATURE, PREFIX (at the same time) --> AGAIN
 *
 * Each question is one small request. A server that does not answer an optional one is noted as
 * not having what was asked about; one that cannot score at all is `unusable`, with its own words;
 * one that cannot be reached, or is busy with something else, is in `trouble`, and may be asked again.
 *
 * Invariants: (1) a question is asked at most once, and none after trouble; (2) the result depends on
 * the answers, not on their order; (3) nothing is believed that the protocol's reader refuses.
 * Pure: bytes in, plain data out; no I/O, no clock. Thread: any one at a time. Memory: answers are
 * read into memory of the given allocator that is freed before the call returns.
 */
#ifndef OPD_ACTORS_TEACHER_CAPABILITIES_H
#define OPD_ACTORS_TEACHER_CAPABILITIES_H

#include "actors/teacher/protocol.h"
#include "core/codec/json.h"

enum {
    OPD_INQUIRY_SCORE_IDS = 8,    /* tokens of a small score ...             */
    OPD_INQUIRY_PREFIX_IDS = 160, /* ... and of one that is long enough to be kept, in pages of 64, too */
    OPD_INQUIRY_RID_SIZE = 64
};

typedef enum opd_question {
    OPD_QUESTION_MODEL,       /* GET: which model                                  */
    OPD_QUESTION_SERVER,      /* GET: which server                                 */
    OPD_QUESTION_SCORE,       /* a small score                                     */
    OPD_QUESTION_BASE64,      /* with alternatives, asked for in each form         */
    OPD_QUESTION_FLAT,
    OPD_QUESTION_NESTED,
    OPD_QUESTION_TEMPERATURE, /* the same as NESTED at temperature 2               */
    OPD_QUESTION_PREFIX,      /* a longer score ...                                */
    OPD_QUESTION_AGAIN,       /* ... once more: is its prefix still there?         */
    OPD_QUESTION_COUNT
} opd_question;

/* "model", "score", ... never NULL. */
const char *opd_question_name(opd_question question);

/* Whether the server has something. */
typedef enum opd_tri { OPD_TRI_UNKNOWN, OPD_TRI_NO, OPD_TRI_YES } opd_tri;

/* What was found. Texts are "" and numbers -1 where it is not known. */
typedef struct opd_capabilities {
    opd_sglang_model_info model;
    opd_sglang_server_info server;
    bool scores;             /* it scored                                              */
    uint32_t forms;          /* bits 1 << opd_sglang_form: alternatives that came back */
    opd_sglang_form form;    /* the smallest of them: what is to be asked for          */
    int32_t top_k;           /* the k that was asked for; 0: none                      */
    opd_tri top_k_given;     /* whether so many came                                   */
    bool told_count, told_rid, echoes_ids;
    opd_tri at_temperature;  /* scores follow the temperature that is asked for        */
    opd_tri keeps_prefix;    /* a prefix that it has seen is not computed again        */
    size_t cached;           /* tokens of PREFIX_IDS that were not                     */
    bool strips_forms;       /* asked for a form that this version has, it sent another: a gateway  */
    bool strips_rid;         /* the rid did not come back: aborts will not find it                  */
    char weight_version[OPD_SGLANG_NAME_SIZE]; /* of its scores                                     */
    char http[16];           /* "HTTP/2", "HTTP/1.1"; filled in by who holds the connection */
    char refusal[OPD_SGLANG_MESSAGE_SIZE];     /* the words of the last question it refused         */
} opd_capabilities;

/* The longest sequence that it scores, or -1. SGLang and vLLM keep room for one more token. */
int64_t opd_capabilities_longest(const opd_capabilities *c);

/* Tokens of a sequence for which chunks are worth it: 256 where prefixes are kept, else 0. */
uint32_t opd_capabilities_chunk_tokens(const opd_capabilities *c);

/* "SGLang 0.5.16, Qwen3-8B, HTTP/2, context 32768, base64, ..." into out. */
void opd_capabilities_line(const opd_capabilities *c, const opd_teacher_protocol *protocol, char *out,
                           size_t out_size);

/* Appends an object with all of it. Errors stick in the writer's string. */
void opd_capabilities_write(const opd_capabilities *c, const opd_teacher_protocol *protocol,
                            opd_json_writer *writer);

/* ---- asking ---- */

typedef struct opd_inquiry_options {
    const opd_teacher_protocol *protocol;
    const opd_alloc *alloc;
    int32_t vocab_size, bos_id; /* of the student; -1: not known, the server's count    */
    uint32_t top_k;             /* that the run will ask for                            */
    uint32_t max_len;           /* longest sequence that may be sent; 0: not known      */
    uint64_t nonce;             /* in the rids                                          */
} opd_inquiry_options;

typedef struct opd_inquiry {
    opd_inquiry_options o;
    opd_capabilities found;
    uint32_t asked, answered; /* bits */
    bool unusable;            /* it cannot score: found.refusal     */
    int denied;               /* the status, 401 or 403; 0: let in  */
    opd_err trouble;          /* it did not answer a question that counts; trouble_text */
    char trouble_text[OPD_SGLANG_MESSAGE_SIZE];
    /* internal */
    int32_t ids[OPD_INQUIRY_PREFIX_IDS];
    uint32_t score_ids, prefix_ids, top_k; /* lengths; 0: not asked */
    /* the two likeliest of each row, at temperature 1 and 2 */
    struct opd__gap { bool there; int32_t first[OPD_INQUIRY_SCORE_IDS], second[OPD_INQUIRY_SCORE_IDS];
                      float gap[OPD_INQUIRY_SCORE_IDS]; } at_one, at_two;
} opd_inquiry;

/* Nothing asked yet. */
void opd_inquiry_init(opd_inquiry *inquiry, const opd_inquiry_options *options);

/* The next question that may be asked now; it counts as asked. False: none, until an answer comes or
 * for ever (opd_inquiry_done). */
bool opd_inquiry_next(opd_inquiry *inquiry, opd_question *out_question);

/* A question that is a GET: its path; else NULL. */
const char *opd_inquiry_path(const opd_inquiry *inquiry, opd_question question);

/* A question that is a score. rid: memory of the caller, filled in, for as long as the score. */
opd_sglang_score opd_inquiry_score(const opd_inquiry *inquiry, opd_question question,
                                   char rid[OPD_INQUIRY_RID_SIZE]);

/* How a call ended. */
typedef struct opd_inquiry_answer {
    opd_err err; /* of the transport */
    const char *error;
    int status;
    const char *body;
    size_t size_bytes;
} opd_inquiry_answer;

/* An answer came. */
void opd_inquiry_take(opd_inquiry *inquiry, opd_question question, const opd_inquiry_answer *answer);

/* Whether nothing is left to ask or to wait for: the verdict is in unusable, trouble and found. */
bool opd_inquiry_done(const opd_inquiry *inquiry);

#endif
