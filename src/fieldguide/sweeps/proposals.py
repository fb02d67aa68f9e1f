"""The next configuration of a sweep: one that is new and that the schema of params.yaml allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import numpy as np
from pydantic import ValidationError

from fieldguide.core.errors import SweepError
from fieldguide.core.params import Params
from fieldguide.sweeps.sampling import View, sample
from fieldguide.sweeps.space import (
    MOST_LISTED,
    Sweep,
    Values,
    count_configurations,
    with_values,
)

_TRIES = 20  # proposals of the sampler until one must be new
_SAMPLED, _UNTRIED = range(2)  # drawn by the sampler, or from the untried configurations


class Proposals:
    """Proposes the configurations of a sweep."""

    def __init__(self, sweep: Sweep, base: Params) -> None:
        """List the configurations, if they can be listed.

        Args:
            sweep: what is searched.
            base: params.yaml's values.
        """
        self._sweep, self._base = sweep, base
        self._known: set[str] = set()  # keys of what was proposed
        self._valid = self._list_space()

    @property
    def planned(self) -> int:
        """Number of configurations to try; below `run_cap` if the space has no more."""
        if self._valid is None:
            return self._sweep.configurations
        return min(self._sweep.configurations, len(self._valid))

    def add(self, values: Values) -> None:
        """Take note of a configuration that has been proposed."""
        self._known.add(_key(values))

    def next(self, number: int, view: View) -> Values:
        """Return a configuration that is new and that the schema allows.

        Args:
            number: of the configuration, below `planned`; a restart draws the same for it.
            view: the trials to learn from.

        Raises:
            SweepError: the schema refuses nearly the whole space.
        """
        sweep = self._sweep
        if sweep.method == "grid":
            assert self._valid is not None
            return list(self._valid.values())[number]
        for attempt in range(_TRIES):
            # Each proposal has its own seed, so that a restart repeats none.
            entropy = [sweep.seed, number, _SAMPLED, attempt]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            values = sample(view, sweep.space, method=sweep.method, seed=seed)
            if _key(values) not in self._known and self._allowed(values):
                return values
        untried = [one for key, one in (self._valid or {}).items() if key not in self._known]
        if not untried:
            raise SweepError(
                f"{sweep.path}: {_TRIES} proposals in a row contradict params.yaml's schema; "
                "narrow the parameters"
            )
        rng = np.random.default_rng([sweep.seed, number, _UNTRIED])
        return untried[rng.integers(len(untried))]

    def _allowed(self, values: Values) -> bool:
        try:
            with_values(self._base, {**self._sweep.fixed, **values})
        except ValidationError:
            return False
        return True

    def _list_space(self) -> dict[str, Values] | None:
        """Return the configurations that the schema allows by key; None if there are too many."""
        sweep = self._sweep
        if count_configurations(sweep.space) > MOST_LISTED:
            return None
        allowed: Iterator[Values] = filter(self._allowed, sweep.grid())
        if sweep.method == "grid":
            allowed = islice(allowed, sweep.configurations)
        return {_key(values): values for values in allowed}


def _key(values: Values) -> str:
    return json.dumps(values, sort_keys=True)
