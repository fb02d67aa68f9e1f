"""The search space of a sweep, its configurations and runs, and their names."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, model_validator

from fieldguide.core.params import GOALS, Monitor, Params, Section
from fieldguide.core.recipes import auto_values

Scalar = bool | int | float | str
Value = Scalar | list[Any] | None
Values = dict[str, Value]  # key of params.yaml, such as model.activation -> value

SECTIONS = ("compute", "data", "model", "train")  # of params.yaml; a trial does not read the others
MOST_LISTED = 100_000  # configurations; a larger discrete space is not listed


class EarlyTerminate(Section):
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934).

    After each rung, an epoch, a trial goes on if it is in the best 1/eta of those that reached it.
    """

    type: Literal["hyperband"]
    min_iter: int | None = Field(default=None, ge=1)  # epochs
    max_iter: int | None = Field(default=None, ge=1)  # epochs
    eta: int = Field(default=3, ge=2)
    s: int | None = Field(default=None, ge=1)  # number of rungs
    strict: Literal[False] = False  # W&B's strict variant is not supported

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.min_iter is None) == (self.max_iter is None) or (self.max_iter and not self.s):
            found = ", ".join(sorted(self.model_fields_set))
            allowed = "either min_iter, or max_iter and s"
            raise ValueError(f"early_terminate: found {found}; allowed: {allowed}")
        return self

    def rungs(self, epochs: int) -> list[int]:
        """Return the epochs, rising and below `epochs`, after which trials are compared.

        From min_iter: min_iter × eta^k; from max_iter: max_iter / eta^k for k = 1 to s.
        """
        if self.min_iter is not None:
            count = self.s or math.ceil(math.log(max(epochs / self.min_iter, 1), self.eta)) + 1
            found = [self.min_iter * self.eta**k for k in range(count)]
        else:
            assert self.max_iter is not None
            assert self.s is not None
            found = [self.max_iter // self.eta**k for k in range(1, self.s + 1)]
        return sorted({rung for rung in found if 1 <= rung < epochs})


@dataclass(frozen=True)
class Run:
    """One training that a sweep wants: a configuration, a seed and the rung to train to."""

    number: int  # of the configuration, from 0
    index: int  # of the seed, from 0
    stop_after: int  # epoch of the rung; 0 for the whole training
    name: str  # of its experiment, which a run to a later rung replaces
    overrides: Values

    @property
    def key(self) -> tuple[int, int, int]:
        """What tells it from the sweep's other runs."""
        return self.number, self.index, self.stop_after


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended with a score."""

    run: Run
    score: float
    epochs: int  # trained in all; fewer than `stop_after` if early stopping ended the training
    seconds: float  # of this run alone; 0 if DVC's run cache had the result
    ended: datetime

    @property
    def is_whole(self) -> bool:
        """Whether the training is finished: it had no stop, or early stopping ended it before."""
        return not self.run.overrides["train.stop_after"] or self.epochs < self.run.stop_after


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file."""

    path: Path
    name: str
    method: Literal["grid", "random", "bayes"]
    metric: Monitor
    space: dict[str, BaseDistribution]
    lists: frozenset[str]  # keys whose choices are kept as JSON text, because some are lists
    fixed: Values
    configurations: int  # how many are planned
    early_terminate: EarlyTerminate | None
    seeds: int  # trainings of each configuration
    seed: int  # of proposals

    @property
    def goal(self) -> Literal["maximize", "minimize"]:
        """Which values of the metric are better."""
        return GOALS[self.metric]

    @property
    def definition(self) -> str:
        """Hash of everything that may not change during a sweep, so not of `run_cap`."""
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

    def values(self, optuna_params: Values) -> Values:
        """Return a configuration with the values of params.yaml in place of Optuna's.

        Optuna's categories are null, booleans, numbers and text, so that each choice of a key in
        `lists` is kept as its JSON text. All other values are the same in both.
        """
        return {
            key: json.loads(str(value)) if key in self.lists else value
            for key, value in optuna_params.items()
        }

    def grid(self) -> Iterator[Values]:
        """Yield every configuration of a discrete space, with Optuna's values (see `values`).

        The last parameter changes fastest.
        """
        choices = [choices_of(distribution) for distribution in self.space.values()]
        for values in product(*choices):
            yield dict(zip(self.space, values, strict=True))


def size_of(distribution: BaseDistribution) -> int | None:
    """Return how many values a distribution has; None if it is continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        return None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def choices_of(distribution: BaseDistribution) -> list[Value]:
    """Return all values of a discrete distribution, as Optuna keeps them."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    # Computed as Optuna does, so that equal values have equal names.
    steps = range(size_of(distribution) or 0)
    return [distribution.low + k * distribution.step for k in steps]


def count_configurations(space: dict[str, BaseDistribution]) -> float:
    """Return how many configurations a space has; infinity if a parameter is continuous."""
    return math.prod(size_of(one) or math.inf for one in space.values())


def with_values(base: Params, values: Values) -> Params:
    """Return params.yaml's values with some replaced.

    Raises:
        pydantic.ValidationError: the schema refuses them.
    """
    return Params.model_validate(_replaced(base, values))


def epochs_of(base: Params, values: Values) -> int:
    """Return train.epochs of params.yaml's values with some replaced, which are not checked."""
    raw = _replaced(base, values)
    epochs = auto_values(raw).get("epochs", raw["train"]["epochs"])
    assert isinstance(epochs, int)
    return epochs


def _replaced(base: Params, values: Values) -> dict[str, Any]:
    raw = base.asked
    for key, value in values.items():
        section, name = key.split(".")
        raw[section][name] = value
    return raw


def trial_name(sweep: str, number: int, values: Values, seed: int | None) -> str:
    """Name the experiment of a trial by its number, which makes it unique, and its settings.

    By Git's rules for refs (git help check-ref-format).

    `original-0007_cl=5_a=gelu_lr=0.00031_s1`: the initials of each parameter's words and its value.
    """
    settings = "_".join(
        f"{short}={_short(values[key])}" for short, key in _initials(values).items()
    )
    suffix = "" if seed is None else f"_s{seed}"
    settings = settings[:150].replace(".lock", "-lock").rstrip(".")
    return f"{sweep}-{number:04d}_{settings}{suffix}"


def name_in_repository(sweep: str, subfolder: str) -> str:
    """Return a sweep's name that no other project of the Git repository uses: birds.original.

    All of them keep their experiments in the same refs.
    """
    folders = (re.sub(r"[^A-Za-z0-9]+", "-", part) for part in PurePosixPath(subfolder).parts)
    return ".".join([*filter(None, (folder.strip("-") for folder in folders)), sweep])


def _initials(keys: Values) -> dict[str, str]:
    """Return each key by the initials of its words, with a number where two keys share them."""
    found: dict[str, str] = {}
    for key in keys:
        initials = "".join(word[0] for word in key.split(".")[1].split("_"))
        short, count = initials, 1
        while short in found:
            count += 1
            short = f"{initials}{count}"
        found[short] = key
    return found


def _short(value: Value) -> str:
    if isinstance(value, list):
        return "x".join(map(_short, value))
    text = f"{value:.3g}" if isinstance(value, float) else str(value).lower()
    return re.sub(r"\.(?=\.|$)|[^A-Za-z0-9.+-]", "-", text)
