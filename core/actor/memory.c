/* memory.c - everything the runtime can ever allocate, in one place (opd/actor.h).
 *
 * Each table below is refused to grow beyond the maximum that stands here; nothing else in
 * core/actor allocates. Not the runtime's own, and bounded where they are made:
 *   - state of the actors (state_size of their classes) and what it holds;
 *   - payload: attachments wait in mailboxes (mailbox_bytes_max of each class), in link windows
 *     (bytes_max of each link) and in replies (at most requests_max of them);
 *   - slots, timers, monitors, events and jobs: members of what their users own;
 *   - the stacks of lane threads, and the env.
 *
 * Thread: any. Nothing is allocated.
 */
#include "core/actor/internal.h"

/* Blocks of the C library's allocator carry a header; so does rounding. */
static uint64_t block(uint64_t size_bytes) { return size_bytes + 32; }

opd_system_options opd__options_filled(const opd_system_options *options) {
    opd_system_options o = options == NULL ? (opd_system_options){0} : *options;
    if (o.actors_max == 0) o.actors_max = 256;
    if (o.messages_max == 0) o.messages_max = 8192;
    if (o.timers_max == 0) o.timers_max = 16384;
    if (o.requests_max == 0) o.requests_max = 16384;
    if (o.links_max == 0) o.links_max = 1024;
    if (o.stop_timeout_ms == 0) o.stop_timeout_ms = 5000;
    if (o.handler_warn_ms == 0) o.handler_warn_ms = 10;
    if (o.stall_report_ms != 0) o.recorder = true; /* a livelock is named from it */
    return o;
}

uint64_t opd_system_memory_max(const opd_system_options *options) {
    const opd_system_options o = opd__options_filled(options);
    uint64_t envelopes = block(o.messages_max * sizeof(opd_msg));
    uint64_t bodies = o.messages_max * block(OPD_MSG_BODY_MAX); /* beyond the inline ones */
    uint64_t views = opd__views_max(&o) * (uint64_t)sizeof(opd__view);
    views += views / sizeof(opd__view) / OPD__BLOCK_VIEWS * block(sizeof(void *));
    uint64_t actors = o.actors_max * (block(sizeof(opd_ctx)) + block(0)); /* and a state's header */
    uint64_t pids = block(o.actors_max * sizeof(opd_ctx *)) + block(o.actors_max * 4ull);
    uint64_t timers = block(o.timers_max * sizeof(opd_heap_node *));
    uint64_t requests = o.requests_max * (uint64_t)sizeof(opd__pending) +
                        o.actors_max * block(0); /* a table for each actor that asks */
    uint64_t links = o.links_max * block(sizeof(opd_link));
    uint64_t lanes = OPD__LANES_MAX * block(sizeof(opd_lane));
    uint64_t diagnosis = block((o.actors_max + 1) * (uint64_t)OPD_HEARTBEAT_NAME_SIZE) +
                         (o.recorder ? block(sizeof(opd__recorder)) : 0);
    uint64_t system = block(sizeof(opd_system)); /* with its dead letters */
    return envelopes + bodies + views + actors + pids + timers + requests + links + lanes +
           diagnosis + system;
}
