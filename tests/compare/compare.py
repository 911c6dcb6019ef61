#!/usr/bin/env python3
"""Compares the signals of configs/compare.yaml and writes docs/comparison.md with its figures.

Usage: compare.py [--opd PROGRAM] [--config FILE] [--runs FOLDER] [--docs FOLDER] [--seeds 1,2,3]
                  [--arms NAME,...] [--tune | --searched | --render] [--set KEY=VALUE]...

Runs, one after another, for each seed the stages up to `student`, and then each later stage, an arm, by
itself from their results: FOLDER/seed-N/shared and FOLDER/seed-N/ARM. A run that is finished is not made again,
one that was cut off begins anew, so the command may be repeated until all is done. With --tune the arms
run for TUNE_STEPS batches on a seed of their own, at TUNE_FIRST and from there up and down LADDER for as long as a
learning rate beside the best was not tried; with --searched the arms that the configuration gives another
learning rate than that search's run at the search's, for the first seed. What was measured is taken from the runs' metrics.jsonl and summary.json
into docs/comparison.json, from which the page is rendered; --render does that alone, and needs no folder of runs.

Exit status: 0, 1 a run failed.
"""
import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
from watch import Watch, helpers  # noqa: E402

import page  # noqa: E402

LAST_SHARED = "student"  # the last of the stages that the arms of a seed share
TUNE_SEED, TUNE_STEPS, TUNE_FIRST = 11, 100, "1e-3"
TUNE_PROBLEMS = 500  # held-out problems of each try
LADDER = ("1e-5", "3e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2")  # learning rates
FAULTS = "compare-faults.jsonl"  # beside the configuration
READY_S = 60


class Failed(Exception):
    """A run did not end well."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- configurations of one run each ----

class Recipe:
    """The configuration, cut into what stands above `stages` and the text of each stage."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        head, _, rest = self.path.read_text(encoding="utf-8").partition("\nstages:\n")
        self.head = head + "\n"
        parts = re.split(r"(?m)^  - name: (\S+)\n", rest)
        self.stages = dict(zip(parts[1::2], parts[2::2]))
        names = list(self.stages)
        if LAST_SHARED not in names:
            raise Failed(f"{path}: there is no stage {LAST_SHARED}")
        cut = names.index(LAST_SHARED) + 1
        self.shared, self.arms = names[:cut], names[cut:]

    def text(self, names):
        """A configuration of these stages; comments between stages are left out."""
        def stage(name):
            return f"  - name: {name}\n" + re.sub(r"(?m)^ *#.*\n", "", self.stages[name]).rstrip() + "\n"
        return re.sub(r"(?m)^#.*\n", "", self.head) + "\nstages:\n" + "\n".join(map(stage, names))

    def lr(self, arm):
        """Its learning rate: its own, or that above the stages."""
        return float(re.findall(r"(?m)^ +lr: (\S+)", self.stages[arm] + self.head)[0])

    def fails(self, arm):
        """Whether the arm's teacher is one that the script starts."""
        return re.search(r"(?m)^ *url:", self.stages[arm]) is not None


def newest(folder, stage):
    found = sorted((folder / "checkpoints" / stage).glob("step-*"))
    if not found:
        raise Failed(f"{folder} has no checkpoint of {stage}")
    return found[-1]


def resolved(text, shared):
    """The text with the results of the shared stages, which lie in the folder shared, by their paths."""
    def path(match):
        stage, what = match.groups()
        return json.dumps(str(newest(shared, stage) if what == "checkpoint" else shared / "data" / f"{stage}-{what}.jsonl"))
    return re.sub(r'"@stages\.([\w-]+)\.([\w-]+)"', path, text)


# ---- running ----

