"""Compare two shares of photos by their counts, where single predictions are not known."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.stats import binomtest, fisher_exact

from fieldguide.gate.paired import Comparison

_SMALLEST = 1e-12  # p values below it are rounded up to it


class Count(NamedTuple):
    """How many of some photos a model was right about."""

    hits: int
    photos: int

    @property
    def share(self) -> float:
        """Fraction in [0, 1]."""
        return self.hits / self.photos


def compare_counts(
    reference: Count, candidate: Count, *, tolerated: float, level: float
) -> Comparison:
    """Compare two models' shares of photos by Fisher's exact test and Newcombe's interval.

    Both methods assume different photos on the two sides. Here the photos are the same, and two
    models mostly agree on them. Their difference therefore varies less than these methods assume,
    and the comparison errs towards passing.

    Args:
        reference: photos above 0.
        candidate: photos above 0.
        tolerated: loss, a fraction in [0, 1).
        level: significance in (0, 0.5) of each side of the interval.
    """
    table = [[count.hits, count.photos - count.hits] for count in (reference, candidate)]
    chance = float(fisher_exact(table, alternative="greater").pvalue)
    low, high = newcombe(reference, candidate, level=level)
    return Comparison(
        reference=reference.share,
        candidate=candidate.share,
        low=-high,
        high=-low,
        confidence=1 - 2 * level,
        p=max(chance, _p_within(reference, candidate, tolerated)),
        method="Fisher, two-proportion interval",
    )


def newcombe(reference: Count, candidate: Count, *, level: float) -> tuple[float, float]:
    """Return the interval of the difference of two proportions, reference − candidate.

    Method 10 of Newcombe 1998,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I,
    from the two Wilson intervals.

    Args:
        reference: photos above 0.
        candidate: photos above 0.
        level: of each side, in (0, 0.5); the confidence is 1 − 2 × level.
    """
    one, two = (
        binomtest(count.hits, count.photos).proportion_ci(1 - 2 * level, method="wilson")
        for count in (reference, candidate)
    )
    p1, p2 = reference.share, candidate.share
    return (
        p1 - p2 - math.hypot(p1 - one.low, two.high - p2),
        p1 - p2 + math.hypot(one.high - p1, p2 - two.low),
    )


def _p_within(reference: Count, candidate: Count, tolerated: float) -> float:
    """Return the p value of the hypothesis that the loss is at most the tolerated one.

    It is the level at which the interval of the loss begins at the tolerated loss.
    """
    if reference.share - candidate.share <= tolerated + _SMALLEST:
        return 1.0

    def beyond(level: float) -> float:
        return newcombe(reference, candidate, level=level)[0] - tolerated

    if beyond(_SMALLEST) > 0:
        return _SMALLEST
    return float(brentq(beyond, _SMALLEST, 0.5 - _SMALLEST, xtol=_SMALLEST))
