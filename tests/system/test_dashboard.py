"""The dashboard in a real browser, with real data: two applications, an ensemble, a rollout, a
process that dies, and a flood of defaults.

``CLIPPER_TEST_ARTEFACTS`` names a folder for screenshots of all pages; ``scripts/test.sh`` sets it.
``scripts/picture.sh`` makes the one of README.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from harness import ROOT, SUM_SOURCE, Server, container, post, server, until  # noqa: E402
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402
from test_browsers import CHROMIUM  # noqa: E402

PATIENCE_MS = 60_000
WIRE_BYTES_MAX = 300_000
NARROW = 360

CONFIG = f"""
[dashboard]
history_step_s = 1

[[application]]
name = "digits"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 500000
model = "sum"

[[model]]
name = "sum"
version = "1"
input_type = "doubles"
container = {{ runtime = "python", function = "sum.py:predict", python = "{sys.executable}" }}

[[application]]
name = "crowd"
input_type = "doubles"
default_output = "null"
latency_slo_micros = 500000
models = ["sum", "twice", "broken"]

[application.policy]
name = "median"
output = "number"

[[model]]
name = "twice"
version = "1"
input_type = "doubles"

[[model]]
name = "broken"
version = "1"
input_type = "doubles"

[model.container]
runtime = "command"
command = ["/bin/sh", "-c", "echo cannot read the weights >&2; exit 3"]

[[application]]
name = "flooded"
input_type = "strings"
default_output = "sorry"
latency_slo_micros = 20000
"""

SLOW_SUM = """
import time

def predict(inputs):
    slowest = max(float(values.max()) for values in inputs)
    time.sleep(0.3 if slowest >= 1e9 else 0.002 + 0.0005 * len(inputs))
    return [float(values.sum()) for values in inputs]
"""

SLOW_FROM = 1e9
KEYS = ["observe", "admin"]


class World:
    """A server, and clients that ask it all the time."""

    def __init__(self, served: Server) -> None:
        self.served = served
        self.flood = threading.Event()
        self.ended = threading.Event()
        self.asked = 0

    def ask(self) -> None:
        while not self.ended.is_set():
            self.asked += 1
            for app in ("digits", "crowd"):
                self.served.predict(app, [float(self.asked), 1.0])
            if self.flood.is_set():
                self.served.predict("flooded", "x")
            time.sleep(0.02)


def secret(role: str) -> str:
    return f"{role}-" + "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "sum.py").write_text(SLOW_SUM)
    with (
        server(folder, CONFIG) as served,
        container(served, folder, "twice", SUM_SOURCE),
    ):
        second = {
            "model_name": "sum", "model_version": "2", "input_type": "doubles", "labels": [],
            "container_name": "test", "model_data_path": "", "batch_size": -1,
            "make_current": False,
        }  # fmt: skip
        post(f"{served.management}/admin/add_model", second)
        with container(served, folder, "sum", SUM_SOURCE, version="2"):
            until("all serve", lambda: len(serving(served)) >= 3)
            rollout = {
                "app_name": "digits", "from": "sum:1", "to": "sum:2", "steps": [10, 50, 100],
                "hold_ms": 3_600_000, "guards": ["errors<50%"],
            }  # fmt: skip
            post(f"{served.management}/admin/start_rollout", rollout)
            one = World(served)
            asking = threading.Thread(target=one.ask, daemon=True)
            asking.start()
            yield one
            one.ended.set()
            asking.join(30)


def serving(served: Server) -> list[str]:
    found: list[str] = post(f"{served.management}/admin/get_all_containers", {"verbose": False})
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


class Tab:
    """A page, and what its console had to complain of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self.heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} at {message.location}")

    def open(self, route: str, heading: str) -> None:
        self.page.goto(f"{self.address}/{route}")
        expect(self.page.locator("h1")).to_have_text(heading, timeout=PATIENCE_MS)

    def sees(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator("main")).to_contain_text(text, timeout=PATIENCE_MS)


@pytest.fixture
def tab(browser: Browser, world: World) -> Iterator[Tab]:
    page = browser.new_page(viewport={"width": 1180, "height": 900}, timezone_id="Asia/Tokyo")
    one = Tab(page, world.served.management)
    yield one
    assert one.complaints == []
    page.close()


PAGES = [
    ("#/", "Overview", "broken:1"),
    ("#/app/digits", "digits", "canary from sum:1 to sum:2"),
    ("#/app/crowd", "crowd", "twice:1"),
    ("#/model/sum/1", "sum:1", "Latency by batch size"),
    ("#/model/broken/1", "broken:1", "cannot read the weights"),
    ("#/changes", "Changes", "digits"),
    ("#/predict/digits", "Try a prediction of digits", "Numbers"),
]


