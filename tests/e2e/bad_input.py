#!/usr/bin/env python3
"""Bad input: one paragraph on stderr that names place and remedy, the exit code of `opd --help`'s
table, and no run folder left behind, so that the corrected command runs without --force."""
import json
import os
import shutil
import socket
import struct
import subprocess
import time

import e2e
from e2e import expect

USAGE, DATA, RESOURCE, PEER = 2, 3, 4, 5


def models(work):
    """A student and a teacher, made by a run; they stay as folders `student` and `teacher`."""
    config = e2e.recipe()
    config["stages"] = config["stages"][:3]
    folder = work.run(config, "models")
    for name in ("teacher", "student"):
        shutil.copytree(e2e.checkpoint(folder, name), work.path / name)
    shutil.copy(folder / "data" / "problems-opd.jsonl", work.path / "data.jsonl")


def distillation(**settings):
    return e2e.changed({"run": {"dir": "runs", "name": "c", "kind": "rl"}, "data": {"path": "data.jsonl"},
                        "model": {"path": "student"}, "teachers": {"main": {"path": "teacher"}},
                        "opd": {"enabled": True, "type": "sglang", "only_reward": True},
                        "rollout": {"batch_prompts": 2, "samples_per_prompt": 2, "max_response_len": 8},
                        "train": {"steps": 2}}, **settings)


def refused(work, config, code, *texts, args=()):
    """The run is refused as promised; config: settings, or a file's text."""
    path = work.write("c.yaml", config)
    done = work.opd("run", path, *args).expect(code, *texts)
    one_paragraph(done)
    left = list(work.path.glob("runs/c/*"))
    expect(not work.folder("c").exists(), f"the run folder stays behind: {left}")


def one_paragraph(done):
    expect(done.err.startswith("opd ") and done.err.count("\n") == 1, f"not one paragraph:\n{done.err}")
    expect(len(done.err) < 1100, f"{len(done.err)} characters")
    expect(not done.out, f"on stdout: {done.out}")


def both_types(work, code, *texts, **settings):
    for kind in ("sglang", "megatron"):
        refused(work, distillation(opd__type=kind, **settings), code, *texts)


def case_misspelt_key(work):
    text = "run: {dir: runs, name: c}\ntrain:\n  steps: 2\n  learning_rte: 1.0\n"
    refused(work, text.replace("learning_rte", "warmup_step"), USAGE, r"c\.yaml:4:3", "unknown key", "train.warmup_steps")
    refused(work, "trian: {steps: 2}\n", USAGE, r"c\.yaml:1:1", "train")


def case_wrong_type(work):
    refused(work, "run: {dir: runs, name: c}\ntrain:\n  steps: soon\n", USAGE, r"c\.yaml:3:10", "train.steps", "number")
    refused(work, "rollout: [1, 2]\n", USAGE, r"c\.yaml:1", "rollout")
    refused(work, "train: {lr: -1}\n", USAGE, r"c\.yaml:1", "train.lr")


def case_broken_yaml(work):
    refused(work, "run: {dir: runs\ntrain: ]\n", USAGE, r"c\.yaml:2")


def case_contradictory_settings(work):
    models(work)
    refused(work, distillation(teachers__main__url="http://127.0.0.1:1"), USAGE, "url", "path")
    refused(work, distillation(opd__enabled=False), USAGE, "only_reward")
    refused(work, distillation(), USAGE, "opd.kl_coef", args=("--opd-kl-coef", "2", "--set", "opd.kl_coef=3"))


def case_missing_files(work):
    models(work)
    done = work.opd("run", "nowhere.yaml").expect(USAGE, r"nowhere\.yaml", "correct the path")
    one_paragraph(done)
    refused(work, distillation(data__path="no.jsonl"), USAGE, r"data\.path: no\.jsonl", "correct the path")
    refused(work, distillation(model__path="no"), USAGE, r"model\.path: no/", "correct the path")
    both_types(work, USAGE, r"teachers\.main\.path: no", "does not exist|correct the path", teachers__main__path="no")
    refused(work, distillation(eval={"path": "no.jsonl"}), USAGE, r"eval\.path: no\.jsonl")
    for command in ("serve", "generate"):
        one_paragraph(work.opd(command, "--model", "no", *(["--prompt", "1"] if command == "generate" else []))
                      .expect(USAGE, "no/config.json", "correct the path"))


