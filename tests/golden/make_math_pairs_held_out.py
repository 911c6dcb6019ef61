#!/usr/bin/env python3
"""A second set of pairs for the math rule, made apart from the first: other rows, another seed, other
notations and other mistakes. It says how well the rules generalise: what it finds may be mended where the
rule is wrong, the pairs stay what they are, and docs/rewards.md has the figures of before and after.

    make_math_pairs_held_out.py --data DIR [--every N] [--out FILE]  (as make_math_pairs.py, whose format it has)
"""
import random
import re
from fractions import Fraction

from make_math_pairs import boxed, main, rows


def wrapped(rng, answer):
    """A response that gives the answer, as models write it."""
    return rng.choice([
        f"Step by step we find $\\boxed{{{answer}}}$.", f"\\[\\boxed{{{answer}}}\\]",
        f"First guess \\boxed{{0}}, but no: \\boxed{{ {answer} }}",
        f"**Final answer:** $\\boxed{{{answer}}}$\n", f"Thus the result is \\boxed{{{answer}}}, as claimed."])


def written(rng, value):
    """(kind, answer): a notation of a rational number."""
    f = Fraction(value).limit_denominator(1000)
    p, q = f.numerator, f.denominator
    text = str(p) if q == 1 else str(float(value))
    k = rng.randint(11, 30)
    yield "difference", f"{text} - 0"
    yield "quotient", f"\\frac{{{p * k}}}{{{q * k}}}"
    yield "tfrac", f"\\tfrac{{{p}}}{{{q}}}"
    yield "approx", f"x \\approx {text}"
    yield "power", f"{text} \\cdot 2^0"
    yield "percent", f"{text} \\%"
    yield "root", f"\\sqrt{{{p * p}}}/{q}" if p >= 0 else f"-\\sqrt{{{p * p}}}/{q}"
    yield "half-sum", f"\\frac{{{2 * p - k} + {k}}}{{{2 * q}}}"
    yield "left-right", f"\\left( {text} \\right)"
    yield "unit", f"{text}\\,\\text{{km/h}}"
    yield "equation", f"n = {text}"
    yield "spaced", f"{text}\\ "
    if q == 1:
        yield "zeros", f"{p}.000"
        yield "science", f"{p * 10} \\times 10^{{-1}}"
        if abs(p) >= 1000:
            yield "braced-thousands", f"{p:,}".replace(",", "{,}")
            yield "thin-thousands", f"{p:,}".replace(",", "\\,")
    elif f > 1:
        yield "mixed", f"{p // q} \\dfrac{{{p % q}}}{{{q}}}"


def mistaken(rng, value):
    """(kind, number): what a solver makes of it who errs."""
    f = Fraction(value).limit_denominator(1000)
    digits = str(abs(f.numerator))
    yield "sign", -f if f != 0 else Fraction(1)
    yield "tenth", f / 10 if f != 0 else Fraction(1, 10)
    yield "hundred", f * 100 if f != 0 else Fraction(100)
    yield "near", f + Fraction(rng.choice([-1, 1]), rng.choice([2, 3, 10, 100]))
    yield "more", f + rng.randint(2, 9)
    if f not in (0, 1, -1):
        yield "inverse", 1 / f
    if len(digits) > 1 and digits[0] != digits[-1]:
        yield "swapped", Fraction(int(digits[-1] + digits[1:-1] + digits[0]), f.denominator)


def numbers(rng, name, value):
    label = str(int(value)) if value == int(value) else str(float(value))
    kind, answer = rng.choice(list(written(rng, value)))
    yield f"{name}/{kind}", wrapped(rng, answer), label
    mistake, other = rng.choice(list(mistaken(rng, value)))
    kind, answer = rng.choice([pair for pair in written(rng, other) if pair[0] != "percent"])
    yield f"{name}/perturbed-{mistake}-{kind}", wrapped(rng, answer), label


