"""Writes a result: as the local engine's TSV, as Parquet, or into pg_kmersearch's tables by JDBC.

- TSV: one file where the driver runs, the bytes of `kmer-leader -o FILE`; it appears whole or not at all (`place`).
- Parquet: a directory for Spark to read, columns kmer, uintkey (the key's bits as a bigint) and the counts; in `_facts.json` beside the
  parts, the facts. Spark's own committer makes it whole: `_SUCCESS` comes last.
- Tables: executors write to a table of this run's own, whatever is tried twice; then one transaction replaces the analysis, after a look
  whether each k-mer is there. Columns and keys are those of leader/src/format/sql.rs.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from . import place
from .job import PIECE, Counting
from .pack import Keys, pack, unpack
from .totals import Rule

LINES = 1 << 20
"""Lines of a report that the driver holds at once, more or less."""
LETTERS = np.frombuffer(b"ACGT", np.uint8)
CSV = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")


def letters(keys: Keys, k: int, occur_bitlen: int) -> pa.Array:
    """The k-mers as text."""
    kmers = keys >> np.uint64(occur_bitlen)
    text = np.empty((len(keys), k), np.uint8)
    for at in range(k):
        text[:, at] = LETTERS[(kmers >> np.uint64(2 * (k - 1 - at))) & np.uint64(3)]
    return pa.array(text.reshape(-1).view(f"S{k}"), pa.binary()).cast(pa.string())


def text(k: int, occur_bitlen: int, piece: bytes) -> bytes:
    """A piece as lines of a report."""
    keys, counts = unpack(piece)
    sink = pa.BufferOutputStream()
    columns = [letters(keys, k, occur_bitlen), pa.array(keys), pa.array(counts)]
    csv.write_csv(pa.table(columns, names=["kmer", "uintkey", "count"]), sink, CSV)
    return bytes(sink.getvalue())


def _same(parts: Iterable[bytes]) -> Iterable[bytes]:
    return parts


def lines(counting: Counting, rule: Rule, k: int, occur_bitlen: int, reported: int) -> Iterator[bytes]:
    """The lines of a report, some at a time."""
    if rule.top is None and not rule.by_count:
        lines_of = counting.pieces.map(lambda piece: text(k, occur_bitlen, piece))
        number = lines_of.getNumPartitions()
        # So many partitions at once that the driver holds about a million lines.
        step = max(1, number * LINES // max(1, reported))
        for start in range(0, number, step):
            yield from counting.context.runJob(lines_of, _same, range(start, min(number, start + step)))
        return
    keys, counts = counting.entries(rule)
    for start in range(0, len(keys), PIECE):
        yield text(k, occur_bitlen, pack(keys[start : start + PIECE], counts[start : start + PIECE]))


def file(path: str, parts: Iterable[bytes]) -> None:
    """A file that appears whole or not at all; `-` is standard output, and a device or a named pipe is written to."""
    if path == "-":
        import sys

        _all(sys.stdout.buffer, parts)
        sys.stdout.buffer.flush()
        return
    if place.is_stream(path):
        with os.fdopen(os.open(path, os.O_WRONLY), "wb") as output:
            _all(output, parts)
        return
    handle, aside, target = place.aside(path)
    try:
        with os.fdopen(handle, "wb") as output:
            _all(output, parts)
            output.flush()
            os.fsync(output.fileno())
        os.rename(aside, target)
    except BaseException:
        os.unlink(aside)
        raise


def _all(output: IO[bytes], parts: Iterable[bytes]) -> None:
    for part in parts:
        output.write(part)


def frame(spark: Any, counting: Counting, rule: Rule, k: int, occur_bitlen: int, counts_name: str) -> Any:
    """What is reported as a DataFrame: kmer, uintkey, counts."""
    from pyspark.sql.types import BinaryType, StructField, StructType

    pieces = counting.pieces
    if rule.top is not None or rule.by_count:
        keys, counts = counting.entries(rule)
        parts = [(keys[at : at + PIECE], counts[at : at + PIECE]) for at in range(0, len(keys), PIECE)]
        pieces = spark.sparkContext.parallelize([pack(*part) for part in parts], 1)
    packed = spark.createDataFrame(
        pieces.map(lambda piece: (bytearray(piece),)), StructType([StructField("piece", BinaryType())])
    )

    def unpacked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for piece in batch.column(0):
                keys, counts = unpack(piece.as_py())
                columns = [
                    letters(keys, k, occur_bitlen),
                    pa.array(keys.view("int64")),
                    pa.array(counts.view("int64")),
                ]
                yield pa.RecordBatch.from_arrays(columns, names=["kmer", "uintkey", counts_name])

    return packed.mapInArrow(unpacked, f"kmer string, uintkey bigint, {counts_name} bigint")


def _hadoop(spark: Any, *path: str) -> tuple[Any, Any]:
    """A path as Spark has it, and its file system."""
    where = spark._jvm.org.apache.hadoop.fs.Path(*path)
    return where, where.getFileSystem(spark._jsc.hadoopConfiguration())


def check_parquet(spark: Any, path: str) -> None:
    """Whether a directory can be made there: told before anything is counted."""
    where, system = _hadoop(spark, path)
    if system.exists(where):
        raise OSError(
            f"could not create directory {path!r}: it is there already (name another, or remove it)"
        )


def parquet(spark: Any, table: Any, path: str, found: dict[str, Any]) -> None:
    """A directory of Parquet files with the facts."""
    table.write.parquet(path)
    where, system = _hadoop(spark, path, "_facts.json")
    stream = system.create(where)
    stream.write(bytearray(json.dumps(found, indent=2).encode() + b"\n"))
    stream.close()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class Tables:
    """pg_kmersearch's tables behind a JDBC URL; user and password are in the URL or the properties."""

    DRIVER = "org.postgresql.Driver"
    HIGHFREQ, META = "kmersearch_highfreq_kmer", "kmersearch_highfreq_kmer_meta"
    KEYS = "table_oid, column_name, kmer_size, occur_bitlen"
    CREATE = f"""
        CREATE TABLE IF NOT EXISTS {HIGHFREQ} (table_oid oid NOT NULL, column_name name NOT NULL, kmer_size integer NOT NULL,
            occur_bitlen integer NOT NULL, uintkey bigint NOT NULL, appearance_nrow bigint NOT NULL, detection_reason text,
            created_at timestamp with time zone DEFAULT now(), PRIMARY KEY ({KEYS}, uintkey));
        CREATE TABLE IF NOT EXISTS {META} (table_oid oid NOT NULL, column_name name NOT NULL, kmer_size integer NOT NULL,
            occur_bitlen integer NOT NULL, max_appearance_rate real NOT NULL, max_appearance_nrow integer NOT NULL,
            analysis_timestamp timestamp with time zone DEFAULT now(), PRIMARY KEY ({KEYS}))"""

    def __init__(self, spark: Any, url: str, properties: dict[str, str]) -> None:
        """Connects to nothing yet."""
        self.spark, self.url, self.properties = spark, url, {"driver": self.DRIVER, **properties}

    def run(self, statements: list[str]) -> None:
        """Runs statements in one transaction."""
        jvm = self.spark._jvm
        # Makes a driver that came by --jars known to the driver manager.
        jvm.org.apache.spark.sql.execution.datasources.jdbc.DriverRegistry.register(self.DRIVER)
        properties = jvm.java.util.Properties()
        for name, value in self.properties.items():
            properties.setProperty(name, value)
        connection = jvm.java.sql.DriverManager.getConnection(self.url, properties)
        try:
            connection.setAutoCommit(False)
            statement = connection.createStatement()
            for text in statements:
                statement.execute(text)
            connection.commit()
        finally:
            connection.close()

    @staticmethod
    def _same(oid: int, column: str, k: int, occur_bitlen: int) -> str:
        """Which rows are of an analysis."""
        of_table = f"table_oid = {oid} AND column_name = {_quoted(column)}"
        return f"{of_table} AND kmer_size = {k} AND occur_bitlen = {occur_bitlen}"

    def _there(self, oid: int, column: str, k: int, occur_bitlen: int) -> str:
        """An error if the analysis is there; there may be no table yet, which a statement that is not run need not find."""
        return f"""DO $$ BEGIN IF to_regclass('{self.META}') IS NOT NULL THEN
            IF EXISTS (SELECT FROM {self.META} WHERE {self._same(oid, column, k, occur_bitlen)}) THEN RAISE EXCEPTION
            'table {oid}: an analysis with k {k} and occur_bitlen {occur_bitlen} is there already (--replace)';
            END IF; END IF; END $$"""

    def check(self, oid: int, column: str | None, k: int, occur_bitlen: int, replace: bool) -> None:
        """Whether it could be saved now: told before anything is counted. Which column it is may not be known yet."""
        known = column is not None and not replace
        self.run([self._there(oid, column or "", k, occur_bitlen) if known else "SELECT 1"])

    def save(self, table: Any, oid: int, found: dict[str, Any], replace: bool) -> None:
        """Saves the analysis of this table, column, k and occur_bitlen; one that is there is an error unless it is to be replaced."""
        aside = f"kmer_spark_{uuid.uuid4().hex}"
        analysis = oid, found["column"], found["k"], found["occur_bitlen"]
        key = f"{oid}, {_quoted(found['column'])}, {found['k']}, {found['occur_bitlen']}"
        same = self._same(*analysis)
        rate, nrow = found["max_appearance_rate"], found["max_appearance_nrow"]
        self.run(
            [
                *self.CREATE.split(";"),
                f"CREATE UNLOGGED TABLE {aside} (uintkey bigint NOT NULL, appearance_nrow bigint NOT NULL)",
            ]
        )
        try:
            writer = table.select("uintkey", "appearance_nrow").write
            writer.jdbc(self.url, aside, mode="append", properties={**self.properties, "batchsize": "10000"})
            expected = found["kmers_reported"]
            check = f"""DO $$ BEGIN IF (SELECT count(DISTINCT uintkey) FROM {aside}) <> {expected}
                THEN RAISE EXCEPTION 'table {aside}: expected {expected} k-mers, found others'; END IF; END $$"""
            self.run(
                [
                    f"LOCK TABLE {self.META} IN SHARE ROW EXCLUSIVE MODE",
                    *([] if replace else [self._there(*analysis)]),
                    check,
                    f"DELETE FROM {self.HIGHFREQ} WHERE {same}",
                    f"""INSERT INTO {self.HIGHFREQ} ({self.KEYS}, uintkey, appearance_nrow, detection_reason)
                    SELECT DISTINCT {key}, uintkey, appearance_nrow, 'threshold' FROM {aside}""",
                    f"""INSERT INTO {self.META} ({self.KEYS}, max_appearance_rate, max_appearance_nrow) VALUES ({key}, {rate}, {nrow})
                    ON CONFLICT ({self.KEYS}) DO UPDATE SET max_appearance_rate = EXCLUDED.max_appearance_rate,
                    max_appearance_nrow = EXCLUDED.max_appearance_nrow, analysis_timestamp = now()""",
                ]
            )
        finally:
            self.run([f"DROP TABLE {aside}"])
