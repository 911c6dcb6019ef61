#!/usr/bin/env python3
"""Reads a checkpoint of opd with readers that share no code with it.

    check_checkpoint.py DIR [DUMP]

1. model.safetensors is parsed here from its bytes (struct, json), and by the `safetensors`
   package; names, shapes, dtypes and every byte must agree.
2. The names and shapes are those that config.json asks of a LlamaForCausalLM.
3. With DUMP (from `export_model dump`), every byte equals what opd holds in memory.
Exit status: 0 fine, 1 a difference (printed), 77 a package is missing (a skip).
"""
import json
import pathlib
import struct
import sys

try:
    import numpy as np
    from safetensors import safe_open
except ImportError as error:
    print(f"SKIP: {error}")
    sys.exit(77)


def parse(path):
    """{name: (shape, bytes)} and the metadata, from the bytes alone."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    body = data[8 + size :]
    tensors, covered = {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert entry["dtype"] == "F32", f"{name}: dtype {entry['dtype']}"
        assert end - begin == 4 * int(np.prod(entry["shape"], dtype=np.int64)), f"{name}: size"
        tensors[name] = (tuple(entry["shape"]), body[begin:end])
        covered += end - begin
    assert covered == len(body), f"{len(body) - covered} bytes belong to no tensor"
    assert (8 + size) % 8 == 0, "the data are not aligned to 8 bytes"
    return tensors, metadata


def expected_shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": (hidden,),
            at + "post_attention_layernorm.weight": (hidden,),
            at + "self_attn.q_proj.weight": (q, hidden),
            at + "self_attn.k_proj.weight": (kv, hidden),
            at + "self_attn.v_proj.weight": (kv, hidden),
            at + "self_attn.o_proj.weight": (hidden, q),
            at + "mlp.gate_proj.weight": (inner, hidden),
            at + "mlp.up_proj.weight": (inner, hidden),
            at + "mlp.down_proj.weight": (hidden, inner),
        }
    return shapes


def check_package(path, tensors):
    with safe_open(str(path), framework="np") as file:
        names = set(file.keys())
        assert names == set(tensors), f"names differ: {names ^ set(tensors)}"
        for name in names:
            array = file.get_tensor(name)
            shape, raw = tensors[name]
            assert array.dtype == np.float32 and array.shape == shape, f"{name}: {array.dtype} {array.shape}"
            assert array.tobytes() == raw, f"{name}: bytes differ"


def check_dump(dump, tensors):
    params = (dump / "params.bin").read_bytes()
    table = json.loads((dump / "tensors.json").read_text())
    assert {t["name"] for t in table} == set(tensors), "names differ from opd's"
    for t in table:
        shape, raw = tensors[t["name"]]
        begin = 4 * t["offset"]
        assert tuple(t["shape"]) == shape, f"{t['name']}: shape differs from opd's"
        assert params[begin : begin + len(raw)] == raw, f"{t['name']}: bytes differ from opd's"


def main():
    folder = pathlib.Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"], config["architectures"]
    tensors, metadata = parse(folder / "model.safetensors")
    assert metadata.get("format") == "pt", f"metadata {metadata}"
    shapes = {name: shape for name, (shape, _) in tensors.items()}
    wanted = expected_shapes(config)
    assert shapes == wanted, f"against config.json: {set(shapes.items()) ^ set(wanted.items())}"
    check_package(folder / "model.safetensors", tensors)
    if len(sys.argv) > 2:
        check_dump(pathlib.Path(sys.argv[2]), tensors)
    for name, (_, raw) in tensors.items():
        assert np.isfinite(np.frombuffer(raw, dtype="<f4")).all(), f"{name}: not finite"
    print(f"checkpoint: {len(tensors)} tensors, {sum(len(r) for _, r in tensors.values())} bytes, bit for bit")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"FAIL: {error}")
        sys.exit(1)
