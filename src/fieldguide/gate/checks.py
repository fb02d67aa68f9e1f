"""What checks.yaml holds: what the gate requires of a model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from fieldguide.core.params import Section, Seed
from fieldguide.gate.scores import SHARES, SUMS

TESTED = dict.fromkeys(SHARES, "maximize") | {
    name: "maximize" if sign > 0 else "minimize" for name, (_, sign) in SUMS.items()
}
_ROUNDING = 1e-9  # 0.02 + 0.01 + 0.02 is a little more than 0.05

# A permutation test of the fewest resamples allowed, 999, has no p value below 0.001.
Significance = Annotated[float, Field(ge=0.001, lt=0.5)]


class MetricCheck(Section):
    """What is required of one metric."""

    direction: Literal["maximize", "minimize"]
    tolerated_loss: FiniteFloat | None = Field(default=None, ge=0)  # in the metric's own unit
    significance: Significance | None = None
    floor: FiniteFloat | None = None
    ceiling: FiniteFloat | None = None


class ClassCheck(Section):
    """What is required of the recall of every class."""

    tolerated_loss: FiniteFloat = Field(ge=0, lt=1)
    significance: Significance  # of all classes together
    floor: FiniteFloat | None = Field(default=None, ge=0, le=1)


class LimitCheck(Section):
    """What is required of a cost, such as the model's size."""

    ratio: FiniteFloat | None = Field(default=None, gt=0)  # candidate / reference, at most
    ceiling: FiniteFloat | None = None


class Checks(Section):
    """The whole file."""

    significance: Significance
    resamples: int = Field(ge=999, le=1_000_000)
    seed: Seed
    metrics: dict[str, MetricCheck] = Field(default_factory=dict)
    per_class: ClassCheck | None = None
    limits: dict[str, LimitCheck] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        for name, check in self.metrics.items():
            key = f"metrics.{name}"
            if check.tolerated_loss is None and check.floor is None and check.ceiling is None:
                raise ValueError(
                    f"{key}: requires nothing; allowed: tolerated_loss, floor or ceiling"
                )
            if check.significance is not None and name not in TESTED:
                raise ValueError(
                    f"{key}.significance: found {check.significance}; allowed for "
                    f"{', '.join(TESTED)}, because no other metric is known photo by photo"
                )
            if check.direction != TESTED.get(name, check.direction):
                raise ValueError(
                    f"{key}.direction: found {check.direction}; allowed: {TESTED[name]}"
                )
            if name in TESTED and check.tolerated_loss is not None and check.tolerated_loss >= 1:
                raise ValueError(
                    f"{key}.tolerated_loss: found {check.tolerated_loss:g}; allowed: below 1, "
                    "because the metric is a fraction; 1 % is 0.01"
                )
            if check.significance is not None and check.tolerated_loss is None:
                raise ValueError(f"{key}.tolerated_loss: missing; significance needs it, 0 or more")
        return self

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        for name, limit in self.limits.items():
            if limit.ratio is None and limit.ceiling is None:
                raise ValueError(f"limits.{name}: requires nothing; allowed: ratio or ceiling")
        if not self.metrics and not self.limits and self.per_class is None:
            raise ValueError(
                "metrics, per_class, limits: all are empty; allowed: one check or more"
            )
        return self

    @model_validator(mode="after")
    def _check_significance(self) -> Self:
        shares = {f"metrics.{name}": check.significance for name, check in self.metrics.items()}
        if self.per_class is not None:
            shares["per_class"] = self.per_class.significance
        given = {name: share for name, share in shares.items() if share is not None}
        total = sum(given.values())
        if total > self.significance + _ROUNDING:
            raise ValueError(
                f"significance: {' + '.join(map(str, given.values()))} of {', '.join(given)} is "
                f"{total:g}; allowed: together at most significance, {self.significance:g}"
            )
        return self
