#!/usr/bin/env python3
"""Compares our verdicts on the pairs of make_math_pairs.py with those of math-verify.

    check_math_pairs.py JUDGE [PAIRS.jsonl]

JUDGE is the program of math_judge.c. Without PAIRS every seventh pair is made of OPD_TEST_DATA. Prints
the agreement and every difference; fails below 98.5 %. Exit status 77: no data, or no math-verify.
"""
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

AGREEMENT_MIN = 0.985


def make(folder, path):
    data = os.environ.get("OPD_TEST_DATA")
    if data is None or importlib.util.find_spec("math_verify") is None:
        print("skipped: OPD_TEST_DATA is not set" if data is None else "skipped: no math-verify")
        sys.exit(77)
    script = os.path.join(folder, "make_math_pairs.py")
    subprocess.run([sys.executable, script, "--data", data, "--every", "7", "--out", path], check=True)


def main():
    judge, path = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = os.path.join(folder, "pairs.jsonl")
            make(os.path.dirname(os.path.abspath(__file__)), path)
        with open(path, encoding="utf-8") as file:
            pairs = [json.loads(line) for line in file]
        out = subprocess.run([judge, path], check=True, capture_output=True, text=True).stdout
    ours = [line == "1" for line in out.split()]
    assert len(ours) == len(pairs), f"{len(ours)} verdicts on {len(pairs)} pairs"
    different = [(pair, verdict) for pair, verdict in zip(pairs, ours) if pair["right"] != verdict]
    for pair, verdict in different:
        print(f"ours {verdict}, theirs {pair['right']}: {pair['kind']}: {pair['response']} | {pair['label']}")
    agreement = 1 - len(different) / len(pairs)
    perturbed = sum("perturbed" in pair["kind"] for pair in pairs)
    latex = sum(pair["latex"] for pair in pairs)
    print(f"{len(pairs)} pairs, {perturbed} perturbed, {latex} with LaTeX: {agreement:.4%} agree, "
          f"{len(different)} differ")
    return agreement < AGREEMENT_MIN


if __name__ == "__main__":
    sys.exit(main())
