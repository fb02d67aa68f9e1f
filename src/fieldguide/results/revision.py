"""What a revision of the project holds: results in Git, and files in DVC's cache or remote."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fieldguide.core.errors import RevisionError
from fieldguide.results.git import git, read_blobs

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

ARTIFACT = "classifier"  # its name in dvc.yaml
WORKSPACE = "workspace"  # the name of the files as they lie here, committed or not


class _Loader(yaml.CSafeLoader):
    """Reads 1e-05 as a number, as YAML 1.2 and DVC do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


class NotAvailableError(RevisionError):
    """A file that this revision never had, or that neither DVC's cache nor remote has."""


@dataclass(frozen=True)
class Out:
    """What dvc.lock says of one file or folder."""

    path: str
    md5: str  # of a folder with ".dir" behind it
    size: int | None  # bytes
    files: int | None  # of a folder


@dataclass(frozen=True)
class Revision:
    """A commit, or the workspace."""

    root: Path
    name: str  # as it was asked for
    rev: str | None  # commit; None for the workspace

    @property
    def label(self) -> str:
        """The name, and the commit where that says more."""
        if self.rev is None:
            return self.name
        if self.rev.startswith(self.name):
            return self.name[:7]
        return f"{self.name} ({self.rev[:7]})"

    def read(self, path: str) -> bytes | None:
        """Return a file that Git has, or that lies in the workspace; None where there is none."""
        if self.rev is not None:
            return next(read_blobs(self.root, [f"{self.rev}:{path}"]))
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def read_json(self, path: str) -> Any:
        """Return what a JSON file holds; None where there is none.

        Raises:
            RevisionError: it is no JSON.
        """
        text = self.read(path)
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError) as err:
            raise RevisionError(f"{path} of {self.label}: not JSON ({err})") from err

    def read_yaml(self, path: str) -> dict[str, Any]:
        """Return what a YAML file holds; empty where there is none.

        Raises:
            RevisionError: it is no YAML, or no mapping.
        """
        try:
            found = load_yaml(self.read(path) or b"{}")
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise RevisionError(f"{path} of {self.label}: not YAML ({err})") from err
        if not isinstance(found, dict):
            raise RevisionError(f"{path} of {self.label}: found {found!r}; allowed: a mapping")
        return found

    def outs(self) -> dict[str, Out]:
        """Return the outs of dvc.lock by path, read once.

        Raises:
            RevisionError: it is not laid out as DVC does, or an out has no MD5.
        """
        return self._outs

    @cached_property
    def _outs(self) -> dict[str, Out]:
        try:
            return {
                out["path"]: Out(out["path"], out["md5"], out.get("size"), out.get("nfiles"))
                for stage in self.read_yaml("dvc.lock").get("stages", {}).values()
                for out in stage.get("outs", ())
            }
        except (KeyError, TypeError, AttributeError) as err:
            raise RevisionError(
                f"dvc.lock of {self.label}: found an out without path or md5, or no stages; "
                "allowed: what `dvc repro` writes without a version-aware remote"
            ) from err

    def files(self, folder: str) -> dict[str, str]:
        """Return the MD5 of every file of a folder of which Git has only the hash, by path.

        The list is the one that dvc.lock names, from DVC's cache or remote, in the workspace too.

        Raises:
            RevisionError: dvc.lock names no such folder, its list cannot be had, or is another.
        """
        out = self.outs().get(folder)
        if out is None or not out.md5.endswith(".dir"):
            raise self._unknown(folder)
        if folder not in self._listings:
            self._listings[folder] = self._list(out)
        return self._listings[folder]

    def fetch(self, path: str) -> bytes:
        """Return a file of which Git has only the hash, from DVC's cache or remote.

        It may lie in a folder that is one out. In the workspace the file itself is read. The bytes
        are those that dvc.lock names.

        Raises:
            NotAvailableError: dvc.lock does not name it, or it cannot be had.
            RevisionError: it is another.
        """
        md5 = self._md5(path)
        data = self.read(path) if self.rev is None else None
        if data is None:
            data = self._fetch(path)
        if md5_of(data) != md5:
            where = "the workspace's" if self.rev is None else "DVC's"
            raise RevisionError(
                f"{path} of {self.label}: {where} file is not the one that dvc.lock names "
                f"({md5}); `dvc status`, `dvc repro` or `fieldguide remote verify` say more"
            )
        return data

    def _md5(self, path: str) -> str:
        outs = self.outs()
        if path in outs:
            return outs[path].md5
        folder = next((one for one in outs if path.startswith(f"{one}/")), None)
        if folder is None:
            raise self._unknown(path)
        try:
            return self.files(folder)[path]
        except KeyError:
            raise RevisionError(f"{path} of {self.label}: not in that {folder}") from None

    def _unknown(self, path: str) -> RevisionError:
        return NotAvailableError(f"{path} of {self.label}: not in its dvc.lock; run `dvc repro`")

    @cached_property
    def _listings(self) -> dict[str, dict[str, str]]:
        return {}

    @cached_property
    def _dvc(self) -> DVCFileSystem:
        from dvc.api import DVCFileSystem  # noqa: PLC0415 - a second that results in Git need not wait

        return DVCFileSystem(str(self.root), rev=self.rev)

    def _list(self, out: Out) -> dict[str, str]:
        try:
            found = self._dvc.find(out.path, detail=True, dvc_only=True)
        except Exception as err:  # remotes' own have nothing in common
            raise self._missing(out.path, err) from err
        files = {path: one["dvc_info"]["md5"] for path, one in sorted(found.items())}
        if not files and out.files:  # DVC takes a list that it has not for an empty one
            raise self._missing(out.path, "its list of files is missing")
        # DVC's own hash of a folder: that of its list as JSON.
        rows = [{"md5": md5, "relpath": path[len(out.path) + 1 :]} for path, md5 in files.items()]
        rows.sort(key=itemgetter("relpath"))
        if f"{md5_of(json.dumps(rows, sort_keys=True).encode())}.dir" != out.md5:
            raise RevisionError(
                f"{out.path} of {self.label}: DVC's list of its files is not the one that dvc.lock "
                f"names ({out.md5}); `fieldguide remote verify` says more"
            )
        return files

    def _fetch(self, path: str) -> bytes:
        try:
            return bytes(self._dvc.read_bytes(path))
        except Exception as err:  # remotes' own have nothing in common
            raise self._missing(path, err) from err

    def _missing(self, path: str, why: object) -> RevisionError:
        return NotAvailableError(
            f"{path} of {self.label}: cannot be had from DVC's cache or remote ({why}); "
            "`dvc pull` or, where it was made, `dvc push`"
        )


