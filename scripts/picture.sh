#!/usr/bin/env bash
# Makes docs/dashboard.png, the picture in README, from a server with real data; and a picture of each
# of the dashboard's pages in target/artefacts.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/test.sh prepare
cargo build --locked
export CLIPPER_WRITE_DOCS=1
export CLIPPER_TEST_ARTEFACTS=${CLIPPER_TEST_ARTEFACTS:-$PWD/target/artefacts}
PYTHONPATH="$PWD/python/src" .venv/bin/python -m pytest -p no:cacheprovider tests/system/test_dashboard.py \
    -k "picture or each_page"
git --no-pager diff --stat -- docs/dashboard.png
