#!/usr/bin/env python3
"""The judge of length.py in msgpack: reward.command: "python3 examples/reward/length_msgpack.py", reward.encoding:
msgpack. Needs the package msgpack (Debian: python3-msgpack).

A question is a map, an answer is a map, one behind the other on stdin and stdout. So stdout is for answers alone: what
is printed for people goes to stderr, and from there to the run's log.
"""
import sys

import msgpack

from length import answer


def main():
    for question in msgpack.Unpacker(sys.stdin.buffer, read_size=1):  # as soon as it is there
        sys.stdout.buffer.write(msgpack.packb(answer(question)))
        sys.stdout.buffer.flush()  # opd waits for it


if __name__ == "__main__":
    main()
