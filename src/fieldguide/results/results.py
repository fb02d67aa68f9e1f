"""Everything that one revision holds, each result typed: a value, or the reason why there is none.

The gate, the report, the model card and the registry read results here and nowhere else, so that
all of them treat a missing or changed file alike:

- a file counts only if it is the one that dvc.lock names (same MD5);
- it counts only if its stage ran on the very outputs that lie beside it, such as the test's scores
  on this model and no earlier one;
- what Git does not have comes from the workspace, DVC's cache or its remote.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fieldguide.core.curves import kept_epoch, parse_curves
from fieldguide.core.errors import GitError, RevisionError
from fieldguide.core.files import md5
from fieldguide.core.recipes import parse_auto
from fieldguide.core.store import SPLITS, count_groups, groups_note
from fieldguide.evaluation.calibration import Bin
from fieldguide.evaluation.intervals import Interval, wilson
from fieldguide.evaluation.predictions import Predictions, parse_predictions
from fieldguide.evaluation.trust import Point, Trust
from fieldguide.results import paths
from fieldguide.results.classes import (
    ClassScores,
    Confusion,
    bootstrap_intervals,
    class_scores,
    confusion_of,
)
from fieldguide.results.git import git
from fieldguide.results.revision import Revision, find_revision, flat

_TEST_INDEX = re.compile(rf"{paths.PREPARED}/test(-[01]+)?\.csv")

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """The reason why a revision has no usable result of some kind."""

    path: str
    label: str  # of the revision
    reason: str  # with what to do about it
    damaged: bool = False  # it is there, but is not what the run wrote

    def __str__(self) -> str:
        return f"{self.path} of {self.label}: {self.reason}"


def need(result: T | Missing) -> T:
    """Return a result that must be there.

    Raises:
        RevisionError: it is missing; the message says why.
    """
    if isinstance(result, Missing):
        raise RevisionError(str(result))
    return result


def refuse_damaged(*results: object) -> None:
    """Refuse results that are damaged, stale or were changed since; others may be absent.

    Raises:
        RevisionError: one of them is; the message says why.
    """
    for one in results:
        if isinstance(one, Missing) and one.damaged:
            raise RevisionError(str(one))


def known(result: T | Missing, default: T) -> T:
    """Return a result, or the default if it is missing."""
    return default if isinstance(result, Missing) else result


class Output(NamedTuple):
    """What dvc.lock says of a file or folder that a stage wrote."""

    path: str
    md5: str  # that of a folder ends in .dir
    size: int | None  # bytes
    stage: str


@dataclass(frozen=True)
class Lock:
    """dvc.lock: what each stage read, used and wrote."""

    outputs: dict[str, Output]  # by path
    deps: dict[str, dict[str, str]]  # stage -> path -> MD5, or the ETag of a URL
    params: dict[str, Any]  # as train.epochs, of all stages that ran
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of deps, by path

    def stale_dep(self, stage: str) -> str | None:
        """Return an output that a stage read in an earlier version; None if there is none."""
        for path, found in self.deps[stage].items():
            if path in self.outputs and self.outputs[path].md5 != found:
                return path
        return None


class ClassCounts(NamedTuple):
    """Photos, groups or near-copies of a class in each split."""

    train: int
    val: int
    test: int


class LeftOutFile(NamedTuple):
    """A file that is in no split."""

    file: str  # name in the archive
    label: str  # class; empty if the file is in no class folder
    reason: str
    detail: str


class Timing(NamedTuple):
    """How long the training of this very model took."""

    seconds: float
    epochs: int
    images_per_second: float


class PhotoIdentity(NamedTuple):
    """What makes a test photo the same photo in two revisions, besides its name."""

    label: str  # class
    sha256: str


class Results:
    """What one revision holds. Each property is a value or Missing, and is read once."""

    def __init__(self, revision: Revision) -> None:
        """Store the revision; the first use of a property reads."""
        self.revision = revision
        self.label = revision.label

    @cached_property
    def about(self) -> str:
        """Date and subject of the commit; for the workspace those of HEAD."""
        rev = self.revision.rev or "HEAD"
        try:
            text = git(self.revision.root, "show", "--no-patch", "--format=%h %cs %s", rev, "--")
        except GitError:
            return ""
        commit, about = text.strip().split(" ", 1)
        return about if self.revision.rev else f"on {commit}, {about}"

    @cached_property
    def lock(self) -> Lock | Missing:
        """dvc.lock."""
        if self.revision.read("dvc.lock") is None:
            return self._missing("dvc.lock", "missing; run `dvc repro`")
        try:
            stages = self.revision.read_yaml("dvc.lock")["stages"]
            return _parse_lock(stages)
        except (KeyError, TypeError, AttributeError) as err:
            return self._missing(
                "dvc.lock",
                f"not laid out as `dvc repro` writes it without a version-aware remote ({err!r})",
                damaged=True,
            )
        except RevisionError as err:
            return self._missing("dvc.lock", self._without_path(err, "dvc.lock"), damaged=True)

    @property
    def outputs(self) -> dict[str, Output]:
        """Outputs of all stages that ran, by path."""
        return {} if isinstance(self.lock, Missing) else self.lock.outputs

    @property
    def inputs(self) -> dict[str, str]:
        """MD5 of what stages read and no stage wrote: the archive and code, by path."""
        if isinstance(self.lock, Missing):
            return {}
        read = {path: found for deps in self.lock.deps.values() for path, found in deps.items()}
        return {path: found for path, found in read.items() if path not in self.outputs}

    @cached_property
    def params(self) -> dict[str, Any] | Missing:
        """Params by key, as train.epochs: those that the stages ran with, then params.yaml's.

        What `auto` became in the training is added, as "auto (24)".
        """
        try:
            written = flat(self.revision.read_yaml("params.yaml"))
        except RevisionError as err:
            reason = self._without_path(err, "params.yaml")
            return self._missing("params.yaml", reason, damaged=True)
        used = {} if isinstance(self.lock, Missing) else self.lock.params
        params = {key: used.get(key, written.get(key)) for key in [*written, *used]}
        became = self._auto
        for key, value in used.items():
            name = key.partition(".")[2]
            if value == "auto" and name in became:
                params[key] = f"auto ({became[name]})"
        return params

    @property
    def _auto(self) -> dict[str, str]:
        """What `auto` became, such as {"epochs": "22"}: from the line below the table of layers."""
        summary = self._read(paths.SUMMARY)
        return {} if isinstance(summary, Missing) else parse_auto(summary.decode())

    @cached_property
    def changed_params(self) -> list[str]:
        """Keys of params.yaml that were changed since the results were made."""
        if isinstance(self.lock, Missing) or isinstance(self.params, Missing):
            return []
        written = flat(self.revision.read_yaml("params.yaml"))
        return [key for key, value in self.lock.params.items() if written.get(key, value) != value]

    @property
    def archives(self) -> list[str]:
        """Paths of the photos' archives."""
        found = known(self.params, {}).get("data.archive")
        listed = found if isinstance(found, list) else [found]
        return [path for path in listed if isinstance(path, str)]

    @property
    def model(self) -> Output | Missing:
        """The classifier's folder, without its files."""
        return self._current(paths.MODEL)

    @cached_property
    def data_metrics(self) -> dict[str, Any] | Missing:
        """metrics/prepare.json, as photos.train; values may be anything that JSON has."""
        return self._parsed(paths.DATA_METRICS, _mapping)

    @cached_property
    def train_metrics(self) -> dict[str, Any] | Missing:
        """metrics/train/metrics.json, as best.val_acc; values may be anything that JSON has."""
        return self._parsed(paths.TRAIN_METRICS, _mapping)

    @cached_property
    def test_metrics(self) -> dict[str, Any] | Missing:
        """metrics/test.json, as test.acc; values may be anything that JSON has."""
        return self._parsed(paths.TEST_METRICS, _mapping)

    @property
    def metrics(self) -> dict[str, Any]:
        """Training's and test's metrics together, as far as they are there."""
        return {**known(self.train_metrics, {}), **known(self.test_metrics, {})}

    @cached_property
    def photos(self) -> dict[str, ClassCounts] | Missing:
        """Photos of each class and split."""
        return self._parsed(paths.CLASSES, lambda data: _class_counts(data, "photos"))

    @cached_property
    def groups(self) -> dict[str, ClassCounts] | Missing:
        """Groups of each class and split; a group of several classes counts in each of them.

        A photo that belongs to no other one is a group.
        """
        return self._parsed(paths.CLASSES, lambda data: _class_counts(data, "groups"))

    @cached_property
    def near_copies(self) -> dict[str, ClassCounts] | Missing:
        """Photos of each class and split that look like another photo of the same split."""
        return self._parsed(paths.CLASSES, lambda data: _class_counts(data, "near_copies"))

    @cached_property
    def groups_note(self) -> str:
        """Warning that intervals are too narrow, because test photos are in groups; or empty."""
        photos, groups = known(self.photos, {}), known(self.groups, {})
        if not photos or not groups:
            return ""
        count = sum(one.test for one in photos.values())
        try:
            hashes = self.folder(paths.PREPARED)
            rows = _rows(self.revision.fetch(paths.GROUPS, hashes[paths.GROUPS]))
            return groups_note(count, count_groups(rows, "test", count))
        except (RevisionError, KeyError, ValueError):
            # Too many where a group has several classes, but Git has it.
            return groups_note(count, sum(one.test for one in groups.values()))

    @property
    def chosen_by(self) -> str | None:
        """Metric that chose the kept epoch, as val/acc; None without validation photos."""
        if "val_acc" not in known(self.curves, {}):
            return None
        return known(self.params, {}).get("train.monitor")

    @cached_property
    def left_out(self) -> dict[str, int] | Missing:
        """Files that `prepare` left out, by reason."""
        return self._parsed(
            paths.LEFT_OUT, lambda data: {row["reason"]: int(row["files"]) for row in _rows(data)}
        )

    @cached_property
    def left_out_files(self) -> list[LeftOutFile] | Missing:
        """Every file that `prepare` left out."""
        try:
            hashes = self.folder(paths.PREPARED)
            rows = _rows(self.revision.fetch(paths.LEFT_OUT_FILES, hashes[paths.LEFT_OUT_FILES]))
            return [
                LeftOutFile(row["file"], row["class"], row["reason"], row["detail"]) for row in rows
            ]
        except RevisionError as err:
            return self._missing(paths.LEFT_OUT_FILES, self._without_path(err, paths.PREPARED))
        except (KeyError, ValueError) as err:
            reason = f"not what `prepare` writes ({err!r})"
            return self._missing(paths.LEFT_OUT_FILES, reason, damaged=True)

    @cached_property
    def curves(self) -> dict[str, list[float]] | Missing:
        """Values by epoch, as val_acc; see `core/curves.py`."""
        return self._parsed(paths.CURVES, lambda data: parse_curves(data.decode("utf-8")))

    @property
    def kept_epoch(self) -> int | None:
        """The epoch whose weights were kept, counted from 1; None if the curves are missing."""
        return None if isinstance(self.curves, Missing) else kept_epoch(self.curves)

    @cached_property
    def confusion(self) -> Confusion | Missing:
        """Test photos by true and predicted class."""
        return self._parsed(
            paths.CONFUSION,
            lambda data: confusion_of([(row["actual"], row["predicted"]) for row in _rows(data)]),
        )

    @cached_property
    def classes(self) -> list[ClassScores] | Missing:
        """Scores of each class on the test set."""
        confusion = self.confusion
        if isinstance(confusion, Missing):
            return confusion
        return self._parsed(
            paths.PER_CLASS,
            lambda data: class_scores([row["class"] for row in _rows(data)], confusion),
        )

    @cached_property
    def reliability(self) -> list[Bin] | Missing:
        """Accuracy by confidence."""
        return self._parsed(
            paths.RELIABILITY,
            lambda data: [
                Bin(float(row["confidence"]), float(row["accuracy"]), int(row["photos"]))
                for row in _rows(data)
            ],
        )

    @cached_property
    def trust(self) -> Trust | Missing:
        """What can be left to the classifier, and how calibration changed its probabilities."""
        return self._parsed(paths.TRUST, lambda data: Trust(**json.loads(data)))

    @cached_property
    def risk_coverage(self) -> list[Point] | Missing:
        """Share of wrong answers by share of photos that are accepted."""
        return self._parsed(
            paths.RISK_COVERAGE,
            lambda data: [
                Point(*(float(row[name]) for name in Point._fields)) for row in _rows(data)
            ],
        )

    @cached_property
    def predictions(self) -> Predictions | Missing:
        """What the classifier said of every test photo."""
        return self._parsed(paths.PREDICTIONS, lambda data: parse_predictions(data.decode("utf-8")))

    @cached_property
    def environment(self) -> dict[str, Any] | Missing:
        """What the classifier was trained with, as libraries.torch."""
        return self._parsed(paths.ENVIRONMENT, _mapping)

    @cached_property
    def timing(self) -> Timing | Missing:
        """How long this model's training took; Missing if DVC's run cache restored the model."""
        try:
            found = json.loads(self.revision.read(paths.TIMING) or b"{}").get("train", {})
            if not isinstance(self.model, Missing) and found.get("model") == self.model.md5:
                return Timing(
                    float(found["seconds"]),
                    int(found["epochs_run"]),
                    float(found["images_per_second"]),
                )
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            return self._missing(paths.TIMING, f"not what `train` writes ({err!r})", damaged=True)
        return self._missing(paths.TIMING, "not of this model: DVC restored it from an earlier run")

    @cached_property
    def figure_paths(self) -> list[str] | Missing:
        """Paths of the figures of `visualize`, without reading them."""
        if isinstance(out := self._current(paths.FIGURES), Missing):
            return out
        try:
            found = self.revision.listing(out.path, out.md5)
        except RevisionError as err:
            return self._missing(paths.FIGURES, str(err))
        return [path for path in found if path.endswith(".png")]

    def figure(self, path: str) -> bytes | Missing:
        """Return a figure of `figure_paths`, as PNG."""
        try:
            return self.revision.fetch(path, self.folder(paths.FIGURES)[path])
        except RevisionError as err:
            return self._missing(path, str(err))

    def folder(self, path: str) -> dict[str, str]:
        """Return the MD5 of each file of a folder that a stage wrote, by its path in the project.

        Raises:
            RevisionError: no stage wrote it, it is stale, or its list of files is missing.
        """
        out = need(self._current(path))
        try:
            return self.revision.listing(path, out.md5)
        except RevisionError as err:
            raise RevisionError(f"{path} of {self.label}: {err}") from err

    @cached_property
    def test_photos(self) -> dict[str, PhotoIdentity] | Missing:
        """Every photo of the test set, by its name."""
        found: dict[str, PhotoIdentity] = {}
        try:
            for path, md5sum in self.folder(paths.PREPARED).items():
                if _TEST_INDEX.fullmatch(path):
                    for row in _rows(self.revision.fetch(path, md5sum)):
                        found[row["source"]] = PhotoIdentity(row["class"], row["sha256"])
        except RevisionError as err:
            return self._missing(paths.PREPARED, self._without_path(err, paths.PREPARED))
        except (KeyError, ValueError) as err:
            reason = f"not what `prepare` writes ({err!r})"
            return self._missing(paths.PREPARED, reason, damaged=True)
        return found

    def interval(self, key: str) -> Interval | None:
        """Return the 95 % interval over test photos of a metric; None for one that has none.

        Args:
            key: test.acc, test.top3_acc, test_flip_averaged.acc, test.coverage (Wilson),
                test.bal_acc or test.macro_f1 (bootstrap).
        """
        value, confusion = self.metrics.get(key), self.confusion
        if isinstance(confusion, Missing) or not isinstance(value, float) or not 0 <= value <= 1:
            return None
        trust = self.trust if key == "test.coverage" else None
        if isinstance(trust, Trust) and trust.min_confidence is None:
            return None  # the coverage is 0 for any photos
        if key in ("test.acc", "test.top3_acc", "test_flip_averaged.acc", "test.coverage"):
            return wilson(round(value * confusion.photos), confusion.photos)
        return self._bootstrapped.get(key)

    @cached_property
    def _bootstrapped(self) -> dict[str, Interval]:
        """Intervals by metric, as test.macro_f1; none if the confusion matrix is missing."""
        if isinstance(self.confusion, Missing):
            return {}
        found = bootstrap_intervals(self.confusion)
        return {f"test.{name}": interval for name, interval in found.items()}

    def _parsed(self, path: str, parse: Callable[[bytes], T]) -> T | Missing:
        data = self._read(path)
        if isinstance(data, Missing):
            return data
        try:
            return parse(data)
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, csv.Error) as err:
            reason = f"not what this version writes ({err!r}); run `dvc repro`"
            return self._missing(path, reason, damaged=True)

    def _read(self, path: str) -> bytes | Missing:
        """Read an output, if it is the one that dvc.lock names and fits what lies beside it."""
        if isinstance(out := self._current(path), Missing):
            return out
        data = self.revision.read(path)
        if data is None:
            try:
                return self.revision.fetch(path, out.md5)
            except RevisionError as err:
                return self._missing(path, str(err))
        if md5(data) != out.md5:
            reason = "not the file that dvc.lock names: it was changed since; run `dvc repro`"
            return self._missing(path, reason, damaged=True)
        return data

    def _current(self, path: str) -> Output | Missing:
        """Return an output whose stage ran on the outputs that lie beside it now."""
        if isinstance(self.lock, Missing):
            return self._missing(path, f"dvc.lock: {self.lock.reason}", damaged=self.lock.damaged)
        if path not in self.outputs:
            return self._missing(path, "not in its dvc.lock; run `dvc repro`")
        out = self.outputs[path]
        dep = self.lock.stale_dep(out.stage)
        if dep is None:
            return out
        reason = f"{out.stage} did not run on this {dep}, but on an earlier one; run `dvc repro`"
        return self._missing(path, reason, damaged=True)

    def _missing(self, path: str, reason: str, *, damaged: bool = False) -> Missing:
        return Missing(path, self.label, reason, damaged)

    def _without_path(self, err: Exception, path: str) -> str:
        return str(err).removeprefix(f"{path} of {self.label}: ")


