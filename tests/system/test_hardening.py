"""The hardening guide: its commands make the files, its settings start, and stop what they say."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

from documents import blocks
from harness import BINARY, ROOT, process, server, until
from secured import ask, run, trusting

MODEL = """
def predict(inputs):
    try:
        found = open("SECRET").read()
    except PermissionError:
        found = "nothing"
    return ['"' + found.strip()[:4] + '"' for _ in inputs]
"""


def moved(text: str, folder: Path) -> str:
    """With the folders of the machine in one that the test has."""
    for name in ("/etc/clipper", "/var/lib/clipper", "/srv/models"):
        text = text.replace(name, f"{folder}{name}")
    return text


def test_the_guide_makes_a_server_that_stops_what_it_says(tmp_path: Path) -> None:
    document = "docs/hardening.md"
    (commands,) = (block for block in blocks(document) if block.language == "sh")
    (settings,) = (block for block in blocks(document) if block.language == "toml")
    etc = tmp_path / "etc" / "clipper"
    etc.mkdir(parents=True)
    (tmp_path / "var" / "lib" / "clipper").mkdir(parents=True)
    config = moved(settings.text, tmp_path)
    (etc / "clipper.toml").write_text(config)
    path = f"{BINARY.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", moved(commands.text, tmp_path)],
        env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    secret = {name: (etc / f"{name}.secret").read_text().strip() for name in
              ("root", "prometheus", "vision")}  # fmt: skip
    cert = etc / "tls" / "cert.pem"
    model = tmp_path / "srv" / "models" / "model.py"
    model.write_text(MODEL.replace("SECRET", str(etc / "root.secret")))
    python = Path(sys.executable)
    folders = [python.parent.parent, python.resolve().parent.parent]
    allowed = ", ".join(json.dumps(str(folder)) for folder in [tmp_path / "srv/models", *folders])
    config = config.replace(f'"{tmp_path}/srv/models"', allowed)
    (tmp_path / "tmp").mkdir()
    with server(tmp_path, config, {"TMPDIR": str(tmp_path / "tmp")}) as served:

        def asked(url: str, key: str | None = None, body: object = None) -> tuple[int, str]:
            data = json.dumps(body).encode() if body is not None else None
            bearer = {"authorization": f"Bearer {secret[key]}"} if key else {}
            # As the certificate has it.
            return ask(url.replace("127.0.0.1", "localhost"), cert, data, **bearer)

        applications = f"{served.management}/admin/get_all_applications"
        assert asked(applications, None, {})[0] == 401
        assert asked(applications, "prometheus", {"verbose": True})[0] == 200
        assert asked(f"{served.management}/admin/delete_app", "prometheus", {"name": "x"})[0] == 403
        assert asked(f"{served.metrics}/metrics")[0] == 401
        assert asked(f"{served.metrics}/metrics", "prometheus")[0] == 200
        assert asked(f"{served.query}/livez")[0] == 200
        assert trusting(cert)
        env = {"CLIPPER_KEY": secret["root"], "CLIPPER_TLS_CA": str(cert)}
        management = served.management.replace("127.0.0.1", "localhost")
        to = ["--url", management, "--python", str(python)]
        new = ["--app", "a", "--slo-ms", "30000", "--default-output", "-1"]
        elsewhere = tmp_path / "model.py"
        elsewhere.write_text(model.read_text())
        refused = run("deploy", f"{elsewhere}:predict", *new, *to, env=env)
        assert "lies in no folder that deploy.allow names" in refused.stderr, refused
        refused = run("deploy", *new, *to, "--name", "m", "--command", "sh", env=env)
        assert "does not name the runtime command" in refused.stderr, refused
        deployed = run("deploy", f"{model}:predict", *new, *to, env=env)
        assert deployed.returncode == 0, deployed
        _, answer = asked(f"{served.query}/a/predict", "root", {"input": [1.0]})
        can_confine = run("container", "confined", "--landlock=required", "--", "true")
        seen = "nothing"[:4] if can_confine.returncode == 0 else secret["root"][:4]
        assert json.loads(answer)["output"] == seen, answer

        def container(model: str, **env: str) -> object:
            command = [str(BINARY), "container", "noop", "--name", model, "--version", "1"]
            command += ["--connect", f"tcp://127.0.0.1:{served.rpc_port}"]
            out = subprocess.DEVNULL
            return process(*command, env={**os.environ, **env}, stdout=out, stderr=out)

        def replicas(name: str) -> bool:
            return any(f'"{name}:1"' in line and "connected" in line for line in served.lines)

        def denied() -> float:
            _, text = asked(f"{served.metrics}/metrics", "prometheus")
            sample = 'clipper_rpc_ended_total{reason="denied"} '
            found = [line for line in text.splitlines() if line.startswith(sample)]
            return float(found[0].split()[-1]) if found else 0.0

        of_vision = {"CLIPPER_RPC_KEY_NAME": "vision", "CLIPPER_RPC_KEY": secret["vision"]}
        for name, own in [("vision-1", {}), ("other", of_vision)]:
            before = denied()
            with container(name, **own):  # type: ignore[attr-defined]
                until(f"{name} is refused", lambda before=before: denied() > before)
        with container("vision-1", **of_vision):  # type: ignore[attr-defined]
            until("it is taken", lambda: any("vision-1" in line for line in served.lines))
        log = "".join(served.lines)
    for name, text in secret.items():
        assert text not in log, name
        assert base64.b64encode(text.encode()).decode() not in log, name
    assert (ROOT / document).exists()
