#!/usr/bin/env python3
"""Runs a program with a planted bug (a mutant) over seeds until one fails, and checks that it failed
for the right reason.

Usage: run.py PROGRAM REASON [SEEDS]    REASON: a regular expression; SEEDS: at most so many (1000)
Exit status 0 when a seed failed and said REASON, 1 otherwise.
"""
import os
import re
import subprocess
import sys

CHUNK = 50
# A sanitizer's verdict ends the program as an assertion does: with last words.
SANITIZERS = {"ASAN_OPTIONS": "abort_on_error=1:handle_abort=0", "UBSAN_OPTIONS": "abort_on_error=1"}


def main():
    program, reason = sys.argv[1], sys.argv[2]
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    for first in range(1, seeds + 1, CHUNK):
        last = min(first + CHUNK - 1, seeds)
        run = subprocess.run([program, "--seeds", f"{first}-{last}", "--first"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                             env={**os.environ, **SANITIZERS})
        if run.returncode == 0:
            continue
        lines = [line for line in run.stdout.splitlines() if re.search(reason, line)]
        if not lines:
            print(f"seeds {first}-{last} failed, but not because of '{reason}':\n"
                  + run.stdout[-2000:])
            return 1
        seed = re.search(r"seed (\d+)", lines[0])
        print(f"found by seed {seed.group(1) if seed else f'{first}-{last}'}: {lines[0][:200]}")
        return 0
    print(f"not found by {seeds} seeds")
    return 1


if __name__ == "__main__":
    sys.exit(main())
