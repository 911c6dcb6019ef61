/* memory.h - the most memory a stage can take, part by part, from its sizes and its model.
 *
 * Every queue, pool, table and buffer of a run is bounded by its configuration; this is the sum
 * of those bounds, in one place, and what the start-up log says. Not in it: code, stacks of
 * threads, the kernel's socket buffers, what libuv and nghttp2 keep for their connections, a
 * trace of the run where one is asked for.
 *
 * Thread: any, after opd_assets_open. Nothing is allocated.
 */
#ifndef OPD_ACTORS_RUN_MEMORY_H
#define OPD_ACTORS_RUN_MEMORY_H

#include "actors/run/assets.h"

/* Bytes. */
typedef struct opd_memory {
    uint64_t runtime;  /* envelopes, bodies, tables (opd_system_memory_max), mailboxes' payload */
    uint64_t windows;  /* payload under way on links */
    uint64_t batch;    /* samples the trainer lays flat, and its numbers per token */
    uint64_t models;   /* weights in all their copies, gradients, optimizer */
    uint64_t compute;  /* activations, caches of keys and values, scratch of the threads */
    uint64_t monitor;  /* lines not written yet */
    uint64_t http;     /* questions to a teacher and its answers; a server's own */
    uint64_t data;     /* data sets and tokenizer */
} opd_memory;

/* The ceiling of a stage. */
opd_memory opd_memory_of(const opd_assets *assets);

/* What `opd serve` is made of. */
typedef struct opd_memory_serving {
    const opd_model *model;
    uint32_t threads;      /* of each lane                   */
    uint32_t slots;        /* sequences generated at once    */
    uint64_t scorer_bytes; /* opd_scorer_memory_max          */
    uint64_t runtime_bytes; /* opd_system_memory_max         */
} opd_memory_serving;

/* The ceiling of a server: models and compute, and under http what requests and answers may
 * take by the bounds of actors/server/server_actor.h. */
opd_memory opd_memory_of_serving(const opd_memory_serving *serving);

/* The sum of the parts. */
uint64_t opd_memory_total(const opd_memory *memory);

/* One line of the log: "memory ceiling: ...". */
void opd_memory_log(const char *stage, const opd_memory *memory);
void opd_memory_log_serving(const opd_memory *memory);

#endif
