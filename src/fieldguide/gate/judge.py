"""Judge every check of checks.yaml."""

from __future__ import annotations

from typing import Any

from fieldguide.core.params import did_you_mean
from fieldguide.gate.checks import Checks, ClassCheck, LimitCheck, MetricCheck
from fieldguide.gate.evidence import SECONDS, Evidence
from fieldguide.gate.outcome import CheckResult, Outcome, Status
from fieldguide.gate.paired import Comparison, holm
from fieldguide.results.numbers import is_number, number, p_value, signed
from fieldguide.results.results import Missing, Results

_ROUNDING = 1e-9  # 0.7 - 0.69 is a little more than 0.01


def judge(checks: Checks, reference: Results, candidate: Results) -> Outcome:
    """Judge every check, for two revisions with the same test photos.

    Raises:
        RevisionError: their predictions are not of the same photos, or a confusion matrix is
            missing.
    """
    evidence = Evidence(reference, candidate, resamples=checks.resamples, seed=checks.seed)
    found = [_judge_metric(name, check, evidence) for name, check in checks.metrics.items()]
    if checks.per_class is not None:
        found += _judge_classes(checks.per_class, evidence)
    found += [_judge_limit(name, limit, evidence) for name, limit in checks.limits.items()]
    notes = []
    for side in (reference, candidate):
        metrics = (side.data_metrics, side.train_metrics, side.test_metrics)
        notes += [str(one) for one in metrics if isinstance(one, Missing)]
        if isinstance(side.predictions, Missing):
            notes.append(f"compared by counts, not photo by photo: {side.predictions}")
    # The photos are the same, but one side may know more groups.
    if grouped := candidate.groups_note or reference.groups_note:
        notes.append(f"{grouped}. The p values are too small: chance fails more than promised")
    return Outcome(
        reference=reference.label,
        candidate=candidate.label,
        checks=found,
        photos=evidence.photos,
        paired=evidence.pair is not None,
        significance=checks.significance,
        notes=notes,
    )


def _judge_metric(name: str, check: MetricCheck, evidence: Evidence) -> CheckResult:
    tolerated = check.tolerated_loss
    found = _numbers(name, evidence, reference_needed=tolerated is not None)
    if isinstance(found, CheckResult):
        return found
    reference, candidate = found
    reasons = _out_of_bounds(name, candidate, floor=check.floor, ceiling=check.ceiling)
    if tolerated is None or reference is None:
        return _result(name, reasons, reference, candidate)
    if check.significance is None:
        loss = reference - candidate if check.direction == "maximize" else candidate - reference
        if loss > tolerated + _ROUNDING:
            reasons.append(_worse(name, reference, candidate, tolerated))
        return _result(name, reasons, reference, candidate, tolerated=tolerated)
    comparison = evidence.metric(name, tolerated=tolerated, level=check.significance)
    if comparison is None:
        status = Status.FAILED if reasons else Status.UNTESTED
        reasons.append(f"{name}: its loss is tested only with the predictions of both sides")
        return _result(name, reasons, reference, candidate, status=status, tolerated=tolerated)
    return _tested(
        name,
        check,
        comparison,
        reasons=reasons,
        detail=evidence.most_lost() if name == "test.acc" else "",
    )


def _judge_classes(check: ClassCheck, evidence: Evidence) -> list[CheckResult]:
    """Judge the recall of each class, all together at one significance."""
    names = evidence.classes()
    level = check.significance / len(names)  # the strictest step of Holm's method
    found = [evidence.recall(name, tolerated=check.tolerated_loss, level=level) for name in names]
    adjusted = holm([one.p for one in found])
    return [
        _tested(
            f"recall.{name}",
            check,
            one._replace(p=p),
            reasons=_out_of_bounds(f"recall.{name}", one.candidate, floor=check.floor),
            detail=evidence.mistaken_for(name),
        )
        for name, one, p in zip(names, found, adjusted, strict=True)
    ]


def _judge_limit(name: str, limit: LimitCheck, evidence: Evidence) -> CheckResult:
    found = _numbers(name, evidence, reference_needed=limit.ratio is not None)
    if isinstance(found, CheckResult):
        return found
    reference, candidate = found
    reasons = _out_of_bounds(name, candidate, ceiling=limit.ceiling)
    if limit.ratio is None or reference is None:
        return _result(name, reasons, reference, candidate)
    if candidate > limit.ratio * reference * (1 + _ROUNDING):
        reasons.append(
            f"{name} rose from {number(reference)} to {number(candidate)}; allowed: "
            f"{limit.ratio:g} times as much"
        )
    return _result(name, reasons, reference, candidate)


