// pingpong.cpp - the ping_pong case of bench_actor.c for CAF, for comparison: prints its figure.
//
// Two actors, one message with one number under way, sent (not requested) each way; one
// scheduler thread. The clock runs from the spawn of the second actor until both have ended.
// Not part of opd and not a dependency: built where Debian's libcaf-dev is installed.
#include <chrono>
#include <cstdint>
#include <cstdio>

#include "caf/all.hpp"

namespace {

using ping_atom = caf::atom_constant<caf::atom("ping")>;
using pong_atom = caf::atom_constant<caf::atom("pong")>;

constexpr uint64_t round_trips = 2000000;

caf::behavior pong(caf::event_based_actor *self) {
    return {[self](ping_atom, uint64_t left) {
        auto from = caf::actor_cast<caf::actor>(self->current_sender());
        self->send(from, pong_atom::value, left);
        if (left == 1) self->quit();
    }};
}

caf::behavior ping(caf::event_based_actor *self, const caf::actor &other) {
    self->send(other, ping_atom::value, round_trips);
    return {[self, other](pong_atom, uint64_t left) {
        if (left == 1)
            self->quit();
        else
            self->send(other, ping_atom::value, left - 1);
    }};
}

double run() {
    caf::actor_system_config config;
    config.set("scheduler.max-threads", 1);
    caf::actor_system system{config};
    auto other = system.spawn(pong);
    auto start = std::chrono::steady_clock::now();
    system.spawn(ping, other);
    other = nullptr;
    system.await_all_actors_done();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace

int main() {
    run(); // warm-up
    std::printf("{\"case\":\"ping_pong\",\"value\":%.6g,\"unit\":\"round_trips/s\",\"caf\":%d}\n",
                static_cast<double>(round_trips) / run(), CAF_VERSION);
    return 0;
}