def picture(page: Page, name: str) -> None:
    folder = os.environ.get("CLIPPER_TEST_ARTEFACTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize(("route", "heading", "content"), PAGES)
def test_each_page_with_real_data_is_open_to_everybody(
    tab: Tab, route: str, heading: str, content: str
) -> None:
    tab.open(route, heading)
    tab.sees(content)
    expect(tab.page.locator("#state")).to_have_text("Live" if "predict" not in route else "Loading")
    name = re.sub(r"\W+", "-", route).strip("-") or "overview"
    for scheme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(tab.page)
        serious = [
            (one["id"], one["impact"], [node["html"] for node in one["nodes"]])
            for one in found.response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], (route, scheme, serious)
        picture(tab.page, f"{name}-{scheme}")
    tab.page.set_viewport_size({"width": NARROW, "height": 740})
    picture(tab.page, f"{name}-narrow")
    wide = tab.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= NARROW, (route, wide)


def test_what_happens_is_seen_live(tab: Tab, world: World) -> None:
    tab.open("#/", "Overview")
    row = tab.page.locator("tr[data-key=flooded]")
    expect(row).to_contain_text("Bad", timeout=PATIENCE_MS)
    assert "no replica" not in row.inner_text()
    began = time.monotonic()
    world.flood.set()
    expect(row).to_contain_text("no replica", timeout=PATIENCE_MS)
    print(f"a flood of defaults was seen after {time.monotonic() - began:.2f} s")
    first = tab.page.locator(".notices li").first
    expect(first).to_contain_text(re.compile("flooded|broken"))
    # A focus stays where it is while the page goes on.
    link = tab.page.get_by_role("link", name="digits").first
    link.focus()
    tab.page.wait_for_timeout(2_500)
    assert tab.page.evaluate("document.activeElement.textContent") == "digits"
    link.press("Enter")
    expect(tab.page.locator("h1")).to_have_text("digits")
    expect(tab.page.locator("svg.latencies")).to_be_visible()
    label = tab.page.locator("svg.latencies").get_attribute("aria-label")
    assert label and "SLO of 500 ms" in label, label
    expect(tab.page.locator("[aria-current=step]")).to_have_text("10 %")


def test_a_server_that_goes_away_is_told_and_found_again(
    browser: Browser, tmp_path: Path
) -> None:
    with server(tmp_path, "") as served:
        page = browser.new_page()
        tab = Tab(page, served.management)
        tab.open("", "Overview")
        tab.sees("There are no applications yet")
        served.process.kill()
        expect(page.locator("#state")).to_contain_text("Not live", timeout=PATIENCE_MS)
        tab.sees("There are no applications yet")
        page.close()


def test_a_change_is_undone_after_its_plan_was_shown(tab: Tab, world: World) -> None:
    at = world.served.management
    tab.open("#/changes", "Changes")
    tab.sees("crowd")
    update = {"name": "crowd", "latency_slo_micros": 123_000}
    post(f"{at}/admin/update_app", update)
    newest = tab.page.locator(".changes > li").first
    expect(newest).to_contain_text("crowd", timeout=PATIENCE_MS)
    newest.locator("summary").click()
    expect(newest).to_contain_text(re.compile("latency_slo.*123000"), timeout=PATIENCE_MS)
    newest.get_by_role("button").click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog).to_contain_text("becomes what it was", timeout=PATIENCE_MS)
    expect(dialog).to_contain_text("crowd")
    assert slo(at) == 123_000, "nothing happens before it is confirmed"
    picture(tab.page, "undo")
    dialog.get_by_label("Why").fill("too short")
    dialog.get_by_role("button", name="Undo").click()
    tab.sees("Undone: 1 steps")
    assert slo(at) == 500_000
    tab.sees("too short")


def slo(at: str) -> int:
    found: int = post(f"{at}/admin/get_application", {"name": "crowd"})["latency_slo_micros"]
    return found


def test_predictions_are_made_by_a_form_of_the_input_type(tab: Tab) -> None:
    tab.open("#/predict", "Try a prediction")
    tab.page.get_by_label("Application").select_option("digits")
    tab.page.get_by_role("button", name="Go on").click()
    tab.page.get_by_label("Numbers").fill("1.5, 2 3")
    tab.page.get_by_role("button", name="Predict").click()
    tab.sees("A prediction.")
    tab.sees("6.5")
    assert tab.page.get_by_label("Explanation").count() == 0
    tab.page.get_by_label("Explain the answer").check()
    tab.page.get_by_label("Numbers").fill("1.5, 2 3, 4")
    tab.page.get_by_role("button", name="Predict").click()
    why = tab.page.get_by_label("Explanation")
    expect(why).to_contain_text("by the policy DefaultOutputSelectionPolicy", timeout=PATIENCE_MS)
    expect(why).to_contain_text(re.compile("sum:[12], prediction, cache miss, replica"))
    expect(why).to_contain_text("first attempt on replica")
    tab.page.get_by_label("Numbers").fill("1.5 x")
    tab.page.get_by_role("button", name="Predict").click()
    tab.sees("'x' is no number")
    tab.open("#/predict/flooded", "Try a prediction of flooded")
    tab.page.get_by_label("String").fill("hello")
    tab.page.get_by_label("Explain the answer").check()
    tab.page.get_by_role("button", name="Predict").click()
    tab.sees("The default output")
    expect(tab.page.get_by_label("Explanation")).to_contain_text("no replica after")


