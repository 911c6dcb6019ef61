/* stub_model.h - a language model in integers, for the simulation (models/lm.h).
 *
 * A token depends on the tokens before it and on the uniform number that was drawn for its
 * place; a log-prob is a multiple of -1/16 that depends on the tokens before it and on the
 * token, exact in float32. Weights change nothing: so the samples of a run are known before
 * it begins, whatever its timing (stub_response), and a run that trained anything else, or in
 * another order, is wrong. Decoder and trainer's graph agree; a graph made for scoring is
 * the teacher's and gives other numbers, and a reader gives the same as that.
 *
 * The trainer's graph tells what it was trained on to the present recorder. Its gradients are
 * integers that depend on the tokens and on the bits of dlogp, so that weights differ when
 * anything that was learnt differs.
 *
 * Thread: one (the simulation's). The recorder is the caller's.
 */
#ifndef OPD_TESTS_SIM_STUB_MODEL_H
#define OPD_TESTS_SIM_STUB_MODEL_H

#include "models/lm.h"

/* Decoders, graphs and readers of integers. */
extern const opd_lm_ops stub_lm;

/* Who is told; one at a time, NULL: nobody. */
typedef struct stub_recorder {
    /* A sequence that a gradient was made of, in the order of the batch. finite: every
     * derivative that the loss gave for it is a finite number. */
    void (*trained)(void *arg, const int32_t *tokens, size_t count, bool finite);
    void *arg;
} stub_recorder;

void stub_record(const stub_recorder *recorder);

/* A number of a whole sequence: equal sequences, equal numbers. */
uint64_t stub_digest(const int32_t *tokens, size_t count);

/* The whole answer of a member, as the rollout makes it from (seed, epoch, group, member):
 * appended to tokens [prompt_len + max_new at most]; returns the whole length. */
size_t stub_response(const opd_model_config *config, uint64_t seed, uint64_t epoch,
                     uint64_t group, uint32_t member, int32_t *tokens, size_t prompt_len,
                     size_t max_new, size_t max_len);

#endif
