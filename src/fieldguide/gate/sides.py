"""What one side of a comparison has to show, read from Git and DVC's cache or remote."""

from __future__ import annotations

import csv
import io
import re
from typing import Any, NamedTuple

import numpy as np

from fieldguide.core.errors import RevisionError
from fieldguide.evaluation.predictions import Predictions
from fieldguide.results.predictions import PREDICTIONS, fetch_predictions
from fieldguide.results.revision import NotAvailableError, Revision, flat, md5_of

MODEL, PREPARED = "models/classifier", "data/prepared"
PER_CLASS = "metrics/per_class.json"
# One index a shard; a store of before format 2 has one a split, of the same columns.
_TEST_INDEX = re.compile(rf"{PREPARED}/test(-[01]+)?\.csv")
METRICS = (
    "metrics/test.json",
    "metrics/train/metrics.json",
    "metrics/prepare.json",
    "metrics/timing.json",
)
SIZE = "model.size"  # bytes; the one number that no metrics file has


class Side(NamedTuple):
    """The reference or the candidate."""

    revision: Revision
    metrics: dict[str, Any]  # "test.acc" -> what the file says, a number or not
    per_class: dict[str, Any]  # class -> precision, recall, photos
    bins: int  # of ECE
    predictions: Predictions | None
    missing: str  # why there are no predictions


def read_side(revision: Revision) -> Side:
    """Read metrics, and predictions where they can be had.

    Raises:
        RevisionError: dvc.lock is missing or contradicts itself, or a file is not the one that it
            names.
    """
    outs = revision.outs()
    evaluated = revision.read_yaml("dvc.lock").get("stages", {}).get("evaluate")
    if not isinstance(evaluated, dict):
        raise RevisionError(
            f"dvc.lock of {revision.label}: has no stage evaluate; run `dvc repro`, and commit it"
        )
    _check_deps(revision, evaluated)
    metrics: dict[str, Any] = {}
    for path in METRICS:
        metrics |= flat(_read_result(revision, path))
    if MODEL in outs and outs[MODEL].size is not None:
        metrics[SIZE] = outs[MODEL].size
    predictions, missing = _read_predictions(revision)
    return Side(
        revision=revision,
        metrics=metrics,
        per_class=_read_result(revision, PER_CLASS),
        bins=_bins(revision, evaluated),
        predictions=predictions,
        missing=missing,
    )


def check_same_test_set(reference: Revision, candidate: Revision) -> None:
    """Compare the photos that the two were tested on: their names, classes and SHA-256.

    Raises:
        RevisionError: they differ, or it cannot be told.
    """
    if reference.outs()[PREPARED].md5 == candidate.outs()[PREPARED].md5:
        return
    old, new = (_test_rows(revision) for revision in (reference, candidate))
    if old == new:
        return
    names = old.keys() & new.keys()
    counts = {
        "removed": len(old.keys() - new.keys()),
        "added": len(new.keys() - old.keys()),
        "with another class": sum(old[name][0] != new[name][0] for name in names),
        "with other content": sum(old[name][1] != new[name][1] for name in names),
    }
    changes = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    raise RevisionError(
        f"the test sets of {reference.label} and {candidate.label} differ (photos {changes}): "
        "scores on different photos are not compared; evaluate the older model on the new photos, "
        "or accept the new test set on the branch that is compared with first"
    )


def align(reference: Side, candidate: Side) -> tuple[Predictions, Predictions] | None:
    """Bring two sides' predictions to the same classes and order; None where one side has none.

    Raises:
        RevisionError: they are not of the same photos.
    """
    old, new = reference.predictions, candidate.predictions
    if old is None or new is None:
        return None
    classes = sorted({*old.classes, *new.classes})
    old, new = (_by_source(_with_classes(side, classes)) for side in (old, new))
    if old.sources != new.sources or not np.array_equal(old.labels, new.labels):
        raise RevisionError(
            f"{PREDICTIONS} of {reference.revision.label} and {candidate.revision.label} are not "
            "of the same photos, though their test sets are the same; run `dvc repro`"
        )
    return old, new


def _read_result(revision: Revision, path: str) -> dict[str, Any]:
    """Return what a metrics file of Git holds, if it is the one that the run wrote."""
    data, out = revision.read(path), revision.outs().get(path)
    if data is None:
        return {}
    if out is not None and md5_of(data) != out.md5:
        raise RevisionError(
            f"{path} of {revision.label}: is not the file that dvc.lock names, so that no run "
            "wrote it; run `dvc repro`"
        )
    found = revision.read_json(path)
    if not isinstance(found, dict):
        raise RevisionError(f"{path} of {revision.label}: found {found!r}; allowed: an object")
    return found


def _check_deps(revision: Revision, evaluated: dict[str, Any]) -> None:
    """Refuse results of another model or test set than the one that lies beside them."""
    outs = revision.outs()
    used = {dep["path"]: dep.get("md5") for dep in evaluated.get("deps", ())}
    for path in (PREPARED, MODEL):
        if path not in outs or path not in used or used[path] != outs[path].md5:
            raise RevisionError(
                f"dvc.lock of {revision.label}: evaluate did not run on its {path}, but on an "
                "earlier one; run `dvc repro`"
            )


def _bins(revision: Revision, evaluated: dict[str, Any]) -> int:
    params = evaluated.get("params", {}).get("params.yaml", {})
    found = flat(params).get("evaluate.calibration_bins")
    if type(found) is not int or found < 1:
        raise RevisionError(
            f"dvc.lock of {revision.label}: evaluate.calibration_bins: found {found!r}; allowed: "
            "a number of bins; run `dvc repro`"
        )
    return found


def _read_predictions(revision: Revision) -> tuple[Predictions | None, str]:
    try:
        predictions = fetch_predictions(revision)
    except NotAvailableError as err:
        return None, str(err)
    if len(predictions.labels) == 0 or not np.isfinite(predictions.probabilities).all():
        raise RevisionError(
            f"{PREDICTIONS} of {revision.label}: no photo, or a probability that is no number; "
            "run `dvc repro`"
        )
    return predictions, ""


def _test_rows(revision: Revision) -> dict[str, tuple[str, str]]:
    """Source name -> class and SHA-256 of every test photo."""
    found: dict[str, tuple[str, str]] = {}
    for path in filter(_TEST_INDEX.fullmatch, revision.files(PREPARED)):
        text = revision.fetch(path).decode("utf-8")
        try:
            for row in csv.DictReader(io.StringIO(text, newline="")):
                found[row["source"]] = (row["class"], row["sha256"])
        except KeyError as err:
            raise RevisionError(
                f"{path} of {revision.label}: has no column {err}; run `dvc repro`"
            ) from err
    return found


def _with_classes(predictions: Predictions, classes: list[str]) -> Predictions:
    """Place the columns of (N, k) probabilities in those of all classes, 0 elsewhere: (N, K)."""
    columns = np.array([classes.index(name) for name in predictions.classes], dtype=np.int64)
    probabilities = np.zeros((len(predictions.labels), len(classes)))
    probabilities[:, columns] = predictions.probabilities
    return Predictions(predictions.sources, classes, columns[predictions.labels], probabilities)


def _by_source(predictions: Predictions) -> Predictions:
    """Sort by the names of the photos, whatever order their stores have."""
    order = sorted(range(len(predictions.sources)), key=predictions.sources.__getitem__)
    return Predictions(
        [predictions.sources[row] for row in order],
        predictions.classes,
        predictions.labels[order],
        predictions.probabilities[order],
    )
