#!/usr/bin/env python3
"""Checks docs/learning.md against the program: every value of a setting that chooses a formula has a row
in the table of formulas, every row names a test (a case of CTest, or a script that has several), and every test
that is named exists.
Usage: check_learning.py ROOT CTEST BUILD. Exit status 1 and one line per difference.
"""
import json
import pathlib
import re
import subprocess
import sys

CHOICES = ("train.estimator", "train.loss_reduction", "train.correction", "train.kl_loss_type", "opd.signal",
           "opd.divergence", "opd.support", "opd.tail", "opd.token_selection", "opd.on_missing")
TEST = re.compile(r"`([a-z0-9_]+\.[a-z0-9_]+)`")


def tests_of(ctest, build):
    shown = subprocess.run([ctest, "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True,
                           check=True, timeout=60).stdout
    return {test["name"] for test in json.loads(shown)["tests"]}


def tables(text):
    """(heading, [cells of a row]) of every table in the text."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def check_rows(root, text, known):
    aliases = dict(re.findall(r"^- ([A-Z]): `([a-z0-9_.]+)`", text, re.M))
    for heading, rows in tables(text):
        if heading[-1] != "test":
            continue
        for row in rows:
            named = TEST.findall(row[-1]) + [aliases[a] for a in re.findall(r"\b[A-Z]\b", row[-1]) if a in aliases]
            scripts = re.findall(r"`(tests/[a-z0-9_/]+\.py)`", row[-1])
            for script in scripts:
                if not (root / script).exists():
                    yield f"there is no {script} (for {row[0]})"
            if not named and not scripts:
                yield f"no test is named for {row[0]}"
            for name in named:
                if name not in known:
                    yield f"there is no test {name} (for {row[0]})"


def check_choices(root, text):
    schema = json.loads((root / "configs/opd.schema.json").read_text())["properties"]
    cells = [row[0] for heading, rows in tables(text) if heading[0] == "formula" for row in rows]
    written = {pair for cell in cells for pair in re.findall(r"`([a-z_.]+): ([^`]+)`", cell)}
    for key in CHOICES:
        section, name = key.split(".")
        values = {(key, value) for value in schema[section]["properties"][name]["enum"]}
        for _, value in sorted(values - written):
            yield f"the formula of {key}: {value} is missing"
        for _, value in sorted({pair for pair in written if pair[0] == key} - values):
            yield f"there is no {key}: {value}"


def main():
    root, ctest, build = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    text = (root / "docs/learning.md").read_text()
    found = [*check_rows(root, text, tests_of(ctest, build)), *check_choices(root, text)]
    if text.count("| formula |") != 1 or len(TEST.findall(text)) < 40:
        found.append("the table of formulas was not found")
    print("\n".join(f"docs/learning.md: {line}" for line in found) or "learning: every formula has its proof")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
