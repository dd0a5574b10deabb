#!/usr/bin/env bash
# Builds the fuzzing targets (nightly, a C++ compiler; cargo-fuzz is not needed) and runs each for SECONDS.
#
#   fuzz/run.sh [SECONDS [keep]]       default: 60; with "keep" what the corpus came to is kept in fuzz/corpora, for the ordinary tests
#
# What they find stays in fuzz/artifacts; a minimised one belongs into fuzz/seeds/TARGET, where the ordinary tests run it too.
set -euo pipefail
cd "$(dirname "$0")"
# Real pages, tuples, values and command lines to begin with.
KMER_FUZZ_SEEDS=$PWD/corpus cargo test -q --manifest-path ../Cargo.toml -p kmer-tests --test fuzz
seconds=${1:-60}
targets=(page tuple varlena pglz lz4 toast catalogs segment command_line)
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=on -Cpanic=abort"
RUSTFLAGS=$flags cargo +nightly build --release --target x86_64-unknown-linux-gnu
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "seeds/$target" artifacts
    echo "== $target"
    "target/x86_64-unknown-linux-gnu/release/$target" "corpus/$target" "seeds/$target" \
        -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="artifacts/$target-" 2>&1 | tail -n 3
done
if [ "${2:-}" = keep ]; then
    smallest=$(mktemp -d)
    trap 'rm -rf "$smallest"' EXIT
    for target in "${targets[@]}"; do
        mkdir "$smallest/$target"
        "target/x86_64-unknown-linux-gnu/release/$target" -merge=1 "$smallest/$target" "corpus/$target" 2>&1 | tail -n 1
    done
    KMER_FUZZ_KEEP=$smallest cargo test -q --manifest-path ../Cargo.toml -p kmer-tests --test fuzz
fi
