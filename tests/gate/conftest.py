"""Results of two revisions, made by hand."""

from pathlib import Path

import numpy as np
import pytest

from fieldguide.core.params import load_yaml
from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.checks import Checks
from fieldguide.results.classes import confusion_of
from fieldguide.results.results import Lock, Missing, Output, Results, Timing
from fieldguide.results.revision import Revision

CLASSES = ["ant", "bee", "crab"]
EACH = 200  # photos a class


@pytest.fixture(scope="session")
def make_predictions():
    """Makes 200 photos of each class: so many are right, the others are called the next class."""

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
def make_results():
    """Makes a revision's results, with the metrics of its predictions: make_results(p, "main")."""

    def make(predictions, name="main", *, keep=True, size=1000, seconds=60.0, **metrics):
        results = Results(Revision(Path(), name, None))
        acc = float((predictions.labels == predictions.predicted).mean())
        numbers = {"test.acc": acc, "test.top3_acc": acc, "test.ece": 0.01}
        numbers |= {"test.bal_acc": acc, "test.macro_f1": 0.9}
        numbers |= {key.replace("__", "."): value for key, value in metrics.items()}
        model = Output("models/classifier", "m.dir", size, "train")
        results.lock = Lock({model.path: model}, {"train": {}}, {})
        results.params = {"evaluate.calibration_bins": 15}
        results.data_metrics = {}
        results.train_metrics = {"parameters.all": 100}
        results.test_metrics = {key: value for key, value in numbers.items() if value is not None}
        results.timing = Timing(seconds, 2, 100.0)
        names = predictions.classes
        pairs = zip(predictions.labels, predictions.predicted, strict=True)
        results.confusion = confusion_of([(names[a], names[b]) for a, b in pairs])
        missing = Missing("metrics/predictions.csv", name, "cannot be had")
        results.predictions = predictions if keep else missing
        return results

    return make


@pytest.fixture
def make_checks(tmp_path):
    """Makes checks from YAML; the three keys of the whole gate are added."""

    def make(text):
        path = tmp_path / "checks.yaml"
        path.write_text(f"significance: 0.05\nresamples: 999\nseed: 0\n{text}", encoding="utf-8")
        return load_yaml(path, Checks)

    return make
