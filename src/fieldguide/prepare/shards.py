"""The files of the prepared store: each split cut by content, so that few change when it grows.

Which shard a photo is in follows from its SHA-256 alone. A shard holds all photos whose digest
begins with its prefix; one that would be too large is two, by the next bit. So the shards are a
function of the set of photos, and an added photo rewrites the one that it falls into.

Source: extendible hashing, Fagin et al. 1979 (https://doi.org/10.1145/320083.320092).
"""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.files import write_csv
from fieldguide.prepare.layout import Photo
from fieldguide.prepare.staging import Staged
from fieldguide.prepare.workers import in_threads

_HEADER_BYTES = 128  # of a NumPy file with a short shape
# Bits of a prefix. Of a billion photos no two share 64, unless they are copies, which no bit parts:
# a test set may hold more of one photo than a shard takes.
MAX_DEPTH = 64
_DIGEST_BITS = 256
# Shards written at once: more would wait for the disk, and each holds a few megabytes.
_WRITERS = 8
_SUMMED = 2**16  # squares of bytes that 32 bits hold: 66,051


class Leaf(NamedTuple):
    """Rows of one shard among those of its split, which are sorted by digest."""

    prefix: str  # leading bits of the digests, "" for a split in one piece
    first: int
    end: int


class Moments:
    """Mean and deviation of pixels, per channel; exact up to rounding: summed as integers."""

    def __init__(self) -> None:
        self._count = 0  # pixels
        self._sums = np.zeros((2, 3), np.uint64)  # of values and of squares

    def add(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Add photos: (N, H, W, 3)."""
        rows = pixels.reshape(-1, pixels.shape[2] * 3)  # (N × H, W × 3)
        for start in range(0, len(rows), _SUMMED):
            here = rows[start : start + _SUMMED]
            # einsum is several times as fast here as `sum` and `**`.
            values = np.einsum("ij->j", here, dtype=np.uint32)
            squares = np.einsum("ij,ij->j", here, here, dtype=np.uint32)
            sums = np.stack([values, squares]).reshape(2, -1, 3)  # (2, W × 3) -> (2, W, 3)
            self._sums = self._sums + sums.sum(axis=1, dtype=np.uint64)
        self._count += pixels.size // 3

    def merge(self, other: Moments) -> None:
        """Add the photos of another one."""
        self._sums = self._sums + other._sums
        self._count += other._count

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Per channel, in [0, 1]."""
        mean, square = self._sums / (self._count * np.array([[255], [255**2]]))  # (2, 3)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return mean.round(6).tolist(), std.round(6).tolist()


def leaves(digests: Sequence[bytes], capacity: int) -> Iterator[Leaf]:
    """Cut sorted SHA-256 digests into leaves of at most `capacity`, by prefix.

    A leaf of MAX_DEPTH bits may be larger. None is empty.
    """

    def divide(prefix: str, first: int, end: int) -> Iterator[Leaf]:
        if end - first <= capacity or len(prefix) == MAX_DEPTH:
            if first < end:
                yield Leaf(prefix, first, end)
            return
        border = int(f"{prefix}1", 2) << (_DIGEST_BITS - len(prefix) - 1)
        middle = bisect_left(digests, border.to_bytes(_DIGEST_BITS // 8, "big"), first, end)
        yield from divide(f"{prefix}0", first, middle)
        yield from divide(f"{prefix}1", middle, end)

    return divide("", 0, len(digests))


def write_shards(
    folder: Path,
    name: str,
    staged: Staged,
    rows: Sequence[int],
    *,
    photos: Sequence[Photo],
    digests: Sequence[bytes],
    size: int,
) -> tuple[list[dict[str, Any]], Moments]:
    """Copy a split's rows to shards, each written by itself.

    Args:
        folder: where they go.
        name: of the split.
        staged: pixels by row.
        rows: of the split.
        photos: by row.
        digests: SHA-256 by row.
        size: bytes of a shard, at most.

    Returns:
        dataset.json's entry for each shard, and the moments of all pixels.
    """
    order = sorted(rows, key=lambda row: (digests[row], photos[row].member.source))
    capacity = max(1, (size - _HEADER_BYTES) // staged.row_bytes)

    def pieces() -> Iterator[Callable[[], tuple[dict[str, Any], Moments]]]:
        for leaf in leaves([digests[row] for row in order], capacity):
            file = folder / f"{'-'.join(filter(None, (name, leaf.prefix)))}.npy"
            here = order[leaf.first : leaf.end]
            index = [
                (photos[row].member.source, photos[row].label, digests[row].hex()) for row in here
            ]
            yield partial(_write_shard, file, staged, here, index)

    shards = []
    moments = Moments()
    for shard, part in in_threads(pieces(), at_most=_WRITERS):
        shards.append(shard)
        moments.merge(part)
    return shards, moments


def _write_shard(
    file: Path, staged: Staged, rows: Sequence[int], index: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, Any], Moments]:
    """Write the pixels and the index of one shard."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *staged.shape)}
    )
    digest = hashlib.sha256(header.getvalue())
    moments = Moments()
    with file.open("wb") as out:
        out.write(header.getvalue())
        for chunk in staged.chunks(rows):
            digest.update(chunk.data)
            out.write(chunk.data)
            moments.add(chunk)
    lines = file.with_suffix(".csv")
    write_csv(lines, ["source", "class", "sha256"], index)
    shard = {
        "file": file.name,
        "rows": len(rows),
        "sha256": digest.hexdigest(),
        "index_sha256": hashlib.sha256(lines.read_bytes()).hexdigest(),
    }
    return shard, moments
