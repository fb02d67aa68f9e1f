"""Free the disk space of trials that lost: their models leave DVC's cache, their records stay.

`dvc gc --workspace` would delete the models of all experiments, and `dvc exp remove` frees nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fieldguide.core.errors import SweepError
from fieldguide.results.dvc import cache_folder, cached_file
from fieldguide.results.git import git, read_blobs
from fieldguide.results.revision import load_yaml
from fieldguide.sweeps.experiments import experiments_of
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.worker import TARGET

_HASH = re.compile(rb"md5: ([0-9a-f]{32}(?:\.dir)?)")


@dataclass(frozen=True)
class Freed:
    """What was, or would be, deleted."""

    files: list[Path]
    size: int  # bytes


def free_models(
    root: Path,
    record: Record,
    ranked: list[Configuration],
    *,
    keep_top: int,
    dry_run: bool = False,
) -> Freed:
    """Delete from the cache the files that only losing trials have.

    A file stays if the workspace mentions it, or any commit of a branch, a tag, the stash or
    another experiment.

    Args:
        root: the project.
        record: of the sweep.
        ranked: its configurations, best first.
        keep_top: how many keep their models.
        dry_run: delete nothing.

    Raises:
        SweepError: the cache may be used by other projects too.
    """
    cache = _own_cache(root)
    lost = {one.number for one in ranked[keep_top:]}
    names = [name for name, one in record.results.items() if one.run.number in lost]
    baseline = record.facts["baseline"]
    here = experiments_of(root, baseline)
    losers = {name: here[name] for name in names if name in here}
    doomed = _models(root, cache, list(losers.values())) - _needed(root, cache, baseline, losers)
    files = sorted(path for path in doomed if path.is_file())
    size = _size(files)
    if not dry_run:
        for path in files:
            path.unlink()
    return Freed(files, size)


def _own_cache(root: Path) -> Path:
    path = cache_folder(root).resolve()
    if not path.is_relative_to((root / ".dvc").resolve()):
        raise SweepError(
            f"{path}: this cache lies outside the project, and others may use it; nothing was "
            "deleted"
        )
    return path


def _models(root: Path, cache: Path, commits: list[str]) -> set[Path]:
    """Return the cache files of what TARGET wrote in these experiments."""
    found: set[Path] = set()
    for text in read_blobs(root, [f"{commit}:./dvc.lock" for commit in commits]):
        outs = load_yaml(text or b"{}").get("stages", {}).get(TARGET, {}).get("outs", [])
        found |= _cache_files(cache, (out["md5"] for out in outs if "md5" in out))
    return found


def _needed(root: Path, cache: Path, baseline: str, names: Collection[str]) -> set[Path]:
    """Return the cache files that the workspace mentions, or a commit other than a loser's.

    Args:
        root: the project.
        cache: its cache.
        baseline: of the sweep.
        names: the experiments that lost.
    """
    losers = {f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}" for name in names}
    refs = git(root, "for-each-ref", "--format=%(refname)").split()
    stashes = git(root, "stash", "list", "--format=%H").split()  # the ref has the last one only
    revisions = "\n".join(["HEAD", *stashes, *(ref for ref in refs if ref not in losers)])
    # Without a path: with one, Git leaves out the sides of merges that made no difference.
    listed = git(root, "rev-list", "--objects", "--stdin", text=revisions)
    named = [
        sha
        for sha, _, path in (line.partition(" ") for line in listed.splitlines())
        if PurePosixPath(path).name == "dvc.lock" or PurePosixPath(path).suffix == ".dvc"
    ]
    texts = [text or b"" for text in read_blobs(root, named)]
    patterns = ("*dvc.lock", "*.dvc")
    here = git(root, "ls-files", "-z", "--cached", "--others", "--", *patterns).split("\0")
    texts += [(root / name).read_bytes() for name in here if name and (root / name).is_file()]
    return _cache_files(cache, {name.decode() for text in texts for name in _HASH.findall(text)})


def _cache_files(cache: Path, hashes: Iterable[str]) -> set[Path]:
    """Return the cache files of these hashes; a folder's with those of its files."""
    found = set()
    for name in hashes:
        path = cached_file(cache, name)
        found.add(path)
        if name.endswith(".dir") and path.is_file():
            entries = json.loads(path.read_text(encoding="utf-8"))
            found |= {cached_file(cache, entry["md5"]) for entry in entries}
    return found


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
