"""Confidence against accuracy, with the photos behind each point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fieldguide.evaluation.predictions import Predictions
from fieldguide.results.classes import Interval, wilson


class Bin(NamedTuple):
    """Photos of about the same confidence."""

    confidence: float  # mean
    accuracy: float
    photos: int | None  # None where only the table of plots/ is there
    interval: Interval | None  # of the accuracy


def bins_of_table(points: list[tuple[float, float]]) -> list[Bin]:
    """From plots/reliability.csv, which has no counts."""
    return [Bin(confidence, accuracy, None, None) for confidence, accuracy in points]


def bins_of(predictions: Predictions, *, bins: int) -> list[Bin]:
    """From predictions, in the equal-width bins of plots/reliability.csv.

    An edge belongs to the bin below it, as in scikit-learn's `calibration_curve`.
    """
    confidence = np.clip(predictions.confidence, 0, 1)
    hits = predictions.labels == predictions.predicted
    edges = np.linspace(0, 1, bins + 1)
    places = np.searchsorted(edges[1:-1], confidence)
    found = []
    for place in np.unique(places):
        inside = places == place
        photos, right = int(inside.sum()), int(hits[inside].sum())
        found.append(
            Bin(
                float(confidence[inside].mean()),
                right / photos,
                photos,
                wilson(right, photos),
            )
        )
    return found
