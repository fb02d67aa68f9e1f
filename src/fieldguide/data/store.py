"""The prepared store: photos decoded once, memory-mapped ever after.

data/prepared/dataset.json   classes, size, mean, std, counts, shards, what was left out
data/prepared/train-000.npy  (N, H, W, 3) uint8 RGB, at most 1 GiB; likewise val, test
data/prepared/train.csv      a line a row: source name, class, SHA-256 of the source; likewise
"""

from __future__ import annotations

import csv
import json
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fieldguide.errors import StoreError

FORMAT = 1
SPLITS = ("train", "val", "test")


class Split:
    """The photos of a split, or of several in turn; pixels stay on disk until asked for."""

    def __init__(self, folder: Path, names: tuple[str, ...], description: dict[str, Any]) -> None:
        self.name = "+".join(names)
        self._classes: list[str] = description["classes"]
        self._rows_of: dict[Path, int] = {}  # of each index file
        self._shards = []
        for name in names:
            shards = description["shards"][name]
            self._rows_of[folder / f"{name}.csv"] = sum(shard["rows"] for shard in shards)
            for shard in shards:
                shape = (shard["rows"], *[description["image_size"]] * 2, 3)
                self._shards.append(_open_shard(folder / shard["file"], shape))
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
        """Name in the archive of each row."""
        return [line["source"] for line in self._lines]

    def images(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Copy rows out of the shards, in the order asked for: (B,) -> (B, H, W, 3)."""
        if len(self._shards) == 1:
            return np.asarray(self._shards[0][rows])
        pixels = np.empty((len(rows), *self._shards[0].shape[1:]), dtype=np.uint8)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for k in np.unique(shard_of):
            here = shard_of == k
            pixels[here] = self._shards[k][rows[here] - self._starts[k]]
        return pixels


def _open_shard(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    try:
        pixels: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise StoreError(f"{file}: cannot be read ({err}); run `dvc repro`") from err
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise StoreError(f"{file}: found {pixels.dtype} {pixels.shape}; allowed: uint8 {shape}")
    return pixels


def _read_index(file: Path, rows: int, classes: list[str]) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            lines = list(csv.DictReader(opened))
    except (OSError, ValueError) as err:
        raise StoreError(f"{file}: cannot be read ({err}); run `dvc repro`") from err
    if len(lines) != rows:
        raise StoreError(f"{file}: found {len(lines)} rows; the shards have {rows}")
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
