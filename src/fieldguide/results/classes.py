"""Class by class: scores with intervals, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

_RESAMPLES = 2000
_CHUNK = 1_000_000  # photos drawn at a time


class Interval(NamedTuple):
    """95 %, fractions in [0, 1]."""

    low: float
    high: float


class ClassScores(NamedTuple):
    """Of one class of the test set; None where nothing was shown, or called so."""

    name: str
    photos: int
    recall: float
    recall_interval: Interval | None
    precision: float
    precision_interval: Interval | None
    mistaken: tuple[str, int] | None  # the class it was most often taken for, and how often

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


class Mistake(NamedTuple):
    """Photos of one class that were taken for another."""

    actual: str
    predicted: str
    photos: int
    share: float  # of the true class


class Confusion(NamedTuple):
    """Photos by true class (row) and predicted class (column)."""

    names: list[str]
    counts: npt.NDArray[np.int64]  # (K, K)

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Of the true class: (K, K)."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1))

    def mistakes(self) -> list[Mistake]:
        """All that happened, the most frequent first."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        shares = self.shares
        rows, columns = np.nonzero(wrong)
        found = [
            Mistake(
                self.names[row],
                self.names[column],
                int(wrong[row, column]),
                float(shares[row, column]),
            )
            for row, column in zip(rows, columns, strict=True)
        ]
        return sorted(found, key=lambda one: (-one.photos, one.actual, one.predicted))


def wilson(hits: int, count: int) -> Interval | None:
    """Wilson's interval of a share; None of nothing (https://doi.org/10.1214/ss/1009213286)."""
    if count == 0:
        return None
    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))


def confusion_of(pairs: Sequence[tuple[str, str]]) -> Confusion:
    """Count (true, predicted) pairs; the classes are those that occur, by name."""
    names = sorted({name for pair in pairs for name in pair})
    place = {name: k for k, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for (actual, predicted), photos in Counter(pairs).items():
        counts[place[actual], place[predicted]] = photos
    return Confusion(names, counts)


def class_scores(per_class: dict[str, Any], confusion: Confusion | None) -> list[ClassScores]:
    """Add intervals to what metrics/per_class.json holds.

    Args:
        per_class: precision, recall and photos by class.
        confusion: of the same test; without it there is no interval of precision.
    """
    worst: dict[str, tuple[str, int]] = {}
    called: dict[str, tuple[int, int]] = {}  # right ones, and all
    if confusion is not None:
        for one in confusion.mistakes():
            worst.setdefault(one.actual, (one.predicted, one.photos))
        totals = zip(np.diagonal(confusion.counts), confusion.counts.sum(axis=0), strict=True)
        called = {
            name: (int(right), int(every))
            for name, (right, every) in zip(confusion.names, totals, strict=True)
        }
    rows = []
    for name, found in per_class.items():
        recall, photos = float(found["recall"]), int(found["photos"])
        rows.append(
            ClassScores(
                name=name,
                photos=photos,
                recall=recall,
                recall_interval=wilson(round(recall * photos), photos),
                precision=float(found["precision"]),
                precision_interval=wilson(*called.get(name, (0, 0))),
                mistaken=worst.get(name),
            )
        )
    return rows


def macro_f1_interval(confusion: Confusion) -> Interval | None:
    """Percentile bootstrap over photos (Efron & Tibshirani 1993, chapter 13); None of nothing.

    As scikit-learn does, the mean is over the classes that occur or were predicted.
    """
    counts = confusion.counts
    photos, size = int(counts.sum()), len(counts)
    if photos == 0:
        return None
    cells = np.repeat(np.arange(counts.size), counts.ravel())  # (N,)
    actual, called = np.divmod(cells, size)
    rng = np.random.default_rng(0)
    scores: list[float] = []
    at_a_time = max(1, _CHUNK // (photos + size))
    while len(scores) < _RESAMPLES:
        some = min(at_a_time, _RESAMPLES - len(scores))
        drawn = rng.integers(photos, size=(some, photos))  # (B, N)
        # Each resample's classes have numbers of their own.
        start = np.arange(some)[:, None] * size
        a, c = actual[drawn] + start, called[drawn] + start
        right, shown, said = (
            np.bincount(classes.ravel(), minlength=some * size).reshape(some, size)
            for classes in (a[a == c], a, c)
        )
        f1 = 2 * right / np.maximum(shown + said, 1)  # (B, K)
        scores.extend((f1.sum(axis=1) / (shown + said > 0).sum(axis=1)).tolist())
    low, high = np.quantile(scores, [0.025, 0.975])
    return Interval(float(low), float(high))
