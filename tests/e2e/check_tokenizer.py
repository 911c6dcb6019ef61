#!/usr/bin/env python3
"""Compares opd's tokenizer with the `tokenizers` package.

    check_tokenizer.py DIR TEXTS.json

TEXTS.json is what `export_model dump` wrote: [{"text", "ids", "decoded"}]. `tokenizers` opens
DIR/tokenizer.json and must give the same ids, and the same text for them without specials.
Exit status: 0 fine, 1 a difference (printed), 77 a package is missing (a skip).
"""
import json
import pathlib
import sys

try:
    from tokenizers import Tokenizer
except ImportError as error:
    print(f"SKIP: {error}")
    sys.exit(77)


def main():
    folder = pathlib.Path(sys.argv[1])
    cases = json.loads(pathlib.Path(sys.argv[2]).read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    failures = []
    if tokenizer.get_vocab_size(with_added_tokens=True) != config["vocab_size"]:
        failures.append(f"vocabulary of {tokenizer.get_vocab_size()}, config.json says {config['vocab_size']}")
    names = json.loads((folder / "special_tokens_map.json").read_text())
    for key in ("bos", "eos", "pad"):
        if config[f"{key}_token_id"] is not None and tokenizer.token_to_id(names[f"{key}_token"]) != config[f"{key}_token_id"]:
            failures.append(f"{key}: config.json and the tokenizer differ")
    for case in cases:
        ids = tokenizer.encode(case["text"]).ids
        if ids != case["ids"]:
            failures.append(f"{case['text']!r}: tokenizers {ids}, opd {case['ids']}")
        decoded = tokenizer.decode(case["ids"], skip_special_tokens=True)
        if decoded != case["decoded"]:
            failures.append(f"{case['text']!r}: tokenizers decodes {decoded!r}, opd {case['decoded']!r}")
    print("\n".join(failures) or f"tokenizer: {len(cases)} texts, identical ids")
    return 1 if failures or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
