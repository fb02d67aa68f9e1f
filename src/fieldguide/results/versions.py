"""Versions and stages of the classifier: annotated Git tags in GTO's notation, which DVC reads too.

`classifier@v1.2.0` registers a version, `classifier#prod#3` assigns a stage to that tag's commit,
and `classifier#prod!#4` withdraws the assignment (https://github.com/treeverse/gto). If the project
lies in the subfolder `birds/` of the Git repository, its artifact is `birds:classifier`, and its
tags begin with `birds=classifier`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import RevisionError
from fieldguide.results.git import git, subfolder_of, top_of

ARTIFACT = "classifier"  # its name in dvc.yaml
_FORMAT = "%(objecttype) %(*objectname) %(taggerdate:unix) %(refname:strip=2)"


class TagEvent(NamedTuple):
    """What one tag says."""

    tag: str
    commit: str
    time: int  # seconds since 1970, when the tag was made
    counter: int  # 0 without one
    version: str | None
    stage: str | None
    withdraws: bool


class VersionTags:
    """The Git tags of one project that register versions and assign stages."""

    def __init__(self, root: Path) -> None:
        """Find the Git repository of the project.

        Raises:
            GitError: `root` is in no Git repository, or Git refuses it.
        """
        folder = subfolder_of(root).rstrip("/")
        self.top = top_of(root)
        self.artifact = f"{folder}:{ARTIFACT}" if folder else ARTIFACT

    def events(self) -> list[TagEvent]:
        """Return what all tags say of the classifier, the oldest first.

        Git's seconds are too coarse for two tags of one script; GTO's counter orders them. Tags
        without an author and a time ("lightweight") do not count, as in GTO and DVC.
        """
        name = re.escape(self.artifact.replace(":", "="))
        pattern = re.compile(
            rf"{name}(?:@(?P<version>v\d[^!#]*)|#(?P<stage>[^!#]+))(?P<end>!?)(?:#(?P<counter>\d+))?"
        )
        found = []
        for line in git(self.top, "for-each-ref", f"--format={_FORMAT}", "refs/tags").splitlines():
            kind, commit, time, tag = line.split(" ", 3)
            match = pattern.fullmatch(tag)
            if kind == "tag" and match is not None:
                counter = int(match["counter"] or 0)
                withdraws = bool(match["end"])
                found.append(
                    TagEvent(
                        tag, commit, int(time), counter, match["version"], match["stage"], withdraws
                    )
                )
        return sorted(found, key=lambda event: (event.time, event.counter))

    def versions(self) -> dict[str, TagEvent]:
        """Return the last event of each version, the oldest first."""
        return {event.version: event for event in self.events() if event.version}

    def stages(self) -> dict[str, TagEvent]:
        """Return the last event of each stage: the newest assignment holds."""
        return {event.stage: event for event in self.events() if event.stage}

    def find_commit(self, name: str) -> str | None:
        """Return the commit of a stage or version; None if no tag has that name.

        Raises:
            RevisionError: the last tag withdraws it.
        """
        event = self.stages().get(name) or self.versions().get(name)
        if event is None:
            return None
        if event.withdraws:
            raise RevisionError(
                f"{name}: withdrawn by the tag {event.tag}; name a version, or a stage that has one"
            )
        return event.commit