def _numbers(
    name: str, evidence: Evidence, *, reference_needed: bool
) -> tuple[float | None, float] | CheckResult:
    """Return the values of both sides, or the check's result if a needed one is not a number.

    If the candidate lost or spoilt the number, that is a regression. If the reference spoilt it, or
    neither side has it, they cannot be compared.
    """
    metrics = evidence.metrics
    reference, candidate = (side.get(name) for side in metrics)
    if is_number(candidate) and (is_number(reference) or not reference_needed):
        return float(reference) if is_number(reference) else None, float(candidate)
    for results in (evidence.candidate, evidence.reference):
        if name == SECONDS and isinstance(results.timing, Missing) and not results.timing.damaged:
            return CheckResult(name, Status.UNTESTED, f"{name}: {results.timing}")
    if not is_number(candidate) and (name in metrics[1] or is_number(reference)):
        complaint = _complaint(name, evidence.candidate.label, metrics[1])
        return CheckResult(name, Status.FAILED, complaint)
    if is_number(candidate) or name in metrics[0]:
        complaint = _complaint(name, evidence.reference.label, metrics[0])
        return CheckResult(name, Status.IMPOSSIBLE, complaint)
    hint = did_you_mean(name, sorted({*metrics[0], *metrics[1]}))
    return CheckResult(name, Status.IMPOSSIBLE, f"{name}: missing on both sides{hint}")


def _complaint(name: str, label: str, metrics: dict[str, Any]) -> str:
    found = f"found {metrics[name]!r}" if name in metrics else "missing"
    return f"{name} of {label}: {found}; allowed: a finite number"


def _out_of_bounds(
    name: str, value: float, *, floor: float | None = None, ceiling: float | None = None
) -> list[str]:
    """Return the reasons why a value fails by itself."""
    reasons = []
    if floor is not None and value < floor:
        reasons.append(f"{name} is {number(value)}; allowed: {number(floor)} or more")
    if ceiling is not None and value > ceiling:
        reasons.append(f"{name} is {number(value)}; allowed: {number(ceiling)} or less")
    return reasons


def _result(
    name: str,
    reasons: list[str],
    reference: float | None,
    candidate: float,
    *,
    status: Status | None = None,
    tolerated: float | None = None,
) -> CheckResult:
    """Return the result of a check without a test; by default it fails if there are reasons."""
    return CheckResult(
        name,
        status or (Status.FAILED if reasons else Status.PASSED),
        "; ".join(reasons),
        reference=reference,
        candidate=candidate,
        change=None if reference is None else candidate - reference,
        tolerated_loss=tolerated,
    )


def _tested(
    name: str,
    check: MetricCheck | ClassCheck,
    comparison: Comparison,
    *,
    reasons: list[str],
    detail: str,
) -> CheckResult:
    """Return the result of a check whose loss was tested.

    It fails for the given reasons, or by its p value; then the detail is added.
    """
    assert check.tolerated_loss is not None
    assert check.significance is not None
    reference, candidate, low, high, confidence, p, _ = comparison
    if p <= check.significance:  # the smallest p of so many resamples may be equal to it
        interval = f"{100 * confidence:.3g} % interval {signed(low)} to {signed(high)}"
        chance = f" ({interval}, p {p_value(p)})"
        reason = _worse(name, reference, candidate, check.tolerated_loss, chance)
        reasons = [*reasons, f"{reason}; {detail}" if detail else reason]
    return CheckResult(
        name,
        Status.FAILED if reasons else Status.PASSED,
        "; ".join(reasons),
        change=candidate - reference,
        significance=check.significance,
        tolerated_loss=check.tolerated_loss,
        **comparison._asdict(),
    )


def _worse(
    name: str, reference: float, candidate: float, tolerated: float, chance: str = ""
) -> str:
    """Say how much worse a value is."""
    verb = "fell" if candidate < reference else "rose"
    change = signed(candidate - reference, same_scale_as=candidate)
    return (
        f"{name} {verb} from {number(reference)} to {number(candidate)}: {change}{chance}; "
        f"tolerated: {number(tolerated)}"
    )
