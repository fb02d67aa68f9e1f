"""Scores that give every class the same weight, from counts per class. The only definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Counts per class: (K,), or (R, K) for R resamples, whose scores are then (R,).
Counts = npt.NDArray[Any]


def macro_f1(hits: Counts, photos: Counts, predicted: Counts) -> npt.NDArray[np.float64]:
    """Return the mean F1 of the classes that have photos or were predicted: (…, K) -> (…).

    F1 of a class = 2 × hits / (photos of the class + photos predicted as the class).
    """
    total = photos + predicted
    f1 = 2 * hits / np.maximum(total, 1)
    return np.asarray(f1.sum(axis=-1) / (total > 0).sum(axis=-1))


def balanced_accuracy(hits: Counts, photos: Counts) -> npt.NDArray[np.float64]:
    """Return the mean recall of the classes that have photos: (…, K) -> (…)."""
    recall = hits / np.maximum(photos, 1)
    return np.asarray(recall.sum(axis=-1) / (photos > 0).sum(axis=-1))
