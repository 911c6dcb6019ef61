/* actors/dataset/mix.h - which of several sources each group is from, by their weights.
 *
 * A pattern of at most OPD_MIX_LENGTH_MAX places, filled once and then repeated: each source gets
 * its share of the places, at least one, and they lie as evenly as can be, so that each batch has
 * about the shares of the whole. Where a group is from, and how many of its source came before it,
 * is a function of its number alone: nothing has to be stored to resume.
 *
 * Thread: any; a mix is a value.
 */
#ifndef OPD_ACTORS_DATASET_MIX_H
#define OPD_ACTORS_DATASET_MIX_H

#include <stddef.h>
#include <stdint.h>

enum { OPD_MIX_SOURCES_MAX = 16, OPD_MIX_LENGTH_MAX = 1000 };

typedef struct opd_mix {
    uint32_t length;                      /* of the pattern */
    uint32_t places[OPD_MIX_SOURCES_MAX]; /* of each source */
    uint8_t source[OPD_MIX_LENGTH_MAX];
    uint16_t rank[OPD_MIX_LENGTH_MAX];    /* places of the same source before it */
} opd_mix;

/* The mix of `count` (1 .. OPD_MIX_SOURCES_MAX) sources with weights above 0, of any scale. */
opd_mix opd_mix_of(const double *weights, size_t count);

/* The source of a group; *out_index: how many groups before it are of the same. */
size_t opd_mix_at(const opd_mix *mix, uint64_t group, uint64_t *out_index);

#endif
