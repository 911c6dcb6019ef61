#!/usr/bin/env python3
"""Runs the benchmarks and checks their floors: one JSON line per case on stdout, a report on stderr.

Usage: run.py FOLDER [--quick] [--no-wait] [--skip-kernels] [CASE...]
FOLDER holds the programs (opd_bench_actor, opd_bench_client, opd_bench_fleet, opd_bench_kernels;
caf_pingpong and caf_counting where libcaf was found); two programs of tests/unit/actors stand beside it. Cases that have a peer alternate with it, one
process each, RUNS times; the client's peer is h2load, and both ask the same nghttpd. The groups fleet and
pipeline are named as one case each, and measured once.

The idle guard: before each measurement the machine must be idle for a second (/proc/stat); else we
wait, say so, and after WAIT_S give up (status 3). A measurement during which other processes used
the processor is thrown away and made again. --no-wait measures anyway and says that it did.

Exit status: 0, 1 a floor was missed, 2 a program failed, 3 the machine was not idle.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from watch import BUSY_MAX, Watch, helpers

RUNS = 5
WAIT_S = 120        # for an idle machine, before we give up
RETRIES = 5         # of a disturbed measurement
CAF = {"ping_pong": ("caf_pingpong", 3.0), "counting": ("caf_counting", 2.0)}  # floor: opd / CAF
AT_LEAST = {"attachments_1mb": 200e3, "lane_round_trip": 60e3,
            "parse_nested_k0": 600, "parse_nested_k10": 600, "parse_nested_k64": 600, "parse_base64_k64": 2000,
            "fleet_accounted": 1, "fleet_valid_share": 0.999,
            "pipeline_wait_sequential": 0.3, "pipeline_long_gain": 1.3}
AT_MOST = {"idle_100_actors_10_s": 5.0, "fleet_p99_ratio": 2, "callback_answers_read": 2000,
           "pipeline_wait_overlapped": 0.03, "pipeline_wait_per_step": 0.36}
# Tests that print how long a callback of the loop took at most.
CALLBACKS = {"callback_answers_read": ("test_large_answers", "answers_of_20_mb_are_read_beside_the_loop"),
             "callback_answers_written": ("test_server_answers", "answers_of_20_mb_are_written_beside_the_loop")}
# The client beside h2load: bytes of an answer, connections of 100 streams each, requests, floor: opd / h2load.
CLIENT = {"client_100k_1x100": (102400, 1, 20000, 0.8), "client_100k_8x100": (102400, 8, 20000, 0.8),
          "client_200b_1x100": (200, 1, 100000, 0.6), "client_200b_8x100": (200, 8, 100000, 0.6)}


class Busy(Exception):
    """Others use the processor."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Guard:
    """Lets a measurement begin on an idle machine only, and repeats one that was disturbed."""

    def __init__(self, wait):
        self.wait = wait
        self.disturbed = 0

    def until_idle(self):
        end, said = time.monotonic() + WAIT_S, False
        while True:
            watch = Watch()
            time.sleep(1)
            busy = watch.foreign()
            if busy <= BUSY_MAX or not self.wait:
                return
            if time.monotonic() > end:
                raise Busy(f"the machine is busy ({100 * busy:.0f} % used by others, load "
                           f"{os.getloadavg()[0]:.2f}): nothing was measured in {WAIT_S} s of waiting")
            if not said:
                say(f"waiting: {100 * busy:.0f} % of the machine is used by others")
            said = True

    def measure(self, command, read=None):
        """What a command that ran undisturbed printed, read by `read` or as JSON lines."""
        for _ in range(RETRIES):
            self.until_idle()
            watch = Watch()
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            foreign = watch.foreign()
            if foreign <= BUSY_MAX or not self.wait:
                self.disturbed += foreign > BUSY_MAX
                return read(result.stdout) if read else [json.loads(line) for line in result.stdout.splitlines()]
            say(f"disturbed: others used {100 * foreign:.0f} % of the machine, again")
        raise Busy(f"{RETRIES} measurements in a row were disturbed: {' '.join(map(str, command))}")


