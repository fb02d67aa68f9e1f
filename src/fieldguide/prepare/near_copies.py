"""Find near-copies: photos that look the same, as they are or mirrored.

Looks with similar hashes are compared pixel by pixel. Integers decide, so every processor finds
the same near-copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.prepare.components import Components
from fieldguide.prepare.looks import SIDE, STD, Indices, Looks, colours, hashes, normalised

_BLOCK = 256  # pairs that are in memory at once

# Limits of near-copies, for normalised looks; `_same` describes them. Among 13,394 photos of
# Imagenette they find no wrong pair, among 6,000 of CIFAR-10 six right ones and no wrong one. They
# find 99.8 % of copies that were compressed, resized or mirrored, 84 % of those that lost 2 % at
# each border, and 0.5 % of pairs of frames of one camera with and without a small animal.
_BITS = 12  # of 64 that differ
_CANDIDATES = 64  # of a photo, the nearest: a static camera has thousands
_SQUARES = STD**2 * SIDE**2 // 4  # sum of squares: half a standard deviation for each pixel
_WINDOW = 154  # sum of the differences in 4×4 pixels: 0.3 standard deviations for each
_MOVED = 128  # the same for differences to the nearest of 3×3 pixels: 0.25 standard deviations
_COLOUR = 40  # of 255, of Cb or Cr in an area of 4×4 pixels: red and blue are 150 apart
_GREY = 8  # a photo without more colour may be the other one in black and white


def near_copies(looks: Looks, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Find the photos that look the same, as they are or mirrored.

    Returns:
        Pairs of `rows` that connect all near-copies: the groups are the connected components. A
        group of n photos has n - 1 pairs.
    """
    used, values = hashes(looks, rows)
    groups = Components(len(used))
    pairs: list[tuple[int, int]] = []
    for first, second, mirrored in _candidates(values, groups):
        same = _same(*_pairs(looks, used[first], used[second], mirrored))
        for a, b in zip(first[same].tolist(), second[same].tolist(), strict=True):
            if groups.merge(a, b):
                pairs.append((int(used[a]), int(used[b])))
    return pairs


def contradictions(looks: Looks, rows: Sequence[int], labels: Sequence[str]) -> dict[int, int]:
    """Return the photos of a group that look like one of another class, each with that one.

    In a group that pairs connect, such as thousands of frames of a static camera, two photos may
    look different. Each photo is compared with those of other classes that have the nearest hashes.

    Args:
        looks: of all photos.
        rows: of the group.
        labels: class name of each of `rows`.
    """
    used, values = hashes(looks, rows)
    label_of = dict(zip(rows, labels, strict=True))
    numbers = np.unique([label_of[row] for row in used.tolist()], return_inverse=True)[1]
    found: dict[int, int] = {}
    for first, row in enumerate(used.tolist()):
        if row in found:
            continue
        others = (numbers != numbers[first]).nonzero()[0]
        bits = np.bitwise_count(values[first][:, None] ^ values[others, 0])  # (2, n)
        nearest = bits.min(axis=0).argsort(kind="stable")[:_CANDIDATES]
        nearest = nearest[bits[:, nearest].min(axis=0) <= _BITS]
        others, mirrored = others[nearest], bits[1, nearest] < bits[0, nearest]
        same = _same(*_pairs(looks, used[np.full_like(others, first)], used[others], mirrored))
        for other in used[others[same]].tolist():
            found.setdefault(row, other)
            found.setdefault(other, row)
    return found


def _candidates(
    values: npt.NDArray[np.uint64], groups: Components
) -> Iterator[tuple[Indices, Indices, npt.NDArray[np.bool_]]]:
    """Yield photos with similar hashes that are not in one group yet, about _BLOCK at a time.

    Every hash is compared with every other one: 200,000 photos take half a minute. Tables of parts
    of the hash would not help, as 12 of 64 bits may differ.

    Yields:
        Indices of first photos, indices of second photos, and whether the second is mirrored.
    """
    direct = np.ascontiguousarray(values[:, 0])
    xor, bits = np.empty_like(direct), np.empty(len(direct), np.uint8)
    waiting: list[tuple[Indices, Indices, npt.NDArray[np.bool_]]] = []
    count = 0
    for first in range(len(direct)):
        for mirrored in (False, True):
            others = direct[first + 1 :]
            np.bitwise_xor(others, values[first, int(mirrored)], out=xor[first + 1 :])
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


class _Pictures(NamedTuple):
    """One side of the pairs that are compared."""

    grey: npt.NDArray[np.int16]  # (n, SIDE, SIDE), normalised
    colours: npt.NDArray[np.int16]  # (n, 2, COLOUR_SIDE, COLOUR_SIDE)


def _pairs(
    looks: Looks, first: Indices, second: Indices, mirrored: npt.NDArray[np.bool_]
) -> tuple[_Pictures, _Pictures]:
    """Read the pictures of pairs of photos, the second ones mirrored where `mirrored`."""
    rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    read = looks.read(rows)
    every = _Pictures(normalised(read), colours(read))
    one, other = (
        _Pictures(*(pictures[side] for pictures in every))
        for side in (places[: len(first)], places[len(first) :])
    )
    for pictures in other:
        pictures[mirrored] = pictures[mirrored][..., ::-1]
    return one, other


def _squares(difference: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    return np.asarray(np.einsum("ijk,ijk->i", difference, difference, dtype=np.int32))


def _same(one: _Pictures, other: _Pictures) -> npt.NDArray[np.bool_]:
    """Decide which pairs are near-copies.

    The whole difference must be small, and so must that of every 4×4 pixels: a small animal in
    front of the same background is another photo. Two things allow more in one place: what differs
    everywhere, as after a crop, and what lies one pixel beside it in the other look. Colours must
    be similar everywhere, unless a photo is black and white.
    """
    same = _squares(one.grey - other.grey) < _SQUARES
    same &= _similar_colours(one.colours, other.colours)
    first, second = one.grey[same], other.grey[same]
    usual = _usual(first - second)
    near = _largest(first - second) < _WINDOW + 2 * usual
    near &= _largest(first - _nearest(first, second)) < _MOVED + usual
    near &= _largest(second - _nearest(second, first)) < _MOVED + usual
    same[same] = near
    return same


def _similar_colours(
    one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]
) -> npt.NDArray[np.bool_]:
    most, *colour = (np.abs(part).max(axis=(1, 2, 3)) for part in (one - other, one, other))
    return np.asarray((most <= _COLOUR) | (np.minimum(*colour) <= _GREY))


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
