"""Versions and stages of the classifier: annotated Git tags in GTO's notation, which DVC reads too.

`classifier@v1.2.0` registers a version, `classifier#prod#3` assigns a stage to that tag's commit,
`classifier#prod!#4` takes it away (https://github.com/treeverse/gto). In a subfolder `birds/` of
the Git repository the artifact is `birds:classifier`, which GTO writes `birds=classifier` in tags.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fieldguide.core.errors import RevisionError
from fieldguide.results.git import git

if TYPE_CHECKING:
    from scmrepo.git import Git

ARTIFACT = "classifier"  # its name in dvc.yaml


class TagEvent(NamedTuple):
    """What one tag says."""

    tag: str
    commit: str
    time: int  # seconds since 1970, when the tag was made
    counter: int  # 0 without one
    version: str | None
    stage: str | None
    withdraws: bool


class Registry:
    """The registry's tags of one project."""

    def __init__(self, scm: Git, artifact: str) -> None:
        """Keep where tags are read and written.

        Args:
            scm: the Git repository.
            artifact: its name in tags, as `classifier` or `birds:classifier`.
        """
        self.scm, self.artifact = scm, artifact

    def events(self) -> list[TagEvent]:
        """Return what all tags say of the classifier, the oldest first.

        Git's seconds are too coarse for two tags of one script; GTO's counter orders them. Tags
        without an author and a time ("lightweight") do not count, as in GTO and DVC.
        """
        from gto.constants import Action  # noqa: PLC0415 - it takes a second
        from gto.tag import find, parse_name  # noqa: PLC0415

        found = []
        for tag in find(name=self.artifact, scm=self.scm):
            what = parse_name(tag.name)
            if not (what.get("version") or what.get("stage")):
                continue  # `gto deprecate` of the whole artifact
            found.append(
                TagEvent(
                    tag=tag.name,
                    commit=tag.target,
                    time=tag.tag_time,
                    counter=what.get("counter", 0),
                    version=what.get("version"),
                    stage=what.get("stage"),
                    withdraws=what["action"] in (Action.UNASSIGN, Action.DEREGISTER),
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
                f"{name}: withdrawn by the tag {event.tag}; allowed: a version, or a stage that "
                "has one"
            )
        return event.commit


@contextmanager
def open_registry(root: Path) -> Iterator[Registry]:
    """Yield the registry of the project in `root`.

    Raises:
        GitError: `root` is in no Git repository, or Git refuses it.
    """
    from scmrepo.git import Git  # noqa: PLC0415 - it takes half a second

    top = git(root, "rev-parse", "--show-toplevel").rstrip("\n")
    folder = git(root, "rev-parse", "--show-prefix").rstrip("\n/")
    with closing(Git(top)) as scm:
        yield Registry(scm, f"{folder}:{ARTIFACT}" if folder else ARTIFACT)


def find_version(root: Path, name: str) -> str | None:
    """Return the commit of a stage or version of the project; None if no tag has that name.

    Raises:
        RevisionError: it was withdrawn.
    """
    if not git(root, "tag", "--list", f"*{ARTIFACT}[@#]*"):
        return None  # importing GTO takes a second
    with open_registry(root) as registry:
        return registry.find_commit(name)