def summary(case, lines, extra=None):
    """One line for several runs of one process each."""
    values = [line["value"] for line in lines]
    out = dict(lines[0])
    out.update(case=case, value=statistics.median(values), median=statistics.median(values),
               min=min(values), max=max(values), runs=len(values), load=os.getloadavg()[0])
    out.update(extra or {})
    return out


def alternate(guard, folder, case, peer, runs):
    """(opd's line, the peer's line), each a median of alternating runs."""
    ours, theirs = [], []
    for _ in range(runs):
        ours += guard.measure([folder / "opd_bench_actor", "--runs", "1", case])
        theirs += guard.measure([folder / peer])
    return summary(case, ours), summary(f"{case}_caf", theirs, {"versions": {"caf": theirs[0]["caf"]}})


def emit(line):
    print(json.dumps(line), flush=True)
    spread = f"{line['min']:,.4g} .. {line['max']:,.4g}, " if "min" in line else ""
    say(f"  {line['case']:24} {line['value']:>14,.6g} {line['unit']}   ({spread}load {line['load']:.2f})")


def check(missed, what, value, floor, good):
    say(f"    {'floor held' if good else 'FLOOR MISSED'}: {what} {value:.3g}, wanted {floor:g}")
    if not good:
        missed.append(what)


def check_floor(missed, line):
    case, value = line["case"], line["value"]
    if case in AT_LEAST:
        check(missed, case, value, AT_LEAST[case], value >= AT_LEAST[case])
    if case in AT_MOST:
        check(missed, case, value, AT_MOST[case], value <= AT_MOST[case])


