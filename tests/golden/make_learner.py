#!/usr/bin/env python3
"""Makes tests/golden/learner.bin: GRPO with the OPD term from weights to weights, in float64.

A small Llama (the forward of make_model.py) scores the responses of a batch; rewards, teacher
scores and their validity make the advantages; the PPO loss with an entropy bonus is
differentiated by autograd down to every weight. The inputs are float32 numbers read as float64.
    /usr/bin/python3 tests/golden/make_learner.py tests/golden/learner.bin   (needs PyTorch)

Format, little endian. int32 header[16] = {magic 0x4f50444c, vocab, hidden, inner, layers, heads,
kv_heads, head_dim, max_position, samples, tokens, rows, parameters, cases, 0, 0}; float64
{rope_theta, rms_eps}; int32 seq_start[samples+1], offsets[samples+1] (response rows),
groups[samples]; int32 tokens; float64 rewards[samples]; uint8 valid[rows] padded to 4; float32
teacher[rows] (garbage where invalid), old[rows] (log-probs before the first step); float32
parameters. Then per case: int32 {only_reward, token_mean}; float64 {temperature, kl_coef,
entropy_coef, clip_low, clip_high, loss, pg_loss, clip_frac, entropy, reverse_kl};
float64 logp[rows], gradients[parameters].
"""
import os
import struct
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_model as llama

SAMPLES = [(4, 6), (4, 3), (4, 1), (7, 5), (7, 8), (7, 2)]  # prompt, response
GROUPS = [3, 3, 3, 8, 8, 8]
GARBAGE = -777.25
CASES = [dict(only_reward=0, token_mean=0, temperature=1.0, kl_coef=1.0, entropy_coef=0.0),
         dict(only_reward=1, token_mean=0, temperature=1.0, kl_coef=0.7, entropy_coef=0.01),
         dict(only_reward=0, token_mean=1, temperature=0.7, kl_coef=0.3, entropy_coef=0.02),
         dict(only_reward=0, token_mean=0, temperature=1.0, kl_coef=0.0, entropy_coef=0.0)]
CLIP = (0.2, 0.28)


def advantages(case, d):
    """Per sample a tensor of advantages and the mask of the loss."""
    out, masks, kls = [], [], []
    for i in range(len(SAMPLES)):
        mates = torch.tensor([d["rewards"][j] for j in range(len(SAMPLES)) if GROUPS[j] == GROUPS[i]])
        r = (d["rewards"][i] - mates.mean()) / (mates.std(unbiased=True) + 1e-6)
        n = SAMPLES[i][1]
        a = torch.zeros(n, dtype=torch.float64) + (0.0 if case["only_reward"] else float(r))
        gap = d["old"][i] - d["teacher"][i]
        a = torch.where(d["valid"][i] == 1, a - case["kl_coef"] * gap, a)
        out.append(a)
        masks.append(d["valid"][i].double() if case["only_reward"] else torch.ones(n, dtype=torch.float64))
        if d["valid"][i].sum() > 0:
            kls.append(float(gap[d["valid"][i] == 1].mean()))
    return out, masks, sum(kls) / len(kls)


def averaged(case, xs, masks):
    sums = [(x * m).sum() for x, m in zip(xs, masks)]
    counts = [m.sum().clamp(min=1) for m in masks]
    if case["token_mean"]:
        return sum(sums) / sum(counts)
    return sum(s / c for s, c in zip(sums, counts)) / len(xs)


def shown(case, xs, masks):
    """As averaged, but over the tokens that take part alone: what a metric is."""
    return averaged(case, xs, masks) / averaged(case, masks, masks)


def score(params, d, temperature):
    logps, entropies = [], []
    for tokens, (p, n) in zip(d["tokens"], SAMPLES):
        z = llama.forward(params, torch.tensor(tokens), True)[p - 1:p + n - 1] / temperature
        logs = torch.log_softmax(z, -1)
        logps.append(logs.gather(-1, torch.tensor(tokens[p:])[:, None]).squeeze(-1))
        entropies.append(-(logs.exp() * logs).sum(-1))
    return logps, entropies


