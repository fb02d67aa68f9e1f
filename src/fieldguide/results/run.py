"""Everything a report says of one revision: what is missing is noted, never made up."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fieldguide.core.errors import GitError, RevisionError
from fieldguide.report.calibration import Bin, bins_of, bins_of_table
from fieldguide.results.classes import ClassScores, Confusion, class_scores, confusion_of
from fieldguide.results.git import git
from fieldguide.results.predictions import PREDICTIONS, fetch_predictions
from fieldguide.results.revision import Out, Revision, flat, md5_of

SPLITS = ("train", "val", "test")
CURVES = ("train/acc", "val/acc", "train/loss", "val/loss")
DATA = "metrics/prepare.json"
TRAINING = "metrics/train/metrics.json"
TEST = "metrics/test.json"
PER_CLASS = "metrics/per_class.json"
CONFUSION = "plots/confusion.csv"
RELIABILITY = "plots/reliability.csv"
ENVIRONMENT = "metrics/environment.json"
TIMING = "metrics/timing.json"
FIGURES = "plots/figures"
PREPARED = "data/prepared"
MODEL = "models/classifier"
_CURVE = "metrics/train/plots/metrics/{}.tsv"


@dataclass
class Run:
    """One revision's results; what it lacks is empty or None, and noted."""

    label: str
    about: str  # date and subject of the commit, where there is one
    params: dict[str, Any] = field(default_factory=dict)  # as train.epochs
    inputs: dict[str, str] = field(default_factory=dict)  # MD5 of what its stages read, by path
    outs: dict[str, Out] = field(default_factory=dict)  # of dvc.lock, by path
    photos: dict[str, dict[str, int]] = field(default_factory=dict)  # by class and split
    left_out: dict[str, int] = field(default_factory=dict)  # photos by reason
    scores: dict[str, Any] = field(default_factory=dict)  # as test.acc
    classes: list[ClassScores] = field(default_factory=list)
    confusion: Confusion | None = None
    curves: dict[str, list[float | None]] = field(default_factory=dict)  # as val/acc, by epoch
    calibration: list[Bin] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)  # as train.seconds
    figures: dict[str, bytes] = field(default_factory=dict)  # PNG by name, as curves
    notes: dict[str, str] = field(default_factory=dict)  # what is wrong, by path

    @property
    def archives(self) -> list[str]:
        """Paths of the archives."""
        found = self.params.get("data.archive")
        paths = found if isinstance(found, list) else [found]
        return [path for path in paths if isinstance(path, str)]

    def total(self, split: str) -> int:
        """Photos of a split."""
        return sum(counts.get(split, 0) for counts in self.photos.values())


def read_run(revision: Revision, *, figures: bool = True) -> Run:
    """Read what Git, DVC's cache and its remote have of a revision.

    Args:
        revision: what is read.
        figures: read them, and predictions, too: they are what Git has not.

    Raises:
        RevisionError: it holds nothing of the pipeline.
    """
    if revision.read("params.yaml") is None and revision.read("dvc.lock") is None:
        raise RevisionError(
            f"{revision.label}: has neither params.yaml nor dvc.lock in {revision.root.resolve()}; "
            "allowed: the top folder of a project of which some stage has run"
        )
    run = Run(*_describe(revision))
    reader = _Reader(revision, run.notes)
    _read_lock(reader, run)
    _read_data(reader, run)
    _read_scores(reader, run)
    for name in CURVES:
        with reader.noting(_CURVE.format(name)) as path:
            run.curves[name] = [
                _finite(row[name.split("/")[1]]) for row in reader.table(path, delimiter="\t")
            ]
    run.environment = flat(reader.mapping(ENVIRONMENT))
    run.timing = flat(reader.mapping(TIMING))
    if figures:
        _read_figures(reader, run)
    _read_calibration(reader, run, predictions=figures)
    return run


def notes_of(run: Run, other: Run | None) -> list[tuple[str, str]]:
    """Path and trouble of every file that is missing or not in order, on either side."""
    lines = list(run.notes.items())
    if other:
        lines += [(f"{path} of {other.label}", text) for path, text in other.notes.items()]
    return lines


