"""The prepared store: photos decoded once, memory-mapped ever after.

data/prepared/dataset.json   classes, size, mean, std, counts, shards with hashes, what was left out
data/prepared/train.npy      (N, H, W, 3) uint8 RGB; likewise val, test
data/prepared/train.csv      a line a row: source name, class, SHA-256 of the source; likewise

Rows are in the order of their SHA-256. A split that is larger than a shard may be is several, each
with an index of its own: train-0110.npy and .csv have the photos whose SHA-256 begins with these
bits (`shards.py`).
"""

from __future__ import annotations

import csv
import errno
import json
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import StoreError

FORMAT = 2
SPLITS = ("train", "val", "test")
_OTHER_FILES = 1024  # that a process may have open besides the shards of its store


class Split:
    """The photos of a split, or of several in turn; pixels stay on disk until asked for."""

    def __init__(self, folder: Path, names: tuple[str, ...], description: dict[str, Any]) -> None:
        self.name = "+".join(names)
        self._classes: list[str] = description["classes"]
        self._shape = (*[description["image_size"]] * 2, 3)
        self._rows_of: dict[Path, int] = {}  # of each index file
        self._shards = []
        shards = [shard for name in names for shard in description["shards"][name]]
        # Of all splits, as a training has several of them open.
        _allow_open_files(sum(map(len, description["shards"].values())))
        for shard in shards:
            file = folder / shard["file"]
            pixels = _open_shard(file, (shard["rows"], *self._shape))
            self._rows_of[file.with_suffix(".csv")] = shard["rows"]
            self._shards.append(pixels.reshape(len(pixels), -1))  # (n, H × W × 3)
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def nbytes(self) -> int:
        """Size of all pixels, in bytes."""
        return sum(shard.nbytes for shard in self._shards)

    @cached_property
    def _lines(self) -> list[dict[str, str]]:
        parts = (_read_index(index, rows, self._classes) for index, rows in self._rows_of.items())
        return list(chain.from_iterable(parts))

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each row: (N,), in [0, K)."""
        index = {name: k for k, name in enumerate(self._classes)}
        return np.array([index[line["class"]] for line in self._lines], dtype=np.int64)

    @cached_property
    def sources(self) -> list[str]:
        """Name of each row, in its archive or with it."""
        return [line["source"] for line in self._lines]

    def images(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Copy rows out of the shards, in the order asked for: (B,) -> (B, H, W, 3).

        Raises:
            IndexError: there is no such row.
        """
        if len(self._shards) == 1:
            return self._shards[0][rows].reshape(-1, *self._shape)
        pixels = np.empty((len(rows), *self._shape), dtype=np.uint8)
        if len(rows) == 0:
            return pixels
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()}: out of bounds of {len(self)}")
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        here = rows - self._starts[shard_of]  # row of that shard
        places = zip(shard_of.tolist(), here.tolist(), strict=True)
        found = [self._shards[shard][row] for shard, row in places]
        np.concatenate(found, out=pixels.reshape(-1))  # one call: loops in Python cost more
        return pixels


def _allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, where the system lets it: a mapped file is one."""
    try:
        import resource  # noqa: PLC0415 - Windows has none, nor such a limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if resource.RLIM_INFINITY not in (soft, hard) and soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open_shard(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    try:
        pixels: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        many = getattr(err, "errno", None) == errno.EMFILE
        todo = "raise `ulimit -n`, or data.shard_size" if many else "run `dvc repro`"
        raise StoreError(f"{file}: cannot be read ({err}); {todo}") from err
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise StoreError(f"{file}: found {pixels.dtype} {pixels.shape}; allowed: uint8 {shape}")
    return np.asarray(pixels)  # a view, without the cost of NumPy's memmap at each row


def _read_index(file: Path, rows: int, classes: list[str]) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = list(csv.DictReader(opened))
    except (OSError, ValueError) as err:
        raise StoreError(f"{file}: cannot be read ({err}); run `dvc repro`") from err
    if len(lines) != rows:
        raise StoreError(f"{file}: found {len(lines)} rows; its shard has {rows}")
    for unknown in {line["class"] for line in lines} - set(classes):
        raise StoreError(f"{file}: found class {unknown!r}; allowed: {', '.join(classes)}")
    return lines


class Store:
    """A prepared store that was opened for reading."""

    def __init__(self, folder: Path) -> None:
        """Open a store.

        Raises:
            StoreError: the folder is missing, or something else wrote it.
        """
        self.folder = folder
        self.description_file = folder / "dataset.json"
        try:
            description = json.loads(self.description_file.read_text(encoding="utf-8"))
            if description["format"] != FORMAT:
                raise StoreError(
                    f"{self.description_file}: found format {description['format']!r}; "
                    f"allowed: {FORMAT}; run `dvc repro prepare`"
                )
            self.classes: list[str] = description["classes"]
            self.image_size: int = description["image_size"]  # pixels
            self.resize: Literal["crop", "squash"] = description["resize"]
            self.mean: list[float] = description["mean"]  # of train, per channel, in [0, 1]
            self.std: list[float] = description["std"]
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise StoreError(
                f"{self.description_file}: not a prepared store ({err}); run `dvc repro prepare`"
            ) from err
        self._description = description

    def split(self, *names: str) -> Split:
        """Open "train", "val" or "test", or several as one.

        Raises:
            StoreError: a file is missing or damaged, or there is no photo.
        """
        split = Split(self.folder, names, self._description)
        if len(split) == 0:
            raise StoreError(
                f"{self.folder}: the {split.name} split is empty; allowed: a photo or more"
            )
        return split
