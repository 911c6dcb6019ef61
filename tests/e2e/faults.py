#!/usr/bin/env python3
"""A run whose teacher is an `opd serve --faults`: it goes on, counts what it lacks, and ends well."""
import e2e
from e2e import expect


def serve(work, model, script, *args):
    return work.serve("--model", model, *args, "--faults", work.write("faults.jsonl", script))


def distil(work, name, url, steps, **teacher):
    """The recipe's last stage, with a teacher at the URL; the stages before it are its first run."""
    config = e2e.recipe(steps=steps)
    e2e.stage(config, "opd")["teachers"]["main"] = {"url": url, "backoff_ms": 10, "backoff_max_ms": 50, **teacher}
    folder = work.run(config, name)
    return e2e.metrics(folder, "opd", "train/samples")


def teacher_model(work):
    config = e2e.recipe()
    config["stages"] = config["stages"][:2]
    return e2e.checkpoint(work.run(config, "teacher"), "teacher")


CHAOS = """# what a bad day looks like
{"probability": 0.05, "seed": 1, "do": "status", "status": 503}
{"probability": 0.05, "seed": 2, "do": "reset", "code": "INTERNAL_ERROR"}
{"probability": 0.05, "seed": 3, "do": "truncate", "bytes": 99}
{"probability": 0.05, "seed": 4, "do": "ids", "row": 2}
{"probability": 0.05, "seed": 5, "do": "stall", "bytes": 50}
{"probability": 0.03, "seed": 6, "do": "goaway", "kind": "drop"}
{"probability": 0.10, "seed": 7, "do": "value", "text": "null"}
{"nth": 30, "do": "close"}
"""


def case_chaos(work):
    server, url = serve(work, teacher_model(work), CHAOS, "--log-level", "info")
    rows = distil(work, "r", url, 20, timeout_s=1, deadline_s=20)
    expect(len(rows) == 20, f"{len(rows)} steps")
    shares = [r["teacher/valid_share"] for r in rows]
    expect(min(shares) > 0.5 and min(shares) < 1, f"valid shares {shares}")
    expect(sum(r["teacher/invalid_tokens"] for r in rows) > 0, "nothing was masked")
    expect(all(r["train/batches_without_score"] == 0 for r in rows), "a batch without score")
    done = e2e.stop(server).expect(0, "memory ceiling: [0-9]+ MiB")


def case_nothing_valid_makes_no_step(work):
    """A teacher of uniform scores teaches nothing: no step, whatever it costs."""
    server, url = serve(work, teacher_model(work), '{"do": "uniform"}')
    config = e2e.recipe(steps=3)
    e2e.stage(config, "opd")["teachers"]["main"] = {"url": url, "backoff_ms": 10, "backoff_max_ms": 50, "canary_s": 0}
    e2e.stage(config, "opd")["opd"]["invalid_batches_max"] = 2
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    process.wait().expect(6)
    rows = e2e.metrics(work.folder("c"), "opd", "train/samples")
    expect(all("train/grad_norm" not in r for r in rows), "an optimizer step without a valid token")
    e2e.stop(server).expect(0)


def case_mistakes_in_the_script(work):
    model = teacher_model(work)
    for script, text in (('{"do": "hang"}\n{"do": "explode"}', r"faults\.jsonl:2: do: there is no .explode."),
                         ('{"do": "hang", "nth": 0}', r"faults\.jsonl:1: nth must be from 1"),
                         ("do: hang", r"faults\.jsonl:1: byte")):
        process = work.start("serve", "--model", model, "--port", "0", "--faults", work.write("faults.jsonl", script))
        process.wait().expect(2, text)
    process = work.start("serve", "--model", model, "--port", "0", "--faults", "nowhere.jsonl")
    process.wait().expect(2, "nowhere.jsonl")


if __name__ == "__main__":
    e2e.main(globals())
