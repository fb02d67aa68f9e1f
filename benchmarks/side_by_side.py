"""Contenders that do the same work, in turn, in one run: what every row of the table is made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

OURS = "fieldguide"


@dataclass(frozen=True)
class Row:
    """One line of the table: the same work by several contenders, every repeat of each.

    Attributes:
        work: what was done, with sizes, as "training epoch, 32 pixels, batch 64".
        unit: of the figures, as "images/s", "s" or "MiB".
        measured: figures of each contender, one a repeat; OURS first; empty where nothing could be
            measured on this machine.
        against: the contender that the target is about; None where it is a bound by itself.
        bound: what OURS / `against` must reach, or OURS alone where that is None.
        at_least: whether the bound is the least that is allowed, or the most.
        limit: what limits OURS now, in a sentence; or why it was not measured.
        left_out: contenders that did not run here, and why.
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
        """Median over the repeats of OURS / `against`, each of its own repeat; or of OURS.

        NaN where nothing was measured, or not what it is compared with.
        """
        if not self.measured or self.against in self.left_out:
            return math.nan
        ours = self.measured[OURS]
        if self.against is None:
            return statistics.median(ours)
        pairs = zip(ours, self.measured[self.against], strict=True)
        return statistics.median(a / b for a, b in pairs)

    @property
    def met(self) -> bool:
        """Whether the bound is kept; never where nothing was measured."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


def fastest(measured: Mapping[str, list[float]], among: Iterable[str]) -> str:
    """Return whose median is the highest."""
    return max(among, key=lambda name: statistics.median(measured[name]))


def in_turn(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure all contenders once, then all again, the order reversed each time.

    So that what else the machine does at a time falls on all of them alike.
    """
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        for name in names if number % 2 == 0 else reversed(names):
            value = contenders[name]()
            found[name].append(value)
            print(f"  {number + 1}/{repeats}  {name:<28} {value:,.4g}", flush=True)
    return found
