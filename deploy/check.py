#!/usr/bin/env python3
"""Asks a running Prometheus for every expression of the dashboard and of the rules.

Start a server, send it predictions, let a Prometheus with deploy/prometheus scrape it, then:

    python3 deploy/check.py http://127.0.0.1:9090

Waits up to --wait seconds. Exits with 1 while a target is down, or an expression is refused or has
no data; those of policies that choose and of rollouts (`clipper_policy_*`, `clipper_rollout_*`)
may have none. An alert has no data
unless it fires, so both sides of its comparisons are asked without
them: `a > 1 and b > 0` becomes `a` and `b`. Needs only Python's own library.
"""

import argparse
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Iterator

DASHBOARD = Path(__file__).parent / "grafana" / "clipper.json"
ORIGINAL = Path(__file__).parent / "prometheus" / "original-expressions.txt"
# What Grafana would put in place of its variables: everything, and one usual interval.
VARIABLES = {
    "$__rate_interval": "1m",
    "$app": ".*",
    "$model": ".*",
}


def get(url: str, path: str, **query: str) -> Any:
    full = f"{url.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(full, timeout=10) as answer:
        return json.load(answer)["data"]


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield f"panel {panel['title']}", expression


def original_expressions() -> Iterator[tuple[str, str]]:
    for line in ORIGINAL.read_text().splitlines():
        if line and not line.startswith("#"):
            yield "the original's dashboard", line


def without_comparisons(expression: str) -> list[str]:
    """The operands of `and` at the top level, each without its comparison with a number."""
    depth, start, operands = 0, 0, []
    for token in re.finditer(r'"[^"]*"|[({\[]|[)}\]]|\band\b', expression):
        if token[0] in "({[":
            depth += 1
        elif token[0] in ")}]":
            depth -= 1
        elif token[0] == "and" and depth == 0:
            operands.append(expression[start : token.start()])
            start = token.end()
    operands.append(expression[start:])
    return [re.sub(r"\s*(>=|<=|==|!=|>|<)\s*[\d.]+\s*$", "", each).strip() for each in operands]


def rule_expressions(url: str) -> Iterator[tuple[str, str]]:
    for group in get(url, "rules")["groups"]:
        for rule in group["rules"]:
            name = f"{rule['type']} {rule['name']}"
            if rule["health"] == "err":
                raise SystemExit(f"{name}: {rule['lastError']}")
            if rule["type"] == "alerting":
                for operand in without_comparisons(rule["query"]):
                    yield name, operand
            else:
                yield name, rule["query"]


def faults(url: str, original: bool) -> tuple[int, list[str]]:
    """How much was asked, and what is wrong with it."""
    found = []
    targets = get(url, "targets")["activeTargets"]
    if not targets:
        found.append("no targets")
    for target in targets:
        if target["health"] != "up":
            found.append(f"target {target['scrapeUrl']}: {target['health']} {target['lastError']}")
    asked = [*dashboard_expressions(), *rule_expressions(url)]
    if original:
        asked += original_expressions()
    for name, expression in asked:
        try:
            result = get(url, "query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            found.append(f"{name}: {expression}: {error.read().decode()}")
            continue
        if not result and re.search("clipper_(policy|rollout)_", expression):
            # No application has a policy that chooses, or none that learns or is ever unsure; or
            # none has had a rollout.
            continue
        if not result:
            found.append(f"{name}: no data: {expression}")
        elif all(sample["value"][1] == "NaN" for sample in result):
            found.append(f"{name}: only NaN: {expression}")
    return len(targets) + len(asked), found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="a Prometheus, as http://127.0.0.1:9090")
    parser.add_argument("--wait", type=float, default=60, metavar="S", help="default: 60")
    parser.add_argument(
        "--original",
        action="store_true",
        help="the original's dashboard as well: needs the application simple-example and a "
        "container with metrics",
    )
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.wait
    while True:
        asked, found = faults(arguments.url, arguments.original)
        if not found or time.monotonic() > deadline:
            break
        time.sleep(2)
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{asked} targets and expressions asked, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