def actor_cases(guard, folder, wanted, runs):
    """Measures the runtime's cases; returns the floors that were missed."""
    missed = []
    listed = subprocess.run([folder / "opd_bench_actor", "--list"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.split()
    for case in [c for c in listed if not wanted or c in wanted]:
        peer, ratio_min = CAF.get(case, (None, None))
        if peer and (folder / peer).exists():
            ours, theirs = alternate(guard, folder, case, peer, runs)
            emit(ours)
            emit(theirs)
            ratio = ours["value"] / theirs["value"]
            print(json.dumps({"case": f"{case}_vs_caf", "value": round(ratio, 3), "unit": "ratio",
                              "floor": ratio_min}), flush=True)
            check(missed, f"{case} opd/CAF", ratio, ratio_min, ratio >= ratio_min)
            continue
        if peer:
            say(f"{case}: {peer} was not built (apt install libcaf-dev g++, then make again): no ratio")
        line = guard.measure([folder / "opd_bench_actor", "--runs", str(runs), case])[0]
        emit(line)
        check_floor(missed, line)
    return missed


def group_cases(guard, command):
    """Measures a program of several cases once; returns the floors that were missed."""
    missed = []
    for line in guard.measure(command):
        emit(line)
        check_floor(missed, line)
    return missed


def groups(folder, quick):
    """Programs of several cases, which take minutes: by name, how they are called."""
    pipeline = pathlib.Path(__file__).resolve().parent / "pipeline.py"
    return {"fleet": [folder / "opd_bench_fleet"] + (["--undisturbed", "15", "--seconds", "30"] if quick else []),
            "pipeline": [sys.executable, pipeline, folder.parent.parent / "cli/opd"]
                        + (["--steps", "60"] if quick else [])}


def question(path):
    """A scoring request as the client writes it, of 1,000 tokens."""
    draw = random.Random(4)
    ids = [draw.randrange(1, 151000) for _ in range(1000)]
    body = {"input_ids": ids, "sampling_params": {"temperature": 1, "max_new_tokens": 0},
            "return_logprob": True, "logprob_start_len": 499, "return_text_in_logprobs": False,
            "rid": "opd-bench-0123456789abcdef"}
    path.write_text(json.dumps(body, separators=(",", ":")), encoding="ascii")


def h2load_line(text):
    rate = re.search(r"finished in .*, ([0-9.]+) req/s", text)
    if rate is None or not re.search(r" 0 failed, 0 errored, 0 timeout", text):
        raise json.JSONDecodeError("h2load failed", text, 0)
    return [{"value": float(rate.group(1)), "unit": "requests/s", "versions": {}}]


def serve(folder):
    """An nghttpd on a free port; its windows are wide, so that they are not what is measured."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    program = shutil.which("nghttpd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    helper = subprocess.Popen([program, "--no-tls", "-w", "24", "-W", "24", "-d", folder, str(port)],
                              stdout=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    return helper, f"http://127.0.0.1:{port}"


def client_case(guard, folder, case, runs, scratch):
    """(opd's line, h2load's line), each a median of alternating runs against one nghttpd."""
    size, connections, calls, _ = CLIENT[case]
    (scratch / "answer").write_bytes(b"x" * size)
    question(scratch / "question")
    helper, url = serve(scratch)
    helpers.append(helper)
    ours, theirs = [], []
    try:
        for _ in range(runs):
            ours += guard.measure([folder / "opd_bench_client", url, scratch / "question", str(size),
                                   str(connections), str(calls)])
            theirs += guard.measure(["h2load", "-n", str(calls), "-c", str(connections), "-m", "100", "-d",
                                     scratch / "question", f"{url}/answer"], h2load_line)
    finally:
        helpers.remove(helper)
        helper.terminate()
        helper.wait()
    return summary(case, ours), summary(f"{case}_h2load", theirs)


def client_cases(guard, folder, wanted, runs):
    """Measures the client actor beside h2load; returns the floors that were missed."""
    missed = []
    for case in [c for c in CLIENT if not wanted or c in wanted]:
        with tempfile.TemporaryDirectory() as scratch:
            ours, theirs = client_case(guard, folder, case, runs, pathlib.Path(scratch))
        emit(ours)
        emit(theirs)
        ratio, floor = ours["value"] / theirs["value"], CLIENT[case][3]
        print(json.dumps({"case": f"{case}_vs_h2load", "value": round(ratio, 3), "unit": "ratio",
                          "floor": floor}), flush=True)
        check(missed, f"{case} opd/h2load", ratio, floor, ratio >= floor)
    return missed


def callback_line(text):
    most = re.search(r"at most ([0-9]+) us of CPU in one callback", text)
    if most is None:
        raise json.JSONDecodeError("no figure of callbacks", text, 0)
    return [{"value": float(most.group(1)), "unit": "us", "versions": {}}]


def callback_cases(guard, folder, wanted, runs):
    """The most CPU time of a callback over some runs; returns the floors that were missed."""
    missed = []
    for case in [c for c in CALLBACKS if not wanted or c in wanted]:
        program, test = CALLBACKS[case]
        command = [folder.parent / "unit/actors" / program, test]
        line = summary(case, [guard.measure(command, callback_line)[0] for _ in range(runs)])
        line["value"] = line["max"]
        emit(line)
        check_floor(missed, line)
    return missed


def kernel_cases(guard, folder):
    for threads in ("1", "2"):
        for line in guard.measure([folder / "opd_bench_kernels", threads]):
            print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true", help="one run of each")
    parser.add_argument("--no-wait", action="store_true", help="measure on a busy machine too")
    parser.add_argument("--skip-kernels", action="store_true")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_intermixed_args() # cases after options, too
    guard = Guard(not options.no_wait)
    folder = options.folder.resolve()
    try:
        missed = actor_cases(guard, folder, options.cases, 1 if options.quick else RUNS)
        for name, command in groups(folder, options.quick).items():
            if not options.cases or name in options.cases:
                missed += group_cases(guard, command)
        missed += callback_cases(guard, folder, options.cases, 1 if options.quick else RUNS)
        missed += client_cases(guard, folder, options.cases, 1 if options.quick else RUNS)
        if not options.skip_kernels and not options.cases:
            kernel_cases(guard, folder)
    except Busy as busy:
        say(f"refused: {busy}")
        return 3
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        say(f"a benchmark failed: {error}")
        return 2
    if guard.disturbed:
        say(f"{guard.disturbed} measurements were made on a busy machine: do not quote them")
    say("floors missed: " + ", ".join(missed) if missed else "every floor held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