def make_case(case, arrays, d):
    params = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    adv, masks, kl = advantages(case, d)
    logps, entropies = score(params, d, case["temperature"])
    free, held = [], []
    for logp, old, a in zip(logps, d["old"], adv):
        ratio = torch.exp(logp - old)
        free.append(-ratio * a)
        held.append(-ratio.clamp(1 - CLIP[0], 1 + CLIP[1]) * a)
    pg = averaged(case, [torch.maximum(f, h) for f, h in zip(free, held)], masks)
    entropy = averaged(case, entropies, masks)
    clip = shown(case, [(h > f).double() for f, h in zip(free, held)], masks)
    loss = pg - case["entropy_coef"] * entropy
    loss.backward()
    head = struct.pack("<2i", case["only_reward"], case["token_mean"])
    head += struct.pack("<10d", case["temperature"], case["kl_coef"], case["entropy_coef"], *CLIP,
                        float(loss), float(pg), float(clip), float(shown(case, entropies, masks)), kl)
    body = torch.cat([x.detach() for x in logps]).numpy().tobytes()
    return head + body + b"".join(p.grad.numpy().tobytes() for p in params)


def inputs(rng, arrays):
    d = {"tokens": [rng.integers(0, llama.VOCAB, p + n).tolist() for p, n in SAMPLES]}
    d["rewards"] = [1.0, 0.0, 0.5, 0.25, 1.0, 0.0]
    params = [torch.tensor(a.astype(np.float64)) for a in arrays]
    now, _ = score(params, d, 1.0)
    d["old"], d["teacher"], d["valid"] = [], [], []
    for i, (_, n) in enumerate(SAMPLES):
        as32 = lambda x: torch.tensor(x.astype(np.float32).astype(np.float64))
        d["old"].append(as32(now[i].numpy() + 0.25 * rng.standard_normal(n)))
        valid = torch.tensor(rng.random(n) < (0.0 if i == 2 else 0.7)).int()
        teacher = as32(now[i].numpy() + rng.standard_normal(n))
        d["valid"].append(valid)
        d["teacher"].append(torch.where(valid == 1, teacher, torch.tensor(GARBAGE, dtype=torch.float64)))
    return d


def main():
    torch.set_default_dtype(torch.float64)
    rng = np.random.default_rng(11)
    arrays = []
    for shape in llama.shapes(True):
        a = rng.standard_normal(shape) * (0.25 if len(shape) == 2 else 0.1)
        arrays.append((a + (0 if len(shape) == 2 else 1)).astype(np.float32))
    d = inputs(rng, arrays)
    starts = np.cumsum([0] + [p + n for p, n in SAMPLES]).astype(np.int32)
    offsets = np.cumsum([0] + [n for _, n in SAMPLES]).astype(np.int32)
    rows, total = int(offsets[-1]), sum(a.size for a in arrays)
    valid = torch.cat(d["valid"]).numpy().astype(np.uint8).tobytes()
    with open(sys.argv[1], "wb") as out:
        out.write(struct.pack("<16i", 0x4F50444C, llama.VOCAB, llama.HIDDEN, llama.INNER,
                              llama.LAYERS, llama.HEADS, llama.KV, llama.DIM, llama.MAX,
                              len(SAMPLES), int(starts[-1]), rows, total, len(CASES), 0, 0))
        out.write(struct.pack("<2d", llama.THETA, llama.EPS))
        out.write(starts.tobytes() + offsets.tobytes() + np.array(GROUPS, np.int32).tobytes())
        out.write(np.array(sum(d["tokens"], []), np.int32).tobytes())
        out.write(np.array(d["rewards"], np.float64).tobytes())
        out.write(valid + b"\0" * (-len(valid) % 4))
        for name in ("teacher", "old"):
            out.write(torch.cat(d[name]).numpy().astype(np.float32).tobytes())
        for a in arrays:
            out.write(a.tobytes())
        for case in CASES:
            out.write(make_case(case, arrays, d))


if __name__ == "__main__":
    main()