def composites(rng, values):
    """Tuples, sets, intervals, systems and matrices of numbers of the data."""
    a, b, c = values
    kind, label, same, others = rng.choice([
        ("tuple", f"({a}, {b})", [f"\\left({a},{b}\\right)", f"({a}.0, {b})"],
         [f"({b}, {a})", f"({a}, {b + 1})", f"({a}, {b}, {c})", f"[{a}, {b}]"]),
        ("set", f"\\{{{a}, {b}, {c}\\}}", [f"\\{{{c}, {a}, {b}\\}}", f"\\left\\{{{b}, {a}, {c}\\right\\}}"],
         [f"\\{{{a}, {b}\\}}", f"\\{{{a}, {b}, {c + 1}\\}}"]),
        ("interval", f"[{a}, {a + b})", [f"\\left[{a}, {a + b}\\right)", f"x \\in [{a}, {a + b})"],
         [f"[{a}, {a + b}]", f"({a}, {a + b})", f"[{a}, {a + b + 1})"]),
        ("roots", f"{a}, {a + b}", [f"{a + b}, {a}", f"{a} \\text{{ and }} {a + b}", f"x = {a} \\text{{ or }} x = {a + b}"],
         [f"{a}", f"{a}, {a + b}, {a + b + c}", f"{a}, {a + b + 1}"]),
        ("inequality", f"x > {a}", [f"{a} < x"], [f"x < {a}", f"x \\ge {a}", f"x > {a + 1}"]),
        ("between", f"{a} < x < {a + b}", [f"x > {a} \\text{{ and }} x < {a + b}"],
         [f"{a + 1} < x < {a + b + 1}", f"{a} < x < {a + b + 1}", f"{a} \\le x < {a + b}"]),
        ("matrix", f"\\begin{{pmatrix}} {a} \\\\ {b} \\end{{pmatrix}}",
         [f"\\begin{{bmatrix}} {a} \\\\ {b} \\end{{bmatrix}}"],
         [f"\\begin{{pmatrix}} {b} \\\\ {a + 1} \\end{{pmatrix}}", f"\\begin{{pmatrix}} {a} & {b} \\end{{pmatrix}}"]),
        ("surd", f"{a}\\sqrt{{{b}}}", [f"\\sqrt{{{a * a * b}}}", f"{a} \\cdot {b}^{{1/2}}"],
         [f"{b}\\sqrt{{{a}}}" if a != b else f"\\sqrt{{{a}}}", f"{a}\\sqrt{{{b + 1}}}", f"\\sqrt{{{a * b}}}+1"]),
        ("linear", f"{a}x + {b}", [f"{b} + {a} x", f"\\frac{{{2 * a}x + {2 * b}}}{{2}}"],
         [f"{a}x - {b}", f"{a + 1}x + {b}", f"{a}x^2 + {b}"])])
    yield f"{kind}/same", wrapped(rng, rng.choice(same)), f"\\boxed{{{label}}}"
    yield f"{kind}/perturbed", wrapped(rng, rng.choice(others)), f"\\boxed{{{label}}}"


def formulas(rng, latex):
    same, other = [("again", latex)], []
    if "\\frac" in latex:
        same.append(("tfrac", latex.replace("\\frac", "\\tfrac")))
        other.append(("flipped", re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\\frac{\2}{\1}", latex, count=1)))
    if "\\cdot" in latex:
        same.append(("times", latex.replace("\\cdot", "\\times")))
    if not any(c in latex for c in "=,<>[") and "np." not in latex:
        same += [("bracketed", f"\\left[{latex}\\right]".replace("[", "(").replace("]", ")")),
                 ("thirds", f"\\frac{{1}}{{3}} \\cdot 3 \\cdot \\left({latex}\\right)")]
        other += [("tripled", f"3 \\left({latex}\\right)"), ("minus-one", f"{latex} - 1"),
                  ("rooted", f"\\sqrt{{{latex}}} + 2"), ("halved", f"\\frac{{{latex}}}{{2}}")]
    names = re.findall(r"(?<![\\a-zA-Z{])[a-zA-Z](?![a-zA-Z])", latex)
    if names:
        other.append(("renamed", re.sub(rf"(?<![\\a-zA-Z{{]){names[0]}(?![a-zA-Z])", "q", latex)))
    other = [(kind, text) for kind, text in other if text != latex]
    for kind, answer in rng.sample(same, min(2, len(same))):
        yield f"minerva/{kind}", wrapped(rng, answer), f"\\boxed{{{latex}}}"
    for kind, answer in rng.sample(other, min(2, len(other))):
        yield f"minerva/perturbed-{kind}", wrapped(rng, answer), f"\\boxed{{{latex}}}"


def build(folder):
    rng = random.Random(20231)
    train = [row["answer"].split("####")[1].strip().replace(",", "") for row in rows(folder, "gsm8k-train.jsonl")]
    for text in rng.sample(train, 450):
        yield from numbers(rng, "gsm8k", Fraction(text))
    for row in rng.sample(rows(folder, "mawps.jsonl"), 150):
        yield from numbers(rng, "mawps", Fraction(str(row["target"])))
    for row in rows(folder, "amc23.jsonl") + rng.sample(rows(folder, "svamp.jsonl"), 100):
        yield from numbers(rng, "others", Fraction(str(row.get("answer", row.get("Answer")))))
    whole = sorted({int(text) for text in train if 1 < int(text) < 200})
    for _ in range(300):
        yield from composites(rng, rng.sample(whole, 3))
    for row in rows(folder, "minerva-math.jsonl"):
        latex = boxed(row["solution"])
        if latex is not None:
            yield from formulas(rng, latex)


if __name__ == "__main__":
    main(build, __doc__)
