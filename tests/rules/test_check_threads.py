#!/usr/bin/env python3
"""Tests check_threads.py: planted uses are found, words in comments and strings are not, a row
without its test is named. Usage: test_check_threads.py ROOT. Exit status 1 on the first failure.
"""
import pathlib
import shutil
import sys
import tempfile

import check_threads

PLANTS = {
    "core/actor/a.c": "static __thread int x;",
    "core/base/b.c": "#include <stdatomic.h>",
    "models/c.c": "static volatile int stop;",
    "actors/d.c": "void f(void) { pthread_mutex_lock(&m); }",
    "kernels/e.c": "int g(int *x) { return __sync_fetch_and_add(x, 1); }",
    "transports/f_uv.c": "int h(void) { return uv_queue_work(l, w, a, b); }",
    "transports/g_uv.c": "int i(void) { return uv_async_send(a); }",
    "cli/h.c": "_Atomic int n;",
    "include/opd/i.h": "int j(void);\n\nextern _Thread_local int k;",
    "core/env/j.c": "uv_mutex_t lock;",
    "kernels/cuda/k.cu": "int l(int *x) { return __atomic_load_n(x, 5); }",
}
INNOCENT = ('/* a pthread_mutex would be wrong; volatile too */\n// __atomic_load_n\n'
            'const char *m = "pthread_create failed"; int thread_count; int semaphore;\n')


def copy_tree(root, target):
    for name in (*check_threads.ROOMS, "tests", "docs"):
        shutil.copytree(root / name, target / name)


def expect(condition, what):
    if not condition:
        print(f"check_threads: {what}")
        sys.exit(1)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder)
        copy_tree(root, tree)
        before = list(check_threads.violations(tree))
        (tree / "core/innocent.c").write_text(INNOCENT)
        expect(list(check_threads.violations(tree)) == before, "it takes comments or strings for code")
        for path, text in PLANTS.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(f"/* planted */\n{text}\n")
            found = [line for line in check_threads.violations(tree) if line.startswith(path + ":")]
            expect(len(found) == 1, f"it does not find {text!r} in {path}")
            (tree / path).unlink()
        page = tree / "docs/threads.md"
        text = page.read_text()
        page.write_text(text.replace("`core/env/lane.c`", "`core/env/spin.h`"))
        found = "\n".join(check_threads.violations(tree))
        expect("core/env/lane.c:" in found, "it does not miss a file that the page forgot")
        expect("core/env/spin.h uses nothing" in found, "it does not see a row that is out of date")
        page.write_text(text.replace("`lane.no_wake", "`lane.some_wake"))
        expect("there is no test lane.some_wake" in "\n".join(check_threads.violations(tree)),
               "it does not miss a test that is gone")
    print("check_threads: planted uses are found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
