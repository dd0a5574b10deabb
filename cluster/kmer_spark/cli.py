"""The command: `spark-submit kmer_spark.py --relation PATH -k 16 --max-appearance-rate 0.5 --output OUT`.

Exit codes are the local engine's: 0, 1 for an error, 2 for a wrong command line, 3 for a result with damage that was skipped. On standard
error it says, at the end, what the local engine says.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__, engine, options, place, ship, write
from .job import Counting
from .totals import ROWS, Rule, facts, head

CONF = {"spark.excludeOnFailure.enabled": "true"}
"""Set unless the user has set them: a task that failed is tried on another executor and another node."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="kmer_spark.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False
    )
    made.add_argument("-V", "--version", action="version", version=f"kmer-spark {__version__}")
    options.add_arguments(made)
    made.add_argument(
        "-R", "--max-appearance-rate", type=_rate, metavar="RATE", help="share of all rows [default: 0.5]"
    )
    made.add_argument(
        "-N",
        "--max-appearance-nrow",
        type=_whole,
        metavar="ROWS",
        help="rows, if that is fewer; 0: no such limit",
    )
    made.add_argument("--all", action="store_true", help="report every k-mer")
    made.add_argument(
        "--min-rows",
        "--min-count",
        type=_whole,
        metavar="ROWS",
        help="report k-mers in at least so many rows",
    )
    made.add_argument(
        "--max-rows", "--max-count", type=_whole, metavar="ROWS", help="report k-mers in at most so many rows"
    )
    made.add_argument("--top", type=_whole, metavar="N", help="report the N k-mers in the most rows")
    made.add_argument("--sort", choices=("kmer", "count"), default="kmer", help="order of a TSV report")
    made.add_argument(
        "--histogram", metavar="FILE", help="how many k-mers are in how many rows, to a file of the driver's"
    )
    made.add_argument("-F", "--format", choices=("tsv", "parquet"), default="tsv", help="form of the result")
    made.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a file where the driver runs (tsv, - is standard output), or a directory that Spark writes (parquet)",
    )
    made.add_argument("--jdbc", metavar="URL", help="save into pg_kmersearch's tables of a PostgreSQL server")
    made.add_argument("--table-oid", type=_whole, metavar="OID", help="OID of the table, with --jdbc")
    made.add_argument("--replace", action="store_true", help="replace an analysis that is there, with --jdbc")
    made.add_argument(
        "--partitions",
        type=_whole,
        metavar="N",
        help="ranges of keys that are added up, a power of two [default: by the input's size]",
    )
    made.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    return made


def _rate(text: str) -> float:
    # Python's own numbers may have blanks and underscores.
    plain = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text, re.IGNORECASE)
    rate = float(text) if plain else -1
    if not 0 <= rate <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text!r}")
    return rate


def _whole(text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]{1,40}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}")
    return int(text)


def _within(args: argparse.Namespace, name: str, least: int, most: int) -> None:
    found = getattr(args, name)
    if found is not None and not least <= found <= most:
        expected = f"expected a number from {least} to {most}, found {found}"
        raise options.UsageError(f"--{name.replace('_', '-')}: {expected}")


def rule_of(args: argparse.Namespace) -> Rule:
    """What is reported."""
    rate, nrow = args.max_appearance_rate, args.max_appearance_nrow
    if args.all and (rate is not None or nrow is not None):
        raise options.UsageError("--all: expected no rate and no row count beside it, found one")
    if args.count == "occurrences" and (rate is not None or nrow is not None):
        raise options.UsageError(
            "--max-appearance-rate, --max-appearance-nrow: expected counts of rows, found occurrences"
        )
    for name in ("min_rows", "max_rows", "top"):
        _within(args, name, 1, (1 << 64) - 1)
    _within(args, "max_appearance_nrow", 0, (1 << 31) - 1)
    if rate is not None and not 0 <= rate <= 1:
        raise options.UsageError(f"--max-appearance-rate: expected 0 to 1, found {rate}")
    if args.min_rows is not None and args.max_rows is not None and args.min_rows > args.max_rows:
        raise options.UsageError(
            f"--min-rows, --max-rows: expected the first not to be above the second, found {args.min_rows} and {args.max_rows}"
        )
    by_count, histogram = args.sort == "count", args.histogram is not None
    return Rule(rate, nrow, args.all, args.min_rows, args.max_rows, args.top, by_count, histogram)


def check(args: argparse.Namespace, rule: Rule) -> None:
    """What can be told wrong before anything runs."""
    if (args.output is None) == (args.jdbc is None):
        raise options.UsageError("expected either --output or --jdbc")
    _within(args, "partitions", 1, 1 << 20)
    _within(args, "table_oid", 1, (1 << 32) - 1)
    if args.jdbc is None:
        if args.format == "parquet" and args.output == "-":
            raise options.UsageError("--output: expected a directory for the form parquet, found -")
        return
    if args.table_oid is None:
        raise options.UsageError("--table-oid: expected the OID of the table, found none")
    if args.canonical or args.count == "occurrences":
        raise options.UsageError(
            "--jdbc: expected counts of rows by k-mers as they stand, since the tables know no others, found others"
        )
    if rule.all or rule.narrows:
        raise options.UsageError(
            "--jdbc: expected an analysis by rate and row count, since the tables say nothing else"
        )


