"""Ranking of configurations, each of which may have been trained with several seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit  # scipy.stats has it too, and takes seconds to import

from fieldguide.sweeps.experiments import Trial


@dataclass(frozen=True)
class Configuration:
    """A configuration and its finished trials."""

    number: int
    trials: list[Trial]  # by seed
    scores: list[float]
    values: dict[str, Any]  # of the parameters that differ in the sweep
    bound: float  # of the mean score; configurations are ranked by it

    @property
    def mean(self) -> float:
        """Mean score over seeds."""
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def pruned(self) -> bool:
        """Whether a training was stopped early."""
        return any(trial.pruned for trial in self.trials)


def bound(scores: list[float], goal: str) -> float:
    """Return the one-sided 95 % confidence bound of the mean over seeds, on the worse side.

    Student's t: mean - t(0.95, n - 1) s / sqrt(n), with + if less is better; for one score, itself.
    """
    mean = statistics.fmean(scores)
    if len(scores) == 1:
        return mean
    margin = float(stdtrit(len(scores) - 1, 0.95)) * statistics.stdev(scores)
    return mean + margin / math.sqrt(len(scores)) * (-1 if goal == "maximize" else 1)


def rank(
    trials: list[Trial], *, metric: str, goal: str, seeds: int | None = None
) -> list[Configuration]:
    """Group trials by configuration, best first.

    Configurations that are pruned, or still lack a seed, cannot be compared with the others, and
    come last.

    Args:
        trials: of one sweep.
        metric: val/acc or val/loss.
        goal: maximize or minimize.
        seeds: trials that each configuration should have; by default, as many as any has.
    """
    keys = varying_keys(trials)
    groups: dict[int, list[tuple[Trial, float]]] = {}
    for trial in trials:
        score = trial.score(metric)
        if score is not None and math.isfinite(score):
            groups.setdefault(trial.number, []).append((trial, score))
    most = seeds or max((len(group) for group in groups.values()), default=0)
    found = []
    for number, group in groups.items():
        group.sort(key=lambda pair: pair[0].seed or 0)
        scores = [score for _, score in group]
        found.append(
            Configuration(
                number=number,
                trials=[trial for trial, _ in group],
                scores=scores,
                values={key: group[0][0].params.get(key) for key in keys},
                bound=bound(scores, goal),
            )
        )
    sign = -1 if goal == "maximize" else 1
    return sorted(
        found,
        key=lambda one: (one.pruned, len(one.scores) < most, sign * one.bound, one.number),
    )


def varying_keys(trials: list[Trial]) -> list[str]:
    """Return the params that differ between configurations, in the order of params.yaml."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            if not (key == "train.seed" and trial.seed is not None):
                values.setdefault(key, set()).add(repr(value))
    return [key for key, seen in values.items() if len(seen) > 1]
