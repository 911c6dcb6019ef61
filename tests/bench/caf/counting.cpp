// counting.cpp - the counting case of bench_actor.c for CAF, for comparison: prints its figure.
//
// One actor sends numbers to another, which counts them; one scheduler thread. CAF's mailbox has
// no bound and no credits, so the producer sends all of them in one go, as Savina's program does.
// The clock runs from the spawn of the producer until both have ended.
// Not part of opd and not a dependency: built where Debian's libcaf-dev is installed.
#include <chrono>
#include <cstdint>
#include <cstdio>

#include "caf/all.hpp"

namespace {

using add_atom = caf::atom_constant<caf::atom("add")>;

constexpr uint64_t counted = 1000000;

struct count_state {
    uint64_t count = 0;
};

caf::behavior counter(caf::stateful_actor<count_state> *self) {
    return {[self](add_atom, uint64_t number) {
        if (number != ++self->state.count) self->quit(caf::sec::runtime_error);
        if (self->state.count == counted) self->quit();
    }};
}

void producer(caf::event_based_actor *self, const caf::actor &to) {
    for (uint64_t i = 1; i <= counted; i++) self->send(to, add_atom::value, i);
}

double run() {
    caf::actor_system_config config;
    config.set("scheduler.max-threads", 1);
    caf::actor_system system{config};
    auto to = system.spawn(counter);
    auto start = std::chrono::steady_clock::now();
    system.spawn(producer, to);
    to = nullptr;
    system.await_all_actors_done();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace

int main() {
    run(); // warm-up
    std::printf("{\"case\":\"counting\",\"value\":%.6g,\"unit\":\"msgs/s\",\"caf\":%d}\n",
                static_cast<double>(counted) / run(), CAF_VERSION);
    return 0;
}
