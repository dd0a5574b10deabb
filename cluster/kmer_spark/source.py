"""The data source "kmers": `spark.read.format("kmers").option("relation", PATH).option("kmer-size", 21).load()`.

Rows: `uintkey` (the key's bits as a bigint, as in pg_kmersearch's tables) and `appearance_nrow`, or `occurrences`: the counts of each
work unit. A key has a row of every unit that has it, so they are to be added up: `.groupBy("uintkey").sum(...)`.

With the option `facts` there is a third column, `fact`, null for k-mers, and each unit has a row more for each of `totals.SUMS`, with the
name in `fact`, no key, and its number as the count. They are rows of the same read, so they count when, and as often as, the unit's
keys do: grouping by fact and uintkey adds up both. Options are those of the command, by their long names, and no others; Spark's data
sources written in Python cannot tell where a unit would be read best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from . import engine
from .options import FLAGS, VALUES, UsageError, flag, understand, whole
from .totals import SUMS
from .units import Unit

ALIASES = {short[1:].lower(): name for name, (short, _, _) in VALUES.items() if short and short != "-B"}
ALIASES["j"] = "workers"
NAMES = {"relation", "files", *VALUES, *FLAGS, "workers", "part-size", "engine", "facts", "cores"}
"""All options that there are."""


def named(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their long names, in whatever case, with - or _; one that is unknown, or there twice, is an error."""
    found: dict[str, Any] = {}
    for typed, value in given.items():
        word = typed.lower().replace("_", "-")
        # Spark's own, about a table in its catalog.
        if word in ("owner", "provider") or word.startswith("option."):
            continue
        name = ALIASES.get(word, word)
        if name not in NAMES:
            near = ["relation", "files"] if word in ("path", "paths") else get_close_matches(word, NAMES, 1)
            hint = f" ({' or '.join(near)})" if near else ""
            raise UsageError(f"option {typed!r}: expected one of the command's, found another{hint}")
        if name in found:
            raise UsageError(f"option {name!r}: expected it once, found it twice")
        found[name] = value
    return found


class KmersDataSource(DataSource):
    """What Spark asks for by name."""

    @classmethod
    def name(cls) -> str:
        """Its name."""
        return "kmers"

    def _asked(self) -> dict[str, Any]:
        return named(self.options)

    def _facts(self) -> bool:
        return flag(self._asked(), "facts")

    def schema(self) -> str:
        """Its columns."""
        counts = "occurrences" if self._asked().get("count") == "occurrences" else "appearance_nrow"
        return f"uintkey bigint, {counts} bigint" + (", fact string" if self._facts() else "")

    def reader(self, schema: StructType) -> KmersReader:
        """Reads them."""
        return KmersReader(self._asked(), self._facts(), schema.fieldNames()[1])


class KmersReader(DataSourceReader):
    """Cuts the input and reads the parts."""

    def __init__(self, options: dict[str, Any], facts: bool, counts: str) -> None:
        """Looks at the input's size; `cores` among the options is how many tasks run at once [default: 4]."""
        self.asked = understand(options, whole(options, "cores", 4, 1, 1 << 20))
        self.facts = facts
        self.names = ["uintkey", counts, *(["fact"] if facts else [])]

    def partitions(self) -> Sequence[InputPartition]:
        """One for each unit."""
        return [InputPartition(unit.plain()) for unit in self.asked.units]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Counts a unit."""
        metas: list[dict[str, Any]] = []
        for keys, counts in engine.count(self.asked.ask, Unit.of_plain(partition.value), metas.append):
            columns = [pa.array(keys.view("int64")), pa.array(counts.view("int64"))]
            yield self._batch(columns, pa.nulls(len(keys), pa.string()))
        if self.facts:
            numbers = pa.array([metas[0][name] for name in SUMS], pa.int64())
            yield self._batch([pa.nulls(len(SUMS), pa.int64()), numbers], pa.array(SUMS))

    def _batch(self, columns: list[pa.Array], fact: pa.Array) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([*columns, *([fact] if self.facts else [])], names=self.names)
