#!/usr/bin/env python3
"""Talks to a running `opd serve` as a stranger would, through curl, and validates its answers.

    check_serve.py URL            e.g. http://127.0.0.1:30000

Shares no code with opd: requests go out by `curl --http2-prior-knowledge`, answers are checked
against docs/schema (with `jsonschema` where it is installed, else by the small validator below)
and against what was asked: rows, echoed ids, probabilities that sum to one, error cases.
Exit status: 0 fine, 1 a difference (printed), 77 curl is missing (a skip).
"""
import base64
import json
import math
import pathlib
import re
import shutil
import struct
import subprocess
import sys

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "schema"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


# ---- a validator for the keywords that our schemas use ----

def is_type(value, name):
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def problems(value, schema, root, at="$"):
    """Yields one line for each way in which the value breaks the schema."""
    if "$ref" in schema:
        yield from problems(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
        return
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            tries = [list(problems(value, option, root, at)) for option in schema[keyword]]
            fits = sum(not t for t in tries)
            if fits == 0 or (keyword == "oneOf" and fits > 1):
                yield f"{at}: {fits} forms of {keyword} fit: {tries}"
    if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(is_type(value, name) for name in names):
            yield f"{at}: {type(value).__name__}, expected {names}"
            return
    yield from size_problems(value, schema, at)
    if isinstance(value, dict):
        yield from object_problems(value, schema, root, at)
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        for i, item in enumerate(value):
            inner = prefix[i] if i < len(prefix) else schema.get("items", {})
            yield from problems(item, inner, root, f"{at}[{i}]")


def size_problems(value, schema, at):
    if is_type(value, "number"):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{at}: {value} is out of range"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at}: {len(value)} items"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0) or not re.search(schema.get("pattern", ""), value):
            yield f"{at}: {value!r} does not fit"


def object_problems(value, schema, root, at):
    known = schema.get("properties", {})
    for key in schema.get("required", []):
        if key not in value:
            yield f"{at}: {key} is missing"
    for key, item in value.items():
        if key in known:
            yield from problems(item, known[key], root, f"{at}.{key}")
        elif schema.get("additionalProperties") is False:
            yield f"{at}: {key} is not in the schema"


# ---- asking ----

