"""The experiments of a sweep in Git: read results, apply the winner, delete models that lost.

Their refs are refs/exps/<2>/<38 digits of the baseline>/<name>. They are read from Git directly:
`dvc exp show` takes minutes for a thousand.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from fieldguide.core.errors import SweepError
from fieldguide.core.files import write_text
from fieldguide.results.dvc import cache_folder, cached_file
from fieldguide.results.git import git, read_blobs
from fieldguide.results.paths import CURVES, MODEL, TIMING, TRAIN_METRICS
from fieldguide.results.revision import load_yaml
from fieldguide.sweeps.ranking import Configuration
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.space import SECTIONS
from fieldguide.sweeps.worker import TARGET, refs_of

_HASH = re.compile(rb"md5: ([0-9a-f]{32}(?:\.dir)?)")


class Result(NamedTuple):
    """What a run has written."""

    score: float
    epochs: int  # trained in all
    seconds: float  # that `train` took; 0 if DVC's run cache had the result


def experiments_of(root: Path, baseline: str) -> dict[str, str]:
    """Return the commits of all experiments of a baseline by name.

    Raises:
        GitError: `root` is not in a Git repository.
    """
    folder = refs_of(baseline)
    lines = git(root, "for-each-ref", "--format=%(objectname) %(refname)", folder).splitlines()
    return {ref.removeprefix(folder): commit for commit, ref in map(str.split, lines)}


def read_result(root: Path, commit: str, metric: str) -> Result:
    """Read the result of a run from its commit.

    Args:
        root: the project.
        commit: of the experiment.
        metric: as val/acc; its value is that of the epoch whose weights were kept.

    Raises:
        SweepError: it has no finite value of the metric.
    """
    files = (TRAIN_METRICS, CURVES, TIMING)
    metrics, curves, timing = read_blobs(root, [f"{commit}:./{file}" for file in files])
    best = json.loads(metrics or b"{}").get("best", {})
    score = best.get(metric.replace("/", "_"))
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise SweepError(f"{TRAIN_METRICS} has no finite best value of {metric}")
    epochs = max(0, len((curves or b"").splitlines()) - 1)  # without the header
    seconds = json.loads(timing or b"{}").get("train", {}).get("seconds", 0)
    return Result(float(score), epochs, float(seconds))


def missing(root: Path, record: Record) -> list[str]:
    """Return the names of finished runs whose experiments are not in the repository."""
    here = experiments_of(root, record.facts["baseline"]) if record.results else {}
    return [name for name in record.results if name not in here]


class Winner:
    """The experiment of a sweep that is applied."""

    def __init__(self, root: Path, baseline: str, name: str) -> None:
        """Read it from Git.

        Args:
            root: the project.
            baseline: of the sweep.
            name: of the experiment.

        Raises:
            SweepError: it is not in this repository.
        """
        commit = experiments_of(root, baseline).get(name)
        if commit is None:
            raise SweepError(
                f"{name}: this experiment is not in the repository; `dvc exp pull REMOTE {name}` "
                "gets it, and `fieldguide sweep run` trains it again"
            )
        params, lock = read_blobs(
            root, [f"{commit}:./{file}" for file in ("params.yaml", "dvc.lock")]
        )
        self._root, self.name = root, name
        self._params = load_yaml(params or b"")
        self._lock = load_yaml(lock or b"")
        self._model = _model_in(lock)

    def apply(self) -> list[str]:
        """Set the params that it was trained with in params.yaml; nothing else changes.

        Returns:
            A line for each change.

        Raises:
            SweepError: params.yaml lacks one of the keys.
        """
        path = self._root / "params.yaml"
        yaml, params = _read_to_change(path)
        lines = []
        for section in SECTIONS:
            for key, value in self._params.get(section, {}).items():
                if key not in params[section]:
                    raise SweepError(
                        f"params.yaml: {section}.{key}: missing; {self.name} was trained with "
                        f"{value}, by the code of another commit"
                    )
                if params[section][key] != value:
                    lines.append(f"{section}.{key}: {params[section][key]} -> {value}")
                    params[section][key] = value
        _write_changed(path, yaml, params)
        return lines

    def enter_in_lock(self) -> None:
        """Enter its training in dvc.lock, where `dvc repro --pull` finds what it wrote.

        The run cache of a cluster's nodes is not on the remote: `dvc push --run-cache` sends all
        entries each time.
        """
        path = self._root / "dvc.lock"
        if not path.is_file():
            write_text(path, 'schema: "2.0"\nstages: {}\n')
        yaml, lock = _read_to_change(path)
        lock["stages"][TARGET] = self._lock["stages"][TARGET]
        _write_changed(path, yaml, lock)

    @property
    def is_cached(self) -> bool:
        """Whether DVC's cache has its model; that of a cluster's node is on the remote."""
        return bool(self._model) and cached_file(cache_folder(self._root), self._model).is_file()

    @property
    def is_in_workspace(self) -> bool:
        """Whether the model in the workspace is its model, by dvc.lock."""
        lock = self._root / "dvc.lock"
        return lock.is_file() and _model_in(lock.read_bytes()) == self._model


def _read_to_change(path: Path) -> tuple[YAML, Any]:
    """Return a YAML file's values, and what writes them with the comments and order of the file."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    return yaml, yaml.load(path.read_text(encoding="utf-8"))


def _write_changed(path: Path, yaml: YAML, values: Any) -> None:
    text = io.StringIO()
    yaml.dump(values, text)
    write_text(path, text.getvalue())


def _model_in(lock: bytes | None) -> str:
    """Return the hash of the model that a dvc.lock names; "" if there is none."""
    outs = load_yaml(lock or b"{}").get("stages", {}).get(TARGET, {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == MODEL), "")


def free_models(
    root: Path,
    record: Record,
    ranked: list[Configuration],
    *,
    keep_top: int,
    dry_run: bool = False,
) -> tuple[int, int]:
    """Delete from the cache the files that only losing trials have.

    `dvc gc --workspace` would delete the models of all experiments, and `dvc exp remove` frees
    nothing.

    A file stays if the workspace mentions it, or any commit of a branch, a tag, the stash or
    another experiment.

    Args:
        root: the project.
        record: of the sweep.
        ranked: its configurations, best first.
        keep_top: how many keep their models.
        dry_run: delete nothing.

    Returns:
        How many files were, or would be, deleted, and their bytes.

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
    files = [path for path in doomed if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if not dry_run:
        for path in files:
            path.unlink()
    return len(files), size


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
    losers = {refs_of(baseline) + name for name in names}
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
