"""What the gate found, ready to be shown or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Of one check."""

    PASSED = "passed"
    FAILED = "failed"
    UNTESTED = "not tested"  # for want of predictions; said, and no reason to fail
    IMPOSSIBLE = "not comparable"


class Verdict(StrEnum):
    """Of the gate."""

    PASSED = "passed"
    REGRESSION = "regression"
    NOT_COMPARED = "not compared"


EXIT_STATUS = {Verdict.PASSED: 0, Verdict.REGRESSION: 1, Verdict.NOT_COMPARED: 2}


@dataclass(frozen=True)
class Finding:
    """Of one check. Differences are candidate − reference, in the metric's own unit."""

    name: str
    status: Status
    reason: str = ""  # of all but passed: what got worse and by how much, or what is missing
    reference: float | None = None
    candidate: float | None = None
    change: float | None = None
    low: float | None = None  # interval of the change, at `confidence`
    high: float | None = None
    confidence: float | None = None
    p: float | None = None  # adjusted for the number of classes
    significance: float | None = None
    tolerated_loss: float | None = None
    method: str = ""


@dataclass(frozen=True)
class Outcome:
    """Of one comparison."""

    reference: str
    candidate: str
    findings: Sequence[Finding] = ()
    photos: int | None = None  # of the test set
    paired: bool = False  # photo by photo, or by counts
    significance: float | None = None
    notes: Sequence[str] = ()
    refused: str = ""  # why nothing was compared

    def of(self, status: Status) -> list[Finding]:
        """Return the findings of one status."""
        return [finding for finding in self.findings if finding.status is status]

    @property
    def verdict(self) -> Verdict:
        """A regression that was found stays one, whatever else could not be compared."""
        if self.of(Status.FAILED):
            return Verdict.REGRESSION
        if self.refused or self.of(Status.IMPOSSIBLE):
            return Verdict.NOT_COMPARED
        return Verdict.PASSED

    @property
    def exit_status(self) -> int:
        """0 passed, 1 regression, 2 not compared."""
        return EXIT_STATUS[self.verdict]
