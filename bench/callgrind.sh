#!/usr/bin/env bash
# Counts the instructions of a whole run, without workers, by valgrind: by function, and for each k-mer.
#
#   bench/callgrind.sh [RELATION] [OPTION...]       default: examples/klebs, k = 31, 16 and 8
#
# The counts do not depend on what else the machine does, and hardly on the machine: a change of one in a hundred is a change.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || {
    echo "bench/callgrind.sh: error: valgrind is not installed" >&2
    echo "bench/callgrind.sh: hint: sudo apt-get install valgrind" >&2
    exit 1
}
cargo build --release --workspace
leader=$PWD/target/release/kmer-leader
relation=${1:-examples/klebs}
[ $# -gt 0 ] && shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

count() {
    valgrind --tool=callgrind --callgrind-out-file="$work/out" --quiet \
        "$leader" -q -j 0 --summary-json "$work/summary.json" -o /dev/null "$@" "$relation" 2>"$work/log" || {
        cat "$work/log" >&2
        exit 1
    }
    local kmers total
    kmers=$(sed -n '/"relation"/,/}/s/.*"kmers": \([0-9]*\),*/\1/p' "$work/summary.json")
    total=$(sed -n 's/^\(summary\|totals\): \([0-9]*\).*/\2/p' "$work/out" | awk 'NR == 1')
    printf '\n%s: %d instructions, %d k-mers, %s instructions a k-mer\n' \
        "$*" "$total" "$kmers" "$(awk "BEGIN { printf \"%.1f\", $total / $kmers }")"
    callgrind_annotate --threshold=95 "$work/out" 2>/dev/null |
        sed -n '/file:function/,$p' | sed -e '1,2d' -e 's/???://' -e 's,/rustc/[0-9a-f]*/library/,,' -e 's/ \[.*\]$//' | grep -v '^$' | cut -c1-150 | awk 'NR <= 15'
}

if [ $# -gt 0 ]; then
    count "$@"
else
    for k in 31 16 8; do count -k "$k"; done
fi
