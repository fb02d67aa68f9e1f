"""Intervals of scores over other test photos of the same kind."""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import binomtest


class Interval(NamedTuple):
    """A 95 % interval; fractions in [0, 1]."""

    low: float
    high: float


def wilson(hits: int, count: int) -> Interval | None:
    """Return Wilson's 95 % interval of a share; None if `count` is 0.

    Source: Brown, Cai & DasGupta 2001, https://doi.org/10.1214/ss/1009213286.
    """
    if count == 0:
        return None
    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))
