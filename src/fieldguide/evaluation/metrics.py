"""Numbers for the test set: accuracy with its interval, per class, and calibration.

All are fractions in [0, 1].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import StoreError
from fieldguide.evaluation.predictions import Predictions

TOP = 3


class PerClass(NamedTuple):
    """Of one class; precision is 0 where nothing was called so, recall where none was shown."""

    name: str
    precision: float
    recall: float
    photos: int


class Bin(NamedTuple):
    """Test photos of about the same confidence."""

    confidence: float  # mean
    accuracy: float
    photos: int


class Evaluation(NamedTuple):
    """Of one test set."""

    photos: int
    acc: float
    acc_low: float  # 95 % interval
    acc_high: float
    macro_f1: float  # over the classes that occur or were predicted
    top3_acc: float
    ece: float  # expected calibration error
    per_class: list[PerClass]


def evaluate(predictions: Predictions, *, bins: int) -> Evaluation:
    """Compute every number.

    SciPy and scikit-learn are imported here: figures need `confusion` alone, and do not wait.

    The interval is Wilson's, which holds near 0 and 1 too (Brown, Cai & DasGupta 2001,
    https://doi.org/10.1214/ss/1009213286). ECE: Guo et al. 2017, section 2
    (https://arxiv.org/abs/1706.04599), `bins` equal-width bins.

    Raises:
        StoreError: there is no photo.
    """
    from scipy.stats import binomtest  # noqa: PLC0415
    from sklearn.metrics import f1_score  # noqa: PLC0415

    labels, guesses = predictions.labels, predictions.predicted
    count = len(labels)
    if count == 0:
        raise StoreError("the test split is empty; allowed: one photo or more")
    hits = int((labels == guesses).sum())
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return Evaluation(
        photos=count,
        acc=hits / count,
        acc_low=float(interval.low),
        acc_high=float(interval.high),
        macro_f1=float(f1_score(labels, guesses, average="macro", zero_division=0)),
        top3_acc=_top3(predictions),
        ece=_calibration_error(predictions, bins),
        per_class=_per_class(predictions),
    )


def reliability(predictions: Predictions, *, bins: int) -> list[tuple[float, float]]:
    """(mean confidence, accuracy) of each equal-width bin of confidence that holds a photo."""
    photos, confidence, hits = _calibration_bins(predictions, bins)
    used = photos > 0
    rows = zip(confidence[used] / photos[used], hits[used] / photos[used], strict=True)
    return [(float(mean), float(accuracy)) for mean, accuracy in rows]


def confusion(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Photos by true class (row) and predicted class (column): (K, K)."""
    size = len(predictions.classes)
    flat = predictions.labels * size + predictions.predicted
    return np.bincount(flat, minlength=size**2).reshape(size, size)


def _top3(predictions: Predictions) -> float:
    from sklearn.metrics import top_k_accuracy_score  # noqa: PLC0415

    classes = len(predictions.classes)
    if classes <= TOP:
        return 1.0  # every class is among the first three
    score = top_k_accuracy_score(
        predictions.labels, predictions.probabilities, k=TOP, labels=np.arange(classes)
    )
    return float(score)


def _calibration_error(predictions: Predictions, bins: int) -> float:
    """Mean over the photos of their bin's |accuracy - mean confidence|."""
    _, confidence, hits = _calibration_bins(predictions, bins)
    return float(np.abs(hits - confidence).sum() / len(predictions.labels))


def _calibration_bins(
    predictions: Predictions, bins: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Photos, summed confidence and hits of each bin of confidence (low, high]: (bins,) each.

    Not torchmetrics' and scikit-learn's: importing them takes longer than all of `evaluate`.
    """
    confidence = np.clip(predictions.confidence, 0, 1)  # (N,)
    here = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)  # -> (N,)
    hits = predictions.labels == predictions.predicted
    photos, confidences, right = (
        np.bincount(here, weights=weights, minlength=bins)
        for weights in (np.ones_like(confidence), confidence, hits)
    )
    return photos, confidences, right


def _per_class(predictions: Predictions) -> list[PerClass]:
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415

    every = np.arange(len(predictions.classes))
    precision, recall, _, photos = precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=every, zero_division=0
    )
    rows = zip(predictions.classes, precision, recall, photos, strict=True)
    return [PerClass(name, float(p), float(r), int(n)) for name, p, r, n in rows]
