"""Find photos that look the same: near-copies, as they are or mirrored.

The look of a photo is a small grey picture of it. Looks with similar hashes are compared pixel by
pixel. All arithmetic is exact, or rounded to integers before anything depends on it, so every
processor finds the same near-copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32  # pixels of a look's side
_FREQUENCIES = 8  # of the cosine transform, in each direction
_BLOCK = 1024  # looks, or pairs of looks, that are in memory at once
# Photos with a lower standard deviation of their pixels have no near-copies: two black photos, two
# white pages or two foggy views are not one.
_LEAST_CONTRAST = 5
_STD = 32  # standard deviation of a normalised look, which has integer pixels

# Limits of near-copies, for normalised looks; `_same` describes them.
_BITS = 12  # of 64 that differ
_CANDIDATES = 64  # of a photo, the nearest: a static camera has thousands
_SQUARES = 2**18  # sum of the squared differences: half a standard deviation for each pixel
_WINDOW = 154  # sum of the differences in 4×4 pixels: 0.3 standard deviations for each
_MOVED = 128  # the same for differences to the nearest of 3×3 pixels: 0.25 standard deviations

Indices = npt.NDArray[np.intp]


class Looks(NamedTuple):
    """A file of looks. It is not memory-mapped, so it never counts as memory."""

    path: Path

    def read(self, rows: Sequence[int] | Indices) -> npt.NDArray[np.uint8]:
        """Return (n, SIDE, SIDE), in the order of `rows`."""
        looks = np.empty((len(rows), SIDE, SIDE), np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for row, look in zip(rows, looks, strict=True):
                file.seek(int(row) * look.nbytes)
                file.readinto(look.data)
        return looks


def look_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the small grey picture of a photo.

    Args:
        pixels: (H, W, 3), RGB.

    Returns:
        (SIDE, SIDE)
    """
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def near_copies(looks: Looks, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Find the photos that look the same, as they are or mirrored.

    Returns:
        Pairs of `rows` that connect all near-copies: the groups are the connected components. A
        group of n photos has n - 1 pairs.
    """
    used, hashes = _hashes(looks, rows)
    groups = _Groups(len(used))
    pairs: list[tuple[int, int]] = []
    for first, second, mirrored in _candidates(hashes, groups):
        one, other = _normalised_pairs(looks, used[first], used[second], mirrored)
        found = _same(one, other)
        for a, b in zip(first[found].tolist(), second[found].tolist(), strict=True):
            if groups.merge(a, b):
                pairs.append((int(used[a]), int(used[b])))
    return pairs


def most_alike(
    looks: Looks, first_rows: Sequence[int], second_rows: Sequence[int]
) -> tuple[int, int, float] | None:
    """Find the most alike pair of a photo of `first_rows` and one of `second_rows`.

    Returns:
        The two rows, and the root mean square of the difference of their pixels, in standard
        deviations: 0 for the same picture, 1.4 for two that have nothing in common. None if there
        is no pair of photos with enough contrast.
    """
    first_used, first_hashes = _hashes(looks, first_rows)
    second_used, second_hashes = _hashes(looks, second_rows)
    if not len(first_used) or not len(second_used):
        return None
    nearest = []  # for each first photo and each direction: bits, second, mirrored
    for direct_or_mirrored in first_hashes:
        for mirrored, value in enumerate(direct_or_mirrored):
            bits = np.bitwise_count(second_hashes[:, 0] ^ value)
            second = int(bits.argmin())
            nearest.append((int(bits[second]), second, mirrored))
    bits, second, mirrored = np.array(nearest).T
    best = bits.argsort(kind="stable")[:_CANDIDATES]
    one, other = _normalised_pairs(
        looks, first_used[best // 2], second_used[second[best]], mirrored[best].astype(bool)
    )
    squares = _squares(one - other)
    place = int(squares.argmin())
    difference = float(np.sqrt(squares[place] / SIDE**2)) / _STD
    return (
        int(first_used[best[place] // 2]),
        int(second_used[second[best[place]]]),
        round(difference, 6),
    )


class _Groups:
    """Photos in groups that grow together; each photo begins in a group of its own."""

    def __init__(self, count: int) -> None:
        self.of = np.arange(count)  # group of each photo
        self._members: dict[int, list[int]] = {}

    def merge(self, first: int, second: int) -> bool:
        """Make one group of the groups of two photos; return False if they are in one already."""
        large, small = int(self.of[first]), int(self.of[second])
        if large == small:
            return False
        members = [self._members.pop(group, [group]) for group in (large, small)]
        if len(members[0]) < len(members[1]):
            large = small
            members.reverse()
        self.of[members[1]] = large
        self._members[large] = members[0]
        members[0] += members[1]
        return True


def _hashes(looks: Looks, rows: Sequence[int]) -> tuple[Indices, npt.NDArray[np.uint64]]:
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
    used, hashes = [], []
    for start in range(0, len(rows), _BLOCK):
        here = np.array(rows[start : start + _BLOCK], np.intp)
        block = looks.read(here).astype(np.float64)
        kept = _variances(block) >= (_LEAST_CONTRAST * SIDE**2) ** 2
        coefficients = cosines @ block[kept] @ cosines.T  # (n, 32, 32) -> (n, 8, 8)
        both = np.stack([coefficients, coefficients * signs], axis=1)
        bits = np.packbits((both > 0).reshape(-1, 2, _FREQUENCIES**2), axis=2)
        used.append(here[kept])
        hashes.append(np.ascontiguousarray(bits).view(np.uint64)[:, :, 0])
    if not used:
        return np.empty(0, np.intp), np.empty((0, 2), np.uint64)
    return np.concatenate(used), np.concatenate(hashes)


def _variances(looks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the variance of each look's pixels × SIDE**4, which is an integer."""
    sums = looks.sum(axis=(1, 2))
    squares = (looks**2).sum(axis=(1, 2))
    return np.asarray(SIDE**2 * squares - sums**2)


def _candidates(
    hashes: npt.NDArray[np.uint64], groups: _Groups
) -> Iterator[tuple[Indices, Indices, npt.NDArray[np.bool_]]]:
    """Yield the photos with similar hashes that are not in one group yet, about _BLOCK at a time.

    Every hash is compared with every other one: 200,000 photos take half a minute. Tables of parts
    of the hash would not help, as 12 of 64 bits may differ.

    Yields:
        Indices of first photos, indices of second photos, and whether the second is mirrored.
    """
    direct = np.ascontiguousarray(hashes[:, 0])
    xor, bits = np.empty_like(direct), np.empty(len(direct), np.uint8)
    waiting: list[tuple[Indices, Indices, npt.NDArray[np.bool_]]] = []
    count = 0
    for first in range(len(direct)):
        for mirrored in (False, True):
            others = direct[first + 1 :]
            np.bitwise_xor(others, hashes[first, int(mirrored)], out=xor[first + 1 :])
            np.bitwise_count(xor[first + 1 :], out=bits[first + 1 :])
            second = first + 1 + (bits[first + 1 :] <= _BITS).nonzero()[0]
            if len(second):
                second = second[groups.of[second] != groups.of[first]]
                second = second[bits[second].argsort(kind="stable")[:_CANDIDATES]]
                waiting.append(
                    (np.full_like(second, first), second, np.full(len(second), mirrored))
                )
                count += len(second)
        if waiting and (count >= _BLOCK or first == len(direct) - 1):
            firsts, seconds, directions = zip(*waiting, strict=True)
            yield np.concatenate(firsts), np.concatenate(seconds), np.concatenate(directions)
            waiting, count = [], 0


def _normalised_pairs(
    looks: Looks, first: Indices, second: Indices, mirrored: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Read pairs of looks, normalised to a mean of 0 and a standard deviation of _STD.

    Returns:
        (n, SIDE, SIDE) in [-127, 127], of the first and of the second photos, these mirrored where
        `mirrored`.
    """
    rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    pixels = looks.read(rows).astype(np.float64)
    # Every step but the sums rounds one number, as IEEE 754 says, and the sums are exact.
    scale = _STD / np.sqrt(_variances(pixels))
    scaled = (pixels * SIDE**2 - pixels.sum(axis=(1, 2), keepdims=True)) * scale[:, None, None]
    normalised = np.clip(np.rint(scaled), -127, 127).astype(np.int16)
    one, other = normalised[places[: len(first)]], normalised[places[len(first) :]]
    other[mirrored] = other[mirrored, :, ::-1]
    return one, other


def _squares(difference: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    return np.asarray(np.einsum("ijk,ijk->i", difference, difference, dtype=np.int32))


def _same(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Decide which pairs of normalised looks are near-copies.

    The whole difference must be small, and so must that of every 4×4 pixels: a small animal in
    front of the same background is another photo. Two things allow more in one place: what differs
    everywhere, as after a crop, and what lies one pixel beside it in the other look.
    """
    same = _squares(one - other) < _SQUARES
    one, other = one[same], other[same]
    usual = _usual(one - other)
    near = _largest(one - other) < _WINDOW + 2 * usual
    near &= _largest(one - _nearest(one, other)) < _MOVED + usual
    near &= _largest(other - _nearest(other, one)) < _MOVED + usual
    same[same] = near
    return same


def _usual(difference: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return the median of the sums of the absolute differences in each 4×4 pixels.

    It is the lower of the two middle values, as an object may fill half of a white picture.
    """
    cells = _halved(_halved(np.abs(difference))).reshape(-1, (SIDE // 4) ** 2)
    middle = cells.shape[1] // 2 - 1
    return np.asarray(np.partition(cells, middle, axis=1)[:, middle])


def _largest(difference: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return the largest absolute sum of the differences in 4×4 pixels, at every second pixel."""
    tiles = _halved(difference)
    rows = tiles[:, :-1] + tiles[:, 1:]
    return np.asarray(np.abs(rows[:, :, :-1] + rows[:, :, 1:]).max(axis=(1, 2)))


def _nearest(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return, for each pixel of `one`, the nearest value within its 3×3 neighbours in `other`.

    Values between those of the neighbours count too, as borders of things lie between pixels.
    """
    edged = np.pad(other, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = [edged[:, y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)]
    return np.clip(one, np.minimum.reduce(around), np.maximum.reduce(around))


def _halved(pictures: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Add up each 2×2 pixels: (n, H, W) -> (n, H / 2, W / 2)."""
    rows = pictures[:, ::2] + pictures[:, 1::2]
    return rows[:, :, ::2] + rows[:, :, 1::2]
