"""How a parameter's values lie on an axis: a number, a logarithm, or a category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

MISSING = "(none)"  # a parameter that a trial does not have
FEW = 8  # distinct numbers up to which each is a group, and a tick, of its own
_BINS = 5
_LOG_RATIO = 10  # highest / lowest below which a logarithm shows nothing new
_DECADES = 4  # up to which a logarithmic axis has ticks at 1, 2 and 5


@dataclass(frozen=True)
class Parameter:
    """One varying parameter, and where on its axis each configuration lies."""

    key: str  # model.activation
    label: str  # activation
    kind: Literal["number", "boolean", "category"]
    log: bool
    values: list[Any]  # by configuration; None where it is missing

    @property
    def numbers(self) -> list[float]:
        """Distinct numbers, rising."""
        return sorted({float(value) for value in self.values if value is not None})

    @property
    def levels(self) -> list[str]:
        """Distinct texts; those of booleans false first, of categories by name."""
        found = {show_value(value) for value in self.values if value is not None}
        return sorted(found) + ([MISSING] if None in self.values else [])

    def positions(self) -> list[float]:
        """Return a place on a linear axis for each configuration.

        log10 where `log`; the index of the level where it is no number. A missing number lies
        below the lowest, by an eighth of the range.
        """
        if self.kind != "number":
            index = {level: float(k) for k, level in enumerate(self.levels)}
            return [index[show_value(value)] for value in self.values]
        places = [self._place(number) for number in self.numbers]
        low = places[0] - ((places[-1] - places[0]) or 1) / 8
        return [low if value is None else self._place(value) for value in self.values]

    def ticks(self) -> list[tuple[float, str]]:
        """Position and text of each tick; none where an axis's own are right."""
        if self.kind != "number":
            return [(float(k), level) for k, level in enumerate(self.levels)]
        numbers = self.numbers
        if len(numbers) > FEW:
            numbers = _log_ticks(numbers[0], numbers[-1]) if self.log else []
        ticks = [(self._place(number), show_value(number)) for number in numbers]
        if None in self.values and ticks:
            ticks.insert(0, (min(self.positions()), MISSING))
        return ticks

    def groups(self) -> list[tuple[str, list[int]]]:
        """Text and configurations of each box: a value, or a fifth of many numbers."""
        if self.kind != "number":
            texts = [show_value(value) for value in self.values]
            return [(level, _where(texts, level)) for level in self.levels]
        numbers = self.numbers
        if len(numbers) <= FEW:
            found = [(show_value(number), _where(self.values, number)) for number in numbers]
        else:
            found = self._fifths()
        if None in self.values:
            found.append((MISSING, _where(self.values, None)))
        return found

    def _fifths(self) -> list[tuple[str, list[int]]]:
        known = np.array([math.nan if value is None else float(value) for value in self.values])
        edges = np.unique(np.quantile(known[np.isfinite(known)], np.linspace(0, 1, _BINS + 1)))
        bins = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(edges) - 2)
        found = []
        for k in range(len(edges) - 1):
            inside = np.flatnonzero(np.isfinite(known) & (bins == k)).tolist()
            if inside:
                found.append((f"{edges[k]:.2g} – {edges[k + 1]:.2g}", inside))
        return found

    def _place(self, number: float) -> float:
        return math.log10(number) if self.log else float(number)


def describe(columns: dict[str, list[Any]]) -> list[Parameter]:
    """Find the kind of each parameter.

    Args:
        columns: key of params.yaml: its value in each configuration.
    """
    short = [key.rsplit(".", 1)[-1] for key in columns]
    found = []
    for key, values in columns.items():
        label = key.rsplit(".", 1)[-1]
        known = [None if _missing(value) else value for value in values]
        kind = _kind([value for value in known if value is not None])
        found.append(
            Parameter(
                key=key,
                label=label if short.count(label) == 1 else key,
                kind=kind,
                log=kind == "number" and _is_log([float(v) for v in known if v is not None]),
                values=known,
            )
        )
    return found


def show_value(value: Any) -> str:
    """Return a value as params.yaml would have it, numbers to four digits."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _kind(known: Sequence[Any]) -> Literal["number", "boolean", "category"]:
    if known and all(isinstance(value, bool) for value in known):
        return "boolean"
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in known]
    return "number" if known and all(numbers) else "category"


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _is_log(numbers: list[float]) -> bool:
    """Whether the middle number is nearer to the geometric than to the arithmetic middle."""
    low, high = min(numbers), max(numbers)
    if low <= 0 or high / low < _LOG_RATIO:
        return False
    return float(np.median(sorted(set(numbers)))) < (math.sqrt(low * high) + (low + high) / 2) / 2


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between, and both ends."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= _DECADES else (1,)
    # float of a text: 3 * 10.0**-5 is not 3e-05.
    rounds = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    # An end beside a round number would be printed over it.
    inside = [number for number in rounds if low * 1.25 < number < high / 1.25]
    return [float(f"{low:.3g}"), *inside, float(f"{high:.3g}")]


def _where(values: Sequence[Any], wanted: Any) -> list[int]:
    return [k for k, value in enumerate(values) if value == wanted]
