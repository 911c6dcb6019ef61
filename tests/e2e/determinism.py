#!/usr/bin/env python3
"""Same recipe, same bits: twice, on other thread counts, and after every kind of interruption."""
import signal

import e2e
from e2e import expect, expect_same


def case_two_runs(work):
    config = e2e.recipe(steps=8)
    a, b = work.run(config, "a"), work.run(config, "b")
    expect_same(a, b)
    expect(e2e.weights(a, "opd") != e2e.weights(a, "student"), "the distillation changed no weight")
    expect(all(r["rollout/lag_max"] == 0 for r in e2e.metrics(a, "opd")), "a sample lagged at max_staleness 0")
    keys = ("train/loss", "rollout/opd_reverse_kl", "train/grad_norm")
    rows = [[[r[k] for k in keys] for r in e2e.metrics(f, "opd")] for f in (a, b)]
    expect(len(rows[0]) == 8 and rows[0] == rows[1], "the metrics of two runs differ")


def case_other_seed(work):
    config = e2e.recipe(steps=2)
    a, b = work.run(config, "a"), work.run(config, "b", "--set", "run.seed=8")
    expect(e2e.weights(a, "opd") != e2e.weights(b, "opd"), "the seed changes nothing")


def case_threads(work):
    config = e2e.recipe(steps=4)
    for name in ("teacher", "student"):
        e2e.stage(config, name)["model"]["init"] = e2e.init(64, 2, 2)
    one = work.run(config, "one")
    three = work.run(config, "three", "--set", "device.rollout_threads=3", "--set", "device.trainer_threads=2",
                     "--set", "device.teacher_threads=2")
    expect_same(one, three)


def case_slots_and_micro_batches(work):
    """How many sequences are decoded together is no part of the result."""
    config = e2e.recipe(steps=4)
    expect_same(work.run(config, "wide"), work.run(config, "narrow", "--set", "rollout.slots=3"))


def interrupted(work, config, name, stage_name, step):
    """SIGINT at a step of a stage, then --resume; the folder at the end."""
    path = work.write(f"{name}.yaml", config)
    process = work.start("run", path, "--set", f"run.name={name}")
    e2e.wait_for_step(process, work.folder(name), stage_name, step)
    e2e.stop(process, signal.SIGINT).expect(130, "--resume")
    folder = work.folder(name)
    reached = int(e2e.checkpoint(folder, stage_name).name.removeprefix("step-"))
    expect(step <= reached < e2e.stage(config, stage_name)["train"]["steps"], f"saved at step {reached}")
    expect(not (folder / "summary.json").exists(), "an interrupted run has a summary")
    work.opd("run", path, "--set", f"run.name={name}", "--resume").expect(0)
    return folder


def case_sigint_in_distillation(work):
    config = e2e.recipe(steps=80)
    whole = work.run(config, "whole")
    broken = interrupted(work, config, "broken", "opd", 10)
    expect_same(whole, broken)
    steps = [r["train/step"] for r in e2e.metrics(broken, "opd", "train/samples")]
    expect(steps == list(range(1, 81)), f"steps of the resumed run: {steps}")


def case_sigint_in_sft(work):
    config = e2e.recipe(steps=2)
    e2e.stage(config, "teacher")["train"]["steps"] = 120
    expect_same(work.run(config, "whole"), interrupted(work, config, "broken", "teacher", 10))


def case_sigint_keeps_the_accuracies(work):
    """summary.json of a resumed run has what the run measured before it was interrupted."""
    config = e2e.recipe(steps=80)
    e2e.stage(config, "opd")["eval"] = {"path": "@stages.problems.test", "limit": 8}
    whole = e2e.summary(work.run(config, "whole"))
    broken = e2e.summary(interrupted(work, config, "broken", "opd", 10))
    for key in ("student_before", "student_after"):
        expect(whole.get(key) and whole[key] == broken.get(key), f"{key}: {whole.get(key)} and {broken.get(key)}")
    for counts in ("samples", "response_tokens", "invalid_tokens"):
        one, two = ([s.get(counts) for s in x["stages"]] for x in (whole, broken))
        expect(one == two, f"{counts}: {one} undisturbed, {two} after --resume")


def case_sigkill_of_the_run(work):
    config = e2e.recipe(steps=60)
    e2e.stage(config, "opd")["train"]["save_interval"] = 8
    whole = work.run(config, "whole")
    path = work.write("broken.yaml", config)
    process = work.start("run", path, "--set", "run.name=broken")
    e2e.wait_for_step(process, work.folder("broken"), "opd", 20)
    children = process.children()
    e2e.stop(process, signal.SIGKILL).expect(-signal.SIGKILL)
    e2e.wait_for(lambda: not any(e2e.alive(pid) for pid in children), "the teacher child outlives its run", 10)
    expect(e2e.checkpoint(work.folder("broken"), "opd").name in ("step-000016", "step-000024", "step-000032",
                                                                 "step-000040"), "no checkpoint of save_interval")
    work.opd("run", path, "--set", "run.name=broken", "--resume").expect(0)
    expect_same(whole, work.folder("broken"))


def case_second_signal_stops_at_once(work):
    """The first signal asks for order; a second one is obeyed at once, also by a run that waits."""
    config = e2e.recipe(steps=400)
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    e2e.wait_for_step(process, work.folder("c"), "opd", 3)
    child, = process.children()
    import os
    os.kill(child, signal.SIGSTOP)  # scores never come: the step that is waited for cannot end
    process.signal(signal.SIGINT)
    done = e2e.stop(process, signal.SIGINT) if process.running() else process.wait()
    done.expect(130)
    if e2e.alive(child):
        os.kill(child, signal.SIGCONT)
    e2e.wait_for(lambda: not e2e.alive(child), "the teacher child outlives its run", 10)


if __name__ == "__main__":
    e2e.main(globals())
