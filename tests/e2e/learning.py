#!/usr/bin/env python3
"""What the settings of distillation promise about weights, bit for bit or within a bound."""
import copy
import json

import e2e
from e2e import expect

DIFF_MAX = 1e-5


def coin_rows(count, flip=0):
    """Problems whose answer is a coin: a student that knows the form is right half of the time."""
    bits = [(i * i // 3 + i // 7) & 1 for i in range(count)]
    return [{"prompt": f"{i}?", "response": f"#### {b}", "label": str(b ^ flip)} for i, b in enumerate(bits)]


def coin_models(work):
    """A teacher and a student that answer with #### 0 or #### 1; their checkpoints."""
    work.lines("coins.jsonl", coin_rows(64))
    stages = []
    for name, hidden, steps in (("teacher", 32, 90), ("student", 16, 90)):
        part = e2e.sft(name, hidden, steps, lr=2e-2)
        part["data"] = {"path": str(work.path / "coins.jsonl")}
        stages.append(part)
    folder = work.run({"run": {"dir": "runs", "seed": 3}, "stages": stages}, "models")
    return e2e.checkpoint(folder, "teacher"), e2e.checkpoint(folder, "student")


def distillation(work, student, teacher, steps=5):
    return {"run": {"dir": "runs", "seed": 3, "kind": "rl", "samples_interval": 1},
            "data": {"path": str(work.path / "coins.jsonl")}, "model": {"path": str(student)},
            "teachers": {"main": {"path": str(teacher)}}, "opd": {"enabled": True, "type": "sglang"},
            "rollout": {"batch_prompts": 8, "samples_per_prompt": 4, "max_response_len": 8, "slots": 32},
            "train": {"steps": steps, "lr": 1e-3}}


def expect_mixed_rewards(folder):
    rewards = [r["rollout/raw_reward"] for r in e2e.metrics(folder, rows_stage(folder))]
    expect(any(0 < r < 1 for r in rewards), f"no batch with right and wrong answers: {rewards}")
    return rewards


def rows_stage(folder):
    first = (folder / "metrics.jsonl").read_text().split("\n", 1)[0]
    return json.loads(first)["stage"]


def rows_of(folder):
    return e2e.metrics(folder, rows_stage(folder))


def case_a_records_source_goes_with_its_samples(work):
    """samples.jsonl tells it; a record without one is nobody's fault, and the log counts them."""
    teacher, student = coin_models(work)
    rows = coin_rows(16)
    for i, row in enumerate(rows):
        row["meta"] = {"kind": ("even", 7)[i % 2]} if i < 12 else {}
    work.lines("coins.jsonl", rows)
    config = distillation(work, student, teacher, steps=2)
    config["opd"]["type"] = "megatron"
    config["opd"]["teacher_key"] = "meta.kind"
    folder = work.run(config, "routed")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    want = {row["prompt"]: str(row["meta"].get("kind", "")) for row in rows}
    expect(len(samples) == 64, f"{len(samples)} samples")
    for sample in samples:
        expect(sample["source"] == want[sample["prompt"]], f"{sample['prompt']} is of {sample['source']!r}")
    expect('4 of 16 rows have no "meta.kind"' in (folder / "log").read_text(), "the log does not count them")
    row = rows_of(folder)[-1]
    expect(row["opd/teacher/main/token_share"] == 1, "the teacher scored all of it")
    expect(row["opd/teacher/main/kl"] == row["rollout/opd_reverse_kl"], "one teacher's KL is all there is")
    expect(row["perf/score_wait_time"] <= row["perf/train_wait_time"], "waiting for scores is waiting")
    stages = e2e.summary(folder)["stages"]
    expect(stages[0]["degraded_tokens"] == 0 and stages[0]["score_wait_s"] >= 0, f"{stages[0]}")


def case_kl_coef_zero_is_opd_off(work):
    teacher, student = coin_models(work)
    on = distillation(work, student, teacher)
    on["opd"]["kl_coef"] = 0
    off = copy.deepcopy(on)
    off["opd"] = {"enabled": False}
    del off["teachers"]
    a, b = work.run(on, "zero"), work.run(off, "off")
    expect_mixed_rewards(a)
    expect(e2e.weights(a) == e2e.weights(b), "kl_coef 0 and OPD off give different weights")
    expect(e2e.weights(a) != (student / "model.safetensors").read_bytes(), "GRPO changed no weight")
    expect(all(r["teacher/valid_share"] == 1 for r in rows_of(a)), "the teacher was not asked at kl_coef 0")
    one = work.run(distillation(work, student, teacher), "one")
    expect(e2e.weights(one) != e2e.weights(a), "kl_coef changes nothing")


def case_only_reward_ignores_labels(work):
    teacher, student = coin_models(work)
    config = distillation(work, student, teacher)
    config["opd"]["only_reward"] = True
    a = work.run(config, "right")
    work.lines("flipped.jsonl", coin_rows(64, flip=1))
    b = work.run(e2e.changed(config, data__path=str(work.path / "flipped.jsonl")), "flipped")
    expect(expect_mixed_rewards(a) != expect_mixed_rewards(b), "other labels, the same rewards")
    expect(e2e.weights(a) == e2e.weights(b), "only_reward: the weights depend on the labels")
    config["opd"]["only_reward"] = False
    expect(e2e.weights(work.run(config, "both")) != e2e.weights(a), "only_reward changes nothing")


def still(work, kind):
    """Learning rate 0 and the student as its own teacher."""
    teacher, student = coin_models(work)
    config = distillation(work, student, student)
    config["opd"]["type"] = kind
    config["train"]["lr"] = 0
    folder = work.run(config, kind)
    rows = rows_of(folder)
    expect(len(rows) == 5, f"{len(rows)} steps")
    worst = max(r["rollout/opd_abs_diff_max"] for r in rows)
    expect(worst < DIFF_MAX, f"log-probs of student and teacher differ by {worst}")
    expect(all(r["train/train_rollout_logprob_abs_diff"] < DIFF_MAX for r in rows), "rollout and trainer differ")
    expect(all(r["teacher/valid_share"] == 1 for r in rows), "tokens without a score")
    expect(e2e.weights(folder) == (student / "model.safetensors").read_bytes(), "lr 0 changed a weight")
    config["teachers"]["main"]["path"] = str(teacher)
    other = max(r["rollout/opd_abs_diff_max"] for r in rows_of(work.run(config, "other")))
    expect(other > 100 * DIFF_MAX, f"another teacher differs by {other} only: the figure cannot fail")


def case_teacher_is_student_over_http(work):
    still(work, "sglang")


def case_teacher_is_student_in_process(work):
    still(work, "megatron")


def case_both_teacher_types_agree(work):
    teacher, student = coin_models(work)
    config = distillation(work, student, teacher, steps=8)
    config["opd"].update(only_reward=True, log_prob_top_k=8)
    rows = {}
    for kind in ("sglang", "megatron"):
        config["opd"]["type"] = kind
        rows[kind] = rows_of(work.run(config, kind))
        expect(len(rows[kind]) == 8, f"{kind}: {len(rows[kind])} steps")
    for one, two in zip(rows["sglang"], rows["megatron"]):
        for key in ("rollout/opd_reverse_kl", "rollout/opd_overlap_ratio", "rollout/teacher_log_probs",
                    "train/loss", "train/grad_norm"):
            expect(abs(one[key] - two[key]) <= 1e-3 * max(1, abs(one[key])), f"{key}: {one[key]} and {two[key]}")


def chunked(work, kind):
    """Scored a few tokens at a time while it is written, or when it is finished: the same bits."""
    teacher, student = coin_models(work)
    config = distillation(work, student, teacher, steps=6)
    config["opd"].update(only_reward=True, log_prob_top_k=4, type=kind)
    whole = work.run(config, "whole")
    config["teachers"]["main"]["chunk_tokens"] = 2
    chunks = work.run(config, "chunks")
    expect(e2e.weights(whole) == e2e.weights(chunks), "chunks changed a weight")
    for one, two in zip(rows_of(whole), rows_of(chunks)):
        for key in ("rollout/opd_reverse_kl", "rollout/opd_overlap_ratio", "teacher/valid_share"):
            expect(one[key] == two[key], f"{key}: {one[key]} and {two[key]}")
    attempts = [row["teacher/attempts"] for row in rows_of(chunks)]
    expect(max(attempts) > max(row["teacher/attempts"] for row in rows_of(whole)), f"no chunk was asked for: {attempts}")


def case_chunks_over_http_change_nothing(work):
    chunked(work, "sglang")


def case_chunks_in_process_change_nothing(work):
    chunked(work, "megatron")


def case_a_fallback_takes_over(work):
    """The teacher is not there; its fallback, which serves the same model, is asked instead."""
    teacher, student = coin_models(work)
    config = distillation(work, student, teacher, steps=5)
    config["opd"]["only_reward"] = True
    one = work.run(config, "one")
    config["teachers"] = {"main": {"url": "http://127.0.0.1:1", "fallback": "other", "start_timeout_s": 2},
                          "other": {"path": str(teacher)}}
    config["opd"]["teacher"] = "main"
    two = work.run(config, "two")
    expect(e2e.weights(one) == e2e.weights(two), "the fallback's scores are others")
    expect(all(r["teacher/degraded_tokens"] > 0 for r in rows_of(two)), "no degraded tokens")


def case_distillation_lowers_the_kl(work):
    teacher, student = coin_models(work)
    config = distillation(work, student, teacher, steps=40)
    config["opd"]["only_reward"] = True
    config["train"]["lr"] = 1e-2
    kl = [r["rollout/opd_reverse_kl"] for r in rows_of(work.run(config, "opd"))]
    expect(sum(kl[-5:]) < 0.7 * sum(kl[:5]), f"reverse KL per step: {kl}")


if __name__ == "__main__":
    e2e.main(globals())
