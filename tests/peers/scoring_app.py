"""A scoring server in the shapes of SGLang, for servers of others (uvicorn, hypercorn) to run.

No model: the log-prob of a token is a hash of all ids up to it, an exact binary fraction, so that a
test can tell each single score of thousands. Every other answer goes out without content-length.
"""
import json


def scores(ids, start):
    """Rows [logprob, id, null] from position start on; the first has no score."""
    rows, digest = [], 2166136261
    for position, token in enumerate(ids):
        digest = ((digest ^ token) * 16777619) & 0xFFFFFFFF
        if position >= start:
            rows.append([None if position == start else -(digest >> 16) / 4096, token, None])
    return rows


def generate(request):
    ids = request["input_ids"]
    return {"text": "", "output_ids": [], "meta_info": {
        "id": request.get("rid"), "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": len(ids),
        "completion_tokens": 0, "cached_tokens": 0, "weight_version": "default",
        "input_token_logprobs": scores(ids, request["logprob_start_len"]), "output_token_logprobs": []}}


async def body_of(receive):
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    body = await body_of(receive)
    status, answer = 200, {"model_path": "hash", "http": scope["http_version"]}
    if scope["path"] == "/generate" and scope["method"] == "POST":
        answer = generate(json.loads(body))
    elif scope["path"] != "/model_info":
        status, answer = 404, {"error": {"message": "no such path"}}
    data = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json")]
    if len(data) % 2 == 0:
        headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data[:1000], "more_body": True})
    await send({"type": "http.response.body", "body": data[1000:]})
