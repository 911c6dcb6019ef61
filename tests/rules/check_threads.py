#!/usr/bin/env python3
"""Checks that threads meet only where docs/threads.md says so.

The page's table of shared places names, for each, the files that hold its atomics, locks and
thread-locals, and the test that exercises it. Fails when
- a file of the library uses such a thing and is not named there,
- a file is named there and uses none (the page is out of date),
- a test that either table names does not exist or is not labelled `threads` (make tsan).
Comments and strings do not count. Usage: check_threads.py ROOT. Exit status 1 and one line per
violation.
"""
import pathlib
import re
import sys

ROOMS = ("include", "core", "kernels", "models", "transports", "actors", "cli", "examples")
PRIMITIVE = re.compile(
    r"\b(?:stdatomic\.h|threads\.h|pthread\.h|semaphore\.h|atomic_\w+|_Atomic|__atomic_\w+|__sync_\w+"
    r"|volatile|pthread_\w+|_Thread_local|__thread|thread_local|mtx_\w+|cnd_\w+|thrd_\w+|tss_\w+"
    r"|call_once|sem_(?:init|wait|post|trywait|timedwait|destroy|open|close)|SYS_futex"
    r"|uv_async_\w+|uv_queue_work|uv_(?:mutex|rwlock|sem|cond|barrier|once|key|thread)(?:_\w+)?)\b")
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
PLACES, HANDED = "## Places with atomics or locks", "## What is handed over, or never written"


def code_of(text):
    """The text with comments and literals blanked, line numbers kept; includes stay readable."""
    def blank(match):
        found = match.group(0)
        return found if found.startswith('"') and found.endswith('.h"') else re.sub(r"[^\n]", " ", found)
    return NOT_CODE.sub(blank, text)


def uses(root):
    """{path: (line, primitive)} of the first use in each file that has one."""
    found = {}
    for room in ROOMS:
        for file in sorted(path for path in (root / room).rglob("*") if path.suffix in (".c", ".h", ".cu", ".cuh")):
            for number, line in enumerate(code_of(file.read_text()).splitlines(), 1):
                match = PRIMITIVE.search(line)
                if match:
                    found[file.relative_to(root).as_posix()] = (number, match.group(0))
                    break
    return found


def rows(page, heading):
    """The table under a heading, as lists of cells without their header."""
    if heading not in page:
        return []
    section = page.split(heading, 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def tests(root):
    """{"program.case": labelled threads?} of every opd_test."""
    found = {}
    for cmake in (root / "tests").rglob("CMakeLists.txt"):
        text = re.sub(r"#[^\n]*", "", cmake.read_text())
        for name, arguments in re.findall(r"opd_test\(\s*(\w+)\s+SOURCES\s+([^)]*)\)", text):
            words = arguments.split()
            labels = words[words.index("LABELS") + 1:] if "LABELS" in words else []
            for source in (cmake.parent / word for word in words if word.endswith(".c") and "$" not in word):
                if source.exists():
                    for case in re.findall(r"^TEST\((\w+)\)", source.read_text(), re.M):
                        found[f"{name}.{case}"] = "threads" in labels
    return found


def check_row(row, tested):
    """Complaints about one row: its tests, and that it has a rule."""
    place, rule, named = row[0], row[-2], re.findall(r"`(\w+\.\w+)`", row[-1])
    if len(rule) < 10:
        yield f"docs/threads.md: {place}: no rule is given"
    if not named:
        yield f"docs/threads.md: {place}: no test is named"
    for name in named:
        if name not in tested:
            yield f"docs/threads.md: {place}: there is no test {name}"
        elif not tested[name]:
            yield f"docs/threads.md: {place}: the test {name} is not labelled threads"


def violations(root):
    page = (root / "docs/threads.md").read_text()
    places, handed = rows(page, PLACES), rows(page, HANDED)
    if not places or not handed:
        yield f"docs/threads.md: a table is missing: {PLACES!r}, {HANDED!r}"
        return
    listed = {path for row in places for path in re.findall(r"`([\w/]+\.\w+)`", row[1])}
    used = uses(root)
    for path in sorted(set(used) - listed):
        line, what = used[path]
        yield (f"{path}:{line}: {what} is not in docs/threads.md: send a message, hand the object over "
               "by a job, or add the place with its rule and its test")
    for path in sorted(listed - set(used)):
        yield f"docs/threads.md: {path} uses nothing of that kind (any more)"
    tested = tests(root)
    for row in places + handed:
        yield from check_row(row, tested)


def main():
    found = list(violations(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "threads: they meet only where docs/threads.md says")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
