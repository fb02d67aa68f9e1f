"""Compare what the project's hashes name with what really lies on its remotes, and repair it.

DVC answers "Everything is up to date" from an index that it keeps of each remote, and takes a
folder as complete when its list is there (https://github.com/treeverse/dvc/issues/10977). Here the
storage itself is listed, and every object that a folder's list names is looked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from fieldguide.remotes.look import Advance, Finding, Look, Looked
from fieldguide.remotes.wanted import Key, Scope, Use, Wanted, collect
from fieldguide.results.storage import RemoteError, Storage


@dataclass
class Checked:
    """One out, and what the remote has of it.

    Attributes:
        objects: how many it consists of; a folder's list is one.
        wrong: how many of them are missing or damaged, and were not repaired.
        size: bytes of it on the remote.
    """

    use: Use
    objects: int
    wrong: int
    size: int


@dataclass
class Report:
    """What was looked at and what was found.

    Attributes:
        urls: of the remotes, by their names.
        findings: what is or was wrong, in the order of the paths.
        left_out: outs that the remote need not have, by the reason.
        damaged_here: files of the local cache, if it was hashed too, and where they are used.
        trusted: remotes of which DVC takes what it pulls without a look.
    """

    urls: dict[str, str] = field(default_factory=dict)
    outs: list[Checked] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: dict[str, list[Use]] = field(default_factory=dict)
    damaged_here: dict[Path, list[Use]] = field(default_factory=dict)
    trusted: list[str] = field(default_factory=list)
    objects: int = 0
    size: int = 0  # bytes

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or damaged now."""
        return all(one.repaired for one in self.findings) and not self.damaged_here


def _silent(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def verify(
    root: Path,
    scope: Scope | None = None,
    *,
    remote: str | None = None,
    only: Collection[str] = (),
    deep: bool = False,
    repair: bool = False,
    advance: Advance = _silent,
) -> Report:
    """Look for every object on the remote; upload again what is not right, if asked to.

    Args:
        root: the project.
        scope: the revisions; without them the workspace.
        remote: its name; without it the default one, and those that single outs name.
        only: paths of outs, as models/classifier; without any, all.
        deep: download every object and hash it, and hash the local cache's too.
        repair: upload from the local cache what is missing or damaged.
        advance: is told how far it is.

    Raises:
        RemoteError: it cannot be checked.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError  # noqa: PLC0415 - slow
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        opened = Repo(str(root))
    except NotDvcRepoError as err:
        raise RemoteError(f"{root.resolve()}: no DVC project; run it in its top folder") from err
    except DvcException as err:
        raise RemoteError(f"{root.resolve()}: {err}") from err
    with opened as repo:
        wanted = collect(repo, scope or Scope(), remote=remote, only=only)
        report = Report(left_out=wanted.left_out)
        for (name, hash_name), keys in sorted(_by_storage(wanted).items()):
            storage = Storage(repo, name, hash_name)
            report.urls[name] = storage.url
            look = Look(repo, storage, advance)
            uses = {key.oid: wanted.uses[key] for key in keys}
            sizes = {key.oid: wanted.sizes[key] for key in keys if key in wanted.sizes}
            found = look.look(uses, sizes, deep=deep)
            findings = _findings(storage, found)
            if findings:
                storage.forget_index()
            if repair:
                look.repair(findings)
            _add(report, uses, found, findings)
            if deep:
                for oid, path in look.damaged_here(found.uses).items():
                    report.damaged_here[path] = found.uses[oid]
            if not storage.verifies_pulls and name not in report.trusted:
                report.trusted.append(name)
        report.findings.sort(key=lambda one: (one.uses, one.key))
        report.outs.sort(key=lambda one: one.use)
        return report


def _by_storage(wanted: Wanted) -> dict[tuple[str, str], list[Key]]:
    grouped = defaultdict(list)
    for key in wanted.uses:
        grouped[key.remote, key.hash_name].append(key)
    return grouped


def _findings(storage: Storage, found: Looked) -> list[Finding]:
    return [
        Finding(
            Key(storage.name, storage.hash_name, oid),
            state,
            found.uses[oid],
            note=found.notes.get(oid, ""),
        )
        for oid, state in found.states.items()
    ]


def _add(
    report: Report, uses: dict[str, list[Use]], found: Looked, findings: list[Finding]
) -> None:
    """Count what one remote has into the report."""
    wrong = {one.key.oid for one in findings if not one.repaired}
    for oid, members in found.members.items():
        size = sum(found.sizes.get(member, 0) for member in members)
        report.outs += [Checked(use, len(members), len(members & wrong), size) for use in uses[oid]]
    report.findings += findings
    report.objects += len(found.uses)
    report.size += sum(found.sizes.values())