def read_results(name: str, root: Path) -> Results:
    """Return the results of a revision.

    Args:
        name: stage, version, Git revision, DVC experiment, or "workspace".
        root: the project's folder.

    Raises:
        RevisionError: there is no such revision, or it holds nothing of the pipeline.
    """
    revision = find_revision(name, root)
    if revision.read("params.yaml") is None and revision.read("dvc.lock") is None:
        raise RevisionError(
            f"{revision.label}: has neither params.yaml nor dvc.lock in {root.resolve()}; allowed: "
            "the folder of a project of which some stage has run"
        )
    return Results(revision)


def _parse_lock(stages: dict[str, Any]) -> Lock:
    outputs: dict[str, Output] = {}
    deps: dict[str, dict[str, str]] = {}
    params: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, stage in stages.items():
        for out in stage.get("outs", ()):
            outputs[out["path"]] = Output(out["path"], out["md5"], out.get("size"), name)
        deps[name] = {
            dep["path"]: str(dep.get("md5", dep.get("etag"))) for dep in stage.get("deps", ())
        }
        sizes |= {dep["path"]: dep["size"] for dep in stage.get("deps", ()) if "size" in dep}
        params |= flat(stage.get("params", {}).get("params.yaml", {}))
    return Lock(outputs, deps, params, sizes)


def _mapping(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise TypeError(f"found {type(found).__name__}; allowed: a mapping")
    return flat(found)


def _rows(data: bytes) -> Iterator[dict[str, str]]:
    return iter(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def _class_counts(data: bytes, column: str) -> dict[str, ClassCounts]:
    found: dict[str, dict[str, int]] = {}
    for row in _rows(data):
        found.setdefault(row["class"], {})[row["split"]] = int(row[column])
    return {name: ClassCounts(*(by[split] for split in SPLITS)) for name, by in found.items()}
