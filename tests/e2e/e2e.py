"""The world of an end-to-end case: a folder of its own, the built `opd`, tiny recipes.

A script defines functions `case_NAME(work)` and ends with `e2e.main(globals())`; CMake registers
each as `e2e.SCRIPT.NAME`. OPD_PROGRAM names the program under test. A case fails by `expect`, by
any other exception, or when a program that it started left a sanitizer's report. Only processes
that the case started are ended, by their id. Exit status: 0, 1, or 77 for a skip.
"""
import copy
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback

PROGRAM = os.environ.get("OPD_PROGRAM", "opd")
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")
PATIENCE_S = 30  # for one awaited event, on a busy machine


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failure(text)


def wait_for(check, what, patience_s=PATIENCE_S):
    """The first true answer of check()."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        answer = check()
        if answer:
            return answer
        time.sleep(0.002)
    raise Failure(f"{what}: not within {patience_s} s")


# ---- recipes ----

def init(hidden=16, layers=1, heads=1):
    return {"hidden_size": hidden, "intermediate_size": 2 * hidden, "layers": layers, "heads": heads,
            "max_position": 96}


def sft(name, hidden, steps, **train):
    return {"name": name, "kind": "sft", "data": {"path": f"@stages.problems.{name}"},
            "model": {"init": init(hidden)},
            "train": {"steps": steps, "batch_size": 8, "lr": 3e-3, "warmup_steps": 2, **train}}


def recipe(steps=6, sft_steps=4):
    """Problems, a teacher, a student, and the student's distillation by a child over HTTP/2."""
    distil = {"name": "opd", "kind": "rl", "data": {"path": "@stages.problems.opd"},
              "model": {"path": "@stages.student.checkpoint"},
              "teachers": {"main": {"path": "@stages.teacher.checkpoint"}},
              "opd": {"enabled": True, "type": "sglang", "only_reward": True, "log_prob_top_k": 4},
              "reward": {"type": "math"},
              "rollout": {"batch_prompts": 4, "samples_per_prompt": 2, "max_staleness": 0},
              "train": {"steps": steps, "lr": 5e-4}}
    splits = {"teacher": 200, "student": 200, "opd": 400, "test": 50}
    return {"run": {"dir": "runs", "seed": 7}, "rollout": {"max_response_len": 24, "slots": 16},
            "stages": [{"name": "problems", "kind": "arithmetic", "arithmetic": {"splits": splits}},
                       sft("teacher", 32, sft_steps), sft("student", 16, sft_steps), distil]}


def stage(config, name):
    return next(s for s in config["stages"] if s["name"] == name)


def changed(config, **settings):
    """A copy in which a__b=v sets config["a"]["b"] = v."""
    config = copy.deepcopy(config)
    for path, value in settings.items():
        *folders, key = path.split("__")
        at = config
        for folder in folders:
            at = at.setdefault(folder, {})
        at[key] = value
    return config


def trained(work):
    """The folder of a run of the recipe's stages before the distillation."""
    config = recipe()
    config["stages"] = config["stages"][:3]
    return work.run(config, "before")


def distil(before, **teacher):
    """The recipe's last stage alone, from the checkpoints of such a run; its teacher is a child unless it has an address."""
    config = recipe()
    config["stages"] = [config["stages"][0], config["stages"][3]]
    if "url" not in teacher and "urls" not in teacher:
        teacher["path"] = str(checkpoint(before, "teacher"))
    last = stage(config, "opd")
    last["model"] = {"path": str(checkpoint(before, "student"))}
    last["teachers"] = {"main": teacher}
    return config


# ---- programs ----

