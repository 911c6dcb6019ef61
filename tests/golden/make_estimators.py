#!/usr/bin/env python3
"""Makes tests/golden/estimators.bin: every estimator with every reduction and every off-policy
correction, from rewards and logits to the loss and its gradient by the logits, in float64.

Written from the formulas, on padded matrices [samples, longest]; gradients are autograd's. The C
code works on flat arrays with derivatives by hand, so the two share no structure. Batches are
random float32 numbers: masks, invalid teacher scores, lost rewards, answers of length 1 and 0,
samples and one whole batch that are masked. What no valid bit covers is garbage on purpose.

    python3 tests/golden/make_estimators.py tests/golden/estimators.bin     (PyTorch >= 1.13)

Format, little endian. int32 {magic 0x4f504445, datasets, cases}. Per dataset: int32 {samples,
tokens, vocab}, offsets[samples+1], groups[samples], reward_valid[samples], mask[tokens],
valid[tokens], sampled[tokens]; float32 rewards[samples], logits[tokens*vocab], old[tokens],
rollout[tokens], teacher[tokens], ref[tokens], values[tokens] (when the batch began),
values_now[tokens]. Per case: char name[96]; int32 by INTS, float64 by FLOATS; float64 {loss,
pg_loss, kl, tis, tis_clipfrac, value_loss, clip_frac, opsm_frac, ratio, ppo_kl}; float32
advantages[tokens], dlogits[tokens*vocab], dvalues[tokens].
"""
import itertools
import struct
import sys

import torch

VOCAB = 5
GARBAGE = -777.25
ESTIMATORS = {  # name: (how advantages are made, the loss)
    "grpo": ("grpo", "clip"), "gspo": ("grpo", "gspo"), "sapo": ("grpo", "sapo"),
    "cispo": ("grpo", "cispo"), "rloo": ("rloo", "clip"), "reinforce++": ("reinforce", "clip"),
    "reinforce++-baseline": ("baseline", "clip"), "ppo": ("gae", "clip")}
REDUCTIONS = ["sample_mean", "token_mean", "constant"]
CORRECTIONS = ["none", "tis", "icepop", "sequence_mask", "decoupled", "use_rollout_log_probs"]
KL_TYPES = ["k1", "k2", "k3", "low_var_kl"]
ADVANTAGES = ["grpo", "rloo", "reinforce", "baseline", "gae"]
LOSSES = ["clip", "gspo", "sapo", "cispo"]
INTS = ["dataset", "advantage", "policy", "reduction", "correction", "rollout_is_old", "use_opd",
        "only_reward", "rewards_normalization", "std_normalization", "whiten", "kl_type", "unbiased"]
FLOATS = ["opd_coef", "kl_coef", "kl_loss_coef", "gamma", "clip_low", "clip_high", "dual_clip",
          "tau_pos", "tau_neg", "low", "high", "opsm_delta", "entropy_coef", "length", "temperature",
          "lambda", "value_clip"]
SHAPES = [dict(lengths=(3, 2, 1, 4, 3, 1), groups=(9, 4, 9, 4, 9, 4), lost=(2,), masked=(3,), mask=0.8),
          dict(lengths=(4, 1, 3, 2), groups=(1, 1, 1, 1), lost=(), masked=(), mask=1.0),
          dict(lengths=(2, 0, 5, 1, 2), groups=(7, 7, 8, 8, 8), lost=(0,), masked=(), mask=0.7),
          dict(lengths=(1, 1, 1, 1), groups=(0, 0, 5, 5), lost=(), masked=(), mask=1.0),
          dict(lengths=(2, 3, 1), groups=(3, 3, 3), lost=(), masked=(0, 1, 2), mask=1.0)]
ALL_MASKED = 4


