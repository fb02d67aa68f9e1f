"""Sides of a comparison, made by hand."""

from pathlib import Path

import numpy as np
import pytest

from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.checks import load_checks
from fieldguide.gate.sides import Side
from fieldguide.results.revision import Revision

CLASSES = ["ant", "bee", "crab"]
EACH = 200  # photos a class


@pytest.fixture(scope="session")
def make_predictions():
    """Makes 200 photos a class, so many of them right; the rest is called the next class."""

    def make(ant=180, bee=180, crab=180, *, confidence=0.9, classes=CLASSES):
        labels = np.repeat(np.arange(3), EACH)
        place = np.tile(np.arange(EACH), 3)
        guesses = np.where(place < np.repeat([ant, bee, crab], EACH), labels, (labels + 1) % 3)
        rest = (1 - confidence) / (len(classes) - 1)
        probabilities = np.full((len(labels), len(classes)), rest)
        probabilities[np.arange(len(labels)), guesses] = confidence
        return Predictions(
            [f"{k:03d}.png" for k in range(3 * EACH)], classes, labels, probabilities
        )

    return make


@pytest.fixture(scope="session")
def make_side():
    """Makes a side with the metrics of its predictions: make_side(predictions, **metrics)."""

    def make(predictions, name="main", *, keep=True, **metrics):
        right = predictions.labels == predictions.predicted
        recalls = {
            one: {"recall": float(right[predictions.labels == k].mean()), "photos": EACH}
            for k, one in enumerate(CLASSES)
        }
        numbers = {
            "test.photos": len(right),
            "test.acc": float(right.mean()),
            "test.macro_f1": 0.9,
            "test.ece": 0.01,
            "model.size": 1000,
            "parameters.all": 100,
        }
        numbers |= {key.replace("__", "."): value for key, value in metrics.items()}
        numbers = {key: value for key, value in numbers.items() if value is not None}
        missing = "" if keep else f"metrics/predictions.csv of {name}: cannot be had"
        return Side(
            Revision(Path(), name, None),
            numbers,
            recalls,
            15,
            predictions if keep else None,
            missing,
        )

    return make


@pytest.fixture
def make_checks(tmp_path):
    """Makes checks from YAML, with the three keys of the whole gate before it."""

    def make(text):
        path = tmp_path / "checks.yaml"
        path.write_text(f"significance: 0.05\nresamples: 999\nseed: 0\n{text}", encoding="utf-8")
        return load_checks(path)

    return make
