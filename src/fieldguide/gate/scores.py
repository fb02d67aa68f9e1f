"""What each photo adds to a score, so that scores of thousands of resamples are sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.paired import Floats, Sums

TOP = 3  # of test.top3_acc; evaluation.metrics has it too, but imports torch

Hits = npt.NDArray[np.bool_]


def right(predictions: Predictions) -> Hits:
    """Whether the most probable class is the true one: (N,)."""
    return np.asarray(predictions.labels == predictions.predicted)


def right_in_top3(predictions: Predictions) -> Hits:
    """Whether the true class is among the three most probable: (N,).

    Of equal probabilities the class that comes later goes first, as in scikit-learn's
    `top_k_accuracy_score`.
    """
    order = np.argsort(predictions.probabilities, axis=1, kind="stable")[:, ::-1]
    return np.asarray((order[:, :TOP] == predictions.labels[:, None]).any(axis=1))


def macro_f1(predictions: Predictions) -> Sums:
    """F1 averaged over the classes that occur or were predicted.

    F1 of a class = 2 × hits / (photos of it + photos that were called so).
    """
    size = len(predictions.classes)
    hits = right(predictions).astype(np.float64)
    true = _one_hot(predictions.labels, size, np.ones_like(hits))
    called = _one_hot(predictions.predicted, size, np.ones_like(hits))
    terms = hstack([_one_hot(predictions.labels, size, hits), true + called], format="csr")

    def score(sums: Floats) -> Floats:
        found, total = sums[:, :size], sums[:, size:]
        f1 = 2 * found / np.maximum(total, 1)
        return np.asarray(f1.sum(axis=1) / (total > 0).sum(axis=1))

    return Sums(csr_array(terms), score)


def calibration_error(predictions: Predictions, *, bins: int) -> Sums:
    """ECE (Guo et al. 2017, https://arxiv.org/abs/1706.04599), `bins` equal-width bins.

    A bin's |accuracy − confidence| × its share of photos = |hits − sum of confidences| / photos.
    """
    edges = np.linspace(0, 1, bins + 1)
    rows = np.searchsorted(edges, predictions.confidence, side="right") - 1
    photos = len(rows)
    terms = _one_hot(rows, bins + 1, right(predictions) - predictions.confidence)

    def score(sums: Floats) -> Floats:
        return np.asarray(np.abs(sums).sum(axis=1) / photos)

    return Sums(terms, score)


def _one_hot(columns: npt.NDArray[np.int64], width: int, values: Floats) -> csr_array:
    photos = len(columns)
    return csr_array((values, columns, np.arange(photos + 1)), shape=(photos, width))
