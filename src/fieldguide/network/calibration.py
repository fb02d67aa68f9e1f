"""What the validation photos say of a classifier's confidence; docs/trust.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, FiniteFloat
from pydantic.dataclasses import dataclass

from fieldguide.core.params import TargetPrecision

TEMPERATURES = (0.1, 10.0)  # allowed; below 1: the network itself is too cautious


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Calibration:
    """Part of a saved classifier; without it no photo was left to calibrate with."""

    # Scores are divided by it before they become probabilities.
    temperature: Annotated[FiniteFloat, Field(ge=TEMPERATURES[0], le=TEMPERATURES[1])]
    target_precision: TargetPrecision  # share of right answers that was asked for
    # Answers with at least this confidence reach the target; None: no confidence does.
    min_confidence: Annotated[FiniteFloat, Field(ge=0, lt=1)] | None
