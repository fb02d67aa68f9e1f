"""Asynchronous successive halving: which trials go on after a rung. No trial waits for another.

Source: Li et al. 2020, https://arxiv.org/abs/1810.05934. The decisions are those of Optuna's
SuccessiveHalvingPruner, which lists and sorts all trials for each one.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import Literal


class Rungs:
    """The scores of the trials that have reached each rung."""

    def __init__(self, epochs: list[int], eta: int, goal: Literal["maximize", "minimize"]) -> None:
        """Begin without trials.

        Args:
            epochs: the rungs, after which trials are compared.
            eta: one in `eta` goes on.
            goal: which scores are better.
        """
        self._eta = eta
        self._sign = -1 if goal == "maximize" else 1
        self._scores: dict[int, list[float]] = {epoch: [] for epoch in epochs}  # the best first

    def enter(self, epoch: int, score: float) -> bool:
        """Add the score of a trial that has reached a rung, and return whether it may go on.

        It may if its score is in the best 1/eta of those so far, its own included; while there are
        fewer than `eta`, if no other is better. NaN may not, and does not count.
        """
        if math.isnan(score):
            return False
        scores = self._scores[epoch]
        insort(scores, self._sign * score)
        return self._sign * score <= scores[max(len(scores) // self._eta - 1, 0)]
