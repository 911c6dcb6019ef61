#!/usr/bin/env python3
"""A teacher that somebody else runs: its key, what it can do, whether it can be believed."""
import e2e
import gate
from e2e import expect

KEY = "sk-e2e-0123456789abcdefghijklmnop"


def trained(work):
    """The folder of a run of the stages before the distillation."""
    config = e2e.recipe()
    config["stages"] = config["stages"][:3]
    return work.run(config, "before")


def serve(work, *args):
    process = work.start("serve", "--port", "0", *args)
    e2e.wait_for(lambda: "ready on http" in process.out() or not process.running(), "the ready line")
    expect(process.running(), process.err())
    return process.out().split("ready on ")[1].split()[0]


def port(url):
    return int(url.rsplit(":", 1)[1])


def distil(before, **teacher):
    """The recipe's last stage alone, from the checkpoints of an earlier run."""
    config = e2e.recipe()
    config["stages"] = [config["stages"][0], config["stages"][3]]
    stage = e2e.stage(config, "opd")
    stage["model"] = {"path": str(e2e.checkpoint(before, "student"))}
    stage["teachers"] = {"main": teacher}
    return config


def expect_hidden(work, process_texts):
    """The key stands nowhere in what the runs left and said."""
    for path in (work.path / "runs").rglob("*"):
        expect(not path.is_file() or KEY.encode() not in path.read_bytes(), f"{path} holds the key")
    for text in process_texts:
        expect(KEY not in text, f"the key was printed:\n{text}")


def case_key_is_shown_and_hidden(work):
    """Every request shows the key; nothing that the run leaves does, at the most talkative log level."""
    before = trained(work)
    door = gate.Gate(port(serve(work, "--model", e2e.checkpoint(before, "teacher"))), KEY)
    config = distil(before, url=door.url, api_key_env="OPD_E2E_KEY")
    config["run"].update(log_level="debug", trace=True)
    done = work.opd("run", work.write("keyed.yaml", config), "--set", "run.name=keyed", env={"OPD_E2E_KEY": KEY})
    done.expect(0)
    expect(door.shown >= 48 and e2e.summary(work.folder("keyed"))["stages"][-1]["invalid_tokens"] == 0,
           f"{door.shown} requests were let in")
    config["stages"][1]["teachers"]["main"] = {"url": door.url, "api_key_file": work.write("key.txt", KEY + "\nnot this\n")}
    filed = work.opd("run", work.write("filed.yaml", config), "--set", "run.name=filed")
    filed.expect(0)
    door.close()
    expect_hidden(work, [done.out, done.err, filed.out, filed.err])


def case_key_that_is_missing_or_wrong(work):
    """Each ends the run at its start, with what to set, and without the key."""
    before = trained(work)
    door = gate.Gate(port(serve(work, "--model", e2e.checkpoint(before, "teacher"))), "another")
    config = distil(before, url=door.url)
    path = work.write("keyless.yaml", config)
    texts = [work.opd("run", path, "--set", "run.name=a").expect(5, "wants an API key", "api_key_env").err]
    config = distil(before, url=door.url, api_key_env="OPD_E2E_KEY")
    path = work.write("keyed.yaml", config)
    texts.append(work.opd("run", path, "--set", "run.name=b").expect(2, "OPD_E2E_KEY is not set").err)
    texts.append(work.opd("run", path, "--set", "run.name=c", env={"OPD_E2E_KEY": KEY}).expect(5, "does not accept").err)
    config = distil(before, url=door.url, api_key_file="no-such-file")
    work.opd("run", work.write("file.yaml", config), "--set", "run.name=d").expect(2, "no-such-file")
    config = distil(before, url=door.url, api_key_env=KEY)  # what people do by accident
    texts.append(work.opd("run", work.write("pasted.yaml", config), "--set", "run.name=e").expect(2, "does not belong").err)
    door.close()
    expect_hidden(work, texts)


if __name__ == "__main__":
    e2e.main(globals())
