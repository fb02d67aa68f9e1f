"""List the registered versions for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from fieldguide.results.results import Results
from fieldguide.results.revision import Revision
from fieldguide.results.versions import VersionTags


class Release(NamedTuple):
    """One version."""

    version: str
    stages: list[str]
    accuracy: str | None  # on its test set, with the 95 % interval
    date: str  # of the tag, UTC
    commit: str


def list_releases(root: Path) -> list[Release]:
    """Return the versions that were not withdrawn, the newest first.

    Raises:
        GitError: `root` is in no Git repository.
    """
    registry = VersionTags(root)
    held = [(name, e.commit) for name, e in registry.stages().items() if not e.withdraws]
    return [
        Release(
            version=version,
            stages=sorted(name for name, commit in held if commit == event.commit),
            accuracy=_accuracy(Results(Revision(root, version, event.commit))),
            date=datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d"),
            commit=event.commit,
        )
        for version, event in reversed(registry.versions().items())
        if not event.withdraws
    ]


def _accuracy(results: Results) -> str | None:
    """Return test accuracy with its interval; None if the version's results cannot be read."""
    interval = results.interval("test.acc")
    if interval is None:
        return None
    return f"{results.metrics['test.acc']:.1%} ({interval.low:.1%} to {interval.high:.1%})"
