#!/usr/bin/env python3
"""Who `opd serve` answers, and how it ends: keys, and the orderly end after a signal."""
import http.client
import json
import signal
import subprocess
import time

import e2e
from e2e import expect
from faults import serve, teacher_model
from serve import need

KEY = "sk-a.very+secret=one"
BODY = {"input_ids": [1, 5, 9], "sampling_params": {"max_new_tokens": 4, "temperature": 0, "ignore_eos": True}}


def curl(url, *words):
    """(status, head and body)"""
    done = subprocess.run(["curl", "--silent", "--show-error", "--include", "--max-time", "30", "--write-out", "\n%{http_code}",
                           *words, url], capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, f"{words}: {done.stderr}")
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text.lower()


def asks(work, url):
    """A client of each protocol that has asked and waits."""
    body = work.write("body.json", BODY)
    common = ["curl", "--silent", "--max-time", "60", "--data-binary", f"@{body}", "--write-out", "\n%{http_code}"]
    clients = [subprocess.Popen([*common, version, f"{url}/generate"], stdout=subprocess.PIPE, text=True)
               for version in ("--http2-prior-knowledge", "--http1.1")]
    time.sleep(0.5)
    return clients


def port_of(url):
    return int(url.rsplit(":", 1)[1])


# ---- keys ----

def check_key(work, *args, env=None):
    need("curl")
    process, url = work.serve("--model", teacher_model(work), "--log-level", "debug", *args, env=env)
    large = work.write("large.json", {"input_ids": [1] * 400000})
    for version in ("--http2-prior-knowledge", "--http1.1"):
        for words in ([], ["-H", "authorization: Bearer sk-another"], ["-H", f"authorization: {KEY}"],
                      ["-H", f"authorization: Bearer {KEY}x"], ["-H", f"authorization: Bearer {KEY[:-1]}"],
                      # answered early, which this curl calls an error of HTTP/2
                      *([["--data-binary", f"@{large}"]] if version == "--http1.1" else [])):
            for path in ("/generate", "/model_info", "/abort_request", "/nothing"):
                status, text = curl(url + path, version, *words)
                expect(status == 401 and text.endswith('{"error":"unauthorized"}'), f"{path} {words}: {status} {text}")
                expect("www-authenticate: bearer" in text, text)
        for path in ("/health", "/health_generate"):
            expect(curl(url + path, version)[0] == 200, f"{path} wants a key")
        status, text = curl(f"{url}/generate", version, "-H", f"Authorization: Bearer {KEY}", "--data-binary", json.dumps(BODY))
        expect(status == 200, text)
    done = e2e.stop(process).expect(0)
    expect(KEY not in done.err + done.out, "the key was logged")


def case_key_of_a_file(work):
    check_key(work, "--api-key-file", work.write("key", KEY + "\n"))


def case_key_of_the_environment(work):
    check_key(work, "--api-key-env", "SERVE_KEY", env={"SERVE_KEY": KEY})


def case_no_key_to_be_had(work):
    model = teacher_model(work)
    for args, why in ((["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
                      (["--api-key-file", "/nonexistent"], "/nonexistent"),
                      (["--api-key-file", work.write("key", "two words")], "one word"),
                      (["--api-key-file", "/a", "--api-key-env", "B"], "not both")):
        work.start("serve", "--model", model, "--port", "0", *args).wait().expect(2, why)


# ---- the end ----

def case_drain(work):
    """What is under way is finished, what is new refused, kept connections are told, new ones not taken."""
    need("curl")
    process, url = serve(work, teacher_model(work), '{"do": "delay", "delay_ms": 3000}')
    kept = http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=30)
    kept.request("GET", "/health")
    expect(kept.getresponse().read() == b"", "not healthy before")
    waiting = asks(work, url)
    process.popen.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    kept.request("GET", "/health")
    answer = kept.getresponse()
    expect(answer.status == 503 and answer.getheader("retry-after") == "1" and answer.getheader("connection") == "close",
           f"/health while draining: {answer.status} {answer.getheaders()}")
    expect(b"stopping" in answer.read(), "no reason")
    refused = subprocess.run(["curl", "--silent", f"{url}/health"], timeout=30)
    expect(refused.returncode == 7, f"a new connection while draining: curl ended with {refused.returncode}")
    for client in waiting:
        text, _, status = client.communicate(timeout=60)[0].rpartition("\n")
        expect(status == "200" and len(json.loads(text)["output_ids"]) == 4, f"under way: {status} {text}")
    process.wait().expect(0)


def case_goaway_in_two_steps(work):
    need("nghttp")
    process, url = serve(work, teacher_model(work), '{"do": "delay", "delay_ms": 2000}')
    body = work.write("body.json", BODY)
    client = subprocess.Popen(["nghttp", "--verbose", "-d", body, f"{url}/generate"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.7)
    process.popen.send_signal(signal.SIGTERM)
    told = client.communicate(timeout=60)[0]
    first, second = told.find("last_stream_id=2147483647"), told.rfind("(last_stream_id=")
    expect(0 < first < second, f"not two GOAWAY frames: {told}")
    expect(":status: 200" in told, told)
    process.wait().expect(0)


def case_drain_has_an_end(work):
    need("curl")
    process, url = serve(work, teacher_model(work), '{"do": "hang"}', "--drain-s", "1")
    waiting = asks(work, url)
    process.popen.send_signal(signal.SIGTERM)
    process.wait().expect(0)
    for client in waiting:
        expect(client.communicate(timeout=60)[0].endswith("\n000"), "an answer from nowhere")


def case_a_second_signal_ends_at_once(work):
    need("curl")
    process, url = serve(work, teacher_model(work), '{"do": "hang"}', "--drain-s", "3600")
    waiting = asks(work, url)
    process.popen.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    expect(process.running(), "it does not wait for requests")
    process.popen.send_signal(signal.SIGTERM)
    process.wait(20).expect(130, "stopped at once by signal 15")
    for client in waiting:
        client.communicate(timeout=60)


if __name__ == "__main__":
    e2e.main(globals())
