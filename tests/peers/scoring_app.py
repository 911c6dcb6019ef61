"""A scoring server in the shapes of SGLang, for servers of others (uvicorn, hypercorn) to run.

No model: the log-prob of a token is a hash of all ids up to it, as the float32 that a model would give,
so that a test can tell each single score of thousands (asgi.c has the same hash). Every other answer goes
out without content-length.

    POST /generate   scores, with top_logprobs_num alternatives in the form that is asked for
    GET /model_info
    POST /digest     {"bytes", "adler32"} of any body
    GET /seen        what came so far: requests by "METHOD PATH VERSION", the names of all headers

SCORING_SLOW="COUNT SECONDS": the first COUNT scorings of more than PROBE tokens take so long. SCORING_FORM=nested, flat or b64: the form
of the alternatives whatever is asked for, as other versions and gateways have it.
"""
import array
import asyncio
import base64
import collections
import json
import os
import sys
import zlib

PROBE = 4
HASH_START, HASH_PRIME = 2166136261, 16777619  # FNV-1a's
slow_left, slow_s = (float(word) for word in os.environ.get("SCORING_SLOW", "0 0").split())
form = os.environ.get("SCORING_FORM", "")
requests, headers_seen = collections.Counter(), set()


def float32(values):
    return array.array("f", values)


def little_endian(values):
    if sys.byteorder != "little":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


def digests(ids):
    """The hash of the ids up to each."""
    found, digest = [], HASH_START
    for token in ids:
        digest = ((digest ^ token) * HASH_PRIME) & 0xFFFFFFFF
        found.append(digest)
    return found


def alternatives(found, k, request):
    """Members of meta_info: rows of the k likeliest, best first, all but the first position's."""
    ids = [[(digest + rank * 7919) % 150000 for rank in range(k)] for digest in found]
    logps = [float32(-(digest % 65536) / 4096 - rank / 3 for rank in range(k)) for digest in found]
    kind = form or ("b64" if request.get("return_flat_raw_top_logprobs_b64") else
                    "flat" if request.get("return_flat_raw_top_logprobs") else "nested")
    if kind == "nested":
        rows = [[[logp, token, None] for logp, token in zip(*row)] for row in zip(logps, ids)]
        return {"input_top_logprobs": [None] + rows}
    name = "input_top_logprobs"
    told = {f"{name}_shape": [len(ids), k], f"{name}_null_prefix": 1}
    values, tokens = float32(v for row in logps for v in row), array.array("i", (t for row in ids for t in row))
    if kind == "flat":
        return {f"{name}_val_flat": values.tolist(), f"{name}_idx_flat": tokens.tolist(), **told}
    return {f"{name}_val_flat_b64": little_endian(values), f"{name}_idx_flat_b64": little_endian(tokens),
            f"{name}_val_flat_b64_dtype": "float32", f"{name}_idx_flat_b64_dtype": "int32", **told}


def generate(request):
    ids, start = request["input_ids"], request["logprob_start_len"]
    found = digests(ids)[start + 1:]
    logps = float32(-digest / 2 ** 28 for digest in found)
    rows = [[None, ids[start], None]] + [[logp, token, None] for logp, token in zip(logps, ids[start + 1:])]
    k = request.get("top_logprobs_num", 0)
    return {"text": "", "output_ids": [], "meta_info": {
        "id": request.get("rid"), "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": len(ids),
        "completion_tokens": 0, "cached_tokens": 0, "weight_version": "default", "input_token_logprobs": rows,
        **(alternatives(found, k, request) if k > 0 else {}), "output_token_logprobs": []}}


async def body_of(receive):
    parts, more = [], True
    while more:
        event = await receive()
        parts.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(parts)


async def answer_to(scope, body):
    global slow_left
    if scope["path"] == "/generate" and scope["method"] == "POST":
        request = json.loads(body)
        if slow_left > 0 and len(request["input_ids"]) > PROBE:
            slow_left -= 1
            await asyncio.sleep(slow_s)
        return 200, generate(request)
    if scope["path"] == "/digest":
        return 200, {"bytes": len(body), "adler32": zlib.adler32(body)}
    if scope["path"] == "/seen":
        return 200, {"requests": requests, "headers": sorted(headers_seen)}
    if scope["path"] == "/model_info":
        return 200, {"model_path": "hash"}
    return 404, {"error": {"message": "no such path"}}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    requests[f"{scope['method']} {scope['path']} {scope['http_version']}"] += 1
    headers_seen.update(name.decode() for name, _ in scope["headers"])
    status, answer = await answer_to(scope, await body_of(receive))
    data = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json")]
    if len(data) % 2 == 0:
        headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data[:1000], "more_body": True})
    await send({"type": "http.response.body", "body": data[1000:]})
