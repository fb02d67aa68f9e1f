"""Read a sweep file in the format of W&B and check it against the schema of params.yaml.

Format: https://docs.wandb.ai/guides/sweeps/sweep-config-keys/, and two keys that W&B does not have:
`seeds` and `seed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import Params, Seed, describe, did_you_mean, read_yaml
from fieldguide.sweeps.space import (
    GOALS,
    MOST_LISTED,
    SECTIONS,
    EarlyTerminate,
    Scalar,
    Sweep,
    Values,
    choices_of,
    count_configurations,
    with_values,
)

_ALIASES = {"val_acc": "val/acc", "val_accuracy": "val/acc", "val_loss": "val/loss"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_TRIES = 64  # combinations of the other parameters with which a value is tried
_CONTINUOUS = ("uniform", "log_uniform_values")
Place = tuple[Any, ...]  # keys and indices that lead to an entry of the file


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Metric(_Strict):
    name: Annotated[
        Literal["val/acc", "val/loss"],
        BeforeValidator(lambda name: _ALIASES.get(re.sub(r"\W", "_", str(name)), name)),
    ]
    goal: Literal["maximize", "minimize"] | None = None


class _Parameter(_Strict):
    distribution: (
        Literal[
            "categorical", "constant", "int_uniform", "log_uniform_values", "q_uniform", "uniform"
        ]
        | None
    ) = None
    value: Scalar | None = None
    values: list[Scalar] | None = Field(default=None, min_length=1)
    min: int | float | None = None
    max: int | float | None = None
    q: int | float | None = None


class _SweepFile(_Strict):
    method: Literal["grid", "random", "bayes"]
    metric: _Metric
    parameters: dict[str, _Parameter] = Field(min_length=1)
    run_cap: int | None = Field(default=None, ge=1)
    early_terminate: EarlyTerminate | None = None
    seeds: int = Field(default=1, ge=1, le=100)
    seed: Seed = 0
    name: str | None = None
    # W&B needs them; here they have no meaning.
    description: Any = None
    program: Any = None
    project: Any = None
    entity: Any = None
    command: Any = None


def load_sweep(path: Path, base: Params) -> Sweep:
    """Read and check a sweep file.

    Args:
        path: YAML.
        base: params.yaml's values, for the parameters that are not swept.

    Raises:
        ParamsError: something in it is unknown, contradictory or refused by the schema of
            params.yaml; the message names the line.
    """
    return _Checker(path, base).sweep()


class _Checker:
    """Reads one file; its errors name the line."""

    def __init__(self, path: Path, base: Params) -> None:
        self.path, self.base = path, base
        self.tree: Node | None = read_yaml(path, YAML(pure=True).compose)
        self.raw = read_yaml(path, YAML(typ="safe", pure=True).load)
        # By full key, such as model.activation:
        self.space: dict[str, BaseDistribution] = {}
        self.fixed: Values = {}
        self.places: dict[str, Place] = {}
        self.drawn: list[Values] | None = None

    def sweep(self) -> Sweep:
        file = self._parse()
        goal = GOALS[file.metric.name]
        if file.metric.goal not in (None, goal):
            found = f"{file.metric.goal} {file.metric.name}"
            raise self.error(("metric", "goal"), f"metric.goal: {found}; allowed: {goal}")
        for name, parameter in file.parameters.items():
            self._add_parameter(name, parameter, method=file.method)
        self._check_early(file.early_terminate)
        if file.seeds > 1 and "train.seed" in self.places:
            raise self.error(("seeds",), "seeds: sets train.seed, which `parameters` sets too")
        self._check_validated()
        for key in [*self.fixed, *self.space]:
            self._check_possible(key)
        configurations = self._planned(file)
        name = file.name or self.path.stem
        if not _NAME.fullmatch(name) or re.search(r"-\d{4,}_", name):
            allowed = "up to 40 letters, digits, - and _, without a part such as -2024_"
            raise self.error(("name",), f"name: {name!r}; allowed: {allowed}")
        return Sweep(
            path=self.path,
            name=name,
            method=file.method,
            metric=file.metric.name,
            space=self.space,
            fixed=self.fixed,
            configurations=configurations,
            early_terminate=file.early_terminate,
            seeds=file.seeds,
            seed=file.seed,
        )

    def error(self, place: Place, message: str) -> ParamsError:
        return ParamsError(self._at(place, message))

    def _at(self, place: Place, message: str) -> str:
        """Put the file and line of a place before a message."""
        node, line = self.tree, 1
        for part in place:
            if isinstance(node, MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = node.start_mark.line + 1
        return f"{self.path}: line {line}: {message}"

    def _parse(self) -> _SweepFile:
        if not isinstance(self.raw, dict):
            raise ParamsError(
                f"{self.path}: is not a sweep file: a mapping with method, metric and parameters"
            )
        try:
            return _SweepFile.model_validate(self.raw)
        except ValidationError as err:
            problems = [self._at(one["loc"], describe(one, _SweepFile)) for one in err.errors()]
            raise ParamsError("\n".join(problems)) from err

    def _add_parameter(self, name: str, parameter: _Parameter, *, method: str) -> None:
        """Read one entry of `parameters`."""
        place = ("parameters", name)
        key = self._key(name, place)
        if key in self.places:
            raise self.error(place, f"{name}: is {key}, which is there twice")
        self.places[key] = place
        given = parameter.model_dump(exclude_none=True)
        kind = given.pop("distribution", None) or _default_distribution(given)
        self._check_keys(name, kind, given, place)
        if kind == "constant":
            self.fixed[key] = self._check_value(key, given["value"], (*place, "value"))
        elif kind == "categorical":
            values = [
                self._check_value(key, value, (*place, "values", index))
                for index, value in enumerate(given["values"])
            ]
            if len({repr(value) for value in values}) < len(values):
                raise self.error((*place, "values"), f"{name}: a value is there twice")
            self.space[key] = CategoricalDistribution(values)
        elif method == "grid" and kind in _CONTINUOUS:
            allowed = "value, values, int_uniform, q_uniform"
            raise self.error(place, f"{name}: {kind} is continuous; allowed in a grid: {allowed}")
        else:
            self.space[key] = self._range(key, kind, given, place)

    def _key(self, name: str, place: Place) -> str:
        """`activation` -> `model.activation`."""
        known = [
            f"{section}.{field}" for section in SECTIONS for field in _section(section).model_fields
        ]
        if name in known:
            return name
        found = [key for key in known if key.split(".")[1] == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise self.error(place, f"{name}: is ambiguous; allowed: {' or '.join(found)}")
        allowed = ", ".join(SECTIONS)
        section = name.split(".", 1)[0]
        if section in Params.model_fields and section not in SECTIONS:
            problem = "trials end with `train`, which does not read it"
            raise self.error(place, f"{name}: {problem}; allowed sections: {allowed}")
        names = [*known, *(key.split(".")[1] for key in known)]
        hint = did_you_mean(name, names) if len(name) > 1 else ""
        hint = hint if "mean" in hint else f"; allowed: a key of {allowed}"
        raise self.error(place, f"{name}: is in no section of params.yaml{hint}")

    def _check_keys(self, name: str, kind: str, given: dict[str, Any], place: Place) -> None:
        """Check that the distribution has the keys that it needs, and no others."""
        needed = {"constant": {"value"}, "categorical": {"values"}}.get(kind, {"min", "max"})
        allowed = needed | {"q"} if kind == "q_uniform" else needed
        wrong = sorted(set(given) - allowed) or sorted(needed - set(given))
        if wrong:
            problem = "does not go with" if wrong[0] in given else "is missing for"
            raise self.error(
                (*place, wrong[0]),
                f"{name}.{wrong[0]}: {problem} {kind}; allowed: {', '.join(sorted(allowed))}",
            )

    def _range(self, key: str, kind: str, given: dict[str, Any], place: Place) -> BaseDistribution:
        low, high, step = given["min"], given["max"], given.get("q", 1)
        self._check_range(key, kind, (low, high, step), place)
        continuous = kind in _CONTINUOUS
        if not continuous:  # Optuna needs the highest value to be low + k * step
            high = low + math.floor((high - low) / step + 1e-9) * step
        self._check_value(key, low, (*place, "min"))
        self._check_value(key, high, (*place, "max"))
        if _field(key).annotation is int:
            return IntDistribution(int(low), int(high), step=int(step))
        if continuous:
            return FloatDistribution(low, high, log=kind == "log_uniform_values")
        return FloatDistribution(low, high, step=step)

    def _check_range(
        self, key: str, kind: str, numbers: tuple[float, float, float], place: Place
    ) -> None:
        low, high, step = numbers
        annotation, continuous = _field(key).annotation, kind in _CONTINUOUS
        if annotation not in (int, float):
            raise self.error(place, f"{key}: is not a number; allowed: value, values")
        if not (_in_reach(low) and _in_reach(high) and low < high):
            raise self.error((*place, "min"), f"{key}: min {low}, max {high}; allowed: min < max")
        if kind == "log_uniform_values" and low <= 0:
            raise self.error((*place, "min"), f"{key}: min {low} of {kind}; allowed: above 0")
        if not continuous and not (_in_reach(step) and 0 < step <= high - low):
            allowed = f"above 0 and at most max - min, {high - low}"
            raise self.error((*place, "q"), f"{key}: q {step}; allowed: {allowed}")
        if annotation is int and continuous:
            allowed = "values, int_uniform, q_uniform"
            raise self.error(place, f"{key}: {kind} draws fractions; allowed: {allowed}")
        whole = annotation is int or kind == "int_uniform"
        if whole and any(number != int(number) for number in numbers):
            raise self.error(place, f"{key}: {kind} of fractions; allowed: whole numbers")

    def _check_value(self, key: str, value: Scalar, place: Place) -> Scalar:
        """Check a value by its field of the schema alone."""
        field = _field(key)
        kind: Any = Annotated[field.annotation, field]
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True))
        try:
            checked: Scalar = adapter.validate_python(value)
        except ValidationError as err:
            error = {**err.errors()[0], "loc": tuple(key.split("."))}
            raise self.error(place, describe(error, Params)) from err
        return checked

    def _check_early(self, early: EarlyTerminate | None) -> None:
        if early is None:
            return
        where = ("early_terminate",)
        epochs = int(self.fixed.get("train.epochs", self.base.train.epochs))
        if (early.min_iter is None) == (early.max_iter is None):
            raise self.error(where, "early_terminate: needs min_iter or max_iter, one of the two")
        if early.max_iter is not None and early.s is None:
            raise self.error(where, "early_terminate: max_iter needs s, the number of rungs")
        if not early.rungs(epochs):
            last = f"the last epoch (train.epochs: {epochs})"
            raise self.error(where, f"early_terminate: no rung lies before {last}")

    def _check_validated(self) -> None:
        key = "train.train_on_val"
        values = [self.fixed.get(key, self.base.train.train_on_val)]
        if key in self.space:
            values = choices_of(self.space[key])
        if True in values:
            raise self.error(
                self.places.get(key, ("parameters",)),
                f"{key}: true leaves nothing to compare trials by; allowed in a sweep: false",
            )

    def _check_possible(self, key: str) -> None:
        """Refuse a value that the schema refuses whatever values the other parameters have."""
        place, distribution = self.places[key], self.space.get(key)
        if distribution is None:
            candidates: dict[Place, Scalar] = {(*place, "value"): self.fixed[key]}
        elif isinstance(distribution, IntDistribution | FloatDistribution):
            candidates = {(*place, "min"): distribution.low, (*place, "max"): distribution.high}
        else:
            choices = choices_of(distribution)
            candidates = {(*place, "values", k): value for k, value in enumerate(choices)}
        for where, value in candidates.items():
            problem = None
            for others in chain([{}], self._draws()):
                try:
                    with_values(self.base, {**self.fixed, **others, key: value})
                    break
                except ValidationError as err:
                    problem = problem or describe(err.errors()[0], Params)
            else:
                raise self.error(where, str(problem))

    def _draws(self) -> Iterator[Values]:
        """Yield random configurations, the same ones each time; few values need them."""
        if self.drawn is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            self.drawn = [dict(study.ask(self.space).params) for _ in range(_TRIES)]
        yield from self.drawn

    def _planned(self, file: _SweepFile) -> int:
        if file.method != "grid":
            if file.run_cap is None:
                needs = "the number of configurations"
                raise self.error(("method",), f"run_cap: missing; {file.method} needs {needs}")
            if not self.space:
                raise self.error(("parameters",), f"parameters: {file.method} has nothing to vary")
            return file.run_cap
        size = count_configurations(self.space)
        if size > MOST_LISTED:
            allowed = f"at most {MOST_LISTED:,}; `random` draws from more"
            raise self.error(("parameters",), f"parameters: a grid of {size:,}; allowed: {allowed}")
        return int(min(size, file.run_cap or size))


def _section(name: str) -> Any:
    return Params.model_fields[name].annotation


def _field(key: str) -> Any:
    """Return the field of the schema that a key such as model.activation names."""
    section, name = key.split(".")
    return _section(section).model_fields[name]


def _in_reach(number: float) -> bool:
    """Return whether a number is finite and fits in 64 bits."""
    return abs(number) < 2**63  # False for NaN and infinity


def _default_distribution(given: dict[str, Any]) -> str:
    """Return the distribution of a parameter that names none, by W&B's rule."""
    if "values" in given:
        return "categorical"
    if "value" in given:
        return "constant"
    if "q" in given:
        return "q_uniform"
    whole = all(isinstance(given.get(end), int) for end in ("min", "max"))
    return "int_uniform" if whole else "uniform"
