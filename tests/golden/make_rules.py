#!/usr/bin/env python3
"""Makes rules.jsonl: rewards of the text rules (dapo, f1, choice) by a reference written from their definitions.

    make_rules.py [--out rules.jsonl]

Each line is {"case": "RULE REWARD", "response", "label"}. dapo: Minerva normalisation (Lewkowycz et al.
2022, appendix D) of the last "Answer:" line of the last 300 characters. f1: SQuAD's token F1. Texts are put
together at random from fragments that the rules care about.
"""
import argparse
import collections
import json
import random
import re
import string

CHANGED = [("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"),
           (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")]
DROPPED = ("square ways integers dollars mph inches ft hours km units \\ldots sue points feet minutes digits cents "
           "degrees cm gm pounds meters meals edges students childrentickets multiples \\text{s} \\text{.}").split()
DROPPED += ["\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ",
            "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots"]


def minerva(text):
    text = text.rpartition("=")[2]
    for old, new in CHANGED + [(word, "") for word in DROPPED]:
        text = text.replace(old, new)
    inside = re.match(r"[^$]*\$([^$]*)\$", text)
    text = inside.group(1) if inside else text
    for command in ("text", "textbf", "overline"):
        text = re.sub(r"\\%s\{(.*?)\}" % command, r"\1", text)
    text = re.sub(r"\\boxed\{(.*)\}", r"\1", text)
    text = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", text)
    text = re.sub(r"sqrt([^{])", r"sqrt{\1}", text)
    text = text.replace("$", "")
    return (text.replace(",", "") if text.replace(",", "").isdigit() else text).strip()


def dapo(response, label):
    lines = re.findall(r"(?i)answer\s*:\s*([^\n]+)", response[-300:])
    return 1 if lines and minerva(lines[-1]) == minerva(label) else -1


def words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in text.split() if word not in ("a", "an", "the")]


def f1(response, label):
    ours, theirs = words(response), words(label)
    for whole in ("yes", "no", "noanswer"):
        if (ours == [whole]) != (theirs == [whole]):
            return 0
    common = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="rules.jsonl")
    options = parser.parse_args()
    rng = random.Random(7)
    answers = ["12", "1,234", "1234", "\\frac12", "\\frac{1}{2}", "$x=5$", "5", "\\sqrt3", "\\sqrt{3}", "\\text{blue}",
               "blue", "12 cm", "30^\\circ", "30", "\\boxed{7}", "7", "$7$.", "an apple", "apple", "3 \\text{m}^2",
               "3^2", "\\$18", "18 dollars", "18", "1{,}234", "\\textbf{(B)}", "(B)", "x = y = 2", "2", "12, and 13"]
    texts = ["The", "a", "cat", "sat,", "on", "the", "mat.", "yes", "no", "noanswer", "An", "Cat", "dog", "it's",
             "caf\u00e9", "don't", "x-y", "xy", "--"]
    with open(options.out, "w", encoding="utf-8") as out:
        for _ in range(300):
            response = "Some steps.\n" + rng.choice(["Answer: ", "answer :", "ANSWER:\n", "So "]) + rng.choice(answers)
            if rng.random() < 0.2:
                response += "\nwords " * rng.choice([3, 60])
            label = rng.choice(answers)
            if rng.random() < 0.4:
                label = response.split(":")[-1].strip().split("\n")[0] or label
            row = {"case": f"dapo {dapo(response, label)}", "response": response, "label": label}
            out.write(json.dumps(row) + "\n")
        for _ in range(200):
            response = " ".join(rng.choices(texts, k=rng.randint(1, 8)))
            label = " ".join(rng.choices(texts, k=rng.randint(1, 5)))
            row = {"case": f"f1 {f1(response, label)!r}", "response": response, "label": label}
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
