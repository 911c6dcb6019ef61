#!/usr/bin/env python3
"""Makes tests/golden/objectives.bin: what an rl stage computes, from rewards, logits and a teacher's
answers to the loss and its gradient by the logits, in float64; for every estimator x reduction x
off-policy correction, and for every divergence x support x tail x choice of tokens.

Written from the formulas, on padded matrices [samples, longest] and whole distributions with boolean
masks; gradients are autograd's. The C code works on flat arrays and lists of ids with derivatives by
hand, so the two share no structure. A case is a text of configuration settings, which the test gives to
the program's own validator (keys without a section are of `train`); that no accepted combination is
missing is the test's business (tests/unit/actors/test_combinations.c). Batches are random float32
numbers: masks, invalid teacher scores, rows without a list, ids without mass, lost rewards, answers of
length 1 and 0, samples and a whole batch that are masked. What no valid bit covers is garbage on purpose.

    /usr/bin/python3 tests/golden/make_objectives.py tests/golden/objectives.bin    (PyTorch >= 1.13)

Format, little endian. int32 {magic 0x4f50444f, datasets, cases}. Per dataset: int32 {samples,
tokens, vocab}, offsets[samples+1], groups[samples], reward_valid[samples], mask[tokens],
valid[tokens], sampled[tokens], ids[tokens*vocab] (the teacher's, likeliest first; -1: no answer);
float32 rewards[samples], logits[tokens*vocab], logps[tokens*vocab] (of ids), old[tokens],
rollout[tokens], teacher[tokens], ref[tokens], values[tokens] (when the batch began), values_now[tokens].
Per case: int32 {dataset, whether a step is made, length of the text}, text; float32 {loss, pg_loss, kl,
tis, tis_clipfrac, value_loss, clip_frac, opsm_frac, ratio, ppo_kl, signal}, advantages[tokens],
dlogits[tokens*vocab] and, under ppo, dvalues[tokens].
"""
import itertools
import math
import struct
import sys

import torch

VOCAB = 5
GARBAGE, NOTHING = -777.25, -math.inf
TAIL_MIN = 1e-7
ESTIMATORS = {  # name: (how advantages are made, the loss)
    "grpo": ("grpo", "clip"), "gspo": ("grpo", "gspo"), "sapo": ("grpo", "sapo"),
    "cispo": ("grpo", "cispo"), "rloo": ("rloo", "clip"), "reinforce++": ("reinforce", "clip"),
    "reinforce++-baseline": ("baseline", "clip"), "ppo": ("gae", "clip")}
REDUCTIONS = ["sample_mean", "token_mean", "constant"]
CORRECTIONS = ["none", "tis", "icepop", "sequence_mask", "decoupled", "use_rollout_log_probs"]
DIVERGENCES = ["reverse_kl", "forward_kl", "jsd", "low_var"]
TAILS = ["bucket", "renormalise", "truncate"]
SUPPORTS = ["teacher_topk", "student_topk", "intersection", "union", "full"]
SELECTIONS = ["all", "entropy", "divergence", "entropy_or_divergence", "entropy_and_divergence"]
# Of the KL to the reference: where it is, of which type, unbiased. In the reward: (3) only where a token has one.
KL_LOSSES = [("none", "k3", 0), ("loss", "k1", 1), ("loss", "k2", 0), ("loss", "k2", 1), ("loss", "k3", 0),
             ("loss", "k3", 1), ("loss", "low_var_kl", 0), ("loss", "low_var_kl", 1)]
