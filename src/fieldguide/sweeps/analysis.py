"""Work out what the finished trials of a sweep show, for its report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import SweepError
from fieldguide.sweeps.experiments import Trial, read_curves, read_trials, sweep_names
from fieldguide.sweeps.importance import Influence, influences
from fieldguide.sweeps.ranking import Configuration, rank
from fieldguide.sweeps.scales import Parameter, describe

CURVES = 5  # configurations whose training curves are shown
LISTED = 10  # best configurations that are listed


class Curves(NamedTuple):
    """One training's values by epoch."""

    place: int  # rank of its configuration, from 1
    trial: Trial
    values: dict[str, list[float]]  # as val/acc


@dataclass(frozen=True)
class Analysis:
    """A sweep's finished trials and what they show."""

    sweep: str
    metric: str  # val/acc or val/loss
    goal: str  # maximize or minimize
    trials: list[Trial]  # all, also those without a score
    ranked: list[Configuration]  # best first
    parameters: list[Parameter]  # those that vary; values in the order of `ranked`
    influences: list[Influence]  # the most important first
    explained: float | None  # out-of-bag R² of the forest behind them; None without a forest
    curves: list[Curves]  # of the best configurations, for every seed
    seeds: int  # trainings of a complete configuration

    def state(self, one: Configuration) -> str:
        """Return `pruned`, `incomplete` if the configuration lacks a seed, or `complete`."""
        if one.pruned:
            return "pruned"
        return "complete" if len(one.scores) == self.seeds else "incomplete"

    def improves(self, change: float) -> bool:
        """Return whether a change of the score is one for the better."""
        return change > 0 if self.goal == "maximize" else change < 0

    def running_best(self) -> list[tuple[datetime, float]]:
        """Return the time and bound of each new best configuration, then the last time once more.

        Only complete configurations can be best; if there is none, all can.
        """
        able = [one for one in self.ranked if self.state(one) == "complete"] or self.ranked
        steps: list[tuple[datetime, float]] = []
        for one in sorted(able, key=ended):
            if not steps or self.improves(one.bound - steps[-1][1]):
                steps.append((ended(one), one.bound))
        steps.append((max(map(ended, self.ranked)), steps[-1][1]))
        return steps

    def label(self, one: Configuration) -> str:
        """Return what the names of the configuration's experiments begin with."""
        return f"{self.sweep}-{one.number:04d}"

    def show(self, score: float) -> str:
        """Return a score as text: accuracy in percent."""
        return f"{score:.2%}" if self.metric.endswith("acc") else f"{score:.4f}"

    def show_mean(self, one: Configuration) -> str:
        """Return a configuration's mean score, with its spread over seeds if there are several."""
        mean = self.show(one.mean)
        return mean if one.spread is None else f"{mean} ± {self.show(one.spread)}"


def ended(one: Configuration) -> datetime:
    """Return when the last training of a configuration ended."""
    return max(trial.created for trial in one.trials)


def analyse(
    root: Path, sweep: str, *, metric: str, goal: str, seeds: int | None = None
) -> Analysis:
    """Read a sweep's trials from Git and work out what they show.

    Args:
        root: the repository.
        sweep: name of the sweep.
        metric: val/acc or val/loss.
        goal: maximize or minimize.
        seeds: trainings that each configuration should have; by default, as many as any has.

    Raises:
        SweepError: no trial has finished, or none has a score.
    """
    trials = read_trials(root, sweep)
    if not trials:
        raise SweepError(f"sweep {sweep!r} has no finished trial in {root}; {_known(root)}")
    ranked = rank(trials, metric=metric, goal=goal, seeds=seeds)
    if not ranked:
        raise SweepError(
            f"sweep {sweep!r}: none of its {len(trials)} trials has a finite best "
            f"{metric} in metrics/train/metrics.json; allowed: val/acc, val/loss"
        )
    parameters = describe({key: [one.values[key] for one in ranked] for key in ranked[0].values})
    found, explained = influences(ranked, parameters)
    return Analysis(
        sweep=sweep,
        metric=metric,
        goal=goal,
        trials=trials,
        ranked=ranked,
        parameters=parameters,
        influences=found,
        explained=explained,
        curves=_curves(root, ranked),
        seeds=seeds or max(len(one.scores) for one in ranked),
    )


def _curves(root: Path, ranked: list[Configuration]) -> list[Curves]:
    found = [
        Curves(place, trial, read_curves(root, trial))
        for place, one in enumerate(ranked[:CURVES], start=1)
        for trial in one.trials
    ]
    return [curves for curves in found if curves.values]


def _known(root: Path) -> str:
    """Name the sweeps that have a finished trial."""
    names = sweep_names(root)
    if not names:
        return "no sweep has one; start one with `fieldguide sweep run`"
    return f"sweeps that have one: {', '.join(names)}"
