"""Every photo of the archives, decoded once into one file, part by part.

Parts know nothing of each other: a worker gets the bytes of a few photos and gives pixels and
hashes back. So it matters neither how many workers there are nor where they run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fieldguide.core.params import DataParams
from fieldguide.prepare.archive import Archive, Member, UnreadableMemberError
from fieldguide.prepare.chunks import Decoded, Failure, Wanted, decode_part, pillow_without_limit
from fieldguide.prepare.workers import in_threads

CHUNK_BYTES = 2**20  # read at once; keeps memory flat
# Photos, bytes of files and bytes of pixels of a part: starting one costs as much as a tenth of a
# small photo, and what is taken ahead from a packed archive waits in memory.
_PHOTOS = 16
_BYTES = 2**20
_PIXEL_BYTES = 2**22
_REMOTELY = 4  # times as many for a worker of a cluster, as sending a part costs more


class Staged:
    """Decoded photos in a file; read, not memory-mapped, so that they never count as memory."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.shape = (size, size, 3)
        self.row_bytes = size * size * 3

    def chunks(self, rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield (n, H, W, 3) in the order of `rows`, CHUNK_BYTES at a time; each until the next.

        May be called from many threads.
        """
        step = max(1, CHUNK_BYTES // self.row_bytes)
        chunk = np.empty((min(step, len(rows)), *self.shape), np.uint8)
        with self._path.open("rb", buffering=0) as file:
            for start in range(0, len(rows), step):
                here = rows[start : start + step]
                pixels = chunk[: len(here)]
                for row, wanted in zip(here, pixels, strict=True):
                    file.seek(row * self.row_bytes)
                    if file.readinto(wanted.data) != self.row_bytes:
                        raise OSError(f"{self._path}: shorter than what was written to it")
                yield pixels


def stage_photos(
    archive: Archive, members: Sequence[Member], params: DataParams, path: Path
) -> tuple[list[bytes], dict[int, Failure]]:
    """Decode each member into its row of the file at `path`.

    Returns:
        SHA-256 of each member (empty where it failed), and the failures by row.
    """
    digests = [b""] * len(members)
    failures = {}
    wanted = Wanted(params.image_size, params.resize, params.min_size)
    decode = _decode_here if params.engine == "local" else _decode_on_cluster
    with path.open("wb", buffering=0) as file, _progress() as progress:
        bar = progress.add_task("Decoding", total=len(members))
        for rows, results in decode(archive, members, wanted, file):
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, Failure):
                    failures[row] = result
                else:
                    digests[row] = result
            progress.advance(bar, len(rows))
    return digests, failures


Results = Iterator[tuple[list[int], list[bytes | Failure]]]


def _decode_here(
    archive: Archive, members: Sequence[Member], wanted: Wanted, file: BinaryIO
) -> Results:
    """Read, decode and write each part on one of this machine's cores."""
    parts = _parts(archive, members, wanted)

    def pieces() -> Iterator[Callable[[], list[bytes | Failure]]]:
        for rows in parts:
            read: Iterable[bytes | Failure] = (_read(archive, members[row]) for row in rows)
            if archive.sequential:  # read here, in turn; decoded by whichever core is free
                read = list(read)
            yield partial(_decode_and_write, file, rows, read, wanted)

    with pillow_without_limit():
        yield from zip(parts, in_threads(pieces()), strict=True)


def _decode_and_write(
    file: BinaryIO, rows: Sequence[int], photos: Iterable[bytes | Failure], wanted: Wanted
) -> list[bytes | Failure]:
    decoded = decode_part(photos, wanted)
    _write_rows(file, rows, decoded)
    return decoded.results


def _decode_on_cluster(
    archive: Archive, members: Sequence[Member], wanted: Wanted, file: BinaryIO
) -> Results:
    """Read and write here, decode on whichever node is free."""
    from fieldguide.prepare.nodes import decode_on_nodes  # noqa: PLC0415 - an extra

    parts = _parts(archive, members, wanted, times=_REMOTELY)
    photos = ((rows, [_read(archive, members[row]) for row in rows]) for rows in parts)
    for rows, decoded in decode_on_nodes(photos, wanted):
        _write_rows(file, rows, decoded)
        yield rows, decoded.results


def _parts(
    archive: Archive, members: Sequence[Member], wanted: Wanted, *, times: int = 1
) -> list[list[int]]:
    """Rows of each part: as many as a worker takes, fewer where their files are large."""
    order: Sequence[int] = range(len(members))
    if archive.sequential:
        order = sorted(order, key=lambda row: (members[row].archive, members[row].place))
    most = max(1, min(_PHOTOS, _PIXEL_BYTES // wanted.nbytes)) * times
    parts: list[list[int]] = []
    size = 0
    for row in order:
        if not parts or len(parts[-1]) >= most or size >= _BYTES * times:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += members[row].size
    return parts


def _read(archive: Archive, member: Member) -> bytes | Failure:
    try:
        return archive.read(member)
    except UnreadableMemberError as err:
        return Failure("unreadable", str(err))


def _write_rows(file: BinaryIO, rows: Sequence[int], decoded: Decoded) -> None:
    """Write each photo's pixels to its row of the file."""
    good = [
        row
        for row, result in zip(rows, decoded.results, strict=True)
        if not isinstance(result, Failure)
    ]
    # Written, not memory-mapped: a full disk is then an error, not a dead process.
    for row, pixels in zip(good, decoded.pixels, strict=True):
        _write(file, pixels.data.cast("B"), row * pixels.nbytes)


def _write(file: BinaryIO, data: memoryview, place: int) -> None:
    """Write all of `data`, of which a disk that is nearly full takes a part."""
    while data:
        written = os.pwrite(file.fileno(), data, place)
        data, place = data[written:], place + written


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))
