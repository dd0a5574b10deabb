"""The cluster gives what one machine gives, byte for byte, whatever is asked and in whatever form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from cluster import ENGINE, KLEBS, LONG, PACKAGE, SPARK, Cluster, leader
from conftest import Sessions

from kmer_spark import cli, register

COUNTS = [
    # What is counted, and what is reported.
    ("-k 16", "-R 0.001"),
    ("-k 16", "-R 0.001 -N 3"),
    ("-k 16", ""),
    ("-k 21 -b 2", "--min-rows 4 --max-rows 9 --sort count"),
    ("-k 31 --canonical", "--top 100"),
    ("-k 32", "-R 0.0005"),
    ("-k 9", "--all"),
    ("-k 13 --count occurrences", "--min-count 300"),
    ("-k 4", "-R 0.2 --histogram HISTOGRAM"),
]


def run(spark: Any, scratch: Path, words: str, output: Path) -> int:
    """The command in a session that is there."""
    typed = [word.replace("HISTOGRAM", str(output) + ".histogram") for word in words.split()]
    args = cli.parser().parse_args(
        ["-q", *typed, "--segment-dir", str(scratch / "segments"), "-o", str(output)]
    )
    return cli.count(spark, args, cli.rule_of(args))


def test_the_bytes_are_those_of_one_machine(
    cluster: Cluster, session: Sessions, scratch: Path, tmp_path: Path
) -> None:
    cluster.nodes_with(KMER_LEADER=str(ENGINE))
    spark = session()
    local, output = tmp_path / "local", tmp_path / "output"
    for counted, reported in COUNTS:
        code = run(spark, scratch, f"--relation {KLEBS} --part-size 100K {counted} {reported}", output)
        asked = reported.replace("HISTOGRAM", str(local) + ".histogram").split()
        leader("-q", *counted.split(), *asked, "-o", str(local), str(KLEBS))
        assert code == 0 and output.read_bytes() == local.read_bytes(), (counted, reported)
        if "HISTOGRAM" in reported:
            assert Path(f"{output}.histogram").read_bytes() == Path(f"{local}.histogram").read_bytes()
    # And those of `merge`, of parts that are cut as the units were, and otherwise.
    parts = []
    for number, blocks in enumerate(["0..8", "8..30", "30..57"]):
        parts.append(str(tmp_path / f"{number}.parquet"))
        leader("-q", "-k", "16", "--blocks", blocks, "--partial", parts[-1], str(KLEBS))
    assert leader("merge", *parts, "-R", "0.001") == leader("-q", "-R", "0.001", str(KLEBS))
    run(spark, scratch, f"--relation {KLEBS} --part-size 72K -R 0.001", output)
    assert leader("merge", *parts, "-R", "0.001") == output.read_bytes()

    files = sequence_files(tmp_path)
    for words in [
        "-k 12 -R 0.01",
        "-k 12 --count occurrences --canonical --all",
        "-k 21 --row-per-file --min-rows 2",
    ]:
        run(spark, scratch, f"--files {' '.join(files)} --part-size 9K {words}", output)
        assert output.read_bytes() == leader("-q", *words.split(), *files), words
    empty = tmp_path / "empty"
    empty.touch()
    for relations, alike in [(f"{empty} {KLEBS}", KLEBS), (str(empty), empty)]:
        run(spark, scratch, f"--relation {relations} -R 0.001", output)
        assert output.read_bytes() == leader("-q", "-R", "0.001", str(alike)), relations
    forms(spark, scratch, tmp_path)
    frames(spark, scratch)


def sequence_files(directory: Path) -> list[str]:
    """Some files of the example's sequences, of different sizes."""
    import random

    chance, genome = random.Random(5), ""
    genome = "".join(chance.choice("ACGT") for _ in range(3000))
    paths = []
    for number, records in enumerate([40, 3, 90, 1, 20]):
        starts = [chance.randrange(len(genome) - 150) for _ in range(records)]
        path = directory / f"{number}.fa"
        path.write_text("".join(f">{start}\n{genome[start : start + 150]}\n" for start in starts))
        paths.append(str(path))
    return paths


def forms(spark: Any, scratch: Path, directory: Path) -> None:
    """Parquet has the same k-mers and facts."""
    output = directory / "output.parquet"
    run(spark, scratch, f"--relation {KLEBS} --part-size 200K -k 31 -R 0.001 -F parquet", output)
    expected = json.loads(leader("-q", "-k", "31", "-R", "0.001", "-F", "json", str(KLEBS)))
    rows = sorted(parquet.read_table(output).to_pylist(), key=lambda row: row["uintkey"])
    assert rows == expected["kmers"] and len(rows) > 100
    assert json.loads((output / "_facts.json").read_text()) == expected["facts"]
    # One that is there is told before anything is counted.
    with pytest.raises(OSError, match=r"could not create directory .* it is there already"):
        run(spark, scratch, f"--relation {KLEBS} -F parquet --engine /nonexistent/kmer-leader", output)
    # 64 bits do not fit a bigint but for their bits; top is of all parts together.
    output = directory / "top.parquet"
    run(spark, scratch, f"--relation {KLEBS} --part-size 200K -k 32 --top 50 -F parquet", output)
    expected = json.loads(leader("-q", "-k", "32", "--top", "50", "-F", "json", str(KLEBS)))
    rows = [row | {"uintkey": row["uintkey"] % (1 << 64)} for row in parquet.read_table(output).to_pylist()]
    assert sorted(rows, key=lambda row: row["uintkey"]) == expected["kmers"]


