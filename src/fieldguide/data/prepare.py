"""From an archive to the prepared store: read, decode, find copies, split, write."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fieldguide.data.archive import Archive, UnreadableMemberError, open_archive
from fieldguide.data.decode import UnusablePhotoError, decode
from fieldguide.data.layout import Layout, read_layout
from fieldguide.data.splits import find_copies, stratified_split
from fieldguide.data.store import FORMAT, SPLITS
from fieldguide.errors import ArchiveError
from fieldguide.files import new_folder, write_json
from fieldguide.params import DataParams

SHARD_BYTES = 2**30
_CHUNK_BYTES = 2**22  # copied at once; keeps memory flat
_SHOWN = 10  # names listed in a message


class LeftOut(NamedTuple):
    """A photo that is in no split."""

    source: str
    reason: str  # "unreadable", "too small", "duplicate" or "misplaced"
    detail: str


class Prepared(NamedTuple):
    """What `prepare` made, for its report."""

    classes: list[str]
    counts: dict[str, dict[str, int]]  # split -> class -> photos
    left_out: list[LeftOut]
    other_files: int


def prepare(params: DataParams, target: Path) -> Prepared:
    """Write the prepared store; nothing is left at `target` if it fails.

    Photos are decoded by all cores, straight out of the archive, into a file beside the store;
    once every photo's SHA-256 is known and the broken ones are known, rows are copied to their
    split. Memory holds names and hashes of all photos, but pixels of a few only.

    Raises:
        ArchiveError: see `open_archive`, `read_layout` and `stratified_split`; also when more than
            `data.max_unreadable` of the photos are unreadable, or the disk is too small.
    """
    path = Path(params.archive)
    with open_archive(path) as archive, new_folder(target) as folder:
        layout = read_layout(path, archive.members)
        _check_space(folder, len(layout.photos) * params.image_size**2 * 3)
        staged = folder / "staged"
        digests, failures = _decode_all(archive, layout, params, staged)
        _check_unreadable(path, layout, failures, params.max_unreadable)
        rows_of, left_out = _assign(layout, digests, failures, params)
        counts, shards = {}, {}
        with staged.open("rb") as file:
            pixels = _Staged(file, params.image_size)
            for name in SPLITS:
                rows = rows_of[name]
                labels = Counter(layout.photos[row].label for row in rows)
                counts[name] = {label: labels[label] for label in layout.classes}
                shards[name] = _write_shards(folder, name, pixels, rows)
                _write_index(folder / f"{name}.csv", layout, digests, rows)
            mean, std = _mean_and_std(pixels, rows_of["train"])
        staged.unlink()
        write_json(
            folder / "dataset.json",
            {
                "format": FORMAT,
                "classes": layout.classes,
                "image_size": params.image_size,
                "resize": params.resize,
                "mean": mean,
                "std": std,
                "counts": counts,
                "shards": shards,
                "left_out": [item._asdict() for item in left_out],
            },
        )
    return Prepared(layout.classes, counts, left_out, layout.other_files)


def _decode_all(
    archive: Archive, layout: Layout, params: DataParams, staged: Path
) -> tuple[list[bytes], dict[int, LeftOut]]:
    """Decode every photo into its row of `staged`; return hashes and what went wrong, by row."""
    photos = layout.photos
    digests = [b""] * len(photos)
    failures: dict[int, LeftOut] = {}
    order: Sequence[int] = range(len(photos))
    if archive.sequential:
        order = sorted(order, key=lambda row: photos[row].member.place)

    with staged.open("wb") as file, _pillow_without_limit():

        def work(row: int, data: bytes | UnreadableMemberError | None) -> tuple[int, bytes]:
            member = photos[row].member
            try:
                if data is None:
                    data = archive.read(member)
                if isinstance(data, UnreadableMemberError):
                    raise data
                square = decode(
                    data, params.image_size, resize=params.resize, min_size=params.min_size
                )
            except UnreadableMemberError as err:
                failures[row] = LeftOut(member.name, "unreadable", str(err))
                return row, b""
            except UnusablePhotoError as err:
                failures[row] = LeftOut(member.name, err.reason, err.detail)
                return row, b""
            # Written, not memory-mapped: a full disk is then an error, not a dead process.
            _write_at(file.fileno(), square.tobytes(), row * square.nbytes)
            return row, hashlib.sha256(data).digest()

        def tasks() -> Iterator[partial[tuple[int, bytes]]]:
            for row in order:
                data = _read_in_turn(archive, layout, row) if archive.sequential else None
                yield partial(work, row, data)

        for row, digest in _progress(_in_threads(tasks()), len(photos)):
            digests[row] = digest
        file.truncate(len(photos) * params.image_size**2 * 3)  # where the last ones are broken
    return digests, failures


def _read_in_turn(archive: Archive, layout: Layout, row: int) -> bytes | UnreadableMemberError:
    try:
        return archive.read(layout.photos[row].member)
    except UnreadableMemberError as err:
        return err


def _in_threads(
    tasks: Iterable[partial[tuple[int, bytes]]],
) -> Iterator[tuple[int, bytes]]:
    """Run tasks on all cores, a few ahead; Pillow, zlib and hashlib release the GIL."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = cores or 1
    waiting: deque[Future[tuple[int, bytes]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _progress(items: Iterator[tuple[int, bytes]], total: int) -> Iterator[tuple[int, bytes]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description="Decoding")


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


class _pillow_without_limit:  # noqa: N801 - used as a statement
    """Pillow refuses by the size on paper; `decode` refuses by what decoding needs."""

    def __enter__(self) -> None:
        self._limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")  # of odd metadata; a broken picture is an error

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        Image.MAX_IMAGE_PIXELS = self._limit


def _check_space(folder: Path, staged_bytes: int) -> None:
    free, needed = shutil.disk_usage(folder).free, 2 * staged_bytes
    if needed > free:
        raise ArchiveError(
            f"{folder.parent}: {needed / 2**20:,.0f} MiB needed for the prepared store, "
            f"{free / 2**20:,.0f} MiB free; lower data.image_size or free some space"
        )


def _check_unreadable(
    path: Path, layout: Layout, failures: dict[int, LeftOut], allowed: float
) -> None:
    broken = [item for _, item in sorted(failures.items()) if item.reason == "unreadable"]
    if len(broken) <= allowed * len(layout.photos):
        return
    names = "\n".join(f"  {item.source}: {item.detail}" for item in broken[:_SHOWN])
    more = f"\n  and {len(broken) - _SHOWN:,} more" if len(broken) > _SHOWN else ""
    raise ArchiveError(
        f"{path}: {len(broken):,} of {len(layout.photos):,} photos are unreadable "
        f"({len(broken) / len(layout.photos):.1%}); allowed: data.max_unreadable {allowed}\n"
        f"{names}{more}"
    )


def _assign(
    layout: Layout, digests: list[bytes], failures: dict[int, LeftOut], params: DataParams
) -> tuple[dict[str, list[int]], list[LeftOut]]:
    """Rows of each split, sorted, and what is left out."""
    photos = layout.photos
    usable = [row for row in range(len(photos)) if row not in failures]
    copies = find_copies(
        [digests[row] for row in usable],
        [photos[row].label for row in usable],
        [photos[row].part for row in usable],
    )
    left_out = [LeftOut(name, "misplaced", "in no class folder") for name in layout.misplaced]
    left_out += [item for _, item in sorted(failures.items())]
    left_out += [
        LeftOut(photos[usable[k]].member.name, "duplicate", why) for k, why in copies.items()
    ]
    usable = [row for k, row in enumerate(usable) if k not in copies]
    rows_of: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row in usable:
        rows_of[photos[row].part].append(row)
    missing = [label for label in layout.classes if label not in _labels(layout, rows_of["train"])]
    if missing:
        raise ArchiveError(f"class {missing[0]!r}: no usable photo left in the training folder")

    def split_off(name: str, fraction: float) -> None:
        if any(photo.part == name for photo in photos):
            if not rows_of[name]:
                raise ArchiveError(f"no usable photo left in the {name} folder")
        else:
            rows = rows_of["train"]
            labels = [photos[row].label for row in rows]
            stay, held_out = stratified_split(
                labels, fraction, seed=params.seed, key=f"data.{name}_fraction"
            )
            rows_of["train"] = [rows[k] for k in stay]
            rows_of[name] = [rows[k] for k in held_out]

    split_off("test", params.test_fraction)
    split_off("val", params.val_fraction)
    return rows_of, left_out


def _labels(layout: Layout, rows: Sequence[int]) -> set[str]:
    return {layout.photos[row].label for row in rows}


class _Staged:
    """Decoded photos in a file; read, not memory-mapped, so that they never count as memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._descriptor = file.fileno()
        self.shape = (size, size, 3)
        self.row_bytes = size * size * 3

    def chunks(self, rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield (n, H, W, 3), a bounded number of bytes at a time, in the order of `rows`."""
        step = max(1, _CHUNK_BYTES // self.row_bytes)
        for start in range(0, len(rows), step):
            here = rows[start : start + step]
            data = b"".join(
                os.pread(self._descriptor, self.row_bytes, row * self.row_bytes) for row in here
            )
            yield np.frombuffer(data, np.uint8).reshape(-1, *self.shape)


def _write_shards(
    folder: Path, name: str, pixels: _Staged, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """Copy rows to NumPy files of at most SHARD_BYTES; return file, rows and SHA-256 of each."""
    per_shard = max(1, SHARD_BYTES // pixels.row_bytes)
    shards = []
    for k, start in enumerate(range(0, len(rows), per_shard)):
        here = rows[start : start + per_shard]
        file = folder / f"{name}-{k:03d}.npy"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (len(here), *pixels.shape)}
        )
        digest = hashlib.sha256(header.getvalue())
        with file.open("wb") as out:
            out.write(header.getvalue())
            for chunk in pixels.chunks(here):
                digest.update(chunk.data)
                out.write(chunk.data)
        shards.append({"file": file.name, "rows": len(here), "sha256": digest.hexdigest()})
    return shards


def _write_index(file: Path, layout: Layout, digests: list[bytes], rows: Sequence[int]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["source", "class", "sha256"])
        for row in rows:
            photo = layout.photos[row]
            writer.writerow([photo.member.name, photo.label, digests[row].hex()])


def _mean_and_std(pixels: _Staged, rows: Sequence[int]) -> tuple[list[float], list[float]]:
    """Per channel, in [0, 1], exact up to rounding: counted as integers."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for chunk in pixels.chunks(rows):
        for channel in range(3):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    n = counts[0].sum()
    mean = counts @ values / n
    std = np.sqrt(np.maximum(counts @ values**2 / n - mean**2, 0))
    return mean.round(6).tolist(), std.round(6).tolist()
