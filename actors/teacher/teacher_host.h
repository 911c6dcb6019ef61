/* teacher_host.h - runs `opd serve` as a child process for a teacher given by its path.
 *
 * Starts PROGRAM serve --model DIR --port 0 --threads N --prefix-cache-mb M --exit-with-parent,
 * reads the ready line and puts the URL at which it listens into the slot `endpoint`. A child that ends is started
 * again, after 0.2 s doubling to 5 s; meanwhile the slot holds "". So the teacher finds the server
 * whichever of the two was restarted. What the child writes to stderr goes to the run's log. At STOP it gets SIGTERM, later SIGKILL.
 *
 * A first child that ends before it was ready stops the system with its last words: the path
 * is wrong, or the model cannot be served.
 * Thread: the loop. The child ends with the actor, and with this process.
 */
#ifndef OPD_ACTORS_TEACHER_TEACHER_HOST_H
#define OPD_ACTORS_TEACHER_TEACHER_HOST_H

#include "actors/roles.h"

/* Everything but the threads is borrowed and outlives the actor. */
typedef struct opd_teacher_host_config {
    const opd_roles *roles; /* monitor */
    opd_slot *endpoint;     /* a NUL-terminated URL, or ""         */
    const opd_alloc *alloc;
    struct opd_env *env;
    const char *program;    /* path of the opd command             */
    const char *name;       /* the teacher's                       */
    const char *model;      /* Hugging Face directory              */
    uint32_t threads;       /* 0: 1                                */
    uint32_t cache_mb;      /* --prefix-cache-mb                   */
} opd_teacher_host_config;

extern const opd_actor_class opd_teacher_host_class;

#endif
