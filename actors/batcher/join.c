/* join.c - a ring of open groups, indexed by group number (join.h).
 *
 * Invariants: `next` only grows; ring[g % groups_max] belongs to group g for
 * next <= g < next + groups_max; `have` counts the non-NULL items of a group.
 * Thread: the loop. The join owns its arrays, never the items.
 */
#include "actors/batcher/join.h"

#include <string.h>

#include "core/base/check.h"

struct opd_join {
    const opd_alloc *alloc;
    uint64_t next;
    uint32_t groups_max, members, parts;
    uint32_t *have; /* [groups_max] */
    void **items;   /* [groups_max][members][parts] */
};

static size_t group_items(const opd_join *join) { return (size_t)join->members * join->parts; }

static void **group_at(const opd_join *join, uint64_t group) {
    return join->items + (size_t)(group % join->groups_max) * group_items(join);
}

opd_err opd_join_create(const opd_alloc *alloc, uint64_t first_group, uint32_t groups_max,
                        uint32_t members, uint32_t parts, opd_join **out) {
    OPD_ASSERT(groups_max > 0 && members > 0 && parts > 0 && parts <= OPD_JOIN_PARTS_MAX);
    opd_join *join = opd_mem_get(alloc, sizeof *join);
    if (join == NULL) return opd_fail(OPD_ERR_NOMEM, "batcher: no memory for the join");
    *join = (opd_join){.alloc = alloc, .next = first_group, .groups_max = groups_max,
                       .members = members, .parts = parts};
    join->have = opd_mem_get(alloc, groups_max * sizeof *join->have);
    join->items = opd_mem_get(alloc, groups_max * group_items(join) * sizeof *join->items);
    if (join->have == NULL || join->items == NULL) {
        opd_join_destroy(join, NULL, NULL);
        return opd_fail(OPD_ERR_NOMEM, "batcher: no memory for %u groups of %u samples",
                        groups_max, members);
    }
    *out = join;
    return OPD_OK;
}

void opd_join_destroy(opd_join *join, void (*drop)(void *arg, void *item), void *arg) {
    if (join == NULL) return;
    size_t count = join->items == NULL ? 0 : join->groups_max * group_items(join);
    for (size_t i = 0; drop != NULL && i < count; i++)
        if (join->items[i] != NULL) drop(arg, join->items[i]);
    opd_mem_free(join->alloc, join->items);
    opd_mem_free(join->alloc, join->have);
    opd_mem_free(join->alloc, join);
}

opd_err opd_join_put(opd_join *join, uint64_t group, uint32_t member, uint32_t part,
                     void *item) {
    OPD_ASSERT(item != NULL);
    if (member >= join->members || part >= join->parts)
        return opd_fail(OPD_ERR_INVALID, "batcher: sample %llu/%u part %u does not exist",
                        (unsigned long long)group, member, part);
    if (group < join->next || group - join->next >= join->groups_max)
        return opd_fail(OPD_ERR_INVALID,
                        "batcher: group %llu is outside the admission window [%llu, +%u)",
                        (unsigned long long)group, (unsigned long long)join->next,
                        join->groups_max);
    void **place = group_at(join, group) + (size_t)member * join->parts + part;
    if (*place != NULL)
        return opd_fail(OPD_ERR_EXISTS, "batcher: sample %llu/%u part %u came twice",
                        (unsigned long long)group, member, part);
    *place = item;
    join->have[group % join->groups_max]++;
    return OPD_OK;
}

int opd_join_next(opd_join *join, uint64_t *out_group, void **out_items) {
    uint32_t *have = &join->have[join->next % join->groups_max];
    size_t count = group_items(join);
    if (*have != count) return 0;
    void **items = group_at(join, join->next);
    memcpy(out_items, items, count * sizeof *items);
    memset(items, 0, count * sizeof *items);
    *have = 0;
    *out_group = join->next++;
    return 1;
}

void opd_join_skip(opd_join *join, uint32_t count, void (*drop)(void *arg, void *item), void *arg) {
    for (; count > 0; count--, join->next++) {
        void **items = group_at(join, join->next);
        for (size_t i = 0; i < group_items(join); i++) {
            if (items[i] != NULL) drop(arg, items[i]);
            items[i] = NULL;
        }
        join->have[join->next % join->groups_max] = 0;
    }
}

uint64_t opd_join_next_group(const opd_join *join) { return join->next; }

uint32_t opd_join_missing(const opd_join *join, uint32_t part) {
    void **items = group_at(join, join->next);
    uint32_t missing = 0;
    for (uint32_t m = 0; m < join->members; m++)
        missing += items[(size_t)m * join->parts + part] == NULL;
    return missing;
}
