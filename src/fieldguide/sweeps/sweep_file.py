"""Read a sweep file in the format of W&B and check it against the schema of params.yaml.

Format: https://docs.wandb.ai/guides/sweeps/sweep-config-keys/, and two keys that W&B does not have:
`seeds` and `seed`.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import (
    GOALS,
    Monitor,
    Params,
    Section,
    Seed,
    describe,
    did_you_mean,
    read_yaml,
)
from fieldguide.core.recipes import AUTO_KEYS
from fieldguide.sweeps.space import (
    MOST_LISTED,
    SECTIONS,
    EarlyTerminate,
    Sweep,
    Value,
    Values,
    count_configurations,
    epochs_of,
    with_values,
)

_ALIASES = {name.replace("/", "_"): name for name in GOALS} | {"val_accuracy": "val/acc"}
_METRICS = "val/acc, val/macro_f1 or val/loss"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_TRIES = 64  # combinations of the other parameters with which a value is tried
_UNVALIDATED = "true leaves no photos to compare trials by; allowed in a sweep: false"
_CONTINUOUS = ("uniform", "log_uniform_values")
_KEYS = {  # distribution -> its keys; all are needed, except q, which is 1 by default
    "constant": ("value",),
    "categorical": ("values",),
    "int_uniform": ("min", "max"),
    "uniform": ("min", "max"),
    "q_uniform": ("min", "max", "q"),
    "log_uniform_values": ("min", "max"),
}
# Part of the name of a distribution that only W&B has -> the nearest distribution here.
_NEAREST = {"normal": "uniform", "beta": "uniform", "log": "log_uniform_values"}
_REMEDIES = {  # key that only W&B has -> the end of the message
    "controller": "is not supported; delete it: `fieldguide sweep run` chooses the trials",
    "parameters": "is not supported; write each inner parameter one level higher, by its full key, "
    "such as model.activation, or its last part",
    "probabilities": "is not supported; delete it: all values are equally likely",
    "target": "is not supported; delete it: a sweep ends after run_cap configurations",
}
_ALLOWED = {  # key that may be missing -> what it may hold
    "method": "grid, random or bayes",
    "metric": f"a mapping with name: {_METRICS}",
    "name": _METRICS,
    "parameters": "parameters by name, each with value, values, or min and max",
    "type": "hyperband",
}
_FIELDS: dict[str, Any] = {  # key of params.yaml, such as model.activation -> field of the schema
    f"{section}.{name}": field
    for section in SECTIONS
    for name, field in Params.model_fields[section].annotation.model_fields.items()  # type: ignore[union-attr]
}
Place = tuple[Any, ...]  # keys and indices that lead to an entry of the file


class _Metric(Section):
    name: Annotated[
        Monitor,
        BeforeValidator(lambda name: _ALIASES.get(re.sub(r"\W", "_", str(name)), name)),
    ]
    goal: Literal["maximize", "minimize"] | None = None


class _SweepFile(Section):
    method: Literal["grid", "random", "bayes"]
    metric: _Metric
    parameters: dict[str, dict[Any, Any]] = Field(min_length=1)
    run_cap: int | None = Field(default=None, ge=1)
    early_terminate: EarlyTerminate | None = None
    seeds: int = Field(default=1, ge=1, le=100)
    seed: Seed = 0
    name: str | None = None
    # W&B needs them; they do nothing here.
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
        self.lists: set[str] = set()  # keys that have lists among their choices
        self.candidates: list[tuple[Place, str, Value]] = []  # values, choices, ends of ranges

    def sweep(self) -> Sweep:
        file = self._parse()
        metric, goal = file.metric, GOALS[file.metric.name]
        if metric.goal not in (None, goal):
            found = f"metric.goal: found {metric.goal} of {metric.name}"
            raise self.error(("metric", "goal"), f"{found}; allowed: {goal}")
        self._add_parameters(file)
        if file.early_terminate:
            self._check_early(file.early_terminate)
        if file.seeds > 1 and "train.seed" in self.places:
            raise self.error(("seeds",), "seeds: sets train.seed, which `parameters` sets too")
        self._check_base()
        name = file.name or self.path.stem
        if not _NAME.fullmatch(name) or re.search(r"-\d{4,}_", name):
            allowed = "up to 40 letters, digits, - and _, without a part such as -2024_"
            raise self.error(("name",), f"name: {name!r}; allowed: {allowed}")
        sweep = Sweep(
            path=self.path,
            name=name,
            method=file.method,
            metric=metric.name,
            space=self.space,
            lists=frozenset(self.lists),
            fixed=self.fixed,
            configurations=self._planned(file),
            early_terminate=file.early_terminate,
            seeds=file.seeds,
            seed=file.seed,
        )
        self._check_possible(sweep)
        return sweep

    def error(self, place: Place, message: str) -> ParamsError:
        """Return an error that names the file and the line of a place."""
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
        message = message.replace("\n", " ")  # a key of the file may have several lines
        return ParamsError(f"{self.path}: line {line}: {message}")

    def _parse(self) -> _SweepFile:
        if not isinstance(self.raw, dict):
            raise self.error((), f"found {self.raw!r}; allowed: a mapping with method, metric, ...")
        try:
            return _SweepFile.model_validate(self.raw)
        except ValidationError as err:
            problems = [self.error(one["loc"], _describe(one)) for one in err.errors()]
            raise ParamsError("\n".join(map(str, problems))) from err

    def _add_parameters(self, file: _SweepFile) -> None:
        """Read `parameters`; report the first mistake of each entry."""
        problems = []
        for name, given in file.parameters.items():
            try:
                self._add_parameter(name, given, method=file.method)
            except ParamsError as err:
                problems.append(str(err))
        if problems:
            raise ParamsError("\n".join(problems))

    def _add_parameter(self, name: str, given: dict[Any, Any], *, method: str) -> None:
        """Read one entry of `parameters`."""
        place = ("parameters", name)
        kind = self._distribution(name, given, place)
        key = self._key(name, place)
        if key == "train.stop_after":
            allowed = "early_terminate, or train.epochs for a shorter training"
            raise self.error(place, f"{name}: is set by the sweep itself; allowed: {allowed}")
        if key == "train.monitor":
            allowed = "metric.name, which also decides the epoch that each trial keeps"
            raise self.error(place, f"{name}: is set by the sweep itself; allowed: {allowed}")
        if key in self.places:
            raise self.error(place, f"{name}: is {key}, which is there twice; allowed: once")
        self.places[key] = place
        if kind == "constant":
            self.fixed[key] = self._check_value(key, given["value"], (*place, "value"))
        elif kind == "categorical":
            self.space[key] = self._choices(key, given["values"], (*place, "values"))
        elif method == "grid" and kind in _CONTINUOUS:
            allowed = "value, values, int_uniform, q_uniform"
            raise self.error(place, f"{name}: {kind} is continuous; allowed in a grid: {allowed}")
        else:
            self.space[key] = self._range(key, kind, given, place)

    def _distribution(self, name: str, given: dict[Any, Any], place: Place) -> str:
        """Return the distribution of an entry; check that it has the entry's keys and no others."""
        kind = str(given.get("distribution") or _default_distribution(given))
        if kind not in _KEYS:
            hint = did_you_mean(kind, list(_KEYS))
            for part, nearest in _NEAREST.items():
                if part in kind:
                    hint = f"; allowed: {nearest}, whose min and max are the ends of the range"
            raise self.error((*place, "distribution"), f"{name}.distribution: found {kind!r}{hint}")
        keys = _KEYS[kind]
        wrong = [key for key in given if key not in (*keys, "distribution")]
        missing = [key for key in keys if key not in given and key != "q"]
        for key in wrong + missing:
            problem = "does not go with" if key in given else "is missing for"
            problem = _REMEDIES.get(key, f"{problem} {kind}; allowed: {', '.join(keys)}")
            raise self.error((*place, key), f"{name}.{key}: {problem}")
        return kind

    def _key(self, name: str, place: Place) -> str:
        """`activation` -> `model.activation`."""
        found = [key for key in _FIELDS if name in (key, key.split(".")[1])]
        if len(found) == 1:
            return found[0]
        if found:
            raise self.error(place, f"{name}: is ambiguous; allowed: {' or '.join(found)}")
        hint = did_you_mean(name, [*_FIELDS, *(key.split(".")[1] for key in _FIELDS)])
        hint = hint if "mean" in hint else f"; allowed: a key of {', '.join(SECTIONS)}"
        raise self.error(place, f"{name}: is not a parameter of trials{hint}")

    def _choices(self, key: str, values: Any, place: Place) -> CategoricalDistribution:
        if not isinstance(values, list) or not values:
            raise self.error(place, f"{key}: found {values!r}; allowed: a list of values")
        checked = [self._check_value(key, value, (*place, k)) for k, value in enumerate(values)]
        shown = [repr(value) for value in checked]
        for text in shown:
            if shown.count(text) > 1:
                raise self.error(place, f"{key}: found {text} twice; allowed: once")
        if any(isinstance(value, list) for value in checked):
            self.lists.add(key)
            checked = [json.dumps(value) for value in checked]
        return CategoricalDistribution(checked)  # type: ignore[arg-type]

    def _range(self, key: str, kind: str, given: dict[str, Any], place: Place) -> BaseDistribution:
        low, high, step = given["min"], given["max"], given.get("q", 1)
        annotation, continuous = _FIELDS[key].annotation, kind in _CONTINUOUS
        if annotation not in (int, float):
            raise self.error(place, f"{key}: is not a number; allowed: value, values")
        if not (_in_reach(low) and _in_reach(high) and low < high):
            found = f"min {low!r}, max {high!r}"
            raise self.error((*place, "min"), f"{key}: {found}; allowed: numbers with min < max")
        if kind == "log_uniform_values" and low <= 0:
            raise self.error((*place, "min"), f"{key}: min {low} of {kind}; allowed: above 0")
        if not (_in_reach(step) and 0 < step <= high - low) and not continuous:
            allowed = f"above 0 and at most max - min, {high - low}"
            raise self.error((*place, "q"), f"{key}: q {step!r}; allowed: {allowed}")
        if annotation is int and continuous:
            allowed = "values, int_uniform, q_uniform"
            raise self.error(place, f"{key}: {kind} draws fractions; allowed: {allowed}")
        whole = annotation is int or kind == "int_uniform"
        if whole and any(number != int(number) for number in (low, high, step)):
            raise self.error(place, f"{key}: {kind} of fractions; allowed: whole numbers")
        if not continuous:  # Optuna needs the highest value to be exactly low + k * step
            first, last, width = (Fraction(str(number)) for number in (low, high, step))
            high = annotation(first + (last - first) // width * width)
        self._check_value(key, low, (*place, "min"))
        self._check_value(key, high, (*place, "max"))
        if annotation is int:
            return IntDistribution(int(low), int(high), step=int(step))
        if not continuous:
            return FloatDistribution(low, high, step=step)
        return FloatDistribution(low, high, log=kind == "log_uniform_values")

    def _check_value(self, key: str, value: Any, place: Place) -> Value:
        """Check a value by its field of the schema alone, and list it as a candidate."""
        if value == "auto" and key in AUTO_KEYS:
            self.candidates.append((place, key, value))
            return "auto"
        field: Any = Annotated[_FIELDS[key].annotation, _FIELDS[key]]
        adapter: TypeAdapter[Any] = TypeAdapter(field, config=ConfigDict(strict=True))
        try:
            checked: Value = adapter.validate_python(value)
        except ValidationError as err:
            error = {**err.errors()[0], "loc": tuple(key.split("."))}
            raise self.error(place, describe(error, Params)) from err
        if key == "train.train_on_val" and checked:
            raise self.error(place, f"{key}: {_UNVALIDATED}")
        self.candidates.append((place, key, checked))
        return checked

    def _check_early(self, early: EarlyTerminate) -> None:
        epochs = epochs_of(self.base, self.fixed)
        if not early.rungs(epochs):
            problem = f"no rung lies before the last epoch, train.epochs: {epochs}"
            raise self.error(("early_terminate",), f"early_terminate: {problem}")

    def _check_base(self) -> None:
        """Refuse values of params.yaml that no sweep can have."""
        train = self.base.train
        if train.stop_after:
            problem = "allowed in a sweep: 0, because the sweep itself sets it"
            raise ParamsError(f"params.yaml: train.stop_after: found {train.stop_after}; {problem}")
        if train.train_on_val and "train.train_on_val" not in self.places:
            raise ParamsError(f"params.yaml: train.train_on_val: {_UNVALIDATED}")

    def _check_possible(self, sweep: Sweep) -> None:
        """Refuse a value that the schema refuses whatever values the other parameters have."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        drawn = [sweep.values(study.ask(sweep.space).params) for _ in range(_TRIES)]
        # A fixed value that fits no other value is to blame, not the others: it comes first.
        for place, key, value in sorted(self.candidates, key=lambda one: one[1] in self.space):
            problem = None
            for others in ({}, *drawn):
                try:
                    with_values(self.base, {**sweep.fixed, **others, key: value})
                    break
                except ValidationError as err:
                    problem = problem or describe(err.errors()[0], Params)
            else:
                raise self.error(place, str(problem))

    def _planned(self, file: _SweepFile) -> int:
        if file.method != "grid":
            if file.run_cap is None:
                allowed = f"1 or more, which {file.method} needs"
                raise self.error(("method",), f"run_cap: missing; allowed: {allowed}")
            if not self.space:
                raise self.error(("parameters",), f"parameters: {file.method} has nothing to vary")
            return file.run_cap
        size = count_configurations(self.space)
        if size > MOST_LISTED:
            allowed = f"at most {MOST_LISTED:,}; `random` draws from more"
            raise self.error(("parameters",), f"parameters: a grid of {size:,}; allowed: {allowed}")
        return int(min(size, file.run_cap or size))


def _in_reach(number: Any) -> bool:
    """Return whether a value is a number (not true or false), finite, and fits in 64 bits."""
    return type(number) in (int, float) and abs(number) < 2**63  # False for NaN


def _describe(error: Any) -> str:
    """Return one line about one of pydantic's errors in a sweep file."""
    place, key, kind = ".".join(map(str, error["loc"])), error["loc"][-1], error["type"]
    if kind == "extra_forbidden" and key in _REMEDIES:
        return f"{place}: {_REMEDIES[key]}"
    if kind == "missing":
        return f"{place}: missing; allowed: {_ALLOWED[key]}"
    if error["loc"][0] == "parameters":
        return f"{place}: found {error['input']!r}; allowed: {_ALLOWED['parameters']}"
    return describe(error, _SweepFile)


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
