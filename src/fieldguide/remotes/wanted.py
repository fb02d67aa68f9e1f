"""What a revision needs of its remotes: every hash of dvc.lock and of the .dvc files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldguide.results.git import git
from fieldguide.results.storage import RemoteError

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo

# Why an out is no business of the remote.
IMPORTED = "imported from another repository, which keeps it"
NOT_PUSHED = "push: false"
ELSEWHERE = "of another remote"
NOT_MADE = "not made yet: no hash"


@dataclass(frozen=True)
class Scope:
    """Which revisions are meant; without any, the workspace."""

    revs: tuple[str, ...] = ()
    all_branches: bool = False
    all_tags: bool = False
    all_commits: bool = False
    all_experiments: bool = False

    @property
    def workspace(self) -> bool:
        """Whether only the files as they lie here are meant."""
        return self == Scope()


class Key(NamedTuple):
    """One object of one remote."""

    remote: str
    hash_name: str  # md5, or md5-dos2unix of DVC before 3.0
    oid: str  # of a folder's list with ".dir" behind it


class Use(NamedTuple):
    """A file or folder of the project, and the revision where it is not the workspace's."""

    path: str
    rev: str

    def inside(self, name: str) -> Use:
        """A file in this folder."""
        return Use(f"{self.path}/{name}", self.rev)

    def __str__(self) -> str:
        return f"{self.path} ({self.rev})" if self.rev else self.path


@dataclass
class Wanted:
    """What the project's outs name.

    Attributes:
        uses: where, by the object.
        sizes: bytes, as dvc.lock has them; of a folder all its files together.
        left_out: outs that the remote need not have, by the reason.
    """

    uses: dict[Key, list[Use]] = field(default_factory=dict)
    sizes: dict[Key, int] = field(default_factory=dict)
    left_out: dict[str, list[Use]] = field(default_factory=dict)


def collect(
    repo: Repo, scope: Scope, *, remote: str | None = None, only: Collection[str] = ()
) -> Wanted:
    """Read what the revisions' outs need.

    Args:
        repo: the project.
        scope: the revisions.
        remote: its name; without it the default one, and those that single outs name.
        only: paths of outs; without any, all.

    Raises:
        RemoteError: a revision cannot be read, or there is no remote.
    """
    wanted = Wanted()
    root = Path(repo.root_dir)
    config = repo.config  # the workspace's: at an old revision DVC would read that one's
    for rev, out in _outs(repo, scope):
        use = Use(repo.fs.relpath(out.fs_path, repo.root_dir), _label(root, rev))
        if only and use.path not in only:
            continue
        reason = _why_not(out, remote)
        if reason is not None:
            wanted.left_out.setdefault(reason, []).append(use)
            continue
        name = out.remote or remote or _default(config)
        key = Key(name, out.hash_info.name, out.hash_info.value)
        wanted.uses.setdefault(key, []).append(use)
        if out.meta.size is not None:
            wanted.sizes[key] = out.meta.size
    return wanted


def _outs(repo: Repo, scope: Scope) -> Iterator[tuple[str, Output]]:
    """Yield every out that DVC stores, with its revision's name."""
    where = "workspace"
    try:
        for name in repo.brancher(
            revs=list(scope.revs),
            all_branches=scope.all_branches,
            all_tags=scope.all_tags,
            all_commits=scope.all_commits,
            all_experiments=scope.all_experiments,
            workspace=scope.workspace,
        ):
            where = name or where
            for out in repo.index.outs:
                if out.use_cache and out.is_in_repo:
                    yield name, out
    except RemoteError:
        raise
    except Exception as err:  # DVC's, Git's and YAML's own have nothing in common
        raise RemoteError(f"{where}: its dvc.yaml or .dvc files cannot be read ({err})") from err


@cache
def _label(root: Path, rev: str) -> str:
    """Name of a commit's experiment, branch or tag, or its first letters."""
    if not re.fullmatch("[0-9a-f]{40}", rev):
        return rev
    refs = git(root, "for-each-ref", f"--points-at={rev}", "--format=%(refname:lstrip=2)").split()
    return refs[0].rpartition("/")[2] if refs else rev[:7]


def _why_not(out: Output, remote: str | None) -> str | None:
    """Reason for which DVC would not push an out to this remote either."""
    if out.stage.is_repo_import:
        return IMPORTED
    if not out.can_push:
        return NOT_PUSHED
    if remote and out.remote and out.remote != remote:
        return ELSEWHERE
    if not out.hash_info:
        return NOT_MADE
    return None


def _default(config: Mapping[str, Any]) -> str:
    name = config["core"].get("remote")
    if name:
        return str(name)
    known = ", ".join(sorted(config["remote"]))
    mend = (
        f"choose one of: {known}, with --remote or `dvc remote default NAME`"
        if known
        else "add one: `dvc remote add --default storage URL`"
    )
    raise RemoteError(f"no default remote in .dvc/config; {mend}")
