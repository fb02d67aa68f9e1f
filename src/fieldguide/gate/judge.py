"""Judge every check of checks.yaml."""

from __future__ import annotations

from fieldguide.core.params import did_you_mean
from fieldguide.gate.checks import Checks, LimitCheck, MetricCheck
from fieldguide.gate.classes import judge_classes
from fieldguide.gate.evidence import Evidence
from fieldguide.gate.findings import Finding, Outcome, Status
from fieldguide.gate.paired import Draw
from fieldguide.gate.sides import Side
from fieldguide.gate.values import is_number, number
from fieldguide.gate.wording import (
    compared_finding,
    out_of_bounds,
    plain_finding,
    worse,
)

_SIGN = {"maximize": 1, "minimize": -1}  # of the loss, reference − candidate
_ROUNDING = 1e-9  # 0.7 - 0.69 is a little more than 0.01


def judge(checks: Checks, reference: Side, candidate: Side) -> Outcome:
    """Judge every check, of two sides that were tested on the same photos.

    Raises:
        RevisionError: their predictions are of other photos.
    """
    evidence = Evidence(reference, candidate, Draw(checks.resamples, checks.seed))
    findings: list[Finding] = []
    for name, metric in checks.metrics.items():
        needed = metric.tolerated_loss is not None
        unusable = _unusable(name, reference, candidate, reference_needed=needed)
        findings.append(unusable or _judge_metric(name, metric, evidence))
    if checks.per_class is not None:
        findings += judge_classes(checks.per_class, evidence)
    for name, limit in checks.limits.items():
        needed = limit.ratio is not None
        unusable = _unusable(name, reference, candidate, reference_needed=needed)
        findings.append(unusable or _judge_limit(name, limit, evidence))
    # Counted where they can be.
    photos = (
        candidate.metrics.get("test.photos")
        if candidate.predictions is None
        else len(candidate.predictions.labels)
    )
    return Outcome(
        reference=reference.revision.label,
        candidate=candidate.revision.label,
        findings=findings,
        photos=int(photos) if is_number(photos) else None,
        paired=evidence.pair is not None,
        significance=checks.significance,
        notes=[
            f"by counts, not photo by photo: {side.missing}"
            for side in (reference, candidate)
            if side.predictions is None
        ],
    )


def _unusable(name: str, old: Side, new: Side, *, reference_needed: bool) -> Finding | None:
    """Say what is wrong with a value that is no number; None where nothing is.

    What the candidate lost or spoilt is its regression. What the reference spoilt, or both lack,
    cannot be compared.
    """
    before, now = old.metrics.get(name), new.metrics.get(name)
    if is_number(now):
        if is_number(before) or not reference_needed:
            return None
        return Finding(name, Status.IMPOSSIBLE, _complaint(name, old))
    if name in new.metrics or is_number(before):
        return Finding(name, Status.FAILED, _complaint(name, new))
    if name in old.metrics:
        return Finding(name, Status.IMPOSSIBLE, _complaint(name, old))
    hint = did_you_mean(name, sorted({*old.metrics, *new.metrics}))
    return Finding(name, Status.IMPOSSIBLE, f"{name}: missing on both sides{hint}")


def _complaint(name: str, side: Side) -> str:
    found = f"found {side.metrics[name]!r}" if name in side.metrics else "missing"
    return f"{name} of {side.revision.label}: {found}; allowed: a finite number"


def _judge_metric(name: str, check: MetricCheck, evidence: Evidence) -> Finding:
    before, now = _numbers(name, evidence)
    tolerated, sign = check.tolerated_loss, _SIGN[check.direction]
    reasons = out_of_bounds(name, now, floor=check.floor, ceiling=check.ceiling)
    if tolerated is None or before is None:
        return plain_finding(name, reasons, before=before, now=now)
    if check.significance is None:
        if sign * (before - now) > tolerated + _ROUNDING:
            reasons.append(worse(name, before, now, tolerated=tolerated))
        return plain_finding(name, reasons, before=before, now=now, tolerated=tolerated)
    tested = evidence.metric(name, tolerated=tolerated, level=check.significance)
    if tested is None:
        status = Status.FAILED if reasons else Status.UNTESTED
        reasons.append(f"{name}: its loss needs the predictions of both sides")
        return plain_finding(
            name, reasons, before=before, now=now, tolerated=tolerated, status=status
        )
    return compared_finding(
        name,
        tested,
        reasons=reasons,
        sign=sign,
        tolerated=tolerated,
        level=check.significance,
        p=tested.comparison.p,
        significance=check.significance,
        aside=evidence.most_lost() if name == "test.acc" else "",
    )


def _judge_limit(name: str, limit: LimitCheck, evidence: Evidence) -> Finding:
    before, now = _numbers(name, evidence)
    reasons = out_of_bounds(name, now, floor=None, ceiling=limit.ceiling)
    if limit.ratio is None or before is None:
        return plain_finding(name, reasons, before=before, now=now)
    if before <= 0:
        reason = f"{name} of {evidence.old.revision.label}: found {before:g}; allowed: above 0"
        return plain_finding(name, [reason], before=before, now=now, status=Status.IMPOSSIBLE)
    if now > limit.ratio * before * (1 + _ROUNDING):
        reasons.append(
            f"{name} rose from {number(before)} to {number(now)}, {now / before:.2f} times as "
            f"much; allowed: {limit.ratio:g} times"
        )
    return plain_finding(name, reasons, before=before, now=now)


def _numbers(name: str, evidence: Evidence) -> tuple[float | None, float]:
    before, now = evidence.old.metrics.get(name), evidence.new.metrics[name]
    return float(before) if is_number(before) else None, float(now)
