#!/usr/bin/env python3
"""The command as a person or a script meets it: streams, exit codes, colours, a terminal."""
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios

import e2e
from e2e import expect

LIVE = "\r\x1b[K"
BOLD = "\x1b[1m"


def case_help_and_version(work):
    for words in (["--help"], ["-h"], ["run", "--help"], ["serve", "-h"]):
        done = work.opd(*words).expect(0)
        expect(not done.err, f"{words}: on stderr: {done.err}")
        for text in ("opd run CONFIG", "opd serve --model", "exit codes:", "--opd-kl-coef", "--resume", "NO_COLOR"):
            expect(text in done.out, f"{words}: no {text!r} in the help")
        expect(max(map(len, done.out.splitlines())) <= 100, "a line of the help is longer than 100")
    for word in ("--version", "-V"):
        done = work.opd(word).expect(0)
        expect(re.fullmatch(r"opd \d+\.\d+\.\d+\n", done.out) and not done.err, f"{word}: {done.out} {done.err}")


def case_wrong_words(work):
    """Exit code 2, nothing on stdout, and the word in question on stderr."""
    config = work.write("c.yaml", e2e.recipe())
    for words, *texts in (
            ([], "usage:"), (["frobnicate"], '"frobnicate"', "opd --help"), (["run"], "configuration file is missing"),
            (["run", config, "--bogus"], "--bogus"), (["run", config, config], "c.yaml"),
            (["run", config, "--opd-type", "vllm"], "--opd-type", "sglang"),
            (["run", config, "--set", "nothing"], "--set"), (["run", config, "--set"], "--set"),
            (["config", config, "--log-level", "loud"], "loud", "debug"), (["serve"], "--model"),
            (["serve", "--model", "x", "--port", "70000"], "70000", "65535"), (["serve", "--port"], "--port"),
            (["generate", "--model", "x"], "--prompt"), (["generate", "--model", "x", "--top-p", "2"], "--top-p"),
            (["eval", config], "--model"), (["config"], "configuration file is missing"),
            (["config", config, "--set", "train.lrr=1"], "train.lrr", "train.lr")):
        done = work.opd(*words).expect(2, *[re.escape(t) for t in texts])
        expect(not done.out, f"{words}: on stdout: {done.out}")


def case_config_prints_what_it_reads(work):
    """`opd config` output is a configuration itself, with the overrides in it."""
    first = work.opd("config", work.write("c.yaml", e2e.recipe()), "--set", "run.seed=99", "--set",
                     "stages.opd.opd.kl_coef=0.25").expect(0)
    expect("seed: 99" in first.out and "kl_coef: 0.25" in first.out, first.out)
    again = work.opd("config", work.write("again.yaml", first.out)).expect(0)
    expect(again.out.replace("again", "c") == first.out.replace("again", "c"), "the printed configuration reads otherwise")


def full(work, *words):
    with open("/dev/full", "wb") as out:
        return subprocess.run([e2e.PROGRAM, *words], cwd=work.path, stdout=out, stderr=subprocess.PIPE, timeout=60)


def case_output_that_cannot_be_written(work):
    config = e2e.recipe()
    config["stages"] = config["stages"][:3]
    path = work.write("c.yaml", config)
    model = e2e.checkpoint(work.run(config, "r"), "student")
    for words in (["--help"], ["--version"], ["config", path], ["generate", "--model", model, "--prompt", "1+1="],
                  ["run", path, "--set", "run.name=full"]):
        done = full(work, *words)
        expect(done.returncode == 4 and b"written" in done.stderr, f"{words}: {done.returncode} {done.stderr}")
        expect(b"Sanitizer" not in done.stderr, done.stderr.decode())


def case_generate_and_eval(work):
    config = e2e.recipe()
    config["stages"] = config["stages"][:3]
    folder = work.run(config, "r")
    model = e2e.checkpoint(folder, "student")
    ask = ["generate", "--model", model, "--prompt", "1+1=", "--count", "3", "--max-tokens", "5"]
    done = work.opd(*ask).expect(0)
    expect(len(set(done.out.split("\n")[:3])) == 1 and not done.err, f"three greedy answers: {done.out!r} {done.err}")
    warm = [*ask, "--temperature", "1", "--seed", "5"]
    expect(work.opd(*warm).expect(0).out == work.opd(*warm).expect(0).out, "the same seed, other samples")
    expect(work.opd(*warm).out != work.opd(*warm[:-1], "6").out, "another seed, the same samples")
    path = work.write("e.yaml", {"run": {"kind": "eval"}, "model": {"path": str(model)},
                                 "eval": {"path": str(folder / "data" / "problems-test.jsonl"), "max_response_len": 8}})
    done = work.opd("eval", "--model", model, path).expect(0)
    expect(re.search(r"\d+\.\d % of 50 held-out problems right \(95 %", done.out) and not done.err, done.out + done.err)


