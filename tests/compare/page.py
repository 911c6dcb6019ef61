"""The figures of docs/comparison.md, from docs/comparison.json: every table stands in the page between
`<!-- NAME: begin -->` and `<!-- NAME: end -->`, and is written anew; the words around them stay. Two plots besides.

comparison.json: `machine`; `tuning` (accuracies by arm and learning rate); `seeds`: by seed and arm (and `teacher`,
`student`) what compare.py measured: `curve`, the evaluations as [step, samples, seconds, accuracy, low,
high], and counts. What was not run yet is absent, and shown as a dash.
"""
import json
import math
import re
import statistics
import sys

import plot
from watch import BUSY_MAX

ARMS = {"opd": "OPD alone", "grpo": "GRPO alone", "grpo-opd": "GRPO + OPD",
        "topk-forward": "teacher's top 8, forward KL", "topk-reverse": "student's top 8, reverse KL",
        "constant": "constant baseline", "sft": "SFT continued", "retried": "OPD, 30 % fail, retried",
        "faults": "OPD, 30 % fail, masked", "forged": "OPD, 30 % fail, forged"}
DIFFERENCES = (("opd", "grpo"), ("grpo-opd", "grpo"), ("grpo-opd", "opd"), ("topk-forward", "opd"),
               ("topk-reverse", "opd"), ("constant", "student"), ("opd", "constant"), ("sft", "opd"),
               ("retried", "opd"), ("faults", "opd"), ("forged", "opd"), ("forged", "faults"))
GOALS = (0.9, 0.95, 0.99)
FAULTS_MAX = 0.02     # of accuracy, that failing answers may cost
ARM_S_MAX = 150
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, 97.5 %, of so many seeds


def dumps(results):
    """JSON with each evaluation on a line of its own."""
    text = json.dumps(results, indent=1, sort_keys=True)
    return re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text) + "\n"


def percent(share):
    return f"{100 * share:.1f}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


class Results:
    def __init__(self, results):
        self.all = results
        self.seeds = sorted(results["seeds"], key=int)

    def runs(self, name):
        """(seed, entry) of an arm, where it was measured."""
        return [(s, self.all["seeds"][s][name]) for s in self.seeds if name in self.all["seeds"][s]]

    def finals(self, name):
        return [r["curve"][-1][3] for _, r in self.runs(name)]

    def curves(self, name):
        """By seed: [samples, seconds, accuracy] from the student before on."""
        return [[[0, 0.0, self.all["seeds"][s]["student"]["curve"][-1][3]]] + [point[1:4] for point in r["curve"]]
                for s, r in self.runs(name)]

    def mean_curve(self, name):
        """The same, as means over the seeds; the samples are the same in all."""
        return [[statistics.mean(values) for values in zip(*points)] for points in zip(*self.curves(name))]


def spread(values):
    """Mean and standard deviation over the seeds, in per cent."""
    if not values:
        return "-"
    mean = percent(statistics.mean(values))
    return f"{mean} (sd {percent(statistics.stdev(values))})" if len(values) > 1 else mean


def wall(entry):
    """Seconds, marked where others used the machine."""
    return f"{entry['wall_s']:.0f}" + ("*" if entry["others"] > BUSY_MAX else "")


def lr_text(lr):
    return f"{lr:.0e}".replace("e-0", "e-")


def accuracy_table(r):
    def row(title, name, trained):
        cells = {s: f"{percent(e['curve'][-1][3])} ({percent(e['curve'][-1][4])} - {percent(e['curve'][-1][5])})"
                 for s, e in r.runs(name)}
        runs = [e for _, e in r.runs(name)]
        tokens = f"{statistics.mean(e['response_tokens'] for e in runs) / 1e6:.2f} M" if trained and runs else ""
        return [title, lr_text(runs[0]["lr"]) if trained and runs else "", *(cells.get(s, "-") for s in r.seeds),
                f"**{spread(r.finals(name))}**", tokens, ", ".join(map(wall, runs)) if trained else ""]
    return table(["arm", "lr", *(f"seed {s}" for s in r.seeds), "mean", "tokens", "wall time, s"],
                 [row("student before", "student", False), *(row(ARMS[n], n, True) for n in ARMS),
                  row("teacher", "teacher", False)])


def samples_table(r):
    first = next((c for n in ARMS if (c := r.mean_curve(n))), [])
    rows = [[ARMS[n], *(percent(p[2]) for p in r.mean_curve(n))] for n in ARMS if r.runs(n)]
    return table(["samples", *(f"{round(p[0]):,}" for p in first)], rows)


def reach_table(r):
    """Where the mean over the seeds is at a goal for the first time."""
    def cells(name, column, form):
        at = {g: next((p[column] for p in r.mean_curve(name) if p[2] >= g), None) for g in GOALS}
        return [form(at[g]) if at[g] is not None else "-" for g in GOALS]

    def seconds(name):
        mark = "*" if any(e["others"] > BUSY_MAX for _, e in r.runs(name)) else ""
        return lambda value: f"{value:.0f} s{mark}"
    goals = [f"{100 * g:.0f} %" for g in GOALS]
    rows = [[ARMS[n], *cells(n, 0, lambda v: f"{v:,.0f}"), *cells(n, 1, seconds(n))] for n in ARMS if r.runs(n)]
    return table(["arm", *(f"samples to {g}" for g in goals), *(f"time to {g}" for g in goals)], rows)


def difference(r, one, other):
    """By seed, in accuracy: paired, because the arms of a seed share student, teacher and problems."""
    others = dict(r.runs(other))
    return [e["curve"][-1][3] - others[s]["curve"][-1][3] for s, e in r.runs(one) if s in others]


