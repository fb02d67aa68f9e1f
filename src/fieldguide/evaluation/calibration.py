"""Calibration: how often the classifier is right at each confidence. The only bins of the project.

Readers import this module without scikit-learn, which takes a second.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.evaluation.predictions import Predictions


class Bin(NamedTuple):
    """Photos with about the same confidence."""

    confidence: float  # mean over the photos
    accuracy: float
    photos: int


def reliability(predictions: Predictions, *, bins: int) -> list[Bin]:
    """Compare confidence with accuracy in each bin that holds a photo, lowest confidence first."""
    places = bin_of(predictions.confidence, bins)
    hits = predictions.labels == predictions.predicted
    photos = np.bincount(places)
    confidence, accuracy = (
        np.bincount(places, weights=values) / np.maximum(photos, 1)
        for values in (predictions.confidence, hits)
    )
    rows = zip(confidence.tolist(), accuracy.tolist(), photos.tolist(), strict=True)
    return [Bin(*row) for row in rows if row[-1]]


def calibration_error(predictions: Predictions, *, bins: int) -> float:
    """Return the expected calibration error (ECE): the mean gap of the bins, by their photos.

    Source: Guo et al. 2017, section 2 (https://arxiv.org/abs/1706.04599).
    """
    gaps = (
        one.photos * abs(one.accuracy - one.confidence)
        for one in reliability(predictions, bins=bins)
    )
    return sum(gaps) / len(predictions.labels)


def bin_of(confidence: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.intp]:
    """Return the calibration bin of each confidence.

    The bins are intervals (low, high] of equal width; confidence 0 belongs to the first one.

    Args:
        confidence: (N,), in [0, 1].
        bins: number of bins.

    Returns:
        (N,), in [0, bins).
    """
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
