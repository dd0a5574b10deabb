#!/usr/bin/env bash
# Plants one bug after the other in the engine and shows that a harness finds each. Builds into target/planted; some minutes.
#
# A bug is found when the harness named for it fails. Without a bug all of them pass. Bugs in the words themselves (a commit by a plain store, a claim in
# two steps, ...) are planted in the models: shm-layout/tests/model.rs and feed_model.rs, every_planted_bug_is_found.
set -uo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=target/planted RUSTFLAGS="--cfg planted_bugs"
cargo build -q -p kmer-leader -p kmer-worker || exit 1
leader=target/planted/debug/kmer-leader
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
awk 'BEGIN {
    srand(7); for (i = 0; i < 800; i++) genome = genome substr("ACGT", 1 + int(rand() * 4), 1)
    for (i = 0; i < 300; i++) printf ">r%d\n%s\n", i, substr(genome, 1 + int(rand() * 500), 20 + int(rand() * 280))
}' > "$dir/rows.fa"
"$leader" import "$dir/rows.fa" -o "$dir/rows" 2> "$dir/log" || { cat "$dir/log"; exit 1; }

# What a run without the bug gives: all k-mers, or those of two rows, for which no chunk is used twice.
keep=--all two="--max-appearance-nrow 1"
"$leader" -q $keep -k 21 -j 2 "$dir/rows" -o "$dir/right$keep"
# shellcheck disable=SC2086
"$leader" -q $two -k 21 -j 2 "$dir/rows" -o "$dir/right${two// /}"

small="--unit-blocks 1 --chunk-bytes 4096 --stripe-bits 2 --batch-bytes 8000 --worker-timeout 0.4"
# One run with these faults: the result must be right.
faults() {
    # shellcheck disable=SC2086
    timeout 20 "$leader" -q $keep -k 21 -j 2 $small "$@" "$dir/rows" -o "$dir/out" 2> "$dir/log" && cmp -s "$dir/right${keep// /}" "$dir/out"
}
torture() { timeout 120 "$leader" torture --kills 400 --seed 1 "$@" "$dir/rows" -- --all -k 21 > "$dir/log" 2>&1; }
peace() { faults; }
# Sections of more than a chunk, so that tables are written over records.
over_records() { small="--unit-blocks 4 --chunk-bytes 4096 --stripe-bits 3 --batch-bytes 80000" faults; }
scan_death() { faults --inject scan.stored:worker=0:kill --inject worker.running:worker=1:delay=50; }
drain_death() { faults --inject drain.published:worker=0:kill --inject drain.claimed:worker=1:delay=80 --inject drain.claimed:worker=0:nth=3:kill; }
drain_claim_death() { faults --inject drain.claimed:worker=0:kill --inject drain.number:worker=1:delay=50; }
# A worker that nobody can kill sleeps with a chunk in its hands, is believed dead, and then writes; there are so few chunks that the others want that one.
# That there are too few of them is an answer, and the right one.
zombie() {
    for _ in 1 2 3 4 5; do
        keep=$two faults --memory 212K --inject leader.hung:error --inject chunk.written:worker=0:delay=1500 --inject scan.claimed:worker=1:nth=all:delay=200 \
            --inject drain.claimed:worker=1:delay=300 --inject finished:leader:delay=1500 || grep -q 'is full: expected' "$dir/log" || return 1
    done
}

found=0 missed=0
for harness in peace over_records scan_death drain_death drain_claim_death zombie torture; do
    $harness || { echo "$harness fails without a bug:"; cat "$dir/log"; exit 1; }
done
while read -r bug harness what; do
    if KMER_PLANTED=$bug $harness; then
        echo "MISSED  $bug ($what) by $harness"; missed=$((missed + 1))
    else
        echo "found   $bug ($what) by $harness: $(grep -h 'error: ' "$dir/log" | tail -n 1 | cut -c 1-110)"; found=$((found + 1))
    fi
    "$leader" segments --gc > "$dir/log"
done << 'BUGS'
units-not-taken-back scan_death recovery forgets the units
stripes-not-taken-back drain_claim_death recovery forgets the stripes
sweep-frees-published drain_death recovery frees chunks that DONE words reach
chunks-freed-on-suspicion zombie chunks of a worker that is only believed dead are freed
unit-drained-twice peace a drain reads a unit's sections twice
unit-not-drained peace a drain leaves a unit out
hint-is-truth torture all units were handed out counts as all units are done
records-overwritten-early over_records tables are written over records that are still to be read
recovery-gives-up scan_death a unit that came back once is given up
BUGS
echo "planted bugs: $found found, $missed missed"
[ "$missed" = 0 ] && [ "$found" -gt 0 ]
