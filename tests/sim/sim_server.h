/* sim_server.h - a teacher of the simulated pipeline: a node with what `opd serve` runs.
 *
 * The real server, scorer and rollout actors over the stub model, on a host of the given name.
 * A node may be ended at any moment, as a process is killed, and made again.
 * Thread: the world's.
 */
#ifndef OPD_TESTS_SIM_SIM_SERVER_H
#define OPD_TESTS_SIM_SIM_SERVER_H

#include "tests/sim/checkers.h"
#include "tests/sim/sim_case.h"
#include "transports/tcp_sim.h"

typedef struct sim_server sim_server;

/* Starts the node on host (static). The model of files->teacher is read. Never NULL: stops the
 * program. */
sim_server *sim_server_start(opd_sim *sim, opd_net_sim *net, const sim_files *files,
                             const char *host);

/* Whether all its actors live: if not, the process would have ended. */
bool sim_server_lives(const sim_server *server);

/* Ends the node at once. violation: what its checkers found, or "" [room_size].
 * hash is continued. NULL is legal. */
void sim_server_kill(sim_server *server, char *violation, size_t room_size, uint64_t *hash);

#endif
