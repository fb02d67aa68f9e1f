"""Free the disk of trials that lost: their models leave DVC's cache, their records stay.

`dvc gc --workspace` would delete what every experiment has, and `dvc exp remove` frees nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml
from dvc.repo import Repo

from fieldguide.core.errors import SweepError
from fieldguide.results.git import git, read_blobs
from fieldguide.sweeps.experiments import Trial
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.slot import TARGET

_HASH = re.compile(rb"md5: ([0-9a-f]{32}(?:\.dir)?)")


@dataclass(frozen=True)
class Freed:
    """What was, or would be, deleted."""

    kept: list[Configuration]
    lost: list[Configuration]
    files: list[Path]
    size: int  # bytes


def free_models(
    root: Path,
    ranked: list[Configuration],
    *,
    keep_top: int,
    budget: int | None = None,
    dry_run: bool = False,
) -> Freed:
    """Delete from the cache what only losing trials have.

    An object that any other commit, of a branch, a tag or another experiment, or the workspace
    mentions stays.

    Args:
        root: top folder of the project.
        ranked: configurations, best first.
        keep_top: how many keep their models.
        budget: bytes that the kept models may take; the worst of them go until they do, but the
            best stays.
        dry_run: delete nothing.

    Raises:
        SweepError: the cache is shared with other projects, whose needs nobody knows.
    """
    cache = _cache(root)
    objects = {one.number: _objects(root, cache, one.trials) for one in ranked}
    kept = ranked[:keep_top]
    while budget is not None and len(kept) > 1 and _size(_union(kept, objects)) > budget:
        kept = kept[:-1]
    lost = ranked[len(kept) :]
    doomed = _union(lost, objects) - _needed(root, cache, lost)
    files = sorted(path for path in doomed if path.is_file())
    size = _size(files)
    if not dry_run:
        for path in files:
            path.unlink()
    return Freed(kept, lost, files, size)


def parse_size(text: str) -> int:
    """20GB -> 20,000,000,000 bytes.

    Raises:
        SweepError: it is not a number with B, kB, MB, GB or TB.
    """
    units = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b)", text.strip().lower())
    if not match:
        raise SweepError(f"--budget: {text!r}; allowed: a size such as 500MB or 20GB")
    return int(float(match[1]) * units[match[2]])


def _cache(root: Path) -> Path:
    with Repo(str(root)) as repo:
        path = Path(repo.cache.local.path).resolve()
    if not path.is_relative_to((root / ".dvc").resolve()):
        raise SweepError(
            f"{path}: this cache lies outside the project, and others may use it; nothing was "
            "deleted"
        )
    return path


def _objects(root: Path, cache: Path, trials: list[Trial]) -> set[Path]:
    """Cache files of what TARGET wrote in these trials."""
    found: set[Path] = set()
    for text in read_blobs(root, [f"{trial.rev}:dvc.lock" for trial in trials]):
        stages = yaml.safe_load(text or b"{}").get("stages", {})
        outs = stages.get(TARGET, {}).get("outs", [])
        found |= _files(cache, (out["md5"] for out in outs if "md5" in out))
    return found


def _needed(root: Path, cache: Path, lost: list[Configuration]) -> set[Path]:
    """Cache files that anything but the losing trials mentions: any commit, or the workspace."""
    losers = {trial.ref for one in lost for trial in one.trials}
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
    here = git(root, "ls-files", "-z", "--cached", "--others", "--", "*dvc.lock", "*.dvc").split(
        "\0"
    )
    texts += [(root / name).read_bytes() for name in here if name and (root / name).is_file()]
    return _files(cache, {name.decode() for text in texts for name in _HASH.findall(text)})


def _files(cache: Path, hashes: Iterable[str]) -> set[Path]:
    """Cache files of these hashes; a folder's with those of its files."""
    found = set()
    for name in hashes:
        path = cache / name[:2] / name[2:]
        found.add(path)
        if name.endswith(".dir") and path.is_file():
            entries = json.loads(path.read_text(encoding="utf-8"))
            found |= {cache / entry["md5"][:2] / entry["md5"][2:] for entry in entries}
    return found


def _union(configurations: list[Configuration], objects: dict[int, set[Path]]) -> set[Path]:
    return set().union(*(objects[one.number] for one in configurations))


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())
