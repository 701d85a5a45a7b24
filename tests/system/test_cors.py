"""A page of another site in a real browser, which asks for predictions and manages the server: where
its site is known, and where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import server, until
from secured import APPLICATION
from test_browsers import Stranger, browser, stranger  # noqa: F401

PAGE = """
<script>
const told = [];
async function attempt(what, url, options) {
  try {
    const answer = await fetch(url, options);
    const text = await answer.text();
    const id = answer.headers.get("x-request-id") !== null;
    told.push([what, answer.status, text.slice(0, 300), id]);
  } catch (error) {
    told.push([what, 0, String(error), false]);
  }
}
(async () => {
  const json = {"Content-Type": "application/json"};
  const keyed = {...json, "Authorization": "Bearer PREDICT"};
  const root = {...json, "Authorization": "Bearer ADMIN"};
  const input = JSON.stringify({input: [1.5, 2]}), name = JSON.stringify({name: "digits"});
  const of = (headers, body) => ({method: "POST", headers, body});
  await attempt("predict", "QUERY/digits/predict", of(keyed, input));
  await attempt("no key", "QUERY/digits/predict", of(json, input));
  await attempt("read", "MANAGEMENT/admin/get_application", of(root, name));
  await attempt("change", "MANAGEMENT/admin/update_app",
                of(root, JSON.stringify({name: "digits", latency_slo_micros: 700000})));
  await attempt("with cookies", "QUERY/digits/predict",
                {...of(keyed, input), credentials: "include"});
  await fetch("/report", {method: "POST", body: JSON.stringify(told)});
})();
</script>
"""

KEYS = {role: f"{role}-" + "0123456789abcdef" * 2 for role in ("predict", "admin")}


def told(folder: Path, site: Stranger, config: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the page has seen."""
    lines = [f"{role} {role} {key}" for role, key in KEYS.items()]
    monkeypatch.setenv("CLIPPER_KEYS", ";".join(lines))
    with server(folder, config + APPLICATION) as served:
        page = PAGE.replace("QUERY", served.query).replace("MANAGEMENT", served.management)
        page = page.replace("PREDICT", KEYS["predict"]).replace("ADMIN", KEYS["admin"])
        site.pages["/"] = page
        rules = "--host-resolver-rules=MAP app.example 127.0.0.1"
        with browser(folder, f"http://app.example:{site.port}/", rules):
            until("the page is done", lambda: site.reports)
    return {what: rest for what, *rest in json.loads(site.reports[0])}


def test_a_page_of_a_known_site_asks_and_manages_with_its_keys(
    tmp_path: Path,
    stranger: Stranger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin = f'cors_origins = ["http://app.example:{stranger.port}"]\n'
    config = f"[http]\n{origin}[management]\n{origin}"
    seen = told(tmp_path, stranger, config, monkeypatch)
    assert seen["predict"][0] == 200 and "query_id" in seen["predict"][1], seen
    assert seen["predict"][2], "it sees the id of its request"
    assert seen["no key"][0] == 401 and "Unauthorized" in seen["no key"][1], seen
    assert seen["read"][0] == 200 and "digits" in seen["read"][1], seen
    assert seen["change"][0] == 200, seen
    # Cookies and certificates stay with the browser unless that is said.
    assert seen["with cookies"][0] == 0, seen


def test_a_page_of_another_site_sees_nothing(
    tmp_path: Path,
    stranger: Stranger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = '[http]\ncors_origins = ["http://other.example"]\n'
    seen = told(tmp_path, stranger, config, monkeypatch)
    assert [status for status, *_ in seen.values()] == [0] * 5, seen
