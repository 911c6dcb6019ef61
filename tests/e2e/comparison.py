#!/usr/bin/env python3
"""The comparison of signals: docs/comparison.md is what its script makes of the results beside it, and the script runs,
goes on where it was cut off, and measures what it says; here with models and problems that take a second."""
import json
import pathlib
import re
import subprocess
import sys

import e2e
from e2e import expect

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "compare"), str(ROOT / "tests" / "bench")]
import compare  # noqa: E402
import page  # noqa: E402

# In place of the sizes of configs/compare.yaml: patterns, and what stands there instead.
SMALL = {r"\btrain: \d+": "train: 120", r"\btest: \d+": "test: 20", r"easy_first: \d+": "easy_first: 40",
         r"skip: [1-9]\d+": "skip: 40", r"limit: 4000": "limit: 40", r"limit: \d{3,}": "limit: 16",
         r"batch_prompts: \d+": "batch_prompts: 4", r"samples_per_prompt: \d+": "samples_per_prompt: 2",
         r"slots: \d+": "slots: 8", r"batch_size: \d+": "batch_size: 8", r"warmup_steps: \d+": "warmup_steps: 1",
         r"\bsteps: \d+": "steps: 4", r"\binterval: [1-9]\d*": "interval: 2",
         r"hidden_size: 128, intermediate_size: \d+, layers: \d+": "hidden_size: 32, intermediate_size: 64, layers: 1",
         r"hidden_size: 64, intermediate_size: \d+, layers: \d+": "hidden_size: 16, intermediate_size: 32, layers: 1"}


def replaced(name, changes):
    text = (ROOT / "configs" / name).read_text()
    for old, new in changes.items():
        text, found = re.subn(old, new, text)
        expect(found, f"configs/{name} has no {old!r}")
    return text


def small(work):
    """The options of the script for a folder of its own."""
    config = work.write("compare.yaml", replaced("compare.yaml", SMALL))
    work.write("compare-faults.jsonl", replaced("compare-faults.jsonl", {'"from": 50': '"from": 20'}))
    if not (work.path / "docs").exists():
        work.write("docs/comparison.md", (ROOT / "docs/comparison.md").read_text())
    return ["--opd", e2e.PROGRAM, "--config", config, "--runs", work.path / "runs", "--docs", work.path / "docs",
            "--seeds", "5"]


def script(options, *more, code=0):
    done = subprocess.run([sys.executable, ROOT / "tests/compare/compare.py", *options, *more], capture_output=True,
                          text=True, timeout=280, check=False)
    expect(done.returncode == code, f"exit status {done.returncode}:\n{done.stderr}")
    return done.stderr


def results(work):
    return json.loads((work.path / "docs/comparison.json").read_text())


def case_page_is_what_the_results_say(work):
    known = json.loads((ROOT / "docs/comparison.json").read_text())
    expect((ROOT / "docs/comparison.json").read_text() == page.dumps(known), "comparison.json is not as the script writes it")
    for name, text in page.rendered(ROOT / "docs", known).items():
        expect((ROOT / "docs" / name).read_text() == text, f"docs/{name} differs: make compare COMPARE_ARGS=--render")


def case_learning_rates_are_the_chosen_ones(work):
    """Or one step below, where a run of full length showed the search's to be too high; in the configuration, and in every
    run that was measured."""
    recipe = compare.Recipe(ROOT / "configs/compare.yaml")
    known = json.loads((ROOT / "docs/comparison.json").read_text())
    for name, accuracies in known.get("tuning", {"arms": {}})["arms"].items():
        best = page.chosen(accuracies)
        below = compare.LADDER[compare.LADDER.index(best) - 1]
        expect(recipe.lr(name) in (float(best), float(below)),
               f"{name} has {recipe.lr(name)}, the search chose {best}")
    for seed, runs in known["seeds"].items():
        for name in recipe.arms:
            lr = recipe.lr(name)
            expect(name not in runs or runs[name]["lr"] == lr, f"{name} of seed {seed} had another learning rate")


def case_runs_every_arm_and_goes_on(work):
    options = small(work)
    script(options, "--arms", "opd,sft")
    folder = work.path / "runs/seed-5"
    (folder / "sft.json").unlink()  # as if it had been cut off
    records = {p: p.read_bytes() for p in folder.glob("*.json")}
    expect({p.stem for p in records} == {"shared", "opd"}, f"{sorted(records)}")
    said = script(options)
    expect("/opd ..." not in said and "/shared ..." not in said, f"finished runs were made again:\n{said}")
    expect("/sft ..." in said and "/grpo ..." in said, f"what was not finished was not made:\n{said}")
    expect(all(p.read_bytes() == text for p, text in records.items()), "the records of finished runs changed")
    runs = results(work)["seeds"]["5"]
    expect(set(runs) == {"teacher", "student", *page.ARMS}, f"{sorted(runs)}")
    for name in page.ARMS:
        run = runs[name]
        expect([p[:2] for p in run["curve"]] == [[2, 16], [4, 32]] and run["samples"] == 32, f"{name}: {run}")
        expect(run["curve"][1][2] > run["curve"][0][2] > 0 and run["wall_s"] >= 0, f"{name}: seconds {run}")
    for name in ("faults", "forged"):
        expect(0.05 < runs[name]["invalid"] < 0.6, f"{name}: {runs[name]['invalid']} of the tokens without a score")
    expect(all(runs[n]["invalid"] == 0 for n in page.ARMS if n not in ("retried", "faults", "forged")), "others lack scores")
    text = (work.path / "docs/comparison.md").read_text()
    expect(text.count("| OPD alone |") >= 4 and page.filled(text, results(work)) == text, "the page was not rendered")
    said = script(options, "--arms", "grpo", "--set", "train.lr=0.5", code=1)
    expect("is of other settings" in said and " ..." not in said, f"results of other settings were mixed:\n{said}")


def case_search_ends_between_two_worse_ones(work):
    """Of the learning rates, from any shape of the accuracies; each is tried once."""
    for best in compare.LADDER:
        tried = {}
        while lr := compare.untried(tried):
            tried[lr] = 0.9 ** abs(compare.LADDER.index(lr) - compare.LADDER.index(best))
        expect(page.chosen(tried) == best, f"{best} is best, {page.chosen(tried)} was chosen")
        ends = [i for i in (compare.LADDER.index(best) - 1, compare.LADDER.index(best) + 1) if 0 <= i < len(compare.LADDER)]
        expect(all(compare.LADDER[i] in tried for i in ends), f"a neighbour of {best} was not tried: {sorted(tried)}")
    expect(page.chosen({"1e-4": 0.5, "1e-3": 0.5, "1e-2": 0.4}) == "1e-3", "of equals not the larger one")


def case_tunes(work):
    script(small(work), "--tune", "--arms", "sft", "--set", "train.steps=2")
    found = results(work)["tuning"]["arms"]["sft"]
    expect(len(found) >= 3 and "1e-3" in found and "| SFT continued |" in (work.path / "docs/comparison.md").read_text(),
           f"{found}")


if __name__ == "__main__":
    e2e.main(globals())