class FailingTeacher:
    """An `opd serve --faults` of the seed's teacher while a run lasts."""

    def __init__(self, opd, model, faults, log):
        self.command = [opd, "serve", "--model", model, "--port", "0", "--threads", "2", "--faults", faults]
        self.log = log

    def __enter__(self):
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=subprocess.STDOUT)
        helpers.append(self.process)
        end = time.monotonic() + READY_S
        while "ready on " not in (said := self.log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise Failed(f"the failing teacher did not start: {said}")
            time.sleep(0.02)
        return said.split("ready on ")[1].split()[0]

    def __exit__(self, *_):
        helpers.remove(self.process)
        self.process.terminate()
        self.process.wait()


class Runner:
    def __init__(self, options):
        self.opd, self.more = str(options.opd), options.set
        self.recipe = Recipe(options.config)
        self.faults = self.recipe.path.with_name(FAULTS)

    def once(self, folder, text, settings, failing=False):
        """One `opd run`; what is known of it, from its folder if it was made before with these settings."""
        record = folder.with_suffix(".json")
        words = [word for s in settings + self.more for word in ("--set", s)]
        made = {"config": text, "set": settings + self.more}
        if record.exists():
            known = json.loads(record.read_text())
            if {k: known[k] for k in made} == made:
                return known
            raise Failed(f"{record} is of other settings; remove it to run again")
        folder.parent.mkdir(parents=True, exist_ok=True)
        config = folder.with_suffix(".yaml")
        config.write_text(text)
        if failing:
            teacher = newest(folder.with_name("shared"), "teacher")
            with FailingTeacher(self.opd, teacher, self.faults, folder.with_suffix(".teacher.log")) as url:
                return self.measured(folder, record, made, words + ["--set", f"teachers.main.url={url}"])
        return self.measured(folder, record, made, words)

    def measured(self, folder, record, made, words):
        said = folder.with_suffix(".out")
        say(f"{folder} ...")
        watch, begin = Watch(), time.monotonic()
        with open(said, "wb") as out:
            done = subprocess.run([self.opd, "run", folder.with_suffix(".yaml"), "--force", "--set",
                                   f"run.dir={folder.parent}", "--set", f"run.name={folder.name}", *words],
                                  stdout=out, stderr=out, check=False)
        took, others = time.monotonic() - begin, watch.foreign()
        if done.returncode != 0:
            raise Failed(f"{folder}: opd run ended with {done.returncode}:\n{said.read_text(errors='replace')[-2000:]}")
        known = {**made, "process_s": round(took, 1), "others": round(others, 3), "when": time.strftime("%Y-%m-%d"),
                 "machine": machine()}
        temporary = record.with_suffix(".tmp")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.rename(record)
        say(f"  {took:.0f} s, others used {100 * others:.0f} % of the machine")
        return known

    def shared(self, folder, seed):
        """The folder of the run of the shared stages."""
        self.once(folder / "shared", self.recipe.text(self.recipe.shared), [f"run.seed={seed}"])
        return folder / "shared"

    def arm(self, folder, shared, name, seed, settings=()):
        text = resolved(self.recipe.text([name]), shared)
        return self.once(folder, text, [f"run.seed={seed}", *settings], self.recipe.fails(name))


def machine():
    """What the wall times were measured on."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.*)", text)
    isa = os.environ.get("OPD_CPU_ISA") or next((i for i in ("avx512f", "avx2") if f" {i} " in text), "plain C")
    return {"processor": model.group(1).strip() if model else "unknown processor", "cores": os.cpu_count(),
            "isa": {"avx512f": "AVX-512", "avx2": "AVX2"}.get(isa, isa)}


# ---- what a run measured ----

def rows_of(folder, stage):
    with open(folder / "metrics.jsonl", encoding="utf-8") as lines:
        return [row for line in lines if (row := json.loads(line))["stage"] == stage]


def curve(rows):
    """[step, samples, seconds, accuracy, low, high] of each evaluation; the seconds are of the training up to it."""
    steps = {r["train/step"]: r for r in rows if "perf/step_time" in r}
    samples, seconds, at = 0, 0.0, {}
    for step in sorted(steps):
        samples += steps[step]["train/samples"]
        seconds += steps[step]["perf/step_time"]
        at[step] = [samples, round(seconds, 2)]
    found = sorted((r for r in rows if "eval/accuracy" in r), key=lambda r: r["train/step"])
    return [[r["train/step"], *at[r["train/step"]], *(round(r[f"eval/{k}"], 6) for k in ("accuracy", "low", "high"))]
            for r in found]


def mean(rows, key):
    values = [r[key] for r in rows if key in r]
    return round(sum(values) / len(values), 6) if values else None


def measured(folder, stage, known):
    """An entry of comparison.json."""
    rows = rows_of(folder, stage)
    steps = [r for r in rows if "perf/step_time" in r]
    whole = next(s for s in json.loads((folder / "summary.json").read_text())["stages"] if s["name"] == stage)
    return {"curve": curve(rows), "wall_s": round(whole["wall_s"], 1), "others": known["others"],
            "samples": whole["samples"], "response_tokens": whole["response_tokens"],
            "tokens": sum(r["train/tokens"] for r in steps),
            "invalid": round(whole["invalid_tokens"] / max(1, whole["response_tokens"]), 4),
            "given_up": mean(steps, "teacher/given_up"),
            "kl_last": mean(steps[-10:], "rollout/opd_reverse_kl"), "when": known["when"]}


def lr_of(folder):
    """The learning rate of a run of one stage, as its effective configuration has it."""
    return float(re.findall(r"(?m)^ +lr: (\S+)", (folder / "config.yaml").read_text())[-1])


# ---- the whole ----

def compare(runner, options, results):
    for seed in options.seeds:
        folder = options.runs / f"seed-{seed}"
        shared = runner.shared(folder, seed)
        known = json.loads(shared.with_suffix(".json").read_text())
        results["machine"] = known["machine"]
        kept = results["seeds"].setdefault(str(seed), {})
        for stage in ("teacher", "student"):
            kept[stage] = measured(shared, stage, known)
        for name in options.arms or runner.recipe.arms:
            known = runner.arm(folder / name, shared, name, seed)
            kept[name] = {**measured(folder / name, name, known), "lr": lr_of(folder / name)}
            save(options, results)


def tune(runner, options, results):
    """Each arm but those of the failing teacher, which have the settings of the undisturbed one."""
    folder = options.runs / f"tune-{TUNE_SEED}"
    shared = runner.shared(folder, TUNE_SEED)
    tuned = results.setdefault("tuning", {"seed": TUNE_SEED, "steps": TUNE_STEPS, "arms": {}})
    tuned["before"] = curve(rows_of(shared, LAST_SHARED))[-1][3]
    for name in options.arms or [a for a in runner.recipe.arms if not runner.recipe.fails(a)]:
        tried = tuned["arms"][name] = {}
        while lr := untried(tried):
            run = folder / f"{name}-lr{lr}"
            settings = [f"train.lr={lr}", f"train.steps={TUNE_STEPS}", "eval.interval=0",
                        f"eval.limit={TUNE_PROBLEMS}"]
            runner.arm(run, shared, name, TUNE_SEED, settings)
            tried[lr] = curve(rows_of(run, name))[-1][3]
            say(f"  {name} at {lr}: {100 * tried[lr]:.1f} %")
            save(options, results)


def searched(runner, options, results):
    """The arms whose learning rate is not the search's, at the search's."""
    seed = options.seeds[0]
    shared = runner.shared(options.runs / f"seed-{seed}", seed)
    kept = results.setdefault("searched", {"seed": seed, "arms": {}})["arms"]
    for name in options.arms or runner.recipe.arms:
        tried = results["tuning"]["arms"].get("opd" if runner.recipe.fails(name) else name, {})
        if not tried or float(page.chosen(tried)) == runner.recipe.lr(name):
            continue
        folder = options.runs / f"seed-{seed}" / f"searched-{name}"
        known = runner.arm(folder, shared, name, seed, [f"train.lr={page.chosen(tried)}"])
        kept[name] = {**measured(folder, name, known), "lr": lr_of(folder)}
        save(options, results)


def untried(tried):
    """The learning rate to try next: a neighbour of the best, the smaller one first; None when both are known."""
    if not tried:
        return TUNE_FIRST
    best = LADDER.index(page.chosen(tried))
    return next((lr for lr in (*LADDER[max(0, best - 1):best], *LADDER[best + 1:best + 2]) if lr not in tried), None)


def save(options, results):
    path = options.docs / "comparison.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page.dumps(results))
    temporary.rename(path)


def numbers(text):
    return [int(n) for n in text.split(",")]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--opd", type=pathlib.Path, default=ROOT / "build/release/cli/opd")
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/compare.yaml")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/compare"))
    parser.add_argument("--docs", type=pathlib.Path, default=ROOT / "docs")
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--arms", type=lambda text: text.split(","), default=[])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--searched", action="store_true")
    parser.add_argument("--render", action="store_true")
    return parser.parse_args()


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what runs, too
    path = options.docs / "comparison.json"
    results = json.loads(path.read_text()) if path.exists() else {"seeds": {}}
    try:
        if not options.render:
            (tune if options.tune else searched if options.searched else compare)(Runner(options), options, results)
    except Failed as failure:
        say(str(failure))
        return 1
    page.render(options.docs, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
