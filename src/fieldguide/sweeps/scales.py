"""Axes for the values of a parameter: linear, logarithmic, or one place for each category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

MISSING = "(none)"  # shown for a parameter that a trial does not have
FEW = 8  # distinct numbers up to which each has its own tick
_LOG_RATIO = 100  # highest / lowest from which an axis is logarithmic


@dataclass(frozen=True)
class Parameter:
    """A parameter that varies, with its value in each configuration."""

    label: str  # activation, or model.activation if two sections have one
    kind: Literal["number", "boolean", "category"]
    log: bool
    values: list[Any]  # by configuration; None if it is missing

    @property
    def numbers(self) -> list[float]:
        """Distinct numbers in ascending order."""
        return sorted({float(value) for value in self.values if value is not None})

    @property
    def levels(self) -> list[str]:
        """Distinct values as text, sorted; MISSING comes last."""
        found = {show_value(value) for value in self.values if value is not None}
        return sorted(found) + ([MISSING] if None in self.values else [])

    def positions(self) -> list[float]:
        """Return the place of each configuration on the axis.

        A number's place is the number, or its log10 if `log`; the place of any other value is the
        index of its level. A missing number lies an eighth of the range below the lowest.
        """
        if self.kind != "number":
            index = {level: float(k) for k, level in enumerate(self.levels)}
            return [index[show_value(value)] for value in self.values]
        places = [self._place(number) for number in self.numbers]
        low = places[0] - ((places[-1] - places[0]) or 1) / 8
        return [low if value is None else self._place(value) for value in self.values]

    def ticks(self) -> list[tuple[float, str]]:
        """Return the place and text of each tick; none if Plotly should choose them."""
        if self.kind != "number":
            return [(float(k), level) for k, level in enumerate(self.levels)]
        numbers = self.numbers
        if len(numbers) > FEW:
            numbers = _log_ticks(numbers[0], numbers[-1]) if self.log else []
        ticks = [(self._place(number), show_value(number)) for number in numbers]
        if None in self.values and ticks:
            ticks.insert(0, (min(self.positions()), MISSING))
        return ticks

    def _place(self, number: float) -> float:
        return math.log10(number) if self.log else float(number)


def describe(columns: dict[str, list[Any]]) -> list[Parameter]:
    """Return the kind, label and values of each parameter.

    Args:
        columns: by key of params.yaml, the value in each configuration.
    """
    short = [key.rsplit(".", 1)[-1] for key in columns]
    found = []
    for key, values in columns.items():
        label = key.rsplit(".", 1)[-1]
        known = [None if _missing(value) else value for value in values]
        kind = _kind([value for value in known if value is not None])
        found.append(
            Parameter(
                label=label if short.count(label) == 1 else key,
                kind=kind,
                log=kind == "number" and _is_log([float(v) for v in known if v is not None]),
                values=known,
            )
        )
    return found


def show_value(value: Any) -> str:
    """Return a value as params.yaml shows it, with floats to four digits."""
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
    return min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_RATIO


def _log_ticks(low: float, high: float) -> list[float]:
    """Return both ends and the powers of ten between them."""
    # From text, because 10.0**-5 is not 1e-05.
    powers = [float(f"1e{k}") for k in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    # A power near an end would be printed over the end.
    inside = [power for power in powers if low * 1.25 < power < high / 1.25]
    return [float(f"{low:.3g}"), *inside, float(f"{high:.3g}")]
