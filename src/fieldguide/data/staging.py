"""Every photo of an archive, decoded once by all cores into one file."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fieldguide.data.archive import Archive, Member, UnreadableMemberError
from fieldguide.data.decode import UnusablePhotoError, decode
from fieldguide.params import DataParams

CHUNK_BYTES = 2**22  # read at once; keeps memory flat
# Photos and bytes of files that a core takes at once: starting a task costs as much as a tenth of
# a small photo, and what is taken ahead from a packed archive waits in memory.
_PHOTOS = 16
_BYTES = 2**20
_AHEAD = 3  # such tasks a core that wait for their turn
T = TypeVar("T")


class Failure(NamedTuple):
    """Why a photo cannot be used."""

    reason: str  # "unreadable", "too small" or "too large"
    detail: str


class Staged:
    """Decoded photos in a file; read, not memory-mapped, so that they never count as memory."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self.shape = (size, size, 3)
        self.row_bytes = size * size * 3

    def chunks(self, rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield (n, H, W, 3), CHUNK_BYTES at a time, in the order of `rows`."""
        step = max(1, CHUNK_BYTES // self.row_bytes)
        for start in range(0, len(rows), step):
            here = rows[start : start + step]
            pixels = np.empty((len(here), *self.shape), np.uint8)
            for first, end in _runs(here):  # read at once where they lie side by side
                self._file.seek(here[first] * self.row_bytes)
                wanted = pixels[first:end].data
                if self._file.readinto(wanted) != wanted.nbytes:
                    raise OSError(f"{self._file.name}: shorter than what was written to it")
            yield pixels


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and end of each stretch of `rows` that counts up by one."""
    first = 0
    for k in range(1, len(rows) + 1):
        if k == len(rows) or rows[k] != rows[k - 1] + 1:
            yield first, k
            first = k


def stage_photos(
    archive: Archive, members: Sequence[Member], params: DataParams, path: Path
) -> tuple[list[bytes], dict[int, Failure]]:
    """Decode each member into its row of the file at `path`.

    Returns:
        SHA-256 of each member (empty where it failed), and the failures by row.
    """
    digests = [b""] * len(members)
    failures = {}
    order: Sequence[int] = range(len(members))
    if archive.sequential:
        order = sorted(order, key=lambda row: members[row].place)
    batches = list(_batches(members, order))

    def tasks(file: BinaryIO) -> Iterator[Callable[[], list[bytes | Failure]]]:
        for rows in batches:
            read: Callable[[int], bytes | Failure] = partial(_read, archive, members)
            if archive.sequential:  # read here, in turn; decoded by whichever core is free
                read = {row: read(row) for row in rows}.__getitem__
            yield partial(_stage, file, rows, read, params)

    with path.open("wb", buffering=0) as file, _pillow_without_limit(), _progress() as progress:
        bar = progress.add_task("Decoding", total=len(members))
        for rows, results in zip(batches, _in_threads(tasks(file)), strict=True):
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, Failure):
                    failures[row] = result
                else:
                    digests[row] = result
            progress.advance(bar, len(rows))
    return digests, failures


def _batches(members: Sequence[Member], order: Sequence[int]) -> Iterator[list[int]]:
    """Rows that a task takes: up to _PHOTOS, fewer where their files are large."""
    rows: list[int] = []
    size = 0
    for row in order:
        rows.append(row)
        size += members[row].size
        if len(rows) == _PHOTOS or size >= _BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _stage(
    file: BinaryIO, rows: Sequence[int], read: Callable[[int], bytes | Failure], params: DataParams
) -> list[bytes | Failure]:
    """Decode photos, write each one's pixels to its row of the file, return their SHA-256."""
    results: list[bytes | Failure] = []
    for row in rows:
        data = read(row)
        if isinstance(data, Failure):
            results.append(data)
            continue
        try:
            pixels = decode(data, params.image_size, resize=params.resize, min_size=params.min_size)
        except UnusablePhotoError as err:
            results.append(Failure(err.reason, err.detail))
            continue
        # Written, not memory-mapped: a full disk is then an error, not a dead process.
        _write(file, np.ascontiguousarray(pixels).data.cast("B"), row * pixels.nbytes)
        results.append(hashlib.sha256(data).digest())
    return results


def _read(archive: Archive, members: Sequence[Member], row: int) -> bytes | Failure:
    try:
        return archive.read(members[row])
    except UnreadableMemberError as err:
        return Failure("unreadable", str(err))


def _write(file: BinaryIO, data: memoryview, place: int) -> None:
    """Write all of `data`, of which a disk that is nearly full takes a part."""
    while data:
        written = os.pwrite(file.fileno(), data, place)
        data, place = data[written:], place + written


def _in_threads(tasks: Iterator[Callable[[], T]]) -> Iterator[T]:
    """Run tasks on all cores, a few ahead, in order; Pillow, zlib and hashlib release the GIL."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = cores or 1
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def _pillow_without_limit() -> Iterator[None]:
    """Pillow refuses by the size on paper; `decode` refuses by what decoding needs."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; a broken picture is an error
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
