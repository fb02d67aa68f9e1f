"""The outcome of a comparison: the result of each check, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How one check ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNTESTED = "not tested"  # it needs predictions or a time that are missing; shown, never fails
    IMPOSSIBLE = "not comparable"


VERDICTS = ("passed", "regression", "not compared")  # by exit status


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. Differences are candidate − reference, in the metric's own unit."""

    name: str
    status: Status
    reason: str = ""  # what got worse and by how much, or what is missing; empty if it passed
    reference: float | None = None
    candidate: float | None = None
    change: float | None = None
    low: float | None = None  # interval of the change, at `confidence`
    high: float | None = None
    confidence: float | None = None
    p: float | None = None  # of a recall: adjusted for the number of classes
    significance: float | None = None
    tolerated_loss: float | None = None
    method: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one comparison."""

    reference: str
    candidate: str
    checks: Sequence[CheckResult] = ()
    photos: int | None = None  # of the test set
    paired: bool = False  # True: photo by photo; False: by counts
    significance: float | None = None
    notes: Sequence[str] = ()
    refused: str = ""  # why nothing was compared

    def of(self, status: Status) -> list[CheckResult]:
        """Return the results with one status."""
        return [one for one in self.checks if one.status is status]

    @property
    def exit_status(self) -> int:
        """0: passed; 1: a regression, whatever else could not be compared; 2: not compared."""
        if self.of(Status.FAILED):
            return 1
        return 2 if self.refused or self.of(Status.IMPOSSIBLE) else 0