def make_dataset(shape, g):
    def normal(*size):
        return torch.randn(*size, generator=g)

    d = dict(shape)
    for key in ("m", "valid", "sampled", "logits", "old", "rollout", "teacher", "ref", "values",
                "values_now"):
        d[key] = []
    for i, n in enumerate(shape["lengths"]):
        keep = 0 if i in shape["masked"] else 1
        d["m"].append((torch.rand(n, generator=g) < shape["mask"]).int() * keep)
        d["valid"].append((torch.rand(n, generator=g) < 0.75).int())
        d["sampled"].append(torch.randint(0, VOCAB, (n,), generator=g))
        logits = 1.5 * normal(n, VOCAB)
        now = torch.log_softmax(logits, -1).gather(-1, d["sampled"][i].view(-1, 1)).view(-1)
        d["logits"].append(logits)
        d["old"].append(now + 0.35 * normal(n))
        d["rollout"].append(d["old"][i] + 0.4 * normal(n))
        d["teacher"].append(torch.where(d["valid"][i] == 1, now + normal(n), torch.tensor(GARBAGE)))
        d["ref"].append(now + 0.6 * normal(n))
        d["values"].append(0.5 + 0.5 * normal(n))
        d["values_now"].append(d["values"][i] + 0.3 * normal(n))
    count = len(shape["lengths"])
    d["rewards"] = torch.round(4 * torch.rand(count, generator=g)) / 3
    d["got"] = torch.tensor([0 if i in shape["lost"] else 1 for i in range(count)])
    return d


def pad(rows):
    width = max(len(r) for r in rows)
    out = torch.zeros((len(rows), width) + tuple(rows[0].shape[1:]), dtype=torch.float64)
    for i, r in enumerate(rows):
        out[i, :len(r)] = r.double()
    return out


def scalar_rewards(c, d):
    """One number per sample: the group's part of the estimator."""
    r, out = d["rewards"].double(), torch.zeros(len(d["lengths"]), dtype=torch.float64)
    alone = c["advantage"] in ("reinforce", "gae") or (c["advantage"] == "grpo" and not c["rewards_normalization"])
    if alone:
        return torch.where(d["got"] == 1, r, out)
    for group in set(d["groups"]):
        who = [i for i, x in enumerate(d["groups"]) if x == group and d["got"][i]]
        for i in who:
            others = [r[j] for j in who if j != i]
            if not others:
                continue
            mean = sum(r[j] for j in who) / len(who)
            if c["advantage"] == "rloo":
                out[i] = r[i] - sum(others) / len(others)
            elif c["advantage"] == "grpo" and c["std_normalization"]:
                out[i] = (r[i] - mean) / (torch.stack([r[j] for j in who]).std(unbiased=True) + 1e-6)
            else:
                out[i] = r[i] - mean
    return out


def kl_estimate(kind, logp, ref, ratio):
    d = logp - ref
    value = {"k1": d, "k2": d * d / 2}.get(kind, torch.expm1(-d) + d)
    if ratio is not None:
        value = value * ratio
    return value.clamp(-10, 10) if kind == "low_var_kl" else value


def advantages(c, d, m):
    old, ref, teacher = pad(d["old"]), pad(d["ref"]), pad(d["teacher"])
    valid, got = pad(d["valid"]), d["got"].double()[:, None]
    base = scalar_rewards(c, d)
    a = base[:, None].expand_as(m).clone()
    mask = m.clone()
    shaping = c["kl_coef"] * kl_estimate(c["kl_type"], old, ref, None)
    if c["advantage"] == "baseline":
        a = a - shaping
    if c["advantage"] in ("reinforce", "gae"):
        mask = mask * got
    returns = torch.zeros_like(a)
    for i in range(len(m) if c["advantage"] in ("reinforce", "gae") else 0):
        places = torch.nonzero(m[i]).view(-1).tolist()
        x = [-shaping[i, t] + (base[i] if t == places[-1] else 0.0) for t in places]
        v = [pad(d["values"])[i, t] for t in places] + [0.0]
        decay = c["gamma"] * (c["lambda"] if c["advantage"] == "gae" else 1)
        if c["advantage"] == "gae":
            x = [x[k] + c["gamma"] * v[k + 1] - v[k] for k in range(len(places))]
        for k, t in enumerate(places):  # the sum that the recursion means
            a[i, t] = sum(decay ** (j - k) * x[j] for j in range(k, len(places)))
            returns[i, t] = a[i, t] + v[k] if c["advantage"] == "gae" else 0.0
    if c["whiten"] and not c["only_reward"]:
        mask = mask * got
    if c["only_reward"]:
        a = torch.zeros_like(a)
        mask = mask * valid
    if c["use_opd"]:
        a = a - torch.where(valid == 1, c["opd_coef"] * (old - teacher), torch.zeros_like(a))
    if c["whiten"]:
        used = a[mask == 1]
        if len(used) >= 2:
            a = (a - used.mean()) * torch.rsqrt(used.var(unbiased=True) + 1e-8)
        else:
            a = torch.zeros_like(a)
    return a * mask, mask, returns


