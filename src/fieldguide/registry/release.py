"""Release a commit's classifier: everything is checked before anything is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import RegistryError
from fieldguide.core.files import write_text
from fieldguide.registry import tags
from fieldguide.registry.model_card import CARD, write_card
from fieldguide.remotes.verify import verify
from fieldguide.results.dvc import Scope, dvc
from fieldguide.results.git import git, subfolder_of
from fieldguide.results.paths import MODEL
from fieldguide.results.results import Results
from fieldguide.results.revision import Revision
from fieldguide.results.versions import VersionTags

_SHOWN = 5  # names in a message


@dataclass
class Done:
    """What a command has changed, for a person to read."""

    commit: str
    card: str | None = None  # its text, if nothing was to be written
    committed: bool = False  # the card
    tags: list[str] = field(default_factory=list)  # made now
    pushed_to: str | None = None  # name of a Git remote


def release(
    root: Path,
    version: str,
    *,
    stage: str | None = None,
    message: str | None = None,
    push: bool = False,
    dry_run: bool = False,
) -> Done:
    """Register the committed classifier as a version, with its model card.

    The card is committed, and that commit is tagged. The same call finishes a release that was
    killed: a card, tag or stage that is there already is left as it is.

    Args:
        root: the project's folder, in a Git repository.
        version: v1.2.0, after https://semver.org.
        stage: to assign it to.
        message: of the tags; by default GTO's own.
        push: commit and tags to the Git remote, all of them or none.
        dry_run: check, and return the card; write nothing.

    Raises:
        RegistryError: it cannot be released; the message says what to do.
        RevisionError: a result is missing.
        RemoteError: the DVC remote cannot be asked.
        GitError, DvcError: Git or DVC refuses.
    """
    registry = VersionTags(root)
    tags.check_names(registry, version=version, stage=stage)
    upstream = _fetch(root, with_branch=True) if push else None
    head = Revision(root, "HEAD", git(root, "rev-parse", "HEAD").strip())
    done = Done(str(head.rev))
    registered = _is_registered(registry, version, done.commit)
    _check_clean(root)
    card = _card(head, version, registry.artifact)
    _check_reproduced(root)
    _check_pushed(head)
    if dry_run:
        done.card = card
        return done
    if not registered:
        if head.read(CARD) != card.encode():
            done.commit, done.committed = _commit_card(root, card, version), True
        done.tags.append(tags.register(registry, version, commit=done.commit, message=message))
    if stage is not None and not _holds(registry, stage, done.commit):
        done.tags.append(tags.assign(registry, stage, commit=done.commit, message=message))
    if upstream is not None:
        wanted = [registry.versions()[version].tag]
        wanted += [registry.stages()[stage].tag] if stage is not None else []
        done.pushed_to = _push(root, upstream, wanted, with_branch=True)
    return done


def assign(
    root: Path, version: str, stage: str, *, message: str | None = None, push: bool = False
) -> Done:
    """Assign a stage to a version, which may be an older one.

    Args:
        root: as in `release`.
        version: that is registered, and whose classifier lies on the DVC remote.
        stage: prod, or another that the file .gto allows.
        message: of the tag; by default GTO's own.
        push: the tag to the Git remote.

    Raises:
        RegistryError: there is no such version or stage, or its classifier is not on the remote.
        RevisionError: the version was withdrawn.
        RemoteError: the DVC remote cannot be asked.
        GitError: Git refuses.
    """
    registry = VersionTags(root)
    tags.check_names(registry, version=version, stage=stage)
    upstream = _fetch(root) if push else None
    if version not in registry.versions():
        known = ", ".join(registry.versions()) or "none yet"
        raise RegistryError(f"{version}: not registered; allowed: {known}")
    commit = registry.find_commit(version)
    assert commit is not None
    _check_pushed(Revision(root, version, commit))
    done = Done(commit)
    if not _holds(registry, stage, commit):
        done.tags.append(tags.assign(registry, stage, commit=commit, message=message))
    if upstream is not None:
        # The version too: it may have been registered without a push.
        wanted = [registry.versions()[version].tag, registry.stages()[stage].tag]
        done.pushed_to = _push(root, upstream, wanted)
    return done


def unassign(root: Path, stage: str, *, message: str | None = None, push: bool = False) -> Done:
    """Leave a stage without a version, so that asking for it is refused.

    Args:
        root: as in `release`.
        stage: prod.
        message: of the tags; by default GTO's own.
        push: the tags to the Git remote.

    Raises:
        RegistryError: no version was ever assigned to it.
        GitError: Git refuses.
    """
    registry = VersionTags(root)
    upstream = _fetch(root) if push else None
    last = registry.stages().get(stage)
    if last is None:
        raise RegistryError(
            f"{stage}: no version was ever assigned to it; allowed: "
            f"{', '.join(registry.stages()) or 'none yet'}"
        )
    done = Done(last.commit, tags=tags.unassign(registry, stage, message=message))
    if upstream is not None:
        gone = [event for event in registry.events() if event.stage == stage and event.withdraws]
        done.pushed_to = _push(root, upstream, [event.tag for event in gone])
    return done


def _is_registered(registry: VersionTags, version: str, commit: str) -> bool:
    """Tell whether the commit is this version already; refuse the version of another commit."""
    event = registry.versions().get(version)
    if event is None:
        return False
    if event.withdraws:
        raise RegistryError(f"{version}: withdrawn by the tag {event.tag}; choose another version")
    if event.commit != commit:
        raise RegistryError(
            f"{version}: released already, as commit {event.commit[:7]}, and this is {commit[:7]}; "
            "choose another version"
        )
    return True


def _holds(registry: VersionTags, stage: str, commit: str) -> bool:
    last = registry.stages().get(stage)
    return last is not None and not last.withdraws and last.commit == commit


def _check_clean(root: Path) -> None:
    """Refuse changes that are not committed, in the project's folder; `_card` looks at the card."""
    options = ("--porcelain", "-z", "--untracked-files=all", "--no-renames")
    entries = git(root, "status", *options, "--", ".").split("\0")
    folder = subfolder_of(root)
    paths = [entry[3:].removeprefix(folder) for entry in entries if entry]
    names = [path for path in paths if path != CARD]
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise RegistryError(
            f"{', '.join(names[:_SHOWN])}{more}: changed or new, and not committed; commit or "
            "stash first, because a release is a commit"
        )


