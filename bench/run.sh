#!/usr/bin/env bash
# Measures kmer-leader beside KMC 3 and Jellyfish on this machine and prints the table of ratios. See bench/README.md.
#
#   bench/run.sh [--quick] [--cache DIR] [--reads N] [--repeats N] [--genomes DIR] [--out DIR] ...
set -euo pipefail
cd "$(dirname "$0")/.."

missing=""
command -v python3 >/dev/null || missing="$missing python3"
command -v kmc >/dev/null || missing="$missing kmc"
command -v jellyfish >/dev/null || missing="$missing jellyfish"
command -v wgsim >/dev/null || missing="$missing samtools"
command -v strace >/dev/null || missing="$missing strace"
command -v xz >/dev/null || missing="$missing xz-utils"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "bench/run.sh: error: missing packages:$missing" >&2
        echo "bench/run.sh: hint: sudo apt-get update && sudo apt-get install$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
cargo build --release --workspace >&2
exec python3 bench/bench.py "$@"
