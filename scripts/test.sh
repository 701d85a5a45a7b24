#!/usr/bin/env bash
# Runs every test of the project: Rust, end to end, Python. It says at its end what it has skipped:
# - PyTorch's loader, unless torch is in .venv: the wheel that PyPI has brings CUDA, gigabytes of it.
# - Replicas on the original's rpc.py, which no package has: CLIPPER_TEST_ORIGINAL_RPC names its
#   folder, containers/python of ucbrise/clipper.
# - A real Prometheus and promtool where the package prometheus cannot be installed.
#
# Needs Rust; gets the rest by itself where it is missing: redis-server, nginx, openssl, a browser, prometheus
# and Python by apt-get (as root or with sudo), what test-requirements*.txt name into .venv and
# .venv-clients. Without anything missing it needs no network. `scripts/test.sh prepare` installs and
# runs nothing. Other arguments go to `cargo test`, for example: scripts/test.sh --test all check_config
set -euo pipefail
cd "$(dirname "$0")/.."

venv_python=.venv/bin/python

say() { printf '== %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# apt_install PACKAGE...: false if it cannot.
apt_install() {
    command -v apt-get >/dev/null || return 1
    say "apt-get install $*"
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@" >&2
}

# need COMMAND PACKAGE: installs PACKAGE unless there is COMMAND.
need() {
    command -v "$1" >/dev/null && return
    apt_install "$2" && command -v "$1" >/dev/null && return
    say "$1 is missing and cannot be installed here; install the package $2"
    exit 1
}

# venv_is_ready VENV: whether it has exactly the pinned versions.
venv_is_ready() {
    local files
    mapfile -t files < <(requirements "$1")
    [ -x "$1/bin/python" ] && "$1/bin/python" - "${files[@]}" <<'PY' 2>/dev/null
import numpy
import sys
from importlib.metadata import version
for file in sys.argv[1:]:
    for line in open(file):
        if "==" in line and not line.startswith("#"):
            name, pinned = line.strip().split("==")
            assert version(name.split("[")[0]) == pinned
PY
}

# What belongs into a venv, with what that asks for, and what belongs into it alone.
requirements() {
    local of="scripts/test-requirements${1#.venv}"
    printf '%s\n' "$of.txt" "$of-alone.txt"
}

# venv_pip VENV ...: its pip; one outside can fill an environment that has none.
venv_pip() {
    local python=$1/bin/python
    shift
    if "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip --disable-pip-version-check -q "$@" >&2
    else
        python3 -m pip --python "$python" -q "$@" >&2
    fi
}

# fill VENV ...: installs by uv, which takes a quarter of pip's time; by pip where uv does not find
# what pip is told to find.
fill() {
    local venv=$1
    shift
    "$venv/bin/python" -m uv pip install -q --python "$venv/bin/python" "$@" >&2 && return
    say "uv cannot fill $venv, pip does"
    # Most modules are never imported: those that are get compiled then.
    venv_pip "$venv" install --no-compile "$@"
}

make_venv() {
    local venv=$1 files
    venv_is_ready "$venv" && return
    say "python packages into $venv"
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        rm -rf "$venv"
        if ! python3 -m venv "$venv" >&2; then
            rm -rf "$venv"
            python3 -m venv --without-pip "$venv" >&2
        fi
    fi
    mapfile -t files < <(requirements "$venv")
    venv_pip "$venv" install "$(grep '^uv==' scripts/test-requirements.txt)"
    # It reads none of pip's settings.
    local -x UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(
        python3 -m pip config get global.index-url 2>/dev/null || true
    )}}
    fill "$venv" -r "${files[0]}"
    fill "$venv" --no-deps -r "${files[1]}"
    venv_is_ready "$venv" || { say "$venv lacks what ${files[*]} name"; exit 1; }
}

need cargo cargo
need cc build-essential
need redis-server redis-server
need nginx nginx-light
need openssl openssl
need python3 python3
need curl curl
# Debian keeps ensurepip, which venv needs to put pip into it, in a package of its own.
python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv || true
# Pages of strangers are tried in a real browser; CLIPPER_TEST_CHROMIUM names another than Debian's.
[ -n "${CLIPPER_TEST_CHROMIUM:-}" ] || command -v chromium >/dev/null ||
    need chromium-headless-shell chromium-headless-shell
command -v promtool >/dev/null || apt_install prometheus ||
    say "prometheus cannot be installed here: its tests are skipped"
# The second for KServe's and MLServer's clients, which want other versions of what the others want.
make_venvs() {
    make_venv .venv &
    local first=$!
    make_venv .venv-clients
    wait "$first"
}
if [ "${1:-}" = prepare ]; then
    make_venvs
    exit
fi
export CLIPPER_TEST_PYTHON="$PWD/$venv_python"
export CARGO_TERM_COLOR=never
# What a person may want to see afterwards, such as pictures of the dashboard's pages.
export CLIPPER_TEST_ARTEFACTS=${CLIPPER_TEST_ARTEFACTS:-${CI_ARTIFACTS:-$PWD/target/artefacts}}

logs=$(mktemp -d)
log=$logs/all
# Nothing goes on behind a test run that was broken off.
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$logs"' EXIT
failed=0

# What all of them need.
make_venvs &
making=$!
cargo test --locked --workspace --no-run "$@"
wait "$making"
# Then all at once, and more of them than there are cores: they wait more than they compute.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
python_tests() {
    printf '     Running %s\n' "$1"
    PYTHONPATH="$PWD/python/src" "$venv_python" -m pytest -p no:cacheprovider -rs "$@"
}
# Each of its own: both have a conftest.py. Fixtures of a file are made once.
python_tests tests/system --numprocesses "$(nproc)" --dist loadfile >"$logs/system" 2>&1 &
system=$!
python_tests python/tests >"$logs/package" 2>&1 &
package=$!
cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || failed=1
wait "$system" || failed=1
wait "$package" || failed=1
cat "$logs/system" "$logs/package" | tee -a "$log"

# The runners' own summary lines once more, each under the name of what it sums up.
say summary
awk '
    function keep(line) { lines[++count] = line }
    /^ +Running / { name = $2 == "unittests" ? $3 : $2 }
    /^test result: / { keep(name); keep($0); passed += $4; failed += $6 }
    /^(=+ )?([0-9]+ (passed|failed|error|skipped)|no tests ran).* in [0-9.]+s/ { keep(name); keep($0) }
    /^SKIPPED \[/ { keep($0) }
    END {
        printf "Rust: %d passed, %d failed\n", passed, failed
        for (n = 1; n <= count; n++) print lines[n]
        exit !count
    }
' "$log" || failed=1
printf 'artefacts: %s\n' "$CLIPPER_TEST_ARTEFACTS"
exit "$failed"
