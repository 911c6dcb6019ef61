#!/usr/bin/env python3
"""How long the trainer waits for its teacher's scores: one JSON line per case on stdout.

Usage: pipeline.py OPD [--steps N] [--latency-ms N] [--train-s S]
OPD is the program, and everything is real: `opd run` with generation, scoring over HTTP/2 and training, `opd serve`
as the teacher. What is counted is perf/score_wait_time, the time in which the trainer had nothing to do and nothing
was missing but scores.

Short answers: a small teacher whose answers come --latency-ms later (--faults). The batch is fitted to the machine
first, so that training on one takes --train-s: longer than generation and latency together, which can then be hidden
behind it, but short enough that a run one after the other loses much.
Long answers: a larger teacher without any delay, whose work grows with the text, asked once at the end or in chunks.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile

GROUP = 4  # answers to a prompt, which is prefilled once for all of them
FIT_PROMPTS, FIT_STEPS = 4, 6
PROMPTS_MAX = 16  # a batch is one wave of requests: teachers.NAME.max_inflight
PATIENCE_S = 3600  # for one run
PROMPT_LEN, SHORT_LEN, LONG_LEN, LONG_PROMPTS, CHUNK = 96, 32, 600, 1, 64
WAIT = "perf/score_wait_time"


def problems():
    """Problems of PROMPT_LEN tokens with answers so long that a student who learnt from them hardly ever stops by
    itself."""
    def letters(n, count):
        return "".join(chr(97 + n * i % 26) for i in range(count))
    return [{"prompt": f"{n}?".ljust(PROMPT_LEN - 1, "."), "response": letters(n, LONG_LEN), "label": "x"}
            for n in range(1, 1000)]


def models(data):
    """A teacher that costs next to nothing, one that costs something, and a student."""
    def sft(name, hidden, layers, steps):
        return {"name": name, "kind": "sft", "train": {"steps": steps},
                "model": {"init": {"hidden_size": hidden, "intermediate_size": 3 * hidden, "layers": layers,
                                   "heads": hidden // 32, "max_position": LONG_LEN + 128}}}
    return {"run": {"dir": "runs", "seed": 5}, "data": {"path": data}, "eval": {"at_start": False},
            "train": {"batch_size": 4, "lr": 3e-3, "warmup_steps": 2},
            "stages": [sft("small", 32, 1, 12), sft("large", 256, 6, 2), sft("student", 128, 4, 12)]}


class Bench:
    def __init__(self, work, options):
        self.work, self.options = work, options
        self.data = work.lines("problems.jsonl", problems())
        self.models = self.run("models", models(self.data))

    def run(self, name, config):
        process = self.work.start("run", self.work.write(f"{name}.yaml", config), "--set", f"run.name={name}")
        process.wait(PATIENCE_S).expect(0)
        return self.work.folder(name)

    def serve(self, stage_name, *args):
        server = self.work.start("serve", "--model", e2e.checkpoint(self.models, stage_name), "--port", "0", *args)
        e2e.wait_for(lambda: "ready on http://" in server.out() or not server.running(), "the teacher's ready line")
        return server, server.out().split("ready on ")[1].split()[0]

    def distil(self, name, url, steps, prompts, length, staleness, chunk_tokens):
        """A run of the student; the rows of its steps."""
        config = {"run": {"dir": "runs", "seed": 5, "kind": "rl", "samples_interval": 0}, "data": {"path": self.data},
                  "model": {"path": str(e2e.checkpoint(self.models, "student"))},
                  "teachers": {"main": {"url": url, "chunk_tokens": chunk_tokens}},
                  "opd": {"enabled": True, "type": "sglang", "only_reward": True},
                  "rollout": {"batch_prompts": prompts, "samples_per_prompt": GROUP, "slots": prompts * GROUP,
                              "max_response_len": length, "max_staleness": staleness},
                  "train": {"steps": steps, "lr": 1e-5}}
        return e2e.metrics(self.run(name, config), "main", "perf/step_time")

    def short_answers(self):
        script = json.dumps({"do": "delay", "delay_ms": self.options.latency_ms})
        server, url = self.serve("small", "--faults", self.work.write("delay.jsonl", script))
        fit = self.distil("fit", url, FIT_STEPS, FIT_PROMPTS, SHORT_LEN, 0, 0)
        took = sorted(r["perf/train_time"] for r in fit)[len(fit) // 2]
        prompts = max(1, min(PROMPTS_MAX, round(FIT_PROMPTS * self.options.train_s / took)))
        rows = self.distil("overlapped", url, self.options.steps, prompts, SHORT_LEN, 1, 0)
        emit("pipeline_wait_overlapped", "share", share(rows), rows)
        rows = self.distil("sequential", url, self.options.steps, prompts, SHORT_LEN, 0, 0)
        emit("pipeline_wait_sequential", "share", share(rows), rows)
        emit("pipeline_wait_per_step", "s", mean(rows, WAIT), rows)
        e2e.stop(server).expect(0)

    def long_answers(self):
        server, url = self.serve("large")
        waits = []
        for name, chunk_tokens in (("whole", 0), ("chunked", CHUNK)):
            rows = self.distil(name, url, max(5, self.options.steps // 10), LONG_PROMPTS, LONG_LEN, 0, chunk_tokens)
            waits.append(mean(rows, WAIT))
            emit(f"pipeline_long_{name}", "s", waits[-1], rows)
        emit("pipeline_long_gain", "ratio", waits[0] / waits[1], rows)
        e2e.stop(server).expect(0)


def mean(rows, key):
    return sum(r.get(key, 0) for r in rows) / len(rows)


def share(rows):
    """Of the wall time of the steps."""
    return mean(rows, WAIT) / mean(rows, "perf/step_time")


def emit(case, unit, value, rows):
    """One line: the value, and what the mean step was like."""
    step = {key.partition("/")[2]: round(mean(rows, key), 4)
            for key in ("perf/step_time", "perf/train_time", "perf/train_wait_time", WAIT, "train/samples",
                        "rollout/response_len/mean", "teacher/latency_ms", "teacher/valid_share")}
    print(json.dumps({"case": case, "value": round(value, 5), "unit": unit, "steps": len(rows), **step,
                      "load": os.getloadavg()[0]}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("opd", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--latency-ms", type=int, default=300)
    parser.add_argument("--train-s", type=float, default=0.5)
    options = parser.parse_args()
    os.environ["OPD_PROGRAM"] = str(options.opd.resolve())
    global e2e
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
    import e2e
    with tempfile.TemporaryDirectory(prefix="opd-bench-") as path:
        work = e2e.Work(path)
        try:
            bench = Bench(work, options)
            bench.short_answers()
            bench.long_answers()
        finally:
            work.close()


if __name__ == "__main__":
    main()
