#!/usr/bin/env python3
"""A judge for opd that prefers short right answers: reward.command: "python3 examples/reward/length.py".

Reads a question per line from stdin ({"id", "prompt", "response", "label", "source"}; with reward.group
"responses", a list) and writes {"id", "reward"} (or "rewards") per line to stdout. What it prints to stderr goes to
the run's log. If it dies, opd starts it again and goes on without the sample that it had in hand.
"""
import json
import sys


def judge(response, label):
    right = response.strip().endswith(label)
    return (1.0 if right else 0.0) - 0.001 * len(response)


def answer(question):
    if "responses" in question:
        rewards = [judge(text, question["label"]) for text in question["responses"]]
        return {"id": question["id"], "rewards": rewards}
    return {"id": question["id"], "reward": judge(question["response"], question["label"])}


def main():
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # opd waits for the line


if __name__ == "__main__":
    main()