def find_revision(name: str, root: Path = Path()) -> Revision:
    """Find what is meant.

    A stage or version of the model registry (GTO's Git tags) goes before a branch of its name.

    Args:
        name: a stage (prod), version (v1.2.0), Git revision or DVC experiment; or "workspace".
        root: the project.

    Raises:
        RevisionError: there is none, or it is a stage or version that was withdrawn.
    """
    if not name.strip():  # as of a variable that is not set; Git would take it for HEAD
        raise RevisionError(
            "revision: found an empty name; allowed: workspace, or a stage, version, Git revision "
            "or experiment"
        )
    if name == WORKSPACE:
        return Revision(root, name, None)
    from dvc.repo import Repo  # noqa: PLC0415 - as above

    try:
        with Repo(str(root)) as repo:
            return Revision(root, name, _commit(repo, name))
    except RevisionError:
        raise
    except Exception as err:  # DVC's, Git's and GTO's own have nothing in common
        shallow = (root / ".git" / "shallow").exists()
        hint = "; this clone is shallow: `git fetch --unshallow --tags`" if shallow else ""
        raise RevisionError(
            f"{name}: no such stage, version, revision or experiment ({err}){hint}"
        ) from err


def _commit(repo: Repo, name: str) -> str:
    from dvc.scm import resolve_rev  # noqa: PLC0415

    from fieldguide.registry.tags import find_commit  # noqa: PLC0415 - it knows ARTIFACT from here

    if (commit := find_commit(repo.scm, name)) is not None:
        return commit
    # A tree or a file has a name for Git, too.
    wanted = f"{resolve_rev(repo.scm, name)}^{{commit}}"
    return git(Path(repo.root_dir), "rev-parse", "--verify", "--quiet", wanted).strip()


def md5_of(data: bytes) -> str:
    """Return the hash by which DVC knows a file; MD5 is a name here, not for secrecy."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def load_yaml(text: bytes) -> Any:
    """Read YAML 1.2's numbers, and nothing but plain values."""
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
