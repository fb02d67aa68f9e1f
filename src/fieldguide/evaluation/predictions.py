"""Reads and writes `metrics/predictions.csv`: the classifier's prediction for each test photo."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import StoreError
from fieldguide.core.files import write_csv

TOP = 3  # most probable classes that count for test.top3_acc
_FIXED = ["source", "true", "predicted"]  # columns before those of the probabilities


class Predictions(NamedTuple):
    """Predictions for N photos, in the order of the test split."""

    sources: list[str]
    classes: list[str]
    labels: npt.NDArray[np.int64]  # (N,), true class, in [0, K)
    probabilities: npt.NDArray[np.float64]  # (N, K), rows summing to 1

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Most probable class: (N, K) -> (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """Probability of the predicted class: (N, K) -> (N,)."""
        return np.asarray(self.probabilities.max(axis=1))


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a line per photo: source, true class, predicted class, `p_<class>` of each class."""
    names = predictions.classes
    columns = zip(
        predictions.sources,
        predictions.labels,
        predictions.predicted,
        predictions.probabilities,
        strict=True,
    )
    rows = (
        [source, names[label], names[guess], *probabilities.tolist()]
        for source, label, guess, probabilities in columns
    )
    write_csv(path, [*_FIXED, *(f"p_{name}" for name in names)], rows)


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote; the probabilities are the same to the last digit.

    Raises:
        StoreError: the file is missing or is not a table of predictions.
    """
    try:
        return parse_predictions(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise StoreError(f"{path}: not a table of predictions ({err}); run `dvc repro`") from err


def parse_predictions(text: str) -> Predictions:
    """Parse the text of predictions.csv.

    Raises:
        ValueError: it is another table.
    """
    try:
        header, *lines = csv.reader(io.StringIO(text, newline=""))
        fixed, classes = header[: len(_FIXED)], header[len(_FIXED) :]
        if fixed != _FIXED:
            raise ValueError(f"found columns {fixed}; allowed: {_FIXED}")
        classes = [name.removeprefix("p_") for name in classes]
        probabilities = np.array([line[len(_FIXED) :] for line in lines], dtype=np.float64)
        if not np.isfinite(probabilities).all():
            raise ValueError("a probability is not a finite number")
        return Predictions(
            sources=[line[0] for line in lines],
            classes=classes,
            labels=np.array([classes.index(line[1]) for line in lines], dtype=np.int64),
            probabilities=probabilities.reshape(len(lines), len(classes)),
        )
    except (IndexError, csv.Error) as err:
        raise ValueError(str(err)) from err