# ---- a terminal ----

def on_terminal(work, words, env, columns=80):
    """Exit code, what the terminal showed, and stderr (elsewhere)."""
    try:
        own, other = pty.openpty()
    except OSError as reason:
        raise e2e.Skip(f"no pseudo-terminal can be opened here: {reason}") from reason
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with open(work.fresh("err"), "w+b") as err:
        process = subprocess.Popen([e2e.PROGRAM, *words], cwd=work.path, stdin=other, stdout=other, stderr=err,
                                   env={**os.environ, "TERM": "xterm", **env})
        os.close(other)
        shown = b""
        while True:
            ready, _, _ = select.select([own], [], [], e2e.PATIENCE_S)
            expect(ready, "the terminal stays silent")
            try:
                part = os.read(own, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            shown += part
        os.close(own)
        code = process.wait(e2e.PATIENCE_S)
        err.seek(0)
        return code, shown.decode(), err.read().decode()


def slow_enough(steps=150):
    return e2e.recipe(steps=steps)


def case_live_line_on_a_terminal(work):
    path = work.write("c.yaml", slow_enough())
    code, shown, err = on_terminal(work, ["run", path], {"NO_COLOR": ""})
    expect(code == 0 and not err, f"{code} {err}")
    opd_lines = [part for part in shown.split(LIVE) if "opd" in part and "step" in part]
    for part in opd_lines:
        width = len(re.sub(r"\x1b\[[0-9;]*m", "", part.split("\r")[0].split("\n")[0]))
        expect(width < 80, f"{width} columns on a terminal of 80: {part!r}")
    expect(len(opd_lines) >= 3, f"the live line was written {len(opd_lines)} times:\n{shown!r}")
    expect("eta" in opd_lines[1] and "valid 100.0 %" in opd_lines[1] and "kl " in opd_lines[1], repr(opd_lines[1]))
    expect(BOLD in shown, "no colour on a terminal")
    expect("step 150/150" in shown and "run folder" in shown, "the end is missing")
    last = shown[:shown.index("wall time")].rsplit(LIVE, 1)[1]
    expect("150/150" in last and "\n" in last, f"the live line is not ended: {last!r}")


def case_no_color(work):
    path = work.write("c.yaml", slow_enough(20))
    code, shown, _ = on_terminal(work, ["run", path], {"NO_COLOR": "1"})
    expect(code == 0 and LIVE in shown, repr(shown))
    expect(not re.search(r"\x1b\[[0-9;]*m", shown), f"colours under NO_COLOR: {shown!r}")


def case_plain_lines_on_a_pipe(work):
    config = slow_enough(20)
    done = work.opd("run", work.write("c.yaml", config)).expect(0)
    expect("\x1b" not in done.out and "\r" not in done.out, f"terminal codes in a file: {done.out!r}")
    for text in ("teacher      step 4/4", "student      step 4/4", "opd          step 20/20", "wall time", "run folder"):
        expect(text in done.out, f"no {text!r}:\n{done.out}")
    expect(not done.err, f"on stderr: {done.err}")


def case_table_and_summary(work):
    """The table, summary.json, config.yaml, metrics and samples of a distillation agree."""
    config = e2e.recipe()
    held_out = {"path": "@stages.problems.test", "limit": 20}
    for name, more in (("teacher", {"at_start": False}), ("student", {"at_start": False}), ("opd", {})):
        e2e.stage(config, name)["eval"] = {**held_out, **more}
    config["run"]["samples_interval"] = 1
    path = work.write("c.yaml", config)
    done = work.opd("run", path).expect(0)
    folder = work.folder("c")
    summary = e2e.summary(folder)
    for key, row in (("student_before", "student before"), ("student_after", "student after"), ("teacher", "teacher")):
        a = summary[key]
        expect(a["n"] == 20 and 0 <= a["low"] <= a["accuracy"] <= a["high"] <= 1, f"{key}: {a}")
        expect(re.search(rf"{row} +{a['accuracy'] * 100:.1f} % +{a['low'] * 100:.1f} - +{a['high'] * 100:.1f} % +20\n",
                         done.out), f"no row for {key}:\n{done.out}")
    expect(summary["wall_s"] > 0, "wall_s")
    printed = work.opd("config", path).expect(0).out
    expect((folder / "config.yaml").read_text() == printed, "config.yaml is not what `opd config` prints")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    expect(len(samples) == 48 and {"prompt", "response", "reward", "reverse_kl"} <= set(samples[0]), str(samples[:1]))
    log = (folder / "log").read_text()
    expect("stage opd (rl) begins" in log, "the log")
    expect(re.search(r"stage opd: memory ceiling: \d+ MiB \(runtime \d+, windows ", log), "no memory ceiling in the log")


if __name__ == "__main__":
    e2e.main(globals())
