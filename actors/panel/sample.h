/* sample.h - a sample in the panel's hands: what is known of it, what is asked of whom, and how
 * the answers become its scores.
 *
 *   tokens   |--------prompt--------|----------response, as far as it is known----------|
 *   parts of slot 0                 |--done--|--done--|--early, under way--|---final----|
 *
 * A slot is one of the teachers that are wanted for the sample; each scores all of its response. A
 * part is one question of a slot: a range of tokens. While the student writes there is at most one
 * part of a slot under way, an early one; the finished sample's final part is all that nobody
 * was asked for yet. An early part that fails gives its range back.
 *
 * A teacher that sees a privileged prompt is asked about that prompt and the student's response; all
 * positions here are still those of the student's own sequence, so scores join by response token.
 *
 * Invariants: (1) the parts of a slot that are not given back cover [prompt_len, asked_to) without
 * gap or overlap; (2) a token is valid only where the answer about its own range says so;
 * (3) what a part was answered is about the tokens of the ROLLOUT: opd_panel_complete compares.
 * Thread: the loop. The sample owns its parts, their answers and the ROLLOUT.
 */
#ifndef OPD_ACTORS_PANEL_SAMPLE_H
#define OPD_ACTORS_PANEL_SAMPLE_H

#include "actors/messages.h"
#include "actors/panel/route.h"

struct opd_panel_sample;

typedef enum opd_part_state { OPD_PART_WAITING, OPD_PART_ASKED, OPD_PART_DONE, OPD_PART_FAILED } opd_part_state;

/* One question. */
typedef struct opd_panel_part {
    opd_list node;  /* of the sample's parts                              */
    opd_list queue; /* of those that wait for a teacher; the panel's      */
    struct opd_panel_sample *sample;
    uint32_t slot;
    uint32_t from, to;    /* tokens of the sequence                       */
    bool early;           /* asked while the student writes               */
    opd_part_state state;
    opd_rungs rungs;
    uint64_t deadline_ns; /* 0: has not begun                             */
    opd_scored_fields scored; /* DONE; owns its slices                    */
} opd_panel_part;

typedef struct opd_panel_slot {
    uint8_t teacher;      /* that is wanted: its place                      */
    double weight;
    uint32_t asked_to;    /* tokens below are scored, or asked for          */
    bool early_under_way;
    bool early_failed;    /* no more of those                               */
} opd_panel_slot;

typedef struct opd_panel_sample {
    opd_list node;               /* the panel's                                        */
    uint64_t group;
    uint32_t member;
    uint32_t prompt_len, have;   /* tokens known                                       */
    opd_slice tokens;            /* of chunks: a buffer of its own; buf NULL: none     */
    opd_slice topk;              /* the same of the student's likely ids               */
    opd_slice privileged;        /* retained; buf NULL: every teacher sees the prompt  */
    opd_msg *rollout;            /* held; NULL: the student still writes               */
    opd_rollout_fields fields;   /* of it; slices live as long                         */
    uint32_t slot_count;
    opd_panel_slot slots[OPD_CONFIG_TEACHERS_MAX];
    opd_list parts;              /* of opd_panel_part, in no order                     */
    uint32_t open;               /* WAITING or ASKED                                   */
    uint32_t attempts, moves, hedges;
    double wait_ms;              /* the longest of the parts asked for the whole sample */
    char reason[OPD_MESSAGE_TEXT_SIZE]; /* of a part that failed; "": none              */
    opd_msg *message;            /* the SCORES that waits for credit                   */
    uint64_t began_ns;           /* when the ROLLOUT came                              */
} opd_panel_sample;

/* What the teachers of a sample are called and are, for its SCORES. */
typedef struct opd_panel_names {
    const opd_config_stage *stage;
    const char *(*model)(void *arg, int place);
    void *arg;
} opd_panel_names;

/* A zeroed block becomes a sample of these teachers. privileged: what a teacher may see in place of the
 * prompt, of which a reference is taken; buf NULL: nothing else. */
void opd_panel_sample_init(opd_panel_sample *sample, const opd_config_stage *stage, uint64_t group,
                           uint32_t member, uint32_t prompt_len, const char *source, opd_slice privileged);

/* Frees the sample and all it has. */
void opd_panel_sample_destroy(opd_panel_sample *sample, const opd_alloc *alloc);

/* Adds the tokens of a CHUNK, if they go on where the last one ended and fit into max_len; false if
 * not, and nothing is changed. asked_k: ids that come with each response token. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_panel_chunk(opd_panel_sample *sample, const opd_chunk_fields *chunk,
                                       uint32_t max_len, uint32_t asked_k, const opd_alloc *alloc,
                                       bool *out_taken);

/* The ROLLOUT is there; it is the caller's to take. Errors: PARSE (a body that is none), INTERNAL
 * (its tokens do not begin as the chunks did). */
OPD_MUST_CHECK opd_err opd_panel_complete(opd_panel_sample *sample, const opd_rollout_fields *rollout,
                                          uint32_t asked_k);

/* Where the next early part of a slot would end; 0: it is not due. */
uint32_t opd_panel_early_to(const opd_panel_sample *sample, uint32_t slot, uint32_t chunk_tokens);

/* The student's likely ids at the tokens of a part, borrowed; buf NULL: nobody asks about them. */
opd_slice opd_panel_ids(const opd_panel_part *part, uint32_t asked_k);

/* A new part [asked_to, to) of a slot, WAITING, at the beginning of its chain. Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_panel_part_add(opd_panel_sample *sample, uint32_t slot, uint32_t to,
                                          bool early, const opd_chains *chains,
                                          const opd_alloc *alloc, opd_panel_part **out_part);

/* What the teacher at `place` sees in place of the prompt; buf NULL: the prompt. */
opd_slice opd_panel_privileged(const opd_panel_sample *sample, const opd_config_stage *stage, int place);

/* What a teacher is asked about a part: the sequence up to its end, as a slice that owns one reference,
 * and where it starts (as in SCORE). privileged: stands in place of the prompt; buf NULL: nothing does.
 * Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_panel_question(const opd_panel_part *part, opd_slice privileged,
                                          const opd_alloc *alloc, opd_slice *out_tokens,
                                          uint32_t *out_start);

/* A part was answered: its answer is kept. Errors: INTERNAL (arrays of another length; the part is
 * as before). */
OPD_MUST_CHECK opd_err opd_panel_answered(opd_panel_part *part, const opd_scored_fields *scored,
                                          uint32_t top_k, uint32_t asked_k);

/* An early part failed: freed where the student still writes, else it is asked again as any other,
 * from the beginning of its chain (true). */
bool opd_panel_early_back(opd_panel_part *part, const opd_chains *chains, const opd_alloc *alloc);

/* Nobody is left to be asked for a part. */
void opd_panel_part_fail(opd_panel_part *part, const char *reason);

/* Whether all that is wanted was answered or has failed. */
bool opd_panel_settled(const opd_panel_sample *sample);

/* The SCORES of a settled sample; the caller releases its slices (opd_panel_scores_drop).
 * Errors: NOMEM. */
OPD_MUST_CHECK opd_err opd_panel_join(const opd_panel_sample *sample, const opd_panel_names *names,
                                      uint32_t top_k, uint32_t asked_k, const opd_alloc *alloc,
                                      opd_scores_fields *out_scores);
void opd_panel_scores_drop(opd_scores_fields *scores);

#endif