class Failure(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failure(text)


def validate(value, name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    found = list(problems(value, schema, schema))
    expect(not found, f"{name}: {found[:3]}")
    try:
        import jsonschema
    except ImportError:
        return
    jsonschema.Draft202012Validator.check_schema(schema)
    found = [e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(value)]
    expect(not found, f"{name} (jsonschema): {found[:3]}")


def refuse_constant(name):
    raise Failure(f"{name} is no JSON")


def ask(url, path, body=None, method=None):
    """(status, HTTP version, parsed body or text)"""
    command = ["curl", "--silent", "--show-error", "--max-time", "30", "--http2-prior-knowledge",
               "--write-out", "\n%{http_code} %{http_version} %{content_type}", url + path]
    if method:
        command += ["--request", method]
    if body is not None:
        text = body if isinstance(body, str) else json.dumps(body)
        command += ["--header", "content-type: application/json", "--data-binary", "@-"]
    done = subprocess.run(command, input=text if body is not None else None, capture_output=True, text=True)
    expect(done.returncode == 0, f"{path}: curl: {done.stderr.strip()}")
    content, _, status = done.stdout.rpartition("\n")
    code, version, kind = (status.split(" ", 2) + [""])[:3]
    expect(version == "2", f"{path}: HTTP {version}, expected 2")
    if kind.startswith("application/json"):
        return int(code), json.loads(content, parse_constant=refuse_constant)
    return int(code), content


def generate(url, body):
    status, answer = ask(url, "/generate", body)
    expect(status == 200, f"/generate: {status} {answer}")
    validate(answer, "generate-answer")
    return answer


def refused(url, body, what, path="/generate", method=None, status_wanted=400):
    status, answer = ask(url, path, body, method)
    expect(status == status_wanted, f"{what}: status {status}, expected {status_wanted}: {answer}")
    validate(answer, "error-answer")


# ---- what is checked ----

def score_body(ids, start, k=0, **more):
    return {"input_ids": ids, "sampling_params": {"max_new_tokens": 0, "temperature": 1}, "return_logprob": True,
            "logprob_start_len": start, "top_logprobs_num": k, **more}


def check_rows(meta, ids, start):
    rows = meta["input_token_logprobs"]
    expect([r[1] for r in rows] == ids[start:], f"echoed ids {[r[1] for r in rows]}, sent {ids[start:]}")
    expect(rows[0][0] is None, "the first row has a log-prob")
    expect(all(r[0] is not None for r in rows[1:]), "a row without a log-prob")
    expect(meta["prompt_tokens"] == len(ids), "prompt_tokens")
    expect(meta["finish_reason"] == {"type": "length", "length": 0}, f"finish_reason {meta['finish_reason']}")
    return [r[0] for r in rows[1:]]


def check_scoring(url, vocab):
    ids = [(7 * i * i + i + 1) % vocab for i in range(20)]
    whole = generate(url, score_body(ids, 0, rid="check-serve-1."))
    expect(whole["meta_info"]["id"] == "check-serve-1.", "the rid does not come back")
    expect(whole["output_ids"] == [], "output without new tokens")
    all_rows = check_rows(whole["meta_info"], ids, 0)
    tail = check_rows(generate(url, score_body(ids, 12))["meta_info"], ids, 12)
    expect(all(abs(a - b) < 1e-5 for a, b in zip(all_rows[12:], tail)), "scores depend on logprob_start_len")
    last = generate(url, score_body(ids + [vocab - 1], 19))["meta_info"]["input_token_logprobs"][1][1]
    expect(last in (0, vocab - 1), f"the last id of the vocabulary comes back as {last}")


def decoded(meta, name, kind):
    """A base64 array of four-byte numbers; kind: f or i."""
    dtype = {"f": "float32", "i": "int32"}[kind]
    expect(meta[name + "_dtype"] == dtype, f"{name}: {meta[name + '_dtype']}")
    data = base64.b64decode(meta[name], validate=True)
    return list(struct.unpack(f"<{len(data) // 4}{kind}", data))


def check_flat(url, vocab):
    """The three forms of alternatives are the same numbers."""
    ids, k = [(3 * i + 1) % vocab for i in range(12)], min(vocab, 7)
    body = score_body(ids, 4, k, return_flat_raw_top_logprobs=True)
    nested = generate(url, score_body(ids, 4, k))["meta_info"]["input_top_logprobs"]
    expect(nested[0] is None and len(nested) == 8, f"nested: {nested}")
    flat = generate(url, body)["meta_info"]
    b64 = generate(url, {**body, "return_flat_raw_top_logprobs_b64": True})["meta_info"]
    for meta in (flat, b64):
        expect("input_top_logprobs" not in meta, "flat and nested alternatives")
        expect(meta["input_top_logprobs_shape"] == [7, k], f"shape {meta['input_top_logprobs_shape']}")
        expect(meta["input_top_logprobs_null_prefix"] == 1, "null prefix")
        check_rows(meta, ids, 4)
    wanted = [e for row in nested[1:] for e in row]
    expect(flat["input_top_logprobs_idx_flat"] == [e[1] for e in wanted], "flat ids")
    expect(flat["input_top_logprobs_val_flat"] == [e[0] for e in wanted], "flat log-probs")
    expect(decoded(b64, "input_top_logprobs_idx_flat_b64", "i") == [e[1] for e in wanted], "base64 ids")
    single = [struct.unpack("<f", struct.pack("<f", e[0]))[0] for e in wanted]
    expect(decoded(b64, "input_top_logprobs_val_flat_b64", "f") == single, "base64 log-probs")
    pair = generate(url, {**body, "input_ids": [ids, ids[:6]], "return_flat_raw_top_logprobs_b64": True})
    expect([a["meta_info"]["input_top_logprobs_shape"] for a in pair] == [[7, k], [1, k]], "shapes of a batch")
    plain = generate(url, {**body, "top_logprobs_num": 0})["meta_info"]
    expect(not any(name.startswith("input_top") for name in plain), "alternatives that nobody asked for")
    refused(url, {**score_body(ids, 4, k), "return_flat_raw_top_logprobs_b64": True}, "base64 without flat")


def check_top(url, vocab):
    ids, k = [5 % vocab, 6 % vocab, 7 % vocab], min(vocab, 1000)
    meta = generate(url, score_body(ids, 0, k))["meta_info"]
    top = meta["input_top_logprobs"]
    expect(len(top) == len(ids) and top[0] is None, "input_top_logprobs: rows")
    for row, (logp, token, _) in zip(top[1:], meta["input_token_logprobs"][1:]):
        expect(len(row) == k and len({r[1] for r in row}) == k, "a row without k different ids")
        expect(all(a[0] >= b[0] for a, b in zip(row, row[1:])), "a row that is not best first")
        if k == vocab:
            total = sum(math.exp(r[0]) for r in row)
            expect(abs(total - 1) < 1e-4, f"probabilities sum to {total}")
            same = next(r[0] for r in row if r[1] == token)
            expect(abs(same - logp) < 1e-5, "the token's own log-prob differs in the top row")


def check_generation(url, vocab):
    params = {"max_new_tokens": 6, "temperature": 0, "ignore_eos": True}
    body = {"input_ids": [1 % vocab, 3 % vocab], "sampling_params": params, "return_logprob": True}
    first, second = generate(url, body), generate(url, body)
    expect(first["output_ids"] == second["output_ids"], "greedy decoding gives two different answers")
    meta = first["meta_info"]
    expect(len(first["output_ids"]) == 6 and meta["completion_tokens"] == 6, "six tokens were asked for")
    expect(meta["finish_reason"] == {"type": "length", "length": 6}, f"finish_reason {meta['finish_reason']}")
    expect([r[1] for r in meta["output_token_logprobs"]] == first["output_ids"], "output log-probs of other ids")
    expect(meta["output_token_logprobs_length"] == 6, "output_token_logprobs_length")
    expect(meta["weight_versions"] == [{"version": meta["weight_version"], "start": 0, "end": 6}], "weight_versions")
    # Greedy at temperature 0: the scores of its own tokens must be the best alternatives.
    ids = body["input_ids"] + first["output_ids"]
    scored = generate(url, score_body(ids, 1, 1))["meta_info"]["input_top_logprobs"][1:]
    expect([row[0][1] for row in scored] == first["output_ids"], "greedy tokens are not the most likely ones")
    stop = generate(url, {**body, "sampling_params": {**params, "stop_token_ids": [first["output_ids"][0]]}})
    expect(stop["meta_info"]["finish_reason"] == {"type": "stop", "matched": first["output_ids"][0]}, "stop_token_ids")
    text = generate(url, {"text": "12+34", "sampling_params": {"max_new_tokens": 2, "temperature": 0}})
    expect("text" in text, "no text in the answer to a text")


def check_batch(url, vocab):
    pair = [[1 % vocab, 2 % vocab, 3 % vocab], [4 % vocab, 5 % vocab]]
    answers = generate(url, score_body(pair, 0, rid="batch"))
    expect(isinstance(answers, list) and len(answers) == 2, "a batch is answered by an array")
    for answer, ids in zip(answers, pair):
        check_rows(answer["meta_info"], ids, 0)
    expect([a["meta_info"]["id"] for a in answers] == ["batch_0", "batch_1"], "rids of a batch")


def check_lists(url, vocab):
    """A batch whose sequences are asked for different things."""
    pair = [[1 % vocab, 2 % vocab, 3 % vocab], [4 % vocab, 5 % vocab]]
    body = {"input_ids": pair, "return_logprob": [True, False], "logprob_start_len": [1, -1], "top_logprobs_num": [2, 0],
            "token_ids_logprob": [None, None], "rid": ["one.", "two."],
            "sampling_params": [{"max_new_tokens": 0}, {"max_new_tokens": 3, "temperature": 0, "ignore_eos": True}]}
    first, second = generate(url, body)
    check_rows(first["meta_info"], pair[0], 1)
    expect([len(row or []) for row in first["meta_info"]["input_top_logprobs"]] == [0, 2], "alternatives of the first")
    expect(len(second["output_ids"]) == 3 and "input_token_logprobs" not in second["meta_info"], f"the second: {second}")
    expect([first["meta_info"]["id"], second["meta_info"]["id"]] == ["one.", "two."], "rids of a list")
    refused(url, {**body, "top_logprobs_num": [2]}, "a list that is too short")
    refused(url, {**body, "rid": ["one.", "one."]}, "a rid twice")
    refused(url, {**body, "input_ids": [pair[0], []]}, "an empty sequence in a batch")
    refused(url, {**body, "logprob_start_len": [4, -1]}, "logprob_start_len behind the end of one")
    refused(url, {**body, "token_ids_logprob": [[1], None]}, "token_ids_logprob")


def check_errors(url, info):
    vocab, small = info["vocab_size"], {"max_new_tokens": 0}
    refused(url, "{", "broken JSON")
    refused(url, "[1, 2]", "an array as body")
    refused(url, '{"input_ids": [NaN]}', "NaN")
    refused(url, {"sampling_params": small}, "neither text nor ids")
    refused(url, {"input_ids": [], "sampling_params": small}, "empty input_ids")
    refused(url, {"input_ids": [vocab], "sampling_params": small}, "an id outside the vocabulary")
    refused(url, {"input_ids": [-1], "sampling_params": small}, "a negative id")
    refused(url, {"input_ids": [1], "text": "a", "sampling_params": small}, "text and ids")
    refused(url, {"input_ids": [1], "sampling_params": {"max_new_tokens": -1}}, "max_new_tokens -1")
    refused(url, {"input_ids": [1], "sampling_params": {"temperature": -1}}, "temperature -1")
    refused(url, {"input_ids": [1], "sampling_params": {"top_p": 2}}, "top_p 2")
    refused(url, score_body([1, 2], 3), "logprob_start_len behind the end")
    refused(url, score_body([1, 2], 0, -1), "top_logprobs_num -1")
    if info["context_length"]:
        refused(url, {"input_ids": [1] * info["context_length"], "sampling_params": small}, "too long an input")
    refused(url, None, "an unknown path", "/nothing", status_wanted=404)
    refused(url, None, "GET /generate", "/generate", "GET", 405)


def main():
    if shutil.which("curl") is None:
        print("SKIP: curl is missing")
        return 77
    url = sys.argv[1].rstrip("/")
    try:
        status, _ = ask(url, "/health")
        expect(status == 200, f"/health: {status}")
        status, info = ask(url, "/model_info")
        expect(status == 200, f"/model_info: {status}")
        validate(info, "model-info")
        for check in (check_scoring, check_top, check_flat, check_generation, check_batch, check_lists):
            check(url, info["vocab_size"])
        check_errors(url, info)
    except (Failure, json.JSONDecodeError, KeyError, TypeError) as error:
        print(f"FAIL: {type(error).__name__}: {error}")
        return 1
    print("serve: scoring, alternatives, generation, batches and errors as the schemas say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
