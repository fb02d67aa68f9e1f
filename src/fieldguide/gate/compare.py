"""Compare two revisions by checks.yaml."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fieldguide.core.errors import RevisionError
from fieldguide.gate.checks import load_checks
from fieldguide.gate.findings import Outcome
from fieldguide.gate.judge import judge
from fieldguide.gate.sides import check_same_test_set, read_side
from fieldguide.results.revision import find_revision


def compare(
    root: Path, against: str, *, candidate: str, checks: Path = Path("checks.yaml")
) -> Outcome:
    """Judge a candidate against a reference; what cannot be compared is refused in the outcome.

    Args:
        root: the project.
        against: the reference: a registry stage or version, Git revision or DVC experiment.
        candidate: likewise, or "workspace".
        checks: what to ask, relative to the project.

    Raises:
        ParamsError: checks are no good.
    """
    asked = load_checks(root / checks)
    try:
        reference, new = (find_revision(name, root) for name in (against, candidate))
        sides = read_side(reference), read_side(new)
        check_same_test_set(reference, new)
        outcome = judge(asked, *sides)
    except RevisionError as err:
        return Outcome(against, candidate, refused=str(err), significance=asked.significance)
    if checks.is_absolute() or ".." in checks.parts:  # no file of the reference
        return outcome
    if reference.read(checks.as_posix()) == (root / checks).read_bytes():
        return outcome
    note = f"{checks} is not that of {reference.label}: what is asked changed too, or is new"
    return replace(outcome, notes=[*outcome.notes, note])