def test_the_last_slow_and_defaulted_queries_are_explained(tab: Tab, world: World) -> None:
    world.served.predict("flooded", "y")
    tab.open("#/app/flooded", "flooded")
    found = tab.page.get_by_label("Explained queries")
    first = found.locator("details").first
    expect(first).to_contain_text("no replica", timeout=PATIENCE_MS)
    first.locator("summary").click()
    expect(first).to_contain_text("The application is not linked to a model")
    world.served.predict("crowd", [SLOW_FROM, 1.0])
    tab.open("#/app/crowd", "crowd")
    # A machine that is busy with other tests makes other queries slow, for other reasons.
    explained = tab.page.get_by_label("Explained queries").locator("details")
    by_its_model = explained.filter(has_text=re.compile("Replica [0-9]+ of sum:1 took"))
    expect(by_its_model.first).to_be_attached(timeout=PATIENCE_MS)


def test_with_keys_a_page_asks_for_one(browser: Browser, tmp_path: Path) -> None:
    keys = ";".join(f"{role} {role} {secret(role)}" for role in KEYS)
    application = CONFIG[CONFIG.index("[[application]]\nname = \"flooded\"") :]
    with server(tmp_path, application, {"CLIPPER_KEYS": keys}) as served:
        page = browser.new_page()
        tab = Tab(page, served.management)
        tab.open("#/app/flooded", "A key is needed")
        page.get_by_label("Key").fill(secret("observe"))
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("h1")).to_have_text("flooded", timeout=PATIENCE_MS)
        tab.sees("No model is linked")
        stored = page.evaluate("[Object.keys(localStorage).length, document.cookie]")
        assert stored == [0, ""]
        page.goto(f"{served.management}/#/changes")
        tab.sees("Your key may not")
        assert page.get_by_role("button", name=re.compile("Undo")).count() == 0
        page.goto(f"{served.management}/#/predict/flooded")
        page.get_by_label("String").fill("x")
        page.get_by_label("Key for predictions").fill(secret("admin"))
        page.get_by_role("button", name="Predict").click()
        tab.sees("The default output")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("A key is needed", timeout=PATIENCE_MS)
        # Answers of 401 are the browser's to complain of.
        assert [said for said in tab.complaints if "401" not in said] == []
        page.close()


def test_a_page_is_small_and_soon_there(browser: Browser, world: World) -> None:
    page = browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    received: list[float] = []
    session.on("Network.loadingFinished", lambda it: received.append(it["encodedDataLength"]))
    session.on("Network.dataReceived", lambda it: received.append(it["encodedDataLength"]))
    tab = Tab(page, world.served.management)
    tab.open("#/app/digits", "digits")
    expect(page.locator("svg.latencies")).to_be_visible(timeout=PATIENCE_MS)
    total = sum(received)
    paint = page.evaluate("performance.getEntriesByType('paint').map((it) => it.startTime)")
    print(f"{total:.0f} bytes over the wire; first paint after {paint} ms")
    assert 0 < total < WIRE_BYTES_MAX
    page.close()


@pytest.mark.skipif(not os.environ.get("CLIPPER_WRITE_DOCS"), reason="it writes docs/dashboard.png")
def test_the_picture_of_the_readme(tab: Tab, world: World) -> None:
    world.flood.set()
    tab.open("#/", "Overview")
    tab.sees("no replica")
    tab.page.wait_for_timeout(3_000)
    tab.page.screenshot(path=str(ROOT / "docs" / "dashboard.png"))


def test_the_description_of_a_page_is_json(world: World) -> None:
    """What pages are told is for everybody: one picture by hand."""
    import urllib.request

    url = f"{world.served.management}/admin/dashboard/stream?model=broken&version=1"
    with urllib.request.urlopen(url, timeout=60) as answer:
        line = next(line for line in answer if line.startswith(b"data: "))
    told = json.loads(line[6:])
    assert told["children"][0]["lines"][-1][1] == "cannot read the weights"
    assert told["notices"][0]["level"] in ("bad", "warn")
