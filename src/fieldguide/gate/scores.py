"""Scores as sums over photos, so that thousands of resamples are one product of matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from fieldguide.core import scores
from fieldguide.evaluation.calibration import bin_of
from fieldguide.evaluation.predictions import TOP, Predictions
from fieldguide.gate.paired import Floats, Hits, Sums


def right(predictions: Predictions) -> Hits:
    """Tell whether the most probable class of each photo is the true one: (N,)."""
    return np.asarray(predictions.labels == predictions.predicted)


def right_in_top3(predictions: Predictions) -> Hits:
    """Tell whether the true class of each photo is among the three most probable: (N,).

    Of equal probabilities the later class comes first, as in scikit-learn's
    `top_k_accuracy_score`.
    """
    order = np.argsort(predictions.probabilities, axis=1, kind="stable")[:, ::-1]
    return np.asarray((order[:, :TOP] == predictions.labels[:, None]).any(axis=1))


def macro_f1(predictions: Predictions) -> Sums:
    """Return the mean F1 of the classes that occur or were predicted, as sums."""
    return Sums(_counts(predictions), lambda sums: scores.macro_f1(*np.split(sums, 3, axis=1)))


def balanced_accuracy(predictions: Predictions) -> Sums:
    """Return the mean recall of the classes that occur, as sums."""

    def score(sums: Floats) -> Floats:
        hits, photos, _ = np.split(sums, 3, axis=1)
        return scores.balanced_accuracy(hits, photos)

    return Sums(_counts(predictions), score)


def calibration_error(predictions: Predictions, bins: int) -> Sums:
    """Return the ECE (Guo et al. 2017, https://arxiv.org/abs/1706.04599), as sums.

    A bin's |accuracy − confidence| × its share of photos = |hits − sum of confidences| / photos.

    Args:
        predictions: of N photos.
        bins: number of calibration bins.
    """
    confidence = predictions.confidence
    terms = _one_hot(bin_of(confidence, bins), bins, right(predictions) - confidence)

    def score(sums: Floats) -> Floats:
        return np.asarray(np.abs(sums).sum(axis=1) / len(confidence))

    return Sums(terms, score)


# Metrics that can be tested for significance, because each is known photo by photo.
SHARES: dict[str, Callable[[Predictions], Hits]] = {
    "test.acc": right,
    "test.top3_acc": right_in_top3,
}
# Of the predictions and the number of calibration bins; 1 if higher is better, -1 if lower is.
SUMS: dict[str, tuple[Callable[[Predictions, int], Sums], int]] = {
    "test.bal_acc": (lambda predictions, _: balanced_accuracy(predictions), 1),
    "test.macro_f1": (lambda predictions, _: macro_f1(predictions), 1),
    "test.ece": (calibration_error, -1),
}


def _counts(predictions: Predictions) -> csr_array:
    """Return what each photo adds to the hits, photos and predictions of each class: (N, 3 K)."""
    size, hits = len(predictions.classes), right(predictions).astype(np.float64)
    photos = _one_hot(predictions.labels, size, np.ones_like(hits))
    predicted = _one_hot(predictions.predicted, size, np.ones_like(hits))
    found = _one_hot(predictions.labels, size, hits)
    return csr_array(hstack([found, photos, predicted], format="csr"))


def _one_hot(columns: npt.NDArray[np.int64], width: int, values: Floats) -> csr_array:
    photos = len(columns)
    return csr_array((values, columns, np.arange(photos + 1)), shape=(photos, width))
