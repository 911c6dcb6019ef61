#!/usr/bin/env python3
"""The long run of the simulation: what `make sim` does after it has built the programs.

Usage: long.py BUILD OTHER_BUILD [JOBS]    OTHER_BUILD: the same by another compiler
  1. 10,000 seeds of the pipeline, every fifth compared with an undisturbed run
  2. 500 seeds whose runs must have the same trace hash twice, and in both builds
  3. 10,000 seeds of the runtime alone and of HTTP alone, with the same hash in both builds
  4. the mutants, each to be found within 1,000 seeds
  5. memory over 200,000 samples
Prints one line for each; exit status 1 if one failed.
"""
import concurrent.futures
import pathlib
import subprocess
import sys
import time

SEEDS, HASHES, CHUNK = 10000, 500, 250


def call(*command):
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)


def chunks(program, count, *more):
    return [(program, "--seeds", f"{first}-{min(first + CHUNK - 1, count)}", *more)
            for first in range(1, count + 1, CHUNK)]


def run_all(pool, commands):
    return list(pool.map(lambda command: call(*command), commands))


def say(good, what, text):
    print(f"{'ok  ' if good else 'FAIL'} {what}: {text}", flush=True)
    return good


def lines_of(runs, keep):
    return [line for run in runs for line in run.stdout.splitlines() if keep(line)]


def seeds(pool, build):
    begin = time.monotonic()
    runs = run_all(pool, chunks(build / "tests/sim/sim_pipeline", SEEDS, "--compare", "5"))
    good = say(all(run.returncode == 0 for run in runs), "seeds",
               f"{SEEDS} in {time.monotonic() - begin:.0f} s")
    for line in lines_of(runs, lambda line: "FAILED" in line or "assertion" in line):
        print("     " + line)
    return good


def hashes(pool, build, other):
    both = []
    for place, more in ((build, ("--hash", "--twice")), (other, ("--hash",))):
        runs = run_all(pool, chunks(place / "tests/sim/sim_pipeline", HASHES, *more))
        both.append(lines_of(runs, lambda line: line[:1].isdigit() and len(line.split()) == 2))
        if any(run.returncode != 0 for run in runs):
            return say(False, "hashes", f"a seed failed in {place}")
    different = sum(a != b for a, b in zip(*both))
    same = len(both[0]) == len(both[1]) == HASHES and different == 0
    return say(same, "hashes", f"{len(both[0])} seeds twice, and by two compilers: "
               f"{different} differ")


def alone(pool, build, other, program):
    both = []
    for place in (build, other):
        runs = run_all(pool, chunks(place / "tests/sim" / program, SEEDS))
        both.append([run.stdout.splitlines()[-1:] for run in runs])
        for line in lines_of(runs, lambda line: line.startswith("seed ")):
            print("     " + line)
        if any(run.returncode != 0 for run in runs):
            return say(False, program, f"a seed failed in {place}")
    return say(both[0] == both[1], program, f"{SEEDS} seeds, by two compilers: "
               + ("the same" if both[0] == both[1] else "they differ"))


def mutants(build):
    run = call("ctest", "--test-dir", build, "-R", "^mutants\\.", "--verbose", "--no-tests=error")
    for line in run.stdout.splitlines():
        if "found by" in line or "***" in line:
            print("     " + line.strip())
    return say(run.returncode == 0, "mutants", "each found" if run.returncode == 0 else "see above")


def memory(build):
    run = call(build / "tests/sim/soak")
    return say(run.returncode == 0, "memory", run.stdout.strip())


def main():
    build, other = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    jobs = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        good = [seeds(pool, build), hashes(pool, build, other)]
        good += [alone(pool, build, other, program) for program in ("sim_runtime", "sim_http")]
    good += [mutants(build), memory(build)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
