"""Where a result may go, where the driver runs: not in the place of what is read, nor of another result, and where a file can be made.

A relation is more than the file that was named: its segments and forks lie beside it, its sidecar, and its TOAST relation. Whatever would
be one of them is refused, also where none is there yet. The rules are those of leader/src/output/same.rs and aside.rs.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Sequence

from . import units
from .options import UsageError

KEPT_NAME = 239
"""So many bytes of a file's name are in that of the temporary one: names have 255 at most."""


def full(path: str) -> str:
    """The path of a file behind all symbolic links, also of one that is not there yet."""
    if os.path.exists(path):
        return os.path.realpath(path)
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def sidecar(relation: str) -> dict[str, str]:
    """What RELATION.schema says; nothing where there is none."""
    try:
        with open(f"{relation}.schema", encoding="utf-8") as lines:
            pairs = [line.partition("=") for line in lines if not line.lstrip().startswith("#")]
    except (OSError, ValueError):  # the engine says what is wrong with it
        return {}
    return {name.strip(): value.strip() for name, found, value in pairs if found}


def of_relations(relations: Iterable[str], toast: str | None) -> list[str]:
    """All relations that are read: those, and the TOAST relations of them."""
    found = []
    for relation in relations:
        named = sidecar(relation).get("toast")
        beside = os.path.join(os.path.dirname(relation), named) if named else None
        found += [path for path in (relation, toast or beside) if path]
    return found


def belongs(file: str, relation: str) -> bool:
    """Whether a file of that full path is one of a relation's, or would be taken for one."""
    there = [name for name, _ in units.segments(relation)] if os.path.exists(relation) else []
    if file in map(full, [*there, f"{relation}.schema"]):
        return True
    # Behind a link to the first file, or beside that link. The forks are those of PostgreSQL's relpath.c.
    directory, name = os.path.split(os.path.abspath(relation))
    for first in (full(relation), os.path.join(os.path.realpath(directory), name)):
        if file.startswith(first) and re.fullmatch(r"(_fsm|_vm|_init)?(\.[0-9]+)?", file[len(first) :]):
            return True
    return False


def refuse_same(
    outputs: Sequence[tuple[str, str]], relations: Sequence[str] = (), files: Sequence[str] = ()
) -> None:
    """Refuses two outputs (options and paths) in one file, and an output that would take the place of what is read."""
    seen: dict[str, str] = {}
    read = {full(path) for path in files}
    for option, path in outputs:
        # A device may be written to twice.
        if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
            continue
        file = full(path)
        other = f"that of {seen[file]}" if file in seen else "that of the input" if file in read else None
        first = next((relation for relation in relations if belongs(file, relation)), None)
        if first is not None:
            other = other or f"one of relation {first!r}, which is read"
        if other:
            raise UsageError(f"{option} {path!r}: expected a file of its own, found {other}")
        seen[file] = option


def is_stream(path: str) -> bool:
    """Whether the name stands for a device or a named pipe, which is written to and stays what it is."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def aside(path: str) -> tuple[int, str, str]:
    """A new file, by its descriptor and its name, with the modes of the old one; and what it is to become: of a link, its target."""
    target = os.path.realpath(path) if os.path.exists(path) else path
    directory, name = os.path.split(target)
    if os.path.isdir(target):
        raise OSError(f"could not create file {path!r}: it is a directory")
    if not name:
        raise OSError(f"output {path!r}: expected a file name")
    if _is_mount_point(target):
        raise OSError(
            f"could not create file {path!r}: expected one that can be replaced, found a mount point"
            " (mount its directory, or write to standard output)"
        )
    kept = os.fsdecode(os.fsencode(name)[:KEPT_NAME])
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{kept}.", suffix=".tmp", dir=directory or ".")
    except OSError as error:
        raise OSError(f"could not create file {path!r}: {error.strerror}") from error
    try:
        os.fchmod(handle, stat.S_IMODE(os.stat(target).st_mode))
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
    except OSError:
        pass  # some file systems have no modes
    return handle, temporary, target


def check(path: str) -> None:
    """Whether that can be written: told before anything is counted."""
    if path == "-":
        return
    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise OSError(f"could not open file {path!r}: Permission denied")
        return
    handle, temporary, _ = aside(path)
    os.close(handle)
    os.unlink(temporary)


def _is_mount_point(target: str) -> bool:
    """Whether something is mounted on the file itself, as containers do: it can be written to and not replaced."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            points = [line.split(b" ")[4] for line in lines]
    except OSError:
        return False
    wanted = os.fsencode(os.path.abspath(target))
    # A blank in a path is written as \040, and so on.
    return any(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), p) == wanted for p in points)
