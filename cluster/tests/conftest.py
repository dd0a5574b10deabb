"""Fixtures: the cluster, sessions on it, engines that go wrong on one node, and a look at what is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import ENGINE, SPARK, Cluster, leftovers, wait_for
from pyspark import SparkConf
from pyspark.sql import SparkSession

import kmer_spark

BASE = {
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.jars": "/usr/share/java/postgresql.jar",
    "spark.cores.max": "2",
    # Both nodes take part from the first task on.
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    # A lost node is found out soon.
    "spark.shuffle.io.maxRetries": "1",
    "spark.shuffle.io.retryWait": "100ms",
    "spark.sql.shuffle.partitions": "4",
}


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory under which everything happens; nothing may be at work in it at the end."""
    path = Path(tempfile.mkdtemp(prefix="kmer-spark-"))
    (path / "segments").mkdir()
    os.environ |= {
        "SPARK_LOCAL_DIRS": str(path / "driver"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_HOME": str(SPARK),
    }
    yield path
    try:
        wait_for("the end of all processes", lambda: not leftovers(path), 20)
    finally:
        left = leftovers(path)
        shutil.rmtree(path, ignore_errors=True)
        assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def cluster(scratch: Path) -> Iterator[Cluster]:
    """Master; nodes are the tests'."""
    made = Cluster(scratch / "cluster")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(scratch: Path) -> Iterator[None]:
    """No engine and no segment after any test."""
    yield
    segments = scratch / "segments"
    wait_for("engines to end", lambda: not leftovers(scratch, "kmer-leader"), 20)
    assert not list(segments.iterdir()), "segments are left"


Sessions = Callable[..., SparkSession]


@pytest.fixture
def session(cluster: Cluster, scratch: Path) -> Iterator[Sessions]:
    """Makes a session on the cluster, with the package on its way to the executors; ends it."""
    made: list[SparkSession] = []

    def make(**conf: str) -> SparkSession:
        given = {name.replace("_", "."): value for name, value in conf.items()}
        spark_conf = SparkConf().setAll(list((BASE | given).items()))
        spark = SparkSession.builder.master(cluster.url).appName("test").config(conf=spark_conf).getOrCreate()
        spark.sparkContext.setLogLevel("OFF")
        made.append(spark)
        kmer_spark.ship(spark)
        return spark

    yield make
    for spark in made:
        spark.stop()


@pytest.fixture
def engine_of(scratch: Path) -> Callable[[str, str], str]:
    """Makes an engine of a node's own: it writes down what it is given, and does as the text says, with the real one as $real."""

    def make(name: str, text: str = 'exec "$real" "$@"') -> str:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))
        path = directory / "kmer-leader"
        path.write_text(
            f"#!/bin/bash\nreal={ENGINE}\nhere={directory}\n"
            '[ "$1" != -V ] || exec "$real" -V\necho "$*" >> "$here/units"\n' + text + "\n"
        )
        path.chmod(0o755)
        return str(path)

    return make