class Done:
    """What a program that ended has left."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def expect(self, code, *texts):
        """The exit code (or one of some), and texts (regular expressions) that stderr shows."""
        expect(self.code in (code if isinstance(code, tuple) else (code,)), f"exit code {self.code}, expected {code}\n{self.out}\n{self.err}")
        for text in texts:
            expect(re.search(text, self.err), f"stderr does not show {text!r}:\n{self.err}")
        return self


class Process:
    """A program that runs; its output goes to files, so no pipe can fill up."""

    def __init__(self, work, args, env=None):
        self.out_path, self.err_path = work.fresh("out"), work.fresh("err")
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.popen = subprocess.Popen([PROGRAM, *args], cwd=work.path, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=err, env={**os.environ, **(env or {})})
        self.pid = self.popen.pid

    def out(self):
        return pathlib.Path(self.out_path).read_text(errors="replace")

    def err(self):
        return pathlib.Path(self.err_path).read_text(errors="replace")

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, patience_s=60):
        try:
            self.popen.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.popen.args} still runs after {patience_s} s\n{self.out()}\n{self.err()}") from None
        return Done(self.popen.returncode, self.out(), self.err())

    def children(self):
        """Ids of its children, from /proc."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(entry.name))
            except OSError:
                continue  # ended meanwhile
        return found


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Work:
    """The folder of a case, and everything started in it."""

    def __init__(self, path):
        self.path, self.processes, self.count = pathlib.Path(path), [], 0

    def fresh(self, name):
        self.count += 1
        return self.path / f"{name}-{self.count}"

    def write(self, name, content):
        """Text as it is; anything else as JSON, which is YAML too."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return str(path)

    def lines(self, name, rows):
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def start(self, *args, env=None):
        process = Process(self, [str(a) for a in args], env)
        self.processes.append(process)
        return process

    def opd(self, *args, env=None):
        return self.start(*args, env=env).wait()

    def serve(self, *args, env=None):
        """`opd serve` on a free port, once it is ready: the process, and its URL."""
        process = self.start("serve", "--port", "0", *args, env=env)
        wait_for(lambda: "ready on " in process.out() or not process.running(), "opd serve's ready line")
        expect(process.running(), process.err())
        return process, process.out().split("ready on ")[1].split()[0]

    def run(self, config, name, *args):
        """`opd run` to its good end; the folder of the run."""
        self.opd("run", self.write(f"{name}.yaml", config), "--set", f"run.name={name}", *args).expect(0)
        return self.folder(name)

    def folder(self, name):
        return self.path / "runs" / name

    def close(self):
        for process in self.processes:
            if process.running():
                process.popen.kill()
                process.popen.wait()

    def sanitizer_reports(self):
        logs = [p for p in self.path.rglob("*") if p.is_file() and (p.name == "log" or p.name.startswith(("err-", "out-")))]
        for path in logs:
            text = path.read_text(errors="replace")
            if SANITIZER.search(text):
                yield f"{path}:\n{text[-4000:]}"


# ---- what a run left ----

def metrics(folder, stage_name, key="train/loss"):
    """The steps of a stage in metrics.jsonl that have the key; a line being written is left out."""
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    rows = [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]
    return [r for r in rows if r["stage"] == stage_name and key in r]


def wait_for_step(process, folder, stage_name, step):
    def reached():
        rows = metrics(folder, stage_name, "train/samples")
        expect(rows and rows[-1]["train/step"] >= step or process.running(),
               f"the run ended before step {step} of {stage_name}:\n{process.out()}\n{process.err()}")
        return rows and rows[-1]["train/step"] >= step
    wait_for(reached, f"step {step} of {stage_name}")


def checkpoint(folder, stage_name=None):
    """The newest checkpoint of a stage, a folder."""
    base = folder / "checkpoints" / stage_name if stage_name else folder / "checkpoints"
    steps = sorted(base.glob("step-*"))
    expect(steps, f"{base} holds no checkpoint")
    return steps[-1]


def weights(folder, stage_name=None):
    return (checkpoint(folder, stage_name) / "model.safetensors").read_bytes()


def expect_same(a, b, stages=("teacher", "student", "opd")):
    """Both runs ended with the same bits, in weights and in the optimizer."""
    for name in stages:
        for file in ("model.safetensors", "optimizer.safetensors", "trainer_state.json"):
            one, two = checkpoint(a, name), checkpoint(b, name)
            expect((one / file).read_bytes() == (two / file).read_bytes(), f"{one}/{file} and {two}/{file} differ")


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


# ---- running cases ----

def run_case(function):
    with tempfile.TemporaryDirectory(prefix="opd-e2e-") as path:
        work = Work(path)
        try:
            function(work)
            work.close()
            reports = list(work.sanitizer_reports())
            expect(not reports, "a sanitizer reports:\n" + "\n".join(reports))
        finally:
            work.close()


def main(script):
    cases = {name[5:]: value for name, value in script.items() if name.startswith("case_")}
    for name in sys.argv[1:] or cases:
        begin = time.monotonic()
        try:
            run_case(cases[name])
        except Skip as reason:
            print(f"SKIP: {reason}")
            sys.exit(77)
        except Failure as failure:
            print(f"FAIL {name}: {failure}")
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        print(f"ok {name} ({time.monotonic() - begin:.1f} s)")


def stop(process, number=signal.SIGTERM):
    process.signal(number)
    return process.wait()
