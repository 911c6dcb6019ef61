#!/usr/bin/env python3
"""A teacher that dies, hangs or stays away: the run goes on, counts what it lacks, or ends in order."""
import os
import signal

import e2e
from e2e import expect


def start(work, steps, **teacher):
    config = e2e.recipe(steps=steps)
    distil = e2e.stage(config, "opd")
    distil["teachers"]["main"].update(teacher)
    distil["eval"] = {"path": "@stages.problems.test", "limit": 4, "at_start": False}
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    e2e.wait_for_step(process, work.folder("c"), "opd", steps // 3)
    child, = process.children()
    return config, process, child


def rows_of(folder):
    return e2e.metrics(folder, "opd", "train/samples")


def expect_whole_again(folder):
    rows = rows_of(folder)
    expect(all(r["teacher/valid_share"] == 1 for r in rows[-5:]), "the last batches have tokens without a score")
    return rows


def unscored_steps(rows):
    """Batches without a valid token, as valid_share shows them; each must have made no step."""
    empty = [r for r in rows if r["teacher/valid_share"] == 0]
    expect(all("train/grad_norm" not in r for r in empty), "an optimizer step on a batch without a valid token")
    count = rows[-1]["train/batches_without_score"]
    expect(count == len(empty), f"{count} batches without score counted, {len(empty)} seen")
    return empty


def case_killed(work):
    """Within its deadline a sample waits for the teacher's return: nothing is masked."""
    config, process, child = start(work, 60)
    os.kill(child, signal.SIGKILL)
    other = e2e.wait_for(lambda: [pid for pid in process.children() if pid != child], "a new teacher child")
    expect(len(other) == 1, f"teacher children: {other}")
    done = process.wait()
    done.expect(0)
    folder = work.folder("c")
    rows = expect_whole_again(folder)
    expect(len(rows) == 60 and not unscored_steps(rows), "a batch without score")
    for text in ("killed by signal 9", "runs again"):
        expect(text in done.out, f"the screen does not say {text!r}:\n{done.out}")
        expect(text in (folder / "log").read_text(), f"the log does not say {text!r}")
    plain = work.run(config, "plain")
    expect(e2e.weights(folder, "opd") == e2e.weights(plain, "opd"), "a death that cost no score changed the weights")


def case_killed_under_a_short_deadline(work):
    """Scores that come too late are masked, counted on screen and in the metrics."""
    _, process, child = start(work, 45, timeout_s=0.4, deadline_s=0.5)
    folder = work.folder("c")
    os.kill(child, signal.SIGSTOP)  # hangs: no answer at all
    e2e.wait_for(lambda: rows_of(folder)[-1]["teacher/valid_share"] == 0, "a batch without a score")
    os.kill(child, signal.SIGKILL)
    done = process.wait()
    done.expect(0)
    rows = expect_whole_again(folder)
    expect(unscored_steps(rows), "no batch without a score")
    masked = sum(r["teacher/invalid_tokens"] for r in rows)
    result = next(s for s in e2e.summary(folder)["stages"] if s["name"] == "opd")
    expect(masked > 0 and result["invalid_tokens"] == masked, f"{masked} masked, {result}")
    expect(f"{masked:.0f} of {result['response_tokens']} tokens had no teacher score" in done.out, done.out)


def case_hung_teacher_answers_again(work):
    _, process, child = start(work, 45, timeout_s=0.4, deadline_s=0.5)
    folder = work.folder("c")
    os.kill(child, signal.SIGSTOP)
    e2e.wait_for(lambda: rows_of(folder)[-1]["teacher/valid_share"] == 0, "a batch without a score")
    os.kill(child, signal.SIGCONT)
    process.wait().expect(0)
    expect(unscored_steps(expect_whole_again(folder)), "no batch without a score")


def case_policy_fail_stops_the_run(work):
    config = e2e.recipe(steps=45)
    distil = e2e.stage(config, "opd")
    distil["teachers"]["main"].update(timeout_s=0.4, deadline_s=0.5)
    distil["opd"]["on_missing"] = "fail"
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    e2e.wait_for_step(process, work.folder("c"), "opd", 5)
    child, = process.children()
    os.kill(child, signal.SIGSTOP)
    process.wait().expect(6, "no valid teacher score", "--resume")
    expect(int(e2e.checkpoint(work.folder("c"), "opd").name.removeprefix("step-")) >= 5, "no late checkpoint")


def case_lost_teacher_stops_in_order(work):
    """A checkpoint is kept, and --resume ends with the weights of an undisturbed run."""
    config = e2e.recipe(steps=60)
    e2e.stage(config, "opd")["opd"]["teacher_lost_s"] = 1
    path = work.write("c.yaml", config)
    process = work.start("run", path, "--set", "run.name=c")
    e2e.wait_for_step(process, work.folder("c"), "opd", 10)
    child, = process.children()
    os.kill(child, signal.SIGSTOP)
    process.wait().expect(6, "teacher", "--resume")
    expect(int(e2e.checkpoint(work.folder("c"), "opd").name.removeprefix("step-")) >= 10, "no late checkpoint")
    work.opd("run", path, "--set", "run.name=c", "--resume").expect(0)
    e2e.expect_same(work.run(config, "plain"), work.folder("c"))


def case_too_many_invalid_tokens_stop_in_order(work):
    config = e2e.recipe(steps=60)
    distil = e2e.stage(config, "opd")
    distil["teachers"]["main"].update(timeout_s=0.2, deadline_s=0.3)
    distil["opd"].update(invalid_share_max=0.2, invalid_batches_max=4)
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    e2e.wait_for_step(process, work.folder("c"), "opd", 10)
    child, = process.children()
    os.kill(child, signal.SIGSTOP)
    process.wait().expect(6, "opd.invalid_share_max", "--resume")
    expect(e2e.checkpoint(work.folder("c"), "opd"), "no checkpoint")


if __name__ == "__main__":
    e2e.main(globals())
