#!/usr/bin/env python3
"""Every estimator and correction through `opd run`: it learns, says its metrics, and a run with a
reference and a critic goes on after an interruption to the same bits."""
import signal

import e2e
from e2e import expect, expect_same

ESTIMATORS = {  # what is set besides the name, and a metric that must then be there
    "gspo": ({"kl_loss_coef": 0.1}, "train/kl_loss"),
    "sapo": ({"correction": "icepop"}, "train/tis_abs"),
    "cispo": ({"opsm_delta": 1e-4}, "train/opsm_clipfrac"),
    "rloo": ({"correction": "sequence_mask", "loss_reduction": "constant"}, "train/tis_clipfrac"),
    "reinforce++": ({"normalize_advantages": True, "kl_coef": 0.1}, "train/ois"),
    "reinforce++-baseline": ({"normalize_advantages": True, "correction": "decoupled"}, "train/tis"),
    "ppo": ({"kl_coef": 0.1, "use_rollout_log_probs": True}, "train/value_loss"),
}


def with_estimator(name, steps=4, staleness=0, **settings):
    """The recipe, its teacher in process, with rewards and the teacher's term together."""
    config = e2e.recipe(steps=steps)
    rl = e2e.stage(config, "opd")
    rl["opd"].update(type="megatron", only_reward=False)
    rl["rollout"]["max_staleness"] = staleness
    rl["train"].update(estimator=name, optimizer_steps_per_batch=2, **settings)
    return config


def case_every_estimator_runs(work):
    for number, (name, (settings, metric)) in enumerate(ESTIMATORS.items()):
        folder = work.run(with_estimator(name, staleness=number % 2, **settings), f"e{number}")
        rows = e2e.metrics(folder, "opd", metric)
        expect(len(rows) == 4, f"{name}: {metric} is in {len(rows)} lines, not 4")
        expect(all(r["train/grad_norm"] > 0 for r in rows), f"{name}: a gradient is 0")
        expect(e2e.weights(folder, "opd") != e2e.weights(folder, "student"), f"{name} learnt nothing")
        lags = sum(rows[-1].get(f"rollout/lag_{n}", 0) for n in (0, 1, 2, 4, 8))
        expect(lags == 8, f"{name}: the histogram of lags has {lags} samples, not 8")


def case_a_run_with_reference_and_critic_goes_on(work):
    config = with_estimator("ppo", steps=40, kl_loss_coef=0.1, kl_loss_type="k2")
    whole = work.run(config, "whole")
    path = work.write("broken.yaml", config)
    process = work.start("run", path, "--set", "run.name=broken")
    e2e.wait_for_step(process, work.folder("broken"), "opd", 10)
    e2e.stop(process, signal.SIGINT).expect(130, "--resume")
    work.opd("run", path, "--set", "run.name=broken", "--resume").expect(0)
    expect_same(whole, work.folder("broken"))
    heads = [(e2e.checkpoint(f, "opd") / "critic.safetensors").read_bytes()
             for f in (whole, work.folder("broken"))]
    expect(heads[0] == heads[1], "the critics differ")


def case_a_reference_of_another_shape(work):
    config = with_estimator("grpo", kl_loss_coef=0.1)
    e2e.stage(config, "opd")["model"]["ref_path"] = "@stages.teacher.checkpoint"
    path = work.write("c.yaml", config)
    done = work.opd("run", path, "--set", "run.name=c")
    expect(done.code != 0, "a reference of another shape was taken")
    expect("model.ref_path" in done.err and "shape" in done.err, f"it says: {done.err}")


if __name__ == "__main__":
    e2e.main(globals())
