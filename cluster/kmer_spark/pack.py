"""Sorted keys and their counts as bytes, and back: what the shuffle carries.

A piece has keys of one bucket, ascending, none twice. The layout, little endian:

    u32 n | u8 a | u8 b | u64 first key | a planes of n bytes | b planes of n bytes

The a planes are the bytes of each key's difference to the one before (0 for the first), the least byte first; the b planes those of the
counts. Planes that would be all zero are left out, so a key costs the bytes of the largest difference, and a count mostly one, which
Spark's own compression then makes next to nothing.

Buckets are ranges of keys by their first bits: bucket order is key order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Counts = NDArray[np.uint64]

HEAD = struct.Struct("<IBBQ")


def _planes(values: NDArray[np.uint64]) -> tuple[int, bytes]:
    width = max(1, (int(values.max()).bit_length() + 7) // 8)
    bytes_of = values.view(np.uint8).reshape(-1, 8)
    return width, np.ascontiguousarray(bytes_of[:, :width].T).tobytes()


def _values(planes: bytes, width: int, n: int) -> NDArray[np.uint64]:
    bytes_of = np.zeros((n, 8), np.uint8)
    bytes_of[:, :width] = np.frombuffer(planes, np.uint8).reshape(width, n).T
    return bytes_of.reshape(-1).view(np.uint64)


def pack(keys: Keys, counts: Counts) -> bytes:
    """Keys and counts, at least one, as bytes."""
    differences = np.empty_like(keys)
    differences[0] = 0
    np.subtract(keys[1:], keys[:-1], out=differences[1:])
    (a, first), (b, second) = _planes(differences), _planes(counts)
    return HEAD.pack(len(keys), a, b, int(keys[0])) + first + second


def unpack(piece: bytes) -> tuple[Keys, Counts]:
    """What `pack` was given."""
    n, a, b, first = HEAD.unpack_from(piece)
    if len(piece) != HEAD.size + n * (a + b):
        raise ValueError(f"piece: expected {HEAD.size + n * (a + b)} bytes, found {len(piece)}")
    cut = HEAD.size + n * a
    differences = _values(piece[HEAD.size : cut], a, n)
    differences[0] = first
    return np.cumsum(differences, dtype=np.uint64), _values(piece[cut:], b, n)


def cut(keys: Keys, counts: Counts, shift: int) -> Iterator[tuple[int, bytes]]:
    """The pieces of ascending keys, each with its bucket, which is the key without its last `shift` bits."""
    if len(keys) == 0:
        return
    first, last = int(keys[0]) >> shift, int(keys[-1]) >> shift
    bounds = np.arange(first + 1, last + 1, dtype=np.uint64) << np.uint64(shift)
    ends = [0, *np.searchsorted(keys, bounds).tolist(), len(keys)]
    for place, (start, end) in enumerate(pairwise(ends)):
        if start < end:
            yield first + place, pack(keys[start:end], counts[start:end])


def add_up(pieces: list[bytes]) -> tuple[Keys, Counts]:
    """All keys of the pieces, ascending, each once, with the sums of their counts."""
    if not pieces:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    unpacked = [unpack(piece) for piece in pieces]
    keys = np.concatenate([part[0] for part in unpacked])
    counts = np.concatenate([part[1] for part in unpacked])
    del unpacked
    # Stable is a merge sort of the runs that are there: as many as there are units.
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    return keys[starts], np.add.reduceat(counts, starts)
