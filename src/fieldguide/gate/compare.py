"""Compare two revisions by checks.yaml."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fieldguide.core.errors import GitError, RevisionError
from fieldguide.core.params import load_yaml
from fieldguide.gate.checks import Checks
from fieldguide.gate.judge import judge
from fieldguide.gate.outcome import Outcome
from fieldguide.results.paths import PREPARED
from fieldguide.results.results import Results, need, read_results, refuse_damaged


def compare(
    root: Path,
    against: str,
    *,
    candidate: str,
    checks: Path = Path("checks.yaml"),
    candidate_root: Path | None = None,
) -> Outcome:
    """Judge a candidate against a reference.

    If they cannot be compared, the outcome says why.

    Args:
        root: the project's folder.
        against: the reference: stage, version, Git revision, DVC experiment, or "workspace".
        candidate: a name of the same kinds.
        checks: the file of checks, relative to the project.
        candidate_root: the candidate's project, if it is another folder.

    Raises:
        ParamsError: the file of checks has a mistake.
    """
    required = load_yaml(root / checks, Checks)
    try:
        sides = [_read(against, root), _read(candidate, candidate_root or root)]
        _check_same_test_set(*sides)
        outcome = judge(required, *sides)
        reference = sides[0]
        inside = not checks.is_absolute() and ".." not in checks.parts
        if inside and reference.revision.read(checks.as_posix()) != (root / checks).read_bytes():
            note = f"{checks} is not the same as in {reference.label}: other things are required"
            return replace(outcome, notes=[*outcome.notes, note])
    except (GitError, RevisionError) as err:
        return Outcome(against, candidate, refused=str(err), significance=required.significance)
    return outcome


def _read(name: str, root: Path) -> Results:
    """Return a revision's results.

    Raises:
        RevisionError: there is no such revision, or a result is damaged, changed or stale. A result
            that is absent is no error here.
    """
    results = read_results(name, root)
    refuse_damaged(results.lock, results.model, results.data_metrics, results.train_metrics)
    refuse_damaged(results.test_metrics, results.confusion, results.predictions)
    return results


def _check_same_test_set(reference: Results, candidate: Results) -> None:
    """Compare the names, classes and SHA-256 of the two revisions' test photos.

    Raises:
        RevisionError: they differ, or one side's list of test photos is missing.
    """
    stores = [side.outputs.get(PREPARED) for side in (reference, candidate)]
    if stores[0] is not None and stores[1] is not None and stores[0].md5 == stores[1].md5:
        return
    photos, others = need(reference.test_photos), need(candidate.test_photos)
    changed = {name for name, _ in photos.items() ^ others.items()}
    if not changed:
        return
    raise RevisionError(
        f"the test sets of {reference.label} and {candidate.label} differ in {len(changed):,} "
        f"photos, such as {min(changed)}. Scores on different photos cannot be compared. "
        "Evaluate the older model on the new photos, or first merge the new test set into the "
        "reference."
    )
