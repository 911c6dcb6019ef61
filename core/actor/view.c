/* view.c - attachments on a link: bytes whose last release gives the credit back.
 *
 * When a message is sent over a link, each of its attachments is put behind a view: a pooled
 * buffer over the same bytes (nothing is copied) that takes over the message's reference to
 * its parent. Only the receiver and those it passes the bytes on to hold references to the
 * view, so its last release means "the receiver is done"; the sender may keep the parent.
 * A view of a view is how bytes sent on over a second link count in both windows.
 *
 *   FREE --message sent--> LIVE --last release, loop thread--> FREE
 *                            \--last release, elsewhere--> GOING HOME --event--> FREE
 *
 * Invariants:
 *  1. link->bytes_used = body bytes of messages not released + bytes of LIVE and GOING HOME views.
 *  2. At most views_max views exist (8 for each envelope); blocks of them are allocated when
 *     first needed and kept until the system is destroyed.
 *  3. The parent is released before the credit goes home: credit means memory is back.
 *
 * Thread: the loop's, but view_gone (any). A thread is known by the address of its own `mark`.
 */
#include "core/actor/internal.h"

struct opd__view_block {
    opd__view_block *next;
    opd__view views[OPD__BLOCK_VIEWS];
};

static _Thread_local char mark;

const void *opd__thread_mark(void) { return &mark; }

static void go_home(opd__view *view) {
    opd_link *link = view->link;
    opd_system *system = link->system;
    uint64_t bytes = view->bytes;
    view->link = NULL;
    view->next_free = system->views_free;
    system->views_free = view;
    system->views_live--;
    opd__link_view_gone(link, bytes);
}

static opd_err deliver_home(opd_ctx *ctx, void *state, opd_event *event) {
    (void)ctx;
    (void)state;
    go_home(OPD_CONTAINER_OF(event, opd__view, event));
    return OPD_OK;
}

static void view_gone(opd_buf *buf) {
    opd__view *view = OPD_CONTAINER_OF(buf, opd__view, buf);
    opd_system *system = view->link->system;
    opd_buf_release(view->parent);
    if (system->thread_mark == &mark) {
        go_home(view);
        return;
    }
    view->event = (opd_event){.to = OPD_PID_NOBODY, .deliver = deliver_home};
    opd_event_post_remote(system, &view->event);
}

/* At least `count` free views, or an error. */
static opd_err provide(opd_system *system, unsigned count) {
    while (system->views_made - system->views_live < count) {
        if (system->views_made + OPD__BLOCK_VIEWS > opd__views_max(&system->options))
            return opd_fail(OPD_ERR_LIMIT, "all %u views of attachments are in use",
                            system->views_made);
        opd__view_block *block = opd_mem_get(system->options.alloc, sizeof *block);
        if (block == NULL) return opd_fail(OPD_ERR_NOMEM, "views of attachments");
        block->next = system->view_blocks;
        system->view_blocks = block;
        for (unsigned i = 0; i < OPD__BLOCK_VIEWS; i++) {
            block->views[i].next_free = system->views_free;
            system->views_free = &block->views[i];
        }
        system->views_made += OPD__BLOCK_VIEWS;
    }
    return OPD_OK;
}

opd_err opd__views_put(opd_link *link, opd_msg *msg) {
    opd_system *system = link->system;
    OPD_TRY(provide(system, msg->attachment_count));
    for (unsigned i = 0; i < msg->attachment_count; i++) {
        opd_slice *slice = &msg->attachments[i].slice;
        opd__view *view = system->views_free;
        system->views_free = view->next_free;
        system->views_live++;
        view->parent = slice->buf; /* with the message's reference */
        view->link = link;
        view->bytes = slice->size_bytes;
        opd__buf_view(&view->buf, slice->buf, view_gone);
        slice->buf = &view->buf;
        link->views++;
    }
    return OPD_OK;
}

uint32_t opd__views_max(const opd_system_options *filled) {
    uint64_t most = (uint64_t)filled->messages_max * OPD_MSG_ATTACHMENTS_MAX;
    uint64_t blocks = (most + OPD__BLOCK_VIEWS - 1) / OPD__BLOCK_VIEWS;
    return blocks * OPD__BLOCK_VIEWS > UINT32_MAX ? UINT32_MAX : (uint32_t)(blocks * OPD__BLOCK_VIEWS);
}

void opd__views_free(opd_system *system) {
    for (opd__view_block *block; (block = system->view_blocks) != NULL;) {
        system->view_blocks = block->next;
        opd_mem_free(system->options.alloc, block);
    }
}
