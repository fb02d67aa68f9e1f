"""Measure which photos are dark, bright, blurred or nearly empty, from the prepared pixels.

Percentiles and limits of dark and bright photos are those of CleanVision 0.3.7 (Apache-2.0,
https://github.com/cleanlab/cleanvision), but a photo is dark only if all three channels are, so
that a deep blue is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fieldguide.audit.suspect import BLURRED, BRIGHT, DARK, EMPTY
from fieldguide.core.store import Split

Numbers = npt.NDArray[np.float64]
_BLOCK = 2**20  # pixels that are in memory at once; more are slower
_DARK = 82  # of 255: 99 % of the pixels of a dark photo are darker
_BRIGHT = 242  # of 255: 95 % of the pixels of a bright photo are brighter
_EMPTY = 5  # of 255, standard deviation; `prepare` finds no near-copies of such photos either
_BLURRED = 0.1  # sharpness, as a fraction of the median of all photos


class Measures(NamedTuple):
    """What is measured of N photos, from levels in [0, 255]."""

    light: Numbers  # (N,), 99th percentile of the brightest channel
    shade: Numbers  # (N,), 5th percentile of the grey levels
    contrast: Numbers  # (N,), standard deviation of the grey levels
    # (N,), variance of the Laplacian / variance of the grey levels: how fine the details are,
    # whatever the contrast.
    sharpness: Numbers


def measure(split: Split) -> Measures:
    """Measure all photos of a split, with a progress bar on a terminal."""
    blocks: list[list[Numbers]] = []
    height, width = split.images(np.zeros(1, dtype=np.int64)).shape[1:3]
    size = max(1, _BLOCK // (height * width))
    with tqdm(total=len(split), desc="photos", leave=False, disable=None) as progress:
        for start in range(0, len(split), size):
            rows = np.arange(start, min(start + size, len(split)))
            blocks.append(_measure(split.images(rows)))
            progress.update(len(rows))
    return Measures(*map(np.concatenate, zip(*blocks, strict=True)))


def _grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Return luma as Pillow computes it (ITU-R 601), in integers: (B, H, W, 3) -> (B, H, W)."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)  # their sum is 2**16
    return ((pixels @ weights + 2**15) >> 16).astype(np.int32)


def _measure(pixels: npt.NDArray[np.uint8]) -> list[Numbers]:
    """Return the measures of a block of photos: (B, H, W, 3) -> (B,) each."""
    grey = _grey(pixels)
    flat = grey.reshape(len(grey), -1)
    shade = np.percentile(flat, 5, axis=1)
    light = np.percentile(pixels.max(axis=3).reshape(flat.shape), 99, axis=1)
    contrast = flat.std(axis=1)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian = (4 * grey[:, 1:-1, 1:-1] - around).reshape(len(grey), -1)
    sharpness = laplacian.var(axis=1) / np.maximum(contrast, 1) ** 2
    return [light, shade, contrast, sharpness]


def judge(measures: Measures) -> Iterator[tuple[str, int, float, str]]:
    """Yield kind, row, score and detail of each doubt.

    A score is the distance from the limit, as a fraction of the largest one possible. Photos that
    are nearly empty are not called blurred too.
    """
    light, shade, contrast, sharpness = measures
    usual = float(np.median(sharpness))
    blur = np.where(contrast < _EMPTY, np.inf, sharpness)
    rules = (  # kind, scores, values and detail
        (DARK, 1 - light / _DARK, light, "99 % of pixels at most {:.0f} of 255"),
        (
            BRIGHT,
            (shade - _BRIGHT) / (255 - _BRIGHT),
            shade,
            "95 % of pixels at least {:.0f} of 255",
        ),
        (EMPTY, 1 - contrast / _EMPTY, contrast, "contrast {:.1f} of 255"),
        (
            BLURRED,
            1 - blur / max(_BLURRED * usual, 1e-9),
            blur / max(usual, 1e-9),
            "sharpness {:.1%} of the median",
        ),
    )
    for kind, scores, values, detail in rules:
        for row in (scores > 0).nonzero()[0].tolist():
            yield kind, row, float(scores[row]), detail.format(values[row])
