#!/usr/bin/env python3
"""`opd serve` as strangers meet it: curl, nghttp, HTTP/1.1, many at once, signals."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import e2e
from e2e import expect

HERE = pathlib.Path(__file__).resolve().parent


def trained(work):
    config = e2e.recipe()
    config["stages"] = config["stages"][:3]
    return e2e.checkpoint(work.run(config, "r"), "student")


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            raise e2e.Skip(f"{program} is missing")


def output(*words, code=0):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60)
    expect(done.returncode == code, f"{words}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def curl(url, *words):
    return output("curl", "--silent", "--show-error", "--max-time", "30", "--http2-prior-knowledge", url, *words)


def case_strangers(work):
    """A trained checkpoint behind the server: schemas, scores, batches, errors (check_serve.py)."""
    need("curl", "nghttp")
    process, url = work.serve("--model", trained(work))
    print(output(sys.executable, HERE / "check_serve.py", url).strip())
    info = json.loads(output("nghttp", f"{url}/model_info"))
    expect(info["vocab_size"] == 259 and info["eos_token_id"] == 2, str(info))
    body = work.write("body.json", {"text": "1+1=", "sampling_params": {"max_new_tokens": 3, "temperature": 0}})
    by_nghttp = json.loads(output("nghttp", "-d", body, "-H", "content-type: application/json", f"{url}/generate"))
    by_curl = json.loads(curl(f"{url}/generate", "--data-binary", f"@{body}", "--header", "content-type: application/json"))
    expect(by_nghttp["output_ids"] == by_curl["output_ids"], "curl and nghttp get different answers")
    done = e2e.stop(process).expect(0)
    expect(not done.err, done.err)


def case_http1(work):
    """Plain curl: the same answers over HTTP/1.1, one connection for all, and what is no HTTP."""
    need("curl")
    process, url = work.serve("--model", trained(work))
    body = work.write("body.json", {"text": "1+1=", "sampling_params": {"max_new_tokens": 3, "temperature": 0}})
    http2 = json.loads(curl(f"{url}/generate", "--data-binary", f"@{body}"))
    again = ["--next", "--silent", "--show-error", "--data-binary", f"@{body}", "--output", f"{body}.out",
             "--write-out", "%{http_version} %{response_code} %{num_connects},", f"{url}/generate"]
    told = output("curl", "--max-time", "60", *again[1:], *again, *again)
    expect(told == "1.1 200 1,1.1 200 0,1.1 200 0,", told)
    http1 = json.loads(pathlib.Path(f"{body}.out").read_text())
    expect(http1["output_ids"] == http2["output_ids"], f"{http1} {http2}")
    answer = output("curl", "--silent", "--http1.1", "--include", "--max-time", "30", f"{url}/nothing")
    expect(answer.startswith("HTTP/1.1 404 "), answer)
    expect(curl(f"{url}/health") == "", "the server is not healthy after HTTP/1.1")
    e2e.stop(process).expect(0)


def case_garbage_does_not_hurt(work):
    need("curl")
    import socket
    process, url = work.serve("--model", trained(work))
    port = int(url.rsplit(":", 1)[1])
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for data in (b"", b"\x16\x03\x01\x02\x00" * 40, preface[:10], preface + b"\xff" * 64,
                 preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\xff\xff\x01\x05\x00\x00\x00\x01"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
            connection.settimeout(0.2)
            try:
                connection.recv(4096)
            except OSError:
                pass
    expect(curl(f"{url}/health") == "", "the server is not healthy after garbage")
    e2e.stop(process).expect(0)


def case_many_at_once(work):
    """Forty requests over two servers' worth of slots: each answer is that of the lone request."""
    need("curl")
    process, url = work.serve("--model", trained(work), "--max-sequences", "4", "--threads", "2")
    def ask(i):
        return {"input_ids": [1, 5 + i, 9 + i], "sampling_params": {"max_new_tokens": 6, "temperature": 0}}
    files = [work.write(f"body-{i}.json", ask(i)) for i in range(40)]
    urls = [f"{url}/generate"] * 40
    words = []
    for target, body in zip(urls, files):
        words += [target, "--data-binary", f"@{body}", "--output", f"{body}.out", "--next"]
    output("curl", "--silent", "--show-error", "--parallel", "--parallel-max", "40", "--http2-prior-knowledge", *words[:-1])
    for i in (0, 17, 39):
        alone = json.loads(curl(f"{url}/generate", "--data-binary", f"@{files[i]}"))
        together = json.loads(pathlib.Path(f"{files[i]}.out").read_text())
        expect(alone["output_ids"] == together["output_ids"] and len(alone["output_ids"]) <= 6, f"{alone} {together}")
    e2e.stop(process).expect(0)


def stops(work, number):
    """With requests at work; nothing leaks (the sanitizers would tell)."""
    need("curl")
    process, url = work.serve("--model", trained(work))
    body = work.write("body.json", {"text": "1+1=", "sampling_params": {"max_new_tokens": 80, "temperature": 1,
                                                                           "ignore_eos": True}})
    clients = [subprocess.Popen(["curl", "--silent", "--http2-prior-knowledge", "--max-time", "20", f"{url}/generate",
                                 "--data-binary", f"@{body}"], stdout=subprocess.DEVNULL) for _ in range(6)]
    done = e2e.stop(process, number)
    for client in clients:
        client.wait(30)
    done.expect(0)


def case_sigterm(work):
    stops(work, signal.SIGTERM)


def case_sigint(work):
    stops(work, signal.SIGINT)


def case_ends_with_its_parent(work):
    """A child whose parent is killed goes too."""
    model = trained(work)
    script = (f"import subprocess, time\n"
              f"p = subprocess.Popen([{e2e.PROGRAM!r}, 'serve', '--model', {str(model)!r}, '--port', '0', '--exit-with-parent'],"
              f" stdout=subprocess.PIPE)\np.stdout.readline()\nprint(p.pid, flush=True)\ntime.sleep(60)\n")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    expect(e2e.alive(child), "no child")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    e2e.wait_for(lambda: not e2e.alive(child), "the child's end", 10)


def case_checkpoints_open_elsewhere(work):
    """Those of a run, of all stages, bit for bit by independent readers."""
    exporter = os.environ.get("EXPORT_MODEL", "")
    config = e2e.recipe()
    folder = work.run(config, "r")
    for name in ("teacher", "student", "opd"):
        model, dump = e2e.checkpoint(folder, name), work.fresh("dump")
        output(exporter, "dump", model, dump)
        for check, more in (("check_checkpoint.py", [dump]), ("check_tokenizer.py", [dump / "texts.json"])):
            done = subprocess.run([sys.executable, HERE / check, model, *more], capture_output=True, text=True, timeout=60)
            if done.returncode == 77:
                raise e2e.Skip(done.stdout.strip())
            expect(done.returncode == 0, f"{check} {name}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    e2e.main(globals())
