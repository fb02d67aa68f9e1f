"""Read again from the archive what the prepared store does not have.

The store has the pixels of the photos that are used, all of one size. Shape and size of the
originals, and the pixels of photos that were left out, are only in the archive.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fieldguide.audit.suspect import SHAPE, SIZE
from fieldguide.core.errors import StoreError
from fieldguide.core.params import DataParams
from fieldguide.prepare.archives import open_archives
from fieldguide.prepare.decode import decode
from fieldguide.prepare.open_photo import open_photo

_SHAPE = 3  # longer side / shorter side; CleanVision's limit is about the same, 0.35
_SIZE = 4  # side of a square of equal area / the median of all photos, or the inverse


class Originals(NamedTuple):
    """What the archive has of some photos, by their names."""

    sizes: dict[str, tuple[int, int]]  # width and height in pixels
    pixels: dict[str, npt.NDArray[np.uint8]]  # (H, W, 3), RGB, of the store's size
    unreadable: list[str]  # names of photos that the archive has, damaged


def read_originals(
    data: DataParams, measured: Collection[str], decoded: Collection[str]
) -> Originals:
    """Read headers and some photos, with a progress bar on a terminal.

    Args:
        data: section `data`.
        measured: names of the photos to measure.
        decoded: names of the photos to decode.

    Raises:
        ArchiveError: the archive is missing or damaged.
        StoreError: the archive lacks photos, so the store is of another archive.
    """
    found = Originals({}, {}, [])
    measured, decoded = set(measured), set(decoded)
    with open_archives(data.archive) as archives:
        wanted = [one for one in archives.members if one.source in measured | decoded]
        gone = sorted((measured | decoded).difference(one.source for one in wanted))
        if gone:
            raise StoreError(
                f"{archives.shown}: lacks {len(gone):,} of {len(measured | decoded):,} photos of "
                f"the prepared store, such as {gone[0]}; run `dvc repro prepare`"
            )
        wanted.sort(key=lambda one: (one.archive, one.place))  # the only fast order of a tar.gz
        for member in tqdm(wanted, "originals", leave=False, disable=None):
            try:
                photo = archives.read(member)
                if member.source in measured:
                    with open_photo(photo) as image:
                        found.sizes[member.source] = image.size
                if member.source in decoded:
                    pixels = decode(photo, data.image_size, resize=data.resize)
                    found.pixels[member.source] = pixels
            # Damaged after `prepare`, which decoded it. Pillow raises many kinds of errors.
            except Exception:  # noqa: BLE001
                found.unreadable.append(member.source)
    return found


def judge_sizes(sizes: Mapping[int, tuple[int, int]]) -> Iterator[tuple[str, int, float, str]]:
    """Yield kind, row, score and detail of photos of an odd shape or size.

    Args:
        sizes: width and height in pixels, by row.
    """
    if not sizes:
        return
    usual = statistics.median((width * height) ** 0.5 for width, height in sizes.values())
    for row, (width, height) in sizes.items():
        detail = f"{width} × {height} pixels"
        shape = max(width, height) / min(width, height)
        if shape > _SHAPE:
            yield SHAPE, row, 1 - _SHAPE / shape, detail
        factor = (width * height) ** 0.5 / usual
        if max(factor, 1 / factor) > _SIZE:
            text = f"{detail}; {factor:.3g} times the usual side of {usual:.0f}"
            yield SIZE, row, 1 - _SIZE / max(factor, 1 / factor), text
