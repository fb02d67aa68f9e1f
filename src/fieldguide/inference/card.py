"""The model card that `fieldguide serve` shows."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from fieldguide.core.errors import FieldguideError
from fieldguide.core.params import Fraction
from fieldguide.inference.classifier import Classifier
from fieldguide.results.classes import wilson

if TYPE_CHECKING:  # the bundle imports PyTorch, which an .onnx file does not need
    from fieldguide.network.bundle import Bundle


@dataclass(frozen=True)
class TestScores:
    """Accuracy on the test set."""

    __test__ = False  # pytest would take the class for tests

    photos: int
    acc: float  # in [0, 1]
    acc_low: float  # 95 % interval
    acc_high: float


@dataclass(frozen=True)
class Card:
    """Facts about a classifier; None stands for an unknown one."""

    architecture: str
    input_size: int  # pixels
    val_acc: float | None
    started_from: str | None
    test: TestScores | None


def make_card(classifier: Classifier, project: Path) -> Card:
    """Collect the facts.

    Args:
        classifier: the card of a bundle names its architecture and how it was trained.
        project: folder with metrics/test.json and plots/confusion.csv, or without results.

    Raises:
        FieldguideError: one of these files is not what `evaluate` writes.
    """
    bundle: Bundle | None = getattr(classifier, "bundle", None)
    test = _read_scores(project / "metrics" / "test.json", project / "plots" / "confusion.csv")
    if bundle is None:
        return Card("exported", classifier.image_size, None, None, test)
    return Card(bundle.name, bundle.preprocessing.size, bundle.val_acc, bundle.started_from, test)


class _Accuracy(BaseModel):
    acc: Fraction = Field(ge=0, le=1)


class _TestMetrics(BaseModel):
    test: _Accuracy


def _read_scores(metrics: Path, confusion: Path) -> TestScores | None:
    """Read the accuracy, and count the photos, which have a row each; None if a file is missing."""
    if not (metrics.is_file() and confusion.is_file()):
        return None
    try:
        acc = _TestMetrics.model_validate_json(metrics.read_bytes()).test.acc
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise FieldguideError(f"{metrics}: key '{key}': {first['msg']}") from err
    try:
        with confusion.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        interval = wilson(round(acc * len(rows)), len(rows))
        if header != ["actual", "predicted"] or interval is None:
            raise ValueError(f"found header {header} and {len(rows)} rows")
    except (ValueError, csv.Error) as err:
        raise FieldguideError(
            f"{confusion}: {err}; allowed: columns actual,predicted and one or more rows"
        ) from err
    return TestScores(len(rows), acc, *interval)
