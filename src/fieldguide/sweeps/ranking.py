"""Rank the configurations of a sweep, each of which may have been trained with several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from scipy.special import stdtrit  # scipy.stats has it too, and takes seconds to import

from fieldguide.sweeps.space import EndedRun, Sweep, Values

STATES = ("complete", "incomplete", "paused")  # the order of the ranking


@dataclass(frozen=True)
class Configuration:
    """A configuration and what its runs have shown."""

    number: int
    name: str  # of the first seed's experiment
    values: Values  # of the parameters that the sweep searches
    scores: list[float]  # by seed; the first seed's score is that of its latest rung
    bound: float  # of the mean score; configurations are ranked by it
    # paused: the first seed has not been trained to the end; incomplete: a further seed is missing.
    state: Literal["complete", "incomplete", "paused"]
    seconds: float  # of training, summed over all runs
    epochs: int  # trained, summed over seeds
    ended: datetime  # when the last run ended

    @property
    def mean(self) -> float:
        """Mean score over seeds."""
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


def bound(scores: list[float], goal: str) -> float:
    """Return the one-sided 95 % confidence bound of the mean over seeds, on the worse side.

    Student's t: mean - t(0.95, n - 1) s / sqrt(n), with + if less is better; for one score, itself.
    """
    mean = statistics.fmean(scores)
    if len(scores) == 1:
        return mean
    margin = float(stdtrit(len(scores) - 1, 0.95)) * statistics.stdev(scores)
    return mean + margin / math.sqrt(len(scores)) * (-1 if goal == "maximize" else 1)


def rank(ended: Iterable[EndedRun], sweep: Sweep) -> list[Configuration]:
    """Group the runs of a sweep by configuration and return the best configuration first.

    Complete configurations come first, then incomplete ones, both by their bound. Paused ones come
    last: the one that was trained furthest first, then by score, because scores after different
    numbers of epochs cannot be compared.
    """
    groups: dict[int, list[EndedRun]] = {}
    for one in ended:
        groups.setdefault(one.run.number, []).append(one)
    sign = -1 if sweep.goal == "maximize" else 1
    return sorted(
        (_configuration(runs, sweep) for runs in groups.values()),
        key=lambda one: (
            STATES.index(one.state),
            -one.epochs if one.state == "paused" else 0,
            sign * one.bound,
            one.number,
        ),
    )


def _configuration(runs: list[EndedRun], sweep: Sweep) -> Configuration:
    by_rung = sorted(runs, key=lambda one: one.run.stop_after or math.inf)  # 0 is the last rung
    latest = {one.run.index: one for one in by_rung}
    trainings = [latest[index] for index in sorted(latest)]
    scores = [one.score for one in trainings]
    first = trainings[0]
    complete = len(scores) == sweep.seeds
    return Configuration(
        number=first.run.number,
        name=first.run.name,
        values={key: first.run.overrides[key] for key in sweep.space},
        scores=scores,
        bound=bound(scores, sweep.goal),
        state="paused" if not first.is_whole else "complete" if complete else "incomplete",
        seconds=sum(one.seconds for one in runs),
        epochs=sum(one.epochs for one in trainings),
        ended=max(one.ended for one in runs),
    )