def case_broken_jsonl(work):
    models(work)
    lines = (work.path / "data.jsonl").read_text().splitlines()
    for broken, code in (('{"prompt": "1+1=", ', DATA), ("[1, 2]", DATA), ("\x00", DATA),
                         ('{"prompt": [7], "label": "7"}', USAGE)):
        work.write("broken.jsonl", "\n".join(lines[:4] + [broken] + lines[4:]) + "\n")
        refused(work, distillation(data__path="broken.jsonl"), code, r"data\.path: broken\.jsonl:5")
    refused(work, distillation(data__prompt_key="question"), USAGE, r"data\.jsonl:1", '"question"')
    work.write("empty.jsonl", "")
    refused(work, distillation(data__path="empty.jsonl"), (USAGE, DATA), r"empty\.jsonl")


def header_of(data):
    size, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + size]), data[8 + size:]


def with_header(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def case_lying_safetensors(work):
    models(work)
    good = (work.path / "student" / "model.safetensors").read_bytes()
    header, body = header_of(good)
    name = next(n for n in header if n != "__metadata__")
    shifted = json.loads(json.dumps(header))
    shifted[name]["data_offsets"] = [0, len(body) + 4]
    wide = json.loads(json.dumps(header))
    wide[name]["shape"][0] += 1
    lacking = {n: t for n, t in header.items() if n != name}
    lies = {"empty": b"", "cut": good[:-8], "header cut": good[:40], "huge header": struct.pack("<Q", 1 << 60) + good[8:],
            "offsets": with_header(shifted, body), "shape": with_header(wide, body),
            "no JSON": struct.pack("<Q", 8) + b"{{{{{{{{" + body, "tensor missing": with_header(lacking, body)}
    for what, data in lies.items():
        (work.path / "student" / "model.safetensors").write_bytes(data)
        done = work.opd("generate", "--model", "student", "--prompt", "1+1=")
        expect(done.code in (USAGE, DATA), f"{what}: exit code {done.code}: {done.err}")
        expect("student/model.safetensors" in done.err, f"{what}: {done.err}")
        one_paragraph(done)
    refused(work, distillation(), (USAGE, DATA), r"model\.path: student/model\.safetensors")
    (work.path / "student" / "model.safetensors").write_bytes(good)
    (work.path / "teacher" / "model.safetensors").write_bytes(lies["cut"])
    refused(work, distillation(opd__type="megatron"), DATA, r"teacher/model\.safetensors")
    refused(work, distillation(), PEER, "teacher main", r"teacher/model\.safetensors")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def case_teacher_with_another_eos(work):
    models(work)
    for name in ("config.json", "generation_config.json"):
        edit_json(work.path / "teacher" / name, eos_token_id=0)
    both_types(work, USAGE, "teachers.main.path", "EOS 0 and 2")


def case_teacher_with_another_tokenizer(work):
    models(work)
    path = work.path / "teacher" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["A"], vocab["B"] = vocab["B"], vocab["A"]
    path.write_text(json.dumps(tokenizer))
    both_types(work, USAGE, "teachers.main.path", "do not share a vocabulary", "the tokenizers differ")


def case_teacher_server_of_another_family(work):
    """A server is asked for its EOS and tokenizer before the first step."""
    models(work)
    for name in ("config.json", "generation_config.json"):
        edit_json(work.path / "teacher" / name, eos_token_id=0)
    process, url = work.serve("--model", "teacher")
    teachers = {"main": {"url": url}}
    refused(work, distillation(teachers=teachers), USAGE, "end-of-text id: 0 against 2", url.removeprefix("http://"))
    e2e.stop(process).expect(0)
    models_again = json.loads((work.path / "student" / "config.json").read_text())
    for name in ("config.json", "generation_config.json"):
        edit_json(work.path / "teacher" / name, eos_token_id=models_again["eos_token_id"])
    process, url = work.serve("--model", "teacher")
    work.opd("run", work.write("c.yaml", distillation(teachers={"main": {"url": url}}))).expect(0)
    e2e.stop(process).expect(0)


def case_unreachable_teacher(work):
    models(work)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        teachers = {"main": {"url": url, "start_timeout_s": 0.5}}
        refused(work, distillation(teachers=teachers), PEER, "teacher main", url.removeprefix("http://"), "start_timeout_s",
                "--enable-http2")


def case_teacher_that_speaks_no_http2(work):
    models(work)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        teachers = {"main": {"url": url, "start_timeout_s": 0.5}}  # accepts, never answers
        begin = time.monotonic()
        refused(work, distillation(teachers=teachers), PEER, "teacher main", "start_timeout_s")
        expect(time.monotonic() - begin < 6, "start_timeout_s 0.5 took more than 6 s")


def case_busy_port(work):
    models(work)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        one_paragraph(work.opd("serve", "--model", "student", "--port", port).expect(USAGE, port, "in use", "choose another"))


def case_existing_run_folder(work):
    models(work)
    path = work.write("c.yaml", distillation())
    work.opd("run", path).expect(0)
    before = e2e.weights(work.folder("c"))
    one_paragraph(work.opd("run", path).expect(USAGE, "runs/c", "--resume", "--force", "run.name"))
    done = work.opd("run", path, "--resume", "--set", "train.lr=0.5").expect(USAGE, r"config\.yaml:\d+", "--resume", '"lr: 1e-06', '"lr: 0.5')
    one_paragraph(done)
    expect(e2e.weights(work.folder("c")) == before, "a refused run changed the folder")
    one_paragraph(work.opd("run", path, "--resume", "--force").expect(USAGE, "--resume", "--force"))
    work.opd("run", path, "--force").expect(0)
    expect(e2e.weights(work.folder("c")) == before, "--force gives another result")
    (work.path / "runs" / "d").mkdir()
    (work.path / "runs" / "d" / "thesis.tex").write_text("mine")
    one_paragraph(work.opd("run", path, "--force", "--set", "run.name=d").expect(USAGE, "runs/d", "no run folder"))
    expect((work.path / "runs" / "d" / "thesis.tex").exists(), "--force removed a folder that is not opd's")
    one_paragraph(work.opd("run", path, "--resume", "--set", "run.name=new").expect(USAGE, "runs/new", "nothing to resume"))
    expect(not (work.path / "runs" / "new").exists(), "a refused --resume made a folder")


def case_held_out_prompts_in_the_training_data(work):
    models(work)
    lines = (work.path / "data.jsonl").read_text().splitlines()
    work.write("held.jsonl", '{"prompt": "0+0=", "label": "0"}\n' + lines[9] + "\n")
    config = distillation(eval={"path": "held.jsonl", "max_response_len": 8})
    refused(work, config, USAGE, r"held\.jsonl:2", r"data\.jsonl:10", "require_disjoint")
    config["eval"]["require_disjoint"] = False
    work.opd("run", work.write("c.yaml", config)).expect(0)


def mounted(work, size):
    """A tiny file system at disk/, where root may mount one."""
    disk = work.path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "opd-test", str(disk)], capture_output=True)
    if done.returncode != 0:
        raise e2e.Skip("no tmpfs can be mounted here")
    return disk


def case_full_disk(work):
    """The checkpoint does not fit: an error that names it, and no half-written one."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        raise e2e.Skip("mounting a small disk needs root")
    models(work)
    disk = mounted(work, "96k")
    try:
        path = work.write("c.yaml", distillation(run__dir=str(disk)))
        done = work.opd("run", path).expect(RESOURCE, "No space left", "step-000002", "free space")
        one_paragraph_of_stderr(done)
        expect(not list(disk.glob("c/checkpoints/**/*.safetensors")), "a half-written checkpoint")
        expect(not list(disk.glob("c/checkpoints/*")), f"left: {list(disk.glob('c/checkpoints/*'))}")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    done = work.opd("generate", "--model", "student", "--prompt", "1+1=").expect(0)


def one_paragraph_of_stderr(done):
    expect(done.err.count("\n") == 1, f"not one paragraph:\n{done.err}")


if __name__ == "__main__":
    e2e.main(globals())
