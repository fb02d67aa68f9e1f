"""Judge the recall of every class."""

from __future__ import annotations

from collections.abc import Iterator

from fieldguide.gate.checks import ClassCheck
from fieldguide.gate.evidence import Evidence, class_count
from fieldguide.gate.findings import Finding, Status
from fieldguide.gate.paired import holm
from fieldguide.gate.sides import PER_CLASS, Side
from fieldguide.gate.wording import compared_finding, out_of_bounds


def judge_classes(check: ClassCheck, evidence: Evidence) -> Iterator[Finding]:
    """Recall of each class, all together at one significance."""
    names = evidence.classes()
    if evidence.pair is None:
        yield from _lost_classes(evidence, names)
    if not names:
        return
    level = check.significance / len(names)  # the strictest step of Holm's
    tested = [evidence.recall(name, tolerated=check.tolerated_loss, level=level) for name in names]
    found = [(name, one) for name, one in zip(names, tested, strict=True) if one is not None]
    adjusted = holm([one.comparison.p for _, one in found])
    for (name, one), p in zip(found, adjusted, strict=True):
        yield compared_finding(
            f"recall.{name}",
            one,
            reasons=out_of_bounds(f"recall.{name}", one.candidate, floor=check.floor, ceiling=None),
            sign=1,
            tolerated=check.tolerated_loss,
            level=level,
            p=p,
            significance=check.significance,
            aside=evidence.confusion(name),
        )


def _lost_classes(evidence: Evidence, usable: list[str]) -> Iterator[Finding]:
    """Of sides known by counts only: classes without numbers, unless they have no test photo."""
    old, new = evidence.old, evidence.new
    if not old.per_class:
        reason = f"{PER_CLASS} of {old.revision.label}: missing; run `dvc repro`"
        yield Finding("recall", Status.IMPOSSIBLE, reason)
    for name in sorted(old.per_class.keys() - set(usable)):
        for side, status in ((new, Status.FAILED), (old, Status.IMPOSSIBLE)):
            if class_count(side, name) is None and not _is_empty(side, name):
                found = side.per_class.get(name, "missing")
                reason = f"found {found}; allowed: recall and photos, as numbers"
                yield Finding(
                    f"recall.{name}", status, f"recall.{name} of {side.revision.label}: {reason}"
                )
                break


def _is_empty(side: Side, name: str) -> bool:
    found = side.per_class.get(name)
    return isinstance(found, dict) and found.get("photos") == 0
