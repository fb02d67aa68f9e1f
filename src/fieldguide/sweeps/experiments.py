"""The finished trials of a sweep, as Git and DVC keep them: `refs/exps/<baseline>/<name>`.

Read straight from Git, because `dvc exp show` opens every experiment as a repository of its own,
which takes minutes for a thousand.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from fieldguide.errors import SweepError

# <sweep>-<number>_<settings>[_s<seed>]; the number is that of the configuration.
_NAME = re.compile(
    r"(?P<sweep>[A-Za-z0-9_-]+?)-(?P<number>\d{4,})_(?P<settings>.*?)(_s(?P<seed>\d+))?"
)
_METRICS = ("metrics/train/metrics.json", "metrics/timing.json")
_CURVES = "metrics/train/plots/metrics/{}.tsv"


class _Loader(yaml.CSafeLoader):
    """Reads 1e-05 as a number, as YAML 1.2 and DVC do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclass(frozen=True)
class Trial:
    """One training, finished and recorded as a DVC experiment."""

    name: str
    ref: str
    rev: str
    number: int  # of its configuration
    seed: int | None  # train.seed, where a configuration is trained with several
    created: datetime
    params: dict[str, Any]  # as model.activation
    metrics: dict[str, Any]  # as best.val_acc

    @property
    def pruned(self) -> bool:
        """Whether it was stopped early because it could not win."""
        return bool(self.metrics.get("pruned"))

    @property
    def seconds(self) -> float:
        """How long `train` took; 0 where that is not known."""
        return float(self.metrics.get("train.seconds", 0))

    def score(self, metric: str) -> float | None:
        """Value of val/acc or val/loss at the epoch whose weights were kept."""
        value = self.metrics.get(f"best.{metric.replace('/', '_')}")
        return float(value) if isinstance(value, int | float) else None


def read_trials(root: Path, sweep: str | None = None, name: str | None = None) -> list[Trial]:
    """Return the finished trials of one sweep, or the one of that name, oldest first.

    Raises:
        SweepError: `root` is not a Git repository.
    """
    found = [one for one in _refs(root) if sweep in (None, one[0]["sweep"])]
    found = [one for one in found if name in (None, one[0][0])]
    files = ("params.yaml", *_METRICS)
    blobs = read_blobs(root, [f"{rev}:{file}" for _, _, rev, _ in found for file in files])
    trials = []
    for match, ref, rev, created in found:
        params, *metrics = (next(blobs) for _ in files)
        trials.append(
            Trial(
                name=match[0],
                ref=ref,
                rev=rev,
                number=int(match["number"]),
                seed=None if match["seed"] is None else int(match["seed"]),
                created=created,
                params=_flat(yaml.load(params or b"{}", _Loader)),  # noqa: S506 - a safe loader
                metrics={
                    key: value
                    for text in metrics
                    for key, value in _flat(json.loads(text or b"{}")).items()
                },
            )
        )
    return sorted(trials, key=lambda trial: (trial.created, trial.name))


def sweep_names(root: Path) -> list[str]:
    """Return the names of all sweeps that have a finished trial."""
    return sorted({match["sweep"] for match, *_ in _refs(root)})


def read_curves(root: Path, trial: Trial) -> dict[str, list[float]]:
    """Return the values by epoch of train/acc, val/acc, train/loss and val/loss."""
    names = ("train/acc", "val/acc", "train/loss", "val/loss")
    curves = {}
    for name, text in zip(
        names,
        read_blobs(root, [f"{trial.rev}:{_CURVES.format(name)}" for name in names]),
        strict=True,
    ):
        rows = [line.split("\t") for line in (text or b"").decode().splitlines()]
        if rows:
            column = rows[0].index(name.split("/")[1])
            curves[name] = [float(row[column]) for row in rows[1:]]
    return curves


def _refs(root: Path) -> Iterator[tuple[re.Match[str], str, str, datetime]]:
    """Name, ref, commit and time of every experiment that has a trial's name."""
    lines = git(
        root,
        "for-each-ref",
        "--format=%(objectname) %(committerdate:unix) %(refname)",
        "refs/exps/",
    )
    for line in lines.splitlines():
        rev, created, ref = line.split(" ", 2)
        parts = ref.split("/")  # refs/exps/<2>/<38>/<name>; DVC's own have other shapes
        match = _NAME.fullmatch(parts[-1]) if len(parts) == 5 else None  # noqa: PLR2004
        if match:
            yield match, ref, rev, datetime.fromtimestamp(int(created), UTC)


def git(root: Path, *arguments: str, text: str | None = None) -> str:
    """Run git in `root`, with `text` as its standard input, and return what it prints.

    Raises:
        SweepError: it fails; the message has its own.
    """
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]  # hooks are the user's
    done = subprocess.run(
        command, cwd=root, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        what = next(word for word in arguments if not word.startswith("-"))
        raise SweepError(f"git {what} failed in {root}: {done.stderr.strip()}")
    return done.stdout


def read_blobs(root: Path, objects: list[str]) -> Iterator[bytes | None]:
    """Yield the bytes of each `<commit>:<path>` or object, by one Git process; None if missing."""
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=root,
        input="\n".join(objects).encode() + b"\n",
        capture_output=True,
        check=True,
    )
    text, at = done.stdout, 0
    for _ in objects:
        end = text.index(b"\n", at)
        header = text[at:end].split(b" ")
        at = end + 1
        if header[-1] == b"missing":
            yield None
            continue
        size = int(header[-1])
        yield text[at : at + size]
        at += size + 1


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    items: Iterable[tuple[str, Any]] = tree.items()
    return {
        key: value
        for name, branch in items
        for key, value in _flat(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }
