"""The prepared store: photos decoded once, then read as memory-mapped arrays.

data/prepared/dataset.json   classes, size, mean, std, counts, shards with hashes
data/prepared/train.npy      (N, H, W, 3) uint8 RGB; likewise val, test
data/prepared/train.csv      one line for each row: source name, class, SHA-256 of the source file
data/prepared/left_out.csv   one line for each file that is in no split, and why
data/prepared/groups.csv     one line for each photo of a group of two or more
data/prepared/most_alike.json  source names of the most alike pair of a training and a test photo

Rows are sorted by SHA-256. A split larger than the size limit of a shard has several shards, each
with its own index: train-0110.npy and train-0110.csv hold the photos whose SHA-256 begins with the
bits 0110 (`prepare/shards.py`).
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import StoreError
from fieldguide.core.output import counted

FORMAT = 2
SPLITS = ("train", "val", "test")
_FEW_GROUPS = 0.9  # groups per photo; up to here a note warns that intervals are too narrow


class MostAlike(NamedTuple):
    """The training photo and the test photo that look most alike."""

    train: str  # source name
    test: str
    correlation: float  # of their details, in [-1, 1] (`prepare/most_alike.py`)


class Split:
    """The photos of one split, or of several one after another; pixels stay on disk until read."""

    def __init__(self, folder: Path, names: tuple[str, ...], description: dict[str, Any]) -> None:
        self.name = "+".join(names)
        self._classes: list[str] = description["classes"]
        self._shape = (description["image_size"], description["image_size"], 3)
        _allow_more_open_files(sum(len(description["shards"][name]) for name in names))
        self._shards: list[npt.NDArray[np.uint8]] = []
        self._rows_of: dict[Path, int] = {}  # rows by index file
        for name in names:
            for shard in description["shards"][name]:
                file = folder / shard["file"]
                self._shards.append(_open_shard(file, (shard["rows"], *self._shape)))
                self._rows_of[file.with_suffix(".csv")] = shard["rows"]
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def nbytes(self) -> int:
        """Size of all pixels, in bytes."""
        return sum(shard.nbytes for shard in self._shards)

    @cached_property
    def _lines(self) -> list[dict[str, str]]:
        return [line for file, rows in self._rows_of.items() for line in _read_index(file, rows)]

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each row: (N,), in [0, K)."""
        index = {name: k for k, name in enumerate(self._classes)}
        return np.array([index[line["class"]] for line in self._lines], dtype=np.int64)

    @cached_property
    def sources(self) -> list[str]:
        """Name of each row's photo, with the archive's name in front if there are several."""
        return [line["source"] for line in self._lines]

    def images(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Copy rows out of the shards, in the order of `rows`: (B,) -> (B, H, W, 3).

        Raises:
            IndexError: a row is negative or too large.
        """
        pixels = np.empty((len(rows), *self._shape), dtype=np.uint8)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        places = zip(shards.tolist(), (rows - self._starts[shards]).tolist(), strict=True)
        for k, (shard, row) in enumerate(places):
            pixels[k] = self._shards[shard][row]
        return pixels


def _allow_more_open_files(count: int) -> None:
    """Raise this process's limit of open files, because each mapped shard is an open file."""
    try:
        import resource  # noqa: PLC0415 - Windows has neither this module nor such a limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + count, hard), hard))


def _open_shard(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    try:
        pixels: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        too_many = getattr(err, "errno", None) == errno.EMFILE
        todo = "raise `ulimit -n`, or data.shard_size" if too_many else "run `dvc repro`"
        raise StoreError(f"{file}: cannot be read ({err}); {todo}") from err
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise StoreError(f"{file}: found {pixels.dtype} {pixels.shape}; allowed: uint8 {shape}")
    return np.asarray(pixels)  # a view: reading a row of NumPy's memmap class is slower


def _read_index(file: Path, rows: int) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = list(csv.DictReader(opened))
    except (OSError, ValueError) as err:
        raise StoreError(f"{file}: cannot be read ({err}); run `dvc repro`") from err
    if len(lines) != rows:
        raise StoreError(f"{file}: found {len(lines)} rows; allowed: {rows}, as in its shard")
    return lines


def count_groups(lines: Iterable[dict[str, str]], split: str, photos: int) -> int:
    """Count the groups of a split, each once, even if it has photos of several classes.

    Args:
        lines: of groups.csv; a photo without a line is a group of its own.
        split: "train", "val" or "test".
        photos: of the split.
    """
    names = [line["group"] for line in lines if line["split"] == split]
    return photos - len(names) + len(set(names))


def groups_note(photos: int, groups: int) -> str:
    """Return a sentence that warns of grouped test photos; empty if nearly all are independent."""
    if photos == 0 or groups > _FEW_GROUPS * photos:
        return ""
    return (
        f"The {counted(photos, 'test photo')} are {counted(groups, 'group')}: photos of one group "
        "are not independent, so the intervals are too narrow (docs/splits.md)"
    )


class Store:
    """A prepared store, opened for reading."""

    def __init__(self, folder: Path) -> None:
        """Open a store.

        Raises:
            StoreError: the folder is missing, or `prepare` did not write it.
        """
        self.folder = folder
        self.description_file = folder / "dataset.json"
        try:
            description = json.loads(self.description_file.read_text(encoding="utf-8"))
            if description["format"] != FORMAT:
                raise ValueError(f"format: found {description['format']!r}; allowed: {FORMAT}")
            self.classes: list[str] = description["classes"]
            self.image_size: int = description["image_size"]  # pixels
            self.resize: Literal["crop", "squash"] = description["resize"]
            self.mean: list[float] = description["mean"]  # of train, for each channel, in [0, 1]
            self.std: list[float] = description["std"]
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise StoreError(
                f"{self.description_file}: not a prepared store ({err}); run `dvc repro prepare`"
            ) from err
        self._description = description

    @property
    def sha256(self) -> str:
        """SHA-256 of the description, which has the SHA-256 of every file."""
        return hashlib.sha256(self.description_file.read_bytes()).hexdigest()

    @property
    def most_alike(self) -> MostAlike | None:
        """The most alike pair of a training and a test photo; None if no photo has contrast.

        Raises:
            StoreError: the file is missing, or `prepare` did not write it.
        """
        file = self.folder / "most_alike.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return None if found is None else MostAlike(**found)
        except (OSError, ValueError, TypeError) as err:
            raise StoreError(f"{file}: cannot be read ({err}); run `dvc repro prepare`") from err

    @property
    def test_groups(self) -> int:
        """Groups of test photos.

        Raises:
            StoreError: a file is missing, or `prepare` did not write it.
        """
        file = self.folder / "groups.csv"
        try:
            with file.open(encoding="utf-8", newline="") as opened:
                return count_groups(csv.DictReader(opened), "test", len(self.split("test")))
        except (OSError, ValueError, KeyError) as err:
            raise StoreError(f"{file}: cannot be read ({err}); run `dvc repro prepare`") from err

    def split(self, *names: str) -> Split:
        """Open "train", "val" or "test", or several of them as one.

        Raises:
            StoreError: a file is missing or damaged, or the split is empty.
        """
        split = Split(self.folder, names, self._description)
        if len(split) == 0:
            raise StoreError(f"{self.folder}: the {split.name} split is empty")
        return split
