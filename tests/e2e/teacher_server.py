#!/usr/bin/env python3
"""A teacher that somebody else runs: its key, what it can do, whether it can be believed."""
import http.server
import json
import os
import pathlib
import socket
import subprocess
import threading

import e2e
import gate
from e2e import distil, expect, trained

KEY = "sk-e2e-0123456789abcdefghijklmnop"


def serve(work, *args):
    return work.serve(*args)[1]


def port(url):
    return int(url.rsplit(":", 1)[1])


def expect_hidden(work, process_texts):
    """The key stands nowhere in what the runs left and said."""
    for path in (work.path / "runs").rglob("*"):
        expect(not path.is_file() or KEY.encode() not in path.read_bytes(), f"{path} holds the key")
    for text in process_texts:
        expect(KEY not in text, f"the key was printed:\n{text}")


def case_key_is_shown_and_hidden(work):
    """Every request shows the key; nothing that the run leaves does, at the most talkative log level."""
    before = trained(work)
    door = gate.Gate(port(serve(work, "--model", e2e.checkpoint(before, "teacher"))), KEY)
    config = distil(before, url=door.url, api_key_env="OPD_E2E_KEY")
    config["run"].update(log_level="debug", trace=True)
    done = work.opd("run", work.write("keyed.yaml", config), "--set", "run.name=keyed", env={"OPD_E2E_KEY": KEY})
    done.expect(0)
    expect(door.shown >= 48 and e2e.summary(work.folder("keyed"))["stages"][-1]["invalid_tokens"] == 0,
           f"{door.shown} requests were let in")
    config["stages"][1]["teachers"]["main"] = {"url": door.url, "api_key_file": work.write("key.txt", KEY + "\nnot this\n")}
    filed = work.opd("run", work.write("filed.yaml", config), "--set", "run.name=filed")
    filed.expect(0)
    door.close()
    expect_hidden(work, [done.out, done.err, filed.out, filed.err])


def case_key_that_is_missing_or_wrong(work):
    """Each ends the run at its start, with what to set, and without the key."""
    before = trained(work)
    door = gate.Gate(port(serve(work, "--model", e2e.checkpoint(before, "teacher"))), "another")
    config = distil(before, url=door.url)
    path = work.write("keyless.yaml", config)
    texts = [work.opd("run", path, "--set", "run.name=a").expect(5, "wants an API key", "api_key_env").err]
    config = distil(before, url=door.url, api_key_env="OPD_E2E_KEY")
    path = work.write("keyed.yaml", config)
    texts.append(work.opd("run", path, "--set", "run.name=b").expect(2, "OPD_E2E_KEY is not set").err)
    texts.append(work.opd("run", path, "--set", "run.name=c", env={"OPD_E2E_KEY": KEY}).expect(5, "does not accept").err)
    config = distil(before, url=door.url, api_key_file="no-such-file")
    work.opd("run", work.write("file.yaml", config), "--set", "run.name=d").expect(2, "no-such-file")
    config = distil(before, url=door.url, api_key_env=KEY)  # what people do by accident
    texts.append(work.opd("run", work.write("pasted.yaml", config), "--set", "run.name=e").expect(2, "does not belong").err)
    door.close()
    expect_hidden(work, texts)


# ---- what it can do, and whether it can be believed ----

def case_capabilities_are_kept(work):
    """On screen, in the log and in the summary; a run without canaries and probes has none."""
    before = trained(work)
    url = serve(work, "--model", e2e.checkpoint(before, "teacher"))
    done = work.opd("run", work.write("a.yaml", distil(before, url=url)), "--set", "run.name=a").expect(0)
    expect("teacher main: opd 0.1.0" in done.out and "scores at any temperature" in done.out, done.out)
    found = e2e.summary(work.folder("a"))["teachers"]["main"]
    expect(found["quarantines"] == 0 and found["capabilities"]["scores"] is True, str(found))
    expect(found["capabilities"]["http"] == "HTTP/2" and found["capabilities"]["top_k_given"] is True, str(found))
    expect("can do: {" in (work.folder("a") / "log").read_text(), "the log should have it in full")
    plain = distil(before, url=url, probe=False, canary_s=0)
    work.opd("run", work.write("b.yaml", plain), "--set", "run.name=b").expect(0)
    expect("teachers" not in e2e.summary(work.folder("b")), "nothing was asked")
    expect(e2e.weights(work.folder("a"), "opd") == e2e.weights(work.folder("b"), "opd"), "asking must not change the run")


def case_quarantine_of_one_of_two(work):
    """A replica of uniform scores gets no sample."""
    before = trained(work)
    teacher = e2e.checkpoint(before, "teacher")
    good, bad = serve(work, "--model", teacher), serve(work, "--model", teacher, "--faults", work.write("f", '{"do": "uniform"}\n'))
    config = distil(before, urls=[good, bad])
    done = work.opd("run", work.write("a.yaml", config), "--set", "run.name=a").expect(0)
    expect(f"{bad.split('//')[1]} is in quarantine: all scores are the same" in done.out, done.out)
    summary = e2e.summary(work.folder("a"))
    expect(summary["teachers"]["main"]["quarantines"] == 1 and summary["stages"][-1]["invalid_tokens"] == 0, str(summary))
    expect(e2e.metrics(work.folder("a"), "opd", "teacher/quarantines")[-1]["teacher/quarantines"] == 1, "it is a metric")


