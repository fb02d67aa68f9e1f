"""Which configuration a sweep tries next: new, and allowed by the schema of params.yaml."""

from __future__ import annotations

import json
import math
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
    is_discrete,
    size_of,
    with_values,
)

_TRIES = 20  # proposals of the sampler for one that is new
_SAMPLED, _LEFT = range(2)  # what is drawn: by the sampler, or of what is left


class Proposals:
    """The configurations of a sweep, in the order of its method."""

    def __init__(self, sweep: Sweep, base: Params) -> None:
        """List the space where it can be listed.

        Args:
            sweep: what is searched.
            base: params.yaml's values.
        """
        self._sweep, self._base = sweep, base
        self._known: set[str] = set()
        self._valid = self._list_space()
        self._untried: dict[str, Values] | None = None  # listed only when it is asked for

    @property
    def planned(self) -> int:
        """Configurations to try; fewer than `run_cap` where the space has no more."""
        if self._valid is None:
            return self._sweep.configurations
        return min(self._sweep.configurations, len(self._valid))

    def add(self, values: Values) -> None:
        """Remember that a configuration has been proposed."""
        key = _key(values)
        self._known.add(key)
        if self._untried is not None:
            self._untried.pop(key, None)

    def next(self, number: int, view: View) -> Values:
        """Return a configuration that is new and that the schema allows.

        Args:
            number: of the configuration, below `planned`; the same one is drawn again for it.
            view: what has been tried.

        Raises:
            SweepError: the space has hardly any that the schema allows.
        """
        sweep = self._sweep
        if sweep.method == "grid":
            assert self._valid is not None
            return self._valid[number]
        for attempt in range(_TRIES):
            # A seed of its own for each proposal: a restart repeats none.
            key = [sweep.seed, number, _SAMPLED, attempt]
            seed = int(np.random.SeedSequence(key).generate_state(1)[0])
            values = sample(view, sweep.space, method=sweep.method, seed=seed)
            if _key(values) not in self._known and self._allowed(values):
                return values
        left = self._left()
        if not left:
            raise SweepError(
                f"{sweep.path}: {_TRIES} proposals in a row contradict params.yaml's schema; "
                "narrow the parameters"
            )
        rng = np.random.default_rng([sweep.seed, number, _LEFT])
        return left[rng.integers(len(left))]

    def _left(self) -> list[Values]:
        """Configurations not proposed, where the space can be listed."""
        if self._untried is None:
            all_ = {_key(values): values for values in self._valid or []}
            self._untried = {key: all_[key] for key in all_ if key not in self._known}
        return list(self._untried.values())

    def _allowed(self, values: Values) -> bool:
        try:
            with_values(self._base, {**self._sweep.fixed, **values})
        except ValidationError:
            return False
        return True

    def _list_space(self) -> list[Values] | None:
        """Every configuration that the schema allows, where the space is discrete and not vast."""
        sweep = self._sweep
        if sweep.method == "grid":
            allowed = (values for values in sweep.grid() if self._allowed(values))
            return list(islice(allowed, sweep.configurations))
        if not all(map(is_discrete, sweep.space.values())):
            return None
        size = math.prod(size_of(one) for one in sweep.space.values())
        if size > MOST_LISTED:
            return None
        return [values for values in sweep.grid() if self._allowed(values)]


def _key(values: Values) -> str:
    return json.dumps(values, sort_keys=True)
