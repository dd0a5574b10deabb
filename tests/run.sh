#!/usr/bin/env bash
# Runs every test: installs what they run beside the engine (tests/install.sh), builds the programs as users get them, and tests those.
#
# Arguments go to each test program, a filter for example. With cargo-nextest installed NEXTEST=1 uses it.
# Ends with one line, "tests: N passed, M failed", and with an error when a test failed or none ran.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/install.sh
cargo build --release --workspace
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
export KMER_BIN_DIR=$target/release
if [ "${NEXTEST:-0}" = 1 ]; then
    cargo nextest run --cargo-profile harness --workspace "$@"
    exit
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --profile harness --workspace --no-fail-fast -- "$@" 2>&1 | tee "$log" || status=$?
# The programs' own last lines: "test result: ok. 12 passed; 0 failed; ..."
awk '
    /^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1); if ($i ~ /^failed/) failed += $(i - 1) } }
    END { printf "tests: %d passed, %d failed\n", passed, failed; exit passed == 0 || failed > 0 }
' "$log" || status=1
exit "$status"
