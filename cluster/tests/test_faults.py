"""Nodes, engines and streams that go wrong: the bytes stay the same, or the job's error names the unit and what the engine said."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster import ENGINE, KLEBS, Cluster, leader, wait_for
from conftest import Sessions

from kmer_spark import cli, options, write
from kmer_spark.job import Counting
from kmer_spark.totals import Rule, facts, head

Engines = Callable[..., str]
PART = 8
"""Blocks of a unit."""
UNITS = -(-57 // PART)
RULE = Rule(rate=0.001)


def counting(spark: Any, scratch: Path, relation: Path = KLEBS, **more: str) -> Counting:
    """A count of the example in units of some blocks."""
    asked: dict[str, Any] = {
        "relation": str(relation),
        "part-size": f"{PART * 8}K",
        "segment-dir": str(scratch / "segments"),
    }
    understood = options.understand(asked | more, 2)
    return Counting(spark, understood.ask, understood.units, 3)


def report(counted: Counting, between: Callable[[], None] = lambda: None) -> bytes:
    """The whole report; something may happen when the scan is over and the sums are not begun."""
    totals = counted.totals()
    between()
    known = counted.reduce(RULE, totals)
    found = facts(totals, RULE, known["distinct"], known["reported"])
    lines = write.lines(counted, RULE, found["k"], found["occur_bitlen"], known["reported"])
    return head(totals, found).encode() + b"".join(lines)


def local() -> bytes:
    """That of the local engine."""
    return leader("-q", "-R", "0.001", str(KLEBS))


def started(engine: str) -> list[str]:
    """The blocks that a node's engine was started with."""
    path = Path(engine).parent / "units"
    return (
        [line.split("--blocks ")[1].split()[0] for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


def error_of(counted: Counting) -> str:
    """The job's error, as the command says it."""
    with pytest.raises(Exception, match="EngineError") as caught:
        counted.totals()
    return cli.message(caught.value)


def test_a_node_is_lost_in_the_scan(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines
) -> None:
    hangs = engine_of("hangs", 'touch "$here/hangs"; exec -a "$0" sleep 600')
    good = engine_of("good")
    cluster.nodes_of({"KMER_LEADER": hangs}, {"KMER_LEADER": good})
    counted = counting(session(), scratch)

    def lose() -> None:
        wait_for("a unit on the node", lambda: (Path(hangs).parent / "hangs").exists())
        cluster.nodes[0].kill()

    loser = threading.Thread(target=lose)
    loser.start()
    assert report(counted) == local()
    loser.join()
    assert set(started(hangs)) <= set(started(good)) and len(set(started(good))) == UNITS


def test_a_node_is_lost_in_the_shuffle(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines
) -> None:
    lost, other = engine_of("lost"), engine_of("other")
    cluster.nodes_of({"KMER_LEADER": lost}, {"KMER_LEADER": other})
    # A node's pieces go with it, after all units were counted and before they are added up.
    found = report(counting(session(), scratch), cluster.nodes[0].kill)
    assert found == local()
    assert set(started(lost)) and set(started(lost)) <= set(started(other)), "nothing was made again"
    assert len(set(started(other))) == UNITS


def test_an_engine_is_killed_on_one_node(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines
) -> None:
    killed = engine_of("killed", 'exec "$real" --inject report.begin:kill "$@"')
    good = engine_of("good")
    cluster.nodes_of({"KMER_LEADER": killed}, {"KMER_LEADER": good})
    spark = session(spark_excludeOnFailure_enabled="true")
    assert report(counting(spark, scratch)) == local()
    assert started(killed), "it was never tried there"


def test_an_engine_of_another_version_on_one_node(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines
) -> None:
    other, good = engine_of("other"), engine_of("good")
    Path(other).write_text(
        f'#!/bin/bash\n[ "$1" != -V ] || {{ echo kmer-leader 0.0.7; touch {other}.asked; exit; }}\nexec {ENGINE} "$@"\n'
    )
    cluster.nodes_of({"KMER_LEADER": other}, {"KMER_LEADER": good})
    spark = session(spark_excludeOnFailure_enabled="true")
    assert report(counting(spark, scratch)) == local()
    assert Path(f"{other}.asked").exists() and len(set(started(good))) == UNITS
    # Where no node has the right one, the error says so. What is set holds for a session that begins anew.
    spark.stop()
    cluster.nodes_of({"KMER_LEADER": other}, {"KMER_LEADER": other})
    impatient = {
        "spark_excludeOnFailure_enabled": "true",
        # How long Spark waits for another node when all are excluded; two minutes by default.
        "spark_scheduler_excludeOnFailure_unschedulableTaskSetTimeout": "5s",
    }
    said = error_of(counting(session(**impatient), scratch))
    assert "blocks 0 to" in said or f"relation '{KLEBS}', blocks" in said
    assert "expected 'kmer-leader 0.1.0', as where the driver runs, found 'kmer-leader 0.0.7'" in said


# What a broken pipe, a full disk or a bad cable might leave of a stream.
HALF = """
import sys, pyarrow as pa
reader = pa.ipc.open_stream(sys.stdin.buffer)
batches = list(reader)
{change}
with pa.ipc.new_stream(sys.stdout.buffer, reader.schema) as writer:
    for batch in batches:
        writer.write_batch(batch)
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("batches = batches[: len(batches) // 2]", "keys of sum"),
        ("batches[-1] = batches[-1].slice(1)", "keys of sum"),
        ("batches = batches[:-1] + batches[-2:]", "expected keys in ascending order"),
        ("batches[1] = pa.record_batch([batches[1][0], batches[0][1]], schema=reader.schema)", "keys of sum"),
        ("sys.stdout.buffer.write(b'nothing'); sys.exit()", "not whole"),
    ],
)  # fmt: skip
def test_a_stream_that_is_not_whole(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines, change: str, told: str
) -> None:
    import sys

    script = scratch / "half.py"
    script.write_text(HALF.format(change=change))
    text = f'"$real" "$@" | {sys.executable} {script}; exit 0'
    from kmer_spark import engine as runner

    understood = options.understand(
        {"relation": str(KLEBS), "engine": engine_of("half", text), "segment-dir": str(scratch / "segments")},
        2,
    )
    metas: list[dict[str, Any]] = []
    with pytest.raises(runner.EngineError, match=told) as caught:
        list(runner.count(understood.ask, understood.units[0], metas.append))
    assert not metas and f"relation '{KLEBS}', blocks 0 to 56" in str(caught.value)


def test_a_stream_cut_short_on_one_node(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines
) -> None:
    half = engine_of("half", '"$real" "$@" | head -c 400000; exit 0')
    cluster.nodes_of({"KMER_LEADER": half}, {"KMER_LEADER": engine_of("good")})
    assert report(counting(session(spark_excludeOnFailure_enabled="true"), scratch)) == local()
    assert started(half)


def test_a_corrupt_block(cluster: Cluster, session: Sessions, scratch: Path, tmp_path: Path) -> None:
    for name in ("klebs", "klebs.schema", "klebs.toast"):
        shutil.copy(KLEBS.with_name(name), tmp_path / name)
    relation = tmp_path / "klebs"
    damaged = bytearray(relation.read_bytes())
    damaged[8192 * 43 + 5000] ^= 4
    relation.write_bytes(damaged)
    cluster.nodes_with(KMER_LEADER=str(ENGINE))
    spark = session(spark_excludeOnFailure_enabled="true")
    said = error_of(counting(spark, scratch, relation))
    assert f"relation '{relation}', blocks 42 to 48" in said or f"relation '{relation}', blocks" in said
    assert "exit code 1: kmer-leader: error:" in said and "block 43" in said
    # Passed over where that was asked for, and counted.
    output, here = tmp_path / "output", tmp_path / "local"
    words = ["-q", "--on-error", "skip", "-R", "0.001"]
    more = [
        "--relation",
        str(relation),
        "--part-size",
        "64K",
        "--segment-dir",
        str(scratch / "segments"),
        "-o",
        str(output),
    ]
    args = cli.parser().parse_args([*words, *more])
    assert cli.count(spark, args, cli.rule_of(args)) == 3
    leader(*words, "-o", str(here), str(relation), code=3)
    assert output.read_bytes() == here.read_bytes() and b"# pages_skipped: 1\n" in here.read_bytes()


def test_units_that_run_twice_count_once(
    cluster: Cluster, session: Sessions, scratch: Path, engine_of: Engines
) -> None:
    # The first unit of a node waits until somebody else was given the same one, and then both run to their end.
    waits = engine_of(
        "waits",
        """if mkdir "$here/first" 2> /dev/null; then
            blocks=$(sed 's/.*--blocks \\([^ ]*\\).*/\\1/' "$here/units" | head -n 1)
            until grep -qs -- "--blocks $blocks " "$here"/../good-*/units; do sleep 0.05; done
        fi
        exec "$real" "$@" """,
    )
    for old in scratch.glob("good-*"):
        shutil.rmtree(old)
    good = engine_of("good")
    cluster.nodes_of({"KMER_LEADER": waits}, {"KMER_LEADER": good})
    spark = session(
        spark_speculation="true",
        spark_speculation_interval="100ms",
        spark_speculation_multiplier="1.1",
        spark_speculation_quantile="0.5",
        spark_speculation_minTaskRuntime="100ms",
    )
    assert report(counting(spark, scratch)) == local()
    twice = set(started(waits)) & set(started(good))
    assert started(waits)[0] in twice, "nothing ran twice"