# Who says something of the drawn token, whether nothing else is learnt, and the seed's fallback.
TEACHERS = [("none", 0, 0), ("some", 0, 0), ("some", 0, 0), ("some", 0, 1), ("constant", 0, 0)]
TEACHERS_ALONE = [("some", 1, 0), ("some", 1, 1), ("constant", 1, 0)]
KL_REWARDS = [("reward", kind, 0) for kind in ("k1", "k2", "k3", "low_var_kl")]
SHAPES = [dict(lengths=(3, 2, 1, 4, 3, 1), groups=(9, 4, 9, 4, 9, 4), lost=(2,), masked=(3,), mask=0.8),
          dict(lengths=(2, 0, 5, 1, 2), groups=(7, 7, 8, 8, 8), lost=(0,), masked=(), mask=0.7),
          dict(lengths=(2, 3, 1), groups=(3, 3, 3), lost=(), masked=(0, 1, 2), mask=1.0),
          dict(lengths=(4, 1, 3, 2), groups=(1, 1, 1, 1), lost=(), masked=(), mask=1.0),
          dict(lengths=(1, 1, 1, 1), groups=(0, 0, 5, 5), lost=(), masked=(), mask=1.0),
          dict(lengths=(3, 2, 1, 4), groups=(9, 4, 9, 4), lost=(1,), masked=(), mask=1.0),
          dict(lengths=(3, 1), groups=(2, 2), lost=(0, 1), masked=(), mask=1.0),
          dict(lengths=(2, 1), groups=(2, 2), lost=(), masked=(), mask=1.0, silent=True)]
MASKED, ALL_MASKED, WHOLE, ALL_LOST, ALL_SILENT = (0, 1), 2, (3, 4, 5), 6, 7


def make_dataset(shape, g):
    def normal(*size):
        return torch.randn(*size, generator=g)

    d = dict(shape)
    for key in ("m", "valid", "sampled", "answered", "logits", "dist", "old", "rollout", "teacher", "ref",
                "values", "values_now"):
        d[key] = []
    for i, n in enumerate(shape["lengths"]):
        keep = 0 if i in shape["masked"] else 1
        d["m"].append((torch.rand(n, generator=g) < shape["mask"]).int() * keep)
        d["valid"].append((torch.rand(n, generator=g) < (0 if shape.get("silent") else 0.75)).int())
        d["answered"].append((torch.rand(n, generator=g) < 0.9).int())
        d["sampled"].append(torch.randint(0, VOCAB, (n,), generator=g))
        logits, raw = 1.5 * normal(n, VOCAB), 1.5 * normal(n, VOCAB)
        if n == 3:  # ties
            logits[-1], raw[-1] = torch.round(logits[-1]), torch.round(raw[-1])
        if n == 4:  # an id without mass, not the drawn one
            raw[0, (int(d["sampled"][i][0]) + 1) % VOCAB] = NOTHING
        dist = torch.log_softmax(raw.double(), -1).float()
        now = torch.log_softmax(logits, -1).gather(-1, d["sampled"][i].view(-1, 1)).view(-1)
        d["logits"].append(logits)
        d["dist"].append(dist)
        d["old"].append(now + 0.35 * normal(n))
        d["rollout"].append(d["old"][i] + 0.4 * normal(n))
        said = dist.gather(-1, d["sampled"][i].view(-1, 1)).view(-1)
        d["teacher"].append(torch.where(d["valid"][i] == 1, said, torch.tensor(GARBAGE)))
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
    if c["constant"] > 0:
        teacher, valid = old - (old < math.log(c["constant"])).double(), torch.ones_like(old)
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
        mask = mask if c["fallback"] else mask * valid
    if c["use_opd"]:
        a = a - c["opd_coef"] * (old - torch.where(valid == 1, teacher, pad(d["rollout"]) if c["fallback"] else old))
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


# ---- the teacher's distribution ----


def top(row, k):
    """The k most likely ids, ties by the lower id."""
    return sorted(range(len(row)), key=lambda j: (-float(row[j]), j))[:k]


def support_of(c, student, teacher, drawn):
    """A boolean mask over the vocabulary, without ids that have no mass unless a floor raises them."""
    s, t = set(top(student, c["k"])), set(top(teacher, c["k"]))
    ids = {"sampled": {drawn}, "teacher_topk": t, "student_topk": s, "intersection": s & t,
           "union": s | t, "full": set(range(len(student)))}[c["support"]]
    return torch.tensor([j in ids and (c["floor"] < 0 or float(teacher[j]) > NOTHING)
                         for j in range(len(student))])


