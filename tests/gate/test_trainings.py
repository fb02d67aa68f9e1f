"""The gate on real trainings: seven seeds pass each other, three bad models fail.

trainings.csv is written by `python benchmarks/gate.py ../gate-trainings --outcomes ...`, which says
what was trained.
"""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.checks import load_checks
from fieldguide.gate.judge import judge
from fieldguide.gate.sides import Side
from fieldguide.results.revision import Revision

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SEEDS = [f"seed-{seed}" for seed in range(7)]


@pytest.fixture(scope="module")
def sides():
    """Each model's answers to the 1,000 test photos of the sample."""
    with Path(__file__).with_name("trainings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["true"]) for row in rows])

    def side(name):
        answers = np.array([int(row[f"{name} answer"]) for row in rows])
        confidence = np.array([float(row[f"{name} confidence"]) for row in rows])
        probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
        probabilities[np.arange(len(rows)), answers] = confidence
        metrics = {"test.photos": len(rows), "model.size": 1, "parameters.all": 1}
        for score in ("acc", "macro_f1", "ece"):
            metrics[f"test.{score}"] = 0.5  # tests are made of the predictions
        predictions = Predictions(
            [str(k) for k in range(len(rows))], CLASSES, labels, probabilities
        )
        return Side(Revision(Path(), name, None), metrics, {}, 15, predictions, "")

    return {name: side(name) for name in [*SEEDS, "half", "swapped", "missing"]}


@pytest.fixture(scope="module")
def checks():
    """The project's own, with a tenth of the resamples."""
    return load_checks(ROOT / "checks.yaml").model_copy(update={"resamples": 999})


def test_seeds_pass_each_other(sides, checks):
    failed = [
        (old, new)
        for old, new in itertools.permutations(SEEDS, 2)
        if judge(checks, sides[old], sides[new]).exit_status != 0
    ]
    # Of 42 comparisons of equal models 2.1 may fail at the significance of 0.05.
    assert len(failed) <= checks.significance * 42


@pytest.mark.parametrize(
    ("bad", "check", "words"),
    [
        ("half", "test.acc", "test.acc fell from"),
        ("swapped", "test.acc", "dog −0."),
        ("missing", "recall.deer", "recall.deer fell from"),
    ],
)
def test_a_bad_model_fails_against_every_seed(sides, checks, bad, check, words):
    for seed in SEEDS:
        outcome = judge(checks, sides[seed], sides[bad])
        assert outcome.exit_status == 1
        failed = {one.name: one.reason for one in outcome.findings if one.reason}
        assert words in failed[check]
