"""The looks of photos: small pictures, and hashes that are similar where photos look the same.

All arithmetic is exact, or rounded to integers before anything depends on it, so every processor
gets the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32  # pixels of the grey picture's side
COLOUR_SIDE = 8  # pixels of a side of the two colour channels
# A look is an array of bytes: below the grey picture lie the colour channels Cb and Cr.
SHAPE = (SIDE + 2 * COLOUR_SIDE**2 // SIDE, SIDE)
STD = 32  # standard deviation of a normalised look, which has integer pixels
_FREQUENCIES = 8  # of the cosine transform, in each direction
_BLOCK = 256  # looks that are in memory at once
# Photos with a lower standard deviation (of 255 grey levels) have no hash: two black photos, two
# white pages or two foggy views do not look the same because they show nothing.
_LEAST_CONTRAST = 5
Indices = npt.NDArray[np.intp]


class Looks(NamedTuple):
    """A file of looks. It is not memory-mapped, so it never counts as memory."""

    path: Path

    def read(self, rows: Sequence[int] | Indices) -> npt.NDArray[np.uint8]:
        """Return (n, *SHAPE), in the order of `rows`."""
        looks = np.empty((len(rows), *SHAPE), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for row, look in zip(rows, looks, strict=True):
                file.seek(int(row) * look.nbytes)
                file.readinto(look.data)
        return looks


def look_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the look of a photo.

    Args:
        pixels: (H, W, 3), RGB.

    Returns:
        SHAPE
    """
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    grey, *colours = small.convert("YCbCr").split()
    smaller = (
        channel.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX) for channel in colours
    )
    below = [np.asarray(channel).reshape(-1, SIDE) for channel in smaller]
    return np.concatenate([np.asarray(grey), *below])


def hashes(looks: Looks, rows: Sequence[int]) -> tuple[Indices, npt.NDArray[np.uint64]]:
    """Hash the photos that have enough contrast.

    A hash has a bit for each of the lowest coefficients of the cosine transform: whether it is
    positive. Coefficients are integers below 2**53, which float64 adds exactly in any order.

    Returns:
        Their rows; and (n, 2), the hash of each photo and of its mirror image.

    Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    frequency, place = np.ogrid[:_FREQUENCIES, :SIDE]
    cosines = np.rint(1024 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)))
    signs = np.where(np.arange(_FREQUENCIES) % 2, -1, 1)  # what a mirror does to the coefficients
    used, found = [], []
    for start in range(0, len(rows), _BLOCK):
        here = np.array(rows[start : start + _BLOCK], np.intp)
        block = looks.read(here)
        kept = has_contrast(block)
        pixels = block[kept, :SIDE].astype(np.float64)
        coefficients = cosines @ pixels @ cosines.T  # (n, 32, 32) -> (n, 8, 8)
        both = np.stack([coefficients, coefficients * signs], axis=1)
        bits = np.packbits((both > 0).reshape(-1, 2, _FREQUENCIES**2), axis=2)
        used.append(here[kept])
        found.append(np.ascontiguousarray(bits).view(np.uint64)[:, :, 0])
    if not used:
        return np.empty(0, np.intp), np.empty((0, 2), np.uint64)
    return np.concatenate(used), np.concatenate(found)


def has_contrast(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which looks show something: (n, *SHAPE) -> (n,)."""
    least = (_LEAST_CONTRAST * SIDE**2) ** 2
    return np.asarray(_variances(looks[:, :SIDE].astype(np.float64)) >= least)


def normalised(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Return the grey pictures of looks without their differences in brightness and contrast.

    Args:
        looks: (n, *SHAPE), of photos that have a hash.

    Returns:
        (n, SIDE, SIDE) in [-127, 127], each with a mean of 0 and a standard deviation of STD.
    """
    pixels = looks[:, :SIDE].astype(np.float64)
    # Every step but the sums rounds one number, as IEEE 754 says, and the sums are exact.
    scale = STD / np.sqrt(_variances(pixels))
    scaled = (pixels * SIDE**2 - pixels.sum(axis=(1, 2), keepdims=True)) * scale[:, None, None]
    return np.asarray(np.clip(np.rint(scaled), -127, 127), np.int16)


def colours(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Return Cb and Cr of looks: (n, *SHAPE) -> (n, 2, COLOUR_SIDE, COLOUR_SIDE), 0 for grey."""
    below = looks[:, SIDE:].reshape(-1, 2, COLOUR_SIDE, COLOUR_SIDE)
    return below.astype(np.int16) - 128


def _variances(looks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the variance of each look's pixels × SIDE**4, which is an integer."""
    sums = looks.sum(axis=(1, 2))
    squares = (looks**2).sum(axis=(1, 2))
    return np.asarray(SIDE**2 * squares - sums**2)