def case_another_model_at_the_same_address(work):
    """The server comes back with other weights under the same name: nothing is learnt from it, and the run ends."""
    before = trained(work)
    first, url = work.serve("--model", e2e.checkpoint(before, "teacher"))
    config = distil(before, url=url) # one that is back at once was never lost: its new connection tells
    e2e.stage(config, "opd")["train"]["steps"] = 100000
    e2e.stage(config, "opd")["opd"]["teacher_lost_s"] = 3
    run = work.start("run", work.write("a.yaml", config), "--set", "run.name=a")
    e2e.wait_for_step(run, work.folder("a"), "opd", 2)
    first.popen.kill()
    first.popen.wait()
    serve(work, "--model", e2e.checkpoint(before, "student"), "--port", str(port(url)))
    done = run.wait().expect(6, "in quarantine")
    expect("its scores changed by" in done.out, done.out)


# ---- opd teacher probe ----

def probe(work, url, *args, code=0, env=None):
    done = work.opd("teacher", "probe", url, "--seconds", "0.5", "--tokens", "40", "--concurrency", "4", *args, env=env)
    return done.expect(code)


def model(work):
    path = work.path / "model"
    subprocess.run([os.environ["EXPORT_MODEL"], "make", str(path)], check=True, timeout=60)
    return path


def case_probe_of_our_server(work):
    """What it finds, for people and for machines, and a block that a configuration takes."""
    url = serve(work, "--model", model(work))
    text = probe(work, url, "--top-k", "4").out
    for row in ("opd serve", "HTTP/2", "259 ids", "64 tokens", "all of top 4", "scores at any", "100.00 %", "tokens/s", "p99",
                "usable          yes"):
        expect(row in text, f"{row!r} is missing:\n{text}")
    found = json.loads(probe(work, url, "--top-k", "4", "--json").out)
    load = found["load"]
    expect(found["usable"] and load["failures"] == 0 and load["valid"] == load["scored"] > 0, str(found))
    expect(load["concurrency"] == 4 and load["tokens"] == 40 and load["p99_ms"] >= load["p50_ms"] > 0, str(load))
    expect(found["capabilities"]["scores_at_temperature"] is True and found["capabilities"]["longest"] == 64, str(found))
    block = text[text.index("teachers:"):]
    expect(block == found["yaml"] or "max_inflight" in found["yaml"], found["yaml"])
    rest = ("run: {name: x}\nmodel: {path: m}\ndata: {path: d.jsonl}\nreward: {type: math}\ntrain: {steps: 1}\n"
            "opd: {enabled: true, type: sglang, log_prob_top_k: 4}\n")
    effective = work.opd("config", work.write("probed.yaml", rest + block)).expect(0).out
    expect(url in effective, effective)


def case_probe_of_a_stranger(work):
    """An ASGI app under uvicorn: HTTP/1.1, no alternatives, no vocabulary."""
    peers = pathlib.Path(__file__).resolve().parents[1] / "peers"
    if subprocess.run(["/usr/bin/python3", "-c", "import uvicorn"], capture_output=True, timeout=60).returncode != 0:
        raise e2e.Skip("python3-uvicorn is missing")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    app = subprocess.Popen(["/usr/bin/python3", "-m", "uvicorn", "scoring_app:app", "--port", str(number), "--log-level", "error"],
                           cwd=peers, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        e2e.wait_for(lambda: is_open(number), "uvicorn")
        found = json.loads(probe(work, f"http://127.0.0.1:{number}", "--json").out)
    finally:
        app.terminate()
        app.wait(30)
    what = found["capabilities"]
    expect(found["usable"] and what["http"] == "HTTP/1.1" and what["scores_at_temperature"] is not True, str(found))
    expect(found["load"]["valid"] == found["load"]["scored"] > 0, str(found))


def is_open(number):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", number)) == 0


def case_probe_of_what_is_no_teacher(work):
    """Nobody there; a web server; one that wants a key: exit 5 and the reason, at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    expect("usable          no" in probe(work, f"http://127.0.0.1:{number}", code=5).out, "it should say no")
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    web.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=web.serve_forever, daemon=True).start()
    done = probe(work, f"http://127.0.0.1:{web.server_port}", "--json", code=5)
    expect(not json.loads(done.out)["usable"] and "cannot be used as a teacher" in done.err, done.out + done.err)
    web.shutdown()
    web.server_close()
    door = gate.Gate(port(serve(work, "--model", model(work))), KEY)
    expect("--api-key-env" in probe(work, door.url, code=5).err, "it should name the option")
    shown = probe(work, door.url, "--api-key-env", "OPD_E2E_KEY", env={"OPD_E2E_KEY": KEY})
    expect("api_key_env: \"OPD_E2E_KEY\"" in shown.out and KEY not in shown.out + shown.err, shown.out)
    door.close()
    work.opd("teacher").expect(2, "teacher probe URL")
    work.opd("teacher", "probe").expect(2, "address is missing")
    work.opd("teacher", "probe", "ftp://x").expect(2, "ftp://x")
    work.opd("teacher", "probe", "http://127.0.0.1:1", "--protocol", "grpc").expect(2, "sglang or vllm")


if __name__ == "__main__":
    e2e.main(globals())
