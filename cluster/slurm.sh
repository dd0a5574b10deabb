#!/usr/bin/env bash
#SBATCH --job-name=kmer-spark
# A cluster of Spark's inside a Slurm allocation: a master on this node, a worker on every node, one submission; nothing is left at the end.
#
#   sbatch -N 8 --exclusive slurm.sh --relation /scratch/reads -k 31 -R 0.001 -o frequent.tsv
#
# Wants spark-submit of pyspark (or SPARK_HOME) on every node, and the engine as docs/cluster.md says. KMER_SPARK_CONF: more words for spark-submit.
# The package is looked for beside this script, or in KMER_SPARK_DIR, since sbatch runs a copy.
set -euo pipefail
here=${KMER_SPARK_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}
[ -e "$here/kmer_spark.py" ] || { echo "slurm.sh: error: no kmer_spark.py in $here (KMER_SPARK_DIR)" >&2; exit 2; }
SPARK_HOME=${SPARK_HOME:-$(python3 -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')}
export SPARK_HOME
scratch=$(mktemp -d "${TMPDIR:-/tmp}/kmer-spark-${SLURM_JOB_ID:-0}-XXXXXX")
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
cpus=${SLURM_CPUS_ON_NODE:-$(nproc)}
started=()
finish() {
    # The workers' steps first, then the master.
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        kill "${started[i]}" 2>/dev/null || true
        wait "${started[i]}" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 143' TERM INT

"$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master --host "$head" --port 0 --webui-port 0 > "$scratch/master.log" 2>&1 &
started+=($!)
url=
for _ in $(seq 600); do
    url=$(sed -n 's/.*Starting Spark master at \(spark:[^ ]*\).*/\1/p' "$scratch/master.log" | head -n 1)
    [ -z "$url" ] || break
    sleep 0.2
done
[ -n "$url" ] || { cat "$scratch/master.log" >&2; exit 1; }
srun --ntasks-per-node=1 --ntasks="${SLURM_JOB_NUM_NODES:-1}" "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker \
    --cores "$cpus" --webui-port 0 --work-dir "$scratch/work" "$url" > "$scratch/workers.log" 2>&1 &
started+=($!)

# shellcheck disable=SC2086 # words
"$SPARK_HOME/bin/spark-submit" --master "$url" --conf "spark.driver.host=$head" --conf spark.ui.enabled=false \
    --conf spark.scheduler.minRegisteredResourcesRatio=1.0 ${KMER_SPARK_CONF:-} "$here/kmer_spark.py" "$@"
