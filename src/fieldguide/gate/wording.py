"""Words and numbers of single findings."""

from __future__ import annotations

from typing import Any

from fieldguide.gate.evidence import Tested
from fieldguide.gate.findings import Finding, Status
from fieldguide.gate.values import number, p_value, signed


def out_of_bounds(
    name: str, value: float, *, floor: float | None, ceiling: float | None
) -> list[str]:
    """Complain of a value beyond its absolute bounds."""
    reasons = []
    if floor is not None and value < floor:
        reasons.append(f"{name} is {number(value)}; allowed: {number(floor)} or more")
    if ceiling is not None and value > ceiling:
        reasons.append(f"{name} is {number(value)}; allowed: {number(ceiling)} or less")
    return reasons


def plain_finding(
    name: str,
    reasons: list[str],
    *,
    before: float | None,
    now: float,
    tolerated: float | None = None,
    status: Status | None = None,
) -> Finding:
    """Of two numbers alone; it fails if there are reasons."""
    return Finding(
        name,
        status or (Status.FAILED if reasons else Status.PASSED),
        "; ".join(reasons),
        reference=before,
        candidate=now,
        change=None if before is None else now - before,
        tolerated_loss=tolerated,
    )


def compared_finding(
    name: str,
    tested: Tested,
    *,
    reasons: list[str],
    sign: int,
    tolerated: float,
    level: float,
    p: float,
    significance: float,
    aside: str = "",
) -> Finding:
    """Of two numbers and their comparison; it fails for the given reasons, or by p.

    Args:
        name: of the check.
        tested: the numbers.
        reasons: to fail, found before.
        sign: 1 where a lower value is worse, -1 where a higher one is.
        tolerated: loss.
        level: significance of the interval's each side.
        p: in [0, 1], adjusted where there are several classes.
        significance: up to which p fails.
        aside: what else to say of a failure.
    """
    before, now, comparison = tested
    low, high = sorted((0.0 - sign * comparison.low, 0.0 - sign * comparison.high))  # no -0.0
    numbers: dict[str, Any] = {
        "reference": before,
        "candidate": now,
        "change": now - before,
        "low": low,
        "high": high,
        "confidence": 1 - 2 * level,
        "p": p,
        "significance": significance,
        "tolerated_loss": tolerated,
        "method": comparison.method,
    }
    if p <= significance:  # the smallest p of so many resamples may just reach it
        percent = 100 * (1 - 2 * level)
        chance = f" ({percent:.3g} % interval {signed(low)} to {signed(high)}, p {p_value(p)})"
        reason = worse(name, before, now, tolerated=tolerated, chance=chance)
        reasons = [*reasons, f"{reason}; {aside}" if aside else reason]
    status = Status.FAILED if reasons else Status.PASSED
    return Finding(name, status, "; ".join(reasons), **numbers)


def worse(name: str, before: float, now: float, *, tolerated: float, chance: str = "") -> str:
    """Say what got worse, and by how much."""
    verb = "fell" if now < before else "rose"
    change = signed(now - before, beside=now)
    return (
        f"{name} {verb} from {number(before)} to {number(now)}: {change}{chance}; "
        f"tolerated: {number(tolerated)}"
    )