def divergence(c, student, teacher, keep):
    """One row: log-probs over the vocabulary, the support; 0-dim tensor."""
    l, t = student[keep], teacher[keep]
    if c["floor"] < 0:
        l, t = l.clamp(min=c["floor"]), t.clamp(min=c["floor"])
    drawn = c["support"] == "sampled"  # drawing it is its weight
    if c["tail"] == "renormalise" and not drawn:
        l, t = l - l.logsumexp(0), t - t.logsumexp(0)
    if c["tail"] == "bucket" and not drawn and int(keep.sum()) < len(student):
        l = torch.cat([l, (1 - l.exp().sum()).clamp(min=TAIL_MIN).log().view(1)])
        t = torch.cat([t, (1 - t.exp().sum()).clamp(min=TAIL_MIN).log().view(1)])
    s, p = l.exp(), t.exp()
    if c["divergence"] == "reverse_kl":
        loss = (s * (l - t)).sum()
    elif c["divergence"] == "forward_kl":
        loss = (p * (t - l)).sum()
    elif c["divergence"] == "jsd":
        log_m = ((1 - c["alpha"]) * s + c["alpha"] * p).log()
        loss = (1 - c["alpha"]) * (s * (l - log_m)).sum() + c["alpha"] * (p * (t - log_m)).sum()
    else:
        weight = torch.ones_like(s) if drawn else s.detach()
        loss = (weight * (torch.expm1(t - l) + l - t)).sum()
    return loss.clamp(max=c["clip"]) if c["clip"] > 0 else loss


def scaled(values, places):
    """To [0, 1] by the least and the most at these places."""
    low, high = (min(values[places]), max(values[places])) if places else (0, 0)
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


def selected(c, d, covered, entropy):
    """Of each sample the share of its covered tokens that rank highest."""
    out = torch.zeros_like(covered)
    gaps = (pad(d["old"]) - pad(d["teacher"])).abs()
    for i, n in enumerate(d["lengths"]):
        places = [t for t in range(n) if covered[i, t]]
        h, gap = scaled(entropy[i], places), scaled(gaps[i], places)
        ranks = {"all": h, "entropy": h, "divergence": gap, "entropy_or_divergence": h + gap - h * gap,
                 "entropy_and_divergence": h * gap}[c["selection"]]
        places.sort(key=lambda t: (-float(ranks[t]), t))
        share = len(places) if c["selection"] == "all" else math.ceil(c["share"] * len(places))
        for t in places[:share]:
            out[i, t] = 1
    return out


def signal_loss(c, d, logs, covered, entropy):
    """The mean divergence, without its coefficient."""
    chosen, rows = selected(c, d, covered, entropy.detach()), torch.zeros_like(entropy)
    for i, n in enumerate(d["lengths"]):
        for t in range(n):
            student, teacher, drawn = d["logits"][i][t], d["dist"][i][t], int(d["sampled"][i][t])
            keep = support_of(c, student, teacher, drawn)
            if chosen[i, t] and bool(keep.any()):
                place = torch.zeros_like(entropy)
                place[i, t] = 1
                rows = rows + place * divergence(c, logs[i, t], teacher.double(), keep)
    return reduce(c, rows, chosen)


# ---- the whole ----