def value_loss(c, d, returns, mask):
    now, old = pad(d["values_now"]).requires_grad_(), pad(d["values"])
    held = torch.maximum(torch.minimum(now, old + c["value_clip"]), old - c["value_clip"])
    x = torch.maximum((now - returns) ** 2, (held - returns) ** 2)
    loss = reduce(c, x if c["value_clip"] > 0 else (now - returns) ** 2, mask)
    loss.backward()
    return float(loss), now.grad


def sequence_mean(x, mask):
    return (x * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def factors(c, old, rollout, mask):
    """Constant factors of the policy loss, and which of them the bounds touched."""
    r = torch.exp(old - rollout)
    if c["correction"] == "none":
        return torch.ones_like(r), torch.zeros_like(r)
    if c["correction"] == "decoupled":
        return r, torch.zeros_like(r)
    judged = torch.exp(sequence_mean(old - rollout, mask)).expand_as(r) \
        if c["correction"] == "sequence_mask" else r
    outside = ((judged < c["low"]) | (judged > c["high"])).double()
    if c["correction"] == "tis":
        return r.clamp(c["low"], c["high"]), outside
    return (1 - outside) * (r if c["correction"] == "icepop" else 1), outside


def token_losses(c, logp, old, a, mask):
    """The loss of each token, and whether its clip (or gate) holds it."""
    rho = torch.exp(logp - old)
    if c["policy"] == "gspo":
        rho = torch.exp(sequence_mean(logp - old, mask)).expand_as(logp)
    if c["policy"] == "sapo":
        tau = torch.where(a > 0, torch.full_like(a, c["tau_pos"]), torch.full_like(a, c["tau_neg"]))
        p = torch.sigmoid(tau * (rho - 1))
        return -4 / tau * p * a, 4 * p * (1 - p) < 0.9
    held = rho.clamp(1 - c["clip_low"], 1 + c["clip_high"])
    if c["policy"] == "cispo":
        return -held.detach() * a * logp, held != rho
    clipped = -held * a > -rho * a
    x = torch.maximum(-rho * a, -held * a)
    if c["dual_clip"] > 0:
        x = torch.where(a < 0, torch.minimum(-c["dual_clip"] * a, x), x)
    return x, clipped


def reduce(c, x, mask):
    per_sample = torch.where(mask == 1, x, torch.zeros_like(x)).sum(-1)
    counts = mask.sum(-1).clamp(min=1)
    if c["reduction"] == "token_mean":
        return per_sample.sum() / counts.sum()
    if c["reduction"] == "constant":
        return per_sample.sum() / c["length"] / len(mask)
    return (per_sample / counts).sum() / len(mask)


def results(c, d):
    a, mask, returns = advantages(c, d, pad(d["m"]))
    logits = pad(d["logits"]).requires_grad_()
    logs = torch.log_softmax(logits / c["temperature"], -1)
    logp = logs.gather(-1, pad(d["sampled"]).long()[..., None]).squeeze(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    learner, rollout, ref = pad(d["old"]), pad(d["rollout"]), pad(d["ref"])
    old = rollout if c["rollout_is_old"] else learner
    weight, outside = factors(c, learner, rollout, mask)
    dropped = torch.zeros_like(a)
    if c["opsm_delta"] > 0:
        left = sequence_mean(rollout - logp.detach(), mask) > c["opsm_delta"]
        dropped = ((a < 0) & left).double()
    x, clipped = token_losses(c, logp, old, a, mask)
    pg = reduce(c, (1 - dropped) * weight * x, mask)
    kl = torch.zeros((), dtype=torch.float64)
    if c["kl_loss_coef"] > 0:
        ratio = torch.exp(logp - old) if c["unbiased"] else None
        kl = reduce(c, kl_estimate(c["kl_type"], logp, ref, ratio), mask)
    loss = pg + c["kl_loss_coef"] * kl - c["entropy_coef"] * reduce(c, entropy, mask)
    loss.backward()
    plain, tokens = factors(c, learner, rollout, mask)[0], mask.sum().clamp(min=1)
    grads, flat_a = logits.grad, a.detach()
    value, dvalues = value_loss(c, d, returns, mask)
    rows = [(i, t) for i, n in enumerate(d["lengths"]) for t in range(n)]
    return [float(loss), float(pg), float(kl), float((plain * mask).sum() / tokens),
            float((outside * mask).sum() / tokens), value] + \
        [float(reduce(c, y.double(), mask)) for y in (clipped, dropped, torch.exp(logp - old), old - logp)], \
        [float(flat_a[i, t]) for i, t in rows] + [v for i, t in rows for v in grads[i, t].tolist()] + \
        [float(dvalues[i, t]) for i, t in rows]


def combinations():
    """Each accepted estimator x reduction x correction twice, the other settings at random."""
    g = torch.Generator().manual_seed(2026)

    def pick(*values):
        return values[int(torch.randint(0, len(values), (1,), generator=g))]

    for number, (name, reduction, correction, twice) in enumerate(itertools.product(
            ESTIMATORS, REDUCTIONS, CORRECTIONS, (0, 1))):
        advantage, policy = ESTIMATORS[name]
        reinforce = advantage in ("reinforce", "baseline")
        shaped = reinforce or advantage == "gae"
        term = pick("none", "loss", "reward") if shaped else pick("none", "loss")
        unbiased = pick(0, 1) if term == "loss" else 0
        kl_type = pick(*KL_TYPES) if unbiased or term != "loss" else pick(*KL_TYPES[1:])
        mask_like = correction in ("icepop", "sequence_mask")
        use_opd = pick(0, 1, 1)
        only = pick(0, 0, 0, 1) if use_opd and not shaped else 0
        yield dict(
            label=f"{name} {reduction} {correction} #{twice}",
            dataset=ALL_MASKED if number % 24 == 23 else pick(0, 1, 2, 3) if twice else 0,
            advantage=advantage, policy=policy, reduction=reduction,
            correction="none" if correction == "use_rollout_log_probs" else correction,
            rollout_is_old=int(correction == "use_rollout_log_probs"), use_opd=use_opd,
            only_reward=only, rewards_normalization=pick(0, 1, 1, 1), std_normalization=pick(0, 1),
            whiten=1 if reinforce else 0 if only else pick(0, 0, 1), kl_type=kl_type,
            unbiased=unbiased, opd_coef=pick(0.3, 1.0), kl_coef=0.2 if term == "reward" else 0.0,
            kl_loss_coef=0.3 if term == "loss" else 0.0, gamma=pick(1.0, 0.9), clip_low=0.2,
            clip_high=pick(0.2, 0.28), dual_clip=pick(0.0, 2.0) if policy in ("clip", "gspo") else 0.0,
            tau_pos=1.0, tau_neg=1.05, low=pick(0.6, 0.8) if mask_like else pick(0.0, 0.7),
            high=pick(1.3, 2.0), opsm_delta=pick(0.0, 0.0, 0.1), entropy_coef=pick(0.0, 0.02),
            length=7.0, temperature=pick(1.0, 0.7), value_clip=pick(0.0, 0.2),
            **{"lambda": pick(1.0, 0.95)})


def write_dataset(d, out):
    offsets = [0]
    for n in d["lengths"]:
        offsets.append(offsets[-1] + n)

    def ints(values):
        out.write(struct.pack(f"<{len(values)}i", *values))

    def floats(rows):
        values = torch.cat([r.reshape(-1) for r in rows]).tolist()
        out.write(struct.pack(f"<{len(values)}f", *values))

    ints([len(d["lengths"]), offsets[-1], VOCAB] + offsets + list(d["groups"]) + d["got"].tolist())
    for key in ("m", "valid", "sampled"):
        ints(torch.cat(d[key]).tolist())
    floats([d["rewards"]])
    for key in ("logits", "old", "rollout", "teacher", "ref", "values", "values_now"):
        floats(d[key])


def main():
    g = torch.Generator().manual_seed(7)
    datasets = [make_dataset(shape, g) for shape in SHAPES]
    cases = list(combinations())
    codes = dict(advantage=ADVANTAGES, policy=LOSSES, reduction=REDUCTIONS, correction=CORRECTIONS,
                 kl_type=KL_TYPES)
    with open(sys.argv[1], "wb") as out:
        out.write(struct.pack("<3i", 0x4F504445, len(datasets), len(cases)))
        for d in datasets:
            write_dataset(d, out)
        for c in cases:
            numbers, arrays = results(c, datasets[c["dataset"]])
            ints = [codes[k].index(c[k]) if k in codes else c[k] for k in INTS]
            out.write(c["label"].encode().ljust(96, b"\0"))
            out.write(struct.pack(f"<{len(ints)}i{len(FLOATS)}d10d", *ints, *(c[k] for k in FLOATS),
                                  *numbers))
            out.write(struct.pack(f"<{len(arrays)}f", *arrays))


if __name__ == "__main__":
    main()
