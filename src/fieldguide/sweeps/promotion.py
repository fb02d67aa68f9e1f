"""Asynchronous successive halving: which configurations are trained further. None waits.

Source: Li et al. 2020, algorithm 2, https://arxiv.org/abs/1810.05934.
"""

from __future__ import annotations

from bisect import insort
from itertools import pairwise
from typing import Literal


class Promotion:
    """The rungs of a sweep, and the numbers of the configurations that have reached them."""

    def __init__(self, stops: list[int], eta: int, goal: Literal["maximize", "minimize"]) -> None:
        """Begin without configurations.

        Args:
            stops: epochs, rising, after which configurations are compared; without the last one.
            eta: the best 1/eta of a rung is promoted.
            goal: which scores are better.
        """
        self.stops = [*stops, 0]  # as train.stop_after; 0 is the whole training
        self._eta, self._sign = eta, -1 if goal == "maximize" else 1
        # By rung: (score, number), the best first; and the numbers that have gone on from there.
        self._ranked: dict[int, list[tuple[float, int]]] = {stop: [] for stop in self.stops}
        self._promoted: dict[int, set[int]] = {stop: set() for stop in self.stops}
        self._failed: set[int] = set()

    def begin(self, number: int, stop: int) -> None:
        """Note that a configuration is trained to a rung, so it has left the rung below."""
        if (place := self.stops.index(stop)) > 0:
            self._promoted[self.stops[place - 1]].add(number)

    def enter(self, number: int, stop: int, score: float) -> None:
        """Add the score of a configuration that has reached a rung."""
        insort(self._ranked[stop], (self._sign * score, number))

    def fail(self, number: int) -> None:
        """Note that a configuration cannot be trained further."""
        self._failed.add(number)

    def next(self) -> tuple[int, int] | None:
        """Return a configuration to promote and its next rung, or None.

        It is in the best 1/eta of a rung and has not left that rung; the highest rung comes first.
        """
        for stop, higher in reversed(list(pairwise(self.stops))):
            ranked = self._ranked[stop]
            for _, number in ranked[: len(ranked) // self._eta]:
                if number not in self._promoted[stop]:
                    return number, higher
        return None

    def last(self) -> tuple[int, int] | None:
        """Return the best configuration of a rung, and its next rung, if it has not left the rung.

        For the end of a sweep, when no other configuration will come.
        """
        for stop, higher in pairwise(self.stops):
            able = [number for _, number in self._ranked[stop] if number not in self._failed]
            if able and able[0] not in self._promoted[stop]:
                return able[0], higher
        return None

    def may_be_promoted(self, stop: int, planned: int) -> list[int]:
        """Return the configurations that wait at a rung and may still be promoted, best first.

        Args:
            stop: the rung.
            planned: number of configurations of the whole sweep; no more can reach the rung.
        """
        gone = self._promoted[stop] | self._failed
        ranked = self._ranked[stop][: max(1, planned // self._eta)]
        return [number for _, number in ranked if number not in gone]