def difference_table(r):
    rows = []
    for one, other in DIFFERENCES:
        found = difference(r, one, other)
        if not found:
            continue
        mean, low_high = statistics.mean(found), "-"
        if len(found) in T_95:
            half = T_95[len(found)] * statistics.stdev(found) / math.sqrt(len(found))
            low_high = f"{100 * (mean - half):+.1f} to {100 * (mean + half):+.1f}"
        titles = {**ARMS, "student": "student before"}
        rows.append([titles[one], titles[other], *(f"{100 * d:+.1f}" for d in found), f"**{100 * mean:+.1f}**", low_high])
    return table(["arm", "less", *(f"seed {s}" for s in r.seeds), "mean", "95 % interval"], rows)


def faults_text(r):
    def by_seed(name, key, form):
        return ", ".join(form(e[key]) for _, e in r.runs(name))
    rows = [[ARMS[n], by_seed(n, "given_up", percent), by_seed(n, "invalid", percent), spread(r.finals(n)),
             by_seed(n, "kl_last", "{:.4f}".format)] for n in ("opd", "retried", "faults", "forged") if r.runs(n)]
    text = table(["arm", "answers without a score, % (by seed)", "tokens", "accuracy",
                  "KL in the metrics of the last 10 batches"], rows)
    for name, how in (("retried", "With retries"), ("faults", "Masked, without any retry,")):
        if r.runs(name) and r.runs("opd"):
            lost = statistics.mean(r.finals("opd")) - statistics.mean(r.finals(name))
            text += (f"\n{how} the failures cost {100 * lost:.1f} points in the mean: "
                     f"{'within' if lost <= FAULTS_MAX else 'MORE THAN'} the {100 * FAULTS_MAX:.0f} points that were set as the bound.\n")
    return text


def tuning_table(r):
    tuned = r.all.get("tuning")
    if not tuned or not tuned["arms"]:
        return "Not searched yet.\n"
    lrs = sorted({lr for arm in tuned["arms"].values() for lr in arm}, key=float)
    rows = []
    for name in [n for n in ARMS if n in tuned["arms"]]:
        best = chosen(tuned["arms"][name])
        rows.append([ARMS[name], *((f"**{percent(v)}**" if lr == best else percent(v))
                                   if (v := tuned["arms"][name].get(lr)) is not None else "-" for lr in lrs)])
    return table([f"after {tuned['steps']} batches, from {percent(tuned['before'])}", *lrs], rows)


def searched_table(r):
    """Each arm that did not take the search's learning rate: its accuracies at both, evaluation by evaluation."""
    found = r.all.get("searched", {"arms": {}})
    rows = []
    for name in [n for n in ARMS if n in found["arms"]]:
        used = r.all["seeds"].get(str(found["seed"]), {}).get(name)
        for entry in filter(None, (found["arms"][name], used)):
            rows.append([ARMS[name], lr_text(entry["lr"]), *(percent(p[3]) for p in entry["curve"])])
    if not rows:
        return "Not measured yet.\n"
    steps = [p[0] for p in next(iter(found["arms"].values()))["curve"]]
    return table([f"seed {found['seed']}", "lr", *(f"batch {s}" for s in steps)], rows)


def chosen(accuracies):
    """The learning rate that a search chose: the best, of equals the largest, which changes the student most."""
    return max(accuracies, key=lambda lr: (accuracies[lr], float(lr)))


def machine_text(r):
    entries = [e for s in r.seeds for name, e in r.all["seeds"][s].items() if name in ARMS]
    if not entries:
        return "Not measured yet.\n"
    m = r.all["machine"]
    days = sorted({e["when"] for e in entries})
    busy = sum(e["others"] > BUSY_MAX for e in entries)
    over = sum(e["wall_s"] > ARM_S_MAX for e in entries)
    return (f"Measured on {m['cores']} cores of an {m['processor']} with {m['isa']}, {days[0]}"
            f"{' to ' + days[-1] if len(days) > 1 else ''}: {len(entries)} runs of {len(ARMS)} arms. "
            f"Beside {busy or 'none'} of them others used more than {100 * BUSY_MAX:.0f} % of the machine; such wall times are "
            f"marked `*`, and say less. {f'{over} of the runs' if over else 'No run'} took longer than {ARM_S_MAX / 60:g} minutes.\n")


BLOCKS = {"machine": machine_text, "accuracy": accuracy_table, "samples": samples_table, "reach": reach_table,
          "differences": difference_table, "faults": faults_text, "tuning": tuning_table, "searched": searched_table}


def filled(text, results):
    """The page with its tables written anew."""
    r = Results(results)
    for name, make in BLOCKS.items():
        block = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.S)
        if not block.search(text):
            sys.exit(f"comparison.md has no place <!-- {name}: begin --> ... <!-- {name}: end -->")
        text = block.sub(lambda m, body=make(r): m.group(1) + body + m.group(2), text)
    return text


def plots(results):
    """By file: the curves of each arm against the others'."""
    r = Results(results)
    panels = [(ARMS[n], r.curves(n), r.mean_curve(n)) for n in ARMS if r.runs(n)]
    return {"comparison-samples.svg": plot.panels(panels, 0, "samples"),
            "comparison-time.svg": plot.panels(panels, 1, "seconds")}


def rendered(docs, results):
    """By name: the text of each file of the page."""
    return {"comparison.md": filled((docs / "comparison.md").read_text(encoding="utf-8"), results), **plots(results)}


def render(docs, results):
    for name, text in rendered(docs, results).items():
        (docs / name).write_text(text, encoding="utf-8")
