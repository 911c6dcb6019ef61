#!/usr/bin/env python3
"""Makes tests/golden/model.bin: logits, loss and every gradient of a small Llama in float64.

The forward is written out by hand (no transformers), from float32 weights read as float64:
RMSNorm with eps inside the root, rotate-half RoPE, grouped-query attention, SwiGLU, own head.
    /usr/bin/python3 tests/golden/make_model.py tests/golden/model.bin      (needs PyTorch)

Format, little endian: int32 header[16] = {magic 0x4f504447, vocab, hidden, inner, layers, heads,
kv_heads, head_dim, max_position, sequences, tokens, rows, tied, parameters, 0, 0}; float64
{rope_theta, rms_eps}; int32 seq_start[sequences+1]; int32 ids[tokens]; per row int32 row,
target; float32 inverse temperature[rows], dlogp[rows], dentropy[rows]; float32 params; then
float64 results: logits[tokens, vocab], logp[rows], entropy[rows], gradients[parameters] of
sum dlogp*logp + dentropy*entropy. Two models follow each other: an own head, then a tied one.
"""
import struct
import sys

import numpy as np
import torch

THETA, EPS = 10000.0, 1e-5
VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV, DIM, MAX = 37, 24, 40, 2, 4, 2, 6, 32
STARTS = [0, 9, 10, 27]


def shapes(tied):
    yield (VOCAB, HIDDEN)
    for _ in range(LAYERS):
        yield (HIDDEN,)
        yield from [(HEADS * DIM, HIDDEN), (KV * DIM, HIDDEN), (KV * DIM, HIDDEN)]
        yield (HIDDEN, HEADS * DIM)
        yield (HIDDEN,)
        yield from [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)]
    yield (HIDDEN,)
    if not tied:
        yield (VOCAB, HIDDEN)


def norm(x, w):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * w


def rotate(x):  # [t, heads, dim]
    half = DIM // 2
    freq = THETA ** (-torch.arange(half, dtype=torch.float64) * 2 / DIM)
    angle = torch.arange(x.shape[0], dtype=torch.float64)[:, None] * freq
    cos = torch.cat([angle.cos()] * 2, -1)[:, None]
    sin = torch.cat([angle.sin()] * 2, -1)[:, None]
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


def forward(params, ids, tied):
    it = iter(params)
    embed = next(it)
    x = embed[ids]
    t = len(ids)
    mask = torch.full((t, t), float("-inf"), dtype=torch.float64).triu(1)
    for _ in range(LAYERS):
        n1, wq, wk, wv, wo, n2, wg, wu, wd = (next(it) for _ in range(9))
        h = norm(x, n1)
        q = rotate((h @ wq.T).view(t, HEADS, DIM)).transpose(0, 1)
        k = rotate((h @ wk.T).view(t, KV, DIM)).repeat_interleave(HEADS // KV, 1).transpose(0, 1)
        v = (h @ wv.T).view(t, KV, DIM).repeat_interleave(HEADS // KV, 1).transpose(0, 1)
        p = torch.softmax(q @ k.transpose(1, 2) / DIM ** 0.5 + mask, -1)
        x = x + (p @ v).transpose(0, 1).reshape(t, HEADS * DIM) @ wo.T
        h = norm(x, n2)
        x = x + (torch.nn.functional.silu(h @ wg.T) * (h @ wu.T)) @ wd.T
    x = norm(x, next(it))
    return x @ (embed if tied else next(it)).T


def write_model(out, tied, seed):
    rng = np.random.default_rng(seed)
    arrays = []
    for shape in shapes(tied):
        a = rng.standard_normal(shape) * (0.25 if len(shape) == 2 else 0.1)
        arrays.append((a + (0 if len(shape) == 2 else 1)).astype(np.float32))
    params = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    ids = rng.integers(0, VOCAB, STARTS[-1]).astype(np.int32)
    rows = np.array([0, 1, 3, 7, 8, 9, 10, 11, 18, 25, 26], dtype=np.int32)
    targets = rng.integers(0, VOCAB, len(rows)).astype(np.int32)
    inv_t = np.where(np.arange(len(rows)) % 3 == 0, 1.0, 1.25).astype(np.float32)
    dlogp = rng.standard_normal(len(rows)).astype(np.float32)
    dent = (rng.standard_normal(len(rows)) * 0.3).astype(np.float32)
    logits = torch.cat([forward(params, torch.tensor(ids[a:b].astype(np.int64)), tied)
                        for a, b in zip(STARTS, STARTS[1:])])
    z = logits[torch.tensor(rows.astype(np.int64))] * torch.tensor(inv_t.astype(np.float64))[:, None]
    logs = torch.log_softmax(z, -1)
    logp = logs[torch.arange(len(rows)), torch.tensor(targets.astype(np.int64))]
    entropy = -(logs.exp() * logs).sum(-1)
    loss = (torch.tensor(dlogp.astype(np.float64)) * logp
            + torch.tensor(dent.astype(np.float64)) * entropy).sum()
    loss.backward()
    total = sum(a.size for a in arrays)
    out.write(struct.pack("<16i", 0x4F504447, VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV, DIM, MAX,
                          len(STARTS) - 1, len(ids), len(rows), int(tied), total, 0, 0))
    out.write(struct.pack("<2d", THETA, EPS))
    out.write(np.array(STARTS, dtype=np.int32).tobytes() + ids.tobytes())
    out.write(np.stack([rows, targets], 1).tobytes() + inv_t.tobytes() + dlogp.tobytes())
    out.write(dent.tobytes())
    for a in arrays:
        out.write(a.tobytes())
    for x in (logits, logp, entropy):
        out.write(x.detach().numpy().tobytes())
    for p in params:
        out.write(p.grad.numpy().tobytes())


def main():
    with open(sys.argv[1], "wb") as out:
        write_model(out, False, 1)
        write_model(out, True, 2)


if __name__ == "__main__":
    main()
