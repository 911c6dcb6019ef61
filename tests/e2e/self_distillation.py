#!/usr/bin/env python3
"""The student as its own teacher, which sees a prompt that holds the answer (docs/teacher.md)."""
import json

import e2e
from e2e import expect

LETTERS, DIGITS = "abcdefghij", 5
SECRET = {letter: str((3 * i + i // 4) % DIGITS) for i, letter in enumerate(LETTERS)}  # what there is to learn


def copier(work, steps=4):
    """A model that, given the steps, writes the digit it is shown, and any digit where it is shown none."""
    rows = [{"prompt": f"{hint}{letter}=", "response": str(digit)}
            for letter in LETTERS for digit in range(DIGITS) for hint in (f"{digit}{digit}", "")]
    work.lines("copy.jsonl", rows)
    work.lines("table.jsonl", [{"prompt": f"{letter}=", "label": digit} for letter, digit in SECRET.items()])
    part = e2e.sft("student", 64, steps, lr=3e-3, batch_size=32)
    part["data"] = {"path": str(work.path / "copy.jsonl")}
    folder = work.run({"run": {"dir": "runs", "seed": 3}, "stages": [part]}, "copier")
    return e2e.checkpoint(folder, "student")


def recipe(work, student, steps, kind="megatron", weights="start"):
    table = str(work.path / "table.jsonl")
    return {"run": {"dir": "runs", "seed": 3, "kind": "rl", "samples_interval": 1},
            "model": {"path": str(student)},
            "data": {"path": table, "privileged_template": "{label}{label}{prompt}"},
            "teachers": {"me": {"student": weights}},
            "opd": {"enabled": True, "type": kind, "only_reward": True},
            "rollout": {"batch_prompts": 10, "samples_per_prompt": 4, "max_response_len": 4, "slots": 40},
            "train": {"steps": steps, "lr": 3e-3}, "eval": {"path": table, "require_disjoint": False}}


def accuracies(folder):
    """Of the student on its own prompt: before and after."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [row["eval/accuracy"] for row in rows if "eval/accuracy" in row]
    return found[0], found[-1]


def expect_learnt(folder):
    before, after = accuracies(folder)
    expect(before <= 0.5 and after >= 0.9, f"accuracy without the privileged prompt: {before} before, {after} after")


def case_learns_what_only_the_teacher_sees(work):
    """By the drawn tokens and by the teacher's likeliest; only the teacher sees the answer."""
    student = copier(work, 90)
    folder = work.run(recipe(work, student, 50), "sampled")
    expect_learnt(folder)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    expect(all(span["privileged"] for s in samples for span in s["provenance"]), "a teacher saw the plain prompt")
    expect(all(s["prompt"][0] in LETTERS for s in samples), "the student saw more than its prompt")
    config = recipe(work, student, 20)
    config["opd"].update(signal="topk", log_prob_top_k=4)
    expect_learnt(work.run(config, "topk"))


def case_a_server_gives_the_same_weights(work):
    student = copier(work)
    runs = [work.run(recipe(work, student, 6, kind), kind) for kind in ("megatron", "sglang")]
    expect(e2e.weights(runs[0]) == e2e.weights(runs[1]), "a served copy of the student scores otherwise")
    config = recipe(work, student, 6)
    config["teachers"]["me"]["chunk_tokens"] = 1
    expect(e2e.weights(work.run(config, "chunks")) == e2e.weights(runs[0]), "chunks changed a weight")
    plain = recipe(work, student, 6)
    del plain["data"]["privileged_template"], plain["teachers"]["me"]["student"]
    plain["teachers"]["me"]["path"] = str(student)
    expect(e2e.weights(work.run(plain, "plain")) != e2e.weights(runs[0]), "the privileged prompt changes nothing")


def case_current_weights_survive_a_stop(work):
    """Its own newest weights teach, those that wrote the sample: no matter where the run was cut."""
    student = copier(work)
    config = recipe(work, student, 5, weights="current")
    whole = work.run(config, "whole")
    samples = [json.loads(line) for line in (whole / "samples.jsonl").read_text().splitlines()]
    for sample in samples:
        versions = {span["weight_version"] for span in sample["provenance"]}
        expect(versions == {str(sample["group"] // 10)}, f"group {sample['group']} was scored by {versions}")
    start = work.run(recipe(work, student, 3), "start")
    kl = [[row["rollout/opd_reverse_kl"] for row in e2e.metrics(folder, "main")] for folder in (whole, start)]
    expect(kl[0][0] == kl[1][0] and kl[0][2] != kl[1][2], f"reverse KL to its own weights, to the first: {kl}")
    config["train"]["save_interval"] = 2
    process = work.start("run", work.write("half.yaml", config), "--set", "run.name=half")
    e2e.wait_for_step(process, work.folder("half"), "main", 2)
    e2e.stop(process)
    work.opd("run", work.path / "half.yaml", "--set", "run.name=half", "--resume").expect(0)
    expect(e2e.weights(whole) == e2e.weights(work.folder("half")), "a run that was stopped gives other weights")


def case_the_students_ids_are_asked_about(work):
    """All ids of the student are the vocabulary; a few are enough to learn, and come in chunks, too."""
    student = copier(work, 90)
    losses = {}
    for support, k in (("student_topk", 259), ("full", 259)):
        config = recipe(work, student, 2)
        config["opd"].update(signal="topk", divergence="reverse_kl", support=support, log_prob_top_k=k)
        losses[support] = [row["train/loss"] for row in e2e.metrics(work.run(config, support), "main")]
    for one, two in zip(losses["student_topk"], losses["full"]):
        expect(abs(one - two) <= 1e-4 * abs(two), f"by all ids of the student and by the vocabulary: {losses}")
    config = recipe(work, student, 20)
    config["opd"].update(signal="topk", divergence="jsd", support="union", log_prob_top_k=4)
    whole = work.run(config, "union")
    expect_learnt(whole)
    config["teachers"]["me"]["chunk_tokens"] = 1
    expect(e2e.weights(work.run(config, "chunks")) == e2e.weights(whole), "chunks changed a weight")


def case_what_cannot_be_is_refused(work):
    student = copier(work)
    config = recipe(work, student, 2)
    config["data"]["privileged_template"] = "{hint}{prompt}"
    work.opd("run", work.write("absent.yaml", config)).expect(2, r'table.jsonl:1: there is no key "hint"')
    config["data"]["privileged_template"] = "{prompt}"
    work.opd("run", work.write("same.yaml", config)).expect(2, "the privileged prompt is the prompt in every row")
    config["data"]["privileged_template"] = "{label}{label}{prompt}" + "x" * 100
    work.opd("run", work.write("long.yaml", config)).expect(2, "the privileged prompt of this row has 105 tokens")
    config["data"]["privileged_template"] = "{label}{label}{prompt}" + "x" * 90
    work.opd("run", work.write("tight.yaml", config)).expect(2, "the teacher takes 96 tokens, and is to score 99")
    config["opd"]["type"] = "sglang"
    work.opd("run", work.write("served.yaml", config)).expect((2, 5), "96")


if __name__ == "__main__":
    e2e.main(globals())
