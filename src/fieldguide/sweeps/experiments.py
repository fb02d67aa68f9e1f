"""The experiments of a sweep in Git: refs/exps/<2>/<38 digits of the baseline>/<name>.

They are read from Git directly: `dvc exp show` takes minutes for a thousand.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import SweepError
from fieldguide.results.git import git, read_blobs
from fieldguide.results.paths import CURVES, TIMING, TRAIN_METRICS
from fieldguide.sweeps.record import Record


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
    folder = f"refs/exps/{baseline[:2]}/{baseline[2:]}/"
    lines = git(root, "for-each-ref", "--format=%(objectname) %(refname)", folder).splitlines()
    return {ref.removeprefix(folder): commit for commit, ref in map(str.split, lines)}


def read_result(root: Path, commit: str, metric: str) -> Result:
    """Read the result of a run from its commit.

    Args:
        root: the project.
        commit: of the experiment.
        metric: val/acc or val/loss; its value is that of the epoch whose weights were kept.

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
