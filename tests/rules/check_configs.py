#!/usr/bin/env python3
"""Checks that every configuration we ship loads, and that its effective form, as `opd config`
prints it, loads again to the same text.
Usage: check_configs.py ROOT OPD. Exit status 1 and one line per file that does not.
"""
import pathlib
import subprocess
import sys
import tempfile


def effective(program, path, root):
    """The text that `opd config` prints, and what was wrong ("" if nothing)."""
    done = subprocess.run([program, "config", str(path)], cwd=root, capture_output=True, text=True,
                          timeout=30)
    if done.returncode != 0:
        return "", f"{path}: exit status {done.returncode}: {done.stderr.strip()}"
    return done.stdout, ""


def problem_of(program, path, root, work):
    first, problem = effective(program, path, root)
    if problem:
        return problem
    again = pathlib.Path(work) / path.name
    again.write_text(first)
    second, problem = effective(program, again, root)
    if problem:
        return f"{path}: its effective form does not load: {problem}"
    return "" if first == second else f"{path}: its effective form loads to something else"


def main():
    root, program = pathlib.Path(sys.argv[1]), sys.argv[2]
    files = sorted(root.glob("configs/*.yaml")) + sorted(root.glob("examples/*/*.yaml"))
    if len(files) < 4:
        print(f"only {len(files)} configurations were found below {root}")
        return 1
    with tempfile.TemporaryDirectory() as work:
        found = [problem for file in files if (problem := problem_of(program, file, root, work))]
    print("\n".join(found) or f"configs: {len(files)} files load")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
