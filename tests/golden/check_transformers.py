#!/usr/bin/env python3
"""Loads an exported model in `transformers` and compares its log-probs with opd's.

    check_transformers.py DIR DUMP

DUMP is what `export_model dump DIR DUMP` wrote. Prints the largest difference of any
log-prob and the relative error over all; fails above 1e-4. Too heavy for CI. Works with
Debian 12's python3-torch (1.13) and transformers 4.38.2:

    apt-get install python3-torch python3-venv
    /usr/bin/python3 -m venv --system-site-packages /tmp/hf
    /tmp/hf/bin/pip install --no-deps transformers==4.38.2 tokenizers==0.15.2 \\
        safetensors==0.4.5 huggingface_hub==0.20.3 numpy==1.26.4 filelock fsspec packaging \\
        pyyaml regex requests tqdm typing_extensions certifi charset-normalizer idna urllib3
    build/debug/tests/e2e/export_model dump DIR DUMP
    /tmp/hf/bin/python tests/golden/check_transformers.py DIR DUMP
"""
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4


def main():
    folder, dump = sys.argv[1], pathlib.Path(sys.argv[2])
    ours = json.loads((dump / "logprobs.json").read_text())
    model, report = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
    complaints = [k for k, v in report.items() if v and not (k == "missing_keys" and v == ["lm_head.weight"])]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrong = [c["text"] for c in json.loads((dump / "texts.json").read_text()) if tokenizer(c["text"])["input_ids"] != c["ids"]]
    with torch.no_grad():
        logits = model(torch.tensor([ours["ids"]])).logits[0].double()
    theirs = torch.log_softmax(logits, dim=-1)
    mine = torch.tensor(ours["logprobs"], dtype=torch.float64)
    largest = (theirs - mine).abs().max().item()
    relative = ((theirs - mine).norm() / theirs.norm()).item()
    print(f"{len(ours['ids'])} tokens x {mine.shape[1]} ids: largest difference {largest:.3g}, relative error {relative:.3g}")
    print(f"loading complaints: {complaints or 'none'}; texts with other ids: {wrong or 'none'}; "
          f"bos/eos/pad {tokenizer.bos_token_id}/{tokenizer.eos_token_id}/{tokenizer.pad_token_id}")
    return 1 if relative > TOLERANCE or complaints or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
