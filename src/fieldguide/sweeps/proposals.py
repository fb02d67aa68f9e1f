"""The next configuration of a sweep: one that is new and that the schema of params.yaml allows."""

from __future__ import annotations

import heapq
import json
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from fieldguide.core.errors import SweepError
from fieldguide.core.params import Params
from fieldguide.sweeps.space import (
    MOST_LISTED,
    Sweep,
    Values,
    count_configurations,
    with_values,
)

_TRIES = 20  # proposals of the sampler until one must be new
# Trials that TPE sees; docs/scale.md has their cost in time and quality. It counts no more than the
# 25 best as good. With fewer than 250 finished ones, it would count fewer as good than among all.
_BEST, _LATEST, _RUNNING = 25, 250, 250


class Proposals:
    """Proposes the configurations of a sweep, as Optuna holds them."""

    def __init__(self, sweep: Sweep, base: Params) -> None:
        """Begin without proposals.

        Args:
            sweep: what is searched.
            base: params.yaml's values.
        """
        self._sweep, self._base = sweep, base
        self._known: set[str] = set()  # keys of what was proposed
        self._trials: dict[int, FrozenTrial] = {}  # by number: what is known of a configuration
        self._ranks: dict[int, tuple[float, float]] = {}  # of those that have a score

    @property
    def planned(self) -> int:
        """Number of configurations to try; below `run_cap` if the space has no more."""
        if self._valid is None:
            return self._sweep.configurations
        return min(self._sweep.configurations, len(self._valid))

    def add(self, values: Values) -> None:
        """Take note of a configuration that has been proposed."""
        self._known.add(_key(values))

    def learn(self, number: int, trial: FrozenTrial | None) -> None:
        """Take note of what is known of a configuration now; None if it has failed."""
        if trial is None:
            self._trials.pop(number, None)
            self._ranks.pop(number, None)
            return
        self._trials[number] = trial
        if trial.state != TrialState.RUNNING:
            self._ranks[number] = _rank(trial, maximize=self._sweep.goal == "maximize")

    def next(self, number: int) -> Values:
        """Return a configuration that is new and that the schema allows.

        Args:
            number: of the configuration, below `planned`; it seeds the proposal, so that a restart
                repeats none.

        Raises:
            SweepError: the schema refuses nearly the whole space.
        """
        sweep = self._sweep
        if sweep.method == "grid":
            assert self._valid is not None
            return list(self._valid.values())[number]
        for values in self._ask(number):
            if _key(values) not in self._known and self._allowed(values):
                return values
        untried = [one for key, one in (self._valid or {}).items() if key not in self._known]
        if not untried:
            raise SweepError(
                f"{sweep.path}: {_TRIES} proposals in a row contradict params.yaml's schema; "
                "narrow the parameters"
            )
        rng = np.random.default_rng([sweep.seed, number])
        return untried[rng.integers(len(untried))]

    def _ask(self, number: int) -> Iterator[Values]:
        """Yield proposals of Optuna's samplers for one configuration.

        TPE: Bergstra et al. 2011, https://papers.nips.cc/paper/4443.
        """
        sweep = self._sweep
        seed = int(np.random.SeedSequence([sweep.seed, number]).generate_state(1)[0])
        sampler: BaseSampler = RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if sweep.method == "bayes":
                # constant_liar: a running trial counts as bad, so that others avoid its neighbours.
                sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True)
            study = optuna.create_study(direction=sweep.goal, sampler=sampler)
            if sweep.method == "bayes":
                study.add_trials(self.in_view())
            for _ in range(_TRIES):
                yield study.ask(sweep.space).params

    def in_view(self) -> list[FrozenTrial]:
        """Return the trials that TPE sees: few, so that a long sweep's proposals cost no more."""
        best = heapq.nsmallest(_BEST, self._ranks, key=self._ranks.__getitem__)
        latest = sorted(self._ranks)[-_LATEST:]
        running = sorted(self._trials.keys() - self._ranks.keys())[-_RUNNING:]
        return [self._trials[number] for number in sorted({*best, *latest, *running})]

    def _allowed(self, values: Values) -> bool:
        try:
            with_values(self._base, {**self._sweep.fixed, **self._sweep.values(values)})
        except ValidationError:
            return False
        return True

    @cached_property
    def _valid(self) -> dict[str, Values] | None:
        """Return the configurations that the schema allows by key; None if there are too many."""
        sweep = self._sweep
        if count_configurations(sweep.space) > MOST_LISTED:
            return None
        allowed: Iterator[Values] = filter(self._allowed, sweep.grid())
        if sweep.method == "grid":
            allowed = islice(allowed, sweep.configurations)
        return {_key(values): values for values in allowed}


def _rank(trial: FrozenTrial, *, maximize: bool) -> tuple[float, float]:
    """Return TPE's order: complete trials by value, then pruned ones by epoch and value."""
    sign = -1 if maximize else 1
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return -np.inf, sign * trial.value
    epoch, value = max(trial.intermediate_values.items())
    return -epoch, sign * value


def _key(values: Values) -> str:
    return json.dumps(values, sort_keys=True)