def check_places(args: argparse.Namespace) -> None:
    """The files that are to be written: in nobody's place, and where they can be made. `count` looks at what Spark writes."""
    outputs = [("--histogram", args.histogram)] if args.histogram is not None else []
    if args.output is not None:
        # Of another file system it is in no file's place here.
        local = args.format != "parquet" or not re.match(r"(?!file:)[A-Za-z][\w+.-]*:", args.output)
        plain = args.output.removeprefix("file:") if args.format == "parquet" else args.output
        outputs = [*([("-o", plain)] if local else []), *outputs]
    place.refuse_same(outputs, place.of_relations(args.relation or [], args.toast), args.files or [])
    for option, path in outputs:
        if option != "-o" or args.format != "parquet":
            place.check(path)


def run(args: argparse.Namespace) -> int:
    """Counts, writes, gives the exit code."""
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    rule = rule_of(args)
    check(args, rule)
    options.understand(_named(args), 1)
    check_places(args)
    conf = SparkConf()
    missing = [(name, value) for name, value in CONF.items() if not conf.contains(name)]
    spark = SparkSession.builder.appName("kmer-leader").config(conf=conf.setAll(missing)).getOrCreate()
    try:
        ship(spark)
        return count(spark, args, rule)
    finally:
        spark.stop()


def _named(args: argparse.Namespace) -> dict[str, Any]:
    """Options by their long names."""
    return {name.replace("_", "-"): value for name, value in vars(args).items()}


def _column(args: argparse.Namespace) -> str | None:
    """The name of a relation's column, where that is known before the engine has read anything: typed, in the sidecar, or the default."""
    if args.relation is None or (args.column is None and args.schema is not None):
        return None
    beside = place.sidecar(args.relation[0])
    named = args.column or beside.get("column") or ("seq" if not beside else None)
    # It may be a number.
    return None if named is None or re.fullmatch("[0-9]*", named) else str(named)


def count(spark: Any, args: argparse.Namespace, rule: Rule) -> int:
    """The count in a session."""
    cores = spark.sparkContext.defaultParallelism
    asked = options.understand(_named(args), cores)
    if args.jdbc:
        expect = asked.ask["expect"]
        tables = write.Tables(spark, args.jdbc, {})
        tables.check(args.table_oid, _column(args), expect["k"], expect["occur_bitlen"], args.replace)
    elif args.format == "parquet":
        write.check_parquet(spark, args.output)
    counting = Counting(spark, asked.ask, asked.units, asked.bucket_bits(args.partitions, cores))
    totals = counting.totals()
    known = counting.reduce(rule, totals)
    found = facts(totals, rule, known["distinct"], known["reported"])
    k, occur_bitlen = found["k"], found["occur_bitlen"]
    if args.jdbc or args.format == "parquet":
        table = write.frame(spark, counting, rule, k, occur_bitlen, totals["counts"])
        if args.jdbc:
            tables.save(table, args.table_oid, found, args.replace)
        else:
            write.parquet(spark, table, args.output, found)
    else:
        report = write.lines(counting, rule, k, occur_bitlen, known["reported"])
        write.file(
            args.output, (part for parts in ([head(totals, found).encode()], report) for part in parts)
        )
    if args.histogram:
        write.file(
            args.histogram,
            [f"{size}\t{kmers}\n".encode() for size, kmers in sorted(known["histogram"].items())],
        )
    counting.end()
    if not args.quiet:
        of_rows = (
            f"max_appearance_rate_used: {found['max_appearance_rate']}\n" if totals["counts"] == ROWS else ""
        )
        said = f"total_rows: {totals['total_rows']}\nhighfreq_kmers_count: {known['reported']}\n{of_rows}units: {len(asked.units)}\n"
        sys.stderr.write(said)
    return engine.SKIPPED if totals.skipped else 0


def message(error: BaseException) -> str:
    """What went wrong: of an engine's error on an executor, that alone; it names the unit, the node, and what the engine said."""
    found = re.findall(r"EngineError: (.*?)(?=\n\s*(?:at |Driver stacktrace|\n)|\s*$)", str(error), re.DOTALL)
    return str(found[-1]).strip() if found else str(error)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command."""
    args = parser().parse_args(words)
    try:
        return run(args)
    except (options.UsageError, OSError, ValueError) as error:
        code, said = 2 if isinstance(error, options.UsageError) else 1, str(error)
    except Exception as error:
        if os.environ.get("KMER_SPARK_TRACE"):
            raise
        code, said = 1, message(error)
    sys.stderr.write(f"kmer_spark: error: {said}\n")
    return code
