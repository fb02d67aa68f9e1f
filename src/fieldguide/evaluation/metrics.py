"""Numbers for the test set: accuracy with its interval, per class, and calibration.

All are fractions in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_recall_fscore_support, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from fieldguide.errors import StoreError
from fieldguide.evaluation.predictions import Predictions

TOP = 3


class PerClass(NamedTuple):
    """Of one class; precision is 0 where nothing was called so, recall where none was shown."""

    name: str
    precision: float
    recall: float
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

    The interval is Wilson's, which holds near 0 and 1 too (Brown, Cai & DasGupta 2001,
    https://doi.org/10.1214/ss/1009213286). ECE: Guo et al. 2017, section 2
    (https://arxiv.org/abs/1706.04599), `bins` equal-width bins.

    Raises:
        StoreError: there is no photo.
    """
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
    hits = predictions.labels == predictions.predicted
    confidence = np.clip(predictions.confidence, 0, 1)
    accuracy, mean = calibration_curve(hits, confidence, n_bins=bins, pos_label=True)
    return list(zip(mean.tolist(), accuracy.tolist(), strict=True))


def confusion(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Photos by true class (row) and predicted class (column): (K, K)."""
    size = len(predictions.classes)
    flat = predictions.labels * size + predictions.predicted
    return np.bincount(flat, minlength=size**2).reshape(size, size)


def _top3(predictions: Predictions) -> float:
    classes = len(predictions.classes)
    if classes <= TOP:
        return 1.0  # every class is among the first three
    score = top_k_accuracy_score(
        predictions.labels, predictions.probabilities, k=TOP, labels=np.arange(classes)
    )
    return float(score)


def _calibration_error(predictions: Predictions, bins: int) -> float:
    error = multiclass_calibration_error(
        torch.from_numpy(predictions.probabilities),
        torch.from_numpy(predictions.labels),
        num_classes=len(predictions.classes),
        n_bins=bins,
        norm="l1",
    )
    return float(error)


def _per_class(predictions: Predictions) -> list[PerClass]:
    every = np.arange(len(predictions.classes))
    precision, recall, _, photos = precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=every, zero_division=0
    )
    rows = zip(predictions.classes, precision, recall, photos, strict=True)
    return [PerClass(name, float(p), float(r), int(n)) for name, p, r, n in rows]
