/* opd/reward.h - the interface of a reward of your own as a shared object (reward.type: library).
 *
 * The object exports opd_reward_library_get. opd loads it in a child process, so that a crash costs
 * the sample in its hands and no more; init is called once, then score one call at a time, on one
 * thread. See examples/reward and docs/rewards.md.
 *
 * Texts are UTF-8 without a terminating NUL, valid during the call. What the object writes to its
 * standard output goes to the run's log.
 */
#ifndef OPD_REWARD_H
#define OPD_REWARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a field changes its meaning; new fields come at the end. */
#define OPD_REWARD_ABI 1

typedef struct opd_reward_text {
    const char *data;
    size_t size_bytes;
} opd_reward_text;

/* A response to judge. */
typedef struct opd_reward_item {
    opd_reward_text prompt, response, label, source;
} opd_reward_item;

typedef struct opd_reward_library {
    uint32_t abi; /* OPD_REWARD_ABI */

    /* Prepares what score needs; *out_state is handed to the others. May be NULL. Another value
     * than 0 ends the process. */
    int (*init)(void **out_state);

    /* Sets out_rewards[0..count-1]; NaN or infinity: there is none, the sample is left out of its group.
     * count is 1, or with reward.group all answers to one prompt. Another value than 0: none has a
     * reward. */
    int (*score)(void *state, const opd_reward_item *items, size_t count, double *out_rewards);

    /* Frees the state. May be NULL. */
    void (*fini)(void *state);
} opd_reward_library;

/* To be defined by the shared object. The result lives as long as the process. */
const opd_reward_library *opd_reward_library_get(void);

#ifdef __cplusplus
}
#endif

#endif
