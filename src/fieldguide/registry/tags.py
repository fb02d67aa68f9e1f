"""Versions and stages of the classifier: annotated Git tags in GTO's notation, which DVC reads too.

`classifier@v1.2.0` registers a version, `classifier#prod#3` assigns a stage to that tag's commit,
`classifier#prod!#4` takes it away (https://github.com/treeverse/gto).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fieldguide.core.errors import GitError, RegistryError, RevisionError
from fieldguide.results.git import git
from fieldguide.results.revision import ARTIFACT

if TYPE_CHECKING:
    from scmrepo.git import Git

CLOCK = 5  # seconds that another machine's clock may be ahead of ours


class Event(NamedTuple):
    """What one tag says."""

    tag: str
    commit: str
    time: int  # seconds since 1970, when the tag was made
    counter: int  # 0 without one
    version: str | None
    stage: str | None
    withdraws: bool


@contextmanager
def registry(root: Path) -> Iterator[Git]:
    """Yield the repository whose top folder is the project.

    Raises:
        RegistryError: there is none, or the project lies deeper in it.
    """
    from scmrepo.git import Git  # noqa: PLC0415 - it takes half a second

    try:
        top = Path(git(root, "rev-parse", "--show-toplevel").rstrip("\n"))
    except GitError as err:
        raise RegistryError(f"{root.resolve()}: no Git repository, which a registry needs") from err
    if top.resolve() != root.resolve():
        raise RegistryError(f"{root.resolve()}: not the top folder of the project; allowed: {top}")
    with closing(Git(str(root))) as scm:
        yield scm


def events(scm: Git) -> list[Event]:
    """Return what all tags say of the classifier, the oldest first.

    Git's seconds are too coarse for two tags of one script, so that GTO's counter goes on. Tags
    without an author and a time ("lightweight") are none of the registry's, as for GTO and DVC.
    """
    from gto.constants import Action  # noqa: PLC0415 - it takes a second
    from gto.tag import find, parse_name  # noqa: PLC0415

    found = []
    for tag in find(name=ARTIFACT, scm=scm):
        what = parse_name(tag.name)
        if not (what.get("version") or what.get("stage")):
            continue  # `gto deprecate` of the whole
        found.append(
            Event(
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


def versions(scm: Git) -> dict[str, Event]:
    """Return the last word on each version, the oldest first."""
    return {event.version: event for event in events(scm) if event.version}


def stages(scm: Git) -> dict[str, Event]:
    """Return the last word on each stage."""
    return {event.stage: event for event in events(scm) if event.stage}


def find_commit(scm: Git, name: str) -> str | None:
    """Return the commit of a stage or version; None where no tag is of that name.

    The newest assignment of a stage holds.

    Raises:
        RevisionError: the last word was that it is withdrawn.
    """
    event = stages(scm).get(name) or versions(scm).get(name)
    if event is None:
        return None
    if event.withdraws:
        raise RevisionError(
            f"{name}: withdrawn by the tag {event.tag}; allowed: a version, or a stage that has one"
        )
    return event.commit


def register(scm: Git, version: str, *, commit: str, message: str | None) -> str:
    """Tag a commit as a version; return the tag.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    from gto import api  # noqa: PLC0415

    _wait(scm)
    with _explained():
        return str(api.register(scm, ARTIFACT, commit, version=version, message=message).ref)


def assign(scm: Git, stage: str, *, commit: str, message: str | None) -> str:
    """Assign a stage to a version's commit; return the tag.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    from gto import api  # noqa: PLC0415

    _wait(scm)
    with _explained():  # force: back to an older version, which GTO counts as still assigned
        made = api.assign(scm, ARTIFACT, stage, ref=commit, message=message, force=True)
        return str(made.ref)


def unassign(scm: Git, stage: str, *, message: str | None) -> list[str]:
    """Leave a stage without a version; return the tags.

    GTO goes back to the version before; so all that the stage ever had are taken from it.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    from gto import api  # noqa: PLC0415

    had = {event.commit: event for event in events(scm) if event.stage == stage}
    _wait(scm)
    with _explained():
        return [
            str(api.unassign(scm, ARTIFACT, commit, stage=stage, message=message, force=True).ref)
            for commit, event in had.items()
            if not event.withdraws
        ]


def allowed_stages(scm: Git) -> list[str] | None:
    """Return the stages that the file .gto allows; None for any.

    Raises:
        RegistryError: the file holds something else.
    """
    from gto import api  # noqa: PLC0415

    with _explained():
        found = api.get_stages(scm, allowed=True)
    return None if found is None else list(found)


def _wait(scm: Git) -> None:
    # GTO and DVC order by seconds alone: each tag of ours gets a second of its own.
    last = max((event.time for event in events(scm)), default=0)
    behind = last - time.time()
    if behind > CLOCK:
        raise RegistryError(
            f"this machine's clock is {behind:.0f} s behind the registry's last tag, so that a new "
            f"one would count as older; allowed: at most {CLOCK} s; set the clock"
        )
    time.sleep(max(0.0, behind + 1))


@contextmanager
def _explained() -> Iterator[None]:
    from gto.exceptions import GTOException  # noqa: PLC0415
    from scmrepo.exceptions import SCMError  # noqa: PLC0415

    try:
        yield
    except (GTOException, SCMError) as err:
        raise RegistryError(f"the registry's tags: {err}") from err
