"""Metrics of the test set: accuracy, scores of each class, and calibration.

All scores are fractions in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

from fieldguide.core.scores import balanced_accuracy, macro_f1
from fieldguide.evaluation.calibration import calibration_error
from fieldguide.evaluation.predictions import TOP, Predictions


class PerClass(NamedTuple):
    """Scores of one class."""

    name: str
    precision: float  # 0 if no photo was predicted to be of this class
    recall: float  # 0 if the test set has no photo of this class
    photos: int  # of this class in the test set


class Evaluation(NamedTuple):
    """Scores of one test set."""

    photos: int
    acc: float
    bal_acc: float  # balanced accuracy: mean recall of the classes that occur
    macro_f1: float  # mean over the classes that occur or were predicted
    top3_acc: float
    ece: float  # expected calibration error
    per_class: list[PerClass]


def evaluate(predictions: Predictions, *, bins: int) -> Evaluation:
    """Compute all scores of one photo or more.

    Args:
        predictions: of the test set.
        bins: number of calibration bins.
    """
    labels, guesses = predictions.labels, predictions.predicted
    count, classes = len(labels), np.arange(len(predictions.classes))
    right, shown, called = (
        np.bincount(found, minlength=len(classes))
        for found in (labels[labels == guesses], labels, guesses)
    )
    top3 = 1.0  # with three classes or fewer, the true one is always among the first three
    if len(classes) > TOP:
        top3 = top_k_accuracy_score(labels, predictions.probabilities, k=TOP, labels=classes)
    precision, recall, _, photos = precision_recall_fscore_support(
        labels, guesses, labels=classes, zero_division=0
    )
    columns = (values.tolist() for values in (precision, recall, photos))
    return Evaluation(
        photos=count,
        acc=int(right.sum()) / count,
        bal_acc=float(balanced_accuracy(right, shown)),
        macro_f1=float(macro_f1(right, shown, called)),
        top3_acc=float(top3),
        ece=calibration_error(predictions, bins=bins),
        per_class=[PerClass(*row) for row in zip(predictions.classes, *columns, strict=True)],
    )
