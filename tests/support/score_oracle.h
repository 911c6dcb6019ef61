/* score_oracle.h - a second reader of SGLang scoring answers, for comparison.
 *
 * Written over the pull cursor of core/codec/json.h, whole text at once, as plainly as can be:
 * slow, and independent of the scanner's tokens, fast paths and base64. What it accepts, and the
 * numbers, must be the scanner's.
 * Thread: any. Memory: what it allocates it frees.
 */
#ifndef OPD_TESTS_SUPPORT_SCORE_ORACLE_H
#define OPD_TESTS_SUPPORT_SCORE_ORACLE_H

#include "transports/sglang.h"

/* As opd_sglang_score_read; on an error the arrays are not to be looked at. */
OPD_MUST_CHECK opd_err opd_test_score_oracle(const char *body, size_t size_bytes,
                                             const opd_sglang_score *score,
                                             opd_sglang_scores *out_scores);

#endif
