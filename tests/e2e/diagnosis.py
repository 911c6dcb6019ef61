#!/usr/bin/env python3
"""What a running `opd run` says about itself: the topology on a signal, the trace of each sample's way."""
import collections
import json
import os
import re
import signal

import e2e
from e2e import expect

END = "---- end of the topology ----"


def case_topology_on_a_signal(work):
    """SIGUSR1 prints who is there and what they wait for; the run goes on to its end."""
    config = e2e.recipe(steps=40)
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    e2e.wait_for_step(process, work.folder("c"), "opd", 3)
    for count in (1, 2):
        process.signal(signal.SIGUSR1)
        e2e.wait_for(lambda: process.err().count(END) == count, f"topology number {count}")
    done = process.wait()
    done.expect(0, r"system: \d+ actors, \d+ of \d+ messages in use", r"loop: \d+ turns",
                r"actor trainer<\d+\.1> alive: mailbox \d+", r"actor rollout<", r"actor batcher<", r"actor reward<",
                r"link to batcher<\d+\.1>: \d+ of \d+ messages, \d+ of \d+ bytes",
                r"lane rollout: \d of 4 jobs", r"slot: version \d+", r"---- the newest records ----",
                r"handled +\S+ -> \S+ \w+ #\d+ \d+ B")
    text = (work.folder("c") / "log").read_text()
    expect(text.count(END) == 2 and "actor trainer<" in text, "the topology is not in the run's log")
    expect(len(e2e.metrics(work.folder("c"), "opd", "train/samples")) == 40, "the run did not go on")


def trace_of(work, **settings):
    config = e2e.changed(e2e.recipe(steps=4), run__trace=True)
    e2e.stage(config, "opd").update(settings)
    folder = work.run(config, "r")
    with open(folder / "trace-opd.json", encoding="utf-8") as file:
        return json.load(file)


def case_trace(work):
    """Valid JSON in order of time; every sample is seen on each hop of its way, waiting, then held."""
    trace = trace_of(work)
    expect(trace["otherData"]["dropped_events"] == 0, trace["otherData"])
    events = [e for e in trace["traceEvents"] if e["ph"] != "M"]
    rows = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    expect(all(a["ts"] <= b["ts"] for a, b in zip(events, events[1:])), "times fall")
    expect({"trainer", "rollout", "panel", "teacher", "lane rollout", "lane trainer"} <= set(rows.values()), rows)
    ways, spans = collections.defaultdict(set), collections.defaultdict(list)
    for e in events:
        if e["ph"] in "be":
            ways[e["args"]["sample"]].add(e["cat"])
            spans[e["cat"], e["name"], e["args"]["message"]].append((e["ph"], e["ts"]))
    hops = {"rollout > panel rollout", "panel > teacher score", "rollout > reward rollout", "rollout > batcher rollout",
            "panel > batcher scores", "reward > batcher reward", "batcher > trainer sample"}
    members = [f"{group}.{member}" for group in range(16) for member in range(2)]
    for member in members:
        expect(hops <= ways[member], f"sample {member}: {sorted(ways[member])}")
    for what, ends in spans.items():
        expect([ph for ph, _ in ends] == ["b", "e"], f"{what}: {ends}")
    for e in events:
        expect(e["ph"] != "X" or (e["dur"] >= 0 and rows[e["tid"]]), e)
    jobs = {rows[e["tid"]]: e["name"] for e in events if e["ph"] == "X" and rows[e["tid"]].startswith("lane ")}
    expect(jobs.get("lane rollout") == "rollout" and jobs.get("lane trainer") == "trainer", jobs)


def case_stall(work):
    """A teacher that never answers: the log says once what all wait for, and the run can be stopped."""
    config = e2e.changed(e2e.recipe(steps=40), run__stall_report_s=1)
    process = work.start("run", work.write("c.yaml", config), "--set", "run.name=c")
    folder = work.folder("c")
    e2e.wait_for_step(process, folder, "opd", 3)
    child, = process.children()
    os.kill(child, signal.SIGSTOP)
    said = e2e.wait_for(lambda: re.search(r"no progress for [\d.]+ s: .*", process.err()), "a report of the stall")
    expect(re.search(r"teacher keeps \d+ score, the oldest for [\d.]+ m?s", said.group()), said.group())
    os.kill(child, signal.SIGCONT)
    done = process.wait()
    done.expect(0, "things move again, after ")


if __name__ == "__main__":
    e2e.main(globals())
