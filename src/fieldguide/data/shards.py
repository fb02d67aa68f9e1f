"""The pixels of the prepared store: NumPy files that training maps into memory."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldguide.data.staging import Staged

SHARD_BYTES = 2**30
_HEADER_BYTES = 128  # of a NumPy file with a short shape


class Moments:
    """Mean and deviation of pixels, per channel; exact up to rounding: summed as integers."""

    def __init__(self) -> None:
        self._count = 0  # photos
        self._sums = np.zeros((2, 1), np.uint64)  # of values and of squares: (2, H × W × 3)

    def add(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Add photos: (N, H, W, 3)."""
        flat = pixels.reshape(len(pixels), -1)
        # einsum is several times as fast here as `sum` and `**`; 32 bits hold 66,051 squares.
        values = np.einsum("ij->j", flat, dtype=np.uint32)
        squares = np.einsum("ij,ij->j", flat, flat, dtype=np.uint32)
        self._sums = self._sums + np.stack([values, squares])
        self._count += len(pixels)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Per channel, in [0, 1]."""
        sums = self._sums.reshape(2, -1, 3)
        count = self._count * sums.shape[1]
        mean, square = sums.sum(axis=1) / (count * np.array([[255], [255**2]]))  # (2, 3)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return mean.round(6).tolist(), std.round(6).tolist()


def write_shards(
    folder: Path, name: str, pixels: Staged, rows: Sequence[int]
) -> tuple[list[dict[str, Any]], Moments]:
    """Copy rows to NumPy files of at most SHARD_BYTES.

    Returns:
        File, rows and SHA-256 of each, and the moments of all pixels.
    """
    per_shard = max(1, (SHARD_BYTES - _HEADER_BYTES) // pixels.row_bytes)
    shards = []
    moments = Moments()
    for k, start in enumerate(range(0, len(rows), per_shard)):
        here = rows[start : start + per_shard]
        file = folder / f"{name}-{k:03d}.npy"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (len(here), *pixels.shape)}
        )
        digest = hashlib.sha256(header.getvalue())
        with file.open("wb") as out, ThreadPoolExecutor(1) as beside:
            out.write(header.getvalue())
            hashed = None
            for chunk in pixels.chunks(here):
                if hashed is not None:
                    hashed.result()  # so that no more than two chunks are in memory
                hashed = beside.submit(digest.update, chunk.data)
                out.write(chunk.data)
                moments.add(chunk)
        shards.append({"file": file.name, "rows": len(here), "sha256": digest.hexdigest()})
    return shards, moments
