"""What may be asked, by a command line or by the options of a data source: the same names, those of the local engine where it has them.

Engine options go to the engine as they are, so what they mean, and whether they are right, is said there. `Asked` is the outcome.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import __version__, engine, units
from .totals import ROWS

VALUES = {
    "kmer-size": ("-k", "K", "k, from 4 to 32 [default: 16]"),
    "occur-bitlen": ("-b", "BITS", "bits that number the occurrences of a k-mer in a row [default: 0]"),
    "count": (None, "WHAT", "what is counted of a k-mer: rows or occurrences [default: rows]"),
    "schema": (None, "COLUMNS", "columns of the relation [default: from RELATION.schema]"),
    "column": ("-c", "COLUMN", "the DNA column [default: from RELATION.schema]"),
    "toast": (None, "FILE", "its TOAST relation file [default: from RELATION.schema]"),
    "unhinted": (None, "WHAT", "what to do with rows whose hint bits do not say whether they are committed"),
    "on-error": (None, "WHAT", "what to do about damaged pages and tuples: stop or skip [default: stop]"),
    "read-method": (None, "HOW", "how the relation is read: pread or mmap"),
    "batch-size": ("-B", "ROWS", "rows that a worker process takes at once"),
    "memory": (None, "SIZE", "memory that all processes of one engine may use"),
    "segment-dir": (None, "DIR", "where the engine's segment lies, if /dev/shm is too small"),
    "on-worker-death": (None, "WHAT", "what the engine does when a worker process of it dies"),
    "max-respawns": (None, "N", "replacements that an engine starts for dead worker processes"),
    "max-attempts": (None, "N", "deaths on one run of blocks after which it is given up"),
    "worker-timeout": (None, "SECONDS", "kill a worker process that makes no progress for so long"),
}
"""Options of the engine that take a value: short name, name of the value, help."""
FLAGS = {
    "canonical": "count a k-mer and its reverse complement as one",
    "row-per-file": "count in how many files a k-mer occurs",
    "no-checksums": "do not verify page checksums",
    "checksums": "every page must bear the right checksum",
}
"""Options of the engine that take none."""


class UsageError(ValueError):
    """What was asked cannot be meant."""


@dataclass(frozen=True)
class Asked:
    """A count that was asked for."""

    ask: engine.Ask
    units: list[units.Unit]
    bytes: int
    """Of the input."""

    def bucket_bits(self, partitions: int | None, cores: int) -> int:
        """Bits of the number of buckets: as many as typed, from one to 2^20, or twice the cores and at most 8 million entries in each."""
        # A base takes two bits of a relation: an upper bound, since rows share k-mers.
        entries = self.bytes * (4 if self.units[0].blocks else 1)
        wanted = partitions or min(1 << 16, max(2 * cores, -(-entries // (8 << 20))))
        return min(20, max(1, math.ceil(math.log2(wanted))))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a count."""
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--relation", nargs="+", metavar="PATH", help="heap relation files, under this path on every node"
    )
    given.add_argument(
        "--files", nargs="+", metavar="PATH", help="FASTA and FASTQ files, under this path on every node"
    )
    for name, (short, metavar, text) in VALUES.items():
        parser.add_argument(*((short,) if short else ()), f"--{name}", metavar=metavar, help=text)
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument(
        "-j", "--workers", metavar="N", help="worker processes of an engine [default: spark.task.cpus]"
    )
    parser.add_argument(
        "--part-size",
        metavar="SIZE",
        help="input of a work unit, like 512M [default: three units a core, 64M to 1G]",
    )
    parser.add_argument(
        "--engine", metavar="PATH", help="kmer-leader on the nodes [default: KMER_LEADER, an archive, PATH]"
    )


def size(text: str) -> int:
    """Bytes from a number with K, M, G or T behind it."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not found or int(found[1]) == 0:
        raise UsageError(
            f"--part-size: expected a number of bytes, or one with K, M, G or T behind it, found {text!r}"
        )
    return int(found[1]) << (10 * " KMGT".index(found[2].upper() or " "))


def whole(options: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number among the options."""
    text = options.get(name)
    if text is None:
        return default
    # As the engine reads it.
    if not re.fullmatch(r"\+?[0-9]+", str(text)) or not least <= int(text) <= most:
        raise UsageError(f"--{name}: expected a number from {least} to {most}, found {text!r}")
    return int(text)


def flag(options: Mapping[str, Any], name: str) -> bool:
    """Yes or no among the options; no where it is not there."""
    text = str(options.get(name) or False).lower()
    if text not in ("true", "1", "yes", "false", "0", "no"):
        raise UsageError(f"--{name}: expected true or false, found {text!r}")
    return text in ("true", "1", "yes")


def understand(options: Mapping[str, Any], cores: int) -> Asked:
    """What the options mean, by their long names; lists of paths may be lists, or text with a path a line."""
    k, occur = whole(options, "kmer-size", 16, 4, 32), whole(options, "occur-bitlen", 0, 0, 16)
    if 2 * k + occur > 64:
        raise UsageError(f"--occur-bitlen: expected at most {64 - 2 * k} beside a k of {k}, found {occur}")
    counted = str(options.get("count") or "rows")
    if counted not in ("rows", "occurrences"):
        raise UsageError(f"--count: expected rows or occurrences, found {counted!r}")
    flags = {name: flag(options, name) for name in FLAGS}
    words = [
        f"--{name}={_path(name, str(options[name]))}" for name in VALUES if options.get(name) is not None
    ]
    words += [f"--{name}" for name, on in flags.items() if on]
    relations, files = _paths(options.get("relation")), _paths(options.get("files"))
    if bool(relations) == bool(files):
        raise UsageError("expected either --relation or --files")
    total = sum(map(units.relation_bytes, relations)) + sum(os.stat(path).st_size for path in files)
    part = options.get("part-size")
    part_size = size(str(part)) if part else min(1 << 30, max(64 << 20, -(-total // (3 * cores))))
    cut = units.of_relations(relations, part_size) if relations else units.of_files(files, part_size)
    ask: engine.Ask = {
        "engine": options.get("engine"),
        "version": f"kmer-leader {__version__}",
        "words": words,
        "workers": whole(options, "workers", 0, 0, 1024) if options.get("workers") is not None else None,
        "skip": options.get("on-error") == "skip",
        "key_bits": 2 * k + occur,
        "expect": {
            "k": k,
            "occur_bitlen": occur,
            "canonical": flags["canonical"],
            "counts": ROWS if counted == "rows" else "occurrences",
            "row_per_file": flags["row-per-file"],
        },
    }
    # Of a relation without blocks there is little to look at.
    _rehearse(ask, next((unit for unit in cut if unit.blocks != (0, 0)), cut[0]))
    return Asked(ask, cut, total)


def _rehearse(ask: engine.Ask, unit: units.Unit) -> None:
    """Where the driver runs there may be an engine, too: its version is to be that of all, and it looks at the command line."""
    try:
        path = engine.find(ask["engine"])
        ask["version"] = engine.version(path)
    except engine.EngineError:
        return
    wrong = engine.rehearse(path, ask, unit)
    if wrong:
        raise (UsageError if wrong.is_usage else ValueError)(wrong.text)


def _path(name: str, value: str) -> str:
    """A task runs in a directory of its own."""
    return os.path.abspath(value) if name in ("toast", "segment-dir") else value


def _paths(value: Any) -> list[str]:
    if value is None:
        return []
    return [line for line in value.split("\n") if line] if isinstance(value, str) else list(value)
