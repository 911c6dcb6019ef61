#!/usr/bin/env python3
"""A teacher over https: the whole pipeline, who is trusted, and `opd serve` behind TLS."""
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

import e2e
from e2e import distil, expect, trained


def which(program):
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def need(*programs):
    for program in programs:
        if which(program) is None:
            raise e2e.Skip(f"{program} is missing")


def command(*words, code=0):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60)
    expect(done.returncode == code, f"{words}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def authority(work, name):
    """NAME.pem and NAME.key, valid for a day."""
    command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", f"/CN={name}", "-keyout", work.path / f"{name}.key", "-out", work.path / f"{name}.pem")


def certificate(work, name, issuer, hosts="DNS:localhost,IP:127.0.0.1"):
    path = work.path
    command("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", path / f"{name}.key", "-out", path / f"{name}.csr")
    extensions = work.write(f"{name}.ext", f"subjectAltName={hosts}\n")
    command("openssl", "x509", "-req", "-days", "1", "-in", path / f"{name}.csr", "-CA", path / f"{issuer}.pem",
            "-CAkey", path / f"{issuer}.key", "-extfile", extensions, "-out", path / f"{name}.pem")


def case_pipeline(work):
    """A teacher over TLS with certificates on both sides gives the weights of one in clear text."""
    need("openssl")
    before = trained(work)
    authority(work, "ca")
    certificate(work, "server", "ca")
    certificate(work, "client", "ca")
    path = work.path
    process, url = work.serve("--model", e2e.checkpoint(before, "teacher"), "--tls-cert", path / "server.pem",
                         "--tls-key", path / "server.key", "--tls-client-ca", path / "ca.pem")
    folder = work.run(distil(before, url=url, ca_file=str(path / "ca.pem"), cert_file=str(path / "client.pem"),
                             key_file=str(path / "client.key")), "secure")
    expect(not e2e.stop(process).expect(0).err, "the server complains")
    rows = e2e.metrics(folder, "opd", "train/samples")
    expect(rows and all(r["teacher/valid_share"] == 1 for r in rows), "tokens without a score")
    plain = work.run(distil(before), "plain")
    expect(e2e.weights(folder, "opd") == e2e.weights(plain, "opd"), "TLS changed the weights")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def nginx(work, to_port, extra):
    """nginx with TLS and server.pem in front of a port; its own port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (pathlib.Path(__file__).resolve().parents[1] / "peers" / "nginx.conf.in").read_text()
    tls = f"ssl_certificate {work.path}/server.pem; ssl_certificate_key {work.path}/server.key;"
    for word, value in {"FOLDER": work.path, "LISTEN": "ssl http2", "EXTRA": f"{tls} {extra}", "PORT": port,
                        "APP_PORT": to_port}.items():
        text = text.replace(f"@{word}@", str(value))
    words = ["setpriv", "--pdeathsig", "KILL", which("nginx"), "-c", work.write("nginx.conf", text)]
    with open(work.fresh("nginx"), "wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            e2e.wait_for(lambda: listens(port) or process.poll() is not None, "nginx")
            expect(process.poll() is None, pathlib.Path(log.name).read_text())
            yield port
        finally:
            process.kill()


def case_behind_nginx(work):
    """The whole pipeline through a proxy that ends its connections every twenty requests: the same weights, and
    nothing is seen of it."""
    need("openssl", "nginx")
    before = trained(work)
    authority(work, "ca")
    certificate(work, "server", "ca")
    process, url = work.serve("--model", e2e.checkpoint(before, "teacher"))
    to_port = int(url.rsplit(":", 1)[1])
    with nginx(work, to_port, "keepalive_requests 20;") as port:
        ca_file = str(work.path / "ca.pem")
        folder = work.run(distil(before, url=f"https://localhost:{port}", ca_file=ca_file), "behind")
    expect(not e2e.stop(process).expect(0).err, "the server complains")
    connections = {line.split()[0] for line in (work.path / "access.log").read_text().splitlines()}
    expect(len(connections) >= 3, f"nginx has seen connections {connections}")
    rows = e2e.metrics(folder, "opd", "train/samples")
    expect(rows and all(r["teacher/valid_share"] == 1 for r in rows), "tokens without a score")
    expect(e2e.weights(folder, "opd") == e2e.weights(work.run(distil(before), "plain"), "opd"), "other weights")


def case_untrusted(work):
    """Refused at once, with the reason; believed by explicit wish, with a warning."""
    need("openssl")
    before = trained(work)
    for name in ("ca", "other"):
        authority(work, name)
    certificate(work, "server", "ca")
    certificate(work, "elsewhere", "ca", "DNS:elsewhere.example")
    path, model = work.path, e2e.checkpoint(before, "teacher")
    process, url = work.serve("--model", model, "--tls-cert", path / "server.pem", "--tls-key", path / "server.key")
    begin = time.monotonic()
    config = work.write("other.yaml", distil(before, url=url, ca_file=str(path / "other.pem")))
    work.opd("run", config, "--set", "run.name=other").expect(5, "unable to get local issuer certificate", "ca_file")
    config = work.write("system.yaml", distil(before, url=url))
    work.opd("run", config, "--set", "run.name=system").expect(5, "certificate is not valid")
    expect(time.monotonic() - begin < 30, "a certificate that cannot be trusted was waited for")
    folder = work.run(distil(before, url=url, verify=False), "believing")
    expect("is not verified" in (folder / "log").read_text(), "no warning in the log")
    e2e.stop(process).expect(0)
    process, url = work.serve("--model", model, "--tls-cert", path / "elsewhere.pem", "--tls-key", path / "elsewhere.key")
    config = work.write("host.yaml", distil(before, url=url, ca_file=str(path / "ca.pem")))
    work.opd("run", config, "--set", "run.name=host").expect(5, "IP address mismatch", "another host")
    e2e.stop(process).expect(0)


def case_serve_to_curl(work):
    need("openssl", "curl")
    before = trained(work)
    authority(work, "ca")
    certificate(work, "server", "ca")
    path, model = work.path, e2e.checkpoint(before, "teacher")
    process, url = work.serve("--model", model, "--host", "127.0.0.1", "--tls-cert", path / "server.pem",
                         "--tls-key", path / "server.key")
    port = url.rsplit(":", 1)[1]
    info = json.loads(command("curl", "--silent", "--show-error", "--cacert", path / "ca.pem",
                              f"https://localhost:{port}/model_info"))
    expect(info["vocab_size"] == 259, str(info))
    body = work.write("body.json", {"text": "1+1=", "sampling_params": {"max_new_tokens": 3, "temperature": 0}})
    answer = json.loads(command("curl", "--silent", "--show-error", "--cacert", path / "ca.pem", "--http2",
                                f"https://127.0.0.1:{port}/generate", "--data-binary", f"@{body}"))
    expect(len(answer["output_ids"]) <= 3, str(answer))
    command("curl", "--silent", "--show-error", f"https://localhost:{port}/model_info", code=60)  # the system's store
    e2e.stop(process).expect(0)


def case_serve_without_its_files(work):
    need("openssl")
    before = trained(work)
    authority(work, "ca")
    path, model = work.path, e2e.checkpoint(before, "teacher")
    work.opd("serve", "--model", model, "--tls-key", path / "ca.key").expect(2, "go with --tls-cert")
    work.opd("serve", "--model", model, "--tls-cert", path / "none.pem").expect(2, "none.pem does not exist")
    work.opd("serve", "--model", model, "--tls-cert", path / "ca.pem").expect(2, "ca.pem cannot be used", "private key")


if __name__ == "__main__":
    e2e.main(globals())
