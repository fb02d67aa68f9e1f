"""What two revisions are compared by: their metrics, and their predictions or counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldguide.core.errors import RevisionError
from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.paired import Comparison, compare_shares, compare_sums
from fieldguide.gate.scores import SHARES, SUMS, right
from fieldguide.gate.unpaired import Count, compare_counts
from fieldguide.results.numbers import signed
from fieldguide.results.paths import PREDICTIONS
from fieldguide.results.results import Missing, Results, known, need

SIZE = "model.size"  # bytes, from dvc.lock
SECONDS = "train.seconds"  # from the note that the training left
_MOST_NAMED = 3  # classes that lost most
_WORTH_NAMING = 0.05  # loss of recall


class Evidence:
    """The metrics of both sides, and what they say of each test photo or of each class."""

    def __init__(
        self, reference: Results, candidate: Results, *, resamples: int, seed: int
    ) -> None:
        """Align both sides' predictions, if both have them, and their confusion matrices.

        Raises:
            RevisionError: the predictions are of different photos, or a matrix is missing.
        """
        self.reference, self.candidate = reference, candidate
        self.metrics = _metrics(reference), _metrics(candidate)
        self._resampling = {"resamples": resamples, "seed": seed}
        self.pair = _align(reference, candidate)
        found = need(reference.confusion), need(candidate.confusion)
        self._names = sorted({*found[0].names, *found[1].names})
        self._tables = [np.zeros((len(self._names),) * 2, dtype=np.int64) for _ in found]
        for table, one in zip(self._tables, found, strict=True):
            here = [self._names.index(name) for name in one.names]
            table[np.ix_(here, here)] = one.counts
        self.photos = int(self._tables[1].sum())

    def metric(self, name: str, *, tolerated: float, level: float) -> Comparison | None:
        """Compare one of checks.TESTED; None if that needs predictions that are missing."""
        if self.pair is None:
            if name not in SHARES:
                return None
            hits = (round(metrics[name] * self.photos) for metrics in self.metrics)
            counts = (Count(one, self.photos) for one in hits)
            return compare_counts(*counts, tolerated=tolerated, level=level)
        if name in SHARES:
            return compare_shares(*map(SHARES[name], self.pair), tolerated=tolerated, level=level)
        bins = need(self.candidate.params)["evaluate.calibration_bins"]  # for both sides
        score, sign = SUMS[name]
        reference, candidate = (score(predictions, bins) for predictions in self.pair)
        return compare_sums(
            reference, candidate, sign=sign, tolerated=tolerated, level=level, **self._resampling
        )

    def classes(self) -> list[str]:
        """Return the classes that the test set has photos of."""
        photos = self._tables[1].sum(axis=1)
        return [name for name, count in zip(self._names, photos, strict=True) if count > 0]

    def recall(self, name: str, *, tolerated: float, level: float) -> Comparison:
        """Compare the recall of a class."""
        if self.pair is None:
            k = self._names.index(name)
            counts = (Count(int(table[k, k]), int(table[k].sum())) for table in self._tables)
            return compare_counts(*counts, tolerated=tolerated, level=level)
        here = self.pair[0].labels == self.pair[0].classes.index(name)
        hits = (right(one)[here] for one in self.pair)
        return compare_shares(*hits, tolerated=tolerated, level=level)

    def mistaken_for(self, name: str) -> str:
        """Name the wrong class that gained most photos of this class, with both counts."""
        k = self._names.index(name)
        reference, candidate = (table[k] for table in self._tables)
        gain = candidate - reference
        gain[k] = 0
        most = int(gain.argmax())
        return (
            f"{candidate[most]:,} of its {candidate.sum():,} photos are called "
            f"{self._names[most]}, before {reference[most]:,}"
        )

    def most_lost(self) -> str:
        """Name the classes whose recall fell most, and what their photos are taken for."""
        reference, candidate = (
            table.diagonal() / np.maximum(table.sum(axis=1), 1) for table in self._tables
        )
        losses = dict(zip(self._names, (reference - candidate).tolist(), strict=True))
        worst = sorted(losses, key=losses.__getitem__, reverse=True)[:_MOST_NAMED]
        parts = [
            f"{name} {signed(-losses[name])} ({self.mistaken_for(name)})"
            for name in worst
            if losses[name] >= _WORTH_NAMING
        ]
        return f"most in {', '.join(parts)}" if parts else ""


def _metrics(results: Results) -> dict[str, Any]:
    """Return every value that a check may name: metrics, the model's size and its time."""
    found = {**known(results.data_metrics, {}), **results.metrics}
    if not isinstance(results.model, Missing) and results.model.size is not None:
        found[SIZE] = results.model.size
    if not isinstance(results.timing, Missing):
        found[SECONDS] = results.timing.seconds
    return found


def _align(reference: Results, candidate: Results) -> tuple[Predictions, Predictions] | None:
    """Bring both sides' predictions to the same classes and order; None if one side has none.

    Raises:
        RevisionError: they are not of the same photos.
    """
    found = reference.predictions, candidate.predictions
    if isinstance(found[0], Missing) or isinstance(found[1], Missing):
        return None
    classes = sorted({*found[0].classes, *found[1].classes})
    first, second = _ordered(found[0], classes), _ordered(found[1], classes)
    if first.sources != second.sources or not np.array_equal(first.labels, second.labels):
        raise RevisionError(
            f"{PREDICTIONS} of {reference.label} and {candidate.label} are not of the same "
            "photos, though their test sets are the same; run `dvc repro`"
        )
    return first, second


def _ordered(predictions: Predictions, classes: list[str]) -> Predictions:
    """Sort photos by name and columns by class; classes that are new have probability 0."""
    rows = sorted(range(len(predictions.sources)), key=predictions.sources.__getitem__)
    columns = np.array([classes.index(name) for name in predictions.classes], dtype=np.int64)
    probabilities = np.zeros((len(rows), len(classes)))
    probabilities[:, columns] = predictions.probabilities[rows]
    return Predictions(
        [predictions.sources[row] for row in rows],
        classes,
        columns[predictions.labels[rows]],
        probabilities,
    )
