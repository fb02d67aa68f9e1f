"""Measure contenders that do the same work in turn, and keep the result as a row of the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

OURS = "fieldguide"


@dataclass(frozen=True)
class Row:
    """One row of the table: the same work by several contenders, with every repeat.

    Attributes:
        work: the work and its size, such as "training epoch, 32 pixels, batch 64".
        unit: unit of the figures, such as "images/s", "s" or "MiB".
        measured: figures of each contender, one per repeat, OURS first.
        against: the contender that the target compares with; None if the target is a number.
        bound: target of OURS / `against`, or of OURS if `against` is None.
        at_least: True if the bound is the smallest allowed value, False if it is the largest.
        limit: what limits OURS now.
        left_out: contenders that cannot run on this machine, and why.
    """

    work: str
    unit: str
    measured: Mapping[str, list[float]]
    against: str | None
    bound: float
    at_least: bool
    limit: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Median over the repeats of OURS / `against`, or of OURS if `against` is None.

        NaN if `against` was left out.
        """
        if self.against in self.left_out:
            return math.nan
        ours = self.measured[OURS]
        if self.against is None:
            return statistics.median(ours)
        pairs = zip(ours, self.measured[self.against], strict=True)
        return statistics.median(a / b for a, b in pairs)

    @property
    def met(self) -> bool:
        """True if the target is met."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


def fastest(measured: Mapping[str, list[float]], among: Iterable[str]) -> str:
    """Return the name of the contender with the highest median."""
    return max(among, key=lambda name: statistics.median(measured[name]))


def in_turn(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure all contenders once per repeat, in an order that is reversed each time.

    Taking turns spreads the effect of other work on the machine over all contenders.

    Returns:
        Figures of each contender, one per repeat.
    """
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        for name in names if number % 2 == 0 else reversed(names):
            value = contenders[name]()
            found[name].append(value)
            print(f"  {number + 1}/{repeats}  {name:<28} {value:,.4g}", flush=True)
    return found
