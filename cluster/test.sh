#!/usr/bin/env bash
# Tests the cluster package with the real engine, on a master and two workers of Spark's on loopback. A few minutes.
#
# Installs what is missing (tests/install.sh; as root), and pyspark and the like from PyPI into a virtual environment, which is kept:
# KMER_SPARK_VENV, or else venv-spark in the target directory. With KMER_TEST_ALL=1 those run that are left out for their time. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$(cd .. && pwd)/target}
venv=${KMER_SPARK_VENV:-$target/venv-spark}

../tests/install.sh
if [ ! -e "$venv/complete" ]; then
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'pyspark>=4.0,<5' 'pyarrow>=15' 'numpy>=1.26' 'pandas>=2.2,<3' mypy pytest ruff
    touch "$venv/complete"
fi
# All of the workspace, as tests/run.sh builds it: parts of it would be built with other features, and so twice.
(cd .. && cargo build --release --workspace)

export PATH="$venv/bin:$PATH" PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1 KMER_TEST_ENGINE=$target/release/kmer-leader
ruff format --no-cache --check .
ruff check --no-cache .
mypy --cache-dir=/dev/null
pytest -q -p no:cacheprovider --durations=5 "$@"