def _card(head: Revision, version: str, artifact: str) -> str:
    """Return the card; a file that was changed by hand and not committed is an error."""
    committed, path = head.read(CARD), head.root / CARD
    before = None if committed is None else committed.decode(errors="replace")
    card = write_card(Results(head), version, before=before, artifact=artifact)
    if path.exists() and path.read_bytes() not in (committed, card.encode()):
        raise RegistryError(
            f"{CARD}: changed by hand and not committed; commit it (the words between its two "
            "comments are kept), or delete it"
        )
    return card


def _check_reproduced(root: Path) -> None:
    if changed := json.loads(dvc(root, "status", "--json", "dvc.yaml")):
        raise RegistryError(
            f"{', '.join(sorted(changed))}: not as dvc.lock says; run `dvc repro` and commit, or "
            "run `dvc pull` if files are only missing"
        )


def _check_pushed(revision: Revision) -> None:
    """Ask the remote itself for the classifier, because DVC's index may be out of date."""
    scope = Scope({str(revision.rev): revision.name})
    report = verify(revision.root, scope, only=(MODEL,))
    if not report.outputs:
        why = ", ".join(report.left_out) or "DVC does not cache it"
        raise RegistryError(
            f"{MODEL} of {revision.label}: not on the DVC remote ({why}); let `dvc push` upload it"
        )
    if not report.complete:
        uses = [f"{use.path} ({one.state})" for one in report.findings for use in one.uses]
        raise RegistryError(
            f"{', '.join(uses)}: not on the DVC remote as {revision.label} names it; run "
            "`dvc push` or `fieldguide remote verify --repair` first"
        )


def _commit_card(root: Path, card: str, version: str) -> str:
    if not git(root, "branch", "--show-current"):
        raise RegistryError(
            "HEAD: no branch is checked out to commit the card on; run `git switch main` first"
        )
    write_text(root / CARD, card)
    git(root, "add", "--", CARD)
    git(root, "commit", "--quiet", "--message", f"Release {version}", "--only", "--", CARD)
    return git(root, "rev-parse", "HEAD").strip()


class _Upstream(NamedTuple):
    remote: str
    branch: str | None  # refs/heads/main there; None if no branch is checked out


def _fetch(root: Path, *, with_branch: bool = False) -> _Upstream:
    """Fetch from the Git remote, so that versions and the counter of stages go on from its tags.

    Args:
        root: the project's folder.
        with_branch: refuse a branch that lacks a commit of the remote, because its push would fail.
    """
    here = git(root, "branch", "--show-current").strip()
    fields = "--format=%(upstream:remotename) %(upstream:remoteref)"
    tracked = git(root, "for-each-ref", fields, f"refs/heads/{here}").split() if here else []
    remote, there = tracked or ("origin", f"refs/heads/{here}")
    if remote not in git(root, "remote").split():
        raise RegistryError(
            f"--push: no Git remote {remote}; run `git remote add {remote} URL` first"
        )
    git(root, "fetch", "--quiet", "--tags", remote)
    copy = f"refs/remotes/{remote}/{there.removeprefix('refs/heads/')}"
    if with_branch and here and git(root, "for-each-ref", copy):
        behind = git(root, "rev-list", "--count", f"HEAD..{copy}").strip()
        if behind != "0":
            raise RegistryError(
                f"--push: {remote} has {behind} commits that {here} lacks; run `git pull` first"
            )
    return _Upstream(remote, there if here else None)


def _push(root: Path, to: _Upstream, names: list[str], *, with_branch: bool = False) -> str:
    refs = [f"refs/tags/{name}" for name in names]
    if with_branch and to.branch is not None:
        refs.append(f"HEAD:{to.branch}")
    git(root, "push", "--quiet", "--atomic", to.remote, *refs)
    return to.remote