def results(c, d):
    a, mask, returns = advantages(c, d, pad(d["m"]))
    logits = pad(d["logits"]).requires_grad_()
    logs = torch.log_softmax(logits / c["temperature"], -1)
    logp = logs.gather(-1, pad(d["sampled"]).long()[..., None]).squeeze(-1)
    entropy = -(logs.exp() * logs).sum(-1)
    covered = mask * pad(d["valid"]) * (1 if c["support"] == "sampled" else pad(d["answered"]))
    with_signal = c["loss_coef"] > 0
    if with_signal and c["only_reward"] and c["opd_coef"] == 0:
        mask = covered
    always = not c["use_opd"] or c["opd_coef"] == 0 or c["fallback"] or c["constant"] > 0
    scored = always or bool((pad(d["m"]) * pad(d["valid"])).any())
    stepped = bool(mask.any()) and scored and (not with_signal or bool(covered.any()))
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
    signal = signal_loss(c, d, logs, covered, entropy) if with_signal else torch.zeros(())
    (loss + c["loss_coef"] * signal).backward()
    plain, tokens = factors(c, learner, rollout, mask)[0], mask.sum().clamp(min=1)
    value, dvalues = value_loss(c, d, returns, mask)
    rows = [(i, t) for i, n in enumerate(d["lengths"]) for t in range(n)]
    numbers = [loss, pg, kl, (plain * mask).sum() / tokens, (outside * mask).sum() / tokens, value] + \
        [reduce(c, y.double(), mask) for y in (clipped, dropped, torch.exp(logp - old), old - logp)] + [signal]
    return stepped, [float(x) for x in numbers] + [float(a[i, t]) for i, t in rows] + \
        [v for i, t in rows for v in logits.grad[i, t].tolist()] + [float(dvalues[i, t]) for i, t in rows]


# ---- the cases ----


class Dice:
    def __init__(self, seed):
        self.g = torch.Generator().manual_seed(seed)

    def pick(self, *values):
        return values[int(torch.randint(0, len(values), (1,), generator=self.g))]


def policy(dice, name, reduction, correction, opsm, kl, teacher):
    """The settings of an estimator, those that are free at random."""
    pick = dice.pick
    advantage, loss = ESTIMATORS[name]
    reinforce = advantage in ("reinforce", "baseline")
    place, kl_type, unbiased = kl
    said, only, fallback = teacher
    mask_like = correction in ("icepop", "sequence_mask")
    return dict(
        estimator=name, advantage=advantage, policy=loss, reduction=reduction,
        correction="none" if correction == "use_rollout_log_probs" else correction,
        rollout_is_old=int(correction == "use_rollout_log_probs"), use_opd=int(said != "none"), only_reward=only,
        rewards_normalization=pick(0, 1, 1, 1), std_normalization=pick(0, 1),
        whiten=1 if reinforce else 0 if only else pick(0, 0, 1), kl_type=kl_type, unbiased=unbiased,
        opd_coef=pick(0.35, 0.85), kl_coef=0.2 if place == "reward" else 0.0,
        kl_loss_coef=0.3 if place == "loss" else 0.0, gamma=pick(1.0, 0.9), clip_low=pick(0.2, 0.1),
        clip_high=pick(0.2, 0.28), dual_clip=pick(0.0, 2.0, 1.3) if loss in ("clip", "gspo") else 0.0,
        tau_pos=pick(1.0, 2.0), tau_neg=pick(1.05, 0.5), low=pick(0.6, 0.8) if mask_like else pick(0.0, 0.7),
        high=pick(1.3, 2.0), opsm_delta=pick(0.05, 0.1) if opsm else 0.0, entropy_coef=pick(0.0, 0.02),
        length=7, temperature=pick(1.0, 0.7), value_clip=pick(0.0, 0.2), value_coef=pick(0.5, 1.0),
        fallback=fallback, constant=0.3 if said == "constant" else 0.0,
        signal="sampled", loss_coef=0.0, support="sampled", divergence="low_var", tail="truncate", k=0, alpha=0.5,
        floor=0.0, clip=0.0, selection="all", share=1.0, **{"lambda": pick(1.0, 0.95)})


