#!/usr/bin/env bash
# Runs what real use has broken (tests/real_use, lines 1 to 17 and A) at full size, one test after the
# other, and prints a table: line, test, size, figure, result. Half an hour on two cores that are
# otherwise free; what else runs there stretches the times that are asserted.
#
# Needs what scripts/test.sh installs. The server is a release build, or what CLIPPER_TEST_BINARY names.
# CLIPPER_TEST_ONLY=line_09 runs only the tests whose names contain that.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/test.sh prepare
export CLIPPER_TEST_PYTHON="$PWD/.venv/bin/python"
export CLIPPER_TEST_FULL=1
export CARGO_TERM_COLOR=never

if [ -z "${CLIPPER_TEST_BINARY:-}" ]; then
    cargo build --locked --release --bin clipper
    export CLIPPER_TEST_BINARY="${CARGO_TARGET_DIR:-$PWD/target}/release/clipper"
fi
build=$(cargo test --locked --workspace --test all --no-run 2>&1) || { printf '%s\n' "$build" >&2; exit 1; }
binary=$(printf '%s\n' "$build" | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
# Lines A and 1 to 17, then the faults of every kind under load.
tests=$("$binary" --list --format terse 2>/dev/null | sed -n 's/: test$//p' |
    grep -E '::line_(a|0[1-9][a-d]?|1[0-7][a-e]?)_|::neighbours::' |
    grep -F -- "${CLIPPER_TEST_ONLY:-}" |
    sed -E 's/(.*::line_)([0-9a-z]+)_(.*)/\2 &/; /^real_use/s/^/zz /' | sort -V | cut -d' ' -f2)

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
count=0
begin=$SECONDS
printf '| line | test | size | figure | result |\n|---|---|---|---|---|\n'
for test in $tests; do
    count=$((count + 1))
    start=$SECONDS
    # A test that hangs must not keep the others from running.
    if timeout -k 10 900 "$binary" --exact "$test" --include-ignored --show-output >"$log" 2>&1; then
        result=pass
    else
        result=FAIL
        failed=$((failed + 1))
    fi
    awk -v test="$test" -v result="$result" -v seconds=$((SECONDS - start)) '
        /^---- .* stdout ----$/ { inside = 1; next }
        /^(failures|successes):$/ || !NF { inside = 0 }
        inside && /^size / { sizes = sizes (sizes ? ", " : "") $2; next }
        inside { figures = figures (figures ? "; " : "") $0 }
        END {
            line = "all"
            if (match(test, /::line_[0-9a-z]+_/)) line = substr(test, RSTART + 7, RLENGTH - 8)
            sub(/^0/, "", line)
            if (line == "a") line = "A"
            sub(/^real_use::/, "", test)
            gsub(/\|/, "/", figures)
            printf "| %s | %s | %s | %s | %s, %d s |\n", line, test, sizes ? sizes : "as always", \
                substr(figures, 1, 600), result, seconds
        }
    ' "$log"
    [ "$result" = pass ] || sed 's/^/    /' "$log" >&2
done
printf '\n%d tests, %d failed, %d s\n' "$count" "$failed" $((SECONDS - begin))
[ "$failed" -eq 0 ] && [ "$count" -gt 0 ]
