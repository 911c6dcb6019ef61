/* checkpoint_actor.h - the actor that saves the trainer's state off the loop.
 *
 * In: SAVE (request). Reply: SAVED once the checkpoint is in place, or the error. One at a
 * time; writing runs on the disk lane. Thread: the loop.
 */
#ifndef OPD_ACTORS_CHECKPOINT_ACTOR_H
#define OPD_ACTORS_CHECKPOINT_ACTOR_H

#include "models/model.h"
#include "models/tokenizer.h"
#include "opd/actor.h"

extern const opd_actor_class opd_checkpoint_class;

/* Borrowed until the actor has stopped. */
typedef struct opd_checkpoint_config {
    const char *dir;        /* checkpoints/ of the stage     */
    const opd_model *model; /* configuration and tensor names */
    const opd_model *critic; /* the same of a critic's head; NULL = none */
    const opd_tokenizer *tokenizer;
    uint64_t seed;
    uint32_t keep;
    opd_lane *disk;
    const opd_alloc *alloc;
} opd_checkpoint_config;

#endif
