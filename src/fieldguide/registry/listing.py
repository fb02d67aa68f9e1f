"""What is registered, for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fieldguide.core.errors import RevisionError
from fieldguide.registry import tags
from fieldguide.results.revision import Revision


class Row(NamedTuple):
    """One version."""

    version: str
    stages: list[str]
    accuracy: str | None  # on its test set, with the 95 % interval
    date: str  # of the tag, UTC
    commit: str


def list_releases(root: Path) -> list[Row]:
    """Return the versions that were not withdrawn, the newest first.

    Raises:
        RegistryError: this is no Git repository.
    """
    with tags.registry(root) as scm:
        held = [(name, e.commit) for name, e in tags.stages(scm).items() if not e.withdraws]
        return [
            Row(
                version=version,
                stages=sorted(name for name, commit in held if commit == event.commit),
                accuracy=_accuracy(Revision(root, version, event.commit)),
                date=datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d"),
                commit=event.commit,
            )
            for version, event in reversed(tags.versions(scm).items())
            if not event.withdraws
        ]


def _accuracy(revision: Revision) -> str | None:
    try:
        test: Any = (revision.read_json("metrics/test.json") or {})["test"]
        low, high = 100 * test["acc_low"], 100 * test["acc_high"]
        return f"{100 * test['acc']:.1f} % ({low:.1f} to {high:.1f})"
    except (RevisionError, KeyError, TypeError):
        return None  # tagged by other means
