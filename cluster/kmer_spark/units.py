"""Cuts the input into work units: ranges of blocks of heap relations, groups of whole sequence files.

Promises: every block and every file is in exactly one unit, whatever it is called; a relation without blocks has a unit, too. The units are
the same whenever the input's sizes are.
Does not open the input; it looks at sizes only, so the paths must be there where the driver runs, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

BLOCK = 8192
"""Bytes of a block of PostgreSQL's."""


@dataclass(frozen=True)
class Unit:
    """What one task counts."""

    paths: tuple[str, ...]
    blocks: tuple[int, int] | None = None
    """From one to before another, of the relation; None: the files are counted whole."""
    of: int = 0
    """Blocks that the relation has."""

    def __str__(self) -> str:
        names = ", ".join(repr(path) for path in self.paths[:3])
        if self.blocks is not None and not self.of:
            return f"relation {names}, which is empty"
        if self.blocks is not None:
            return f"relation {names}, blocks {self.blocks[0]} to {self.blocks[1] - 1}"
        more = len(self.paths) - 3
        return f"files {names}" + (f" and {more} more" if more > 0 else "")

    def words(self) -> list[str]:
        """As the engine takes it."""
        # Of none, the engine takes no range.
        blocks = ["--blocks", f"{self.blocks[0]}..{self.blocks[1]}"] if self.blocks and self.of else []
        return [*blocks, "--", *self.paths]

    def plain(self) -> dict[str, Any]:
        """For the way to an executor, which needs no class of ours to read it."""
        return {"paths": list(self.paths), "blocks": self.blocks, "of": self.of}

    @staticmethod
    def of_plain(plain: dict[str, Any]) -> Unit:
        """What `plain` made."""
        blocks = plain["blocks"]
        return Unit(tuple(plain["paths"]), tuple(blocks) if blocks else None, plain["of"])


def segments(path: str) -> list[tuple[str, os.stat_result]]:
    """The files of a relation: PATH and its segments PATH.1, PATH.2, ..."""
    found = [(path, os.stat(path))]
    while os.path.exists(name := f"{path}.{len(found)}"):
        found.append((name, os.stat(name)))
    return found


def relation_bytes(path: str) -> int:
    """The size of a relation with its segments."""
    return sum(file.st_size for _, file in segments(path))


def of_relations(paths: list[str], part_size: int) -> list[Unit]:
    """Ranges of at most `part_size` bytes, but at least a block; those of one relation differ by a block at most."""
    units, seen = [], dict[tuple[int, int], str]()
    for path in (os.path.abspath(path) for path in paths):
        for name, file in segments(path):
            # By whatever name, and through whatever link.
            identity = file.st_dev, file.st_ino
            if identity in seen:
                raise ValueError(
                    f"--relation: expected each file once, found {name!r} in relation {seen[identity]!r}, too"
                    " (name the first file of a relation alone)"
                )
            seen[identity] = path
        blocks, rest = divmod(relation_bytes(path), BLOCK)
        if rest:
            raise ValueError(
                f"relation {path!r}: expected blocks of {BLOCK} bytes, found {rest} bytes beside {blocks}"
            )
        parts = max(1, -(-blocks // max(1, part_size // BLOCK)))
        ends = [blocks * part // parts for part in range(parts + 1)]
        units += [Unit((path,), (start, end), blocks) for start, end in pairwise(ends)]
    return units


def of_files(paths: list[str], part_size: int) -> list[Unit]:
    """Groups of about `part_size` bytes, evened out: the largest file first, each to the group that has the least."""
    sized = sorted(((os.stat(path).st_size, os.path.abspath(path)) for path in paths), reverse=True)
    if len({os.path.realpath(path) for _, path in sized}) < len(sized):
        raise ValueError("--files: expected each file once, found one twice")
    total = sum(size for size, _ in sized)
    groups: list[tuple[int, list[str]]] = [
        (0, []) for _ in range(min(len(sized), max(1, -(-total // part_size))))
    ]
    for size, path in sized:
        place = min(range(len(groups)), key=lambda number: groups[number][0])
        groups[place] = (groups[place][0] + size, [*groups[place][1], path])
    return [Unit(tuple(sorted(paths))) for _, paths in groups if paths]
