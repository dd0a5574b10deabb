#!/usr/bin/env bash
#SBATCH --job-name=kmer-spark
# A cluster of Spark's inside a Slurm allocation: a master on this node, a worker on every node, one submission; nothing is left at the end.
#
#   sbatch -N 8 --exclusive slurm.sh --relation /scratch/reads -k 31 -R 0.001 -o frequent.tsv
#
# Wants spark-submit of pyspark (or SPARK_HOME) on every node, and the engine as docs/cluster.md says. KMER_SPARK_CONF: more words for spark-submit.
# sbatch runs a copy of this script, so the package is looked for in KMER_SPARK_DIR, or else beside this script, beside the one that was submitted,
# and in the directory it was submitted from, or cluster/ there.
set -euo pipefail
fail() { echo "slurm.sh: error: $2" >&2; exit "$1"; }

places() {
    cd "$(dirname "${BASH_SOURCE[0]}")" && pwd
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        # The words behind the script's name are its arguments.
        scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\(\/[^ ]*\)\/[^ ]*.*/\1/p' || true
    fi
    [ -z "${SLURM_SUBMIT_DIR:-}" ] || printf '%s\n' "$SLURM_SUBMIT_DIR/cluster" "$SLURM_SUBMIT_DIR"
}
here=${KMER_SPARK_DIR:-}
if [ -z "$here" ]; then
    while [ -z "$here" ] && IFS= read -r place; do
        [ ! -e "$place/kmer_spark.py" ] || here=$place
    done < <(places)
    [ -n "$here" ] || fail 2 "kmer_spark.py: expected it beside slurm.sh or where it was submitted, found none (KMER_SPARK_DIR)"
fi
[ -e "$here/kmer_spark.py" ] || fail 2 "KMER_SPARK_DIR: expected a directory with kmer_spark.py, found $here"
[ -n "${SLURM_JOB_NODELIST:-}" ] || fail 2 "SLURM_JOB_NODELIST: expected the nodes of an allocation, found none (sbatch or salloc)"
SPARK_HOME=${SPARK_HOME:-$(python3 -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')}
export SPARK_HOME

scratch='' submit='' workers='' master=''
# How long the workers may take to end by themselves, in tenths of a second; Slurm kills what is there 30 s after its SIGTERM.
patience=150
finish() {
    trap '' TERM INT HUP
    [ -n "$scratch" ] || return 0
    # Without a writer of their standard input the workers end; srun would make a SIGKILL of a SIGTERM.
    exec 3>&-
    [ -z "$submit" ] || kill "$submit" 2>/dev/null || true
    if [ -n "$workers" ]; then
        for ((; patience > 0; patience--)); do
            kill -0 "$workers" 2>/dev/null || break
            sleep 0.1
        done
    fi
    for started in $workers $master; do
        kill "$started" 2>/dev/null || true
    done
    wait
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP
scratch=$(mktemp -d "${TMPDIR:-/tmp}/kmer-spark-${SLURM_JOB_ID:-0}-XXXXXX")
mkfifo "$scratch/alive"
exec 3<>"$scratch/alive"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
cpus=${SLURM_CPUS_ON_NODE:-$(nproc)}

"$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master --host "$head" --port 0 --webui-port 0 > "$scratch/master.log" 2>&1 3>&- &
master=$!
url=
for _ in $(seq 600); do
    url=$(sed -n 's/.*Starting Spark master at \(spark:[^ ]*\).*/\1/p' "$scratch/master.log" | head -n 1)
    [ -z "$url" ] || break
    sleep 0.2
done
[ -n "$url" ] || { cat "$scratch/master.log" >&2; exit 1; }
# On every node: a worker with a directory of its own, until standard input ends, the worker does, or a signal comes.
# shellcheck disable=SC2016 # not here
node='
    work=$3.${SLURM_PROCID:-0} worker= alive=
    finish() {
        trap "" TERM INT HUP
        kill $worker $alive 2>/dev/null
        wait
        # An executor may have been at work in it.
        rm -rf "$work" 2>/dev/null || { sleep 1; rm -rf "$work"; }
    }
    trap finish EXIT
    trap "exit 143" TERM
    trap "exit 130" INT
    trap "exit 129" HUP
    mkdir -m 700 "$work" || exit
    exec 4<&0
    "$1" org.apache.spark.deploy.worker.Worker --cores "$2" --webui-port 0 --work-dir "$work" "$4" < /dev/null 4<&- &
    worker=$!
    cat <&4 > /dev/null &
    alive=$!
    wait -n
'
srun --ntasks-per-node=1 --ntasks="${SLURM_JOB_NUM_NODES:-1}" bash -c "$node" kmer-spark-node "$SPARK_HOME/bin/spark-class" "$cpus" "$scratch" "$url" \
    < "$scratch/alive" > "$scratch/workers.log" 2>&1 3>&- &
workers=$!

# What it leaves when it is killed goes with the directory.
# shellcheck disable=SC2086 # words
TMPDIR=$scratch "$SPARK_HOME/bin/spark-submit" --master "$url" --conf "spark.driver.host=$head" --conf spark.ui.enabled=false \
    --conf spark.scheduler.minRegisteredResourcesRatio=1.0 ${KMER_SPARK_CONF:-} "$here/kmer_spark.py" "$@" < /dev/null 3>&- &
submit=$!
# A signal is heard while it runs. Slurm, which sends its own to the workers alone, ends those first.
wait -n || true
if kill -0 "$submit" 2>/dev/null; then
    cat "$scratch/workers.log" >&2
    fail 1 "expected the cluster to live as long as the job, found master or workers at their end"
fi
wait "$submit"
