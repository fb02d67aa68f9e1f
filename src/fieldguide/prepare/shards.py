"""Write the shards of a split so that few files change when the data set grows.

The SHA-256 of a photo alone decides its shard. A shard holds all photos whose digest begins with
its prefix; a shard that would be too large becomes two, by the next bit. So the shards depend on
nothing but the set of photos, and an added photo rewrites only its own shard.

Source: extendible hashing, Fagin et al. 1979 (https://doi.org/10.1145/320083.320092).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fieldguide.core.files import write_csv
from fieldguide.prepare.layout import Photo
from fieldguide.prepare.staging import Staged

_HEADER_BYTES = 128  # of a NumPy file with a short shape
# Bits of a prefix. No two of a billion photos share 64 bits, unless they are copies, which no
# prefix separates: a test set may hold more copies of a photo than fit into a shard.
MAX_DEPTH = 64
_DIGEST_BITS = 256


def leaves(digests: Sequence[bytes], capacity: int) -> Iterator[tuple[str, slice]]:
    """Divide sorted SHA-256 digests by prefix into leaves of 1 to `capacity` digests.

    A leaf of MAX_DEPTH bits may be larger.

    Returns:
        For each leaf its prefix, the bits that its digests begin with, and its place in `digests`.
    """

    def divide(prefix: str, first: int, end: int) -> Iterator[tuple[str, slice]]:
        if end - first <= capacity or len(prefix) == MAX_DEPTH:
            if first < end:
                yield prefix, slice(first, end)
            return
        border = int(f"{prefix}1", 2) << (_DIGEST_BITS - len(prefix) - 1)
        middle = bisect_left(digests, border.to_bytes(_DIGEST_BITS // 8, "big"), first, end)
        yield from divide(f"{prefix}0", first, middle)
        yield from divide(f"{prefix}1", middle, end)

    return divide("", 0, len(digests))


def write_shards(
    folder: Path,
    split: str,
    rows: Sequence[int],
    *,
    staged: Staged,
    photos: Sequence[Photo],
    digests: Sequence[bytes],
    max_bytes: int,
) -> list[dict[str, str | int]]:
    """Write the pixels and the index of each shard of a split.

    Args:
        folder: the store.
        split: its name.
        rows: of the split.
        staged: pixels by row.
        photos: by row.
        digests: SHA-256 by row.
        max_bytes: size limit of a shard.

    Returns:
        The entry of each shard in dataset.json.
    """
    order = sorted(rows, key=lambda row: (digests[row], photos[row].member.source))
    capacity = max(1, (max_bytes - _HEADER_BYTES) // (staged.size**2 * 3))
    shards: list[dict[str, str | int]] = []
    for prefix, place in leaves([digests[row] for row in order], capacity):
        here = order[place]
        file = folder / (f"{split}-{prefix}.npy" if prefix else f"{split}.npy")
        with file.open("wb") as out:
            shape = (len(here), staged.size, staged.size, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for block in staged.blocks(here):
                out.write(block.data)
        index = file.with_suffix(".csv")
        lines = [(photos[row].member.source, photos[row].label, digests[row].hex()) for row in here]
        write_csv(index, ["source", "class", "sha256"], lines)
        shards.append(
            {
                "file": file.name,
                "rows": len(here),
                "sha256": _sha256(file),
                "index_sha256": _sha256(index),
            }
        )
    return shards


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
