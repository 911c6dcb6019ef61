#!/usr/bin/env python3
"""Checks who may include whom (CONTRIBUTING.md, "The rooms").

Includes point one way only: actors -> models, transports -> kernels -> core, and inside
core: env -> actor -> codec -> base. Foreign headers stay in the rooms that own them.
Usage: check_includes.py ROOT. Exit status 1 and one line per violation.
"""
import pathlib
import re
import sys

# room -> rooms it may include (its own is always allowed)
ALLOWED = {
    "include/opd": set(),
    "core/base": set(),
    "core/codec": {"core/base"},
    "core/metrics": {"core/base", "core/codec"},
    "core/config": {"core/base", "core/codec"},
    "core/actor": {"core/base", "core/codec", "core/metrics"},
    "core/env": {"core/base", "core/codec", "core/metrics", "core/actor"},
    "kernels": {"core/base"},
    "models": {"core/base", "core/codec", "kernels"},
    "transports": {"core/base", "core/codec", "core/metrics", "core/actor", "core/env", "kernels"},
    "actors": {"core/base", "core/codec", "core/metrics", "core/config", "core/actor", "core/env",
               "kernels", "models", "transports"},
    "cli": set(),
    "examples": set(),
}
# foreign header -> pattern of the files that may include it
FOREIGN = {
    "uv.h": r"^(core/env|transports)/[a-z0-9_]*_uv\.[ch]$",
    "nghttp2/": r"^transports/http2[a-z0-9_]*\.[ch]$",
    "openssl/": r"^transports/tls\.c$",
    "yaml.h": r"^core/config/",
    "msgpack": r"^core/codec/",
    "cuda": r"^kernels/cuda/",
    "cublas": r"^kernels/cuda/",
    "nccl.h": r"^(kernels/cuda|transports)/",
    "cblas.h": r"^kernels/cpu/",
    "immintrin.h": r"^kernels/cpu/",
    "pthread.h": r"^(core/env|kernels/cpu)/",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def room_of(path):
    matches = [room for room in ALLOWED if path.startswith(room + "/")]
    return max(matches, key=len) if matches else None


def violations(root):
    for file in sorted(root.rglob("*.[ch]")):
        path = file.relative_to(root).as_posix()
        room = room_of(path)
        if room is None:
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(2)
            for name, owner in FOREIGN.items():
                if (target.startswith(name) and match.group(1) == "<"
                        and not re.match(owner, path)):
                    yield f"{path}:{number}: <{target}> belongs to {owner}"
            if match.group(1) == "<" or target.startswith("opd/"):
                continue
            if not (root / target).exists():
                yield f"{path}:{number}: include \"{target}\" is not written from the root"
                continue
            other = room_of(target)
            if other != room and other not in ALLOWED[room]:
                yield f"{path}:{number}: {room} may not include {target}"


def main():
    found = list(violations(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "includes: every arrow points the right way")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
