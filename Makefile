# make demo   the main job on this machine: a student distilled from its teacher
# make test   every test, under AddressSanitizer and UndefinedBehaviorSanitizer
# make bench  speed of the runtime and the kernels, with floors; wants an idle machine
# make compare  ten signals on the demo's task, three seeds: about an hour; may be cut off and repeated
# make sim    the long simulation: 10,000 seeds, planted bugs, memory
# make        the release build: build/release/cli/opd
# Each target installs the Debian packages it needs (root), or prints the line to run.
SHELL      := /bin/bash
BUILD      := build
JOBS       ?= $(shell nproc)
PACKAGES   := build-essential cmake ninja-build pkg-config \
              libuv1-dev libnghttp2-dev libssl-dev libyaml-dev libmsgpack-dev
TEST_PACKAGES := python3 curl openssl nghttp2-client nghttp2-server nghttp2-proxy nginx haproxy \
                 python3-uvicorn python3-hypercorn python3-msgpack
# Of these, what Debian would run as services. The tests start their own; the machine is left without.
SERVICES   := nginx haproxy nghttpx
# A run folder is never overwritten: the demo takes the next free name.
DEMO_ARGS  ?=
COMPARE_ARGS ?=

.PHONY: all demo compare test tsan bench sim deps test-deps release debug clean

all: release

demo: release
	@n=1; while [ -e runs/demo-$$n ]; do n=$$((n+1)); done; \
	exec $(BUILD)/release/cli/opd run configs/quickstart.yaml --set run.name=demo-$$n $(DEMO_ARGS)

# Writes docs/comparison.md; COMPARE_ARGS=--tune searches the learning rates, --render runs nothing.
compare: release
	@$(call need,python3)
	@exec python3 tests/compare/compare.py $(COMPARE_ARGS)

release: deps
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD)/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DOPD_TESTS=OFF >$(BUILD)/configure.log 2>&1 \
	  || { cat $(BUILD)/configure.log; exit 1; }
	@start=$$SECONDS; cmake --build $(BUILD)/release -j $(JOBS) && echo "build: $$((SECONDS-start)) s"

debug: deps
	@cmake -S . -B $(BUILD)/debug -G Ninja -DCMAKE_BUILD_TYPE=Debug -DOPD_SANITIZE=address,undefined >/dev/null
	@cmake --build $(BUILD)/debug -j $(JOBS)

# The release build first: an optimising compiler warns of what a debug build does not see.
test: test-deps release debug tsan
	@ctest --test-dir $(BUILD)/debug -j $(JOBS) --output-on-failure

# The parts that two threads share, under ThreadSanitizer.
tsan: deps
	@$(call need,python3)
	@cmake -S . -B $(BUILD)/tsan -G Ninja -DCMAKE_BUILD_TYPE=Debug -DOPD_SANITIZE=thread >/dev/null
	@cmake --build $(BUILD)/tsan -j $(JOBS) --target threads
	@ctest --test-dir $(BUILD)/tsan -L threads -j $(JOBS) --output-on-failure --no-tests=error

bench: test-deps
	@cmake -S . -B $(BUILD)/bench -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
	@cmake --build $(BUILD)/bench -j $(JOBS) --target bench

# 10,000 seeds of the simulated pipeline, traces compared over compilers, mutants, memory.
sim: deps
	@$(call need,clang python3)
	@cmake -S . -B $(BUILD)/sim -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=gcc >/dev/null
	@cmake -S . -B $(BUILD)/sim-clang -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang >/dev/null
	@cmake --build $(BUILD)/sim -j $(JOBS) --target simulation
	@cmake --build $(BUILD)/sim-clang -j $(JOBS) --target simulation_programs
	@python3 tests/sim/long.py $(BUILD)/sim $(BUILD)/sim-clang $(JOBS)

deps:
	@$(call need,$(PACKAGES))

test-deps:
	@$(call need,$(PACKAGES) $(TEST_PACKAGES))

clean:
	rm -rf $(BUILD)

# need PACKAGES: installs those that are missing; quick when none is.
define need
missing=""; for p in $(1); do \
  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q '^install ok installed' || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then \
  if [ "$$(id -u)" != 0 ]; then \
    echo "opd needs Debian packages. Run this line, then make again:"; \
    if [ $@ = test-deps ]; then echo "  sudo make test-deps"; else echo "  sudo apt-get install -y$$missing"; fi; \
    exit 1; fi; \
  echo "installing Debian packages:$$missing"; \
  start=$$SECONDS; \
  new=""; for s in $(SERVICES); do [ -e /etc/init.d/$$s ] || new="$$new $$s"; done; \
  policy=/usr/sbin/policy-rc.d; \
  if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; fi; \
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >/tmp/opd-packages.log 2>&1 \
    || { tail -20 /tmp/opd-packages.log; echo "the packages could not be installed (log above)"; exit 1; }; \
  for s in $$new; do [ ! -e /etc/init.d/$$s ] || update-rc.d $$s disable >/dev/null; done; \
  echo "packages: $$((SECONDS-start)) s"; fi
endef
