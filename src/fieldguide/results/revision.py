"""One revision of the project: its files in Git or in the workspace, and those that DVC keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fieldguide.core.errors import DvcError, GitError, RemoteError, RevisionError
from fieldguide.core.files import md5
from fieldguide.results.dvc import DvcProject
from fieldguide.results.git import git, read_blobs
from fieldguide.results.versions import VersionTags

WORKSPACE = "workspace"  # the name of the files as they lie here, committed or not


class _Loader(yaml.CSafeLoader):
    """Reads 1e-05 as a number, as YAML 1.2 and DVC do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclass(frozen=True)
class Revision:
    """A commit, or the workspace."""

    root: Path  # the project's folder; it may lie in a subfolder of the Git repository
    name: str  # as the user wrote it
    rev: str | None  # commit; None for the workspace

    @property
    def label(self) -> str:
        """The name, followed by the commit unless the name is the commit."""
        if self.rev is None:
            return self.name
        if self.rev.startswith(self.name):
            return self.name[:7]
        return f"{self.name} ({self.rev[:7]})"

    def read(self, path: str) -> bytes | None:
        """Return a file from Git or the workspace; None if it is not there.

        Args:
            path: relative to the project.
        """
        if self.rev is not None:
            return next(read_blobs(self.root, [f"{self.rev}:./{path}"]))
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def read_yaml(self, path: str) -> dict[str, Any]:
        """Return a YAML file from Git or the workspace; empty if it is not there.

        Raises:
            RevisionError: the file is not YAML, or not a mapping.
        """
        try:
            found = load_yaml(self.read(path) or b"{}")
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise RevisionError(f"{path} of {self.label}: not YAML ({err})") from err
        if not isinstance(found, dict):
            raise RevisionError(f"{path} of {self.label}: found {found!r}; allowed: a mapping")
        return found

    def fetch(self, path: str, md5sum: str) -> bytes:
        """Return a file that DVC keeps, from the workspace, DVC's cache or its remote.

        Args:
            path: relative to the project.
            md5sum: of the file; other bytes are refused.

        Raises:
            RevisionError: no place has it, or its bytes have another hash.
        """
        data = self.read(path) if self.rev is None else None
        if data is not None and md5(data) != md5sum:
            raise RevisionError("the file is not the one that dvc.lock names; run `dvc repro`")
        return data if data is not None else self._object(md5sum)

    def listing(self, folder: str, md5sum: str) -> dict[str, str]:
        """Return the MD5 of each file of a folder that DVC keeps, by its path in the project.

        Args:
            folder: relative to the project.
            md5sum: of the folder, ending in ".dir".

        Raises:
            RevisionError: neither DVC's cache nor its remote has the list of files.
        """
        data = self._object(md5sum)
        found = {row["relpath"]: row["md5"] for row in json.loads(data)}
        return {f"{folder}/{name}": found[name] for name in sorted(found)}

    @cached_property
    def _project(self) -> DvcProject:
        return DvcProject(self.root)

    def _object(self, md5sum: str) -> bytes:
        try:
            return self._project.read(md5sum)
        except (DvcError, RemoteError) as err:
            raise RevisionError(
                f"cannot be had from DVC's cache or remote ({err}); run `dvc pull`, or `dvc push` "
                "where it was made"
            ) from err


def find_revision(name: str, root: Path = Path()) -> Revision:
    """Find the commit that a name means.

    A stage or version of the model registry (GTO's Git tags) takes precedence over a branch of the
    same name. A branch that only the Git remote has is found as well.

    Args:
        name: stage (prod), version (v1.2.0), Git revision, DVC experiment, or "workspace".
        root: the project's folder.

    Raises:
        RevisionError: there is no such revision, or the stage or version was withdrawn.
    """
    if not name.strip():  # as of a variable that is not set; Git would take it for HEAD
        raise RevisionError(
            "revision: found an empty name; allowed: workspace, or a stage, version, Git revision "
            "or experiment"
        )
    if name == WORKSPACE:
        return Revision(root, name, None)
    try:
        commit = VersionTags(root).find_commit(name) or _commit(root, name)
    except GitError as err:  # no repository, or one that belongs to another user
        raise RevisionError(f"{name}: {err}") from err
    if commit is None:
        commit = _experiment(root, name) or _commit(root, f"refs/remotes/origin/{name}")
    if commit is None:
        raise RevisionError(
            f"{name}: no such stage, version, Git revision or experiment{_how_to_fetch(root)}"
        )
    return Revision(root, name, commit)


def _commit(root: Path, name: str) -> str | None:
    # A tree or a file has a name in Git too.
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", "--").split()[0]
    except GitError:
        return None


def _experiment(root: Path, name: str) -> str | None:
    """Commit of a DVC experiment: refs/exps/<2>/<38>/<name>, by the commit that it started from."""
    lines = git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/")
    found = [line.split(" ", 1) for line in lines.splitlines()]
    commits = {
        commit
        for commit, ref in found
        if ref.count("/") == 4 and ref.endswith(f"/{name}")  # noqa: PLR2004
    }
    if len(commits) > 1:
        raise RevisionError(
            f"{name}: {len(commits)} experiments of different baselines have this name; allowed: "
            f"one of their commits, {', '.join(sorted(commit[:7] for commit in commits))}"
        )
    return commits.pop() if commits else None


def _how_to_fetch(root: Path) -> str:
    """Advice for a clone that has only a part of the history, and perhaps one branch."""
    if git(root, "rev-parse", "--is-shallow-repository").strip() != "true":
        return ""
    branches = "origin '+refs/heads/*:refs/remotes/origin/*'"
    return f"; this clone is shallow: `git fetch --tags --unshallow {branches}`"


def load_yaml(text: bytes) -> Any:
    """Read YAML with the numbers of YAML 1.2, and nothing but plain values."""
    return yaml.load(text, _Loader)  # noqa: S506 - a safe loader


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    items: Iterable[tuple[str, Any]] = tree.items()
    return {
        key: value
        for name, branch in items
        for key, value in flat(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }
