"""Releasing a commit's classifier: everything is checked before anything is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fieldguide.core.errors import GitError, RegistryError
from fieldguide.core.files import write_text
from fieldguide.registry import tags
from fieldguide.registry.card import CARD, write_card
from fieldguide.registry.pushed import check_pushed
from fieldguide.results.git import git
from fieldguide.results.results import Results
from fieldguide.results.revision import WORKSPACE, Revision
from fieldguide.results.versions import Registry, open_registry

SHOWN = 5  # names in a message


@dataclass
class Done:
    """What a command has changed, for a person to read."""

    commit: str
    card: str | None = None  # its text, where nothing was to be written
    committed: bool = False  # the card
    tags: list[str] = field(default_factory=list)  # made now
    pushed_to: str | None = None  # a Git remote


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

    The card is committed, and that commit tagged. A release that was killed is finished by the same
    call: what is there already, card, tag or stage, is left as it is.

    Args:
        root: the project's folder, in a Git repository.
        version: v1.2.0, after https://semver.org.
        stage: to assign it to.
        message: of the tags; else GTO's own.
        push: commit and tags to the Git remote, all of them or none.
        dry_run: check, and return the card; nothing is written.

    Raises:
        RegistryError: it cannot be released; the message says what to do.
        RevisionError: a result is missing.
        GitError: Git refuses.
    """
    check_version(version)
    with open_registry(root) as registry:
        check_stage(registry, stage)
        upstream = _fetched(root, branch=True) if push else None
        commit = git(root, "rev-parse", "HEAD").strip()
        registered = _check_free(registry, version, commit)
        head = Revision(root, "HEAD", commit)
        _check_clean(root)
        card = _card(head, version, registry.artifact)
        _check_reproduced(root)
        check_pushed(head)
        done = Done(commit)
        if dry_run:
            done.card = card
            return done
        if not registered:
            if head.read(CARD) != card.encode():
                done.commit, done.committed = _commit_card(root, card, version), True
            made = tags.register(registry, version, commit=done.commit, message=message)
            done.tags.append(made)
        if stage is not None and not _holds(registry, stage, done.commit):
            done.tags.append(tags.assign(registry, stage, commit=done.commit, message=message))
        if upstream is not None:
            wanted = [registry.versions()[version].tag]
            wanted += [registry.stages()[stage].tag] if stage is not None else []
            done.pushed_to = _push(root, upstream, wanted, branch=True)
    return done


def assign(
    root: Path, version: str, stage: str, *, message: str | None = None, push: bool = False
) -> Done:
    """Assign a stage to a version, an older one too; the assignment before is history.

    Args:
        root: as in `release`.
        version: that is registered, and whose classifier lies on the DVC remote.
        stage: prod, or another that the file .gto allows.
        message: of the tag; else GTO's own.
        push: the tag to the Git remote.

    Raises:
        RegistryError: there is no such version or stage, or its classifier is not on the remote.
        RevisionError: the version was withdrawn.
        GitError: Git refuses.
    """
    check_version(version)
    with open_registry(root) as registry:
        check_stage(registry, stage)
        upstream = _fetched(root) if push else None
        if version not in registry.versions():
            known = ", ".join(registry.versions()) or "none yet"
            raise RegistryError(f"{version}: not registered; allowed: {known}")
        commit = registry.find_commit(version)
        assert commit is not None
        check_pushed(Revision(root, version, commit))
        done = Done(commit)
        if not _holds(registry, stage, commit):
            done.tags.append(tags.assign(registry, stage, commit=commit, message=message))
        if upstream is not None:
            # The version, too: it may have been registered without a push.
            wanted = [registry.versions()[version].tag, registry.stages()[stage].tag]
            done.pushed_to = _push(root, upstream, wanted)
    return done


def unassign(root: Path, stage: str, *, message: str | None = None, push: bool = False) -> Done:
    """Leave a stage without a version, so that asking for it is refused.

    Args:
        root: as in `release`.
        stage: prod.
        message: of the tags; else GTO's own.
        push: the tags to the Git remote.

    Raises:
        RegistryError: nothing is assigned to it.
        GitError: Git refuses.
    """
    with open_registry(root) as registry:
        upstream = _fetched(root) if push else None
        last = registry.stages().get(stage)
        if last is None:
            raise RegistryError(
                f"{stage}: no version was ever assigned to it; allowed: "
                f"{', '.join(registry.stages()) or 'none yet'}"
            )
        done = Done(last.commit)
        done.tags = tags.unassign(registry, stage, message=message)
        if upstream is not None:
            gone = [e.tag for e in registry.events() if e.stage == stage and e.withdraws]
            done.pushed_to = _push(root, upstream, gone)
    return done


def check_version(version: str) -> None:
    """Check that it is semantic, with a v before it, as GTO wants it.

    Raises:
        RegistryError: it is not.
    """
    from gto.constants import semver  # noqa: PLC0415 - it takes a second

    if not re.fullmatch(f"v{semver}", version):
        raise RegistryError(f"version: found {version!r}; allowed: like v1.2.0 or v1.2.0-rc.1")


def check_stage(registry: Registry, stage: str | None) -> None:
    """Check that a stage may be assigned.

    Raises:
        RegistryError: the file .gto does not list it, or it is no name.
    """
    from gto.constants import name_re  # noqa: PLC0415

    if stage is None:
        return
    allowed = tags.allowed_stages(registry)
    if allowed is not None and stage not in allowed:
        raise RegistryError(
            f"stage: found {stage!r}; allowed, by the file .gto: {', '.join(allowed)}"
        )
    if not name_re.search(stage):
        raise RegistryError(f"stage: found {stage!r}; allowed: letters, digits, '-', '_' and '/'")


def _check_free(registry: Registry, version: str, commit: str) -> bool:
    """Return whether the version is this very commit's already."""
    event = registry.versions().get(version)
    if event is None:
        return False
    if event.withdraws:
        raise RegistryError(
            f"{version}: withdrawn by the tag {event.tag}; allowed: another version"
        )
    if event.commit != commit:
        raise RegistryError(
            f"{version}: released already, as commit {event.commit[:7]}, and this is {commit[:7]}; "
            "allowed: another version"
        )
    return True


def _check_clean(root: Path) -> None:
    # The card may lie there, written by a release that was killed; _card looks at it.
    # Only of the project's folder: what lies beside it in the repository is not its business.
    options = ("--porcelain", "-z", "--untracked-files=all", "--no-renames")
    entries = git(root, "status", *options, "--", ".")
    folder = git(root, "rev-parse", "--show-prefix").rstrip("\n")
    changed = [entry[3:].removeprefix(folder) for entry in entries.split("\0") if entry]
    names = [name for name in changed if name != CARD]
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise RegistryError(
            f"{', '.join(names[:SHOWN])}{more}: changed or new, not committed; allowed: a clean "
            "`git status`, because a release is a commit"
        )


def _card(head: Revision, version: str, artifact: str) -> str:
    committed = head.read(CARD)
    before = None if committed is None else committed.decode(errors="replace")
    card = write_card(Results(head), version, before=before, artifact=artifact)
    present = Revision(head.root, WORKSPACE, None).read(CARD)
    if present is not None and present not in (committed, card.encode()):
        raise RegistryError(
            f"{CARD}: changed by hand and not committed; allowed: commit it (own words between its "
            f"two comments are kept) or `git checkout HEAD -- {CARD}`"
        )
    return card


def _check_reproduced(root: Path) -> None:
    command = [sys.executable, "-m", "dvc", "status", "--json", "dvc.yaml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RegistryError(f"`dvc status` fails: {done.stderr.strip()}")
    changed = json.loads(done.stdout)
    if changed:
        raise RegistryError(
            f"{', '.join(sorted(changed))}: not as dvc.lock says; allowed: a clean `dvc status`, "
            "by `dvc repro` and a commit, or by `dvc pull` where files are only missing"
        )


def _commit_card(root: Path, card: str, version: str) -> str:
    try:
        git(root, "symbolic-ref", "HEAD")
    except GitError as err:
        raise RegistryError(
            "HEAD: no branch is checked out, which the card would be committed on; allowed: "
            "`git switch main`"
        ) from err
    write_text(root / CARD, card)
    try:
        git(root, "add", "--", CARD)
        git(root, "commit", "--quiet", "--message", f"Release {version}", "--only", "--", CARD)
    except GitError:  # as without a name and address: as if it had not been tried
        git(root, "reset", "--quiet", "--", CARD)
        if git(root, "ls-tree", "--name-only", "HEAD", "--", CARD):
            git(root, "checkout", "--quiet", "HEAD", "--", CARD)
        else:
            (root / CARD).unlink()
        raise
    return git(root, "rev-parse", "HEAD").strip()


def _holds(registry: Registry, stage: str, commit: str) -> bool:
    last = registry.stages().get(stage)
    return last is not None and not last.withdraws and last.commit == commit


@dataclass(frozen=True)
class _Upstream:
    remote: str
    branch: str | None  # refs/heads/main there; None where no branch is checked out


def _fetched(root: Path, *, branch: bool = False) -> _Upstream:
    """Bring the Git remote's tags, so that versions and the counter of stages go on from them.

    With `branch`, that is to be pushed too, it may not lack a commit that is there.
    """
    try:
        here = git(root, "symbolic-ref", "--short", "HEAD").strip()
    except GitError:
        here = ""
    remote = _config(root, f"branch.{here}.remote") or "origin"
    if remote not in git(root, "remote").split():
        raise RegistryError(
            f"--push: no Git remote {remote}; allowed: after `git remote add {remote} URL`"
        )
    git(root, "fetch", "--quiet", "--tags", remote)
    git(root, "fetch", "--quiet", remote)
    there = _config(root, f"branch.{here}.merge") or f"refs/heads/{here}"
    tracked = f"refs/remotes/{remote}/{there.removeprefix('refs/heads/')}"
    if branch and here and git(root, "for-each-ref", tracked):
        behind = git(root, "rev-list", "--count", f"HEAD..{tracked}").strip()
        if behind != "0":
            raise RegistryError(
                f"--push: {remote} has {behind} commits {here} lacks; allowed: after `git pull`"
            )
    return _Upstream(remote, there if here else None)


def _config(root: Path, key: str) -> str:
    try:
        return git(root, "config", "--get", key).strip()
    except GitError:  # it is not set
        return ""


def _push(root: Path, to: _Upstream, names: list[str], *, branch: bool = False) -> str:
    refs = [f"refs/tags/{name}" for name in names]
    if branch and to.branch is not None:
        refs.append(f"HEAD:{to.branch}")
    git(root, "push", "--quiet", "--atomic", to.remote, *refs)
    return to.remote
