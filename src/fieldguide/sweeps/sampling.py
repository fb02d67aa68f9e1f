"""A sampler whose cost does not grow with the sweep: TPE that looks at a part of the trials.

TPE: Bergstra et al. 2011, https://papers.nips.cc/paper/4443; multivariate, with a constant liar.
While all trials are in view, the proposals are those of Optuna's TPESampler.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Container
from typing import Any, Literal, cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from fieldguide.sweeps.space import Values, choices_of

# Trials in view; docs/scale.md has their cost in time and quality. With fewer than 250 finished
# ones, TPE would count fewer as good than it does among all trials.
FINISHED, RUNNING = 250, 500
_BEST = 25  # TPE counts no more as good (optuna.samplers._tpe.sampler.default_gamma)
_NO_TRIAL = create_trial(state=TrialState.RUNNING)  # no other trial has its number, -1


class View:
    """The trials that the sampler sees: the best, and the latest by number that finished or run.

    It does not depend on the order in which they ended, so that a restart sees the same.
    """

    def __init__(
        self,
        goal: Literal["maximize", "minimize"],
        space: dict[str, BaseDistribution],
        *,
        finished: int = FINISHED,
        running: int = RUNNING,
    ) -> None:
        """Begin without trials.

        Args:
            goal: which values of trials are better.
            space: what is searched.
            finished: most finished trials in view, besides the best.
            running: most running trials in view.
        """
        self.direction = StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE
        self.space = {key: one for key, one in sorted(space.items()) if not one.single()}
        self.rows: dict[int, list[float]] = {}  # by number: the values as TPE's numbers
        self._most_finished, self._most_running = finished, running
        self._running: dict[int, FrozenTrial] = {}
        self._best: list[tuple[tuple[float, ...], int]] = []
        self._latest: list[int] = []
        self._finished: dict[int, FrozenTrial] = {}  # the best and the latest

    def started(self, trial: FrozenTrial) -> None:
        """Add a running trial; its number must be higher than all before."""
        self._running[trial.number] = trial
        self.rows[trial.number] = [
            one.to_internal_repr(trial.params[key]) for key, one in self.space.items()
        ]

    def ended(self, trial: FrozenTrial) -> None:
        """Move a trial that has ended; one that failed is dropped."""
        self._running.pop(trial.number, None)
        if trial.state == TrialState.FAIL:
            del self.rows[trial.number]
            return
        self._finished[trial.number] = trial
        insort(self._best, (self._rank(trial), trial.number))
        insort(self._latest, trial.number)
        surplus = slice(max(0, len(self._latest) - self._most_finished))
        dropped = {number for _, number in self._best[_BEST:]} | set(self._latest[surplus])
        del self._best[_BEST:], self._latest[surplus]
        kept = {number for _, number in self._best} | set(self._latest)
        for number in dropped - kept:
            del self._finished[number], self.rows[number]

    def _rank(self, trial: FrozenTrial) -> tuple[float, ...]:
        """Return TPE's order: complete trials by value, then pruned ones by epoch and value."""
        sign = -1 if self.direction == StudyDirection.MAXIMIZE else 1
        if trial.state == TrialState.COMPLETE:
            assert trial.value is not None
            return (0, sign * trial.value)
        if not trial.intermediate_values:
            return (1, 1, 0)
        epoch, value = max(trial.intermediate_values.items())
        return (1, -epoch, math.inf if math.isnan(value) else sign * value)

    # TPESampler calls these of a study.

    @property
    def directions(self) -> list[StudyDirection]:
        """The one direction: no trial has several values."""
        return [self.direction]

    def _is_multi_objective(self) -> bool:
        return False

    def _get_trials(
        self,
        deepcopy: bool,  # noqa: ARG002, FBT001
        states: Container[TrialState],
        use_cache: bool,  # noqa: ARG002, FBT001
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._finished.values() if trial.state in states]
        if TrialState.RUNNING in states:
            found += list(self._running.values())[-self._most_running :]
        return sorted(found, key=lambda trial: trial.number)


class _Tpe(TPESampler):
    """TPE on a view."""

    def relative(self, view: View) -> dict[str, Any]:
        """Propose values together; none while there are too few trials to learn from."""
        # Not `sample_relative`, which writes to the storage for other processes; there are none.
        return self._sample_relative(cast("Study", view), _NO_TRIAL, view.space)

    def _get_internal_repr(
        self,
        trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
        study: Study,
    ) -> dict[str, np.ndarray[Any, Any]]:
        # Optuna converts all values of all trials for each proposal, which doubles its time.
        view = cast("View", study)
        rows = np.array([view.rows[trial.number] for trial in trials])  # (trials, parameters)
        columns = rows.T if trials else np.empty((len(search_space), 0))
        return dict(zip(search_space, columns, strict=True))


def sample(
    view: View,
    space: dict[str, BaseDistribution],
    *,
    method: Literal["random", "bayes"],
    seed: int,
) -> Values:
    """Propose a configuration.

    Args:
        view: the trials to learn from.
        space: what is searched.
        method: `bayes` learns, `random` does not.
        seed: of this proposal.
    """
    sampler: BaseSampler = RandomSampler(seed=seed)
    values: dict[str, Any] = {}
    if method == "bayes":
        # constant_liar: a running trial counts as bad, so that others do not try its neighbours.
        sampler = tpe = _Tpe(seed=seed, multivariate=True, constant_liar=True)
        values = tpe.relative(view)
    for key, distribution in space.items():
        if distribution.single():
            (values[key],) = choices_of(distribution)
        elif key not in values:
            study = cast("Study", view)
            values[key] = sampler.sample_independent(study, _NO_TRIAL, key, distribution)
    return {key: values[key] for key in space}