class _Reader:
    """Reads a revision's files and notes those that are missing or damaged."""

    def __init__(self, revision: Revision, notes: dict[str, str]) -> None:
        self.revision = revision
        self.outs: dict[str, Out] = {}
        self._notes = notes

    def note(self, path: str, text: str) -> None:
        self._notes.setdefault(path, text)

    @contextmanager
    def noting(self, path: str) -> Iterator[str]:
        """Turn what goes wrong with a file into a note."""
        try:
            yield path
        except RevisionError as err:
            self.note(path, str(err).removeprefix(f"{path} of {self.revision.label}: "))
        except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as err:
            self.note(path, f"not what this version writes ({err!r}); run `dvc repro`")

    def text(self, path: str) -> bytes:
        data = self.revision.read(path)
        if data is None:
            raise RevisionError("missing; `dvc repro` writes it")
        out = self.outs.get(path)
        if out and md5_of(data) != out.md5:
            self.note(path, "not the one that dvc.lock names: changed since; run `dvc repro`")
        return data

    def table(self, path: str, *, delimiter: str = ",") -> list[dict[str, str]]:
        text = io.StringIO(self.text(path).decode("utf-8"), newline="")
        return list(csv.DictReader(text, delimiter=delimiter))

    def mapping(self, path: str) -> dict[str, Any]:
        with self.noting(path):
            self.text(path)
            found = self.revision.read_json(path)
            if isinstance(found, dict):
                return found
            self.note(path, f"found {type(found).__name__}; allowed: a mapping")
        return {}


def _describe(revision: Revision) -> tuple[str, str]:
    """Label, and date and subject of the commit; of the workspace, those of its HEAD."""
    try:
        commit, about = git(
            revision.root, "show", "--no-patch", "--format=%h%n%cs %s", revision.rev or "HEAD", "--"
        ).split("\n", 1)
    except GitError:  # no commit yet
        return revision.label, ""
    label = revision.label if revision.rev else f"{revision.label}, on {commit}"
    return label, about.strip()


def _read_lock(reader: _Reader, run: Run) -> None:
    with reader.noting("params.yaml"):
        run.params = flat(reader.revision.read_yaml("params.yaml"))
    with reader.noting("dvc.lock"):
        stages = reader.revision.read_yaml("dvc.lock").get("stages", {})
        run.outs = reader.outs = reader.revision.outs()
        run.inputs = {
            dep["path"]: str(dep.get("md5", dep.get("etag")))  # etag: of a URL
            for stage in stages.values()
            for dep in stage.get("deps", ())
            if dep["path"] not in run.outs
        }
        ran: dict[str, Any] = {}
        for stage in stages.values():
            ran |= flat(stage.get("params", {}).get("params.yaml", {}))
        later = [key for key, value in ran.items() if run.params.get(key, value) != value]
        if later:
            reader.note(
                "params.yaml",
                f"{', '.join(later)} changed since the results were made; run `dvc repro`",
            )


def _read_data(reader: _Reader, run: Run) -> None:
    found = reader.mapping(DATA)
    with reader.noting(DATA):
        run.photos = {
            name: {split: int(counts[split]) for split in SPLITS}
            for name, counts in found.get("classes", {}).items()
        }
        run.left_out = {reason: int(n) for reason, n in found.get("left_out", {}).items()}


def _read_scores(reader: _Reader, run: Run) -> None:
    run.scores = {**flat(reader.mapping(TRAINING)), **flat(reader.mapping(TEST))}
    with reader.noting(CONFUSION) as path:
        rows = reader.table(path)
        run.confusion = confusion_of([(row["actual"], row["predicted"]) for row in rows])
    per_class = reader.mapping(PER_CLASS)
    with reader.noting(PER_CLASS):
        run.classes = class_scores(per_class, run.confusion)


def _read_calibration(reader: _Reader, run: Run, *, predictions: bool) -> None:
    with reader.noting(RELIABILITY) as path:
        run.calibration = bins_of_table(
            [(float(row["confidence"]), float(row["accuracy"])) for row in reader.table(path)]
        )
    bins = run.params.get("evaluate.calibration_bins")
    if not predictions or not isinstance(bins, int) or PREDICTIONS not in run.outs:
        return
    with reader.noting(PREDICTIONS):
        run.calibration = bins_of(fetch_predictions(reader.revision), bins=bins)


def _read_figures(reader: _Reader, run: Run) -> None:
    with reader.noting(FIGURES) as folder:
        paths = [path for path in reader.revision.files(folder) if path.endswith(".png")]
        failed = []
        for path in paths:
            name = path.removeprefix(f"{folder}/").removesuffix(".png")
            try:
                run.figures[name] = reader.revision.fetch(path)
            except RevisionError as err:
                failed.append(str(err))
        if failed:
            reader.note(folder, f"{len(failed)} of {len(paths)} are missing; {failed[0]}")


def _finite(text: str | None) -> float | None:
    value = float(text or "nan")
    return value if abs(value) < float("inf") else None
