#!/usr/bin/env python3
"""Makes tests/golden/grpo_opd.json: GRPO with the OPD term, and SFT, by PyTorch in float64.

Each case is a flat object {name: [numbers]}: float32 inputs (written so that they read back
exactly) and float64 results. Batches are padded matrices [samples, longest] here and flat
arrays in the C code, and gradients come from autograd, so the two share no structure.
Values under invalid or masked places are garbage on purpose.

    python3 tests/golden/make_grpo_opd.py tests/golden/grpo_opd.json     (PyTorch >= 1.13)
"""
import json
import sys

import torch

VOCAB = 7
GARBAGE = -777.25
DEFAULTS = dict(lengths=(3, 5, 1, 4, 6, 2), groups=(9, 4, 9, 4, 9, 4), lost=(), masked=(),
                mask_share=0.8, valid_share=0.7, no_valid=0, normalize_std=1, use_opd=1,
                only_reward=0, kl_coef=1.0, whiten=0, fallback=0, token_mean=0, dual_clip=0.0,
                clip_low=0.2, clip_high=0.28, entropy_coef=0.0, temperature=1.0, noise=0.3)
CASES = {
    "plain": {},
    "opd_off": dict(use_opd=0),
    "all_valid": dict(valid_share=1.0, mask_share=1.0),
    "only_reward": dict(only_reward=1),
    "only_reward_token_mean": dict(only_reward=1, token_mean=1),
    "only_reward_no_valid": dict(only_reward=1, no_valid=1),
    "small_lambda": dict(kl_coef=0.05),
    "large_lambda_clipped": dict(kl_coef=3.0, noise=1.0),
    "dual_clip": dict(dual_clip=3.0, noise=1.5),
    "on_policy": dict(noise=0.0),
    "no_std": dict(normalize_std=0),
    "whiten": dict(whiten=1),
    "whiten_only_reward": dict(whiten=1, only_reward=1, kl_coef=0.5),
    "lost_members": dict(lost=(0, 1, 3)),
    "lone_survivor": dict(lost=(0, 2)),
    "all_masked_sample": dict(masked=(1, 4)),
    "length_one": dict(lengths=(1, 1, 1, 1), groups=(0, 0, 1, 1)),
    "empty_response": dict(lengths=(0, 3, 2, 0), groups=(0, 0, 1, 1)),
    "seed_fallback": dict(fallback=1, valid_share=0.5),
    "entropy_and_temperature": dict(entropy_coef=0.01, temperature=0.7),
    "token_mean": dict(token_mean=1, noise=0.6),
}


def padded(rows, width, fill=0.0):
    return torch.tensor([list(r) + [fill] * (width - len(r)) for r in rows], dtype=torch.float64)


def inputs(c, generator):
    """Random float32 inputs as ragged lists, one entry per sample."""
    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    data = {name: [] for name in ("mask", "tokens", "logits", "student", "teacher", "valid", "rollout")}
    for i, length in enumerate(c["lengths"]):
        mask = (rand(length) < c["mask_share"]).int() * (0 if i in c["masked"] else 1)
        valid = (rand(length) < c["valid_share"]).int() * (0 if c["no_valid"] else 1)
        tokens = torch.randint(0, VOCAB, (length,), generator=generator)
        logits = (2 * normal(length, VOCAB)).float()
        now = torch.log_softmax(logits.double() / c["temperature"], -1)
        now = now.gather(-1, tokens.view(-1, 1)).view(-1) if length else now.view(-1)
        student = (now + c["noise"] * normal(length)).float()
        teacher = torch.where(valid == 1, (now + normal(length)).float(), torch.tensor(GARBAGE))
        rollout = (student + 0.1 * normal(length)).float()
        for name, value in (("mask", mask), ("tokens", tokens), ("logits", logits),
                            ("student", student), ("teacher", teacher), ("valid", valid),
                            ("rollout", rollout)):
            data[name].append(value.tolist())
    count = len(c["lengths"])
    data["rewards"] = torch.round(4 * rand(count)).div(3).double().tolist()
    data["reward_valid"] = [0 if i in c["lost"] else 1 for i in range(count)]
    return data


