"""The extension's tables by JDBC: the rows that the local engine's script for psql makes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import ENGINE, KLEBS, Cluster, leader, wait_for
from conftest import Sessions

from kmer_spark import cli

Query = Callable[[str], str]


def programs() -> Path:
    """Where PostgreSQL's server programs are."""
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]


@pytest.fixture
def server(scratch: Path) -> Iterator[tuple[str, Query]]:
    """A server of this test's own: its URL, and a way to ask it."""
    user = next(
        name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}
    )
    entry = pwd.getpwnam(user)
    aside = (
        ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        if os.getuid() == 0
        else []
    )
    directory = Path(tempfile.mkdtemp(prefix="kmer-spark-pg-"))
    if aside:
        os.chown(directory, entry.pw_uid, entry.pw_gid)
    data = str(directory / "data")

    def do(*words: str) -> str:
        done = subprocess.run([*aside, *words], capture_output=True, text=True, cwd=directory)
        assert done.returncode == 0, done.stderr
        return done.stdout

    do(
        str(programs() / "initdb"),
        "-D",
        data,
        "-U",
        "kmer",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    )
    with socket_of() as port:
        pass
    log = (directory / "log").open("wb")
    words = [*aside, str(programs() / "postgres"), "-D", data, "-p", str(port), "-k", str(directory)]
    process = subprocess.Popen(
        [*words, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"], stdout=log, stderr=log
    )
    try:
        psql = [
            str(programs() / "psql"),
            "-h",
            str(directory),
            "-p",
            str(port),
            "-U",
            "kmer",
            "-d",
            "postgres",
        ]
        psql += ["-X", "-At", "-v", "ON_ERROR_STOP=1"]
        wait_for(
            "the server",
            lambda: subprocess.run([*psql, "-c", "SELECT 1"], capture_output=True).returncode == 0,
        )

        def ask(text: str) -> str:
            done = subprocess.run(psql, input=text, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield f"jdbc:postgresql://127.0.0.1:{port}/postgres?user=kmer", ask
    finally:
        process.terminate()
        process.wait()
        log.close()
        shutil.rmtree(directory, ignore_errors=True)


class socket_of:
    """A port that is free."""

    def __enter__(self) -> int:
        import socket

        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        return int(self.socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_the_tables_are_as_the_script_makes_them(
    cluster: Cluster, session: Sessions, scratch: Path, server: tuple[str, Query]
) -> None:
    url, ask = server
    cluster.nodes_with(KMER_LEADER=str(ENGINE))
    spark = session()

    def save(words: str) -> int:
        more = f"--relation {KLEBS} --part-size 200K --segment-dir {scratch / 'segments'} --jdbc {url} --table-oid 4242 -q"
        args = cli.parser().parse_args([*more.split(), *words.split()])
        rule = cli.rule_of(args)
        cli.check(args, rule)
        return cli.count(spark, args, rule)

    rows = (
        "SELECT table_oid, column_name, kmer_size, occur_bitlen, uintkey, appearance_nrow, detection_reason"
    )
    rows += " FROM kmersearch_highfreq_kmer ORDER BY 1, 2, 3, 4, 5"
    meta = "SELECT table_oid, column_name, kmer_size, occur_bitlen, max_appearance_rate, max_appearance_nrow FROM"
    meta += " kmersearch_highfreq_kmer_meta ORDER BY 1, 2, 3, 4"
    for words in ("-k 32 -R 0.001", "-k 12 -b 2 -R 0.01 -N 40"):
        assert save(words) == 0
    found = ask(rows), ask(meta)
    ask("DROP TABLE kmersearch_highfreq_kmer, kmersearch_highfreq_kmer_meta")
    for words in ("-k 32 -R 0.001", "-k 12 -b 2 -R 0.01 -N 40"):
        ask(leader("-q", *words.split(), "-F", "sql", "--table-oid", "4242", str(KLEBS)).decode())
    assert found == (ask(rows), ask(meta)) and found[0].count("\n") > 900 and found[1].count("\n") == 2
    # An analysis that is there stays, unless it is to be replaced. It is told before anything is counted, where the column's name is known.
    for words in ("-k 32 -R 0.01 --engine /nonexistent/kmer-leader", "-k 32 -R 0.01 -c 3"):
        with pytest.raises(Exception, match="an analysis with k 32 and occur_bitlen 0 is there already"):
            save(words)
    assert (ask(rows), ask(meta)) == found
    assert save("-k 32 -R 0.01 --replace") == 0
    assert ask(rows).count("\n") < found[0].count("\n") and "|32|0|0.01|0" in ask(meta)
    # Nothing else is left there.
    assert ask("SELECT count(*) FROM pg_class WHERE relname LIKE 'kmer_spark%'") == "0\n"
    for words, told in [
        ("--all", "by rate and row count"),
        ("--canonical", "counts of rows by k-mers as they stand"),
    ]:
        with pytest.raises(ValueError, match=told):
            save(words)
