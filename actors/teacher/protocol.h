/* protocol.h - the languages of teachers over HTTP: what is asked where, and how answers are read.
 *
 * Thread: any. Nothing to free.
 */
#ifndef OPD_ACTORS_TEACHER_PROTOCOL_H
#define OPD_ACTORS_TEACHER_PROTOCOL_H

#include "opd/config.h"
#include "transports/sglang.h"

typedef struct opd_teacher_protocol {
    const char *name;       /* as in teachers.*.protocol                   */
    const char *score_path; /* POST; the body is `write`'s                 */
    const char *info_path;  /* GET: what is served; also tells that it lives */
    const char *server_path; /* GET: what serves it                          */
    bool capped;            /* the server may refuse a large top_k: asked at start as it will be */
    bool forms;             /* alternatives may come in other forms than nested; has temperature */
    /* As opd_sglang_score_write and opd_sglang_score_read. */
    opd_err (*write)(const opd_sglang_score *score, opd_str *out);
    opd_err (*read)(const char *body, size_t size_bytes, const opd_sglang_score *score,
                    opd_sglang_scores *out_scores);
    opd_err (*read_info)(const char *body, size_t size_bytes, opd_sglang_model_info *out_info);
} opd_teacher_protocol;

/* Of a configured teacher. */
const opd_teacher_protocol *opd_teacher_protocol_of(const opd_config_teacher *teacher);

#endif
