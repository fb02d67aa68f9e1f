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
_AHEAD = 4  # photos a core that wait for their turn
T = TypeVar("T")


class Failure(NamedTuple):
    """Why a photo cannot be used."""

    reason: str  # "unreadable", "too small" or "too large"
    detail: str


class Decoded(NamedTuple):
    """A usable photo."""

    sha256: bytes
    pixels: npt.NDArray[np.uint8]  # (H, W, 3)


class Staged:
    """Decoded photos in a file; read, not memory-mapped, so that they never count as memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.shape = (size, size, 3)
        self.row_bytes = size * size * 3

    def chunks(self, rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield (n, H, W, 3), CHUNK_BYTES at a time, in the order of `rows`."""
        step = max(1, CHUNK_BYTES // self.row_bytes)
        for start in range(0, len(rows), step):
            data = bytearray()
            for row in rows[start : start + step]:
                self._file.seek(row * self.row_bytes)
                data += self._file.read(self.row_bytes)
            yield np.frombuffer(data, np.uint8).reshape(-1, *self.shape)


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

    def tasks() -> Iterator[Callable[[], Decoded | Failure]]:
        for row in order:
            if archive.sequential:  # read here, in turn; decoded by whichever core is free
                yield partial(_decode, _read(archive, members[row]), params)
            else:
                yield partial(_read_and_decode, archive, members[row], params)

    with path.open("wb") as file, _pillow_without_limit():
        # Written, not memory-mapped: a full disk is then an error, not a dead process.
        row_bytes = params.image_size**2 * 3
        for row, result in zip(order, _progress(_in_threads(tasks()), len(members)), strict=True):
            if isinstance(result, Failure):
                failures[row] = result
            else:
                digests[row] = result.sha256
                file.seek(row * row_bytes)
                file.write(result.pixels.data)
    return digests, failures


def _read(archive: Archive, member: Member) -> bytes | Failure:
    try:
        return archive.read(member)
    except UnreadableMemberError as err:
        return Failure("unreadable", str(err))


def _decode(data: bytes | Failure, params: DataParams) -> Decoded | Failure:
    if isinstance(data, Failure):
        return data
    try:
        pixels = decode(data, params.image_size, resize=params.resize, min_size=params.min_size)
    except UnusablePhotoError as err:
        return Failure(err.reason, err.detail)
    return Decoded(hashlib.sha256(data).digest(), np.ascontiguousarray(pixels))


def _read_and_decode(archive: Archive, member: Member, params: DataParams) -> Decoded | Failure:
    return _decode(_read(archive, member), params)


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


def _progress(items: Iterator[T], total: int) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description="Decoding")


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
