"""Where a result may go, and where not; no engine and no Spark."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from cluster import KLEBS

from kmer_spark import cli, options, place, write


@pytest.fixture
def relation(tmp_path: Path) -> Path:
    """The example, with its sidecar and TOAST relation."""
    for name in ("klebs", "klebs.schema", "klebs.toast"):
        shutil.copy(KLEBS.with_name(name), tmp_path / name)
    return tmp_path / "klebs"


def checked(*words: str) -> None:
    """What the command looks at before anything runs."""
    args = cli.parser().parse_args(list(words))
    cli.check(args, cli.rule_of(args))
    cli.check_places(args)


def test_a_relation_is_more_than_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "24601").touch()
    first = str(tmp_path / "24601")
    for name in ["24601", "24601.1", "24601.17", "24601_vm", "24601_fsm.2", "24601.schema"]:
        assert place.belongs(str(tmp_path / name), first), name
    for name in ["24601.tsv", "24601.", "24601.1x", "246011", "2460", "24601.toast", "24601_vmx"]:
        assert not place.belongs(str(tmp_path / name), first), name
    # By another way, and where nothing is yet.
    (tmp_path / "link").symlink_to("real")
    assert place.full(str(tmp_path / "link/new")) == str(tmp_path / "real/new")
    (tmp_path / "real/named").symlink_to(first)
    for name in ["24601", "24601.1", "real/named.1", "real/named.schema"]:
        assert place.belongs(str(tmp_path / name), str(tmp_path / "link/named")), name


def test_what_is_read_is_not_written_to(relation: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    link = tmp_path / "link"
    link.symlink_to(relation)
    for output in [relation, f"{relation}.1", f"{relation}.schema", f"{tmp_path}/./klebs_vm", link]:
        for words in (["-o", str(output)], ["-o", "-", "--histogram", str(output)]):
            with pytest.raises(options.UsageError, match=r"found one of relation '.*/klebs', which is read"):
                checked("--relation", str(relation), *words)
    for words in ([], ["--toast", f"{relation}.toast"]):
        with pytest.raises(options.UsageError, match=r"found one of relation '.*/klebs\.toast', which is"):
            checked("--relation", str(relation), *words, "-o", f"{relation}.toast")
    with pytest.raises(options.UsageError, match="found one of relation"):
        checked("--relation", str(relation), "-F", "parquet", "-o", f"file:{relation}.1")
    with pytest.raises(
        options.UsageError, match=r"^-o '.*': expected a file of its own, found that of the i"
    ):
        checked("--files", str(relation), "-o", str(link))
    checked("--relation", str(relation), "-F", "parquet", "-o", f"hdfs://host{relation}.1")
    checked("--relation", str(relation), "-o", f"{relation}.tsv")
    link.unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_results_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    output, same = str(tmp_path / "o"), str(tmp_path / "link/o")
    for form in ("tsv", "parquet"):
        with pytest.raises(
            options.UsageError, match=r"^--histogram '.*o': expected a file of its own, found that of"
        ):
            checked("--relation", str(KLEBS), "-F", form, "-o", output, "--histogram", same)
    checked("--relation", str(KLEBS), "-o", "/dev/null", "--histogram", "/dev/null")
    checked("--relation", str(KLEBS), "-o", "-", "--histogram", "-")


def test_where_nothing_can_be_made_is_told_before(tmp_path: Path) -> None:
    for output, told in [
        (f"{tmp_path}/none/x", "could not create file '.*/none/x': No such file or directory"),
        (str(tmp_path), "could not create file '.*': it is a directory"),
        ("/proc/x", "could not create file '/proc/x': "),
        (f"{tmp_path}/", "it is a directory"),
        (f"{tmp_path}/none/", "expected a file name"),
    ]:
        for words in (["-o", output], ["-o", "-", "--histogram", output]):
            with pytest.raises(OSError, match=told):
                checked("--relation", str(KLEBS), *words)
    with pytest.raises(options.UsageError, match="expected a directory for the form parquet, found -"):
        checked("--relation", str(KLEBS), "-F", "parquet", "-o", "-")
    assert not list(tmp_path.iterdir())


def test_files_that_were_there(tmp_path: Path) -> None:
    target, link = tmp_path / "o", tmp_path / "link"
    mask = os.umask(0o027)
    try:
        write.file(str(target), [b"first"])
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
    finally:
        os.umask(mask)
    # Who may read the old one may read the new one, and behind a link it is the file that is replaced.
    link.symlink_to("o")
    write.file(str(link), [b"sec", b"ond"])
    assert link.is_symlink() and target.read_bytes() == b"second"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    long = tmp_path / ("x" * 255)
    write.file(str(long), [b"long"])
    assert long.read_bytes() == b"long"
    with pytest.raises(ZeroDivisionError):
        write.file(str(target), (bytes(1 // number) for number in (1, 0)))
    assert target.read_bytes() == b"second" and {path.name for path in tmp_path.iterdir()} == {
        "o",
        "link",
        long.name,
    }


def test_a_device_and_a_pipe_stay_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write.file(str(pipe), [b"a", b"b"])
    assert os.read(reader, 10) == b"ab" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    # A terminal is a device that can be read from again.
    ours, theirs = os.openpty()
    (tmp_path / "terminal").symlink_to(os.ttyname(theirs))
    write.file(str(tmp_path / "terminal"), [b"line"])
    assert os.read(ours, 10) == b"line" and stat.S_ISCHR((tmp_path / "terminal").stat().st_mode)
    os.close(ours)
    os.close(theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "terminal"]