def frames(spark: Any, scratch: Path) -> None:
    """The data source, in a job of one's own: sums, and the totals along with them."""
    register(spark)
    options = {
        "relation": str(KLEBS),
        "k": "8",
        "Part_Size": "150K",
        "segment-dir": str(scratch / "segments"),
    }
    read = spark.read.format("kmers").options(**options)
    summed = read.load().groupBy("uintkey").sum("appearance_nrow").collect()
    lines = [line.split("\t") for line in leader("-q", "-k", "8", "--all", str(KLEBS)).decode().split("\n")]
    expected = {int(line[1]): int(line[2]) for line in lines if len(line) == 3 and line[1].isdigit()}
    assert dict(map(tuple, summed)) == expected and len(expected) > 10_000
    facts = (
        spark.read.format("kmers")
        .options(**options, facts="true")
        .load()
        .groupBy("fact", "uintkey")
        .sum("appearance_nrow")
    )
    found = {row[0]: row[2] for row in facts.where("fact is not null").collect()}
    # The totals of the genome's rows, beside those that the engine says.
    head = leader("-q", "-k", "8", str(KLEBS)).decode()
    for name in ("total_rows", "rows_null", "rows_short", "windows_skipped"):
        assert f"# {name}: {found[name]}\n" in head
    assert facts.where("fact is null").count() == len(expected)
    # A name that is no option's is told, and one with _ is one with -.
    for more, told in [
        ({"part_sizes": "9K"}, r"option 'part_sizes': expected .* found another \(part-size\)"),
        ({"Kmer_Size": "21"}, "option 'kmer-size': expected it once, found it twice"),
    ]:
        with pytest.raises(Exception, match=told):
            spark.read.format("kmers").options(**options | more).load()
    letters = "translate(lpad(conv(uintkey, 10, 4), 8, '0'), '0123', 'ACGT') as kmer"
    best = (
        read.load().groupBy("uintkey").sum("appearance_nrow").orderBy("sum(appearance_nrow)", ascending=False)
    )
    kmer, rows = best.selectExpr(letters, "`sum(appearance_nrow)`").first()
    assert f"{kmer}\t" in leader("-q", "-k", "8", "--top", "1", str(KLEBS)).decode() and rows == max(
        expected.values()
    )


@pytest.mark.parametrize("way", ["archive", pytest.param("path", marks=LONG)])
def test_spark_submit(cluster: Cluster, scratch: Path, tmp_path: Path, way: str) -> None:
    """As people start it: the engine comes in an archive, or is on the nodes' PATH."""
    cluster.nodes_with(PATH=f"{ENGINE.parent}:{os.environ['PATH']}" if way == "path" else "/usr/bin:/bin")
    archive = tmp_path / "kmer-leader.tar.gz"
    subprocess.run(["tar", "czf", archive, "-C", ENGINE.parent, "kmer-leader", "kmer-worker"], check=True)
    shipped = ["--archives", f"{archive}#kmer-leader"] if way == "archive" else []
    words = [
        str(SPARK / "bin" / "spark-submit"),
        "--master",
        cluster.url,
        "--conf",
        "spark.ui.enabled=false",
        *shipped,
    ]
    words += ["--conf", "spark.executor.memory=512m", "--conf", "spark.driver.bindAddress=127.0.0.1"]
    words += ["--conf", "spark.driver.host=127.0.0.1", "--conf", f"spark.local.dir={scratch / 'driver'}"]
    words += [str(PACKAGE / "kmer_spark.py"), "--segment-dir", str(scratch / "segments")]
    environment = {
        **os.environ,
        "SPARK_HOME": str(SPARK),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    environment["PYSPARK_DRIVER_PYTHON"] = sys.executable
    output = tmp_path / "output"
    asked = ["--relation", str(KLEBS), "--part-size", "128K", "-R", "0.001"]
    ended = subprocess.run(
        [*words, *asked, "-o", str(output)], capture_output=True, text=True, env=environment, timeout=180
    )
    assert ended.returncode == 0, ended.stderr
    assert output.read_bytes() == leader("-q", "-R", "0.001", str(KLEBS))
    # spark-submit makes one stream of both.
    for told in ("total_rows: 4319\n", "highfreq_kmers_count: 1664\n", "units: 4\n"):
        assert told in ended.stdout
    if way == "path":
        return
    ended = subprocess.run(
        [*words, *asked, "-k", "40", "-o", "-"], capture_output=True, text=True, env=environment, timeout=180
    )
    assert (
        ended.returncode == 2
        and "kmer_spark: error: --kmer-size: expected a number from 4 to 32" in ended.stdout
    )
