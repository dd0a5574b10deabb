"""What is known of all rows: the sums of what the parts say, and the facts of the result, in the local engine's words.

`Totals` takes each unit once: a unit that is there twice or not at all is an error, so no threshold comes from wrong totals.
The facts are those of leader/src/format/facts.rs, in its order.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

SUMS = (
    "total_rows",
    "rows_null",
    "rows_short",
    "tuples_undecided",
    "tuples_skipped",
    "pages_skipped",
    "units_skipped",
    "windows_expanded",
    "windows_skipped",
    "keys",
)
"""Numbers that add up."""
SAME = ("version", "k", "occur_bitlen", "canonical", "counts", "row_per_file", "column", "type")
"""What must be the same of all parts."""
ROWS = "appearance_nrow"


@dataclass
class Totals:
    """The sums over units."""

    meta: dict[str, Any] = field(default_factory=dict)
    conserved: int = 0

    @staticmethod
    def of(units: list[str], records: list[tuple[int, str]]) -> Totals:
        """From the metadata of each unit, by its number."""
        totals, seen = Totals(), set[int]()
        for number, text in records:
            if number in seen:
                raise RuntimeError(f"{units[number]}: expected its totals once, found them twice")
            seen.add(number)
            totals._add(units[number], json.loads(text))
        missing = [name for number, name in enumerate(units) if number not in seen]
        if missing:
            raise RuntimeError(f"{missing[0]}: expected its totals, found none (of {len(missing)} units)")
        return totals

    def _add(self, unit: str, meta: dict[str, Any]) -> None:
        if not self.meta:
            self.meta = {name: meta[name] for name in SAME} | dict.fromkeys(SUMS, 0)
        for name in SAME:
            if meta[name] != self.meta[name]:
                expected = f"expected {self.meta[name]!r}, as in the first unit, found {meta[name]!r}"
                raise RuntimeError(f"{unit}: {name}: {expected}")
        for name in SUMS:
            self.meta[name] += meta[name]
        self.conserved = (self.conserved + int(meta["conserved"], 16)) % (1 << 64)

    def __getitem__(self, name: str) -> Any:
        return self.meta[name]

    @property
    def skipped(self) -> int:
        """Damage that was skipped."""
        return int(self["pages_skipped"] + self["tuples_skipped"] + self["units_skipped"])


@dataclass(frozen=True)
class Rule:
    """Which k-mers are reported, as typed (leader/src/select.rs, plan.rs)."""

    rate: float | None = None
    nrow: int | None = None
    all: bool = False
    min_rows: int | None = None
    max_rows: int | None = None
    top: int | None = None
    by_count: bool = False
    histogram: bool = False

    @property
    def narrows(self) -> bool:
        """One of the conditions is there that put the default rate out of force."""
        return self.min_rows is not None or self.max_rows is not None or self.top is not None

    def numbers(self) -> tuple[float, int]:
        """The rate and the row count in force."""
        alone = self.narrows and self.nrow is not None
        return (1.0 if alone else 0.5) if self.rate is None else self.rate, self.nrow or 0

    def by_rule(self, totals: Totals) -> int | None:
        """The threshold of rate and row count; None: there is none."""
        typed = self.rate is not None or self.nrow is not None
        if self.all or totals["counts"] != ROWS or (self.narrows and not typed):
            return None
        rate, nrow = self.numbers()
        by_rate: int = math.floor(totals["total_rows"] * rate)
        return min(by_rate, nrow) if nrow else by_rate

    def threshold(self, totals: Totals) -> int:
        """K-mers with more than this are reported, if max_rows and top let them."""
        return max(self.by_rule(totals) or 0, (self.min_rows or 1) - 1)


def decimal(number: float) -> str:
    """A number without an exponent and with the fewest digits, as Rust prints it."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def facts(totals: Totals, rule: Rule, distinct: int, reported: int) -> dict[str, Any]:
    """The facts, in the order in which they are written."""
    rate, nrow = rule.numbers()
    found: dict[str, Any] = {name: totals[name] for name in ("k", "occur_bitlen", "canonical")}
    if totals["counts"] != ROWS:
        found["count"] = totals["counts"]
    found |= {"column": totals["column"], "type": totals["type"]}
    found |= {name: totals[name] for name in SUMS if name not in ("units_skipped", "keys")}
    found |= {"max_appearance_rate": rate, "max_appearance_nrow": nrow, "threshold": rule.by_rule(totals)}
    typed = {"min_rows": rule.min_rows, "max_rows": rule.max_rows, "top": rule.top}
    found |= {name: value for name, value in typed.items() if value is not None}
    if rule.threshold(totals) == 0:
        found["kmers_distinct"] = distinct
    return found | {"kmers_reported": reported}


def head(totals: Totals, found: dict[str, Any]) -> str:
    """What a report in the form tsv begins with."""
    lines = []
    for name, value in found.items():
        if name == "canonical":
            value = "yes" if value else "no"
        elif name == "max_appearance_rate":
            value = decimal(value)
        elif name == "column":
            value = _escaped(value)
        elif name == "threshold" and value is None:
            value = "none (every k-mer)"
        lines.append(f"# {name}: {value}\n")
        if name == "threshold" and isinstance(value, int):
            nrow = found["max_appearance_nrow"]
            lowered = f", lowered to {nrow} rows" if nrow else ""
            rate = decimal(found["max_appearance_rate"])
            lines.append(f"# threshold_formula: appearance_nrow > floor(total_rows * {rate}){lowered}\n")
    return "".join(lines) + f"# columns: kmer\tuintkey\t{totals['counts']}\n"


def _escaped(name: str) -> str:
    special = {"\\": "\\\\", "'": "\\'", '"': '\\"', "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"}
    return "".join(special.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in name)
