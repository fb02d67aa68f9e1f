"""The confusion matrix and the scores of each class, with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.scores import balanced_accuracy, macro_f1
from fieldguide.evaluation.intervals import Interval, wilson

_RESAMPLES = 2000
_CHUNK = 1_000_000  # photos drawn at a time


class ClassScores(NamedTuple):
    """Scores of one class on the test set."""

    name: str
    photos: int  # of this class
    recall: float  # 0 without a photo of it
    recall_interval: Interval | None  # None without a photo of it
    precision: float  # 0 if no photo was given this class
    precision_interval: Interval | None  # None if no photo was given this class
    mistaken: tuple[str, int] | None  # the class that it was most often taken for, and how often

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
    def photos(self) -> int:
        """Number of test photos."""
        return int(self.counts.sum())

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Photos as fractions of their true class: (K, K)."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1))

    def mistakes(self) -> list[Mistake]:
        """Return every kind of mistake, the most frequent first."""
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


def confusion_of(pairs: Sequence[tuple[str, str]]) -> Confusion:
    """Count (true, predicted) pairs; the classes are those that occur, by name."""
    names = sorted({name for pair in pairs for name in pair})
    place = {name: k for k, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for (actual, predicted), photos in Counter(pairs).items():
        counts[place[actual], place[predicted]] = photos
    return Confusion(names, counts)


def class_scores(names: Iterable[str], confusion: Confusion) -> list[ClassScores]:
    """Return the scores of each class, in the order of `names`.

    Args:
        names: all classes, those without a test photo too.
        confusion: of the test set.
    """
    place = {name: k for k, name in enumerate(confusion.names)}
    worst: dict[str, tuple[str, int]] = {}
    for one in confusion.mistakes():
        worst.setdefault(one.actual, (one.predicted, one.photos))
    scores = []
    for name in names:
        right = shown = called = 0
        if name in place:
            k = place[name]
            right = int(confusion.counts[k, k])
            shown, called = int(confusion.counts[k].sum()), int(confusion.counts[:, k].sum())
        scores.append(
            ClassScores(
                name=name,
                photos=shown,
                recall=right / shown if shown else 0.0,
                recall_interval=wilson(right, shown),
                precision=right / called if called else 0.0,
                precision_interval=wilson(right, called),
                mistaken=worst.get(name),
            )
        )
    return scores


def bootstrap_intervals(confusion: Confusion) -> dict[str, Interval]:
    """Return the 95 % intervals of bal_acc and macro_f1; none without a photo.

    Percentile bootstrap over photos (Efron & Tibshirani 1993, chapter 13). Each mean is over the
    classes that the resample has photos of; that of macro F1 also over those that it predicts.
    """
    counts = confusion.counts
    photos, size = int(counts.sum()), len(counts)
    if photos == 0:
        return {}
    cells = np.repeat(np.arange(counts.size), counts.ravel())  # (N,)
    actual, called = np.divmod(cells, size)
    rng = np.random.default_rng(0)
    scores: dict[str, list[float]] = {"bal_acc": [], "macro_f1": []}
    at_a_time = max(1, _CHUNK // (photos + size))
    for first in range(0, _RESAMPLES, at_a_time):
        some = min(at_a_time, _RESAMPLES - first)
        drawn = rng.integers(photos, size=(some, photos))  # (B, N)
        # Each resample's classes have numbers of their own.
        start = np.arange(some)[:, None] * size
        a, c = actual[drawn] + start, called[drawn] + start
        right, shown, said = (
            np.bincount(classes.ravel(), minlength=some * size).reshape(some, size)
            for classes in (a[a == c], a, c)
        )
        scores["bal_acc"] += balanced_accuracy(right, shown).tolist()  # (B, K) -> (B,)
        scores["macro_f1"] += macro_f1(right, shown, said).tolist()
    ends = {name: np.quantile(found, [0.025, 0.975]) for name, found in scores.items()}
    return {name: Interval(float(low), float(high)) for name, (low, high) in ends.items()}
