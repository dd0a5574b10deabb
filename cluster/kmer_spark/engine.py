"""Runs kmer-leader over a unit and reads its partial result, an Arrow IPC stream.

Promises: `count` ends without an error only if the engine is of the expected version, exited with code 0 (or 3, where damage may be
skipped) and its stream was whole: keys ascend, their number and their conserved sum are those of the stream's own metadata, and that is
of the unit that was asked for. Whatever was yielded before an error is void, and Spark drops it with the failed task.
No engine outlives its reader: it gets SIGTERM when the reader ends early, even by SIGKILL, and cleans up by itself.

Does not check the stream's digest, which takes the keys one by one; `kmer-leader merge` does. docs/formats.md has the metadata.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .pack import Counts, Keys
from .units import Unit

META_KEY = b"kmer-leader.partial"
USAGE = 2
"""Exit code of a wrong command line."""
SKIPPED = 3
"""Exit code of a whole result but for damage that was skipped."""
OF_THIS_NODE = (
    "no room in ",
    " of shared-memory segment ",
    "memory: expected at least ",
    "Too many open files",
)
"""What the engine says of a node where it cannot run; others may have what that one lacks."""
PR_SET_PDEATHSIG = 1

Ask = dict[str, Any]
"""What an executor must know: engine (a path or None), version, words (options), workers (or None), skip, expect (of the metadata)."""


class EngineError(RuntimeError):
    """A unit that was not counted here."""


def find(typed: str | None) -> str:
    """The engine's path on this node: as typed, or $KMER_LEADER, or out of an archive, or on PATH.

    A typed path that is not absolute is looked for among the files of --archives and --files first.
    """
    named = typed or os.environ.get("KMER_LEADER")
    if named and os.path.isabs(named):
        return named
    for root in (*_spark_files(), os.getcwd()):
        for name in (
            (named,) if named else ("kmer-leader", "kmer-leader/kmer-leader", "kmer-leader/bin/kmer-leader")
        ):
            path = os.path.join(root, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    found = shutil.which(named or "kmer-leader")
    if found is None:
        raise EngineError(
            f"kmer-leader: expected it on node {socket.gethostname()}, found none"
            " (--engine, KMER_LEADER, --archives kmer-leader.tar.gz#kmer-leader, or PATH)"
        )
    return found


def _spark_files() -> tuple[str, ...]:
    from pyspark import SparkFiles

    try:
        return (SparkFiles.getRootDirectory(),)
    except Exception:  # no context: not inside of Spark
        return ()


def version(path: str) -> str:
    """What `kmer-leader -V` says."""
    try:
        ended = subprocess.run(
            [path, "-V"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise EngineError(f"{path}: could not start on node {socket.gethostname()}: {error}") from error
    if ended.returncode != 0:
        raise EngineError(
            f"{path} -V on node {socket.gethostname()}: {_ended(ended.returncode)}: {ended.stderr.strip()}"
        )
    return ended.stdout.strip()


def _ended(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def conserved(keys: Keys, counts: Counts) -> int:
    """The engine's sum over keys and counts: it adds up, and knows no order (leader/src/partial/meta.rs)."""
    mixed = keys ^ (keys >> np.uint64(32))
    mixed *= np.uint64(0x9E37_79B9_7F4A_7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= counts
    return int(np.add.reduce(mixed, dtype=np.uint64))


def count(ask: Ask, unit: Unit, done: Callable[[dict[str, Any]], None]) -> Iterator[tuple[Keys, Counts]]:
    """Counts a unit here: batches of ascending keys and their counts; `done` gets the metadata when all was well."""
    path = find(ask["engine"])
    where = f"{unit}: {path} on node {socket.gethostname()}"
    found = version(path)
    if found != ask["version"]:
        raise EngineError(f"{where}: expected {ask['version']!r}, as where the driver runs, found {found!r}")
    workers = _cpus() if ask["workers"] is None else ask["workers"]
    words = [path, "-q", *ask["words"], "-j", str(workers), "--partial", "-", *unit.words()]
    libc = ctypes.CDLL(None)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words,
            bufsize=1 << 20,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
        try:
            wrong, meta = None, None
            try:
                meta = yield from _read(process.stdout, ask, unit)
            except (pa.ArrowException, OSError, ValueError) as error:
                wrong = str(error)
            finally:
                # Whatever is still to come is not read: a writer would wait.
                assert process.stdout is not None
                process.stdout.close()
            code = process.wait()
        finally:
            _end(process)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if code not in ((0, SKIPPED) if ask["skip"] else (0,)):
        raise EngineError(f"{where}: {_ended(code)}: {said or wrong or 'it said nothing'}")
    if meta is None:
        raise EngineError(f"{where}: its partial result is not whole: {wrong}")
    done(meta)


@dataclass(frozen=True)
class Wrong:
    """What the engine finds wrong with a command line, or with what it is to read."""

    text: str
    is_usage: bool


def rehearse(path: str, ask: Ask, unit: Unit) -> Wrong | None:
    """What the engine finds wrong with the count of a unit, without counting it: it is told before a job begins."""
    words = [path, "-q", "--dry-run", *ask["words"], "--partial", "-", *unit.words()]
    ended = subprocess.run(words, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if ended.returncode <= 0 or any(text in ended.stderr for text in OF_THIS_NODE):
        return None
    return Wrong(f"{unit}: {ended.stderr.strip()}", ended.returncode == USAGE)


def _cpus() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    return max(1, context.cpus()) if context else 1


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(stream: Any, ask: Ask, unit: Unit) -> Generator[tuple[Keys, Counts], None, dict[str, Any]]:
    """The entries; gives the metadata when they are those that it speaks of."""
    with pa.ipc.open_stream(stream) as reader:
        meta: dict[str, Any] = json.loads((reader.schema.metadata or {}).get(META_KEY, b"{}"))
        _expect(meta, ask, unit)
        if reader.schema.types != [pa.uint64(), pa.uint32()]:
            raise ValueError(f"columns: expected uint64 and uint32, found {reader.schema.types}")
        last, number, sum_of = -1, 0, 0
        for batch in reader:
            batch.validate()
            keys = batch.column(0).to_numpy()
            counts = batch.column(1).to_numpy().astype(np.uint64)
            if not len(keys):
                continue
            if int(keys[0]) <= last or not bool((keys[1:] > keys[:-1]).all()):
                raise ValueError(f"expected keys in ascending order, found another behind key {last}")
            last, number = int(keys[-1]), number + len(keys)
            sum_of = (sum_of + conserved(keys, counts)) % (1 << 64)
            yield keys, counts
    if number != meta["keys"] or f"{sum_of:016x}" != meta["conserved"]:
        expected = f"{meta['keys']} keys of sum {meta['conserved']}"
        raise ValueError(f"expected {expected}, found {number} of {sum_of:016x}")
    return meta


def _expect(meta: dict[str, Any], ask: Ask, unit: Unit) -> None:
    """The metadata must be of what was asked for."""
    for name, expected in {"schema_version": 1, **ask["expect"]}.items():
        if meta.get(name) != expected:
            raise ValueError(f"metadata: {name}: expected {expected!r}, found {meta.get(name)!r}")
    if unit.blocks is None:
        return
    of = sum(file["blocks"] for file in meta["files"])
    if (of, tuple(meta["blocks"])) != (unit.of, unit.blocks):
        found = f"{meta['blocks'][0]}..{meta['blocks'][1]} of {of}"
        raise ValueError(f"blocks: expected {unit.blocks[0]}..{unit.blocks[1]} of {unit.of}, found {found}")
