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


def write_shards(
    folder: Path, name: str, pixels: Staged, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """Copy rows to NumPy files of at most SHARD_BYTES; return file, rows and SHA-256 of each."""
    per_shard = max(1, (SHARD_BYTES - _HEADER_BYTES) // pixels.row_bytes)
    shards = []
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
        shards.append({"file": file.name, "rows": len(here), "sha256": digest.hexdigest()})
    return shards


def mean_and_std(sums: npt.NDArray[np.int64], pixels: int) -> tuple[list[float], list[float]]:
    """Per channel, in [0, 1].

    Args:
        sums: (N, 2, 3), of each photo's values and of their squares, per channel.
        pixels: of a photo.
    """
    count = len(sums) * pixels
    mean, square = sums.sum(axis=0) / (count * np.array([[255], [255**2]]))  # (N, 2, 3) -> (3,)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.round(6).tolist(), std.round(6).tolist()
