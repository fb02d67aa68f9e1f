"""The search space of a sweep, and which configurations it has."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field

from fieldguide.core.params import Params

Scalar = bool | int | float | str
Values = dict[str, Scalar]  # a key of params.yaml, such as model.activation: its value

# What trials read; the sections of evaluate and visualize change nothing in a trial.
SECTIONS = ("data", "model", "train")
MOST_LISTED = 100_000  # configurations of a discrete space that are written out
GOALS: dict[str, Literal["maximize", "minimize"]] = {"val/acc": "maximize", "val/loss": "minimize"}


class EarlyTerminate(BaseModel):
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934).

    At each rung, an epoch, a trial goes on if it is in the best 1/eta of those that were there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["hyperband"]
    min_iter: int | None = Field(default=None, ge=1)  # epochs
    max_iter: int | None = Field(default=None, ge=1)  # epochs
    eta: int = Field(default=3, ge=2)
    s: int | None = Field(default=None, ge=1)  # number of rungs

    def rungs(self, epochs: int) -> list[int]:
        """Epochs, rising and below `epochs`, at which trials are compared.

        From min_iter: min_iter × eta^k; from max_iter: max_iter / eta^k for k = 1 to s.
        """
        if self.min_iter is not None:
            count = self.s or math.ceil(math.log(max(epochs / self.min_iter, 1), self.eta)) + 1
            found = [self.min_iter * self.eta**k for k in range(count)]
        else:
            assert self.max_iter is not None
            found = [self.max_iter // self.eta**k for k in range(1, (self.s or 1) + 1)]
        return sorted({rung for rung in found if 1 <= rung < epochs})


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file."""

    path: Path
    name: str
    method: Literal["grid", "random", "bayes"]
    metric: str  # val/acc or val/loss
    space: dict[str, BaseDistribution]
    fixed: Values
    configurations: int  # how many are planned
    early_terminate: EarlyTerminate | None
    seeds: int  # trainings of each configuration
    seed: int  # of proposals

    @property
    def goal(self) -> Literal["maximize", "minimize"]:
        """What the metric is good for."""
        return GOALS[self.metric]

    @property
    def definition(self) -> str:
        """Hash of what makes two sweeps the same search; `run_cap` may be raised."""
        parts = {
            "method": self.method,
            "metric": self.metric,
            "space": {key: repr(dist) for key, dist in self.space.items()},
            "fixed": self.fixed,
            "early_terminate": self.early_terminate and self.early_terminate.model_dump(),
            "seeds": self.seeds,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def grid(self) -> Iterator[Values]:
        """Every configuration of a discrete space, the last parameter changing fastest."""
        choices = [choices_of(distribution) for distribution in self.space.values()]
        for values in product(*choices):
            yield dict(zip(self.space, values, strict=True))


def is_discrete(distribution: BaseDistribution) -> bool:
    """Whether its values can be listed."""
    return isinstance(distribution, CategoricalDistribution) or (
        getattr(distribution, "step", None) is not None
    )


def size_of(distribution: BaseDistribution) -> int:
    """How many values a discrete distribution has."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def choices_of(distribution: BaseDistribution) -> list[Scalar]:
    """All values of a discrete distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)  # type: ignore[arg-type]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    # As Optuna computes them, so that equal values have equal names.
    steps = range(size_of(distribution))
    return [distribution.low + k * distribution.step for k in steps]


def with_values(base: Params, values: Values) -> Params:
    """Return params.yaml's values with some replaced.

    Raises:
        pydantic.ValidationError: they are refused.
    """
    raw = base.model_dump()
    for key, value in values.items():
        section, name = key.split(".")
        raw[section][name] = value
    return Params.model_validate(raw)
