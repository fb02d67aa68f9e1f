"""Numbers of metrics files: which values are numbers, and how they are shown."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

MINUS = "−"
_LARGE = 100
_SMALLEST_P = 0.0001  # a smaller p value is shown as "< 0.0001"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number; true and false are not numbers."""
    return type(value) in (int, float) and math.isfinite(value)


def number(value: float | None, *, same_scale_as: float | None = None) -> str:
    """Show a number with 3 decimals; with none if it is an integer or large, or its scale is."""
    if value is None:
        return ""
    is_large = max(abs(value), abs(same_scale_as or 0.0)) >= _LARGE
    return f"{value:,.{0 if is_large or isinstance(value, int) else 3}f}".replace("-", MINUS)


def signed(value: float | None, *, same_scale_as: float | None = None) -> str:
    """Show a difference as `number` does, with its sign."""
    text = number(value, same_scale_as=same_scale_as)
    return f"+{text}" if value is not None and value > 0 else text


def p_value(p: float | None) -> str:
    """Show a p value with 4 decimals."""
    if p is None:
        return ""
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.4f}"
