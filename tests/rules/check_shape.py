#!/usr/bin/env python3
"""Checks the shape of the C code, tests included: functions of at most 70 lines, files of at most 600,
a purpose comment at the head of each file, and, but in tests, no banned functions.
Usage: check_shape.py ROOT. Exit status 1 and one line per violation.
"""
import pathlib
import re
import sys

ROOMS = ("include", "core", "kernels", "models", "transports", "actors", "cli", "examples", "tests")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
BANNED = re.compile(r"\b(sprintf|strcpy|strcat|gets|strtok|atoi|atof|alloca|system)\s*\(")


def violations(path, lines):
    if len(lines) > FILE_LINES_MAX:
        yield f"{path}: {len(lines)} lines, the most is {FILE_LINES_MAX}"
    if not lines or not lines[0].startswith("/*"):
        yield f"{path}:1: the file does not open with its purpose"
    start = None
    for number, line in enumerate(lines, 1):
        if re.match(r"^[A-Za-z_].*\)\s*\{\s*$", line) or line.startswith("{"):
            start = number
        elif line.startswith("}"):
            if start and number - start > FUNCTION_LINES_MAX:
                yield f"{path}:{start}: a function of {number - start} lines, the most is {FUNCTION_LINES_MAX}"
            start = None
        if not path.startswith("tests/") and BANNED.search(line) and not line.lstrip().startswith(("*", "/*")):
            yield f"{path}:{number}: banned function: {line.strip()}"


def main():
    root = pathlib.Path(sys.argv[1])
    found = []
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.[ch]")):
            path = file.relative_to(root).as_posix()
            found.extend(violations(path, file.read_text().splitlines()))
    print("\n".join(found) or "shape: every function and file within its size")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
