"""kmer-leader on Apache Spark: the same question over many machines.

Every task runs the engine over its share of the rows (`units`, `engine`); Spark shuffles what it found, by ranges of keys, and adds it up
(`pack`, `job`); the threshold is applied to the sums and the result written (`totals`, `write`). `source` has the data source "kmers" for
jobs of one's own, `cli` the command.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
from functools import cache
from typing import Any

__version__ = "0.1.0"
"""Of this package and of the engine that it expects."""


@cache
def _archive() -> str:
    """This package as a file, which is there until this process ends: executors may start, and ask for it, at any time."""
    here, directory = os.path.dirname(os.path.abspath(__file__)), tempfile.mkdtemp(prefix="kmer-spark-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = os.path.join(directory, "kmer_spark.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(os.listdir(here)):
            if name.endswith(".py"):
                archive.write(os.path.join(here, name), f"kmer_spark/{name}")
    return path


def ship(spark: Any) -> None:
    """Takes this package to the executors of a session; needless where it is installed on all nodes."""
    spark.sparkContext.addPyFile(_archive())


def register(spark: Any) -> None:
    """Makes `spark.read.format("kmers")` known to a session."""
    from .source import KmersDataSource

    ship(spark)
    spark.dataSource.register(KmersDataSource)
