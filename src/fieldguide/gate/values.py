"""Numbers of metrics files: which count as such, and how they are shown."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

_MINUS = "−"
_LARGE = 100
_SMALLEST_P = 0.0001  # p values below are shown as below it


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite number, and not true or false."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def number(value: float | None, *, beside: float | None = None) -> str:
    """Show a fraction with 3 decimals, and a large number without; `beside` says what is large."""
    if value is None:
        return ""
    largest = max(abs(value), abs(beside or 0.0))
    return f"{value:,.{3 if largest < _LARGE else 0}f}".replace("-", _MINUS)


def signed(value: float | None, *, beside: float | None = None) -> str:
    """Show a difference, with its sign."""
    text = number(value, beside=beside)
    return f"+{text}" if value is not None and value > 0 else text


def p_value(p: float | None) -> str:
    """Show a p value with 4 decimals."""
    if p is None:
        return ""
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.4f}"
