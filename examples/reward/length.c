/* length.c - a judge for opd as a shared object: reward.type: library, reward.library: liblength.so.
 * The same as length.py. No state of its own; opd calls it on one thread. */
#include <string.h>

#include "opd/reward.h"

static int ends_with(opd_reward_text text, opd_reward_text end) {
    while (text.size_bytes > 0 && strchr(" \n\t", text.data[text.size_bytes - 1]) != NULL)
        text.size_bytes--;
    return text.size_bytes >= end.size_bytes &&
           memcmp(text.data + text.size_bytes - end.size_bytes, end.data, end.size_bytes) == 0;
}

static int score(void *state, const opd_reward_item *items, size_t count, double *out_rewards) {
    (void)state;
    for (size_t i = 0; i < count; i++)
        out_rewards[i] = ends_with(items[i].response, items[i].label) -
                         0.001 * (double)items[i].response.size_bytes;
    return 0;
}

const opd_reward_library *opd_reward_library_get(void) {
    static const opd_reward_library library = {.abi = OPD_REWARD_ABI, .score = score};
    return &library;
}
