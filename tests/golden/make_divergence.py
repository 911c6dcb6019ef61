#!/usr/bin/env python3
"""Makes tests/golden/divergence.json: divergences over a support and their logit gradients, in float64.

Every kind x tail x support, and each of them again with a floor, a clip, a temperature and dead rows.
The loss is written over whole distributions with boolean masks and scattered lists, and autograd
differentiates it down to the logits; the C code works on lists of ids and has its own derivatives, so
the two share no structure. Inputs are float32 numbers read as float64. Flat object {name: [numbers]}
per case; rows without weight or support hold garbage.

    /usr/bin/python3 tests/golden/make_divergence.py tests/golden/divergence.json   (PyTorch >= 1.13)
"""
import itertools
import json
import sys

import torch

KINDS = ("reverse_kl", "forward_kl", "jsd", "low_var")
TAILS = ("bucket", "renormalise", "truncate")
SUPPORTS = ("sampled", "teacher_topk", "student_topk", "intersection", "union", "full")
ROWS, TAIL_MIN, GARBAGE = 5, 1e-7, -777.25


def f32(x):
    """As numbers whose text is short and reads back as the same float32."""
    return [float("%.9g" % v) for v in x.flatten()]


def top(row, k):
    """The k most likely ids, ties by the lower id."""
    return sorted(range(len(row)), key=lambda j: (-float(row[j]), j))[:k]


def support_of(case, student, teacher, sampled):
    """A boolean mask over the vocabulary, without ids that have no mass unless a floor raises them."""
    k, s, t = case["k"], set(top(student, case["k"])), set(top(teacher, case["k"]))
    ids = {"sampled": {sampled}, "teacher_topk": t, "student_topk": s, "intersection": s & t,
           "union": s | t, "full": set(range(len(student)))}[case["support"]]
    keep = [j in ids and (case["floor"] < 0 or float(teacher[j]) > -float("inf")) for j in range(len(student))]
    return torch.tensor(keep)


def divergence(case, student, teacher, keep):
    """One row: log-probs over the vocabulary, the support; 0-dim tensor."""
    l, t = student[keep], teacher[keep]
    if case["floor"] < 0:
        l, t = l.clamp(min=case["floor"]), t.clamp(min=case["floor"])
    if case["tail"] == "renormalise":
        l, t = l - l.logsumexp(0), t - t.logsumexp(0)
    if case["tail"] == "bucket" and int(keep.sum()) < len(student):
        l = torch.cat([l, (1 - l.exp().sum()).clamp(min=TAIL_MIN).log().view(1)])
        t = torch.cat([t, (1 - t.exp().sum()).clamp(min=TAIL_MIN).log().view(1)])
    s, p = l.exp(), t.exp()
    drawn = case["support"] == "sampled"  # drawing it is its weight
    if case["kind"] == "reverse_kl":
        loss = ((1 if drawn else s) * (l - t)).sum()
    elif case["kind"] == "forward_kl":
        loss = (p * (t - l)).sum()
    elif case["kind"] == "jsd":
        log_m = ((1 - case["alpha"]) * s + case["alpha"] * p).log()
        loss = (1 - case["alpha"]) * (s * (l - log_m)).sum() + case["alpha"] * (p * (t - log_m)).sum()
    else:
        weight = torch.ones_like(s) if drawn else s.detach()
        loss = (weight * ((t - l).exp() - 1 + l - t)).sum()
    return loss.clamp(max=case["clip"]) if case["clip"] > 0 else loss


def make(case, generator):
    vocab, temperature = case["vocab"], case["temperature"]
    logits = (2.5 * torch.randn(ROWS, vocab, generator=generator)).float()
    raw = (2.5 * torch.randn(ROWS, vocab, generator=generator)).float()
    logits[1] = torch.round(logits[1])  # ties
    raw[1] = torch.round(raw[1])
    if case["dead"]:
        raw[2, :2] = -float("inf")
    if case["same"]:
        raw = logits / temperature
    teacher = torch.log_softmax(raw.double(), -1).float()
    sampled = torch.randint(0, vocab, (ROWS,), generator=generator)
    if case["dead"]:
        sampled[2] = vocab - 1
    weights = torch.rand(ROWS, generator=generator).float()
    weights[3] = 0  # masked
    listed = case["k"] if case["support"] in ("sampled", "teacher_topk", "intersection") else vocab
    ids = torch.tensor([top(teacher[r], listed) for r in range(ROWS)])
    logps = teacher.gather(-1, ids)
    if case["dead"] and case["support"] != "sampled":
        ids[4], logps[4] = -1, GARBAGE  # the teacher did not answer
    z = logits.double().requires_grad_(True)
    student = torch.log_softmax(z / temperature, -1)
    total, loss = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for r in range(ROWS):
        keep = support_of(case, logits[r], teacher[r], int(sampled[r]))
        answered = not (case["dead"] and r == 4 and case["support"] != "sampled")
        if float(weights[r]) == 0 or not answered or not bool(keep.any()):
            continue
        value = float(weights[r].double()) * divergence(case, student[r], teacher[r].double(), keep)
        total, loss = total + case["coef"] * value, loss + value
    if total.requires_grad:
        total.backward()
    grad = z.grad if z.grad is not None else torch.zeros_like(z)
    return dict(kind=[KINDS.index(case["kind"])], tail=[TAILS.index(case["tail"])],
                support=[SUPPORTS.index(case["support"])], k=[case["k"]], vocab=[vocab],
                alpha=[case["alpha"]], floor=[case["floor"]], clip=[case["clip"]], coef=[case["coef"]],
                temperature=[temperature], logits=f32(logits), sampled=[int(x) for x in sampled],
                sampled_logp=f32(teacher.gather(-1, sampled[:, None])), weights=f32(weights),
                ids=[int(x) for x in ids.flatten()],
                logps=[v if v > -1e300 else -1e300 for v in f32(logps)], loss=[float("%.12g" % loss.detach())],
                grad=f32(grad))


def cases():
    extras = (dict(), dict(floor=-3.0, dead=1), dict(clip=0.4, temperature=0.7, coef=0.3), dict(dead=1))
    for i, (kind, tail, support) in enumerate(itertools.product(KINDS, TAILS, SUPPORTS)):
        if support == "sampled" and (tail != "truncate" or kind in ("forward_kl", "jsd")):
            continue  # one drawn id estimates an expectation over the student; nothing else is meant
        for j, extra in enumerate(extras):
            vocab = 3 + (i + j) % 5
            case = dict(kind=kind, tail=tail, support=support, vocab=vocab, k=1 + (i // 2 + 2 * j) % vocab,
                        alpha=(0.5, 0.1, 0.9)[i % 3], floor=0.0, clip=0.0, coef=1.0, temperature=1.0, dead=0,
                        same=0)
            case.update(extra)
            yield f"{kind} {tail} {support} {j}", case
        yield f"{kind} {tail} {support} same", dict(case, k=2, dead=0, same=1)


def main():
    generator = torch.Generator().manual_seed(20260101)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write("{\n")
        out.write(",\n".join(f"{json.dumps(name)}: {json.dumps(make(case, generator), separators=(',', ':'))}"
                             for name, case in cases()))
        out.write("\n}\n")


if __name__ == "__main__":
    main()
