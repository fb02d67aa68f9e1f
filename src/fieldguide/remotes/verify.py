"""Compare the hashes of the project with what really lies on its remotes, and repair it.

DVC answers "Everything is up to date" from an index that it keeps of each remote, and takes a
folder as complete when its list is there (https://github.com/treeverse/dvc/issues/10977). Here the
storage itself is asked for every object, also for each file that a folder's list names. (Objects,
outputs, members and uses: see `objects`.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import RemoteError
from fieldguide.remotes.objects import Advance, Finding, RemoteObjects, Use
from fieldguide.results.dvc import DvcProject, Scope, TrackedOutput


class CheckedOutput(NamedTuple):
    """One output, and what its remote has of it."""

    use: Use
    objects: int  # a folder's list of files is one
    wrong: int  # objects that are missing or damaged, and were not repaired
    size: int  # bytes on the remote


@dataclass
class Report:
    """What was compared and what was found."""

    urls: dict[str, str] = field(default_factory=dict)  # of the remotes, by name
    outputs: list[CheckedOutput] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: dict[str, list[Use]] = field(default_factory=dict)  # by the reason
    damaged_here: dict[Path, list[Use]] = field(default_factory=dict)  # in the local cache
    trusted: list[str] = field(default_factory=list)  # remotes whose files DVC does not hash
    objects: int = 0
    size: int = 0  # bytes

    @property
    def complete(self) -> bool:
        """True if nothing is missing or damaged now."""
        return all(one.repaired for one in self.findings) and not self.damaged_here


def verify(
    root: Path,
    scope: Scope | None = None,
    *,
    remote: str | None = None,
    only: Collection[str] = (),
    deep: bool = False,
    repair: bool = False,
    advance: Advance = lambda *_: None,
) -> Report:
    """Look for every object on the remotes; upload again what is not right, if asked to.

    Args:
        root: the project's folder.
        scope: the revisions; by default the workspace.
        remote: name; by default the default one, and those that single outputs name.
        only: paths of outputs, as models/classifier; by default all.
        deep: download and hash every object, and hash the local cache's too.
        repair: upload what is missing or damaged from the local cache.
        advance: called with the progress.

    Raises:
        RemoteError: there is no output, or a revision or remote cannot be read.
        DvcError: the folder is in no DVC project, or its config is wrong.
    """
    project, report = DvcProject(root), Report()
    by_remote: dict[str, list[TrackedOutput]] = defaultdict(list)
    outputs = project.outputs(scope or Scope())
    if not outputs:
        raise RemoteError(
            f"{root.resolve()}: DVC caches no output of it; allowed: a project's folder"
        )
    for out in outputs:
        if only and out.path not in only:
            continue
        elsewhere = remote and out.remote and out.remote != remote
        if reason := out.not_pushed or ("of another remote" if elsewhere else None):
            report.left_out.setdefault(reason, []).append(Use(out.path, out.rev))
        else:
            by_remote[out.remote or remote or project.default_remote].append(out)
    for name, stored in sorted(by_remote.items()):
        storage = project.remote(name)
        objects = RemoteObjects(project, storage, stored, advance)
        objects.compare(deep=deep)
        if objects.findings:
            storage.forget_index()
        if repair:
            objects.repair()
        if deep:
            report.damaged_here |= objects.damaged_here()
        report.urls[name] = storage.url
        if not storage.verifies_pulls:
            report.trusted.append(name)
        _add(report, objects)
    report.outputs.sort(key=lambda one: one.use)
    return report


def _add(report: Report, objects: RemoteObjects) -> None:
    """Add what one remote has to the report."""
    wrong = {one.md5 for one in objects.findings.values() if not one.repaired}
    for output, uses in objects.outputs.items():
        members = objects.members(output)
        size = sum(objects.sizes.get(one, 0) for one in members)
        report.outputs += [
            CheckedOutput(use, len(members), len(members & wrong), size) for use in uses
        ]
    report.findings += sorted(objects.findings.values(), key=lambda one: one.uses)
    report.objects += len(objects.uses)
    report.size += sum(objects.sizes.values())