def policy_cases():
    """Each estimator x reduction x correction x OPSM twice: on masked data, and on data that the learner
    itself can be given. The KL to the reference and the teacher take turns."""
    dice, turns = Dice(2026), {}
    for number, (name, reduction, correction, opsm) in enumerate(itertools.product(
            ESTIMATORS, REDUCTIONS, CORRECTIONS, (0, 1))):
        shaped = ESTIMATORS[name][0] in ("reinforce", "baseline", "gae")
        kinds = KL_LOSSES + (KL_REWARDS if shaped else [])
        who = TEACHERS + ([] if shaped else TEACHERS_ALONE)
        for whole in (0, 1):
            turn = turns[name] = turns.get(name, -1) + 1
            c = policy(dice, name, reduction, correction, opsm, kinds[(turn * 5 + turn // len(kinds)) % len(kinds)],
                       who[(turn * 3 + turn // len(who)) % len(who)])
            special = ALL_LOST if number % 2 else ALL_SILENT
            c["dataset"] = (special if number % 12 == 5 else dice.pick(*WHOLE)) if whole else \
                ALL_MASKED if number % 12 == 7 else dice.pick(*MASKED)
            yield c


def signal_cases():
    """Each divergence x support x tail under each choice of tokens, with the estimators in turn."""
    dice = Dice(2027)
    pick = dice.pick
    combinations = [*itertools.product(DIVERGENCES, SUPPORTS, TAILS), ("low_var", "sampled", "truncate")]
    for at, ((kind, support, tail), selection) in enumerate(itertools.product(combinations, SELECTIONS)):
        name = list(ESTIMATORS)[at % 8]
        shaped = ESTIMATORS[name][0] in ("reinforce", "baseline", "gae")
        c = policy(dice, name, REDUCTIONS[(at + at // 8) % 3], pick(*CORRECTIONS), pick(0, 1), pick(*KL_LOSSES),
                   TEACHERS[1])
        only = 0 if shaped else pick(0, 1)
        c.update(use_opd=1, fallback=0, constant=0.0, only_reward=only, opd_coef=pick(0.0, 0.0, 0.5), signal="topk",
                 loss_coef=pick(1.0, 0.3), support=support, divergence=kind, tail=tail, selection=selection,
                 whiten=1 if name.startswith("reinforce") else 0 if only else pick(0, 1),
                 share=1.0 if selection == "all" else pick(0.4, 0.7), alpha=pick(0.5, 0.1, 0.9),
                 floor=pick(0.0, 0.0, -1.5, -3.0), clip=pick(0.0, 0.0, 0.4),
                 k=0 if support in ("full", "sampled") else pick(2, 3) if tail == "renormalise" else pick(1, 2, 3, 4),
                 dataset=ALL_SILENT if at % 60 == 59 else pick(*WHOLE))
        if support == "sampled":
            c["signal"] = "sampled"
        yield c


def text_of(c):
    """The case as settings of a configuration."""
    flag = ("false", "true")
    keys = dict(
        estimator=c["estimator"], loss_reduction=c["reduction"], normalize_advantages=flag[c["whiten"]],
        kl_coef=c["kl_coef"], kl_loss_coef=c["kl_loss_coef"], unbiased_kl=flag[c["unbiased"]],
        opsm_delta=c["opsm_delta"], entropy_coef=c["entropy_coef"])
    if c["advantage"] == "grpo":
        keys.update(rewards_normalization=flag[c["rewards_normalization"]],
                    grpo_std_normalization=flag[c["std_normalization"]])
    if c["kl_coef"] + c["kl_loss_coef"] > 0:
        keys["kl_loss_type"] = c["kl_type"]
    if c["policy"] == "sapo":
        keys.update(sapo_tau_pos=c["tau_pos"], sapo_tau_neg=c["tau_neg"])
    else:
        keys.update(eps_clip=c["clip_low"], eps_clip_high=c["clip_high"], eps_clip_c=c["dual_clip"])
    if c["advantage"] in ("reinforce", "gae"):
        keys["gamma"] = c["gamma"]
    if c["advantage"] == "gae":
        keys.update(gae_lambda=c["lambda"], value_clip=c["value_clip"], value_coef=c["value_coef"])
    keys["rollout.temperature"], keys["rollout.max_response_len"] = c["temperature"], c["length"]
    if c["rollout_is_old"]:
        keys["use_rollout_log_probs"] = "true"
    else:
        keys["correction"] = c["correction"]
    if c["correction"] in ("tis", "icepop", "sequence_mask"):
        keys.update(tis_clip=c["high"], tis_clip_low=c["low"])
    keys["opd.enabled"] = flag[c["use_opd"]]
    if c["use_opd"]:
        keys["opd.kl_coef"], keys["opd.only_reward"] = c["opd_coef"], flag[c["only_reward"]]
    if c["fallback"]:
        keys["opd.on_missing"] = "rollout_log_probs"
    if c["constant"] > 0:
        keys["opd.type"], keys["opd.constant_prob"] = "constant", c["constant"]
    if c["loss_coef"] > 0:
        keys.update({"opd.signal": c["signal"], "opd.loss_coef": c["loss_coef"], "opd.divergence": c["divergence"],
                     "opd.log_prob_top_k": c["k"],
                     "opd.logp_floor": c["floor"], "opd.token_clip": c["clip"],
                     "opd.token_selection": c["selection"]})
        if c["selection"] != "all":
            keys["opd.token_share"] = c["share"]
        if c["divergence"] == "jsd":
            keys["opd.jsd_alpha"] = c["alpha"]
    if c["signal"] == "topk":
        keys["opd.support"], keys["opd.tail"] = c["support"], c["tail"]
    if c["support"] in ("student_topk", "union", "full"):
        keys.update({"opd.type": "megatron", "teachers.big.path": "."})
    return " ".join(f"{k}={v}" for k, v in keys.items() if v != DEFAULTS.get(k)).encode()


DEFAULTS = {  # of the configuration: what need not be said
    "loss_reduction": "sample_mean", "rewards_normalization": "true", "grpo_std_normalization": "true",
    "normalize_advantages": "false", "eps_clip": 0.2, "eps_clip_c": 0.0, "gamma": 1.0, "kl_coef": 0.0,
    "kl_loss_coef": 0.0, "unbiased_kl": "false", "opsm_delta": 0.0, "entropy_coef": 0.0,
    "rollout.temperature": 1.0, "opd.only_reward": "false", "opd.log_prob_top_k": 0, "opd.logp_floor": 0.0,
    "opd.token_clip": 0.0, "opd.tail": "bucket", "opd.divergence": "forward_kl", "opd.jsd_alpha": 0.5,
    "opd.support": "teacher_topk", "opd.signal": "sampled", "opd.token_share": 0.5,
    "opd.token_selection": "all", "opd.enabled": "true"}


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
    ids, logps = [], []
    for dist, answered in zip(d["dist"], d["answered"]):
        for row, said in zip(dist, answered):
            listed = top(row, VOCAB)
            ids += listed if said else [-1] * VOCAB
            logps.append(row[listed] if said else torch.full((VOCAB,), GARBAGE))
    ints(ids)
    floats([d["rewards"]])
    floats(d["logits"])
    floats(logps)
    for key in ("old", "rollout", "teacher", "ref", "values", "values_now"):
        floats(d[key])


def main():
    g = torch.Generator().manual_seed(7)
    datasets = [make_dataset(shape, g) for shape in SHAPES]
    cases = [*policy_cases(), *signal_cases()]
    with open(sys.argv[1], "wb") as out:
        out.write(struct.pack("<3i", 0x4F50444F, len(datasets), len(cases)))
        for d in datasets:
            write_dataset(d, out)
        for c in cases:
            stepped, numbers = results(c, datasets[c["dataset"]])
            text = text_of(c)
            out.write(struct.pack("<3i", c["dataset"], stepped, len(text)) + text)
            if c["advantage"] != "gae":
                del numbers[-sum(datasets[c["dataset"]]["lengths"]):]
            out.write(struct.pack(f"<{len(numbers)}f", *numbers))


if __name__ == "__main__":
    main()
