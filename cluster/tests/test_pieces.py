"""Pieces, units, facts and options, each beside a naive counterpart; no engine and no Spark."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cluster import ENGINE, KLEBS

import kmer_spark
from kmer_spark import cli, engine, options, pack, source, totals, units, write
from kmer_spark.job import keep


def entries(seed: int, number: int, bits: int) -> tuple[pack.Keys, pack.Counts]:
    random = np.random.default_rng(seed)
    keys = np.unique(
        random.integers(0, 1 << bits, number, np.uint64, endpoint=False)
        if bits < 64
        else random.integers(0, 2**64 - 1, number, np.uint64)
    )
    return keys, random.geometric(0.3, len(keys)).astype(np.uint64) ** np.uint64(2)


@pytest.mark.parametrize(("bits", "shift"), [(8, 7), (32, 27), (62, 60), (64, 61), (64, 63)])
def test_pieces_come_back_and_lie_in_their_buckets(bits: int, shift: int) -> None:
    keys, counts = entries(1, 5000, bits)
    found = list(pack.cut(keys, counts, shift))
    assert [bucket for bucket, _ in found] == sorted({key >> shift for key in keys.tolist()})
    for bucket, piece in found:
        own, own_counts = pack.unpack(piece)
        inside = keys >> np.uint64(shift) == bucket
        assert np.array_equal(own, keys[inside]) and np.array_equal(own_counts, counts[inside])
        with pytest.raises(ValueError, match="piece: expected"):
            pack.unpack(piece[:-1])
    assert list(pack.cut(keys[:0], counts[:0], shift)) == []


def test_sums_are_those_of_a_dictionary() -> None:
    parts = [entries(seed, 4000, 12) for seed in range(5)]
    naive: Counter[int] = Counter()
    for keys, counts in parts:
        naive.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))
    keys, counts = pack.add_up([pack.pack(*part) for part in parts])
    assert list(zip(keys.tolist(), counts.tolist(), strict=True)) == sorted(naive.items())
    assert engine.conserved(keys, counts) == sum(engine.conserved(*part) for part in parts) % (1 << 64)
    assert len(pack.add_up([])[0]) == 0


def test_the_conserved_sum_tells_every_small_change() -> None:
    keys, counts = entries(7, 500, 40)
    right = engine.conserved(keys, counts)
    for place in range(0, len(keys), 50):
        for column in (keys, counts):
            column[place] ^= np.uint64(1)
            assert engine.conserved(keys, counts) != right
            column[place] ^= np.uint64(1)
    assert engine.conserved(keys[1:], counts[1:]) != right
    assert engine.conserved(keys, counts) == right


def test_letters_and_lines() -> None:
    piece = pack.pack(np.array([0, 27, 255], np.uint64), np.array([1, 20, 3], np.uint64))
    assert write.text(4, 0, piece) == b"AAAA\t0\t1\nACGT\t27\t20\nTTTT\t255\t3\n"
    high = pack.pack(np.array([2**64 - 1], np.uint64), np.array([9], np.uint64))
    assert write.text(32, 0, high) == b"T" * 32 + b"\t18446744073709551615\t9\n"
    assert write.text(31, 2, high) == b"T" * 31 + b"\t18446744073709551615\t9\n"


def test_the_best_are_by_count_and_then_by_kmer() -> None:
    keys, counts = np.arange(6, dtype=np.uint64), np.array([5, 9, 5, 1, 9, 5], np.uint64)
    for top in range(1, 8):
        found = keep(totals.Rule(top=top), 0, keys, counts)
        best = sorted(
            zip(keys.tolist(), counts.tolist(), strict=True), key=lambda entry: (-entry[1], entry[0])
        )[:top]
        assert list(zip(found[0].tolist(), found[1].tolist(), strict=True)) == sorted(best)
    assert keep(totals.Rule(max_rows=8), 4, keys, counts)[0].tolist() == [0, 2, 5]


def test_every_block_is_in_one_unit(tmp_path: Path) -> None:
    relation = tmp_path / "r"
    relation.write_bytes(bytes(8192 * 5))
    (tmp_path / "r.1").write_bytes(bytes(8192 * 6))
    for part_size in (1, 8192, 3 * 8192, 1 << 30):
        found = units.of_relations([str(relation)], part_size)
        blocks = [block for unit in found for block in range(*(unit.blocks or (0, 0)))]
        assert blocks == list(range(11)) and all(unit.of == 11 for unit in found)
        most = max(1, part_size // 8192)
        assert all(0 < unit.blocks[1] - unit.blocks[0] <= most for unit in found if unit.blocks)
    assert "blocks 0 to 10" in str(found[0]) and units.Unit.of_plain(found[0].plain()) == found[0]
    # One without blocks is counted whole, as no range is of it.
    empty = tmp_path / "empty"
    empty.touch()
    nothing, *others = units.of_relations([str(empty), str(relation)], 1 << 30)
    assert nothing.words() == ["--", str(empty)] and nothing.blocks == (0, 0) and len(others) == 1
    assert str(nothing) == f"relation '{empty}', which is empty"
    relation.write_bytes(bytes(100))
    (tmp_path / "r.1").unlink()
    with pytest.raises(ValueError, match="expected blocks of 8192 bytes, found 100 bytes"):
        units.of_relations([str(relation)], 1 << 20)


def test_no_block_is_counted_twice(tmp_path: Path) -> None:
    names = ["r", "r.1", "r.2", "s", "linked", "w/up"]
    (tmp_path / "w").mkdir()
    relation, segment, _, other, linked, upwards = (str(tmp_path / name) for name in names)
    for name in names[:4]:
        (tmp_path / name).write_bytes(bytes(8192))
    os.link(relation, linked)
    os.symlink("../r", upwards)
    assert len(units.of_relations([relation, other], 1 << 20)) == 2
    for same in (relation, f"{tmp_path}/w/../r", linked, upwards):
        with pytest.raises(ValueError, match=r"expected each file once, found .* in relation .*/r', too"):
            units.of_relations([relation, other, same], 1 << 20)
    # As a pattern brings it: in either order.
    for paths in ([relation, segment], [segment, relation]):
        with pytest.raises(
            ValueError, match=r"found '.*/r\.1' in relation '.*/r(\.1)?', too \(name the first"
        ):
            units.of_relations(paths, 1 << 20)


def test_every_file_is_in_one_group(tmp_path: Path) -> None:
    paths = []
    for number, size in enumerate([10, 500, 20, 480, 30, 0]):
        path = tmp_path / f"{number}.fa"
        path.write_bytes(bytes(size))
        paths.append(str(path))
    found = units.of_files(paths, 520)
    assert sorted(path for unit in found for path in unit.paths) == sorted(paths)
    assert len(found) == 2 and len(units.of_files(paths, 1)) <= len(paths)
    with pytest.raises(ValueError, match="found one twice"):
        units.of_files([paths[0], paths[0]], 10)


META = dict.fromkeys(totals.SUMS, 3) | {
    "conserved": "f" * 16,
    "version": "1",
    "k": 16,
    "occur_bitlen": 0,
    "canonical": False,
}
META |= {"counts": totals.ROWS, "row_per_file": False, "column": "a'\t", "type": "dna2"}


def test_totals_take_each_unit_once() -> None:
    import json

    text = json.dumps(META)
    found = totals.Totals.of(["a", "b"], [(1, text), (0, text)])
    assert found["total_rows"] == 6 and found.conserved == 2**64 - 2
    for records, told in [
        ([(0, text)], "b: expected its totals, found none"),
        ([(0, text), (1, text), (0, text)], "a: expected its totals once"),
        ([(0, text), (1, json.dumps(META | {"k": 17}))], "b: k: expected 16, as in the first unit, found 17"),
    ]:
        with pytest.raises(RuntimeError, match=told):
            totals.Totals.of(["a", "b"], records)


def test_thresholds_and_numbers_as_the_engine_has_them() -> None:
    found = totals.Totals(META | {"total_rows": 1001})
    rule = totals.Rule
    for asked, expected in [
        (rule(), 500),
        (rule(rate=0.001), 1),
        (rule(rate=0.5, nrow=7), 7),
        (rule(all=True), None),
        (rule(min_rows=4), None),
        (rule(min_rows=4, rate=0.01), 10),
        (rule(top=4, nrow=2000), 1001),
        (rule(top=4, nrow=20), 20),
    ]:
        assert asked.by_rule(found) == expected, asked
    assert rule(min_rows=4).threshold(found) == 3 and rule(min_rows=4, rate=0.5).threshold(found) == 500
    numbers = {
        1.0: "1",
        0.5: "0.5",
        1e-7: "0.0000001",
        0.001: "0.001",
        0.0: "0",
        0.1 + 0.2: "0.30000000000000004",
    }
    assert {number: totals.decimal(number) for number in numbers} == numbers
    head = totals.head(found, totals.facts(found, rule(rate=1.0, nrow=7), 5, 2))
    assert "# column: a\\'\\t\n" in head and "floor(total_rows * 1), lowered to 7 rows\n" in head


@pytest.mark.parametrize(
    "behind",
    ["", "\n", "\n\n\tat org.apache.spark.X(Y.scala:1)\n\t... more", "\n\nDriver stacktrace:\n\tat a.b"],
)
def test_an_engines_error_is_told_alone(behind: str) -> None:
    said = "relation 'r', blocks 0 to 7: kmer-leader on node n: exit code 1: kmer-leader: error: x (block 3)\nkmer-leader: hint: y"
    trace = "Job aborted.\nTraceback (most recent call last):\n  File x\nkmer_spark.engine.EngineError: "
    assert cli.message(RuntimeError(trace + said + behind)) == said
    assert cli.message(RuntimeError("another")) == "another"


def test_what_is_asked_wrongly_is_told(tmp_path: Path) -> None:
    relation = tmp_path / "r"
    relation.write_bytes(bytes(8192))
    good = {"relation": str(relation), "engine": "/nonexistent/kmer-leader"}
    # Where there is no engine, the one of this package's version is expected on the nodes.
    assert options.understand(good, 2).ask["version"] == f"kmer-leader {kmer_spark.__version__}"
    for more, told in [
        ({"kmer-size": "33"}, "--kmer-size: expected a number from 4 to 32, found '33'"),
        (
            {"kmer-size": 30, "occur-bitlen": 5},
            "--occur-bitlen: expected at most 4 beside a k of 30, found 5",
        ),
        ({"files": str(relation)}, "either --relation or --files"),
        ({"part-size": "4X"}, "--part-size: expected"),
        ({"engine": str(ENGINE), "unhinted": "perhaps"}, "invalid value .perhaps. for .--unhinted"),
        ({"count": "all"}, "--count: expected rows or occurrences"),
    ]:
        with pytest.raises(options.UsageError, match=told):
            options.understand(good | more, 2)
    assert options.size("512M") == 512 << 20 and options.size("2GiB") == 2 << 30 and options.size("77") == 77


def test_options_of_the_data_source() -> None:
    typed = {"Kmer_Size": "21", "ROW-PER-FILE": "true", "c": "seq", "option.k": "3", "owner": "me"}
    assert source.named(typed) == {"kmer-size": "21", "row-per-file": "true", "column": "seq"}
    for name in source.NAMES:
        assert source.named({name.replace("-", "_").upper(): "x"}) == {name: "x"}
    for name, hint in [
        ("kmersize", " (kmer-size)"),
        ("row_per_files", " (row-per-file)"),
        ("relations", " (relation)"),
        ("path", " (relation or files)"),
        ("max_appearance_rate", ""),
    ]:
        with pytest.raises(options.UsageError) as caught:
            source.named({"relation": "r", name: "x"})
        assert str(caught.value) == f"option {name!r}: expected one of the command's, found another{hint}"
    with pytest.raises(options.UsageError, match="option 'kmer-size': expected it once, found it twice"):
        source.named({"k": "21", "kmer_size": "21"})
    assert options.flag({"facts": "TRUE"}, "facts") and not options.flag({}, "facts")
    with pytest.raises(options.UsageError, match="--facts: expected true or false, found 'ture'"):
        options.flag({"facts": "ture"}, "facts")


def test_the_engine_tells_what_it_would_stumble_over(tmp_path: Path) -> None:
    good = {"relation": str(KLEBS), "engine": str(ENGINE)}
    with pytest.raises(
        ValueError, match=r"blocks 0 to 56: kmer-leader: error: column .nope. does not"
    ) as caught:
        options.understand(good | {"column": "nope"}, 2)
    assert not isinstance(caught.value, options.UsageError)
    # But what only this node lacks is no matter.
    assert options.understand(good | {"segment-dir": str(tmp_path / "none")}, 2).units
    engine_here = tmp_path / "kmer-leader"
    engine_here.write_text(
        f'#!/bin/bash\n[ "$1" != -V ] || exec {ENGINE} -V\necho "no room in /dev/shm" >&2; exit 1\n'
    )
    engine_here.chmod(0o755)
    assert options.understand(good | {"engine": str(engine_here)}, 2).units


def test_numbers_as_the_engine_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    good = {"relation": str(KLEBS), "engine": "/nonexistent/kmer-leader"}
    asked = options.understand(good | {"kmer-size": "+16", "occur-bitlen": "+1", "workers": "0"}, 2)
    assert (
        asked.ask["expect"]["k"] == 16
        and asked.ask["workers"] == 0
        and "--kmer-size=+16" in asked.ask["words"]
    )
    assert options.understand(good, 2).ask["workers"] is None
    for text in ("1_6", " 16", "\u0661\u0666", "", "-16", "16.0"):
        with pytest.raises(options.UsageError, match="--kmer-size: expected a number from 4 to 32"):
            options.understand(good | {"kmer-size": text}, 2)

    def parsed(*words: str) -> totals.Rule:
        args = cli.parser().parse_args(["--relation", "r", "--output", "o", *words])
        rule = cli.rule_of(args)
        cli.check(args, rule)
        return rule

    assert parsed("-R", "1e-3", "-N", "+5") == totals.Rule(rate=0.001, nrow=5)
    assert parsed("-R", ".5", "-N", "2147483647").rate == 0.5
    for words, told in [
        ("-R 0.1_0", "expected a number from 0 to 1, found '0.1_0'"),
        ("-R nan", "expected a number from 0 to 1, found 'nan'"),
        ("-R 1.5", "expected a number from 0 to 1, found '1.5'"),
        ("-R .", "expected a number from 0 to 1, found '.'"),
        ("-N 1_0", "expected a whole number, found '1_0'"),
        ("--partitions many", "expected a whole number, found 'many'"),
    ]:
        with pytest.raises(SystemExit) as ended:
            parsed(*words.split())
        assert ended.value.code == 2 and told in capsys.readouterr().err, words
    for words, told in [
        ("-N 2147483648", "--max-appearance-nrow: expected a number from 0 to 2147483647, found 2147483648"),
        ("--partitions 0", "--partitions: expected a number from 1 to 1048576, found 0"),
        ("--partitions -4", "--partitions: expected a number from 1 to 1048576, found -4"),
        ("--top 18446744073709551616", "--top: expected a number from 1 to 18446744073709551615, found 1"),
        ("--table-oid 0", "--table-oid: expected a number from 1 to 4294967295, found 0"),
    ]:
        with pytest.raises(options.UsageError, match=told):
            parsed(*words.split())


def test_rules_that_no_engine_would_take_are_refused() -> None:
    for words, told in [
        (["-N", "-5"], "--max-appearance-nrow: expected a number from 0 to 2147483647, found -5"),
        (["--min-rows", "5", "--max-rows", "2"], "found 5 and 2"),
        (["--top", "0"], "--top: expected a number from 1 to"),
    ]:
        args = cli.parser().parse_args(["--relation", "r", "--output", "o", *words])
        with pytest.raises(options.UsageError, match=told):
            cli.rule_of(args)
