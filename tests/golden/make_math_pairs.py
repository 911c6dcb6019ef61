#!/usr/bin/env python3
"""Pairs of an answer and a label, built from public problem sets, with the verdict of math-verify.

    make_math_pairs.py --data DIR [--every N] [--out FILE]    (needs math-verify of tests/requirements.txt)

Each line is {"kind", "latex", "response", "label", "right"}. From each label come answers that are
another notation of the same value, and answers that were perturbed (about half). `right` is what
math-verify says of the pair, not what the construction meant. The same data gives the same pairs; the
rows of the data sets themselves are not to be committed.
"""
import argparse
import json
import os
import random
import re
import sys
from fractions import Fraction


def rows(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def boxed(text):
    """Content of the last \\boxed{...}."""
    begin = text.rfind("\\boxed{")
    depth = 0
    for i in range(begin + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin + 7 : i]
    return None


def number_variants(rng, value):
    """(kind, answer) of the same number in another notation. `value` is an int or a Fraction."""
    whole = int(value) if value == int(value) else None
    if whole is not None:
        k = rng.randint(2, 9)
        a = rng.randint(1, 50)
        yield "plain", f"The answer is {whole}."
        yield "boxed", f"\\boxed{{{whole}}}"
        yield "decimal", f"So we get \\boxed{{{whole}.0}}."
        yield "thousands", f"\\boxed{{{whole:,}}}"
        yield "fraction", f"\\boxed{{\\frac{{{whole * k}}}{{{k}}}}}"
        yield "dfrac", f"Hence $\\boxed{{\\dfrac{{{whole * k}}}{{{k}}}}}$"
        yield "sum", f"\\boxed{{{whole - a}+{a}}}"
        yield "equation", f"\\boxed{{x={whole}}}"
        yield "units", f"\\boxed{{{whole} \\text{{ cm}}}}"
        yield "dollars", f"\\boxed{{\\${whole}}}"
        yield "product", f"\\boxed{{{whole} \\times 1}}"
    else:
        yield "plain", f"The answer is {float(value)}."
        yield "boxed", f"\\boxed{{{float(value)}}}"
        f = Fraction(value).limit_denominator(1000)
        yield "fraction", f"\\boxed{{\\frac{{{f.numerator}}}{{{f.denominator}}}}}"
        yield "slash", f"\\boxed{{{f.numerator}/{f.denominator}}}"
        if f > 1:
            w = f.numerator // f.denominator
            yield "mixed", f"\\boxed{{{w}\\frac{{{f.numerator - w * f.denominator}}}{{{f.denominator}}}}}"


def perturbed(rng, value):
    """Another number that a careless solver could have written."""
    ways = [value + rng.choice([-1, 1]), value * 10, value + Fraction(1, 2), value * 2 + 1]
    return rng.choice(ways) if value != 0 else Fraction(rng.randint(1, 9))


def rewritten(latex):
    """(kind, answer) in another LaTeX notation."""
    yield "same", latex
    if "\\frac" in latex:
        yield "dfrac", latex.replace("\\frac", "\\dfrac")
    if "(" in latex and "\\left" not in latex:
        yield "left-right", latex.replace("(", "\\left(").replace(")", "\\right)")
    if " " in latex:
        yield "thin-space", re.sub(r"(?<=[\w}]) (?=\w)", r"\\, ", latex)
    if re.fullmatch(r"[-+\d.e/ ]+", latex):
        yield "equation", f"y = {latex}"
        yield "units", f"{latex} \\mathrm{{~m}}"
        yield "brackets", f"\\left({latex}\\right)"
    elif "=" not in latex and "," not in latex and "np." not in latex:
        yield "times-one", f"1 \\cdot {latex}" if not latex.startswith("-") else latex
        yield "half-of-twice", f"\\frac{{2 \\left({latex}\\right)}}{{2}}"
        yield "two-halves", f"\\frac{{2}}{{2}} \\left({latex}\\right)"
        yield "plus-zero", f"0 + {latex}" if not latex.startswith("-") else f"0 {latex}"


def spoiled(rng, latex):
    """(kind, answer) with something changed that changes the value."""
    digits = [m for m in re.finditer(r"\d", latex)]
    if digits:
        m = rng.choice(digits)
        digit = rng.choice([d for d in "123456789" if d != m.group()])
        yield "digit", latex[: m.start()] + digit + latex[m.end() :]
    if "=" not in latex and "," not in latex and "np." not in latex:
        yield "doubled", f"2 \\cdot \\left({latex}\\right)"
        yield "plus-one", f"{latex}+1"
        yield "negated", f"-\\left({latex}\\right)"
        yield "squared", f"\\left({latex}\\right)^2+3"
    for old, new in [("\\sin", "\\cos"), ("+", "-"), ("\\sqrt", "2 \\cdot \\sqrt"), ("e^", "2^")]:
        if old in latex:
            yield "changed" + old, latex.replace(old, new, 1)


def number_pairs(rng, name, value, per_row):
    label = str(int(value)) if value == int(value) else str(float(value))
    for kind, answer in rng.sample(list(number_variants(rng, value)), per_row):
        yield f"{name}/{kind}", answer, label
    for _ in range(per_row):
        other = perturbed(rng, Fraction(value).limit_denominator(1000))
        kind, answer = rng.choice(list(number_variants(rng, other)))
        yield f"{name}/perturbed-{kind}", answer, label


def build(folder):
    rng = random.Random(5)
    gsm8k = [row["answer"].split("####")[1].strip() for row in rows(folder, "gsm8k-test.jsonl")]
    for text in rng.sample(gsm8k, 300):
        yield from number_pairs(rng, "gsm8k", Fraction(text.replace(",", "")), 1)
    mawps = [row["target"] for row in rows(folder, "mawps.jsonl")]
    broken = [value for value in mawps if value != int(value)]
    for value in rng.sample(mawps, 150) + rng.sample(broken, 100):
        yield from number_pairs(rng, "mawps", Fraction(str(value)), 1)
    for row in rng.sample(rows(folder, "svamp.jsonl"), 150):
        yield from number_pairs(rng, "svamp", Fraction(str(row["Answer"])), 1)
    for row in rows(folder, "amc23.jsonl"):
        yield from number_pairs(rng, "amc23", Fraction(str(row["answer"])), 2)
    for row in rows(folder, "minerva-math.jsonl"):
        latex = boxed(row["solution"])
        if latex is None:
            continue
        same, other = list(rewritten(latex)), list(spoiled(rng, latex))
        count = min(3, len(same), max(1, len(other)))
        for kind, answer in rng.sample(same, count):
            yield f"minerva/{kind}", f"Therefore \\boxed{{{answer}}}.", f"\\boxed{{{latex}}}"
        for kind, answer in rng.sample(other, min(count, len(other))):
            yield f"minerva/perturbed-{kind}", f"Therefore \\boxed{{{answer}}}.", f"\\boxed{{{latex}}}"


def judge(pairs):
    """Adds the verdicts. The label is given as a formula, which is what math-verify asks for."""
    from math_verify import parse, verify

    for kind, response, label in pairs:
        gold = label if "\\boxed" in label else f"${label}$"
        right = bool(verify(parse(gold), parse(response)))
        latex = "\\" in (response + label).replace("\\boxed", "")
        yield {"kind": kind, "latex": latex, "response": response, "label": label, "right": right}


def main(build, doc):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", default="-")
    parser.add_argument("--every", type=int, default=1, help="only every N-th pair")
    options = parser.parse_args()
    out = sys.stdout if options.out == "-" else open(options.out, "w", encoding="utf-8")
    for pair in judge(list(build(options.data))[:: options.every]):
        out.write(json.dumps(pair) + "\n")


if __name__ == "__main__":
    main(build, __doc__)
