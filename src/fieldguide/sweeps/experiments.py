"""The finished trials of a sweep, which are DVC experiments: Git's refs/exps/<baseline>/<name>.

They are read from Git directly: `dvc exp show` takes minutes for a thousand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fieldguide.core.curves import parse_curves
from fieldguide.results.git import git, read_blobs
from fieldguide.results.paths import CURVES, TIMING, TRAIN_METRICS
from fieldguide.results.revision import flat, load_yaml

_FILES = ("params.yaml", TRAIN_METRICS, TIMING)
# <sweep>-<number of the configuration>_<settings>[_s<seed>]; names.py writes it.
_NAME = re.compile(
    r"(?P<sweep>[A-Za-z0-9_.-]+?)-(?P<number>\d{4,})_(?P<settings>.*?)(_s(?P<seed>\d+))?"
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
        """How long `train` took; 0 if unknown, because DVC's run cache had the result."""
        return float(self.metrics.get("train.seconds", 0))

    def score(self, metric: str) -> float | None:
        """Value of val/acc or val/loss at the epoch whose weights were kept."""
        value = self.metrics.get(f"best.{metric.replace('/', '_')}")
        return float(value) if isinstance(value, int | float) else None


def read_trials(root: Path, sweep: str | None = None, name: str | None = None) -> list[Trial]:
    """Return the finished trials of one sweep, or the one of that name, oldest first.

    Raises:
        GitError: `root` is not in a Git repository.
    """
    found = [
        one for one in _refs(root) if sweep in (None, one[0]["sweep"]) and name in (None, one[0][0])
    ]
    blobs = read_blobs(root, [f"{rev}:./{file}" for _, _, rev, _ in found for file in _FILES])
    trials = []
    for match, ref, rev, created in found:
        params, *metrics = (next(blobs) or b"{}" for _ in _FILES)
        trials.append(
            Trial(
                name=match[0],
                ref=ref,
                rev=rev,
                number=int(match["number"]),
                seed=None if match["seed"] is None else int(match["seed"]),
                created=created,
                params=flat(load_yaml(params)),
                metrics={k: v for text in metrics for k, v in flat(json.loads(text)).items()},
            )
        )
    return sorted(trials, key=lambda trial: (trial.created, trial.name))


def sweep_names(root: Path) -> list[str]:
    """Return the names of all sweeps that have a finished trial."""
    return sorted({match["sweep"] for match, *_ in _refs(root)})


def read_curves(root: Path, trial: Trial) -> dict[str, list[float]]:
    """Return the values by epoch of train/acc, val/acc, train/loss and val/loss, if it has them."""
    text = next(read_blobs(root, [f"{trial.rev}:./{CURVES}"]))
    curves = parse_curves(text.decode()) if text else {}
    curves.pop("learning_rate", None)
    return {name.replace("_", "/"): values for name, values in curves.items()}


def _refs(root: Path) -> Iterator[tuple[re.Match[str], str, str, datetime]]:
    """Yield the parsed name, ref, commit and time of every experiment that has a trial's name."""
    lines = git(
        root,
        "for-each-ref",
        "--format=%(objectname) %(committerdate:unix) %(refname)",
        "refs/exps/",
    )
    for line in lines.splitlines():
        rev, created, ref = line.split(" ", 2)
        parts = ref.split("/")  # refs/exps/<2>/<38>/<name>; DVC's internal refs have other shapes
        match = _NAME.fullmatch(parts[-1]) if len(parts) == 5 else None  # noqa: PLR2004
        if match:
            yield match, ref, rev, datetime.fromtimestamp(int(created), UTC)
