"""Read a sweep file in the format of W&B and check it against params.yaml's schema.

Format: https://docs.wandb.ai/guides/sweeps/sweep-config-keys/, and two keys of our own: `seeds` and
`seed`.
"""

from __future__ import annotations

import math
import re
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, cast

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
    size_of,
    with_values,
)

_ALIASES = {"val_acc": "val/acc", "val_accuracy": "val/acc", "val_loss": "val/loss"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_TRIES = 64  # combinations of the other parameters in which a value may be valid
_CONTINUOUS = ("uniform", "log_uniform_values")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Metric(_Part):
    name: Annotated[
        Literal["val/acc", "val/loss"],
        BeforeValidator(lambda name: _ALIASES.get(re.sub(r"\W", "_", str(name)), name)),
    ]
    goal: Literal["maximize", "minimize"] | None = None


class _Parameter(_Part):
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


class _SweepFile(_Part):
    method: Literal["grid", "random", "bayes"]
    metric: _Metric
    parameters: dict[str, _Parameter] = Field(min_length=1)
    run_cap: int | None = Field(default=None, ge=1)
    early_terminate: EarlyTerminate | None = None
    seeds: int = Field(default=1, ge=1, le=100)
    seed: Seed = 0
    name: str | None = None
    # What W&B needs and this does not: pasted files have them.
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
        ParamsError: anything in it that is unknown, contradictory or refused by the schema of
            params.yaml; the message names the line.
    """
    return _Checker(path, base).sweep()


class _Checker:
    """Reads one file; its errors know the line."""

    def __init__(self, path: Path, base: Params) -> None:
        self.path, self.base = path, base
        self.tree: Node | None = read_yaml(path, YAML(pure=True).compose)
        self.drawn: list[Values] | None = None
        self.raw = read_yaml(path, YAML(typ="safe", pure=True).load)

    def sweep(self) -> Sweep:
        if not isinstance(self.raw, dict):
            raise ParamsError(
                f"{self.path}: is not a sweep file: a mapping with method, metric and parameters"
            )
        try:
            file = _SweepFile.model_validate(self.raw)
        except ValidationError as err:
            errors = err.errors()
            problems = [self.at(error["loc"], describe(error, _SweepFile)) for error in errors]
            raise ParamsError("\n".join(problems)) from err
        self._check_goal(file.metric)
        space, fixed, lines = self._parameters(file)
        epochs = int(fixed.get("train.epochs", self.base.train.epochs))
        self._check_early(file.early_terminate, epochs)
        if file.seeds > 1 and "train.seed" in lines:
            raise self.error(("seeds",), "seeds: sets train.seed, which `parameters` sets too")
        self._check_validated(space, fixed, lines)
        for key in [*fixed, *space]:
            self._check_possible(key, space, fixed, lines)
        configurations = self._planned(file, space)
        name = file.name or self.path.stem
        if not _NAME.fullmatch(name) or re.search(r"-\d{4,}_", name):
            allowed = "up to 40 letters, digits, - and _, without a part such as -2024_"
            raise self.error(("name",), f"name: {name!r}; allowed: {allowed}")
        return Sweep(
            path=self.path,
            name=name,
            method=file.method,
            metric=file.metric.name,
            space=space,
            fixed=fixed,
            configurations=configurations,
            early_terminate=file.early_terminate,
            seeds=file.seeds,
            seed=file.seed,
        )

    def at(self, location: tuple[Any, ...], message: str) -> str:
        """Name the file and the line of what lies at `location`."""
        node, line = self.tree, 1
        for part in location:
            if isinstance(node, MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = node.start_mark.line + 1
        return f"{self.path}: line {line}: {message}"

    def error(self, location: tuple[Any, ...], message: str) -> ParamsError:
        return ParamsError(self.at(location, message))

    def _check_goal(self, metric: _Metric) -> None:
        goal = GOALS[metric.name]
        if metric.goal not in (None, goal):
            raise self.error(
                ("metric", "goal"), f"metric.goal: {metric.goal} {metric.name}; allowed: {goal}"
            )

    def _check_validated(
        self, space: dict[str, BaseDistribution], fixed: Values, places: dict[str, tuple[Any, ...]]
    ) -> None:
        key = "train.train_on_val"
        if key in space:
            values = choices_of(cast("CategoricalDistribution", space[key]))
        else:
            values = [fixed.get(key, self.base.train.train_on_val)]
        if True in values:
            raise self.error(
                places.get(key, ("parameters",)),
                f"{key}: true leaves nothing to compare trials by; allowed in a sweep: false",
            )

    def _check_early(self, early: EarlyTerminate | None, epochs: int) -> None:
        if early is None:
            return
        where = ("early_terminate",)
        if (early.min_iter is None) == (early.max_iter is None):
            raise self.error(where, "early_terminate: needs min_iter or max_iter, one of the two")
        if early.max_iter is not None and early.s is None:
            raise self.error(where, "early_terminate: max_iter needs s, the number of rungs")
        if not early.rungs(epochs):
            last = f"the last epoch (train.epochs: {epochs})"
            raise self.error(where, f"early_terminate: no rung lies before {last}")

    def _parameters(
        self, file: _SweepFile
    ) -> tuple[dict[str, BaseDistribution], Values, dict[str, tuple[Any, ...]]]:
        """Full key of each parameter -> its distribution or fixed value, and its place."""
        space: dict[str, BaseDistribution] = {}
        fixed: Values = {}
        places: dict[str, tuple[Any, ...]] = {}
        for name, parameter in file.parameters.items():
            place = ("parameters", name)
            key = self._key(name, place)
            if key in places:
                raise self.error(place, f"{name}: is {key}, which is there twice")
            places[key] = place
            given = parameter.model_dump(exclude_none=True)
            kind = given.pop("distribution", None) or _default_distribution(given)
            self._check_keys(name, kind, given, place)
            if kind == "constant":
                fixed[key] = self._value(key, given["value"], (*place, "value"))
            elif kind == "categorical":
                values = [
                    self._value(key, value, (*place, "values", index))
                    for index, value in enumerate(given["values"])
                ]
                if len({repr(value) for value in values}) < len(values):
                    raise self.error((*place, "values"), f"{name}: a value is there twice")
                space[key] = CategoricalDistribution(values)
            else:
                space[key] = self._range(key, kind, given, place)
                if file.method == "grid" and kind in _CONTINUOUS:
                    allowed = "value, values, int_uniform, q_uniform"
                    raise self.error(
                        place, f"{name}: {kind} is continuous; allowed in a grid: {allowed}"
                    )
        return space, fixed, places

    def _key(self, name: str, place: tuple[Any, ...]) -> str:
        """`activation` -> `model.activation`."""
        known = [
            f"{section}.{field}"
            for section in SECTIONS
            for field in Params.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
        ]
        if name in known:
            return name
        found = [key for key in known if key.split(".")[1] == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise self.error(place, f"{name}: is ambiguous; allowed: {' or '.join(found)}")
        section = name.split(".", 1)[0]
        if section in Params.model_fields and section not in SECTIONS:
            allowed = ", ".join(SECTIONS)
            problem = "trials end with `train`, which does not read it"
            raise self.error(place, f"{name}: {problem}; allowed sections: {allowed}")
        names = [*known, *(key.split(".")[1] for key in known)]
        hint = did_you_mean(name, names) if len(name) > 1 else ""
        hint = hint if "mean" in hint else f"; allowed: a key of {', '.join(SECTIONS)}"
        raise self.error(place, f"{name}: is in no section of params.yaml{hint}")

    def _check_keys(
        self, name: str, kind: str, given: dict[str, Any], place: tuple[Any, ...]
    ) -> None:
        needed, allowed = {
            "constant": ({"value"}, {"value"}),
            "categorical": ({"values"}, {"values"}),
            "q_uniform": ({"min", "max"}, {"min", "max", "q"}),
        }.get(kind, ({"min", "max"}, {"min", "max"}))
        wrong = sorted(set(given) - allowed) or sorted(needed - set(given))
        if wrong:
            problem = "does not go with" if wrong[0] in given else "is missing for"
            raise self.error(
                (*place, wrong[0]),
                f"{name}.{wrong[0]}: {problem} {kind}; allowed: {', '.join(sorted(allowed))}",
            )

    def _range(
        self, key: str, kind: str, given: dict[str, Any], place: tuple[Any, ...]
    ) -> BaseDistribution:
        low, high, step = given["min"], given["max"], given.get("q", 1)
        whole = _annotation(key) is int
        self._check_range(key, kind, (low, high, step), place)
        if kind not in _CONTINUOUS:
            # Optuna wants the highest to be reachable.
            high = low + math.floor((high - low) / step + 1e-9) * step
        self._value(key, low, (*place, "min"))
        self._value(key, high, (*place, "max"))
        if whole:
            return IntDistribution(int(low), int(high), step=int(step))
        if kind not in _CONTINUOUS:
            return FloatDistribution(low, high, step=step)
        return FloatDistribution(low, high, log=kind == "log_uniform_values")

    def _check_range(
        self, key: str, kind: str, numbers: tuple[float, float, float], place: tuple[Any, ...]
    ) -> None:
        low, high, step = numbers
        if _annotation(key) not in (int, float):
            raise self.error(place, f"{key}: is not a number; allowed: value, values")
        if not (_in_reach(low) and _in_reach(high) and low < high):
            raise self.error((*place, "min"), f"{key}: min {low}, max {high}; allowed: min < max")
        if kind == "log_uniform_values" and low <= 0:
            raise self.error((*place, "min"), f"{key}: min {low} of {kind}; allowed: above 0")
        if kind not in _CONTINUOUS and not (_in_reach(step) and 0 < step <= high - low):
            allowed = f"above 0 and at most max - min, {high - low}"
            raise self.error((*place, "q"), f"{key}: q {step}; allowed: {allowed}")
        if _annotation(key) is int and kind in _CONTINUOUS:
            allowed = "values, int_uniform, q_uniform"
            raise self.error(place, f"{key}: {kind} draws fractions; allowed: {allowed}")
        whole = _annotation(key) is int or kind == "int_uniform"
        if whole and any(number != int(number) for number in numbers):
            raise self.error(place, f"{key}: {kind} of fractions; allowed: whole numbers")

    def _value(self, key: str, value: Scalar, place: tuple[Any, ...]) -> Scalar:
        """Check a value by its field alone."""
        section, name = key.split(".")
        model: Any = Params.model_fields[section].annotation
        field = model.model_fields[name]
        kind: Any = Annotated[field.annotation, field]
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True))
        try:
            checked: Scalar = adapter.validate_python(value)
        except ValidationError as err:
            error = {**err.errors()[0], "loc": (section, name)}
            raise self.error(place, describe(error, Params)) from err
        return checked

    def _check_possible(
        self,
        key: str,
        space: dict[str, BaseDistribution],
        fixed: Values,
        places: dict[str, tuple[Any, ...]],
    ) -> None:
        """Refuse a value that contradicts whatever the other parameters are."""
        if key in fixed:
            candidates: list[Scalar] = [fixed[key]]
        elif isinstance(space[key], CategoricalDistribution):
            candidates = choices_of(space[key])
        else:
            candidates = [space[key].low, space[key].high]  # type: ignore[attr-defined]
        for index, value in enumerate(candidates):
            problem = None
            for draw in chain([fixed], ({**fixed, **values} for values in self._draws(space))):
                try:
                    with_values(self.base, {**draw, key: value})
                    break
                except ValidationError as err:
                    problem = problem or describe(err.errors()[0], Params)
            else:
                ranged = "min" in self.raw["parameters"][places[key][1]]
                inner = (("min", "max")[index],) if ranged else ("values", index)
                inner = ("value",) if key in fixed else inner
                raise self.error((*places[key], *inner), str(problem))

    def _draws(self, space: dict[str, BaseDistribution]) -> list[Values]:
        """Some random configurations, always the same ones; seldom needed."""
        if self.drawn is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            self.drawn = [dict(study.ask(space).params) for _ in range(_TRIES)]
        return self.drawn

    def _planned(self, file: _SweepFile, space: dict[str, BaseDistribution]) -> int:
        if file.method != "grid":
            if file.run_cap is None:
                needs = "the number of configurations"
                raise self.error(("method",), f"run_cap: missing; {file.method} needs {needs}")
            if not space:
                raise self.error(("parameters",), f"parameters: {file.method} has nothing to vary")
            return file.run_cap
        size = math.prod(size_of(distribution) for distribution in space.values())
        if size > MOST_LISTED:
            allowed = f"at most {MOST_LISTED:,}; `random` draws from more"
            raise self.error(("parameters",), f"parameters: a grid of {size:,}; allowed: {allowed}")
        return min(size, file.run_cap or size)


def _in_reach(number: float) -> bool:
    """Whether a number is finite and fits in 64 bits."""
    return abs(number) < 2**63  # False for NaN and infinity


def _default_distribution(given: dict[str, Any]) -> str:
    """W&B's own rule for a parameter without `distribution`."""
    if "values" in given:
        return "categorical"
    if "value" in given:
        return "constant"
    if "q" in given:
        return "q_uniform"
    whole = all(isinstance(given.get(end), int) for end in ("min", "max"))
    return "int_uniform" if whole else "uniform"


def _annotation(key: str) -> Any:
    section, name = key.split(".")
    model: Any = Params.model_fields[section].annotation
    return model.model_fields[name].annotation
