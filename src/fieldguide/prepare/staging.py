"""Decode every photo of the archives into one file, chunk by chunk.

Chunks are independent: a worker gets the bytes of a few photos and returns pixels and hashes. So
neither the number of workers nor the machine they run on changes the result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from fieldguide.core.params import DataParams
from fieldguide.prepare.bursts import Taken
from fieldguide.prepare.chunks import (
    Chunks,
    Decoded,
    DecodedChunks,
    Failure,
    decode_chunk,
)
from fieldguide.prepare.member import Member, OpenArchive, UnreadableMemberError

# Limits of a chunk: photos, bytes of their files and bytes of their pixels. Starting a chunk costs
# as much as a tenth of a small photo, and a waiting chunk is in memory.
_PHOTOS = 16
_BYTES = 2**20
_PIXEL_BYTES = 2**20
_AHEAD = 3  # chunks that wait for each core
_BLOCK_BYTES = 2**20  # of pixels that are read at once


class StagedPhotos(NamedTuple):
    """What is known of each photo after decoding, besides its pixels and its look."""

    digests: list[bytes]  # SHA-256 by row; empty for a photo that failed
    failures: dict[int, Failure]  # by row
    taken: dict[int, Taken]  # by row, of photos whose time is known


class Staged(NamedTuple):
    """A file of decoded photos. It is not memory-mapped, so it never counts as memory."""

    path: Path
    size: int  # pixels of a photo's side

    def blocks(self, rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield (n, H, W, 3) in the order of `rows`, about _BLOCK_BYTES at a time."""
        row_bytes = self.size**2 * 3
        step = max(1, _BLOCK_BYTES // row_bytes)
        with self.path.open("rb") as file:
            for start in range(0, len(rows), step):
                here = rows[start : start + step]
                block = np.empty((len(here), self.size, self.size, 3), np.uint8)
                for row, pixels in zip(here, block, strict=True):
                    file.seek(row * row_bytes)
                    file.readinto(pixels.data)
                yield block


def stage_photos(
    archive: OpenArchive,
    members: Sequence[Member],
    params: DataParams,
    *,
    path: Path,
    looks: Path,
) -> StagedPhotos:
    """Decode each member into its row of the file at `path`, and its look into that at `looks`."""
    digests = [b""] * len(members)
    failures: dict[int, Failure] = {}
    taken: dict[int, Taken] = {}
    chunks = _chunks(archive, members, params)
    photos = ((rows, (_read(archive, members[row]) for row in rows)) for rows in chunks)
    if params.engine == "local":
        decoded = _decode_here(photos, params, sequential=archive.sequential)
    else:
        from fieldguide.prepare.nodes import decode_on_nodes  # noqa: PLC0415 - Ray is an extra

        decoded = decode_on_nodes(photos, params)
    console = Console(stderr=True)
    # Written, not memory-mapped: a full disk is then an error and does not kill the process.
    with path.open("wb") as file, looks.open("wb") as looks_file:
        for rows, results in track(decoded, "Decoding", total=len(chunks), console=console):
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, Failure):
                    failures[row] = result
                else:
                    digests[row] = result.digest
                    file.seek(row * result.pixels.nbytes)
                    file.write(result.pixels.data)
                    looks_file.seek(row * result.look.nbytes)
                    looks_file.write(result.look.data)
                    if result.taken is not None:
                        taken[row] = result.taken
    return StagedPhotos(digests, failures, taken)


def _decode_here(chunks: Chunks, params: DataParams, *, sequential: bool) -> DecodedChunks:
    """Decode on the cores of this machine, in threads: Pillow, zlib and hashlib release the GIL."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    waiting: deque[tuple[list[int], Future[list[Decoded | Failure]]]] = deque()
    pool = ThreadPoolExecutor(cores)
    try:
        for rows, photos in chunks:
            # A sequential archive is read here and in order; others by the threads.
            given = list(photos) if sequential else photos
            waiting.append((rows, pool.submit(decode_chunk, given, params)))
            if len(waiting) > _AHEAD * cores:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(archive: OpenArchive, members: Sequence[Member], params: DataParams) -> list[list[int]]:
    """Return the rows of each chunk: fewer where files or pixels are large."""
    order: Sequence[int] = range(len(members))
    if archive.sequential:
        order = sorted(order, key=lambda row: (members[row].archive, members[row].place))
    most = max(1, min(_PHOTOS, _PIXEL_BYTES // (params.image_size**2 * 3)))
    chunks: list[list[int]] = []
    size = 0
    for row in order:
        if not chunks or len(chunks[-1]) >= most or size >= _BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(row)
        size += members[row].size
    return chunks


def _read(archive: OpenArchive, member: Member) -> bytes | Failure:
    try:
        return archive.read(member)
    except UnreadableMemberError as err:
        return Failure(err.reason, str(err))


def mean_and_std(blocks: Iterable[npt.NDArray[np.uint8]]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of all pixels, for each channel, in [0, 1].

    Sums are integers, so the result does not depend on the order of the photos.

    Args:
        blocks: each (n, H, W, 3), with n up to 66,051, as 32 bits hold so many squares of 255.
    """
    count = 0  # pixels
    sums = np.zeros((2, 3), np.uint64)  # of values and of their squares
    for block in blocks:
        flat = block.reshape(len(block), -1)  # (n, H × W × 3)
        values = np.einsum("ij->j", flat, dtype=np.uint32)  # einsum is 10 times as fast as `sum`
        squares = np.einsum("ij,ij->j", flat, flat, dtype=np.uint32)
        sums += np.stack([values, squares]).reshape(2, -1, 3).sum(axis=1, dtype=np.uint64)
        count += flat.size // 3
    mean, square = sums / (count * np.array([[255], [255**2]]))  # (2, 3)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return mean.round(6).tolist(), std.round(6).tolist()
