"""Find the most alike pair of a training and a test photo, for people to look at.

Near-copies are in one split, so this is the pair that comes next: perhaps a copy that is cut or
moved too far to be found by `near_copies.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fieldguide.prepare.looks import (
    COLOUR_SIDE,
    SIDE,
    STD,
    Looks,
    colours,
    has_contrast,
    normalised,
)

_TEST_PHOTOS = 1000  # at most, evenly spaced, so that the search takes seconds
_CANDIDATES = 256  # pairs whose details are compared
_BLOCK = 64  # training photos that are compared at once
_READ = 256  # looks that are read at once
_SHIFT = 4  # pixels of a look, in each direction
_CELL = SIDE // COLOUR_SIDE


def most_alike(
    looks: Looks, train: Sequence[int], test: Sequence[int]
) -> tuple[int, int, float] | None:
    """Return a training row, a test row, and how alike their details are.

    First the pairs whose 8×8 pixels differ least, then of these the one with the highest
    correlation of what is finer than 4×4 pixels, if one of both may be moved by up to _SHIFT pixels
    and mirrored.

    Returns:
        The two rows and the correlation, in [-1, 1]; None if no photo has enough contrast.
    """
    ours = _with_contrast(looks, train)
    theirs = _with_contrast(looks, test[:: max(1, len(test) // _TEST_PHOTOS)])
    if not len(ours) or not len(theirs):
        return None
    first, second, mirrored = _candidates(looks, ours, theirs)
    one, other = (_details(looks.read(rows)) for rows in (ours[first], theirs[second]))
    other[mirrored] = other[mirrored][..., ::-1]
    alike = _best_correlation(one, other)
    best = int(alike.argmax())
    return int(ours[first[best]]), int(theirs[second[best]]), round(float(alike[best]), 4)


def _with_contrast(looks: Looks, rows: Sequence[int]) -> npt.NDArray[np.intp]:
    parts = (np.array(rows[k : k + _READ], np.intp) for k in range(0, len(rows), _READ))
    found = [part[has_contrast(looks.read(part))] for part in parts]
    return np.concatenate([np.empty(0, np.intp), *found])


def _candidates(
    looks: Looks, train: npt.NDArray[np.intp], test: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return the pairs that differ least at 8×8 pixels, as places in `train` and `test`.

    Returns:
        Places of training photos, places of test photos, and whether these are mirrored.
    """
    parts = np.array_split(test, -(-len(test) // _READ))
    small = np.concatenate([_small(looks.read(part)) for part in parts])
    both = np.concatenate([small, small[..., ::-1]]).reshape(2 * len(test), -1)
    squares = (both**2).sum(axis=1)
    best, places = np.empty(0, np.float32), np.empty(0, np.int64)
    for start in range(0, len(train), _BLOCK):
        here = _small(looks.read(train[start : start + _BLOCK])).reshape(-1, both.shape[1])
        table = here @ both.T
        table *= -2
        table += squares
        table += (here**2).sum(axis=1)[:, None]
        differences = table.ravel()
        limit = best.max() if len(best) == _CANDIDATES else np.inf
        near = (differences < limit).nonzero()[0]
        best = np.concatenate([best, differences[near]])
        places = np.concatenate([places, near + start * len(both)])
        if len(best) > _CANDIDATES:
            kept = np.argpartition(best, _CANDIDATES)[:_CANDIDATES]
            best, places = best[kept], places[kept]
    first, second = np.divmod(np.sort(places), len(both))
    return first, second % len(test), second >= len(test)


def _small(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return brightness and colours of 8×8 pixels: (n, *SHAPE) -> (n, 3, 8, 8)."""
    grey = _cells(normalised(looks)) / (_CELL**2 * STD)
    return np.concatenate([grey[:, None], colours(looks) / STD], axis=1).astype(np.float32)


def _cells(pictures: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """Add up each 4×4 pixels: (n, 32, 32) -> (n, 8, 8)."""
    cells = pictures.reshape(-1, COLOUR_SIDE, _CELL, COLOUR_SIDE, _CELL)
    return np.asarray(cells.sum(axis=(2, 4)), np.int64)


def _details(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return what is finer than 4×4 pixels: (n, SIDE, SIDE), integers, whose sums are exact."""
    pictures = normalised(looks)
    coarse = _cells(pictures).repeat(_CELL, axis=1).repeat(_CELL, axis=2)
    return (_CELL**2 * pictures.astype(np.int64) - coarse).astype(np.float64)


def _best_correlation(
    one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the highest correlation of each pair's details over all shifts: (n,)."""
    inner = slice(_SHIFT, SIDE - _SHIFT)
    window = one[:, inner, inner]
    squares = (window**2).sum(axis=(1, 2))
    best = np.full(len(one), -1.0)
    for y in range(2 * _SHIFT + 1):
        for x in range(2 * _SHIFT + 1):
            moved = other[:, y : y + window.shape[1], x : x + window.shape[2]]
            size = np.sqrt(np.maximum(squares * (moved**2).sum(axis=(1, 2)), 1))
            best = np.maximum(best, (window * moved).sum(axis=(1, 2)) / size)
    return best
