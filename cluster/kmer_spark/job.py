"""The job: units are scanned, pieces of their counts shuffled by ranges of keys, added up, and what is over the threshold is kept.

One shuffle serves two steps. Bucket 0 has a record of each unit, its number and metadata; buckets 1.. have pieces (`pack`), in key order.
`totals` reads bucket 0 alone, which makes Spark run the scan; so the threshold is known, of all rows, before the other buckets are read.
Both come out of the same task's shuffle output, of which Spark counts exactly one for each unit, whatever was tried again or twice at the
same time. Accumulators, which count every try, are not used.

Conservation, always on: the sum over keys and counts of all units must be that of all buckets, or the result is an error.
A lost executor's pieces are made again by Spark, which runs the engine over those units again; the bytes are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import engine
from .pack import Counts, Keys, add_up, cut, pack, unpack
from .totals import Rule, Totals
from .units import Unit

Record = tuple[int, Any]
PIECE = 1 << 18
"""Most entries of a piece of what is reported."""


def scan(ask: engine.Ask, shift: int, numbered: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Record]:
    """Counts units: their pieces, each with its bucket, and behind them bucket 0's record of the unit, if all was well."""
    for number, plain in numbered:
        metas: list[dict[str, Any]] = []
        for keys, counts in engine.count(ask, Unit.of_plain(plain), metas.append):
            for bucket, piece in cut(keys, counts, shift):
                yield bucket + 1, piece
        meta = {name: value for name, value in metas[0].items() if name != "files"}
        yield 0, (number, json.dumps(meta))


def keep(rule: Rule, threshold: int, keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """What is reported of a bucket; of `top` those that may be."""
    admitted = counts > np.uint64(threshold)
    if rule.max_rows is not None:
        admitted &= counts <= np.uint64(rule.max_rows)
    return ranked(rule, keys[admitted], counts[admitted])


def ranked(rule: Rule, keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """The first `top` by count, equal counts by k-mer; ascending by k-mer again."""
    if rule.top is None or len(keys) <= rule.top:
        return keys, counts
    best = np.sort(np.argsort(-counts.astype(np.int64), kind="stable")[: rule.top])
    return keys[best], counts[best]


def reduce(rule: Rule, threshold: int, records: Iterable[Record]) -> Iterator[Any]:
    """Adds a bucket up: what is known of it, a dict, and then pieces of what is reported."""
    keys, counts = add_up([piece for bucket, piece in records if bucket > 0])
    known: dict[str, Any] = {
        "distinct": len(keys),
        "conserved": engine.conserved(keys, counts),
        "histogram": [],
    }
    if rule.histogram:
        sizes, kmers = np.unique(counts, return_counts=True)
        known["histogram"] = list(zip(sizes.tolist(), kmers.tolist(), strict=True))
    keys, counts = keep(rule, threshold, keys, counts)
    known["reported"] = len(keys)
    yield known
    for start in range(0, len(keys), PIECE):
        yield pack(keys[start : start + PIECE], counts[start : start + PIECE])


def _records(records: Iterable[Record]) -> Iterator[tuple[int, str]]:
    return (value for bucket, value in records if bucket == 0)


def _known(part: Any) -> bool:
    return isinstance(part, dict)


def _piece(part: Any) -> bool:
    return not isinstance(part, dict)


class Counting:
    """A count over all units, step by step: `totals`, then `reduce`, then the pieces."""

    def __init__(self, spark: Any, ask: engine.Ask, units: list[Unit], bucket_bits: int) -> None:
        """Prepares it; nothing runs yet."""
        context = spark.sparkContext
        self.context, self.units = context, units
        bits = min(bucket_bits, ask["key_bits"])
        numbered = [(number, unit.plain()) for number, unit in enumerate(units)]
        scanned = context.parallelize(numbered, len(units)).mapPartitions(
            partial(scan, ask, ask["key_bits"] - bits)
        )
        self.shuffled = scanned.partitionBy(1 + (1 << bits), int)
        self.kept: Any = None

    def totals(self) -> Totals:
        """Runs the scan; what is known of all rows."""
        records = self.context.runJob(self.shuffled, _records, [0])
        return Totals.of([str(unit) for unit in self.units], records)

    def reduce(self, rule: Rule, totals: Totals) -> dict[str, Any]:
        """Adds everything up: distinct and reported k-mers, and the histogram if it was asked for."""
        from pyspark import StorageLevel

        reduced = self.shuffled.mapPartitions(partial(reduce, rule, rule.threshold(totals)))
        self.kept = reduced.persist(StorageLevel.MEMORY_AND_DISK)
        known: dict[str, Any] = {"distinct": 0, "reported": 0, "histogram": {}}
        conserved = 0
        for part in self.kept.filter(_known).collect():
            conserved = (conserved + part["conserved"]) % (1 << 64)
            known["distinct"] += part["distinct"]
            known["reported"] += part["reported"]
            for size, kmers in part["histogram"]:
                known["histogram"][size] = known["histogram"].get(size, 0) + kmers
        if conserved != totals.conserved:
            expected = f"expected {totals.conserved:016x}, the sum over all units, found {conserved:016x}"
            raise RuntimeError(f"sum over keys and counts: {expected}: something was lost or counted twice")
        if rule.top is not None:
            known["reported"] = min(rule.top, known["reported"])
        return known

    @property
    def pieces(self) -> Any:
        """An RDD of what is reported, pieces in key order."""
        return self.kept.filter(_piece)

    def entries(self, rule: Rule) -> tuple[Keys, Counts]:
        """All that is reported, in the driver's memory and in the order of the report."""
        unpacked = [unpack(piece) for piece in self.pieces.collect()]
        keys = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in unpacked)])
        counts = np.concatenate([np.empty(0, np.uint64), *(part[1] for part in unpacked)])
        keys, counts = ranked(rule, keys, counts)
        if rule.by_count:
            order = np.argsort(-counts.astype(np.int64), kind="stable")
            keys, counts = keys[order], counts[order]
        return keys, counts

    def end(self) -> None:
        """Lets go of what was kept."""
        if self.kept is not None:
            self.kept.unpersist()