def advantages(c, d, width):
    """The matrix of advantages, the mask of the loss, and the reverse KL."""
    count = len(c["lengths"])
    rewards = torch.zeros(count, dtype=torch.float64)
    for group in set(c["groups"]):
        members = [i for i in range(count) if c["groups"][i] == group and d["reward_valid"][i]]
        if len(members) < 2:
            continue
        raw = torch.tensor([d["rewards"][i] for i in members], dtype=torch.float64)
        centred = raw - raw.mean()
        if c["normalize_std"]:
            centred = centred / (raw.std(unbiased=True) + 1e-6)
        rewards[members] = centred
    mask, valid = padded(d["mask"], width), padded(d["valid"], width)
    matrix = rewards[:, None].expand(count, width).clone()
    if c["only_reward"]:
        matrix = torch.zeros_like(matrix)
    kl = 0.0
    if c["use_opd"]:
        student, teacher = padded(d["student"], width), padded(d["teacher"], width)
        if c["fallback"]:
            teacher = torch.where(valid == 1, teacher, padded(d["rollout"], width))
            scored = torch.ones_like(valid)
        else:
            scored = valid
            if c["only_reward"]:
                mask = mask * valid
        difference = student - teacher
        matrix = torch.where(scored == 1, matrix - c["kl_coef"] * difference, matrix)
        usable = padded(d["mask"], width) * valid
        means = [(difference[i] * usable[i]).sum() / usable[i].sum()
                 for i in range(count) if usable[i].sum() > 0]
        kl = float(sum(means) / len(means)) if means else 0.0
    if c["whiten"]:
        used = matrix[mask == 1]
        matrix = (matrix - used.mean()) * torch.rsqrt(used.var(unbiased=True) + 1e-8)
    return matrix * mask, mask, kl


def reduce(c, x, mask):
    per_sample = (x * mask).sum(-1)
    divisors = mask.sum(-1).clamp(min=1)
    if c["token_mean"]:
        return per_sample.sum() / divisors.sum()
    return (per_sample / divisors).sum() / mask.shape[0]


def losses(c, d, width, advantage, mask):
    """Policy and SFT loss on logits, with gradients by autograd."""
    count = len(c["lengths"])
    logits = torch.zeros(count, width, VOCAB, dtype=torch.float64)
    tokens = padded(d["tokens"], width).long()
    for i, rows in enumerate(d["logits"]):
        for t, row in enumerate(rows):
            logits[i, t] = torch.tensor(row, dtype=torch.float64)
    logits.requires_grad_()
    log_probs = torch.log_softmax(logits / c["temperature"], -1)
    logp = log_probs.gather(-1, tokens[..., None]).squeeze(-1)
    logp.retain_grad()
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    ratio = torch.exp(logp - padded(d["student"], width))
    free = -ratio * advantage
    held = -ratio.clamp(1 - c["clip_low"], 1 + c["clip_high"]) * advantage
    x = torch.maximum(free, held)
    if c["dual_clip"] > 0:
        x = torch.where(advantage < 0, torch.minimum(-c["dual_clip"] * advantage, x), x)
    pg_loss = reduce(c, x, mask)
    loss = pg_loss - c["entropy_coef"] * reduce(c, entropy, mask)
    loss.backward()
    result = dict(loss=[float(loss)], pg_loss=[float(pg_loss)],
                  clip_frac=[float(reduce(c, (held > free).double(), mask))],
                  entropy=[float(reduce(c, entropy, mask))],
                  dlogp=logp.grad.clone(), dlogits=logits.grad.clone())
    logits.grad = None
    sft = -reduce(c, torch.log_softmax(logits / c["temperature"], -1)
                  .gather(-1, tokens[..., None]).squeeze(-1), padded(d["mask"], width))
    sft.backward()
    result.update(sft_loss=[float(sft)], sft_dlogits=logits.grad.clone())
    return result


def flat(matrix, lengths):
    return [v for i, n in enumerate(lengths) for v in matrix[i, :n].reshape(-1).tolist()]


def make_case(name, changes, seed):
    c = {**DEFAULTS, **changes}
    d = inputs(c, torch.Generator().manual_seed(seed))
    width = max(c["lengths"])
    advantage, mask, kl = advantages(c, d, width)
    out = {k: [c[k]] for k in DEFAULTS if isinstance(c[k], (int, float))}
    out.update(lengths=list(c["lengths"]), groups=list(c["groups"]), vocab=[VOCAB],
               rewards=d["rewards"], reward_valid=d["reward_valid"])
    for key in ("mask", "tokens", "student", "teacher", "valid", "rollout"):
        out[key] = [v for row in d[key] for v in row]
    out["logits"] = [v for rows in d["logits"] for row in rows for v in row]
    out.update(want_advantages=flat(advantage, c["lengths"]), want_mask=flat(mask, c["lengths"]),
               want_reverse_kl=[kl])
    for key, value in losses(c, d, width, advantage, mask).items():
        out["want_" + key] = flat(value, c["lengths"]) if torch.is_tensor(value) else value
    short = {k: [float(f"{v:.10g}") for v in out[k]] for k in out if k.startswith("want_")}
    return name, {**out, **short}


def main():
    cases = dict(make_case(name, changes, 100 + i) for i, (name, changes) in enumerate(CASES.items()))
    lines = [f"{json.dumps(name)}:" + json.dumps(case, separators=(",", ":"))
             for name, case in cases.items()]
    with open(sys.argv[1], "w") as file:
        file.write("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
