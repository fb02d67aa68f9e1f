"""Two sides' answers to the same photos, or their counts: what a test can be made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.paired import Comparison, Draw, Sums, compare_shares, compare_sums
from fieldguide.gate.scores import (
    Hits,
    calibration_error,
    macro_f1,
    right,
    right_in_top3,
)
from fieldguide.gate.sides import Side, align
from fieldguide.gate.unpaired import Count, compare_counts
from fieldguide.gate.values import is_number, signed

_SHARES: dict[str, Callable[[Predictions], Hits]] = {
    "test.acc": right,
    "test.top3_acc": right_in_top3,
}
_WORTH_A_WORD = 0.05  # of a class's photos: lost, or called something else than before
_MOST_NAMED = 3  # classes


class Tested(NamedTuple):
    """A score of both sides, and their comparison."""

    reference: float
    candidate: float
    comparison: Comparison


class Evidence:
    """What is known photo by photo, or else by counts."""

    def __init__(self, reference: Side, candidate: Side, draw: Draw) -> None:
        """Bring both sides' predictions together.

        Raises:
            RevisionError: they are of other photos.
        """
        self.old, self.new, self._draw = reference, candidate, draw
        self.pair = align(reference, candidate)

    def metric(self, name: str, *, tolerated: float, level: float) -> Tested | None:
        """Test one of checks.TESTED; None where it needs predictions that are missing."""
        if self.pair is None:
            counts = (_count(side.metrics, name.removeprefix("test.")) for side in self._sides)
            return _by_counts(*counts, tolerated=tolerated, level=level)
        if name in _SHARES:
            return _by_photos(*map(_SHARES[name], self.pair), tolerated=tolerated, level=level)
        sums, sign = (macro_f1, 1) if name == "test.macro_f1" else (self._ece, -1)
        old, new = map(sums, self.pair)
        comparison = compare_sums(
            old, new, sign=sign, tolerated=tolerated, level=level, draw=self._draw
        )
        return Tested(old.value, new.value, comparison)

    def classes(self) -> list[str]:
        """Return the classes that the test set has photos of, as far as both sides know."""
        if self.pair is not None:
            names = self.pair[0].classes
            return [names[k] for k in np.unique(self.pair[0].labels)]
        return sorted(
            name
            for name in self.old.per_class.keys() & self.new.per_class.keys()
            if all(class_count(side, name) for side in self._sides)
        )

    def recall(self, name: str, *, tolerated: float, level: float) -> Tested | None:
        """Test the recall of a class of `classes`."""
        if self.pair is None:
            counts = (class_count(side, name) for side in self._sides)
            return _by_counts(*counts, tolerated=tolerated, level=level)
        here = self._photos_of(name)
        old, new = (right(one)[here] for one in self.pair)
        return _by_photos(old, new, tolerated=tolerated, level=level)

    def confusion(self, name: str) -> str:
        """Say what most of a class's lost photos are called now; nothing where that is unknown."""
        if self.pair is None:
            return ""
        classes, here = self.pair[0].classes, self._photos_of(name)
        before, now = (
            np.bincount(one.predicted[here], minlength=len(classes)) for one in self.pair
        )
        more = now - before
        more[classes.index(name)] = 0
        most = int(more.argmax())
        if more[most] < _WORTH_A_WORD * here.sum():
            return ""
        return (
            f"{now[most]:,} of its {here.sum():,} photos are called {classes[most]}, "
            f"before {before[most]:,}"
        )

    def most_lost(self) -> str:
        """Say where an accuracy was lost: in which classes, and what they are called now."""
        if self.pair is None:
            return ""
        losses = {}
        for name in self.classes():
            old, new = (right(one)[self._photos_of(name)].mean() for one in self.pair)
            losses[name] = float(old - new)
        worst = sorted(losses, key=losses.__getitem__, reverse=True)[:_MOST_NAMED]
        parts = []
        for name in worst:
            if losses[name] >= _WORTH_A_WORD:
                confused = self.confusion(name)
                parts.append(
                    f"{name} {signed(-losses[name])}" + (f" ({confused})" if confused else "")
                )
        return f"most in {', '.join(parts)}" if parts else ""

    @property
    def _sides(self) -> tuple[Side, Side]:
        return self.old, self.new

    def _photos_of(self, name: str) -> Hits:
        assert self.pair is not None
        return np.asarray(self.pair[0].labels == self.pair[0].classes.index(name))

    def _ece(self, predictions: Predictions) -> Sums:
        return calibration_error(predictions, bins=self.new.bins)  # the same for both sides


def _by_photos(old: Hits, new: Hits, *, tolerated: float, level: float) -> Tested:
    comparison = compare_shares(old, new, tolerated=tolerated, level=level)
    return Tested(float(old.mean()), float(new.mean()), comparison)


def _by_counts(
    old: Count | None, new: Count | None, *, tolerated: float, level: float
) -> Tested | None:
    if old is None or new is None:
        return None
    comparison = compare_counts(old, new, tolerated=tolerated, level=level)
    return Tested(old.share, new.share, comparison)


def _count(metrics: dict[str, object], name: str) -> Count | None:
    """Of test.acc or test.top3_acc the photos that were right; None of what is no share."""
    if f"test.{name}" not in _SHARES:
        return None
    return _as_count(metrics.get(f"test.{name}"), metrics.get("test.photos"))


def class_count(side: Side, name: str) -> Count | None:
    """Of a class, the photos that were right; None where that is not known."""
    found = side.per_class.get(name)
    return _as_count(found.get("recall"), found.get("photos")) if isinstance(found, dict) else None


def _as_count(share: object, photos: object) -> Count | None:
    if not (is_number(share) and is_number(photos)):
        return None
    if not (photos >= 1 and 0 <= share <= 1):
        return None
    return Count(round(share * photos), int(photos))
