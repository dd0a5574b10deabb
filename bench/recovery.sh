#!/usr/bin/env bash
# What a run in peace pays for the sake of deaths and damage: instructions with and without what serves them alone, by valgrind.
#
#   bench/recovery.sh [RELATION [TIMES]]       default: examples/klebs; with TIMES, also seconds of so many runs of each in turn
#
# The build without (--cfg no_recovery, never for use) has no digests of records, tables and what is asked for, no robust mutex around claims,
# no progress counters, no points of --inject. What both have, since without it nobody could work: words of units, stripes and chunks.
# Builds into target/release and target/no-recovery.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || {
    echo "bench/recovery.sh: error: valgrind is not installed" >&2
    echo "bench/recovery.sh: hint: sudo apt-get install valgrind" >&2
    exit 1
}
cargo build -q --release -p kmer-leader -p kmer-worker
RUSTFLAGS="--cfg no_recovery" CARGO_TARGET_DIR=target/no-recovery cargo build -q --release -p kmer-leader -p kmer-worker
relation=${1:-examples/klebs} times=${2:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
with=target/release/kmer-leader without=target/no-recovery/release/kmer-leader

# Instructions of a leader that does the workers' part as well: valgrind does not know the system call that watches over a worker.
instructions() {
    valgrind --tool=callgrind --callgrind-out-file="$work/out" --quiet "$@" -q -j 0 -o "$work/result" "$relation" 2>"$work/log" || {
        cat "$work/log" >&2
        exit 1
    }
    sed -n 's/^\(summary\|totals\): \([0-9]*\).*/\2/p' "$work/out" | awk 'NR == 1'
}
# Processor seconds of the leader and its workers.
seconds() {
    local TIMEFORMAT='%U %S'
    { time "$@" -q -o "$work/result" "$relation" 2>/dev/null; } 2>&1 | awk '{ print $1 + $2 }'
}
median() { sort -n | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }
percent() { awk "BEGIN { printf \"%+.2f %%\", ($1 / $2 - 1) * 100 }"; }

for options in "-k 31 --all" "-k 31" "-k 16 --all" "-k 8 --all"; do
    # shellcheck disable=SC2086
    a=$(instructions $with $options) b=$(instructions $without $options)
    echo "$options: $a instructions, $b without: $(percent "$a" "$b")"
    [ "$times" = 0 ] && continue
    : > "$work/a" > "$work/b"
    for _ in $(seq "$times"); do
        # shellcheck disable=SC2086
        seconds $with $options >> "$work/a"
        # shellcheck disable=SC2086
        seconds $without $options >> "$work/b"
    done
    a=$(median < "$work/a") b=$(median < "$work/b")
    echo "$options: $a s of processors (median of $times), $b without: $(percent "$a" "$b")"
done
