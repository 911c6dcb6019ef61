#!/usr/bin/env python3
"""Makes tests/golden/selection.json: which tokens a divergence looks at, and the gradient that is left.

Every way to select x share x reduction over samples of several lengths, among them one of a single token, one
whose tokens are all masked, and one whose rows are all alike. Selection is written with sorted lists, the loss
over whole distributions; autograd differentiates it down to the logits. Inputs are float32 numbers read as
float64. Flat object {name: [numbers]} per case; what is masked holds garbage.

    /usr/bin/python3 tests/golden/make_selection.py tests/golden/selection.json   (PyTorch >= 1.13)
"""
import itertools
import json
import math
import sys

import torch
from make_divergence import GARBAGE, f32

WAYS = ("all", "entropy", "divergence", "entropy_or_divergence", "entropy_and_divergence")
REDUCTIONS = ("sample_mean", "token_mean")
LENGTHS, VOCAB, COEF = (6, 1, 9, 3, 4), 5, 0.7
MASKED_SAMPLE, FLAT_SAMPLE = 3, 4


def scale(x):
    low, high = float(x.min()), float(x.max())
    return (x - low) / (high - low) if high > low else torch.zeros_like(x)


def scores_of(way, entropy, gap):
    h, d = scale(entropy), scale(gap)
    return {"all": torch.zeros_like(h), "entropy": entropy, "divergence": gap,
            "entropy_or_divergence": 1 - (1 - h) * (1 - d), "entropy_and_divergence": h * d}[way]


def chosen(way, share, scores):
    """Places among the usable tokens of one sample."""
    if way == "all":
        return list(range(len(scores)))
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i].float()), i))
    return order[:math.ceil(share * len(scores))]


def make(way, share, reduction, generator):
    rows = sum(LENGTHS)
    logits = (2 * torch.randn(rows, VOCAB, generator=generator)).float()
    teacher = torch.log_softmax((2 * torch.randn(rows, VOCAB, generator=generator)).double(), -1).float()
    first = rows - LENGTHS[FLAT_SAMPLE]
    logits[first:], teacher[first:] = logits[first], teacher[first]
    sampled = torch.randint(0, VOCAB, (rows,), generator=generator)
    sampled[first:] = sampled[first]
    mask = torch.rand(rows, generator=generator) < 0.8
    mask[LENGTHS[0]] = True  # the sample of one token
    mask[first - LENGTHS[MASKED_SAMPLE]:first] = False
    z = logits.double().requires_grad_(True)
    student = torch.log_softmax(z, -1)
    entropy = -(student.exp() * student).sum(-1).detach()
    old = (student.detach().gather(-1, sampled[:, None])[:, 0] - 0.3 * torch.rand(rows, generator=generator)).float()
    old[first:] = old[first]
    told = teacher.gather(-1, sampled[:, None])[:, 0]
    gap = (old - told).abs().double()
    selected, start = torch.zeros(rows, dtype=torch.bool), 0
    for length in LENGTHS:
        usable = [t for t in range(start, start + length) if mask[t]]
        if usable:
            scores = scores_of(way, entropy[usable], gap[usable])
            selected[[usable[i] for i in chosen(way, share, scores)]] = True
        start += length
    each = (teacher.double().exp() * (teacher.double() - student)).sum(-1)  # forward KL
    parts = [(each[s:s + n], selected[s:s + n]) for s, n in zip(itertools.accumulate((0,) + LENGTHS), LENGTHS)]
    counts = [max(1, int(m.sum())) for _, m in parts]
    if reduction == "sample_mean":
        loss = sum((d * m).sum() / c for (d, m), c in zip(parts, counts)) / len(LENGTHS)
    else:
        loss = sum((d * m).sum() for d, m in parts) / sum(counts)
    (COEF * loss).backward()
    told[~mask], old[~mask] = GARBAGE, -GARBAGE
    offsets = list(itertools.accumulate((0,) + LENGTHS))
    return dict(way=[WAYS.index(way)], share=[share], reduction=[REDUCTIONS.index(reduction)], coef=[COEF],
                vocab=[VOCAB], offsets=offsets, logits=f32(logits), teacher=f32(teacher),
                sampled=[int(x) for x in sampled], mask=[int(x) for x in mask], old=f32(old), told=f32(told),
                selected=[int(x) for x in selected], loss=[float("%.12g" % loss.detach())], grad=f32(z.grad))


def main():
    generator = torch.Generator().manual_seed(20260414)
    combinations = itertools.product(WAYS, (0.1, 0.5), REDUCTIONS)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        out.write("{\n")
        out.write(",\n".join(f"{json.dumps(f'{w} {s} {r}')}: {json.dumps(make(w, s, r, generator), separators=(',', ':'))}"
                             for w, s, r in combinations))
        out.write("\n}\n")


if __name__ == "__main__":
    main()
