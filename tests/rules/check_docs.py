#!/usr/bin/env python3
"""Checks that the documents say what the program says: metrics, error codes, messages, commands,
options, flags and exit codes are those of the source, and every link leads somewhere.
Usage: check_docs.py ROOT OPD. Exit status 1 and one line per difference.
"""
import pathlib
import re
import subprocess
import sys

OPTION = re.compile(r"(?<![\w-])--[a-z0-9]+(?:-[a-z0-9]+)*(?![\w-])")
# Options of other programs and of tests that the documents name, and the one that `opd run` gives its child.
FOREIGN = {"--http2-prior-knowledge", "--cacert", "--enable-http2", "--exit-with-parent", "--output-on-failure",
           "--test-dir", "--preset", "--build", "--target", "--depth", "--seeds", "--twice"}
COMMANDS = ("run", "serve", "eval", "generate", "config", "teacher")


def table(text, macro):
    """The lines of an X-macro: what stands in X(...) or M(...) after `#define macro`."""
    body = re.search(r"#define " + macro + r"\(\w\)(.*?[^\\])\n", text, re.S)
    return body.group(1) if body else ""


def both_ways(where, wanted, written, what):
    for name in sorted(wanted - written):
        yield f"{where}: {what} {name} is missing"
    for name in sorted(written - wanted):
        yield f"{where}: {what} {name} does not exist"


def first_cells(text, pattern):
    """What matches in the first cell of the tables' rows."""
    return {name for row in re.findall(r"^\| *([^|]*)\|", text, re.M)
            for name in re.findall(pattern, row)}


def check_metrics(root):
    source = table((root / "actors/metrics.h").read_text(), "OPD_METRIC_TABLE")
    wanted = set(re.findall(r'X\(\w+, "([^"]+)"\)', source))
    written = first_cells((root / "docs/metrics.md").read_text(), r"`([a-z]+/[a-z0-9_/]+)`")
    evaluation = {name for name in written if name.startswith("eval/")}
    monitor = (root / "actors/monitor/monitor_actor.c").read_text()
    sets = (root / "actors/evaluator/sets.c").read_text()
    wanted |= set(re.findall(r'X\("(eval/[a-z_/]+)"', sets)) | {"train/step"}
    if not evaluation or '"train/step"' not in monitor or len(wanted) < 20:
        yield "docs/metrics.md: the metrics of the source were not found"
    yield from both_ways("docs/metrics.md", wanted, written, "the metric")


def check_errors(root):
    source = table((root / "include/opd/err.h").read_text(), "OPD_ERR_TABLE")
    wanted = set(re.findall(r"X\((\w+), \d+,", source))
    written = first_cells((root / "docs/errors.md").read_text(), r"`([A-Z_]+)`")
    yield from both_ways("docs/errors.md", wanted, written, "the code")


def check_messages(root):
    source = table((root / "actors/messages.h").read_text(), "OPD_MESSAGE_TABLE")
    wanted = set(re.findall(r"M\((\w+), \w+\)", source))
    written = first_cells((root / "docs/actors.md").read_text(), r"`([A-Z]+)`")
    yield from both_ways("docs/actors.md", wanted, written, "the message")


def words_of(path):
    """A document's text; of a manual page with `.Fl -name` as --name."""
    return re.sub(r"\bFl -", "--", path.read_text())


def check_options(root, help_text):
    known = set(OPTION.findall(help_text))
    for name in ("README.md", "docs/opd.1", "docs/teacher.md", "docs/checkpoints-and-resume.md"):
        text = words_of(root / name)
        for option in sorted(set(OPTION.findall(text)) - known - FOREIGN):
            yield f"{name}: {option} is no option of opd --help"
        for command in sorted(set(re.findall(r"`opd ([a-z]+)\b", text)) - set(COMMANDS)):
            yield f"{name}: there is no command opd {command}"
    for option in sorted(known - set(OPTION.findall(words_of(root / "docs/opd.1")))):
        yield f"docs/opd.1: {option} is missing"
    for name in ("README.md", "docs/opd.1"):
        text = (root / name).read_text()
        for command in COMMANDS:
            if f"opd {command}" not in text and f".Cm {command}" not in text:
                yield f"{name}: the command {command} is missing"


def exit_codes(text):
    return dict(re.findall(r"(?:^|  )(\d+)  ([a-z].*?)(?=   |$)", text, re.M))


def check_exit_codes(root, help_text):
    known = exit_codes(help_text[help_text.index("exit codes:"):])
    written = set(re.findall(r"^\| (\d+) \|", (root / "README.md").read_text(), re.M))
    if len(known) < 8:
        yield "opd --help: the exit codes were not found"
    yield from both_ways("README.md", set(known), written, "the exit code")


def check_links(root):
    pages = [root / "README.md", root / "CONTRIBUTING.md", root / "CHANGELOG.md",
             root / "examples/README.md", *sorted((root / "docs").glob("*.md"))]
    linked = set()
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" in target:
                continue
            path = (page.parent / target).resolve()
            linked.add((page.name, path))
            if not path.exists():
                yield f"{page.relative_to(root)}: the link {target} leads nowhere"
    tour = {path for name, path in linked if name == "index.md"}
    for page in sorted((root / "docs").glob("*.md")):
        if page.name != "index.md" and page.resolve() not in tour:
            yield f"docs/index.md: {page.name} is not on the tour"


def main():
    root, program = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    help_text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True,
                               timeout=30).stdout
    found = [*check_metrics(root), *check_errors(root), *check_messages(root),
             *check_options(root, help_text), *check_exit_codes(root, help_text),
             *check_links(root)]
    print("\n".join(found) or "docs: they say what the program says")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
